/* A table with a second tier beside one that keeps all in memory: whatever is promoted and demoted when, they cannot be told apart. */
#include "tests/unit/fake_tier.h"
#include "tests/unit/table/util.h"

enum { DIM = 5, KEYS = 60000, BATCH = 700 };

static struct pn_table_spec spec_of_memory(enum pn_optimizer kind, uint64_t memory) {
    struct pn_table_spec spec = spec_of(kind, DIM);
    spec.memory = memory;
    return spec;
}

struct pair { struct pn_table *plain, *tiered; struct fake_tier *tier; uint64_t step; uint32_t i_slot; struct pn_rng rng; struct pn_demotion *flying; bool gone; };

static void pair_open(struct pair *p, enum pn_optimizer kind, enum pn_codec storage) {
    struct pn_table_spec spec = spec_of_memory(kind, 600000); /* some nine rows a slot */
    *p = (struct pair){.rng = {kind + 1}};
    spec.storage = storage;
    struct pn_tier *tier = fake_tier(pn_table_tier_bytes(&spec));
    p->tier = fake_tier_of(tier);
    p->tier->gone = &p->gone;
    p->tiered = pn_table_open_tiered(&spec, tier);
    spec.memory = 0;
    p->plain = pn_table_open(&spec);
    ck_assert(p->tiered != NULL && p->plain != NULL);
}
static void pair_close(struct pair *p) {
    if (p->flying != NULL) pn_table_demoted(NULL, p->flying);
    pn_table_close(p->plain);
    pn_table_close(p->tiered);
    ck_assert(p->gone);
}
/* Unique keys, the small ones more often. */
static size_t some_keys(struct pair *p, uint64_t *keys) {
    size_t n = 0;
    static uint8_t seen[KEYS];
    memset(seen, 0, sizeof seen);
    while (n < BATCH) {
        const double u = pn_rng_uniform(&p->rng);
        const uint64_t k = (uint64_t)(KEYS * u * u * u);
        if (!seen[k]++) keys[n++] = k * 7919;
    }
    return n;
}
static void same_pull(struct pair *p) {
    static uint64_t keys[BATCH];
    static float a[BATCH * DIM], b[BATCH * DIM];
    const size_t n = some_keys(p, keys);
    ck_assert_uint_eq(pn_table_pull(p->plain, keys, n, a), pn_table_pull(p->tiered, keys, n, b));
    ck_assert_mem_eq(a, b, n * DIM * sizeof(float));
}
static void push(struct pair *p) {
    static uint64_t keys[BATCH];
    static float g[BATCH * DIM];
    const size_t n = some_keys(p, keys);
    uint64_t skip[PN_SLOTS / 64];
    for (size_t i = 0; i < n * DIM; i++) g[i] = (float)(pn_rng_uniform(&p->rng) - 0.5);
    for (size_t i = 0; i < PN_SLOTS / 64; i++) skip[i] = pn_rng_next(&p->rng) & pn_rng_next(&p->rng) & pn_rng_next(&p->rng);
    const bool skips = p->step++ % 5 == 0;
    OK(pn_table_push(p->plain, keys, g, n, p->step, skips ? skip : NULL));
    OK(pn_table_push(p->tiered, keys, g, n, p->step, skips ? skip : NULL));
    /* The three parts of a demotion fall between requests as it comes. */
    if (p->flying == NULL && pn_rng_next(&p->rng) % 3 == 0) p->flying = pn_table_demote(p->tiered, &p->i_slot, p->step);
    else if (p->flying != NULL && pn_rng_next(&p->rng) % 2 == 0) {
        pn_demotion_write(p->flying);
        if (pn_rng_next(&p->rng) % 2 == 0) same_pull(p);
        pn_table_demoted(p->tiered, p->flying);
        p->flying = NULL;
    }
}
static int by_key(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}
/* All records of a cut in the order of keys. between: what goes on meanwhile. */
static uint8_t *records_of(struct pn_table *t, size_t *n, struct pair *p) {
    const size_t size = pn_table_record_bytes(t);
    size_t room = pn_table_rows(t) + 300;
    uint8_t *out = malloc(room * size);
    *n = 0;
    for (size_t got; (got = pn_table_scan(t, out + *n * size, 300)) > 0; *n += got) {
        ck_assert_uint_le(*n + got + 300, room);
        if (p != NULL && *n % 7 == 0) push(p);
    }
    struct pn_cold_scan *s = pn_table_cold_scan(t);
    bool failed = false;
    if (s != NULL)
        for (size_t got; (got = pn_cold_scan_next(s, out + *n * size, 300, &failed)) > 0;) {
            *n += pn_table_cold_keep(t, out + *n * size, got);
            if (*n + 600 > room) out = realloc(out, (room *= 2) * size);
            if (p != NULL && pn_rng_next(&p->rng) % 50 == 0) push(p);
        }
    ck_assert(!failed);
    pn_cold_scan_end(s);
    pn_table_cut_abort(t);
    qsort(out, *n, size, by_key);
    return out;
}

