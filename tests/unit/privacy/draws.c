/* The draws have their distributions. The seeds are fixed, so that a test does not fail by chance; each bound is one that the right distribution passes in all but one of 10,000 runs. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "privacy/draws.h"

static struct pn_draws g;
static void open_noise(uint8_t seed) {
    uint8_t key[PN_DRAWS_KEY_BYTES] = {seed};
    pn_draws_open(&g, key);
}

static int by_float(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

START_TEST(normal_draws_have_mean_variance_and_the_distribution_of_their_name) {
    enum { N = 1000000 };
    float *x = calloc(N, sizeof *x);
    double sum = 0, squares = 0, fourth = 0, along = 0, gap = 0;
    open_noise(1);
    pn_draws_add_normal(&g, x, N, 3);
    for (size_t i = 0; i < N; i++) {
        sum += (double)x[i];
        squares += (double)x[i] * (double)x[i];
        fourth += pow((double)x[i] / 3, 4);
        if (i > 0) along += (double)x[i] * (double)x[i - 1];
    }
    ck_assert_double_lt(fabs(sum / N), 3 * 3.9 / 1000);
    ck_assert_double_lt(fabs(squares / N / 9 - 1), 0.01);
    ck_assert_double_lt(fabs(fourth / N - 3), 0.05);
    ck_assert_double_lt(fabs(along / N / 9), 0.0039);
    qsort(x, N, sizeof *x, by_float); /* Kolmogorov and Smirnov: the greatest gap between the two distributions */
    for (size_t i = 0; i < N; i++) {
        const double d = fabs((double)i / N - (1 - pn_normal_tail((double)x[i] / 3)));
        if (d > gap) gap = d;
    }
    ck_assert_double_lt(gap, 2.23 / 1000);
    ck_assert(x[N - 1] > 3 * 4.2f && x[0] < -3 * 4.2f); /* there are tails */
    free(x);
} END_TEST

/* Where u is small it has more bits (far_out): on both sides of that seam, at 4.56 deviations, and beyond it, there are as many as there should be. */
START_TEST(normal_draws_have_their_tails) {
    enum { N = 1 << 20, TIMES = 30, BINS = 7 };
    static const double edges[BINS + 1] = {3.5, 4, 4.3, 4.5, 4.62, 4.8, 5.1, 100};
    double count[BINS] = {0}, chi = 0;
    float *x = malloc(N * sizeof *x);
    open_noise(4);
    for (size_t k = 0; k < TIMES; k++) {
        memset(x, 0, N * sizeof *x);
        pn_draws_add_normal(&g, x, N, 1);
        for (size_t i = 0; i < N; i++) {
            const double a = fabs((double)x[i]);
            for (size_t b = 0; a > edges[0] && b < BINS; b++) count[b] += a > edges[b] && a <= edges[b + 1];
        }
    }
    for (size_t b = 0; b < BINS; b++) {
        const double wanted = 2.0 * N * TIMES * (pn_normal_tail(edges[b]) - pn_normal_tail(edges[b + 1]));
        chi += (count[b] - wanted) * (count[b] - wanted) / wanted;
    }
    ck_assert_msg(chi < 29.9, "chi-square %g of 7 degrees", chi);
    free(x);
} END_TEST

START_TEST(noise_is_added_to_what_is_there) {
    float x[5] = {1000, 2000, 3000, 4000, 5000};
    open_noise(2);
    pn_draws_add_normal(&g, x, 5, 0.1f);
    for (int i = 0; i < 5; i++) ck_assert(x[i] != (float)(1000 * (i + 1)) && fabsf(x[i] - (float)(1000 * (i + 1))) < 1);
} END_TEST

START_TEST(bits_and_ranges_are_uniform) {
    enum { N = 600000, BINS = 7 };
    size_t count[BINS] = {0}, bits[64] = {0};
    double chi = 0;
    open_noise(3);
    for (size_t i = 0; i < N; i++) count[pn_draws_below(&g, BINS)]++;
    for (size_t i = 0; i < BINS; i++) chi += pow((double)count[i] - (double)N / BINS, 2) / ((double)N / BINS);
    ck_assert_double_lt(chi, 27.9); /* 6 degrees of freedom */
    for (size_t i = 0; i < N; i++)
        for (uint64_t x = pn_draws_bits(&g); x != 0; x &= x - 1) bits[__builtin_ctzll(x)]++;
    for (int b = 0; b < 64; b++) ck_assert_double_lt(fabs((double)bits[b] - N / 2.0) / sqrt(N / 4.0), 4.9);
} END_TEST

