/* One shard on ZeroMQ, without a coordinator: what bench-wire asks.
 *   bench-server DIM [CODEC [MEMORY|- [I OF]]]: shard I (from 0) of OF; prints its address. */
#include <unistd.h>
#include "common/shell/keys.h"
#include "common/shell/shell.h"
#include "common/wire.h"
#include "ps/shard.h"
#include "ps/tier/rocksdb.h"
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
    struct pn_keys *keys = NULL; /* BENCH_KEYS: a folder with the keys of a ps "server" and a worker "client" */
    if ((getenv("BENCH_KEYS") != NULL && pn_keys_open(&keys, getenv("BENCH_KEYS"), "server", &err) != PN_OK) || pn_shell_open(&shell, "server", "tcp://127.0.0.1:0", keys, PN_WARN, &err) != PN_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    char text[1000], memory[60] = "", dir[100];
    const bool tiered = argc > 3 && strcmp(argv[3], "-") != 0;
    const uint32_t n_shards = argc > 5 ? (uint32_t)atoi(argv[5]) : 1, i_shard = argc > 5 ? (uint32_t)atoi(argv[4]) : 0;
    if (n_shards < 1 || i_shard >= n_shards) return 2;
    if (tiered) snprintf(memory, sizeof memory, ", memory: %s", argv[3]);
    if (getenv("BENCH_PREALLOCATE")) snprintf(memory, sizeof memory, ", preallocate: %s", getenv("BENCH_PREALLOCATE"));
    snprintf(text, sizeof text, BENCH_JOB, memory, atoi(argv[1]) - 1, argc > 2 ? argv[2] : "float32");
    snprintf(dir, sizeof dir, "build/bench-tier-%d", (int)getpid());
    if (pn_shard_open(&shard, pn_shell_env(shell), pn_tiers_rocksdb(dir), text, "bench", 1, 1, 4, (i_shard * PN_SLOTS + n_shards - 1) / n_shards,
                      ((i_shard + 1) * PN_SLOTS + n_shards - 1) / n_shards - 1, &err) != PN_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    if (getenv("BENCH_SLICE")) shard->slice = strtoull(getenv("BENCH_SLICE"), NULL, 10); /* 0xffffffff: pushes go in whole */
    printf("%s\n", pn_shell_address(shell));
    fflush(stdout);
    static const struct pn_core_ops ops = {.start = start, .message = message};
    pn_shell_run(shell, &ops, shard);
    if (tiered) {
        const struct pn_table_counters *c = pn_table_counters(shard->tables[0]);
        fprintf(stderr, "second tier: %llu of %llu rows, %llu came into memory, %llu left it\n", (unsigned long long)pn_table_cold_rows(shard->tables[0]),
                (unsigned long long)pn_table_rows(shard->tables[0]), (unsigned long long)c->promoted, (unsigned long long)c->demoted);
    }
    return 0;
}
