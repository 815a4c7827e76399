/* Who gets a row, and who loses it. */
#include "ps/table/filter.h"
#include "tests/unit/table/util.h"

static struct pn_table_spec plain(void) {
    struct pn_table_spec spec = spec_of(PN_SGD, 2);
    spec.optimizer = (struct pn_optimizer_spec){.kind = PN_SGD, .lr = 1};
    spec.init = PN_INIT_CONSTANT;
    spec.init_scale = 0.5f;
    spec.admit_counters = 1u << 20;
    return spec;
}
static void push_one(struct pn_table *t, uint64_t key, uint64_t step) {
    const float g[2] = {-1, -1};
    OK(pn_table_push(t, &key, g, 1, step, NULL));
}
static float value(struct pn_table *t, uint64_t key) {
    float row[2];
    pn_table_pull(t, &key, 1, row);
    return row[0];
}

START_TEST(a_row_is_made_at_the_nth_push_and_the_ones_before_are_dropped) {
    struct pn_table_spec spec = plain();
    spec.admit_count = 3;
    struct pn_table *t = pn_table_open(&spec);
    for (uint64_t key = 0; key < 500; key++)
        for (uint64_t n = 1; n <= key % 6; n++) push_one(t, key, n);
    uint64_t rows = 0, dropped = 0;
    for (uint64_t key = 0; key < 500; key++) {
        const uint64_t n = key % 6;
        ck_assert(value(t, key) == (n < 3 ? 0.5f : 0.5f + (float)(n - 2)));
        rows += n >= 3;
        dropped += n < 3 ? n : 2;
    }
    ck_assert_uint_eq(pn_table_rows(t), rows);
    ck_assert_uint_eq(pn_table_counters(t)->admitted, rows);
    ck_assert_uint_eq(pn_table_counters(t)->dropped, dropped);
    pn_table_close(t);
} END_TEST

START_TEST(a_probability_admits_its_share_the_same_on_every_machine) {
    enum { N = 100000 };
    struct pn_table_spec spec = plain();
    spec.admit_probability = 0.1f;
    struct pn_table *t = pn_table_open(&spec), *again = pn_table_open(&spec);
    for (uint64_t key = 0; key < N; key++) {
        push_one(t, key, 7);
        push_one(again, key, 7);
    }
    const double expected = 0.1 * N, deviation = sqrt(N * 0.1 * 0.9);
    ck_assert(fabs((double)pn_table_rows(t) - expected) < 5 * deviation);
    ck_assert_uint_eq(pn_table_rows(t), pn_table_rows(again));
    for (uint64_t key = 0; key < N; key++) ck_assert(value(t, key) == value(again, key));
    pn_table_close(t);
    pn_table_close(again);
} END_TEST

/* What a replay meets after a restore must be what it met the first time. */
START_TEST(counts_belong_to_the_cut) {
    struct pn_table_spec spec = plain();
    spec.admit_count = 4;
    struct pn_table *t = pn_table_open(&spec), *back = pn_table_open(&spec);
    struct pn_rng rng = {3};
    for (uint64_t step = 1; step <= 3000; step++) push_one(t, pn_rng_next(&rng) % 1500, step);
    ck_assert(pn_table_cut(t));
    struct pn_rng replay = rng;
    for (uint64_t step = 3001; step <= 4000; step++) push_one(t, pn_rng_next(&rng) % 1500, step); /* behind the cut */
    size_t n;
    uint8_t *records = scan_all(t, 100, &n);
    OK(pn_table_restore(back, records, n));
    uint32_t slot;
    size_t n_bytes;
    for (const uint8_t *counts; (counts = pn_table_scan_counts(t, &slot, &n_bytes)) != NULL;) {
        OK(pn_table_restore_counts(back, slot, counts, n_bytes));
        push_one(t, 5000 + slot, 4001); /* and while it is written */
    }
    ck_assert_int_eq(pn_table_restore_counts(back, 0, records, n_bytes + 1), PN_CORRUPT);
    for (uint64_t step = 3001; step <= 4000; step++) push_one(back, pn_rng_next(&replay) % 1500, step);
    for (uint64_t key = 0; key < 1500; key++) ck_assert(value(t, key) == value(back, key));
    ck_assert_uint_eq(pn_table_rows(t), pn_table_rows(back));
    free(records);
    pn_table_close(t);
    pn_table_close(back);
} END_TEST

