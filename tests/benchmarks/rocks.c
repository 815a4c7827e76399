/* RocksDB alone, as one would use it: tables of blocks, a Bloom filter, a block cache of the memory that a tiered table has; rows by MultiGet.
 *   bench-rocks --rows N --dim D --cache BYTES [--seconds S] [--name NAME] */
#include <getopt.h>
#include <rocksdb/c.h>
#include <unistd.h>
#include "tests/benchmarks/workload.h"

enum { BATCHES = 200, WARM = 50 };

static void must(const char *what, char *err) {
    if (err == NULL) return;
    fprintf(stderr, "%s: %s\n", what, err);
    exit(1);
}

int main(int argc, char **argv) {
    static const struct option options[] = {{"rows", 1, 0, 'r'}, {"dim", 1, 0, 'd'}, {"cache", 1, 0, 'c'}, {"seconds", 1, 0, 's'}, {"name", 1, 0, 'n'}, {0}};
    uint64_t n_rows = 10000000;
    size_t dim = 16, cache = 140u << 20;
    double seconds = 3;
    const char *name = "rocksdb";
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 'r') n_rows = strtoull(optarg, NULL, 10);
        else if (c == 'd') dim = strtoull(optarg, NULL, 10);
        else if (c == 'c') cache = strtoull(optarg, NULL, 10);
        else if (c == 's') seconds = atof(optarg);
        else if (c == 'n') name = optarg;
        else return 2;
    }
    char dir[100], *err = NULL;
    snprintf(dir, sizeof dir, "build/bench-rocks-%d", (int)getpid());
    rocksdb_options_t *o = rocksdb_options_create();
    rocksdb_block_based_table_options_t *b = rocksdb_block_based_options_create();
    rocksdb_options_set_create_if_missing(o, 1);
    rocksdb_options_set_compression(o, rocksdb_no_compression);
    rocksdb_options_increase_parallelism(o, 2);
    rocksdb_options_set_write_buffer_size(o, 64u << 20);
    rocksdb_block_based_options_set_block_cache(b, rocksdb_cache_create_lru(cache));
    rocksdb_block_based_options_set_filter_policy(b, rocksdb_filterpolicy_create_bloom_full(10));
    rocksdb_options_set_block_based_table_factory(o, b);
    rocksdb_t *db = rocksdb_open(o, dir, &err);
    must("open", err);
    rocksdb_writeoptions_t *w = rocksdb_writeoptions_create();
    rocksdb_writeoptions_disable_WAL(w, 1);
    const size_t row_bytes = dim * 2 * sizeof(float);
    char *row = calloc(1, row_bytes);
    for (uint64_t at = 0; at < n_rows;) {
        rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
        for (int i = 0; i < 1000 && at < n_rows; i++, at++) {
            const uint64_t wire = __builtin_bswap64(pn_mix64(key_of(at)));
            rocksdb_writebatch_put(batch, (const char *)&wire, sizeof wire, row, row_bytes);
        }
        rocksdb_write(db, w, batch, &err);
        must("write", err);
        rocksdb_writebatch_destroy(batch);
    }
    rocksdb_compact_range(db, NULL, 0, NULL, 0);
    struct batch batches[BATCHES];
    make_batches(batches, BATCHES, n_rows, RAW_KEYS, 3);
    const char **keys = malloc(RAW_KEYS * sizeof *keys);
    size_t *sizes = malloc(RAW_KEYS * sizeof *sizes), *value_sizes = malloc(RAW_KEYS * sizeof *value_sizes);
    uint64_t *wire = malloc(RAW_KEYS * sizeof *wire);
    char **values = malloc(RAW_KEYS * sizeof *values), **errors = malloc(RAW_KEYS * sizeof *errors);
    float *out = malloc((size_t)RAW_KEYS * dim * sizeof(float));
    rocksdb_readoptions_t *r = rocksdb_readoptions_create();
    double rates[10000], end = 0;
    size_t n = 0;
    for (int i = 0; n < 3 || (now_s() < end && n < 10000); i++) {
        const struct batch *k = &batches[i % BATCHES];
        double begin = now_s();
        for (size_t j = 0; j < k->n; j++) {
            wire[j] = __builtin_bswap64(pn_mix64(k->keys[j]));
            keys[j] = (const char *)&wire[j];
            sizes[j] = sizeof wire[j];
        }
        rocksdb_multi_get(db, r, k->n, keys, sizes, values, value_sizes, errors);
        for (size_t j = 0; j < k->n; j++) {
            must("get", errors[j]);
            if (values[j] == NULL || value_sizes[j] != row_bytes) return 1;
            memcpy(out + j * dim, values[j], dim * sizeof(float));
            free(values[j]);
        }
        if (i == WARM) end = now_s() + seconds; /* the cache is warm */
        if (i >= WARM) rates[n++] = (double)k->n / (now_s() - begin) / 1e6;
    }
    report(name, quantile(rates, n, 0.5), "Mrows/s", -1, NULL);
    rocksdb_close(db);
    rocksdb_destroy_db(o, dir, &err);
    return 0;
}
