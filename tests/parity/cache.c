/* The cache of hot rows against a model of it on the host: what is found is what was put in last, and no older than it may be; at 50 % and 95 % fill; a full bucket gives
 * up its least used row; keys of one digest and one bucket are told apart; copies follow the worker's own gradients. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/parity/parity.h"

static const struct pn_backend *be;
static const struct pn_cache_ops *ops;
static struct pn_ctx *ctx;
static int failures;
#define CHECK(truth, ...)                                          \
    do                                                             \
        if (!(truth)) {                                            \
            if (failures++ < 20) fprintf(stderr, __VA_ARGS__), fputc('\n', stderr); \
        }                                                          \
    while (0)

enum { DIM = 5, MOST = 20000 };
static struct { uint64_t *keys; float *rows; uint32_t *hit; } dev;
static uint64_t keys[MOST];
static float rows[MOST * DIM];
static uint32_t hit[MOST];

static void up(size_t n) {
    be->upload(ctx, dev.keys, keys, n * sizeof *keys);
    be->upload(ctx, dev.rows, rows, n * DIM * sizeof *rows);
    be->upload(ctx, dev.hit, hit, n * sizeof *hit);
    be->finish(ctx, NULL);
}
static void down(size_t n) {
    struct pn_error err = {""};
    if (be->finish(ctx, &err) != PN_OK) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    be->download(ctx, rows, dev.rows, n * DIM * sizeof *rows);
    be->download(ctx, hit, dev.hit, n * sizeof *hit);
    be->finish(ctx, NULL);
}
static float value(uint64_t key, size_t d, uint32_t version) { return (float)(key % 1000) + 0.125f * (float)d + 1000.0f * (float)version; }
static void fill_rows(size_t n, uint32_t version) {
    for (size_t i = 0; i < n; i++)
        for (size_t d = 0; d < DIM; d++) rows[i * DIM + d] = value(keys[i], d, version);
}
static void insert(struct pn_cache *c, size_t n, uint32_t version, uint32_t now) {
    fill_rows(n, version);
    up(n);
    ops->insert(c, dev.keys, dev.rows, NULL, n, now);
}
/* How many of keys[n] are found; each must have the values of `version`. */
static size_t find(struct pn_cache *c, size_t n, uint32_t version, uint32_t now, uint32_t staleness) {
    size_t found = 0;
    memset(rows, 0xff, n * DIM * sizeof *rows);
    memset(hit, 0xff, n * sizeof *hit);
    up(n);
    ops->find(c, dev.keys, n, now, staleness, dev.rows, dev.hit);
    down(n);
    for (size_t i = 0; i < n; i++) {
        CHECK(hit[i] <= 1, "hit %u", hit[i]);
        found += hit[i];
        for (size_t d = 0; d < DIM; d++) {
            if (hit[i]) CHECK(rows[i * DIM + d] == value(keys[i], d, version), "key %zu float %zu is %g, not %g", i, d, (double)rows[i * DIM + d], (double)value(keys[i], d, version));
            else CHECK(isnan(rows[i * DIM + d]), "a row that was not found was written");
        }
    }
    return found;
}

/* Keys at random: at 50 % no bucket of 128 is full and all stay; at 95 % and 100 % a full bucket loses some, and the counts say how many. */
static void fills(double share, size_t n_rows) {
    struct pn_cache *c = ops->open(ctx, n_rows, DIM);
    const size_t room = ops->room(c), n = (size_t)(share * (double)room);
    CHECK(room >= n_rows && n <= MOST, "room %zu for %zu", room, n_rows);
    for (size_t i = 0; i < n; i++) keys[i] = pn_mix64(i + 77);
    insert(c, n, 1, 1);
    struct pn_cache_counts k = ops->look(c);
    CHECK(k.inserted + k.evicted == n, "%zu inserted and %zu evicted of %zu", (size_t)k.inserted, (size_t)k.evicted, n);
    const size_t found = find(c, n, 1, 1, 0);
    const struct pn_cache_counts f = ops->look(c);
    CHECK(found == k.inserted && f.found == found && f.missing == n - found && f.stale == 0, "%zu found, %zu inserted", found, (size_t)k.inserted);
    CHECK(share > 0.6 || found == n, "at %.0f %% only %zu of %zu are there", 100 * share, found, n);
    insert(c, n, 2, 2); /* again: over the old copies, and those that were evicted come back in others' places */
    k = ops->look(c);
    CHECK(share > 0.6 || k.inserted + k.evicted == 0, "copies that are there take new places");
    for (size_t i = 0; i < n; i++) keys[i] = pn_mix64(i + 77);
    CHECK(find(c, n, 2, 2, 0) == found, "a second insertion changes how many there are");
    for (size_t i = 0; i < n; i++) keys[i] = pn_mix64(i + 5000000); /* never put in */
    CHECK(find(c, n, 2, 2, 0) == 0, "keys are found that were never put in");
    printf("%-8s %zu places filled to %.0f %%: %.1f %% of the keys stay\n", be->name, room, 100 * share, 100.0 * (double)found / (double)n);
    ops->close(c);
}

