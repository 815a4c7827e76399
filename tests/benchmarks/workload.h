/* What the benchmarks share: the workload (batches of 26 x 2048 raw keys from Zipf 1.05, made unique), time, medians, and lines of JSON. */
#ifndef PN_TESTS_BENCHMARKS_WORKLOAD_H
#define PN_TESTS_BENCHMARKS_WORKLOAD_H
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include "common/hash.h"

static inline double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* The key of item `rank`; ranks are by popularity, keys and row numbers are scattered. */
static inline uint64_t key_of(uint64_t rank) { return pn_mix64(rank * 2 + 1); }

/* Rejection-inversion sampling of Zipf (Hörmann and Derflinger 1996), ranks from 0. */
struct zipf { double n, exponent, h1, hn, s; struct pn_rng rng; };
static inline double zipf_h(const struct zipf *z, double x) { return (pow(x, 1 - z->exponent) - 1) / (1 - z->exponent); }
static inline double zipf_inverse(const struct zipf *z, double x) { return pow(1 + x * (1 - z->exponent), 1 / (1 - z->exponent)); }
static inline void zipf_start(struct zipf *z, uint64_t n, double exponent, uint64_t seed) {
    *z = (struct zipf){.n = (double)n, .exponent = exponent, .rng = {seed}};
    z->h1 = zipf_h(z, 1.5) - 1;
    z->hn = zipf_h(z, (double)n + 0.5);
    z->s = 2 - zipf_inverse(z, zipf_h(z, 2.5) - pow(2, -exponent));
}
static inline uint64_t zipf_next(struct zipf *z) {
    for (;;) {
        double u = z->hn + pn_rng_uniform(&z->rng) * (z->h1 - z->hn), x = zipf_inverse(z, u), k = floor(x + 0.5);
        if (k < 1) k = 1;
        if (k > z->n) k = z->n;
        if (k - x <= z->s || u >= zipf_h(z, k + 0.5) - pow(k, -z->exponent)) return (uint64_t)k - 1;
    }
}

/* A job with one table of dim floats (the linear weight and an embedding of dim - 1), Adagrad, and the dense parameters' table; behind the optimizer what else
 * the table has, ", memory: 1Gi". */
#define BENCH_JOB                                                                                                                        \
    "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: bench}\nspec:\n  data: {train: {format: csv, uri: /none, label: y}}\n"   \
    "  features: [{name: x, type: categorical}]\n  tables: {defaults: {optimizer: {name: adagrad, lr: 0.01}, init: zero%s}}\n"           \
    "  model: {name: fm, embeddingDim: %d}\n  training: {codec: %s, consistency: {mode: async, ack: applied}}\n"

enum { RAW_KEYS = 26 * 2048 };
struct batch { size_t n; uint64_t *ranks, *keys; }; /* unique, in the order of common/unique.h */
static inline int by_mix(const void *a, const void *b) {
    uint64_t x = pn_mix64(*(const uint64_t *)a), y = pn_mix64(*(const uint64_t *)b);
    return (x > y) - (x < y);
}
static inline int by_u64(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}
static inline void make_batches(struct batch *out, size_t n, uint64_t n_rows, size_t raw, uint64_t seed) {
    struct zipf z;
    zipf_start(&z, n_rows, 1.05, seed);
    /* The key is a bijection of the rank: sorted pairs are not needed, the rank comes back by a table. */
    uint64_t (*pairs)[2] = malloc(raw * sizeof *pairs);
    for (size_t b = 0; b < n; b++) {
        for (size_t i = 0; i < raw; i++) {
            pairs[i][1] = zipf_next(&z);
            pairs[i][0] = pn_mix64(key_of(pairs[i][1]));
        }
        qsort(pairs, raw, sizeof *pairs, by_u64);
        out[b].keys = malloc(raw * sizeof(uint64_t));
        out[b].ranks = malloc(raw * sizeof(uint64_t));
        out[b].n = 0;
        for (size_t i = 0; i < raw; i++)
            if (i == 0 || pairs[i][0] != pairs[i - 1][0]) {
                out[b].keys[out[b].n] = key_of(pairs[i][1]);
                out[b].ranks[out[b].n++] = pairs[i][1];
            }
    }
    free(pairs);
}

static inline int by_double(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static inline double quantile(double *values, size_t n, double q) {
    qsort(values, n, sizeof *values, by_double);
    size_t i = (size_t)(q * (double)(n - 1) + 0.5);
    return values[i];
}

/* Memory with huge pages where there are some, touched. */
static inline void *huge(size_t n_bytes, bool want) {
    size_t n = (n_bytes + (4u << 20)) & ~(size_t)((2u << 20) - 1);
    uint8_t *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) exit(1);
    p += -(uintptr_t)p & ((2u << 20) - 1);
    if (want) madvise(p, n_bytes, MADV_HUGEPAGE);
    memset(p, 1, n_bytes);
    return p;
}

/* One result: a line of JSON on stdout. ratio < 0: none. */
static inline void report(const char *name, double value, const char *unit, double ratio, const char *peer) {
    printf("{\"name\":\"%s\",\"value\":%.6g,\"unit\":\"%s\"", name, value, unit);
    if (ratio >= 0) printf(",\"ratio\":%.4g,\"peer\":\"%s\"", ratio, peer);
    printf("}\n");
    fflush(stdout);
}

static inline const char *size_name(uint64_t n, uint32_t dim, char out[32]) {
    if (n % 1000000 == 0) snprintf(out, 32, "%lluMx%u", (unsigned long long)(n / 1000000), dim);
    else snprintf(out, 32, "%lluKx%u", (unsigned long long)(n / 1000), dim);
    return out;
}
#endif
