/* The lower bound of epsilon from guesses: closed forms, and runs whose privacy is known. */
#include <check.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include "privacy/canary.h"
#include "privacy/draws.h"

static double logit(double x) { return log(x / (1 - x)); }

START_TEST(guesses_that_are_all_right_give_the_closed_form) {
    static const uint64_t counts[] = {5, 100, 1000, 20000};
    for (size_t i = 0; i < 4; i++) {
        const double want = logit(pow(0.05, 1 / (double)counts[i]));
        ck_assert_double_eq_tol(pn_canary_epsilon(counts[i], counts[i], counts[i], 0, 0.05), want, 1e-9 * want);
    }
    ck_assert(pn_canary_epsilon(4, 4, 4, 0, 0.05) == 0); /* four coins fall so once in 16 */
    ck_assert(pn_canary_epsilon(100, 0, 0, 0, 0.05) == 0);
} END_TEST

/* r = v = 1: P[B >= 1] = q, and the one term of the maximum is P[B = 0] = 1 - q. r = 2, v = 1: i = 1 again, P[B = 0] = (1 - q)^2. */
START_TEST(few_guesses_give_what_is_counted_by_hand) {
    for (double e = 0; e < 6; e += 0.37) {
        const double q = exp(e) / (1 + exp(e)), delta = 1e-3;
        ck_assert_double_eq_tol(pn_canary_chance(50, 1, 1, e, delta), fmin(1, q + 100 * delta * (1 - q)), 1e-12);
        ck_assert_double_eq_tol(pn_canary_chance(50, 2, 1, e, delta), fmin(1, 1 - (1 - q) * (1 - q) + 100 * delta * (1 - q) * (1 - q)), 1e-12);
        const double one = 2 * q * (1 - q), none = (1 - q) * (1 - q); /* v = 2: the better of i = 1 and 2 */
        ck_assert_double_eq_tol(pn_canary_chance(50, 2, 2, e, delta), fmin(1, q * q + 100 * delta * fmax(one, (one + none) / 2)), 1e-12);
    }
} END_TEST

/* Computed in Python by mpmath with 40 digits, term by term of the theorem. */
START_TEST(figures_computed_elsewhere_are_met) {
    static const struct { uint64_t m, r, v; double delta, chance, epsilon; } cases[] = {{1000, 200, 190, 1e-6, 0.05, 2.3974489}, {2000, 400, 311, 1e-5, 0.05, 1.0473263}, {5000, 1000, 700, 0, 0.05, 0.7320109}, {1000, 300, 300, 1e-6, 0.01, 4.1629274}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        ck_assert_double_eq_tol(pn_canary_epsilon(cases[i].m, cases[i].r, cases[i].v, cases[i].delta, cases[i].chance), cases[i].epsilon, 1e-6);
} END_TEST

START_TEST(more_right_guesses_and_a_smaller_delta_say_more) {
    double last = -1;
    for (uint64_t v = 100; v <= 200; v += 10) {
        const double e = pn_canary_epsilon(1000, 200, v, 1e-6, 0.05);
        ck_assert(e >= last && e <= pn_canary_epsilon(1000, 200, v, 0, 0.05));
        last = e;
    }
    for (double e = 0.1; e < 8; e += 0.1) ck_assert(pn_canary_chance(1000, 200, 190, e, 1e-6) >= pn_canary_chance(1000, 200, 190, e - 0.1, 1e-6));
} END_TEST

/* Randomized response that tells the truth with probability q is exactly log(q / (1 - q))-private; with probability delta it tells it in any case. */
static double share_above(double epsilon, double delta, uint64_t m, int rounds, double *mean) {
    struct pn_draws g;
    uint8_t key[PN_DRAWS_KEY_BYTES] = {7};
    pn_draws_open(&g, key);
    double *known = calloc(m + 1, sizeof *known); /* by the number of right guesses */
    int above = 0;
    ck_assert_ptr_nonnull(known);
    *mean = 0;
    for (int i = 0; i < rounds; i++) {
        const uint64_t told = pn_draws_binomial(&g, m, delta), right = told + pn_draws_binomial(&g, m - told, exp(epsilon) / (1 + exp(epsilon)));
        if (known[right] <= 0) known[right] = pn_canary_epsilon(m, m, right, delta, 0.05);
        above += known[right] > epsilon;
        *mean += known[right] / rounds;
    }
    free(known);
    return (double)above / rounds;
}
START_TEST(the_bound_is_above_the_truth_in_one_run_of_twenty_and_not_far_below_it) {
    static const struct { double epsilon, delta; uint64_t m; double near; } runs[] = {{1, 0, 1000, 0.8}, {3, 0, 1000, 0.8}, {2, 1e-5, 1000, 0.75}, {0.5, 1e-6, 4000, 0.7}};
    for (size_t i = 0; i < 4; i++) {
        double mean;
        const double share = share_above(runs[i].epsilon, runs[i].delta, runs[i].m, 2000, &mean);
        ck_assert_msg(share <= 0.05 + 3.9 * sqrt(0.05 * 0.95 / 2000), "epsilon %g, delta %g: above it in %g of the runs", runs[i].epsilon, runs[i].delta, share);
        ck_assert_msg(mean > runs[i].near * runs[i].epsilon && mean < runs[i].epsilon, "epsilon %g: %g on the average", runs[i].epsilon, mean);
    }
} END_TEST

int main(void) {
    Suite *s = suite_create("canary");
    TCase *t = tcase_create("canary");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, guesses_that_are_all_right_give_the_closed_form);
    tcase_add_test(t, few_guesses_give_what_is_counted_by_hand);
    tcase_add_test(t, figures_computed_elsewhere_are_met);
    tcase_add_test(t, more_right_guesses_and_a_smaller_delta_say_more);
    tcase_add_test(t, the_bound_is_above_the_truth_in_one_run_of_twenty_and_not_far_below_it);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    const int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
