/* Speed of a backend's kernels beside ceilings measured in the same run: copies for what is bound by memory, the best product of a large square matrix for products. Then
 * whole steps, staging and copies included, and the cache; where there are several devices, sums over all of them and steps on all of them. One JSON line a figure, for tests/bench.
 *   parity-bench MODULE.so          on a device
 *   parity-bench emulated --small   on the host emulator: only that it runs */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "tests/parity/parity.h"
#include "tests/parity/threads.h"

static const struct pn_backend *be;
static struct pn_ctx *ctx;
static bool small;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}
static void wait_for_all(void) {
    struct pn_error err = {""};
    if (be->finish(ctx, &err) == PN_OK) return;
    fprintf(stderr, "parity-bench: %s\n", err.text);
    exit(1);
}
static void put(const char *name, double v, const char *unit, double of, const char *what) {
    printf("{\"name\":\"gpu.%s\",\"value\":%.4g,\"unit\":\"%s\"", name, v, unit);
    if (of > 0) printf(",\"ratio\":%.3f,\"peer\":\"%s\"", v / of, what);
    printf("}\n");
    fflush(stdout);
}
/* Seconds of one call: the median of 5 rounds of `times` calls, after one round that warms up. */
#define SECONDS(out, ...)                                                                  \
    do {                                                                                   \
        double rounds_[5];                                                                 \
        const int times_ = small ? 1 : 50;                                                 \
        for (int r_ = -1; r_ < (small ? 1 : 5); r_++) {                                     \
            wait_for_all();                                                                \
            const double t_ = now();                                                       \
            for (int i_ = 0; i_ < times_; i_++) { __VA_ARGS__; }                            \
            wait_for_all();                                                                \
            if (r_ >= 0) rounds_[r_] = (now() - t_) / times_;                               \
        }                                                                                  \
        for (int a_ = 0; !small && a_ < 5; a_++)                                            \
            for (int b_ = a_ + 1; b_ < 5; b_++)                                             \
                if (rounds_[b_] < rounds_[a_]) {                                            \
                    const double x_ = rounds_[a_];                                          \
                    rounds_[a_] = rounds_[b_];                                              \
                    rounds_[b_] = x_;                                                      \
                }                                                                          \
        (out) = rounds_[small ? 0 : 2];                                                     \
    } while (0)

static void *device(const void *host, size_t n) {
    void *p = be->alloc(ctx, n);
    if (p == NULL) {
        fprintf(stderr, "parity-bench: no memory for %zu bytes on the device\n", n);
        exit(1);
    }
    if (host != NULL) be->upload(ctx, p, host, n);
    else be->clear(ctx, p, n);
    wait_for_all();
    return p;
}
static struct pn_rng rng = {3};
static float *random_floats(size_t n) {
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = (float)pn_rng_uniform(&rng) - 0.5f;
    float *d = device(x, n * sizeof *x);
    free(x);
    return d;
}

static double copy_ceiling(void) {
    const size_t n = small ? 1000 : 128u << 20; /* 512 MiB: no cache holds it */
    float *a = random_floats(n), *b = device(NULL, n * sizeof *b);
    double s;
    SECONDS(s, be->copy(ctx, a, n, 1, n, false, b, n));
    be->free(ctx, a);
    be->free(ctx, b);
    put("copy", 2.0 * (double)n * 4 / s / 1e9, "GB/s", 0, "");
    return 2.0 * (double)n * 4 / s;
}

