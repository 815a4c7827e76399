#include "client/member/keyed.h"
#include <math.h>
#include "tests/unit/fake_env.h"

enum { N = 500, DIM = 3 };

static uint64_t key_of(size_t i) { return pn_mix64(i * i) % 97; }

START_TEST(unique_keys_rise_by_their_mix_and_know_where_they_came_from) {
    uint64_t keys[N];
    float rows[N * DIM];
    for (size_t i = 0; i < N; i++) keys[i] = key_of(i);
    struct pn_keyed b;
    ck_assert_int_eq(pn_keyed_open(&b, keys, N, rows, DIM), PN_OK);
    ck_assert_uint_gt(b.n_unique, 50);
    for (size_t u = 0; u < b.n_unique; u++) {
        ck_assert(u == 0 || pn_mix64(b.unique[u]) > pn_mix64(b.unique[u - 1]));
        ck_assert_uint_eq(keys[b.first[u]], b.unique[u]);
        for (size_t i = 0; i < b.first[u]; i++) ck_assert_uint_ne(keys[i], b.unique[u]);
    }
    for (size_t i = 0; i < N; i++) ck_assert_uint_eq(b.unique[b.index[i]], keys[i]);
    pn_keyed_free(&b);
} END_TEST

START_TEST(a_pull_writes_each_row_where_its_key_first_stands_and_spreads_it) {
    uint64_t keys[N];
    float rows[N * DIM] = {0};
    for (size_t i = 0; i < N; i++) keys[i] = key_of(i);
    struct pn_keyed b;
    ck_assert_int_eq(pn_keyed_open(&b, keys, N, rows, DIM), PN_OK);
    struct pn_client_part part = pn_keyed_client_part(&b, 1);
    ck_assert(part.i_table == 1 && part.n_keys == b.n_unique && part.places == b.first && part.rows == rows);
    for (size_t u = 0; u < part.n_keys; u++)
        for (size_t d = 0; d < DIM; d++) part.rows[part.places[u] * DIM + d] = (float)(part.keys[u] * 10 + d);
    pn_keyed_spread(&b);
    for (size_t i = 0; i < N; i++)
        for (size_t d = 0; d < DIM; d++) ck_assert(rows[i * DIM + d] == (float)(keys[i] * 10 + d));
    pn_keyed_free(&b);
} END_TEST

START_TEST(a_push_adds_up_the_gradients_of_a_key_once) {
    uint64_t keys[N];
    float rows[N * DIM], sums[97][DIM] = {{0}};
    for (size_t i = 0; i < N; i++) {
        keys[i] = key_of(i);
        for (size_t d = 0; d < DIM; d++) sums[keys[i]][d] += rows[i * DIM + d] = (float)(i % 8 + d);
    }
    struct pn_keyed b;
    ck_assert_int_eq(pn_keyed_open(&b, keys, N, rows, DIM), PN_OK);
    ck_assert_int_eq(pn_keyed_sum(&b, NULL), PN_OK);
    struct pn_client_part part = pn_keyed_client_part(&b, 0);
    ck_assert_ptr_null(part.places);
    for (size_t u = 0; u < part.n_keys; u++)
        for (size_t d = 0; d < DIM; d++) ck_assert(part.rows[u * DIM + d] == sums[part.keys[u]][d]);
    pn_keyed_free(&b);
} END_TEST

START_TEST(gradients_without_repeats_are_not_copied) {
    uint64_t keys[4] = {9, 3, 7, 1};
    float rows[4 * DIM] = {0};
    struct pn_keyed b;
    ck_assert_int_eq(pn_keyed_open(&b, keys, 4, rows, DIM), PN_OK);
    ck_assert_int_eq(pn_keyed_sum(&b, NULL), PN_OK);
    ck_assert(b.sums == NULL && pn_keyed_client_part(&b, 0).rows == rows);
    pn_keyed_free(&b);
    ck_assert_int_eq(pn_keyed_open(&b, keys, 0, NULL, DIM), PN_OK);
    ck_assert(pn_keyed_sum(&b, NULL) == PN_OK && b.n_unique == 0);
    pn_keyed_free(&b);
} END_TEST

START_TEST(a_gradient_that_is_no_number_is_named_by_its_key) {
    static const float poison[] = {NAN, INFINITY, -INFINITY, 3.35e38f};
    for (int repeated = 0; repeated < 2; repeated++)
        for (size_t i = 0; i < 4; i++) {
            uint64_t keys[4] = {9, 3, 77, repeated ? 9 : 1};
            float rows[4 * DIM] = {0};
            rows[2 * DIM + 1] = poison[i];
            struct pn_keyed b;
            struct pn_error err = {""};
            ck_assert_int_eq(pn_keyed_open(&b, keys, 4, rows, DIM), PN_OK);
            ck_assert_int_eq(pn_keyed_sum(&b, &err), PN_INVALID);
            ck_assert_ptr_nonnull(strstr(err.text, "key 77 "));
            pn_keyed_free(&b);
        }
    uint64_t keys[2] = {5, 5}; /* each is a number, their sum is none */
    float rows[2 * DIM] = {3e38f, 0, 0, 3e38f, 0, 0};
    struct pn_keyed b;
    ck_assert_int_eq(pn_keyed_open(&b, keys, 2, rows, DIM), PN_OK);
    ck_assert_int_eq(pn_keyed_sum(&b, NULL), PN_INVALID);
    pn_keyed_free(&b);
} END_TEST

int main(void) {
    TCase *c = tcase_create("keyed");
    tcase_add_test(c, unique_keys_rise_by_their_mix_and_know_where_they_came_from);
    tcase_add_test(c, a_pull_writes_each_row_where_its_key_first_stands_and_spreads_it);
    tcase_add_test(c, a_push_adds_up_the_gradients_of_a_key_once);
    tcase_add_test(c, gradients_without_repeats_are_not_copied);
    tcase_add_test(c, a_gradient_that_is_no_number_is_named_by_its_key);
    return fake_suite("keyed", c);
}
