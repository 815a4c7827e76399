#include "ps/client/client.h"
#include "tests/unit/fake_env.h"

START_TEST(unique_keys_rise_and_the_index_finds_each_key_again) {
    struct pn_rng rng = {11};
    for (size_t n = 1; n < 3000; n = n * 3 / 2 + 1) {
        uint64_t range = 1 + pn_rng_next(&rng) % (2 * n), *keys = malloc(n * 8), *unique = malloc(n * 8), *scratch = malloc(n * 16);
        uint32_t *index = malloc(n * 4);
        for (size_t i = 0; i < n; i++) keys[i] = pn_mix64(pn_rng_next(&rng) % range);
        size_t n_unique = pn_unique(keys, n, unique, index, scratch);
        ck_assert(n_unique >= 1 && n_unique <= n);
        for (size_t i = 1; i < n_unique; i++) ck_assert_uint_lt(unique[i - 1], unique[i]);
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

int main(void) {
    TCase *c = tcase_create("unique");
    tcase_add_test(c, unique_keys_rise_and_the_index_finds_each_key_again);
    return fake_suite("unique", c);
}
