// Publishes a message of each QoS and a large one, and gets them back. Prints one JSON line; exits 1 with the error.
//   node exchange.js mqtt://127.0.0.1:1883 4|5
const mqtt = require("mqtt");

const [url, version] = process.argv.slice(2);
const client = mqtt.connect(url, {
  protocolVersion: Number(version),
  clientId: `js-${version}`,
  clean: true,
  reconnectPeriod: 0,
  connectTimeout: 5000,
  wsOptions: {headers: {Origin: "https://dashboard.example"}},
});
const wanted = ["zero", "one", "two", "x".repeat(200000)];
const got = [];

client.on("error", (error) => { console.error(String(error)); process.exit(1); });
client.on("connect", async () => {
  await client.subscribeAsync("js/#", {qos: 2});
  for (const [qos, payload] of wanted.entries()) {
    const properties = Number(version) === 5 ? {properties: {userProperties: {n: String(qos)}, contentType: "text"}} : {};
    await client.publishAsync(`js/${qos}`, payload, {qos: Math.min(qos, 2), ...properties});
  }
});
client.on("message", async (topic, payload, packet) => {
  const listed = packet.properties && packet.properties.userProperties;
  got.push({topic, size: payload.length, qos: packet.qos, n: listed ? listed.n : null});
  if (got.length === wanted.length) {
    console.log(JSON.stringify(got));
    await client.endAsync();
  }
});