/* Embeddings of n examples and 26 fields; keys Zipf-like: a quarter of them among 1 %. */
static void embeddings(size_t n, size_t k, bool wide, double ceiling) {
    const size_t f = 26, rows = n * 10, keys = n * f, dim = k + wide;
    uint32_t *begin = malloc((keys + 1) * 4), *position = malloc(keys * 4), *id = malloc(keys * 4), *order = malloc(keys * 4), *cb = malloc((keys + 2) * 4), *cr = malloc((keys + 1) * 4),
             *wb = malloc((keys / PN_CHUNK + 2) * 4), counts[2], *scratch = malloc((rows + 1) * 4), pooling[26] = {0};
    for (size_t i = 0; i <= keys; i++) begin[i] = (uint32_t)i;
    for (size_t i = 0; i < keys; i++) {
        position[i] = (uint32_t)(pn_rng_next(&rng) % (pn_rng_next(&rng) % 4 == 0 ? rows / 100 + 1 : rows));
        id[i] = (uint32_t)(i % n * f + i / n);
    }
    double t = now();
    pn_inverse_build(position, id, keys, rows, order, cb, cr, wb, counts, scratch);
    char name[60];
    snprintf(name, sizeof name, "inverse.%zux%zu", n, k);
    put(name, (double)keys / (now() - t) / 1e6, "Mkeys/s on the host", 0, "");
    float *all = random_floats(rows * dim), *linear = device(NULL, n * 4), *embedded = device(NULL, keys * k * 4), *dl = random_floats(n), *de = random_floats(keys * k), *gradients = device(NULL, rows * dim * 4);
    const struct pn_pool_view v = {n, f, k, wide, 1, device(pooling, sizeof pooling), device(begin, (keys + 1) * 4), device(position, keys * 4)};
    const struct pn_inverse inverse = {.order = device(order, keys * 4), .chunk_begin = device(cb, (counts[0] + 1) * 4), .chunk_row = device(cr, counts[0] * 4), .wide_begin = device(wb, (counts[1] + 1) * 4),
                                       .counts = device(counts, 8), .most_chunks = counts[0], .most_wide = counts[1], .partial = device(NULL, (2 * keys / PN_CHUNK + 2) * dim * 4)};
    double s;
    SECONDS(s, be->pool_forward(ctx, &v, all, linear, embedded));
    const double bytes = (double)keys * ((double)(dim + k) * 4 + 8) + (double)n * 4;
    snprintf(name, sizeof name, "pool.forward.%zux%zu", n, k);
    put(name, bytes / s / 1e9, "GB/s", ceiling / 1e9, "copy");
    SECONDS(s, be->pool_backward(ctx, &v, &inverse, dl, de, gradients));
    snprintf(name, sizeof name, "pool.backward.%zux%zu", n, k);
    put(name, ((double)keys * ((double)k * 4 + 4) + (double)counts[0] * (double)dim * 8) / s / 1e9, "GB/s", ceiling / 1e9, "copy");
    float *sums = device(NULL, n * k * 4), *out = device(NULL, n * 351 * 4);
    SECONDS(s, be->fm_forward(ctx, embedded, n, f, k, sums, out));
    snprintf(name, sizeof name, "fm.forward.%zux%zu", n, k);
    put(name, ((double)keys * (double)k * 4 + (double)n * (double)(k + 1) * 4) / s / 1e9, "GB/s", ceiling / 1e9, "copy");
    SECONDS(s, be->dot_forward(ctx, embedded, n, f, k, out));
    snprintf(name, sizeof name, "dot.forward.%zux%zu", n, k);
    put(name, ((double)keys * (double)k * 4 + (double)n * 325 * 4) / s / 1e9, "GB/s", ceiling / 1e9, "copy");
    SECONDS(s, be->dot_backward(ctx, embedded, out, n, f, k, de));
    snprintf(name, sizeof name, "dot.backward.%zux%zu", n, k);
    put(name, ((double)keys * (double)k * 12 + (double)n * 325 * 4) / s / 1e9, "GB/s", ceiling / 1e9, "copy");
    const void *dev[] = {v.pooling, v.begin, v.position, inverse.order, inverse.chunk_begin, inverse.chunk_row, inverse.wide_begin, inverse.counts, inverse.partial, all, linear, embedded, dl, de, gradients, sums, out};
    for (size_t i = 0; i < sizeof dev / sizeof dev[0]; i++) be->free(ctx, (void *)(uintptr_t)dev[i]);
    void *host[] = {begin, position, id, order, cb, cr, wb, scratch};
    for (size_t i = 0; i < sizeof host / sizeof host[0]; i++) free(host[i]);
}

static double product(size_t n, size_t from, size_t width, double best, const char *precision) {
    float *in = random_floats(n * from), *w = random_floats(from * width), *b = random_floats(width), *out = device(NULL, n * width * 4);
    double s;
    SECONDS(s, be->linear_forward(ctx, in, n, from, width, w, b, true, out));
    const double flops = 2.0 * (double)n * (double)from * (double)width / s;
    char name[80];
    snprintf(name, sizeof name, "linear.%s.%zux%zux%zu", precision, n, from, width);
    put(name, flops / 1e12, "TFLOP/s", best / 1e12, "the large square product");
    void *all[] = {in, w, b, out};
    for (size_t i = 0; i < 4; i++) be->free(ctx, all[i]);
    return flops;
}