/* One bucket: 128 keys, used at different steps; new ones evict the least lately used, in that order. */
static void evicts(void) {
    struct pn_cache *c = ops->open(ctx, 128, DIM);
    CHECK(ops->room(c) == 128, "a bucket has %zu places", ops->room(c));
    for (uint64_t i = 0; i < 128; i++) { /* each at its own step, 5 apart from its neighbour in a mixed order */
        keys[0] = 1000 + i;
        insert(c, 1, 1, (uint32_t)(1 + i * 37 % 128));
    }
    for (uint64_t i = 0; i < 20; i++) {
        keys[0] = 5000 + i;
        insert(c, 1, 1, 200);
    }
    for (uint64_t i = 0; i < 128; i++) keys[i] = 1000 + i;
    find(c, 128, 1, 200, 1000);
    for (uint64_t i = 0; i < 128; i++) CHECK(hit[i] == (1 + i * 37 % 128 > 20), "row used at step %zu is %s", (size_t)(1 + i * 37 % 128), hit[i] ? "still there" : "gone");
    for (uint64_t i = 0; i < 20; i++) keys[i] = 5000 + i;
    CHECK(find(c, 20, 1, 200, 1000) == 20, "new rows are not there");
    const struct pn_cache_counts k = ops->look(c);
    CHECK(k.inserted == 128 && k.evicted == 20, "%zu inserted, %zu evicted", (size_t)k.inserted, (size_t)k.evicted);
    /* a batch larger than the bucket: whatever stays is whole, and 128 stay */
    for (uint64_t i = 0; i < 1000; i++) keys[i] = 90000 + i; /* their order is the device's */
    insert(c, 1000, 3, 201);
    CHECK(find(c, 1000, 3, 201, 0) == 128, "after a thousand keys the bucket does not hold 128 of them");
    ops->close(c);
}

static void grows_stale(void) {
    struct pn_cache *c = ops->open(ctx, 1024, DIM);
    const size_t n = 300;
    for (size_t i = 0; i < n; i++) keys[i] = pn_mix64(i);
    insert(c, n, 1, 10);
    CHECK(find(c, n, 1, 14, 4) == n, "a row is stale too early");
    CHECK(find(c, n, 1, 15, 4) == 0, "a row older than it may be is found");
    ops->look(c);
    find(c, n, 1, 20, 4);
    const struct pn_cache_counts k = ops->look(c);
    CHECK(k.stale == n && k.missing == 0, "%zu stale", (size_t)k.stale);
    fill_rows(n, 2); /* what a pull of the stale ones brings; hit: only those of 0 are put in */
    for (size_t i = 0; i < n; i++) hit[i] = i % 3 == 0;
    up(n);
    ops->insert(c, dev.keys, dev.rows, dev.hit, n, 20);
    size_t fresh = 0;
    for (size_t i = 0; i < n; i++)
        if (i % 3 != 0) keys[fresh++] = keys[i];
    CHECK(find(c, fresh, 2, 24, 4) == fresh, "refreshed rows are not there");
    ops->close(c);
}