START_TEST(rows_that_nobody_pushes_go_by_age_and_others_stay_as_they_are) {
    enum { N = 60000 };
    struct pn_table_spec spec = plain();
    spec.evict_age = 100;
    struct pn_table *t = pn_table_open(&spec);
    static uint64_t keys[N];
    static float g[2 * N];
    for (uint64_t i = 0; i < N; i++) keys[i] = i;
    for (size_t i = 0; i < 2 * N; i++) g[i] = -(float)(i / 2);
    OK(pn_table_push(t, keys, g, N, 1, NULL));
    const uint64_t before = pn_table_bytes(t);
    OK(pn_table_push(t, keys, g, N / 3, 200, NULL)); /* the first third is young again */
    ck_assert(pn_table_cut(t));
    pn_table_evict(t, 0, 250);
    ck_assert_uint_eq(pn_table_rows(t), N); /* not under a cut */
    pn_table_cut_abort(t);
    for (uint32_t slot = 0; slot < PN_SLOTS; slot++) pn_table_evict(t, slot, 250);
    ck_assert_uint_eq(pn_table_rows(t), N / 3);
    ck_assert_uint_eq(pn_table_counters(t)->evicted, N - N / 3);
    for (uint64_t i = 0; i < N; i++) ck_assert(value(t, i) == 0.5f + (i < N / 3 ? 2 * (float)i : 0));
    for (uint64_t step = 1000; step < 4000; step += 1000) { /* their memory is used again */
        OK(pn_table_push(t, keys + N / 3, g, N - N / 3, step, NULL));
        for (uint32_t slot = 0; slot < PN_SLOTS; slot++) pn_table_evict(t, slot, step + 200);
        ck_assert_uint_eq(pn_table_rows(t), 0);
        OK(pn_table_push(t, keys, g, N / 3, step + 300, NULL));
    }
    ck_assert_uint_le(pn_table_bytes(t), before + (1u << 20));
    pn_table_close(t);
} END_TEST

START_TEST(beyond_the_limit_the_least_pushed_go) {
    enum { N = 40000, LIMIT = 20 * PN_SLOTS };
    struct pn_table_spec spec = plain();
    spec.evict_rows = LIMIT;
    struct pn_table *t = pn_table_open(&spec);
    for (uint64_t key = 0; key < N; key++) push_one(t, key, 1);
    for (uint64_t key = 0; key < 10000; key++) push_one(t, key, 2); /* these are worth more */
    for (uint32_t slot = 0; slot < PN_SLOTS; slot++) pn_table_evict(t, slot, 3);
    ck_assert_uint_le(pn_table_rows(t), LIMIT);
    ck_assert_uint_ge(pn_table_rows(t), LIMIT * 9 / 10);
    uint64_t lost = 0;
    for (uint64_t key = 0; key < 10000; key++) lost += value(t, key) == 0.5f;
    ck_assert_uint_lt(lost, 60); /* only where a slot has more than its share of them */
    pn_table_close(t);
} END_TEST

/* Random pushes, evictions and cuts beside a plain array. */
START_TEST(eviction_beside_a_model) {
    enum { KEYS = 3000 };
    for (uint64_t seed = 0; seed < 6; seed++) {
        struct pn_table_spec spec = plain();
        spec.evict_age = 40;
        struct pn_table *t = pn_table_open(&spec);
        static float model[KEYS];
        static uint64_t last[KEYS]; /* 0: no row */
        memset(model, 0, sizeof model);
        memset(last, 0, sizeof last);
        struct pn_rng rng = {seed};
        for (uint64_t step = 1; step < 4000; step++) {
            uint64_t key = pn_rng_next(&rng) % KEYS;
            if (step % 3) key = key % 300; /* some are popular */
            uint64_t full = key % 2 ? key : key << 40;
            push_one(t, full, step);
            model[key] = (last[key] ? model[key] : 0.5f) + 1;
            last[key] = step;
            uint32_t slot = (uint32_t)(step * 7 % PN_SLOTS);
            pn_table_evict(t, slot, step);
            for (uint64_t k = 0; k < KEYS; k++)
                if (last[k] && step - last[k] > 40 && pn_slot_of(k % 2 ? k : k << 40) == slot) last[k] = 0;
        }
        uint64_t rows = 0;
        for (uint64_t k = 0; k < KEYS; k++) {
            ck_assert(value(t, k % 2 ? k : k << 40) == (last[k] ? model[k] : 0.5f));
            rows += last[k] != 0;
        }
        ck_assert_uint_eq(pn_table_rows(t), rows);
        pn_table_close(t);
    }
} END_TEST

int main(void) {
    TCase *c = tcase_create("admission");
    tcase_add_test(c, a_row_is_made_at_the_nth_push_and_the_ones_before_are_dropped);
    tcase_add_test(c, a_probability_admits_its_share_the_same_on_every_machine);
    tcase_add_test(c, counts_belong_to_the_cut);
    tcase_add_test(c, rows_that_nobody_pushes_go_by_age_and_others_stay_as_they_are);
    tcase_add_test(c, beyond_the_limit_the_least_pushed_go);
    tcase_add_test(c, eviction_beside_a_model);
    return run_suite(c);
}
