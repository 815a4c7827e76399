/* Cut and scan under writes, against a model; restore. */
#include "ps/table/rows.h"
#include "tests/unit/table/util.h"

enum { KEYS = 6000, BATCH = 150 };

/* Keys of two kinds: scattered, and a heap in few slots, so that slots have many pages. */
static uint64_t key_of(uint64_t i) { return i % 3 ? i : i * 0x9e3779b97f4a7c15ull; }

static int by_key(const void *a, const void *b) {
    uint64_t x = ((const struct record *)a)->key, y = ((const struct record *)b)->key;
    return (x > y) - (x < y);
}
static void push_random(struct pn_table *t, struct pn_rng *rng, uint64_t n_keys, uint64_t step) {
    uint64_t keys[BATCH];
    float gradients[BATCH * 8];
    const uint32_t dim = pn_table_dim(t);
    uint64_t first = pn_rng_next(rng) % n_keys, stride = 1 + pn_rng_next(rng) % 7;
    size_t n = 0;
    for (; n < BATCH && n * stride < n_keys; n++) keys[n] = key_of((first + n * stride) % n_keys);
    for (size_t i = 0; i < n * dim; i++) gradients[i] = (float)(pn_rng_uniform(rng) - 0.5);
    OK(pn_table_push(t, keys, gradients, n, step, NULL));
}

/* Takes a snapshot in random pieces while random pushes go on; what it shows must be, to the bit, what a quiet scan of a
 * twin table (same history up to the cut) shows. */
START_TEST(a_snapshot_shows_the_moment_of_the_cut_whatever_is_written_meanwhile) {
    for (uint64_t seed = 0; seed < 12; seed++) {
        struct pn_rng rng = {seed * 1000 + (uint64_t)_i};
        struct pn_table_spec spec = spec_of((enum pn_optimizer)_i, 1 + (uint32_t)(seed % 8));
        struct pn_table *t = pn_table_open(&spec), *twin = pn_table_open(&spec);
        const size_t size = pn_table_record_bytes(t);
        uint64_t step = 1;
        for (int round = 0; round < 4; round++) {
            uint64_t n_keys = 1 + pn_rng_next(&rng) % KEYS;
            for (uint64_t n = pn_rng_next(&rng) % 20; n; n--, step++) {
                struct pn_rng same = rng;
                push_random(t, &rng, n_keys, step);
                push_random(twin, &same, n_keys, step);
            }
            ck_assert(pn_table_cut(t));
            ck_assert(!pn_table_cut(t));
            ck_assert(pn_table_cut(twin));
            size_t n_expected, n = 0;
            uint8_t *expected = scan_all(twin, 1000, &n_expected), *got = malloc((n_expected + 300) * size);
            ck_assert_uint_eq(n_expected, pn_table_rows(twin));
            bool abandoned = pn_rng_next(&rng) % 4 == 0;
            size_t enough = abandoned ? (size_t)(pn_rng_next(&rng) % (n_expected + 1)) : SIZE_MAX;
            while (n < enough) {
                for (uint64_t k = pn_rng_next(&rng) % 4; k; k--, step++) {
                    struct pn_rng same = rng;
                    push_random(t, &rng, KEYS, step);
                    push_random(twin, &same, KEYS, step);
                }
                size_t piece = pn_table_scan(t, got + n * size, 1 + pn_rng_next(&rng) % 300);
                if (piece == 0) break;
                n += piece;
                ck_assert_uint_le(n, n_expected);
            }
            if (abandoned) {
                pn_table_cut_abort(t);
                ck_assert_uint_eq(pn_table_scan(t, got, 1), 0);
            } else {
                ck_assert_uint_eq(n, n_expected);
            }
            for (size_t i = 1; i < n; i++)
                ck_assert(pn_slot_of(((struct record *)(got + i * size))->key) >= pn_slot_of(((struct record *)(got + (i - 1) * size))->key));
            if (n == n_expected) {
                qsort(got, n, size, by_key);
                qsort(expected, n, size, by_key);
                ck_assert_mem_eq(got, expected, n * size);
            }
            free(expected);
            free(got);
            ck_assert_uint_eq(pn_table_bytes(t), pn_table_bytes(twin)); /* no image is left */
        }
        pn_table_close(t);
        pn_table_close(twin);
    }
} END_TEST

