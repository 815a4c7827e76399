/* The samplers against their distributions. libsodium's generator is replaced by a seeded one, in this program only, so that a test says the same each time. */
#include "privacy/discrete.h"
#include <check.h>
#include <math.h>
#include <sodium.h>
#include <time.h>
#include "common/hash.h"
#include "tests/unit/fake_env.h"

static struct pn_rng seeded;
static const char *name(void) { return "seeded for a test"; }
static uint32_t random32(void) { return (uint32_t)(pn_rng_next(&seeded) >> 32); }
static void fill(void *const out, const size_t n) { for (size_t i = 0; i < n; i++) ((uint8_t *)out)[i] = (uint8_t)random32(); }
static struct randombytes_implementation ours = {.implementation_name = name, .random = random32, .buf = fill};

static struct pn_discrete *source(uint64_t seed) {
    struct pn_discrete *s;
    seeded.state = pn_mix64(seed);
    randombytes_set_implementation(&ours);
    ck_assert_int_eq(pn_discrete_open(&s, NULL), PN_OK);
    return s;
}

/* Log of a probability of value x. */
static double p_gaussian(int x, double sigma) {
    double sum = 0;
    for (int i = -(int)(12 * sigma + 12); i <= (int)(12 * sigma + 12); i++) sum += exp(-(double)i * i / (2 * sigma * sigma));
    return exp(-(double)x * x / (2 * sigma * sigma)) / sum;
}
static double p_skellam(int x, double sigma) { /* the integral of the Bessel function: 1/pi int exp(2 mu (cos a - 1)) cos(x a), another way than the table's series */
    const double mu = sigma * sigma / 2;
    double sum = 0;
    enum { STEPS = 4096 };
    for (int i = 0; i < STEPS; i++) {
        const double a = M_PI * (i + .5) / STEPS;
        sum += exp(2 * mu * (cos(a) - 1)) * cos(x * a);
    }
    return sum / STEPS;
}

enum { N = 1000000 };
static int32_t drawn[N];

/* Chi-square over the values with an expected count of 20 or more and two tails, Kolmogorov-Smirnov over all, mean and variance. */
static void fits(const char *what, double sigma, size_t n, double (*p)(int, double), double variance) {
    const int reach = (int)(8 * sigma) + 8;
    uint64_t *counts = calloc((size_t)(2 * reach + 1), sizeof *counts), outside = 0;
    double mean = 0, square = 0;
    for (size_t i = 0; i < n; i++) {
        if (abs(drawn[i]) > reach) outside++;
        else counts[drawn[i] + reach]++;
        mean += drawn[i];
        square += (double)drawn[i] * drawn[i];
    }
    mean /= (double)n;
    square /= (double)n;
    double chi2 = 0, rest = 1, ks = 0, cdf = 0, seen = 0;
    int cells = 0;
    uint64_t rest_count = n;
    for (int x = -reach; x <= reach; x++) {
        const double e = p(x, sigma) * (double)n, c = (double)counts[x + reach];
        cdf += e / (double)n;
        seen += c / (double)n;
        if (fabs(cdf - seen) > ks) ks = fabs(cdf - seen);
        if (e < 20) continue;
        chi2 += (c - e) * (c - e) / e;
        rest -= e / (double)n;
        rest_count -= counts[x + reach];
        cells++;
    }
    if (rest * (double)n > 5) chi2 += pow((double)rest_count - rest * (double)n, 2) / (rest * (double)n);
    printf("figure noise.%s sigma %g: chi-square %.1f of %d, KS %.5f (5 in 100,000 above %.5f), variance %.4f of %.4f\n", what, sigma, chi2, cells, ks, 2.3 / sqrt((double)n), square, variance);
    ck_assert_uint_le(outside, 2);
    ck_assert_double_lt(chi2, cells + 5 * sqrt(2.0 * cells) + 10);
    ck_assert_double_lt(ks, 2.3 / sqrt((double)n));
    ck_assert_double_lt(fabs(mean), 5 * sqrt(variance / (double)n));
    ck_assert_double_lt(fabs(square / variance - 1), n >= 400000 ? .01 : .03);
    free(counts);
}
static double variance_of(double (*p)(int, double), double sigma) {
    double v = 0;
    for (int x = -(int)(12 * sigma) - 12; x <= (int)(12 * sigma) + 12; x++) v += p(x, sigma) * x * x;
    return v;
}

START_TEST(the_exact_sampler_draws_the_discrete_gaussian) {
    static const struct { uint32_t p, q; } cases[] = {{1, 1}, {9, 4}, {100, 1}, {1, 4}};
    for (size_t c = 0; c < 4; c++) {
        struct pn_discrete *s = source(c);
        const double sigma = sqrt((double)cases[c].p / cases[c].q);
        for (size_t i = 0; i < N / 2; i++) drawn[i] = (int32_t)pn_discrete_exact(s, cases[c].p, cases[c].q);
        fits("exact", sigma, N / 2, p_gaussian, variance_of(p_gaussian, sigma));
        pn_discrete_close(s);
    }
} END_TEST