START_TEST(no_one_can_tell_a_tiered_table_from_one_in_memory) {
    struct pair p;
    pair_open(&p, (enum pn_optimizer)(_i % N_OPTIMIZERS), _i >= N_OPTIMIZERS ? PN_CODEC_INT8 : PN_CODEC_FLOAT32);
    for (int i = 0; i < 300; i++) {
        push(&p);
        same_pull(&p);
        ck_assert_uint_eq(pn_table_rows(p.plain), pn_table_rows(p.tiered));
    }
    const struct pn_table_counters *c = pn_table_counters(p.tiered);
    ck_assert_uint_gt(c->promoted, 1000);
    ck_assert_uint_gt(c->demoted, 1000);
    ck_assert_uint_gt(pn_table_cold_rows(p.tiered), pn_table_rows(p.plain) / 3);
    pair_close(&p);
} END_TEST

START_TEST(a_cut_shows_one_moment_of_both_tiers_while_rows_come_and_go) {
    struct pair p;
    pair_open(&p, PN_ADAGRAD, PN_CODEC_FLOAT32);
    for (int i = 0; i < 200; i++) push(&p);
    for (int round = 0; round < 4; round++) {
        size_t n, m;
        /* Both cuts at one moment; the plain one is read first, while nothing changes. */
        ck_assert(pn_table_cut(p.plain) && pn_table_cut(p.tiered));
        uint8_t *want = records_of(p.plain, &m, NULL), *got = records_of(p.tiered, &n, &p);
        ck_assert_uint_eq(n, m);
        ck_assert_mem_eq(got, want, n * pn_table_record_bytes(p.plain));
        /* What was read makes a table again, within its memory. */
        struct pn_table_spec spec = spec_of_memory(PN_ADAGRAD, 600000);
        struct pn_tier *tier = fake_tier(pn_table_tier_bytes(&spec));
        struct pn_table *again = pn_table_open_tiered(&spec, tier);
        OK(pn_table_restore(again, got, n));
        ck_assert_uint_eq(pn_table_rows(again), n);
        ck_assert(!pn_table_crowded(again));
        ck_assert_uint_gt(pn_table_cold_rows(again), n / 3);
        size_t k;
        ck_assert(pn_table_cut(again));
        uint8_t *twice = records_of(again, &k, NULL);
        ck_assert_uint_eq(k, n);
        ck_assert_mem_eq(twice, got, n * pn_table_record_bytes(p.plain));
        pn_table_close(again);
        free(want);
        free(got);
        free(twice);
        for (int i = 0; i < 20; i++) push(&p);
    }
    pair_close(&p);
} END_TEST

START_TEST(the_most_pushed_rows_stay_in_memory) {
    struct pn_table_spec spec = spec_of_memory(PN_SGD, 600000);
    struct pn_tier *tier = fake_tier(pn_table_tier_bytes(&spec));
    struct pn_table *t = pn_table_open_tiered(&spec, tier);
    static uint64_t keys[20000];
    static float g[20000 * DIM];
    for (uint64_t i = 0; i < 20000; i++) keys[i] = i;
    for (uint64_t step = 1; step <= 10; step++) OK(pn_table_push(t, keys, g, step == 1 ? 20000 : 3000, step, NULL));
    uint32_t i_slot = 0;
    for (struct pn_demotion *d; (d = pn_table_demote(t, &i_slot, 10)) != NULL;) {
        pn_demotion_write(d);
        pn_table_demoted(t, d);
    }
    ck_assert(!pn_table_crowded(t));
    const uint64_t before = pn_table_counters(t)->promoted;
    OK(pn_table_push(t, keys, g, 3000, 11, NULL)); /* three a slot, of a share of nine or so */
    ck_assert_uint_lt(pn_table_counters(t)->promoted - before, 30);
    OK(pn_table_push(t, keys, g, 20000, 12, NULL));
    ck_assert_uint_gt(pn_table_counters(t)->promoted - before, 4000);
    ck_assert_uint_eq(pn_table_rows(t), 20000);
    pn_table_close(t);
} END_TEST

START_TEST(a_tier_that_fails_is_said_and_a_refused_batch_loses_nothing) {
    struct pair p;
    pair_open(&p, PN_ADAM, PN_CODEC_FLOAT32);
    p.tier->fail_puts = 3;
    for (int i = 0; i < 150; i++) {
        push(&p);
        same_pull(&p);
    }
    ck_assert_uint_eq(pn_table_counters(p.tiered)->demotions_failed, 3);
    ck_assert_uint_gt(pn_table_cold_rows(p.tiered), 100);
    static uint64_t keys[KEYS];
    static float rows[KEYS * DIM];
    for (uint64_t i = 0; i < KEYS; i++) keys[i] = i * 7919;
    p.tier->fail_gets = 1;
    ck_assert(pn_table_pull(p.tiered, keys, KEYS, rows) == SIZE_MAX);
    ck_assert_int_eq(pn_table_push(p.tiered, keys, rows, KEYS, 1000, NULL), PN_IO); /* it stays failed: only a restore mends it */
    pair_close(&p);
} END_TEST

int main(void) {
    TCase *c = tcase_create("tiers");
    tcase_add_loop_test(c, no_one_can_tell_a_tiered_table_from_one_in_memory, 0, 2 * N_OPTIMIZERS);
    tcase_add_test(c, a_cut_shows_one_moment_of_both_tiers_while_rows_come_and_go);
    tcase_add_test(c, the_most_pushed_rows_stay_in_memory);
    tcase_add_test(c, a_tier_that_fails_is_said_and_a_refused_batch_loses_nothing);
    return run_suite(c);
}
