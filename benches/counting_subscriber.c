/* What receiving from a broker costs at least: counts messages and acknowledges them, and does nothing else.

   counting_subscriber PORT QOS MESSAGES

   MQTT 3.1.1 to 127.0.0.1, filter bench/#. Reads up to 64 KiB at a time, as soon as there is anything; the PUBACKs of a
   read leave in one write. Ends after MESSAGES messages; exit code 1 if the connection ends before. */

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static unsigned char in[1 << 17], acks[1 << 17];

static void send_all(int fd, const unsigned char *bytes, size_t size) {
    while (size > 0) {
        ssize_t sent = write(fd, bytes, size);
        if (sent <= 0) exit(1);
        bytes += sent;
        size -= (size_t)sent;
    }
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    long wanted = atol(argv[3]), count = 0;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(argv[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) return 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    unsigned char hello[] = "\x10\x11\0\4MQTT\4\2\0\x3c\0\5count\x82\x0c\0\1\0\7bench/#\0";
    hello[sizeof hello - 2] = (unsigned char)atoi(argv[2]);
    send_all(fd, hello, sizeof hello - 1);

    size_t have = 0;
    while (count < wanted) {
        ssize_t got = read(fd, in + have, 65536);
        if (got <= 0) return 1;
        have += (size_t)got;
        size_t at = 0, owed = 0;
        while (have - at >= 2) {
            size_t length = 0, body = at + 1, shift = 0;
            while (body < have && body < at + 5) {
                unsigned char byte = in[body++];
                length |= (size_t)(byte & 0x7f) << shift;
                shift += 7;
                if (byte < 0x80) break;
            }
            if (in[body - 1] >= 0x80 || body + length > have) break;
            if (in[at] >> 4 == 3) {
                count++;
                if (in[at] & 0x02) {
                    size_t mid = body + 2 + ((size_t)in[body] << 8 | in[body + 1]);
                    memcpy(acks + owed, (unsigned char[]){0x40, 2, in[mid], in[mid + 1]}, 4);
                    owed += 4;
                }
            }
            at = body + length;
        }
        memmove(in, in + at, have - at);
        have -= at;
        send_all(fd, acks, owed);
    }
    send_all(fd, (unsigned char[]){0xe0, 0}, 2);
    close(fd);
    return 0;
}
