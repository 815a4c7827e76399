#include <check.h>
#include <stdbool.h>
#include <stdlib.h>
#include "common/hash.h"
#include "common/unique.h"

START_TEST(unique_keys_rise_and_the_index_finds_each_key_again) {
    struct pn_rng rng = {11};
    for (size_t n = 1; n < 3000; n = n * 3 / 2 + 1) {
        uint64_t range = 1 + pn_rng_next(&rng) % (2 * n), *keys = malloc(n * 8), *unique = malloc(n * 8), *scratch = malloc(pn_unique_scratch(n));
        uint32_t *index = malloc(n * 4);
        for (size_t i = 0; i < n; i++) keys[i] = pn_mix64(pn_rng_next(&rng) % range);
        size_t n_unique = pn_unique(keys, n, unique, index, scratch);
        ck_assert(n_unique >= 1 && n_unique <= n);
        for (size_t i = 1; i < n_unique; i++) ck_assert_uint_lt(pn_mix64(unique[i - 1]), pn_mix64(unique[i]));
        bool *used = calloc(n_unique, 1);
        for (size_t i = 0; i < n; i++) {
            ck_assert_uint_lt(index[i], n_unique);
            ck_assert_uint_eq(unique[index[i]], keys[i]);
            used[index[i]] = true;
        }
        for (size_t i = 0; i < n_unique; i++) ck_assert(used[i]);
        free(used); free(keys); free(unique); free(scratch); free(index);
    }
} END_TEST

static uint64_t unmix(uint64_t x) {
    x ^= x >> 31 ^ x >> 62;
    x *= 0x319642b2d24d8ec3ull;
    x ^= x >> 27 ^ x >> 54;
    x *= 0x96de1b173f119089ull;
    x ^= x >> 30 ^ x >> 60;
    return x - 0x9e3779b97f4a7c15ull;
}

START_TEST(keys_that_all_want_the_last_place_find_room_behind_it) {
    enum { N = 500 };
    uint64_t keys[N], unique[N];
    uint32_t index[N];
    void *scratch = malloc(pn_unique_scratch(N));
    for (uint64_t i = 0; i < N; i++) keys[i] = unmix(UINT64_MAX - (i * 7) % N);
    ck_assert_uint_eq(pn_unique(keys, N, unique, index, scratch), N);
    for (uint64_t i = 0; i < N; i++) ck_assert_uint_eq(pn_mix64(unique[i]), UINT64_MAX - (N - 1) + i);
    for (uint64_t i = 0; i < N; i++) ck_assert_uint_eq(unique[index[i]], keys[i]);
    ck_assert_uint_eq(pn_unique(keys, 0, unique, index, scratch), 0);
    free(scratch);
} END_TEST

int main(void) {
    Suite *s = suite_create("unique");
    TCase *c = tcase_create("unique");
    tcase_add_test(c, unique_keys_rise_and_the_index_finds_each_key_again);
    tcase_add_test(c, keys_that_all_want_the_last_place_find_room_behind_it);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
