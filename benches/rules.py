"""What rules cost: an expression beside a function written by hand, and the engine per event.

    python benches/rules.py [--quick]

Fixed seed; every ratio is measured in one run, side by side, best of several rounds.
"""

from __future__ import annotations

import argparse
import platform
import random
import tempfile
import timeit
from pathlib import Path

import cel

from gateway.model import Batch, Kind, Stamp
from gateway.rules.engine import Engine
from gateway.rules.expressions.expression import compile_condition
from gateway.rules.reading.language import load_rules

ROUNDS = 7
BATCH = 1_000

MATCHING = """
rules:
  - id: hot
    on: devices/{device}/climate
    when: temperature > 25 and humidity < 60
    for: 1m
    stale_after: 5m
    then: [{notify: {to: oncall, text: "{device} is at {temperature} °C"}}]
"""
EACH = """
rules:
  - id: each
    on: devices/{device}/climate
    when: temperature > 25 and humidity < 60
    then: [{notify: {to: oncall, text: "hot"}}]
"""
THERMOSTAT = """
thermostats:
  - id: living
    mode: heat
    sensor: {topic: devices/d0/climate, field: temperature}
    on_below: 20.5
    off_above: 21.5
    min_off: 3m
    stale_after: 10m
    on_stale: "off"
    actuator: {topic: devices/d0/heater/set, "on": "ON", "off": "OFF"}
"""


def by_hand(fields, _captured):
    """The same condition as a programmer would write it who trusts every payload."""
    return fields["temperature"] > 25 and fields["humidity"] < 60


def by_hand_tolerant(fields, _captured):
    """And as one would who has met real devices, though NaN and booleans still pass."""
    temperature = fields.get("temperature")
    humidity = fields.get("humidity")
    if temperature is None or humidity is None:
        return None
    return temperature > 25 and humidity < 60


def best_ns(call, number: int) -> float:
    """Nanoseconds per call, the best of several rounds."""
    return min(timeit.repeat(call, number=number, repeat=ROUNDS)) / number * 1e9


def expressions(number: int) -> None:
    """One condition on one payload."""
    evaluate = compile_condition("temperature > 25 and humidity < 60").evaluate
    floats = {"temperature": 26.5, "humidity": 41.0, "battery": 97}
    whole = {"temperature": 26, "humidity": 41, "battery": 97}
    missing = {"temperature": 26.5}
    cel_program = cel.compile("temperature > 25.0 && humidity < 60.0")
    rows = [
        ("by hand", by_hand, floats),
        ("by hand, tolerant of missing fields", by_hand_tolerant, floats),
        ("compiled expression, floats", evaluate, floats),
        ("compiled expression, whole numbers", evaluate, whole),
        ("compiled expression, a field is missing", evaluate, missing),
        ("common-expression-language, compiled", lambda fields, _captured: cel_program.execute(fields), floats),
    ]
    empty = best_ns(lambda: None, number)
    reference = 0.0
    for name, function, fields in rows:
        cost = best_ns(lambda f=function, p=fields: f(p, p), number) - empty
        reference = reference or cost
        print(f"  {name:44} {cost:7.0f} ns   {cost / reference:5.2f} x by hand")


WHERE = """
rules:
  - id: where-0
    on: devices/{device}/climate
    where: temperature > 25 and humidity < 60
    then: [{notify: {to: oncall, text: "hot"}}]
"""


def per_rule(count: int) -> None:
    """What one more matching rule costs per event, beside the function by hand, and with what it looks at."""
    load = batches(random.Random(7), 50, count)
    floats = {"temperature": 20.5, "humidity": 41.0}
    by_hand_ns = best_ns(lambda: by_hand(floats, floats), 200_000) - best_ns(lambda: None, 200_000)
    print(f"  {'the condition by hand':56} {by_hand_ns:7.0f} ns")
    one = WHERE.split("rules:\n")[1]
    phases = one.replace("where:", "when:")
    for name, rule in (
        ("a rule without state (`where`)", one),
        ("a rule with phases (`when`), idle", phases),
        ("a threshold that may be crossed", phases.replace("on: devices/{device}/climate", CROSSING)),
        (
            'with `device("d1").temperature` in its place',
            one.replace("temperature >", 'device("d1", 1h).temperature >'),
        ),
    ):
        costs = []
        for rules in (1, 11):
            engine = engine_of("rules:\n" + "".join(rule.replace("where-0", f"rule-{n}") for n in range(rules)))
            run_all(engine, load)
            costs.append(best_ns(lambda e=engine: run_all(e, load), 1) / (count * BATCH))
        marginal_ns = (costs[1] - costs[0]) / 10
        print(f"  {name:56} {marginal_ns:7.0f} ns   {marginal_ns / by_hand_ns:5.2f} x by hand")


CROSSING = "on: {topic: 'devices/{device}/climate', field: temperature, above: 25}"


def run_all(engine: Engine, load: list[Batch]) -> None:
    """Once through."""
    for batch in load:
        engine.run(batch)