static void check_binomial(uint64_t n, double p) {
    enum { N = 40000 };
    const double mean = (double)n * p, variance = mean * (1 - p);
    double sum = 0, squares = 0;
    for (size_t i = 0; i < N; i++) {
        const uint64_t x = pn_draws_binomial(&g, n, p);
        ck_assert(x <= n);
        sum += (double)x - mean;
        squares += ((double)x - mean) * ((double)x - mean);
    }
    ck_assert_msg(fabs(sum / N) < 3.9 * sqrt(variance / N), "n %llu p %g: mean off by %g", (unsigned long long)n, p, sum / N);
    const double kurtosis = 3 + (1 - 6 * p * (1 - p)) / variance;
    ck_assert_msg(fabs(squares / N / variance - 1) < 3.9 * sqrt((kurtosis - 1) / N), "n %llu p %g: variance %g of %g", (unsigned long long)n, p, squares / N, variance);
}

START_TEST(binomial_counts_have_their_mean_and_variance) {
    open_noise(4);
    check_binomial(10, 0.3);
    check_binomial(1000, 0.001);
    check_binomial(1000, 0.7);
    check_binomial(5000000000, 1e-6);
    check_binomial(64000, 0.032);
    check_binomial(1u << 20, 0.5);
    ck_assert_uint_eq(pn_draws_binomial(&g, 100, 0), 0);
    ck_assert_uint_eq(pn_draws_binomial(&g, 100, 1), 100);
    ck_assert_uint_eq(pn_draws_binomial(&g, 0, 0.5), 0);
} END_TEST

START_TEST(small_binomial_counts_have_their_very_distribution) {
    enum { N = 200000, MOST = 6 };
    size_t count[MOST + 1] = {0};
    double chi = 0, p = pow(0.75, MOST);
    open_noise(5);
    for (size_t i = 0; i < N; i++) count[pn_draws_binomial(&g, MOST, 0.25)]++;
    for (int k = 0; k <= MOST; k++) {
        chi += pow((double)count[k] - N * p, 2) / (N * p);
        p *= (double)(MOST - k) / (k + 1) / 3;
    }
    ck_assert_double_lt(chi, 27.9);
} END_TEST

START_TEST(draws_above_a_bound_are_above_it_and_as_far_as_they_should) {
    static const double bounds[] = {-1, 0.2, 1, 3, 6};
    enum { N = 100000 };
    open_noise(6);
    for (int b = 0; b < 5; b++) {
        const double t = bounds[b], mean = exp(-t * t / 2) / 2.5066282746310002 / pn_normal_tail(t); /* Mills */
        double sum = 0;
        for (size_t i = 0; i < N; i++) {
            const double x = pn_draws_normal_above(&g, t);
            ck_assert(x > t);
            sum += x - mean;
        }
        ck_assert_msg(fabs(sum / N) < 3.9 / sqrt(N), "above %g: mean off by %g", t, sum / N);
    }
} END_TEST

START_TEST(the_same_seed_gives_the_same_stream_and_another_another) {
    uint64_t a[3];
    open_noise(7);
    for (int i = 0; i < 3; i++) a[i] = pn_draws_bits(&g);
    open_noise(7);
    for (int i = 0; i < 3; i++) ck_assert(a[i] == pn_draws_bits(&g));
    open_noise(8);
    ck_assert(a[0] != pn_draws_bits(&g));
} END_TEST

int main(void) {
    Suite *s = suite_create("draws");
    TCase *t = tcase_create("draws");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, normal_draws_have_mean_variance_and_the_distribution_of_their_name);
    tcase_add_test(t, normal_draws_have_their_tails);
    tcase_add_test(t, noise_is_added_to_what_is_there);
    tcase_add_test(t, bits_and_ranges_are_uniform);
    tcase_add_test(t, binomial_counts_have_their_mean_and_variance);
    tcase_add_test(t, small_binomial_counts_have_their_very_distribution);
    tcase_add_test(t, draws_above_a_bound_are_above_it_and_as_far_as_they_should);
    tcase_add_test(t, the_same_seed_gives_the_same_stream_and_another_another);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
