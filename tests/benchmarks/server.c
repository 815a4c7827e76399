/* One shard that owns all slots, on ZeroMQ, without a coordinator: what bench-wire asks.  bench-server DIM [CODEC]; prints its address. */
#include "common/shell/shell.h"
#include "common/wire.h"
#include "ps/shard.h"
#include "tests/benchmarks/workload.h"

static struct pn_shard *shard;

static void start(void *core) { (void)core; }
static void message(void *core, pn_peer from, struct pn_msg *m) {
    (void)core;
    struct pn_frame f;
    if (pn_frame_open(&f, m->data, m->n_bytes, NULL) != PN_OK) return;
    pn_shard_message(shard, from, m, &f);
    pn_frame_close(&f);
}

int main(int argc, char **argv) {
    struct pn_shell *shell;
    struct pn_error err;
    if (argc < 2) return 2;
    if (pn_shell_open(&shell, "server", "tcp://127.0.0.1:0", PN_WARN, &err) != PN_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    char text[1000];
    snprintf(text, sizeof text, BENCH_JOB, atoi(argv[1]) - 1, argc > 2 ? argv[2] : "float32");
    if (pn_shard_open(&shard, pn_shell_env(shell), NULL, text, "bench", 1, 1, 4, 0, PN_SLOTS - 1, &err) != PN_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    printf("%s\n", pn_shell_address(shell));
    fflush(stdout);
    static const struct pn_core_ops ops = {.start = start, .message = message};
    pn_shell_run(shell, &ops, shard);
    return 0;
}
