/* nn/cache.h for the CPU's table: what the device's cache is held against. The same buckets of 128 places and the same choice of what goes, looked through one by one. */
#include "nn/cache.h"
#include <stdlib.h>
#include <string.h>
#include "common/hash.h"

enum { PLACES = 128 };

struct place { uint64_t key; uint32_t score, refreshed; bool there; };
struct pn_cache {
    size_t n_buckets, dim;      /* n_buckets: a power of two */
    struct place *places;       /* n_buckets * PLACES */
    float *rows;                /* ... * dim */
    struct pn_cache_counts counts;
};

static void cache_close(struct pn_cache *c) {
    free(c->places);
    free(c->rows);
    free(c);
}
static struct pn_cache *cache_open(struct pn_ctx *ctx, size_t n_rows, size_t dim) {
    (void)ctx;
    struct pn_cache *c = calloc(1, sizeof *c);
    if (c == NULL) return NULL;
    c->dim = dim;
    for (c->n_buckets = 1; c->n_buckets * PLACES < n_rows;) c->n_buckets *= 2;
    c->places = calloc(c->n_buckets * PLACES, sizeof *c->places);
    c->rows = malloc(c->n_buckets * PLACES * dim * sizeof *c->rows);
    if (c->places != NULL && c->rows != NULL) return c;
    cache_close(c);
    return NULL;
}
static size_t cache_room(const struct pn_cache *c) { return c->n_buckets * PLACES; }
static void cache_empty(struct pn_cache *c) { memset(c->places, 0, c->n_buckets * PLACES * sizeof *c->places); }

static struct place *bucket_of(const struct pn_cache *c, uint64_t key) { return c->places + (pn_mix64(key) & (c->n_buckets - 1)) * PLACES; }
static float *row_of(const struct pn_cache *c, const struct place *p) { return c->rows + (size_t)(p - c->places) * c->dim; }
static struct place *place_of(const struct pn_cache *c, uint64_t key) {
    struct place *b = bucket_of(c, key);
    for (size_t i = 0; i < PLACES; i++)
        if (b[i].there && b[i].key == key) return &b[i];
    return NULL;
}

static void cache_find(struct pn_cache *c, const uint64_t *keys, size_t n, uint32_t now, uint32_t staleness, float *rows, uint32_t *hit) {
    for (size_t i = 0; i < n; i++) {
        struct place *p = place_of(c, keys[i]);
        hit[i] = p != NULL && now - p->refreshed <= staleness;
        c->counts.found += hit[i];
        c->counts.stale += p != NULL && !hit[i];
        c->counts.missing += p == NULL;
        if (!hit[i]) continue;
        memcpy(rows + i * c->dim, row_of(c, p), c->dim * sizeof *rows);
        p->score = now;
    }
}

/* An empty place, else the one of the least score, of equals the first. */
static struct place *victim(const struct pn_cache *c, uint64_t key) {
    struct place *b = bucket_of(c, key), *best = b;
    for (size_t i = 0; i < PLACES; i++) {
        if (!b[i].there) return &b[i];
        if (b[i].score < best->score) best = &b[i];
    }
    return best;
}
static void cache_insert(struct pn_cache *c, const uint64_t *keys, const float *rows, const uint32_t *hit, size_t n, uint32_t now) {
    for (size_t i = 0; i < n; i++) {
        if (hit != NULL && hit[i] != 0) continue;
        struct place *p = place_of(c, keys[i]);
        if (p == NULL) {
            p = victim(c, keys[i]);
            *(p->there ? &c->counts.evicted : &c->counts.inserted) += 1;
        }
        *p = (struct place){keys[i], now, now, true};
        memcpy(row_of(c, p), rows + i * c->dim, c->dim * sizeof *rows);
    }
}
static void cache_assemble(struct pn_ctx *ctx, const float *found, const float *pulled, const uint32_t *source, size_t n, size_t dim, float *out) {
    (void)ctx;
    for (size_t i = 0; i < n; i++) memcpy(out + i * dim, source[i] == UINT32_MAX ? found + i * dim : pulled + (size_t)source[i] * dim, dim * sizeof *out);
}
static void cache_accumulate(struct pn_cache *c, const uint64_t *keys, const float *gradients, size_t n, float rate) {
    for (size_t i = 0; i < n; i++) {
        struct place *p = place_of(c, keys[i]);
        for (size_t d = 0; p != NULL && d < c->dim; d++) row_of(c, p)[d] -= rate * gradients[i * c->dim + d];
    }
}
static struct pn_cache_counts cache_look(struct pn_cache *c) {
    const struct pn_cache_counts counts = c->counts;
    c->counts = (struct pn_cache_counts){0};
    return counts;
}

const struct pn_cache_ops pn_cache_cpu = {cache_open, cache_close, cache_room, cache_empty, cache_find, cache_insert, cache_assemble, cache_accumulate, cache_look};