def windows(seconds: int) -> None:
    """Fifty devices, each once a second, with windows of five minutes that are full."""
    names = [f"devices/d{number}/climate" for number in range(50)]
    rng = random.Random(7)

    def second(at_s: int) -> Batch:
        values = [{"temperature": rng.uniform(15, 24), "humidity": 50} for _ in names]
        stamp = Stamp(0, 0, at_s * 1_000_000_000, bytes(16), True)
        columns = {"formats": [1] * 50, "flags": [1] * 50, "payloads": [b""] * 50}
        return Batch(Kind.EVENTS, stamp, names, values=values, seq=at_s * 50, **columns)

    for function in ("avg", "min", "median", "p95", "stddev"):
        engine = engine_of(WHERE.replace("temperature > 25 and", f"{function}(temperature, 5m) > 25 and"))
        run_all(engine, [second(at_s) for at_s in range(300)])
        load = [second(at_s) for at_s in range(300, 300 + seconds)]
        cost_us = timeit.timeit(lambda e=engine, b=load: run_all(e, b), number=1) / (seconds * 50) * 1e6
        print(f"  {function + '(temperature, 5m), 300 samples in it':56} {cost_us:7.1f} µs/event")
    for function in ("avg", "stddev", "p95"):
        print(f"  {function + '(temperature, 5m), 9,000 samples in it':56} {_of_a_fast_sensor(function):7.1f} µs/event")


def _of_a_fast_sensor(function: str, per_second: int = 30, events: int = 300) -> float:
    """One device that speaks thirty times a second: µs per event."""
    engine = engine_of(WHERE.replace("temperature > 25 and", f"{function}(temperature, 5m) > 25 and"))
    load = []
    for number in range(300 * per_second + events):
        stamp = Stamp(0, 0, number * 1_000_000_000 // per_second, bytes(16), True)
        values = [{"temperature": 20.0 + number % 7, "humidity": 50}]
        load.append(Batch(Kind.EVENTS, stamp, ["devices/d0/climate"], [1], [1], [b""], values=values, seq=number))
    run_all(engine, load[:1])
    window = engine._machines[0]["d0"].windows[0]
    for batch in load[1:-events]:
        window.add(batch.stamp.elapsed_ns, batch.values[0]["temperature"])
    return timeit.timeit(lambda: run_all(engine, load[-events:]), number=1) / events * 1e6


def engine_of(*sources: str) -> Engine:
    """An engine of rules in YAML, one file each."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{number}.yaml") for number in range(len(sources))]
        for path, source in zip(paths, sources, strict=True):
            path.write_text(source, encoding="utf-8")
        return Engine(load_rules(paths))


def elsewhere(count: int) -> list[str]:
    """Files of rules that listen to other topics, a thousand in each."""
    entries = [
        f"  - {{id: other-{n}, on: 'plant/{n}/{{part}}/x', when: v > {n}, then: [{{notify: {{to: x, text: y}}}}]}}\n"
        for n in range(count)
    ]
    return ["rules:\n" + "".join(entries[start : start + 1_000]) for start in range(0, count, 1_000)]


def batches(rng: random.Random, topics: int, count: int) -> list[Batch]:
    """Cool readings in batches, each a millisecond after the one before."""
    result = []
    for index in range(count):
        names = [f"devices/d{rng.randrange(topics)}/climate" for _ in range(BATCH)]
        values = [{"temperature": rng.uniform(15, 24), "humidity": rng.uniform(30, 90)} for _ in names]
        stamp = Stamp(0, 0, index * 1_000_000, bytes(16), True)
        result.append(
            Batch(
                kind=Kind.EVENTS,
                stamp=stamp,
                topics=names,
                formats=[1] * BATCH,
                flags=[1] * BATCH,
                payloads=[b""] * BATCH,
                values=values,
                seq=index * BATCH,
            )
        )
    return result


def engines(count: int) -> None:
    """Events through the engine: µs per event, by the number of rules loaded and matching."""
    rng = random.Random(7)
    load = batches(rng, 50, count)
    another = EACH.split("rules:\n")[1]
    rows = [
        ("no rule matches (1 loaded)", [EACH.replace("devices/", "other/")]),
        ("1 rule matches, 1 loaded", [MATCHING]),
        ("1 rule matches, 100 loaded", [MATCHING, *elsewhere(99)]),
        ("1 rule matches, 10,000 loaded", [MATCHING, *elsewhere(9_999)]),
        ("10 rules match, 10 loaded", [EACH + "".join(another.replace("each", f"each-{n}") for n in range(9))]),
        ("1 thermostat, every 50th event is its sensor's", [THERMOSTAT]),
    ]
    for name, sources in rows:
        engine = engine_of(*sources)

        def live(engine: Engine = engine) -> None:
            for batch in load:
                engine.run(batch)

        live()  # topics are routed once
        cost = min(timeit.repeat(live, number=1, repeat=ROUNDS)) / (count * BATCH) * 1e6
        print(f"  {name:48} {cost:6.3f} µs/event")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the work")
    share = 10 if parser.parse_args().quick else 1
    print(f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}")
    print("condition `temperature > 25 and humidity < 60`:")
    expressions(500_000 // share)
    print(f"engine, batches of {BATCH:,}, 50 devices:")
    engines(100 // share)
    print("one more matching rule, per event:")
    per_rule(50 // share)
    print("windows, 50 devices at one event a second:")
    windows(200 // share)


if __name__ == "__main__":
    main()
