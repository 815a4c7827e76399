/* Rows that are forgotten for good: gone from memory and from the second tier, and never made again. */
#include "tests/unit/fake_tier.h"
#include "tests/unit/table/util.h"

enum { DIM = 5, KEYS = 8000 };

static void push_all(struct pn_table *t, uint64_t step) {
    static uint64_t keys[KEYS];
    static float g[KEYS * DIM];
    for (size_t i = 0; i < KEYS; i++) keys[i] = i;
    for (size_t i = 0; i < KEYS * DIM; i++) g[i] = 1;
    OK(pn_table_push(t, keys, g, KEYS, step, NULL));
}
static void check_first(struct pn_table *t, const struct pn_table *fresh, uint64_t key, bool first) {
    float row[DIM], want[DIM];
    ck_assert_uint_eq(pn_table_pull(t, &key, 1, row), first);
    pn_table_pull(fresh, &key, 1, want);
    ck_assert((memcmp(row, want, sizeof row) == 0) == first);
}

/* _i 1: with a second tier that has most rows. */
START_TEST(a_forgotten_row_is_absent_whatever_is_pushed_and_restored) {
    struct pn_table_spec spec = spec_of(PN_ADAGRAD, DIM);
    struct pn_table *fresh = pn_table_open(&spec), *t = NULL;
    if (_i == 1) {
        spec.memory = 100000;
        t = pn_table_open_tiered(&spec, fake_tier(pn_table_tier_bytes(&spec)));
    } else t = pn_table_open(&spec);
    uint32_t i_slot = 0;
    for (uint64_t step = 1; step <= 3; step++) {
        push_all(t, step);
        for (struct pn_demotion *d; (d = pn_table_demote(t, &i_slot, step)) != NULL;) {
            uint64_t removed = 0;
            const uint64_t key = 1;
            if (step == 1) ck_assert_int_eq(pn_table_forget(t, &key, 1, &removed), PN_BUSY);
            pn_demotion_write(d);
            pn_table_demoted(t, d);
        }
    }
    if (_i == 1) ck_assert_uint_gt(pn_table_cold_rows(t), KEYS / 2);
    static uint64_t keys[100];
    for (size_t i = 0; i < 100; i++) keys[i] = i * 71;
    ck_assert(pn_table_cut(t));
    uint64_t removed = 0;
    ck_assert_int_eq(pn_table_forget(t, keys, 100, &removed), PN_BUSY);
    pn_table_cut_abort(t);
    OK(pn_table_forget(t, keys, 100, &removed));
    ck_assert_uint_eq(removed, 100);
    ck_assert_uint_eq(pn_table_rows(t), KEYS - 100);
    OK(pn_table_forget(t, keys, 50, &removed)); /* twice is once */
    ck_assert_uint_eq(removed, 100);
    for (uint64_t step = 4; step < 6; step++) {
        push_all(t, step);
        ck_assert_uint_eq(pn_table_rows(t), KEYS - 100);
        for (uint64_t k = 0; k < KEYS; k++) check_first(t, fresh, k, k % 71 == 0 && k / 71 < 100);
    }
    ck_assert(pn_table_denies(t, 71) && !pn_table_denies(t, 72));
    pn_table_close(t);
    pn_table_close(fresh);
} END_TEST

START_TEST(admission_does_not_count_what_is_forgotten) {
    struct pn_table_spec spec = spec_of(PN_SGD, DIM);
    spec.admit_count = 2;
    spec.admit_counters = 1 << 16;
    struct pn_table *t = pn_table_open(&spec);
    const uint64_t key = 5;
    uint64_t removed = 0;
    OK(pn_table_forget(t, &key, 1, &removed));
    for (uint64_t step = 1; step <= 4; step++) push_all(t, step);
    ck_assert_uint_eq(pn_table_rows(t), KEYS - 1);
    ck_assert_uint_eq(pn_table_counters(t)->dropped, KEYS - 1);
    pn_table_close(t);
} END_TEST

int main(void) {
    TCase *c = tcase_create("forget");
    tcase_add_loop_test(c, a_forgotten_row_is_absent_whatever_is_pushed_and_restored, 0, 2);
    tcase_add_test(c, admission_does_not_count_what_is_forgotten);
    return run_suite(c);
}
