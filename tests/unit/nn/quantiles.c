/* Boundaries by quantiles beside a sort of all numbers. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "common/hash.h"
#include "nn/quantiles.h"

static int rising(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static size_t boundaries_of(const double *x, size_t n, uint32_t n_parts, double *out) {
    struct pn_quantiles *q = pn_quantiles_open();
    for (size_t i = 0; i < n; i++) ck_assert(pn_quantiles_add(q, x[i]));
    ck_assert_uint_eq(pn_quantiles_count(q), n);
    const size_t m = pn_quantiles_boundaries(q, n_parts, out);
    pn_quantiles_close(q);
    return m;
}

/* By the sentence in the header, with a sort and two loops. */
static size_t expected(const double *x, size_t n, uint32_t n_parts, double *out) {
    double *sorted = malloc(n * sizeof *sorted);
    size_t m = 0;
    memcpy(sorted, x, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, rising);
    for (uint32_t i = 1; i < n_parts; i++)
        for (size_t k = 1; k < n; k++) {
            if (!(sorted[k] > sorted[k - 1]) || (double)k < (double)n * i / n_parts) continue;
            if (m == 0 || sorted[k] > out[m - 1]) out[m++] = sorted[k];
            break;
        }
    free(sorted);
    return m;
}

START_TEST(small_data_have_exact_boundaries_whatever_their_order_and_ties) {
    struct pn_rng rng = {5};
    for (int round = 0; round < 100; round++) {
        static double x[3000], got[99], want[99];
        const size_t n = 1 + pn_rng_next(&rng) % 3000;
        const uint32_t parts = 2 + (uint32_t)(pn_rng_next(&rng) % 98);
        const double kinds = 1 + (double)(pn_rng_next(&rng) % 50);
        for (size_t i = 0; i < n; i++) x[i] = round % 2 == 0 ? pn_rng_normal(&rng) : floor(pn_rng_uniform(&rng) * kinds);
        const size_t m = boundaries_of(x, n, parts, got);
        ck_assert_uint_eq(m, expected(x, n, parts, want));
        ck_assert_mem_eq(got, want, m * sizeof *got);
        for (size_t i = n; i-- > 1;) { /* another order */
            const size_t k = pn_rng_next(&rng) % (i + 1);
            const double swap = x[i];
            x[i] = x[k];
            x[k] = swap;
        }
        ck_assert_uint_eq(boundaries_of(x, n, parts, want), m);
        ck_assert_mem_eq(got, want, m * sizeof *got);
    }
} END_TEST

START_TEST(large_data_have_boundaries_within_the_stated_error) {
    enum { N = 500000, PARTS = 50 };
    double *x = malloc(N * sizeof *x), got[PARTS], again[PARTS];
    for (int shape = 0; shape < 3; shape++) { /* rising, falling, drawn */
        struct pn_rng rng = {9};
        for (size_t i = 0; i < N; i++) x[i] = shape == 0 ? (double)i : shape == 1 ? (double)(N - i) : pn_rng_normal(&rng);
        ck_assert_uint_eq(boundaries_of(x, N, PARTS, got), PARTS - 1);
        ck_assert_uint_eq(boundaries_of(x, N, PARTS, again), PARTS - 1);
        ck_assert_mem_eq(got, again, (PARTS - 1) * sizeof *got);
        const double most = N * (1 + log2((double)N / PN_QUANTILES_EXACT)) / PN_QUANTILES_EXACT;
        double worst = 0;
        qsort(x, N, sizeof *x, rising);
        for (int i = 1; i < PARTS; i++) {
            const double *at = bsearch(&got[i - 1], x, N, sizeof *x, rising);
            ck_assert(at != NULL);
            worst = fmax(worst, fabs((double)(at - x) - (double)N * i / PARTS));
        }
        ck_assert_msg(worst <= most, "shape %d: a rank is wrong by %g of %d, stated %g", shape, worst, N, most);
    }
    free(x);
} END_TEST

START_TEST(one_number_and_none_have_no_boundaries) {
    double x[100], out[9];
    for (int i = 0; i < 100; i++) x[i] = 7;
    ck_assert_uint_eq(boundaries_of(x, 0, 10, out), 0);
    ck_assert_uint_eq(boundaries_of(x, 1, 10, out), 0);
    ck_assert_uint_eq(boundaries_of(x, 100, 10, out), 0);
    x[99] = 8; /* hardly a tenth, but nothing else is above the sevens */
    ck_assert_uint_eq(boundaries_of(x, 100, 10, out), 1);
    ck_assert_double_eq(out[0], 8);
} END_TEST

int main(void) {
    Suite *s = suite_create("quantiles");
    TCase *t = tcase_create("boundaries");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, small_data_have_exact_boundaries_whatever_their_order_and_ties);
    tcase_add_test(t, large_data_have_boundaries_within_the_stated_error);
    tcase_add_test(t, one_number_and_none_have_no_boundaries);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    const int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed > 0;
}