START_TEST(a_table_restored_from_its_scan_is_the_same_table_and_goes_on_the_same) {
    struct pn_table_spec spec = spec_of((enum pn_optimizer)_i, 5);
    struct pn_rng rng = {77};
    struct pn_table *t = pn_table_open(&spec), *copy = pn_table_open(&spec);
    const size_t size = pn_table_record_bytes(t);
    for (uint64_t step = 1; step <= 60; step++) push_random(t, &rng, KEYS, step);
    size_t n, n_copy;
    ck_assert(pn_table_cut(t));
    uint8_t *records = scan_all(t, 777, &n);
    /* A wrong earlier row is replaced. */
    push_random(copy, &rng, 1, 1);
    OK(pn_table_restore(copy, records, n));
    OK(pn_table_restore(copy, records, n / 2)); /* twice is no different */
    ck_assert_uint_eq(pn_table_rows(copy), n);
    for (uint64_t step = 61; step <= 80; step++) {
        struct pn_rng same = rng;
        push_random(t, &rng, KEYS, step);
        push_random(copy, &same, KEYS, step);
    }
    free(records);
    ck_assert(pn_table_cut(t) && pn_table_cut(copy));
    records = scan_all(t, 100, &n);
    uint8_t *records_copy = scan_all(copy, 100, &n_copy);
    ck_assert_uint_eq(n, n_copy);
    qsort(records, n, size, by_key);
    qsort(records_copy, n, size, by_key);
    ck_assert_mem_eq(records, records_copy, n * size);
    free(records);
    free(records_copy);
    pn_table_close(t);
    pn_table_close(copy);
} END_TEST

START_TEST(a_snapshot_of_an_empty_table_is_over_at_once_and_another_may_follow) {
    struct pn_table_spec spec = spec_of(PN_SGD, 2);
    struct pn_table *t = pn_table_open(&spec);
    uint8_t out[64];
    uint64_t key = 3;
    float gradient[2] = {1, 1};
    ck_assert_uint_eq(pn_table_scan(t, out, 1), 0);
    ck_assert(pn_table_cut(t));
    OK(pn_table_push(t, &key, gradient, 1, 1, NULL));
    ck_assert_uint_eq(pn_table_scan(t, out, 1), 0); /* made after the cut */
    ck_assert(pn_table_cut(t));
    ck_assert_uint_eq(pn_table_scan(t, out, 1), 1);
    ck_assert_uint_eq(pn_table_scan(t, out, 1), 0);
    pn_table_cut_abort(t);
    ck_assert(pn_table_cut(t));
    pn_table_close(t); /* with a cut under way */
} END_TEST

START_TEST(seed_and_restore_during_a_snapshot_do_not_show_in_it) {
    struct pn_table_spec spec = spec_of(PN_ADAGRAD, 2);
    struct pn_table *t = pn_table_open(&spec);
    struct record *out = malloc(4 * pn_table_record_bytes(t)), *now = malloc(4 * pn_table_record_bytes(t));
    const uint64_t old = 1, young = 2;
    float gradient[2] = {1, -1}, first[2] = {5, 6};
    OK(pn_table_push(t, &old, gradient, 1, 1, NULL));
    ck_assert(pn_table_cut(t));
    ck_assert_uint_eq(pn_table_scan(t, out, 4), 1);
    ck_assert_uint_eq(pn_table_scan(t, out + 1, 4), 0);
    ck_assert(pn_table_cut(t));
    memcpy(now, out, pn_table_record_bytes(t));
    now->values[0] = 1000;
    OK(pn_table_restore(t, now, 1));
    OK(pn_table_seed(t, &young, first, 1));
    ck_assert_uint_eq(pn_table_scan(t, now, 4), 1);
    ck_assert_mem_eq(now, out, pn_table_record_bytes(t));
    float row[2];
    ck_assert_uint_eq(pn_table_pull(t, &old, 1, row), 0);
    ck_assert(row[0] == 1000);
    free(out);
    free(now);
    pn_table_close(t);
} END_TEST

int main(void) {
    TCase *c = tcase_create("snapshot");
    tcase_add_loop_test(c, a_snapshot_shows_the_moment_of_the_cut_whatever_is_written_meanwhile, 0, N_OPTIMIZERS);
    tcase_add_loop_test(c, a_table_restored_from_its_scan_is_the_same_table_and_goes_on_the_same, 0, N_OPTIMIZERS);
    tcase_add_test(c, a_snapshot_of_an_empty_table_is_over_at_once_and_another_may_follow);
    tcase_add_test(c, seed_and_restore_during_a_snapshot_do_not_show_in_it);
    return run_suite(c);
}
