/* Every operation of a backend against the CPU's over random shapes: nothing, one, odd ones, wide ones; repeated keys, one key for the whole batch; outputs poisoned with
 * NaN; sums that start from something. Prints the worst difference of each, as a share of what is allowed.
 *   parity-kernels emulated | MODULE.so [TIMES as many shapes [only this operation]] */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "nn/blocks.h"
#include "tests/parity/parity.h"

static const struct pn_backend *table[2];
static struct pn_ctx *ctx[2];
static struct pn_rng rng = {1};
static enum pn_precision precision;

/* ---- arrays on both sides ---- */
struct array { void *at[2]; size_t n, size; };
static struct array arrays[64];
static size_t n_arrays;

static struct array *put(const void *from, size_t n, size_t size) {
    struct array *a = &arrays[n_arrays++];
    assert(n_arrays <= 64);
    *a = (struct array){.n = n, .size = size};
    for (int s = 0; s < 2; s++) {
        a->at[s] = table[s]->alloc(ctx[s], n * size);
        table[s]->upload(ctx[s], a->at[s], from, n * size);
        if (table[s]->finish(ctx[s], NULL) != PN_OK) exit(1);
    }
    return a;
}
static struct array *floats(size_t n, float deviation) {
    float *x = calloc(n + 1, sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = deviation * (float)pn_rng_normal(&rng);
    struct array *a = put(x, n, sizeof *x);
    free(x);
    return a;
}
static struct array *poisoned(size_t n) {
    float *x = calloc(n + 1, sizeof *x);
    memset(x, 0xff, n * sizeof *x);
    struct array *a = put(x, n, sizeof *x);
    free(x);
    return a;
}
static struct array *zeros(size_t n, size_t size) {
    void *x = calloc(n + 1, size);
    struct array *a = put(x, n, size);
    free(x);
    return a;
}
static size_t below(size_t n) { return (size_t)(pn_rng_next(&rng) % n); }
static void release(void) {
    for (size_t i = 0; i < n_arrays; i++)
        for (int s = 0; s < 2; s++) table[s]->free(ctx[s], arrays[i].at[s]);
    n_arrays = 0;
}

/* ---- comparing ---- */
static const char *what = "";
static double worst, n_compared;
static int failures;
static void same(const struct array *a, double tolerance, const char *name) {
    void *x[2];
    const size_t bytes = a->n * a->size;
    if (a->n == 0) return;
    for (int s = 0; s < 2; s++) {
        x[s] = malloc(bytes);
        struct pn_error err = {""};
        if (table[s]->finish(ctx[s], &err) != PN_OK) {
            fprintf(stderr, "%s: %s\n", what, err.text);
            exit(1);
        }
        table[s]->download(ctx[s], x[s], a->at[s], bytes);
        table[s]->finish(ctx[s], NULL);
    }
    double largest = 0;
    for (size_t i = 0; i < a->n; i++) {
        const double v = a->size == 8 ? ((double *)x[0])[i] : (double)((float *)x[0])[i];
        largest = fabs(v) > largest ? fabs(v) : largest;
    }
    for (size_t i = 0; i < a->n; i++) {
        const double v = a->size == 8 ? ((double *)x[0])[i] : (double)((float *)x[0])[i], w = a->size == 8 ? ((double *)x[1])[i] : (double)((float *)x[1])[i];
        const bool rounded = precision == PN_BFLOAT16 || precision == PN_FLOAT16; /* sums of rounded products: what cancels leaves their rounding */
        const double off = fabs(v - w) / (tolerance * (fabs(v) + (rounded ? 1 : 0.1) * largest + (rounded ? 1 : 1e-3)));
        n_compared++;
        if (!(off <= 1)) {
            if (failures++ < 20) fprintf(stderr, "%s: %s[%zu of %zu] is %.9g, the CPU's %.9g\n", what, name, i, a->n, w, v);
            break;
        }
        worst = off > worst ? off : worst;
    }
    free(x[0]);
    free(x[1]);
}
#define SAME(a, tolerance) same(a, tolerance, #a)
#define BOTH(op, ...)                                                     \
    for (int s = 0; s < 2; s++) {                                         \
        table[s]->op(ctx[s], __VA_ARGS__);                                \
        struct pn_error err_ = {""};                                      \
        if (table[s]->finish(ctx[s], &err_) != PN_OK) {                   \
            fprintf(stderr, "%s: %s\n", what, err_.text);                 \
            exit(1);                                                      \
        }                                                                 \
    }
#define F(a) ((float *)(a)->at[s])
#define U(a) ((uint32_t *)(a)->at[s])
#define D(a) ((double *)(a)->at[s])

static double close_to(double f) { return precision == PN_FLOAT32 ? f : precision == PN_TF32 ? 4e-3 : precision == PN_FLOAT16 ? 4e-3 : 3e-2; } /* of products */
static const size_t counts[] = {0, 1, 2, 3, 7, 31, 33, 64, 130, 257};
static const size_t widths[] = {1, 2, 3, 8, 16, 17, 33, 64, 100};
static size_t a_count(void) { return counts[below(sizeof counts / sizeof counts[0])]; }
static size_t a_width(void) { return widths[below(sizeof widths / sizeof widths[0])]; }

/* ---- keys ---- */
struct keys { struct array *begin, *position, *pooling, *order, *chunk_begin, *chunk_row, *wide_begin, *counts, *partial; size_t n_keys, n_rows, n_chunks, n_wide; };
/* n * f lists of `each` keys or, 0, of 1 to 4, from n_rows rows; one: all the same. */
static struct keys make_keys(size_t n, size_t f, size_t n_rows, size_t each, bool one, size_t dim) {
    const size_t room = n * f * 4 + 8;
    uint32_t *begin = calloc(room, 4), *position = calloc(room, 4), *id = calloc(room, 4), *pooling = calloc(f + 1, 4), *order = calloc(room, 4), *cb = calloc(room, 4), *cr = calloc(room, 4),
             *wb = calloc(room, 4), two[2], *scratch = calloc(n_rows + 2, 4);
    size_t at = 0;
    for (size_t s = 0; s < f; s++) {
        pooling[s] = (uint32_t)below(3);
        for (size_t e = 0; e < n; e++) {
            begin[s * n + e] = (uint32_t)at;
            for (size_t m = each > 0 ? each : 1 + below(4); m > 0; m--, at++) {
                position[at] = one ? 0 : (uint32_t)below(n_rows);
                id[at] = (uint32_t)(e * f + s);
            }
        }
    }
    begin[f * n] = (uint32_t)at;
    pn_inverse_build(position, id, at, n_rows, order, cb, cr, wb, two, scratch);
    struct keys k = {.n_keys = at, .n_rows = n_rows, .n_chunks = two[0], .n_wide = two[1]};
    k.begin = put(begin, f * n + 1, 4), k.position = put(position, at, 4), k.pooling = put(pooling, f + 1, 4), k.order = put(order, at, 4), k.chunk_begin = put(cb, two[0] + 1, 4);
    k.chunk_row = put(cr, two[0], 4), k.wide_begin = put(wb, two[1] + 1, 4), k.counts = put(two, 2, 4), k.partial = poisoned((2 * (at / PN_CHUNK) + 2) * dim);
    void *all[] = {begin, position, id, pooling, order, cb, cr, wb, scratch};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
    return k;
}
static struct pn_inverse inverse(const struct keys *k, int s) {
    return (struct pn_inverse){.order = U(k->order), .chunk_begin = U(k->chunk_begin), .chunk_row = U(k->chunk_row), .wide_begin = U(k->wide_begin), .counts = U(k->counts),
                               .most_chunks = k->n_chunks + below(3), .most_wide = k->n_wide + below(3), .partial = F(k->partial)};
}

static void pool(void) {
    const size_t n = a_count(), f = 1 + below(6), k = below(6) == 0 ? 0 : a_width(), rows = 1 + below(3 * n + 2);
    const bool wide = k == 0 || below(2), one = below(4) == 0;
    const size_t dim = wide + k;
    const struct keys keys = make_keys(n, f, rows, below(2), one, dim);
    struct array *table_rows = floats(rows * dim, 1), *linear = wide ? poisoned(n) : zeros(1, 4), *embedded = poisoned(n * f * k);
    struct array *dl = floats(n, 1), *de = floats(n * f * k, 1), *gradients = floats(rows * dim, 1);
    for (int s = 0; s < 2; s++) {
        const struct pn_pool_view v = {n, f, k, wide, 1.5f, U(keys.pooling), U(keys.begin), U(keys.position)};
        const struct pn_inverse i = inverse(&keys, s);
        table[s]->pool_forward(ctx[s], &v, F(table_rows), F(linear), F(embedded));
        table[s]->pool_backward(ctx[s], &v, &i, F(dl), F(de), F(gradients));
    }
    SAME(linear, 1e-5);
    SAME(embedded, 1e-5);
    SAME(gradients, 3e-5);
}
static void fm(void) {
    const size_t n = a_count(), f = 1 + below(30), k = a_width();
    struct array *x = floats(n * f * k, 1), *sums = poisoned(n * k), *out = poisoned(n), *g = floats(n, 1), *dx = floats(n * f * k, 1);
    BOTH(fm_forward, F(x), n, f, k, F(sums), F(out));
    SAME(sums, 1e-5);
    SAME(out, 1e-4);
    BOTH(fm_backward, F(x), F(sums), F(g), n, f, k, F(dx));
    SAME(dx, 1e-5);
}
static void linear(void) {
    const size_t n = 1 + a_count(), from = a_width(), width = a_width();
    const bool relu = below(2), biased = below(4) > 0, input = below(4) > 0;
    struct array *in = floats(n * from, 1), *w = floats(from * width, 0.3f), *b = floats(width, 1), *out = poisoned(n * width), *g = floats(n * width, 1), *dw = floats(from * width, 1),
                 *db = floats(width, 1), *din = floats(n * from, 1);
    BOTH(linear_forward, F(in), n, from, width, F(w), biased ? F(b) : NULL, relu, F(out));
    SAME(out, close_to(3e-5));
    void *host = malloc(n * width * sizeof(float)); /* one mask for both: a rounding must not decide who is above 0 */
    table[0]->download(ctx[0], host, out->at[0], n * width * sizeof(float));
    table[1]->upload(ctx[1], out->at[1], host, n * width * sizeof(float));
    table[1]->finish(ctx[1], NULL);
    free(host);
    BOTH(linear_backward, F(in), F(out), n, from, width, F(w), relu, F(g), F(dw), biased ? F(db) : NULL, input ? F(din) : NULL);
    SAME(g, 1e-6);
    SAME(dw, close_to(1e-4));
    SAME(db, 1e-4);
    SAME(din, close_to(5e-5));
}
static void cross(void) {
    const size_t n = 1 + a_count(), width = a_width();
    struct array *x0 = floats(n * width, 1), *x = floats(n * width, 1), *w = floats(width * width, 0.3f), *b = floats(width, 1), *product = poisoned(n * width), *out = poisoned(n * width),
                 *g = floats(n * width, 1), *scratch = poisoned(n * width), *dw = floats(width * width, 1), *db = floats(width, 1), *dx0 = floats(n * width, 1), *dx = floats(n * width, 1);
    const bool first = below(2);
    BOTH(cross_forward, F(x0), first ? F(x0) : F(x), n, width, F(w), F(b), F(product), F(out));
    SAME(out, close_to(5e-5));
    BOTH(cross_backward, F(x0), first ? F(x0) : F(x), F(product), F(g), n, width, F(w), F(scratch), F(dw), F(db), F(dx0), first ? F(dx0) : F(dx));
    SAME(dw, close_to(1e-4));
    SAME(db, 1e-4);
    SAME(dx0, close_to(1e-4));
    SAME(dx, close_to(1e-4));
}
static void dot(void) {
    const bool large = below(8) == 0; /* more than fits into shared memory */
    const size_t n = large ? 2 : a_count(), m = large ? 60 : 2 + below(30), k = large ? 256 : a_width();
    struct array *x = floats(n * m * k, 1), *out = poisoned(n * m * (m - 1) / 2), *g = floats(n * m * (m - 1) / 2, 1), *dx = floats(n * m * k, 1);
    BOTH(dot_forward, F(x), n, m, k, F(out));
    SAME(out, 1e-4);
    BOTH(dot_backward, F(x), F(g), n, m, k, F(dx));
    SAME(dx, 5e-5);
}
static void norms(void) {
    const size_t n = a_count(), width = 1 + a_width();
    const bool relu = below(2);
    struct array *in = floats(n * width, 2), *scale = floats(width, 1), *shift = floats(width, 1), *inv = poisoned(n), *normal = poisoned(n * width), *out = poisoned(n * width),
                 *g = floats(n * width, 1), *ds = floats(width, 1), *db = floats(width, 1), *din = floats(n * width, 1);
    BOTH(norm_forward, F(in), n, width, F(scale), F(shift), relu, F(inv), F(normal), F(out));
    SAME(inv, 1e-4);
    SAME(normal, 1e-4);
    SAME(out, 1e-4);
    BOTH(norm_backward, F(out), F(inv), F(normal), n, width, F(scale), relu, F(g), F(ds), F(db), F(din));
    SAME(ds, 1e-3);
    SAME(db, 1e-4);
    SAME(din, 1e-3);
}
static void batch_norms(void) {
    const size_t n = 1 + a_count(), width = a_width();
    const bool relu = below(2), training = below(4) > 0;
    struct array *in = floats(n * width, 2), *scale = floats(width, 1), *shift = floats(width, 1), *normal = poisoned(n * width), *out = poisoned(n * width), *own = poisoned(3 * width),
                 *g = floats(n * width, 1), *ds = poisoned(width), *db = poisoned(width), *din = floats(n * width, 1), *dr = poisoned(2 * width), *running;
    float *r = malloc(2 * width * sizeof *r);
    for (size_t d = 0; d < width; d++) r[d] = (float)pn_rng_normal(&rng), r[width + d] = (float)pn_rng_uniform(&rng) + 0.1f;
    running = put(r, 2 * width, sizeof *r);
    free(r);
    BOTH(batch_norm_forward, F(in), n, width, F(scale), F(shift), F(running), training, relu, F(own), F(normal), F(out));
    if (n > 2) { /* the variance of two nearly equal numbers is rounding, and its inverse large */
        SAME(own, 1e-3);
        SAME(normal, 1e-3);
    }
    if (n <= 2 || !training) return;
    BOTH(batch_norm_backward, F(out), F(own), F(normal), n, width, F(scale), F(running), relu, F(g), F(ds), F(db), F(dr), F(din));
    SAME(ds, 2e-3);
    SAME(db, 1e-3);
    SAME(din, 2e-3);
    SAME(dr, 1e-3);
}
static void attention(void) {
    const size_t heads = 1 + below(4), d = (size_t[]){1, 3, 8, 12, 16, 32, 50, 100}[below(8)], width = heads * d, n = 1 + below(6), most = (size_t[]){1, 5, 33, 70, 140}[below(5)];
    const bool causal = below(2);
    uint32_t *begin = calloc(n + 1, 4);
    begin[0] = (uint32_t)below(5); /* tokens count from begin[0] */
    for (size_t e = 0; e < n; e++) begin[e + 1] = begin[e] + (uint32_t)below(most + 1);
    const size_t tokens = begin[n] - begin[0];
    struct array *at = put(begin, n + 1, 4), *qkv = floats(tokens * 3 * width, 1), *kept = poisoned(tokens * heads * most), *out = poisoned(tokens * width), *g = floats(tokens * width, 1),
                 *scratch = poisoned(most * most > tokens * heads ? most * most : tokens * heads), *dqkv = floats(tokens * 3 * width, 1);
    free(begin);
    BOTH(attention_forward, F(qkv), U(at), n, width, heads, most, causal, F(kept), F(out));
    SAME(out, 1e-4);
    BOTH(attention_backward, F(qkv), F(kept), F(out), F(g), U(at), n, width, heads, most, causal, F(scratch), F(dqkv));
    SAME(dqkv, 3e-4);
}
static void dropout(void) {
    const size_t n = 3 * a_count() + below(4);
    const uint64_t seed_[1] = {pn_rng_next(&rng)}, salt = below(100);
    const float rate = 0.05f + 0.9f * (float)pn_rng_uniform(&rng);
    const bool add = below(2);
    const uint32_t first_[1] = {(uint32_t)below(1000)};
    const size_t width = 1 + below(7);
    struct array *x = floats(n, 1), *out = add ? floats(n, 1) : poisoned(n), *seed = put(seed_, 1, 8), *first = put(first_, 1, 4);
    BOTH(dropout, F(x), n, rate, (uint64_t *)seed->at[s], salt, U(first), width, add, F(out));
    SAME(out, 1e-6);
}
static void small(void) {
    const size_t n = a_count(), width = a_width(), in_step = width + below(4), out_step = width + below(4);
    const bool add = below(2);
    struct array *x = floats(n * in_step + 1, 1), *out = floats(n * out_step + 1, 1), *sums = floats(width, 1), *filled = poisoned(n), *y = floats(n * width, 1), *w = floats(width, 1),
                 *logits = poisoned(n), *g = floats(n, 1), *dw = floats(width, 1), *din = floats(n * width, 1), *pair = floats(n * 2 * width, 1), *product = poisoned(n * width),
                 *dpair = floats(n * 2 * width, 1);
    BOTH(copy, F(x), in_step, n, width, add, F(out), out_step);
    SAME(out, 1e-6);
    BOTH(column_sums, F(y), n, width, F(sums));
    SAME(sums, 1e-4);
    BOTH(fill, F(w), n, F(filled));
    SAME(filled, 1e-9);
    BOTH(scale, F(w), n, F(filled));
    SAME(filled, 1e-6);
    BOTH(weight_forward, F(y), n, width, F(w), F(logits));
    SAME(logits, 1e-4);
    BOTH(weight_backward, F(y), F(g), n, width, F(w), F(dw), F(din));
    SAME(dw, 1e-4);
    SAME(din, 1e-5);
    BOTH(product_forward, F(pair), n, width, F(product));
    SAME(product, 1e-6);
    BOTH(product_backward, F(pair), F(y), n, width, F(dpair));
    SAME(dpair, 1e-5);
}
static void sequences(void) {
    const size_t n = 1 + below(40), most = 1 + below(30), k = a_width(), f = 1 + below(3), recent = below(4), rows = 1 + below(50);
    const bool wide = below(2);
    uint32_t *begin = calloc(n + 1, 4), *example, *left, *row, *order, *cb, *cr, *wb, two[2], *scratch = calloc(rows + 2, 4);
    for (size_t e = 0; e < n; e++) begin[e + 1] = begin[e] + (uint32_t)below(most + 1);
    const size_t t = begin[n];
    example = calloc(t + 1, 4), left = calloc(t + 1, 4), row = calloc(t + 1, 4), order = calloc(t + 1, 4), cb = calloc(t + 2, 4), cr = calloc(t + 1, 4), wb = calloc(t + 2, 4);
    const bool one = below(3) == 0;
    for (size_t e = 0, at = 0; e < n; e++)
        for (uint32_t i = begin[e]; i < begin[e + 1]; i++, at++) {
            example[at] = (uint32_t)e;
            left[at] = begin[e + 1] - 1 - i;
            row[at] = below(4) == 0 ? UINT32_MAX : one ? 0 : (uint32_t)below(rows);
        }
    pn_inverse_build(row, NULL, t, rows, order, cb, cr, wb, two, scratch);
    struct keys keys = {.order = put(order, t, 4), .chunk_begin = put(cb, two[0] + 1, 4), .chunk_row = put(cr, two[0], 4), .wide_begin = put(wb, two[1] + 1, 4), .counts = put(two, 2, 4),
                        .partial = poisoned((2 * (t / PN_CHUNK) + 2) * (wide + k)), .n_chunks = two[0], .n_wide = two[1]};
    struct array *b = put(begin, n + 1, 4), *ex = put(example, t, 4), *le = put(left, t, 4), *ro = put(row, t, 4);
    struct array *all = floats(rows * (wide + k), 1), *tokens = poisoned(t * k), *g = floats(t * k, 1), *gradients = floats(rows * (wide + k), 1);
    BOTH(tokens_forward, F(all), U(ro), t, wide, k, 1.25f, F(tokens));
    SAME(tokens, 1e-6);
    for (int s = 0; s < 2; s++) {
        const struct pn_inverse i = inverse(&keys, s);
        table[s]->tokens_backward(ctx[s], &i, wide, k, 1.25f, F(g), F(gradients));
    }
    SAME(gradients, 3e-5);
    struct array *x = floats(n * f * k, 1), *candidates = poisoned(t * k), *dx = floats(n * f * k, 1), *p = floats(most * k, 1), *moved = poisoned(t * k), *dp = floats(most * k, 1),
                 *dt = floats(t * k, 1);
    const size_t place = below(f);
    BOTH(candidate_forward, F(x), U(ex), t, f * k, place, k, F(candidates));
    SAME(candidates, 1e-9);
    BOTH(candidate_backward, F(g), U(b), n, f * k, place, k, F(dx));
    SAME(dx, 3e-5);
    BOTH(positions_forward, F(g), U(le), t, k, F(p), F(moved));
    SAME(moved, 1e-6);
    BOTH(positions_backward, F(g), U(b), n, most, t, k, F(dp), F(dt));
    SAME(dp, 3e-5);
    SAME(dt, 1e-6);
    struct array *where = zeros(n * k, 4), *summary = poisoned(n * (1 + recent) * k), *ds = floats(n * (1 + recent) * k, 1), *back = floats(t * k, 1);
    BOTH(summary_forward, F(g), U(b), n, k, recent, F(where), F(summary));
    SAME(summary, 1e-9);
    BOTH(summary_backward, F(where), F(ds), U(b), n, k, recent, F(back));
    SAME(back, 1e-6);
    void *host[] = {begin, example, left, row, order, cb, cr, wb, scratch};
    for (size_t i = 0; i < sizeof host / sizeof host[0]; i++) free(host[i]);
}
static void losses(void) {
    const size_t n = 1 + a_count(), k = 1 + below(20);
    float *y = calloc(n, sizeof *y), *t = calloc(n, sizeof *t);
    uint64_t *items_ = calloc(n, sizeof *items_);
    const double share = (double[]){0, 0.2, 0.5, 1}[below(4)];
    for (size_t i = 0; i < n; i++) {
        y[i] = pn_rng_uniform(&rng) < share;
        t[i] = below(5) == 0 ? NAN : (float)pn_rng_normal(&rng);
        items_[i] = below(n);
    }
    struct array *labels = put(y, n, 4), *teacher = put(t, n, 4), *items = put(items_, n, 8), *z = floats(n, 3), *scores = poisoned(n), *g = poisoned(n), *loss = zeros(1, 8), *log_q = floats(n, 1),
                 *gg = poisoned(n), *group = zeros(1, 8), *pairs = floats(n * 2 * k, 0.5f), *scratch = poisoned(n * n), *dpairs = floats(n * 2 * k, 1), *in_batch = zeros(1, 8);
    const bool taught = below(2), gradient = taught || below(4) > 0;
    BOTH(bce, F(z), F(labels), taught ? F(teacher) : NULL, 0.7f, 2.5f, 0.75f, n, F(scores), gradient ? F(g) : NULL, D(loss));
    SAME(scores, 1e-6);
    if (gradient) SAME(g, 1e-5);
    SAME(loss, 1e-6);
    const enum pn_group_loss kind = (enum pn_group_loss)below(3);
    const bool corrected = below(2);
    BOTH(group_loss, kind, F(z), F(labels), corrected ? F(log_q) : NULL, 0.6f, n, F(gg), D(group));
    SAME(gg, 3e-5);
    SAME(group, 3e-5);
    BOTH(in_batch_softmax, F(pairs), (uint64_t *)items->at[s], corrected ? F(log_q) : NULL, n, k, 0.4f, F(scratch), F(dpairs), D(in_batch));
    SAME(dpairs, close_to(1e-4));
    SAME(in_batch, close_to(1e-5));
    free(y);
    free(t);
    free(items_);
}
static void two_vectors(void) {
    const size_t n = a_count(), k = a_width(), rows = 2 * (1 + below(n + 2)), dim = k + 1;
    const bool wide = below(2), one = below(4) == 0;
    struct keys keys = make_keys(n, 2, rows, 1, one, dim);
    struct array *all = floats(rows * dim, 1), *out = poisoned(n), *g = floats(n, 1), *gradients = floats(rows * dim, 1);
    for (int s = 0; s < 2; s++) {
        const struct pn_pool_view v = {n, 2, k, wide, 1.5f, U(keys.pooling), U(keys.begin), U(keys.position)};
        const struct pn_inverse i = inverse(&keys, s);
        table[s]->pair_forward(ctx[s], &v, F(all), F(out));
        table[s]->pair_backward(ctx[s], &v, &i, F(all), F(g), F(gradients));
    }
    SAME(out, 3e-5);
    SAME(gradients, 3e-5);
    struct array *x = floats(n * k, 1), *unit = poisoned(n * k), *du = floats(n * k, 1), *dx = floats(n * k, 1);
    BOTH(unit_forward, F(x), n, k, F(unit));
    SAME(unit, 1e-5);
    BOTH(unit_backward, F(x), F(unit), F(du), n, k, F(dx));
    SAME(dx, 1e-4);
    uint32_t used_[1] = {(uint32_t)below(rows + 1)};
    float *share_ = calloc(rows + 1, sizeof *share_);
    for (size_t r = 0; r < rows; r++) share_[r] = r >= used_[0] ? NAN : below(3) == 0 ? 0 : (float)pn_rng_uniform(&rng); /* beyond: whatever was there */
    struct array *used = put(used_, 1, 4), *share = put(share_, rows, 4), *decayed = floats(rows * dim, 1), *loss = zeros(1, 8);
    free(share_);
    BOTH(decay, F(all), F(share), U(used), rows, dim, 3.0, F(decayed), D(loss));
    SAME(decayed, 1e-6);
    SAME(loss, 1e-5);
}
/* Tokens against their own rows, and against rows that all share; some without a target, some targets among the shared. */
static void tokens(void) {
    const size_t n = 1 + below(8), k = a_width(), rows = 1 + below(80), n_at = below(rows + 1);
    uint32_t *of = calloc(n + 1, 4), *target_, *begin_, *row_, *token_, *at_ = calloc(rows + 1, 4), *order = calloc(4000, 4), *cb = calloc(4000, 4), *cr = calloc(4000, 4), *wb = calloc(4000, 4), two[2],
             *scratch_ = calloc(rows + 2, 4);
    for (size_t e = 0; e < n; e++) of[e + 1] = of[e] + (uint32_t)below(9);
    const size_t t = of[n];
    const bool one = below(3) == 0;
    size_t entries = 0;
    target_ = calloc(t + 1, 4), begin_ = calloc(t + 2, 4), row_ = calloc(5 * t + 1, 4), token_ = calloc(5 * t + 1, 4);
    for (size_t i = 0; i < t; i++) {
        target_[i] = below(4) == 0 ? UINT32_MAX : one ? 0 : (uint32_t)below(rows);
        begin_[i] = (uint32_t)entries;
        for (size_t j = 0, each = 1 + below(4); j < each && target_[i] != UINT32_MAX; j++, entries++) row_[entries] = j == 0 ? target_[i] : (uint32_t)below(rows), token_[entries] = (uint32_t)i;
    }
    begin_[t] = (uint32_t)entries;
    for (size_t j = 0; j < n_at; j++) at_[j] = (uint32_t)((j + 3) % rows);
    const double share = t > 0 ? 1 / (double)t : 0;
    struct array *example = put(of, n + 1, 4), *target = put(target_, t, 4), *begin = put(begin_, t + 1, 4), *row = put(row_, entries, 4), *token = put(token_, entries, 4), *at = put(at_, n_at, 4),
                 *x = floats(t * k, 1), *all = floats(rows * k, 0.5f), *scores = poisoned(n);
    for (int softmax = 0; softmax < 2; softmax++) {
        if (softmax) pn_inverse_build(target_, NULL, t, rows, order, cb, cr, wb, two, scratch_);
        else pn_inverse_build(row_, NULL, entries, rows, order, cb, cr, wb, two, scratch_);
        struct keys keys = {.order = put(order, 5 * t + 1, 4), .chunk_begin = put(cb, two[0] + 1, 4), .chunk_row = put(cr, two[0], 4), .wide_begin = put(wb, two[1] + 1, 4), .counts = put(two, 2, 4),
                            .partial = poisoned((2 * (entries / PN_CHUNK + t / PN_CHUNK) + 2) * k), .n_chunks = two[0], .n_wide = two[1]};
        struct array *z = poisoned(3 * (entries + t) + 4), *dx = floats(t * k, 1e-3f), *drows = floats(rows * k, 1e-3f), *loss = zeros(1, 8), *scratch = poisoned((2 * k + PN_TOKEN_CHUNK) * n_at);
        for (int s = 0; s < 2; s++) {
            const struct pn_tokens_view v = {t, k, U(begin), U(row), U(token), U(target), U(at), n_at};
            const struct pn_inverse i = inverse(&keys, s);
            if (softmax) table[s]->token_softmax(ctx[s], &v, &i, F(x), F(all), share, 7, F(z), F(scratch), F(dx), F(drows), D(loss));
            else table[s]->token_bce(ctx[s], &v, &i, F(x), F(all), share, 7, F(z), F(dx), F(drows), D(loss));
        }
        SAME(loss, softmax ? close_to(1e-5) : 1e-5);
        SAME(dx, softmax ? close_to(1e-4) : 1e-4);
        SAME(drows, softmax ? close_to(1e-4) : 1e-4);
    }
    BOTH(token_scores, F(x), F(all), U(target), U(example), n, k, F(scores));
    SAME(scores, 1e-5);
    void *host[] = {of, target_, begin_, row_, token_, at_, order, cb, cr, wb, scratch_};
    for (size_t i = 0; i < sizeof host / sizeof host[0]; i++) free(host[i]);
}
/* n_rows rows of units of 0 to 6, of one each, of many, or of one unit. *n_units: how many. malloc'ed. */
static uint32_t *make_units(size_t n_rows, size_t *n_units) {
    const size_t shape = below(4);
    uint32_t *begin = calloc(2 * n_rows + 4, 4);
    size_t n = 0;
    for (size_t at = 0; at < n_rows; n++) {
        const size_t many = shape == 0 ? 1 : shape == 1 ? n_rows : shape == 2 ? 20 + below(60) : n < n_rows ? below(7) : 6;
        at = at + many < n_rows ? at + many : n_rows;
        begin[n + 1] = (uint32_t)at;
    }
    *n_units = n;
    return begin;
}
/* Touches of the units, by row: units of examples, entries and rows of each example behind one another from first[e] on. As device_private.c makes them, by the long way. */
static struct pn_touches make_touches(const uint32_t *units, size_t n_units, const uint32_t *first, const uint32_t *entry, const uint32_t *row, size_t n, struct array *of[4]) {
    uint32_t *order = calloc(n + 1, 4), *begin = calloc(n + 2, 4), *groups = calloc(n_units + 1, 4), at = 0, n_groups = 0;
    bool *done = calloc(n + 1, sizeof *done);
    for (size_t u = 0; u < n_units; u++) {
        for (uint32_t i = first[units[u]]; i < first[units[u + 1]]; i++) {
            if (done[i]) continue;
            for (uint32_t j = i; j < first[units[u + 1]]; j++)
                if (row[j] == row[i]) order[at++] = entry[j], done[j] = true;
            begin[++n_groups] = at;
        }
        groups[u + 1] = n_groups;
    }
    of[0] = put(order, n, 4), of[1] = put(begin, n_groups + 1, 4), of[2] = put(groups, n_units + 1, 4), of[3] = poisoned(2 * (n_groups + 3));
    void *host[] = {order, begin, groups, done};
    for (size_t i = 0; i < sizeof host / sizeof host[0]; i++) free(host[i]);
    return (struct pn_touches){.n_units = n_units, .most_groups = n_groups + below(3)};
}
static struct pn_touches touches(struct pn_touches t, struct array *const of[4], int s) {
    t.order = U(of[0]), t.begin = U(of[1]), t.unit_begin = U(of[2]), t.squares = D(of[3]);
    return t;
}
/* Units of two rows that nearly cancel: what is left of the squares is a four thousandth of what is summed. */
static void cancelling(size_t from, size_t width) {
    const size_t n = a_count() / 2 * 2;
    float *x_ = calloc(n * from + 1, sizeof *x_), *g_ = calloc(n * width + 1, sizeof *g_);
    uint32_t *units_ = calloc(n / 2 + 1, 4);
    for (size_t i = 0; i < n * from; i++) x_[i] = i / from % 2 ? x_[i - from] : (float)pn_rng_normal(&rng);
    for (size_t i = 0; i < n * width; i++) g_[i] = i / width % 2 ? -31 * g_[i - width] / 32 : (float)pn_rng_normal(&rng);
    for (size_t u = 0; u <= n / 2; u++) units_[u] = (uint32_t)(2 * u);
    struct array *x = put(x_, n * from, 4), *g = put(g_, n * width, 4), *units = put(units_, n / 2 + 1, 4), *of_outer = zeros(n / 2, 8);
    for (int s = 0; s < 2; s++) {
        const struct pn_units v = {n / 2, n, U(units)};
        table[s]->outer_norms(ctx[s], &v, F(x), from, true, F(g), NULL, width, D(of_outer));
    }
    SAME(of_outer, 3e-5);
    free(x_);
    free(g_);
    free(units_);
}
static void privates(void) {
    const size_t n = a_count(), f = below(6), k = below(6) == 0 ? 0 : a_width(), rows = 1 + below(2 * n + 2), n_sequences = below(3), most = 1 + below(9);
    const bool wide = k == 0 || below(2), one = below(3) == 0; /* one: a unit that names a row many times */
    const struct keys keys = make_keys(n, f, rows, below(2), one, wide + k), pairs = make_keys(n, 2, rows, 1, one, wide + k);
    size_t n_units, n_touches = 0;
    uint32_t *units_ = make_units(n, &n_units), *unit_ = calloc(n + 1, 4), *tokens_ = calloc(n + 1, 4), *first = calloc(n + 1, 4);
    for (size_t u = 0; u < n_units; u++)
        for (size_t e = units_[u]; e < units_[u + 1]; e++) unit_[e] = (uint32_t)u;
    tokens_[0] = (uint32_t)below(5); /* tokens count from tokens_[0] */
    for (size_t e = 0; e < n; e++) tokens_[e + 1] = tokens_[e] + (uint32_t)below(most + 1);
    const size_t n_tokens = tokens_[n] - tokens_[0], room = keys.n_keys + n_sequences * n_tokens + 2 * n + 1;
    uint32_t *entry = calloc(room, 4), *row = calloc(room, 4);
    struct array *units = put(units_, n_units + 1, 4), *unit = put(unit_, n, 4), *begin = put(tokens_, n + 1, 4), *of[4], *of_two[4], *vectors[2] = {floats(n_tokens * k, 1), floats(n_tokens * k, 1)};
    const uint32_t *key_begin = keys.begin->at[0], *position = keys.position->at[0], *pair_position = pairs.position->at[0]; /* the CPU's */
    for (size_t e = 0; e < n; first[++e] = (uint32_t)n_touches) {
        for (size_t s = 0; s < f; s++)
            for (uint32_t i = key_begin[s * n + e]; i < key_begin[s * n + e + 1]; i++, n_touches++) entry[n_touches] = (uint32_t)(e * f + s), row[n_touches] = position[i];
        for (size_t q = 0; q < n_sequences; q++)
            for (size_t t = tokens_[e] - tokens_[0]; t < tokens_[e + 1] - tokens_[0]; t++)
                if (below(4) > 0) entry[n_touches] = (uint32_t)(n * f + q * n_tokens + t), row[n_touches++] = one ? 0 : (uint32_t)below(rows); /* else that token has no key */
    }
    const struct pn_touches all_touches = make_touches(units_, n_units, first, entry, row, n_touches, of);
    for (size_t i = 0; i < 2 * n; i++) entry[i] = (uint32_t)i, row[i] = pair_position[i % 2 * n + i / 2] + (uint32_t)(i % 2 * rows); /* two tables */
    for (size_t e = 0; e <= n; e++) first[e] = (uint32_t)(2 * e);
    const struct pn_touches pair_touches = make_touches(units_, n_units, first, entry, row, 2 * n, of_two);
    struct array *dl = floats(n, 1), *de = floats(n * f * k, 1), *all = floats(rows * (wide + k), 1), *of_rows = zeros(n_units, 8), *of_pairs = zeros(n_units, 8), *of_layer = zeros(n_units, 8),
                 *of_outer = zeros(n_units, 8), *of_positions = zeros(n_units, 8);
    for (int s = 0; s < 2; s++) {
        const struct pn_pool_view v = {n, f, k, wide, 1.5f, U(keys.pooling), U(keys.begin), U(keys.position)}, two = {n, 2, k, wide, 1.5f, U(pairs.pooling), U(pairs.begin), U(pairs.position)};
        const struct pn_row_sources sources = {.pool = v, .linear = F(dl), .embedded = F(de), .n_tokens = n_tokens, .gain = 1.25f, .tokens = {F(vectors[0]), F(vectors[1])}};
        const struct pn_touches t = touches(all_touches, of, s), p = touches(pair_touches, of_two, s);
        table[s]->row_norms(ctx[s], &t, &sources, D(of_rows));
        table[s]->pair_norms(ctx[s], &p, &two, F(all), F(dl), D(of_pairs));
    }
    SAME(of_rows, 1e-5);
    SAME(of_pairs, 1e-5);
    const size_t width = below(8) == 0 ? 300 : a_width(), from = below(8) == 0 ? 0 : a_width();
    const bool biased = from == 0 || below(2), by_element = below(2);
    struct array *x = floats(n * (from > width ? from : width), 1), *y = floats(n * width, 1), *g = floats(n * width, 1), *gt = floats(n_tokens * width, 1);
    for (int s = 0; s < 2; s++) {
        const struct pn_units v = {n_units, n, U(units)};
        table[s]->layer_norms(ctx[s], &v, F(x), F(g), width, D(of_layer));
        table[s]->outer_norms(ctx[s], &v, F(x), from, biased, F(g), by_element ? F(y) : NULL, width, D(of_outer));
        table[s]->position_norms(ctx[s], &v, F(gt), U(begin), most, width, D(of_positions));
    }
    SAME(of_layer, 1e-5);
    SAME(of_outer, 1e-4);
    SAME(of_positions, 1e-5);
    cancelling(from, width);
    double *norms_ = calloc(n_units + 1, sizeof *norms_);
    for (size_t u = 0; u < n_units; u++) norms_[u] = below(4) == 0 ? (below(2) ? (double)NAN : (double)INFINITY) : 9 * pn_rng_uniform(&rng);
    struct array *norms_of = put(norms_, n_units, 8); /* no number: nothing of that unit may pass */
    BOTH(clip_units, D(norms_of), U(unit), 1.5f, n, width, F(g));
    SAME(g, 1e-6);
    void *host[] = {units_, unit_, tokens_, first, entry, row, norms_};
    for (size_t i = 0; i < sizeof host / sizeof host[0]; i++) free(host[i]);
}
static void dense(void) {
    const size_t n = 200 * a_count() + below(7);
    struct array *x = floats(n, 1), *sum = zeros(1, 8), *g = floats(n, 1), *p = floats(n, 1), *state = zeros(2 * n, 4), *noisy = zeros(n, 4);
    const enum pn_dense_rule rule = (enum pn_dense_rule)below(3);
    BOTH(sum_squares, F(x), n, D(sum));
    SAME(sum, 1e-9);
    BOTH(clip, D(sum), 3.0f, n, F(x));
    SAME(x, 1e-6);
    for (uint64_t i = 1; i <= 3; i++) BOTH(dense_step, rule, 0.1f, 1e-6f, 0.9f, 0.99f, i, n, F(g), F(state), F(p));
    SAME(p, 1e-5);
    SAME(state, 1e-5);
    const uint64_t seed = pn_rng_next(&rng);
    BOTH(add_noise, n, 0.5f, seed, F(noisy));
    SAME(noisy, 1e-5);
}

int main(int argc, char **argv) {
    static const struct { const char *name; void (*run)(void); int rounds; bool product; } tests[] = {
        {"pool", pool, 60, false}, {"fm", fm, 20, false}, {"linear", linear, 40, true}, {"cross", cross, 20, true}, {"dot", dot, 20, false}, {"layer norm", norms, 25, false},
        {"batch norm", batch_norms, 25, false}, {"attention", attention, 30, false}, {"dropout", dropout, 30, false}, {"small ones", small, 40, false}, {"sequences", sequences, 25, false},
        {"losses", losses, 30, true}, {"two vectors", two_vectors, 20, false}, {"tokens", tokens, 8, true}, {"private", privates, 40, false}, {"dense", dense, 25, false}};
    const enum pn_precision all[] = {PN_FLOAT32, PN_TF32, PN_BFLOAT16, PN_FLOAT16};
    table[0] = &pn_backend_cpu;
    table[1] = parity_backend(argc, argv);
    const int times = argc > 2 ? atoi(argv[2]) : 1;
    struct pn_error err = {""};
    for (size_t a = 0; a < 4; a++) {
        precision = all[a];
        for (int s = 0; s < 2; s++)
            if (table[s]->open(&ctx[s], 0, precision, &err) != PN_OK) {
                fprintf(stderr, "%s\n", err.text);
                return 1;
            }
        for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++) {
            if ((precision != PN_FLOAT32 && !tests[i].product) || (argc > 3 && strcmp(argv[3], tests[i].name) != 0)) continue;
            worst = n_compared = 0;
            what = tests[i].name;
            for (int r = 0; r < times * tests[i].rounds; r++) {
                tests[i].run();
                release();
            }
            printf("%-8s %-10s %-12s %3d shapes, %9.0f numbers, worst %.2f of what is allowed\n", table[1]->name, (const char *const[]){"float32", "tf32", "bfloat16", "float16"}[precision], what,
                   times * tests[i].rounds, n_compared, worst);
        }
        for (int s = 0; s < 2; s++) table[s]->close(ctx[s]);
    }
    if (failures > 0) fprintf(stderr, "%d arrays differ\n", failures);
    return failures > 0;
}
