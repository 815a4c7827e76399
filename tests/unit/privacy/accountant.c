/* The accountant against closed forms and against itself; tests/system/accountant.py holds it against another implementation. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "privacy/accountant.h"

#define ALL(...) (struct pn_privacy_event[]){__VA_ARGS__}

static double epsilon(const struct pn_privacy_event *events, size_t n, double delta) {
    double e = -1;
    struct pn_error err = {""};
    ck_assert_msg(pn_privacy_epsilon(events, n, delta, &e, &err) == PN_OK, "%s", err.text);
    return e;
}

/* Balle and Wang 2018, theorem 8: delta of one Gaussian release, sensitivity 1. */
static double gaussian_delta(double s, double e) { return 0.5 * erfc(-(0.5 / s - e * s) / M_SQRT2) - exp(e) * 0.5 * erfc((0.5 / s + e * s) / M_SQRT2); }

START_TEST(without_sampling_the_figure_is_the_closed_form_and_never_below_it) {
    const double noises[] = {1, 3, 20};
    for (int i = 0; i < 3; i++)
        for (uint64_t steps = 1; steps <= 100; steps *= 100) { /* T releases are one of noise s / sqrt(T) */
            const double e = epsilon(ALL({1, noises[i], steps}), 1, 1e-6), at = gaussian_delta(noises[i] / sqrt((double)steps), e);
            ck_assert_msg(at <= 1e-6 * 1.0001, "noise %g, %d steps: epsilon %g has delta %g", noises[i], (int)steps, e, at);
            ck_assert_msg(e == 0 || gaussian_delta(noises[i] / sqrt((double)steps), e * 0.999) > 1e-6, "noise %g, %d steps: epsilon %g is loose", noises[i], (int)steps, e);
        }
}
END_TEST

START_TEST(renyi_of_whole_orders_meets_fractional_ones_and_the_unsampled_form) {
    for (double alpha = 2; alpha <= 32; alpha *= 2) {
        const double at = pn_privacy_rdp(0.01, 1.1, alpha), near = pn_privacy_rdp(0.01, 1.1, alpha + 1e-7);
        ck_assert_msg(fabs(near / at - 1) < 1e-4, "order %g: %g, beside it %g", alpha, at, near);
        ck_assert(fabs(pn_privacy_rdp(1, 2, alpha) - alpha / 8) < 1e-12);
    }
    /* order 2 has a closed form: log(1 + q^2 (e^(1/s^2) - 1)) */
    ck_assert(fabs(pn_privacy_rdp(0.1, 1.5, 2) / log1p(0.01 * expm1(1 / 2.25)) - 1) < 1e-9);
    ck_assert(fabs(pn_privacy_rdp_to_epsilon(0.5, 8, 1e-5) - (0.5 + log(7.0 / 8) - log(8e-5) / 7)) < 1e-12);
}
END_TEST

START_TEST(composition_adds_up_over_kinds_and_more_noise_or_fewer_steps_cost_less) {
    const double one = epsilon(ALL({0.01, 1, 1000}), 1, 1e-5);
    ck_assert(fabs(epsilon(ALL({0.01, 1, 400}, {0.01, 1, 600}), 2, 1e-5) / one - 1) < 1e-6);
    ck_assert(epsilon(ALL({0.01, 1, 1000}, {0.2, 5, 10}), 2, 1e-5) > one);
    ck_assert(epsilon(ALL({0.01, 1.2, 1000}), 1, 1e-5) < one);
    ck_assert(epsilon(ALL({0.01, 1, 900}), 1, 1e-5) < one);
    ck_assert(epsilon(ALL({0.01, 1, 0}), 1, 1e-5) == 0);
    /* the map and the gradient of one unsampled draw: one release of the joint noise is the two composed */
    ck_assert(fabs(epsilon(ALL({1, pn_privacy_joint_noise(3, 2), 1}), 1, 1e-5) / epsilon(ALL({1, 3, 1}, {1, 2, 1}), 2, 1e-5) - 1) < 1e-4);
    double map, gradient;
    pn_privacy_split_noise(1.3, 0.2, &map, &gradient);
    ck_assert(fabs(pn_privacy_joint_noise(map, gradient) - 1.3) < 1e-12 && map > gradient);
}
END_TEST