static void attention(size_t n, size_t m, size_t heads, size_t d) {
    const size_t width = heads * d, tokens = n * m;
    uint32_t *begin = malloc((n + 1) * 4);
    for (size_t e = 0; e <= n; e++) begin[e] = (uint32_t)(e * m);
    uint32_t *at = device(begin, (n + 1) * 4);
    float *qkv = random_floats(tokens * 3 * width), *kept = device(NULL, tokens * heads * 4), *out = device(NULL, tokens * width * 4), *g = random_floats(tokens * width),
          *scratch = device(NULL, (tokens * heads + m * m) * 4), *dqkv = device(NULL, tokens * 3 * width * 4);
    double s;
    char name[60];
    SECONDS(s, be->attention_forward(ctx, qkv, at, n, width, heads, m, true, kept, out));
    snprintf(name, sizeof name, "attention.forward.%zux%zux%zu", n, m, width);
    put(name, 2.0 * (double)n * (double)heads * (double)m * (double)m * (double)d / s / 1e12, "TFLOP/s", 0, "");
    SECONDS(s, be->attention_backward(ctx, qkv, kept, out, g, at, n, width, heads, m, true, scratch, dqkv));
    snprintf(name, sizeof name, "attention.backward.%zux%zux%zu", n, m, width);
    put(name, 7.0 * (double)n * (double)heads * (double)m * (double)m * (double)d / s / 1e12, "TFLOP/s", 0, "");
    void *all[] = {at, qkv, kept, out, g, scratch, dqkv};
    for (size_t i = 0; i < 7; i++) be->free(ctx, all[i]);
    free(begin);
}

/* A whole step as the worker takes it: staging, copies, compute, the gradients back on the host; two in flight. */
static void step(const char *name, const char *model, size_t n, const char *precision, size_t n_devices) {
    static struct pn_job job;
    char text[8000];
    struct pn_error err = {""};
    struct pn_devices *d;
    size_t numbers[PN_MOST_DEVICES];
    for (size_t i = 0; i < n_devices; i++) numbers[i] = i;
    size_t at = (size_t)snprintf(text, sizeof text, "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: b}\nspec:\n  data: {train: {format: csv, uri: /x, label: y}}\n  features:\n");
    for (int i = 0; i < 26; i++) at += (size_t)snprintf(text + at, sizeof text - at, "    - {name: c%d, type: categorical, table: all}\n", i);
    for (int i = 0; i < 13; i++) at += (size_t)snprintf(text + at, sizeof text - at, "    - {name: i%d, type: numeric}\n", i);
    snprintf(text + at, sizeof text - at, "  model: {%s}\n  training: {precision: %s}\n", model, precision);
    if (pn_job_parse(&job, text, strlen(text), "bench", NULL, NULL, &err) != PN_OK || pn_devices_open(&d, be, numbers, n_devices, &job, 13, &err) != PN_OK) {
        fprintf(stderr, "parity-bench: %s\n", err.text);
        exit(1);
    }
    const size_t keys = 26 * n, dim = job.tables[0].dim;
    struct pn_batch b = {.n_examples = n, .n_sparse = 26, .n_dense = 13, .n_keys = keys};
    const size_t unique = keys / 3 + 1;
    b.begin = malloc((keys + 1) * 4);
    b.position = malloc(keys * 4);
    b.dense = calloc(n * 13, 4);
    b.labels = calloc(n, 4);
    b.log_q = calloc(n, 4);
    b.n_unique[0] = unique;
    for (size_t i = 0; i <= keys; i++) b.begin[i] = (uint32_t)i;
    for (size_t i = 0; i < keys; i++) b.position[i] = (uint32_t)(pn_rng_next(&rng) % unique);
    for (size_t i = 0; i < n; i++) b.labels[i] = (float)(pn_rng_next(&rng) % 2);
    float *rows = calloc(unique * dim, 4), *gradients = calloc(unique * dim, 4), *p = calloc(16u << 20, 4), *dp = calloc(16u << 20, 4), *scores = calloc(n, 4);
    for (size_t i = 0; i < unique * dim; i++) rows[i] = 0.02f * (float)pn_rng_uniform(&rng);
    for (size_t i = 0; i < 16u << 20; i++) p[i] = 0.02f * (float)pn_rng_uniform(&rng);
    const float *in[PN_MAX_TABLES] = {rows};
    float *out[PN_MAX_TABLES] = {gradients};
    double loss, begun = 0, ended = 0, took = 0;
    const size_t times = small ? 6 : n > 10000 ? 20 : 100;
    for (size_t warm = 0; warm < 2; warm++) {
        const double t = now();
        begun = ended = 0;
        for (size_t i = 0; i <= times; i++) {
            enum pn_result r = PN_OK;
            double a = now();
            if (i < times) r = (n_devices == 1 ? pn_devices_begin : begin_in_threads)(d, i % 2, &b, in, p, i, &err);
            begun += now() - a;
            a = now();
            if (r == PN_OK && i > 0) r = pn_devices_end(d, (i - 1) % 2, &b, out, dp, scores, &loss, &err);
            ended += now() - a;
            if (r != PN_OK) {
                fprintf(stderr, "parity-bench: %s\n", err.text);
                exit(1);
            }
        }
        took = now() - t;
    }
    char on[20] = "", line[120];
    if (n_devices > 1) snprintf(on, sizeof on, ".devices%zu", n_devices);
    snprintf(line, sizeof line, "step.%s.%s.%zu%s", name, precision, n, on);
    put(line, (double)(n * times) / took / 1e6, "Msamples/s", 0, "");
    snprintf(line, sizeof line, "step.%s.%s.%zu%s.stage", name, precision, n, on);
    put(line, 1e3 * begun / (double)times, "ms staging and queueing", 0, "");
    snprintf(line, sizeof line, "step.%s.%s.%zu%s.wait", name, precision, n, on);
    put(line, 1e3 * ended / (double)times, "ms waiting and fetching", 0, "");
    snprintf(line, sizeof line, "step.%s.%s.%zu%s.sum", name, precision, n, on);
    if (n_devices > 1) put(line, 1e3 * pn_devices_time(d).sum / (double)(2 * times), "ms of the sum over devices", 0, "");
    pn_devices_close(d);
    pn_job_free(&job);
    void *all[] = {b.begin, b.position, b.dense, b.labels, b.log_q, rows, gradients, p, dp, scores};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
}