START_TEST(the_table_draws_the_discrete_gaussian) {
    static const double sigmas[] = {.5, 1, 4.7, 50, 300};
    for (size_t c = 0; c < 5; c++) {
        struct pn_discrete *s = source(20 + c);
        struct pn_discrete_table *t;
        ck_assert_int_eq(pn_discrete_table_gaussian(&t, sigmas[c], NULL), PN_OK);
        pn_discrete_table_draw(s, t, drawn, N);
        fits("gaussian", sigmas[c], N, p_gaussian, variance_of(p_gaussian, sigmas[c]));
        pn_discrete_table_close(t);
        pn_discrete_close(s);
    }
} END_TEST

START_TEST(the_table_draws_skellam) {
    static const double sigmas[] = {.5, 2, 30};
    for (size_t c = 0; c < 3; c++) {
        struct pn_discrete *s = source(40 + c);
        struct pn_discrete_table *t;
        ck_assert_int_eq(pn_discrete_table_skellam(&t, sigmas[c], NULL), PN_OK);
        pn_discrete_table_draw(s, t, drawn, N);
        fits("skellam", sigmas[c], N, p_skellam, sigmas[c] * sigmas[c]);
        pn_discrete_table_close(t);
        pn_discrete_close(s);
    }
} END_TEST

START_TEST(shares_of_noise_of_those_who_remain_are_the_full_noise) { /* 20 workers, 16 remain, sigma 8: Skellam of sigma 8 and nothing else */
    struct pn_discrete *s = source(50);
    struct pn_discrete_table *t;
    static uint32_t words[N];
    ck_assert_int_eq(pn_discrete_table_skellam(&t, pn_discrete_share(8, 16), NULL), PN_OK);
    memset(words, 0, sizeof words);
    for (int w = 0; w < 16; w++) pn_discrete_table_add(s, t, words, 4, N);
    for (size_t i = 0; i < N; i++) drawn[i] = (int32_t)words[i];
    fits("shares", 8, N, p_skellam, 64);
    pn_discrete_table_close(t);
    pn_discrete_close(s);
} END_TEST

START_TEST(two_sources_differ_and_a_table_out_of_range_is_refused) {
    struct pn_discrete *a, *b;
    struct pn_discrete_table *t;
    struct pn_error err;
    int32_t x[64], y[64];
    ck_assert_int_eq(pn_discrete_open(&a, NULL), PN_OK);
    ck_assert_int_eq(pn_discrete_open(&b, NULL), PN_OK);
    ck_assert_int_eq(pn_discrete_table_gaussian(&t, 1000, NULL), PN_OK);
    pn_discrete_table_draw(a, t, x, 64);
    pn_discrete_table_draw(b, t, y, 63);
    ck_assert_mem_ne(x, y, 63 * sizeof *x);
    pn_discrete_table_close(t);
    ck_assert_int_eq(pn_discrete_table_gaussian(&t, 0, &err), PN_INVALID);
    ck_assert_int_eq(pn_discrete_table_gaussian(&t, NAN, &err), PN_INVALID);
    ck_assert_int_eq(pn_discrete_table_skellam(&t, 1e5, &err), PN_INVALID);
    pn_discrete_close(a);
    pn_discrete_close(b);
} END_TEST

START_TEST(a_million_values_are_quick) {
    struct pn_discrete *s = source(70);
    struct pn_discrete_table *t;
    static const double sigmas[] = {1, 30, 1000};
    for (int c = 0; c < 3; c++) {
        ck_assert_int_eq(pn_discrete_table_gaussian(&t, sigmas[c], NULL), PN_OK);
        const clock_t begin = clock();
        pn_discrete_table_draw(s, t, drawn, N);
        const double ms = (double)(clock() - begin) * 1e3 / CLOCKS_PER_SEC;
        printf("figure noise.table sigma %g: %.1f ms for 1M values, %zu entries\n", sigmas[c], ms, pn_discrete_table_entries(t));
        ck_assert_double_lt(ms, 2000); /* also under a sanitizer */
        pn_discrete_table_close(t);
    }
    pn_discrete_close(s);
} END_TEST

int main(void) {
    TCase *c = tcase_create("discrete");
    tcase_add_test(c, the_exact_sampler_draws_the_discrete_gaussian);
    tcase_add_test(c, the_table_draws_the_discrete_gaussian);
    tcase_add_test(c, the_table_draws_skellam);
    tcase_add_test(c, shares_of_noise_of_those_who_remain_are_the_full_noise);
    tcase_add_test(c, two_sources_differ_and_a_table_out_of_range_is_refused);
    tcase_add_test(c, a_million_values_are_quick);
    return fake_suite("discrete", c);
}