static void follows_gradients(void) {
    struct pn_cache *c = ops->open(ctx, 1024, DIM);
    const size_t n = 200;
    for (size_t i = 0; i < n; i++) keys[i] = pn_mix64(i);
    insert(c, n / 2, 1, 1);
    for (size_t i = 0; i < n * DIM; i++) rows[i] = (float)(i % 11);
    up(n);
    ops->accumulate(c, dev.keys, dev.rows, n, 0.5f); /* half of them are not there */
    memset(hit, 0, sizeof hit);
    memset(rows, 0xff, n * DIM * sizeof *rows);
    up(n);
    ops->find(c, dev.keys, n, 1, 0, dev.rows, dev.hit);
    down(n);
    for (size_t i = 0; i < n; i++) {
        CHECK(hit[i] == (i < n / 2), "row %zu", i);
        for (size_t d = 0; d < DIM && hit[i]; d++) CHECK(rows[i * DIM + d] == value(keys[i], d, 1) - 0.5f * (float)((i * DIM + d) % 11), "row %zu does not follow its gradient", i);
    }
    ops->close(c);
}

/* A batch of rows that were found and rows that were pulled; beyond it nothing is written. */
static void assembles(void) {
    const size_t n = 777;
    size_t pulled = 0;
    for (size_t i = 0; i < n; i++) {
        keys[i] = pn_mix64(i);
        hit[i] = i % 3 == 1 ? UINT32_MAX : (uint32_t)pulled++;
    }
    fill_rows(n, 1);
    up(n);
    float *found = be->alloc(ctx, n * DIM * sizeof *rows), *out = be->alloc(ctx, (n + 1) * DIM * sizeof *rows);
    be->upload(ctx, found, rows, n * DIM * sizeof *rows);
    be->finish(ctx, NULL);
    for (size_t i = 0; i < n; i++) /* a pulled row says where it lay */
        for (size_t d = 0; d < DIM; d++) rows[i * DIM + d] = (float)(i * 10 + d);
    be->upload(ctx, dev.rows, rows, n * DIM * sizeof *rows);
    memset(rows, 0xff, (n + 1) * DIM * sizeof *rows);
    be->upload(ctx, out, rows, (n + 1) * DIM * sizeof *rows);
    be->finish(ctx, NULL);
    ops->assemble(ctx, found, dev.rows, dev.hit, n, DIM, out);
    be->finish(ctx, NULL);
    be->download(ctx, rows, out, (n + 1) * DIM * sizeof *rows);
    be->finish(ctx, NULL);
    for (size_t i = 0; i < n; i++)
        for (size_t d = 0; d < DIM; d++) CHECK(rows[i * DIM + d] == (i % 3 == 1 ? value(keys[i], d, 1) : (float)(hit[i] * 10 + d)), "row %zu of a batch is another", i);
    CHECK(isnan(rows[n * DIM]), "a row behind the batch was written");
    be->free(ctx, found);
    be->free(ctx, out);
}
static void empties(void) {
    struct pn_cache *c = ops->open(ctx, 1024, DIM);
    const size_t n = 300;
    for (size_t i = 0; i < n; i++) keys[i] = pn_mix64(i);
    insert(c, n, 1, 1);
    CHECK(find(c, n, 1, 1, 0) == n, "rows are not there");
    ops->empty(c);
    CHECK(find(c, n, 1, 1, 1000) == 0, "an emptied cache has rows");
    insert(c, n, 2, 2);
    CHECK(find(c, n, 2, 2, 0) == n, "an emptied cache takes no rows");
    ops->close(c);
}

int main(int argc, char **argv) {
    struct pn_error err = {""};
    be = argc > 1 && strcmp(argv[1], "cpu") == 0 ? &pn_backend_cpu : parity_backend(argc, argv); /* the reference too */
    ops = be->cache;
    if (be->open(&ctx, 0, PN_FLOAT32, &err) != PN_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    dev.keys = be->alloc(ctx, sizeof keys);
    dev.rows = be->alloc(ctx, sizeof rows);
    dev.hit = be->alloc(ctx, sizeof hit);
    fills(0.5, 2048);
    fills(0.95, 2048);
    fills(1.0, 1024);
    evicts();
    grows_stale();
    follows_gradients();
    assembles();
    empties();
    if (failures == 0) printf("%-8s eviction goes by use, staleness is bounded, copies follow gradients\n", be->name);
    else fprintf(stderr, "%d checks failed\n", failures);
    be->free(ctx, dev.keys);
    be->free(ctx, dev.rows);
    be->free(ctx, dev.hit);
    be->close(ctx);
    return failures > 0;
}