static void cache(size_t room, size_t n, size_t dim) {
    const struct pn_cache_ops *ops = be->cache;
    struct pn_cache *c = ops->open(ctx, room, dim);
    if (c == NULL) {
        fprintf(stderr, "parity-bench: no memory for a cache of %zu rows\n", room);
        exit(1);
    }
    room = ops->room(c);
    uint64_t *keys = malloc(n * 8), filled = 0;
    float *rows = device(NULL, n * dim * 4);
    uint32_t *hit = device(NULL, n * 4);
    double first = 0;
    for (int fill = 50; fill <= 95; fill += 45) {
        uint64_t *dev = NULL;
        for (; filled < (uint64_t)fill * room / 100; filled += n) {
            for (size_t i = 0; i < n; i++) keys[i] = pn_mix64(filled + i);
            if (dev != NULL) be->free(ctx, dev);
            dev = device(keys, n * 8);
            ops->insert(c, dev, rows, NULL, n, 1);
            wait_for_all();
        }
        for (size_t i = 0; i < n; i++) keys[i] = pn_mix64(pn_rng_next(&rng) % filled);
        if (dev != NULL) be->free(ctx, dev);
        dev = device(keys, n * 8);
        double s;
        SECONDS(s, ops->find(c, dev, n, 2, 100, rows, hit));
        char name[60];
        snprintf(name, sizeof name, "cache.find.dim%zu.%d%%", dim, fill);
        put(name, (double)n / s / 1e9, "G look-ups/s", first, "50 % fill");
        if (fill == 50) first = (double)n / s / 1e9;
        be->free(ctx, dev);
    }
    ops->close(c);
    be->free(ctx, rows);
    be->free(ctx, hit);
    free(keys);
}

