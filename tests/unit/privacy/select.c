#include <check.h>
#include <math.h>
#include <stdlib.h>
#include "privacy/select.h"

static struct pn_draws g;
static void open_noise(uint8_t seed) {
    uint8_t key[PN_DRAWS_KEY_BYTES] = {seed};
    pn_draws_open(&g, key);
}

START_TEST(a_vote_has_at_most_the_norm_of_the_clip) {
    for (size_t m = 0; m < 200; m++) {
        const double v = pn_vote(m, 5);
        ck_assert_double_le(sqrt((double)m) * v, 5 * (1 + 1e-12));
        if (m <= 25) ck_assert(v == 1);
        else ck_assert_double_lt(v, 1);
    }
} END_TEST

/* The whole mechanism against the plain one, which gives noise to each of all rows. */
START_TEST(rows_nobody_voted_for_pass_as_often_as_if_each_had_its_noise) {
    enum { ROUNDS = 4000, TOUCHED = 3, UNTOUCHED = 50000 };
    static const double votes[TOUCHED] = {1, 4, 8};
    double passed = 0, in_sum[TOUCHED] = {0};
    const double sigma = 1.5, clip = 2, threshold = 9, p = pn_normal_tail(threshold / (sigma * clip));
    open_noise(1);
    for (int r = 0; r < ROUNDS; r++) {
        bool in[TOUCHED];
        passed += (double)pn_select(&g, votes, TOUCHED, UNTOUCHED, sigma, clip, threshold, in);
        for (int i = 0; i < TOUCHED; i++) in_sum[i] += in[i];
    }
    ck_assert_double_lt(fabs(passed / ROUNDS - UNTOUCHED * p), 3.9 * sqrt(UNTOUCHED * p / ROUNDS));
    for (int i = 0; i < TOUCHED; i++) {
        const double want = pn_normal_tail((threshold - votes[i]) / (sigma * clip));
        ck_assert_double_lt(fabs(in_sum[i] / ROUNDS - want), 3.9 * sqrt(want * (1 - want) / ROUNDS));
    }
} END_TEST

START_TEST(others_are_drawn_uniformly_and_never_a_taken_one) {
    enum { N = 12, K = 4, ROUNDS = 90000 };
    static const uint64_t taken[] = {0, 3, 4, 11};
    size_t count[N] = {0};
    double chi = 0;
    open_noise(2);
    for (int r = 0; r < ROUNDS; r++) {
        uint64_t out[K];
        ck_assert(pn_draw_others(&g, N, taken, 4, K, out));
        for (int i = 0; i < K; i++) {
            ck_assert(out[i] < N && (i == 0 || out[i] > out[i - 1]));
            count[out[i]]++;
        }
    }
    for (int i = 0; i < 4; i++) ck_assert_uint_eq(count[taken[i]], 0);
    for (int i = 0; i < N; i++)
        if (count[i] > 0) chi += pow((double)count[i] - ROUNDS * K / 8.0, 2) / (ROUNDS * K / 8.0);
    ck_assert_double_lt(chi, 29.9); /* 7 degrees of freedom, less as the draws of a round differ */
    uint64_t all[8];
    ck_assert(pn_draw_others(&g, N, taken, 4, 8, all)); /* all there are */
    ck_assert(all[0] == 1 && all[7] == 10);
    ck_assert(pn_draw_others(&g, N, NULL, 0, 0, all));
} END_TEST

int main(void) {
    Suite *s = suite_create("select");
    TCase *t = tcase_create("select");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, a_vote_has_at_most_the_norm_of_the_clip);
    tcase_add_test(t, rows_nobody_voted_for_pass_as_often_as_if_each_had_its_noise);
    tcase_add_test(t, others_are_drawn_uniformly_and_never_a_taken_one);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
