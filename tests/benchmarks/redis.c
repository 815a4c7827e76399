/* Redis with the same workload: MGET and MSET of rows of dim float32 by 8-byte keys; one client, one server (no persistence), tcp on loopback.
 *   bench-redis PORT [--rows N] [--dim D] [--seconds S]: fills, then reads and writes; prints redis.pull.* and redis.push.* */
#include <arpa/inet.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>
#include "tests/benchmarks/workload.h"

enum { BATCHES = 40 };
static int fd;
static char *in, *out;

static void send_all(size_t n) {
    for (size_t at = 0; at < n;) {
        ssize_t k = write(fd, out + at, n - at);
        if (k <= 0) exit(1);
        at += (size_t)k;
    }
}
static void receive(size_t n) {
    for (size_t at = 0; at < n;) {
        ssize_t k = read(fd, in, n - at < (8u << 20) ? n - at : 8u << 20);
        if (k <= 0) exit(1);
        at += (size_t)k;
    }
}
static size_t put(size_t at, const void *data, size_t n) {
    at += (size_t)sprintf(out + at, "$%zu\r\n", n);
    memcpy(out + at, data, n);
    memcpy(out + at + n, "\r\n", 2);
    return at + n + 2;
}

static void set(const uint64_t *keys, size_t n, const float *row, size_t bytes) {
    size_t at = (size_t)sprintf(out, "*%zu\r\n", 2 * n + 1);
    at = put(at, "MSET", 4);
    for (size_t i = 0; i < n; i++) {
        at = put(at, &keys[i], 8);
        at = put(at, row, bytes);
    }
    send_all(at);
    receive(5); /* +OK */
}
static void get(const uint64_t *keys, size_t n, size_t bytes) {
    size_t at = (size_t)sprintf(out, "*%zu\r\n", n + 1);
    at = put(at, "MGET", 4);
    for (size_t i = 0; i < n; i++) at = put(at, &keys[i], 8);
    send_all(at);
    char head[40];
    receive((size_t)snprintf(head, sizeof head, "*%zu\r\n", n) + n * ((size_t)snprintf(head, sizeof head, "$%zu\r\n", bytes) + bytes + 2));
}

int main(int argc, char **argv) {
    static const struct option options[] = {{"rows", 1, 0, 'r'}, {"dim", 1, 0, 'd'}, {"seconds", 1, 0, 's'}, {0}};
    uint64_t n_rows = 1000000;
    uint32_t dim = 16;
    double seconds = 2;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 'r') n_rows = strtoull(optarg, NULL, 10);
        else if (c == 'd') dim = (uint32_t)atoi(optarg);
        else if (c == 's') seconds = atof(optarg);
        else return 2;
    }
    if (optind + 1 != argc) return 2;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)atoi(argv[optind]))};
    fd = socket(AF_INET, SOCK_STREAM, 0);
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0) return 1;
    in = malloc(8u << 20);
    out = malloc(64u << 20);
    float *row = calloc(dim, sizeof *row);
    const size_t bytes = dim * sizeof *row;
    static uint64_t keys[10000];
    for (uint64_t at = 0; at < n_rows; at += 10000) {
        size_t n = n_rows - at < 10000 ? (size_t)(n_rows - at) : 10000;
        for (size_t i = 0; i < n; i++) keys[i] = key_of(at + i);
        set(keys, n, row, bytes);
    }
    struct batch batches[BATCHES];
    make_batches(batches, BATCHES, n_rows, RAW_KEYS, 1);
    char name[80], size[32];
    for (int push = 0; push < 2; push++) {
        double begin = now_s();
        uint64_t rows = 0;
        for (size_t i = 0; now_s() - begin < seconds; i++) {
            const struct batch *b = &batches[i % BATCHES];
            if (push) set(b->keys, b->n, row, bytes);
            else get(b->keys, b->n, bytes);
            rows += b->n;
        }
        snprintf(name, sizeof name, "redis.%s.%s", push ? "push" : "pull", size_name(n_rows, dim, size));
        report(name, (double)rows / (now_s() - begin) / 1e6, "Mrows/s", -1, NULL);
    }
    return 0;
}