START_TEST(calibrated_noise_spends_the_budget_and_no_more_also_after_other_jobs) {
    struct pn_error err = {""};
    double noise = 0;
    const struct pn_privacy_event before = {0.02, 1.5, 100};
    for (size_t n = 0; n < 2; n++) {
        ck_assert_msg(pn_privacy_calibrate(&before, n, 0.02, 300, 3, 1e-6, &noise, &err) == PN_OK, "%s", err.text);
        const double e = epsilon(n == 0 ? ALL({0.02, noise, 300}) : ALL(before, {0.02, noise, 300}), n + 1, 1e-6);
        ck_assert_msg(e <= 3 && e > 2.97, "%g", e);
    }
    uint64_t left = 0;
    ck_assert(pn_privacy_steps_left(&before, 1, 0.02, noise, 1000, 3, 1e-6, &left, &err) == PN_OK);
    ck_assert_msg(left >= 300 && left < 306, "%d", (int)left);
    ck_assert(pn_privacy_calibrate(ALL({1, 0.1, 10}), 1, 0.02, 300, 3, 1e-6, &noise, &err) == PN_INVALID);
    ck_assert_ptr_nonnull(strstr(err.text, "no noise keeps"));
}
END_TEST

START_TEST(noise_on_whole_numbers_tends_to_gaussian_noise_and_is_never_cheaper) {
    for (double v = 10; v < 1e7; v *= 10) {
        const double gaussian = 8 / (2 * v), skellam = pn_privacy_rdp_skellam(1, 1, v, 8);
        ck_assert(skellam > gaussian && skellam < gaussian * (1 + 4 / v + 3));
        ck_assert(pn_privacy_rdp_discrete_gaussian(1, sqrt(v), 1, 100, 8) >= gaussian * (1 - 1e-12));
    }
    ck_assert(fabs(pn_privacy_rdp_skellam(1, 1, 1e8, 8) * 2e8 / 8 - 1) < 1e-6);
    ck_assert(pn_privacy_rdp_discrete_gaussian(1, 0.6, 10, 100, 8) > 8 / (2 * 0.36 * 10));
    ck_assert(pn_privacy_rdp_skellam(1, 1, 10, 2.5) == HUGE_VAL);
}
END_TEST

START_TEST(values_out_of_range_are_named) {
    struct pn_error err = {""};
    double e;
    const double nan = NAN;
    ck_assert(pn_privacy_epsilon(ALL({1.5, 1, 1}), 1, 1e-5, &e, &err) == PN_INVALID && strstr(err.text, "1.5") != NULL);
    ck_assert(pn_privacy_epsilon(ALL({nan, 1, 1}), 1, 1e-5, &e, &err) == PN_INVALID);
    ck_assert(pn_privacy_epsilon(ALL({0.1, 0, 1}), 1, 1e-5, &e, &err) == PN_INVALID);
    ck_assert(pn_privacy_epsilon(ALL({0.1, 1, UINT64_MAX}), 1, 1e-5, &e, &err) == PN_INVALID);
    ck_assert(pn_privacy_epsilon(ALL({0.1, 1, 1}), 1, 1, &e, &err) == PN_INVALID);
    ck_assert(pn_privacy_epsilon(ALL({0.1, 0.05, 1000}), 1, 1e-5, &e, &err) == PN_OK && e > 100); /* no overflow */
}
END_TEST

int main(void) {
    Suite *s = suite_create("accountant");
    TCase *t = tcase_create("accountant");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, without_sampling_the_figure_is_the_closed_form_and_never_below_it);
    tcase_add_test(t, renyi_of_whole_orders_meets_fractional_ones_and_the_unsampled_form);
    tcase_add_test(t, composition_adds_up_over_kinds_and_more_noise_or_fewer_steps_cost_less);
    tcase_add_test(t, calibrated_noise_spends_the_budget_and_no_more_also_after_other_jobs);
    tcase_add_test(t, noise_on_whole_numbers_tends_to_gaussian_noise_and_is_never_cheaper);
    tcase_add_test(t, values_out_of_range_are_named);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    const int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
