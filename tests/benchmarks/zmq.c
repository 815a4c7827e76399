/* ZeroMQ alone with messages of the same sizes, a process each, tcp on loopback: what the transport leaves to everybody.
 *   bench-zmq [--keys N] [--dim D] [--in-flight K] [--seconds S] [--op pull|push] [--name NAME] */
#include <getopt.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>
#include "tests/benchmarks/workload.h"

enum { HEAD = 128 };

static void serve(int port_pipe, size_t answer) {
    void *context = zmq_ctx_new(), *socket = zmq_socket(context, ZMQ_ROUTER);
    char address[100];
    size_t n = sizeof address;
    if (zmq_bind(socket, "tcp://127.0.0.1:*") != 0) _exit(1);
    zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, address, &n);
    if (write(port_pipe, address, n) < 0) _exit(1);
    for (;;) {
        zmq_msg_t id, m, out;
        zmq_msg_init(&id);
        zmq_msg_init(&m);
        if (zmq_msg_recv(&id, socket, 0) < 0 || zmq_msg_recv(&m, socket, 0) < 0) _exit(0);
        zmq_msg_close(&m);
        zmq_msg_init_size(&out, answer);
        memset(zmq_msg_data(&out), 1, 64);
        zmq_msg_send(&id, socket, ZMQ_SNDMORE);
        zmq_msg_send(&out, socket, 0);
    }
}

int main(int argc, char **argv) {
    static const struct option options[] = {{"keys", 1, 0, 'k'}, {"dim", 1, 0, 'd'}, {"in-flight", 1, 0, 'f'}, {"seconds", 1, 0, 's'}, {"op", 1, 0, 'o'}, {"name", 1, 0, 'n'}, {0}};
    size_t keys = 18200, dim = 16, in_flight = 4;
    double seconds = 2;
    bool push = false;
    const char *name = "zmq";
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 'k') keys = strtoull(optarg, NULL, 10);
        else if (c == 'd') dim = strtoull(optarg, NULL, 10);
        else if (c == 'f') in_flight = strtoull(optarg, NULL, 10);
        else if (c == 's') seconds = atof(optarg);
        else if (c == 'o') push = strcmp(optarg, "push") == 0;
        else if (c == 'n') name = optarg;
        else return 2;
    }
    const size_t rows = keys * dim * 4, ask = HEAD + keys * 8 + (push ? rows : 0), answer = HEAD + (push ? 0 : rows);
    int told[2];
    if (pipe(told) != 0) return 1;
    pid_t server = fork();
    if (server == 0) serve(told[1], answer);
    char address[100];
    if (read(told[0], address, sizeof address) <= 0) return 1;
    void *context = zmq_ctx_new(), *socket = zmq_socket(context, ZMQ_DEALER);
    zmq_connect(socket, address);
    static double latencies[4000000], since[64];
    size_t n = 0, first = 0, last = 0;
    double begin = 0, end = now_s() + seconds;
    for (;;) {
        while (last - first < in_flight && now_s() < end) {
            zmq_msg_t m;
            zmq_msg_init_size(&m, ask);
            memset(zmq_msg_data(&m), 1, 64);
            since[last++ % 64] = now_s();
            zmq_msg_send(&m, socket, 0);
        }
        if (first == last) break;
        zmq_msg_t m;
        zmq_msg_init(&m);
        if (zmq_msg_recv(&m, socket, 0) < 0) return 1;
        zmq_msg_close(&m);
        double now = now_s();
        if (first == 2 * in_flight) begin = now;
        if (first > 2 * in_flight && n < 4000000) latencies[n++] = now - since[first % 64];
        first++;
    }
    double took = now_s() - begin;
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    char full[100];
    report(name, (double)n * (double)keys / took / 1e6, "Mrows/s", -1, NULL);
    snprintf(full, sizeof full, "%s.requests", name);
    report(full, (double)n / took, "requests/s", -1, NULL);
    snprintf(full, sizeof full, "%s.p50", name);
    report(full, quantile(latencies, n, 0.5) * 1e6, "us", -1, NULL);
    return 0;
}