/* The dense gradients' sum alone: bytes of one device's vector over the seconds. */
static void sums(size_t n_devices, size_t n) {
    struct pn_ctx *contexts[PN_MOST_DEVICES];
    struct pn_group *g;
    struct pn_error err = {""};
    float *x[PN_MOST_DEVICES];
    for (size_t i = 0; i < n_devices; i++) {
        if (be->open(&contexts[i], i, PN_FLOAT32, &err) != PN_OK || (x[i] = be->alloc(contexts[i], n * 4)) == NULL) fprintf(stderr, "parity-bench: %s\n", err.text), exit(1);
        be->clear(contexts[i], x[i], n * 4);
    }
    if (be->join(&g, contexts, n_devices, &err) != PN_OK) fprintf(stderr, "parity-bench: %s\n", err.text), exit(1);
    ctx = contexts[0];
    double s;
    char name[60];
    SECONDS(s, be->all_reduce(g, x, n));
    for (size_t i = 0; i < n_devices; i++)
        if (be->finish(contexts[i], &err) != PN_OK) fprintf(stderr, "parity-bench: %s\n", err.text), exit(1);
    be->leave(g, false);
    for (size_t i = 0; i < n_devices; i++) {
        be->free(contexts[i], x[i]);
        be->close(contexts[i]);
    }
    snprintf(name, sizeof name, "all_reduce.%zufloats.devices%zu", n, n_devices);
    put(name, 4.0 * (double)n / s / 1e9, "GB/s", 0, "");
}

int main(int argc, char **argv) {
    static const char *const precisions[] = {"float32", "tf32", "bfloat16", "float16"};
    struct pn_error err = {""};
    small = argc > 2 && strcmp(argv[2], "--small") == 0;
    if (argc > 1 && strcmp(argv[1], "emulated") == 0) setenv("PINION_EMULATED_DEVICES", "2", 1);
    be = parity_backend(argc, argv);
    const size_t there = be->devices(&err), all = there < PN_MOST_DEVICES ? there : PN_MOST_DEVICES;
    for (int p = 0; p < (small ? 1 : 4); p++) {
        if (be->open(&ctx, 0, (enum pn_precision)p, &err) != PN_OK) {
            fprintf(stderr, "parity-bench: %s\n", err.text);
            return 1;
        }
        if (p == 0) {
            const double ceiling = copy_ceiling();
            embeddings(small ? 20 : 16384, 16, true, ceiling);
            embeddings(small ? 10 : 16384, 64, false, ceiling);
            attention(small ? 2 : 2048, small ? 5 : 50, 2, 32);
            cache(small ? 256 : 32u << 20, small ? 64 : 1u << 20, 16);
        }
        const double best = product(small ? 16 : 8192, small ? 16 : 8192, small ? 16 : 8192, 0, precisions[p]);
        const size_t shapes[][3] = {{2048, 429, 400}, {16384, 400, 400}, {65536, 1677, 1024}, {65536, 1024, 512}};
        for (size_t i = 0; i < (small ? 0 : 4); i++) product(shapes[i][0], shapes[i][1], shapes[i][2], best, precisions[p]);
        be->close(ctx);
    }
    static const char *const models[][2] = {{"deepfm16", "name: deepfm, embeddingDim: 16, hidden: [400, 400, 400]"}, {"deepfm64", "name: deepfm, embeddingDim: 64, hidden: [1024, 1024, 512, 256]"},
                                            {"dcn16", "name: dcn_v2, embeddingDim: 16, cross: 3, hidden: [400, 400, 400]"}, {"dcn64", "name: dcn_v2, embeddingDim: 64, cross: 3, hidden: [1024, 1024, 512, 256]"},
                                            {"dlrm16", "name: dlrm, embeddingDim: 16, bottom: [512, 256], hidden: [400, 400, 400]"},
                                            {"dlrm64", "name: dlrm, embeddingDim: 64, bottom: [512, 256], hidden: [1024, 1024, 512, 256]"}};
    const size_t batches[] = {2048, 16384, 65536};
    for (size_t n = 1; small && n <= all; n++) step("small", "name: deepfm, embeddingDim: 4, hidden: [8]", 8, "float32", n);
    for (size_t n = small ? 1000 : 1u << 18; all > 1 && n <= (small ? 1000u : 1u << 24); n *= 8) sums(all, n);
    for (size_t m = 0; !small && m < 6; m++)
        for (size_t b = 0; b < 3; b++)
            for (int p = b == 0 ? 0 : 1; p < 3; p++)
                for (size_t n = 1; n <= all; n = n < all ? all : all + 1) step(models[m][0], models[m][1], batches[b], precisions[p], n);
    return 0;
}
