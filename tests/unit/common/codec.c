/* Rows as they travel: bytes, errors of rounding, what is no finite number. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "common/codec.h"
#include "common/half.h"
#include "common/hash.h"

START_TEST(each_codec_comes_back_within_its_error_for_every_dimension) {
    const double error[PN_CODECS] = {0, 1.0 / 2048, 1.0 / 256, 0};
    struct pn_rng rng = {5};
    for (size_t dim = 1; dim < 70; dim += 1 + dim / 9) {
        enum { N = 37 };
        float *rows = malloc(N * dim * 4), *back = malloc(N * dim * 4);
        for (size_t i = 0; i < N * dim; i++) rows[i] = (float)((pn_rng_uniform(&rng) - 0.5) * (i % 5 == 0 ? 1000 : 0.01));
        for (int c = 0; c < PN_CODECS; c++) {
            size_t n_bytes = N * pn_codec_row_bytes((enum pn_codec)c, dim);
            unsigned char *wire = malloc(n_bytes + 1);
            wire[n_bytes] = 77;
            pn_codec_encode((enum pn_codec)c, rows, N, dim, wire);
            ck_assert_uint_eq(wire[n_bytes], 77);
            pn_codec_decode((enum pn_codec)c, wire, N, dim, back);
            for (size_t r = 0; r < N; r++) {
                double most = 0;
                for (size_t d = 0; d < dim; d++) most = fmax(most, fabs((double)rows[r * dim + d]));
                for (size_t d = 0; d < dim; d++) {
                    const double x = (double)rows[r * dim + d], y = (double)back[r * dim + d];
                    ck_assert_msg(fabs(x - y) <= (c == PN_CODEC_INT8 ? most / 127 * 0.5001 : error[c] * fabs(x) + 1e-7), "codec %d: %g came back as %g", c, x, y);
                }
            }
            free(wire);
        }
        free(rows);
        free(back);
    }
} END_TEST

START_TEST(rows_that_lie_apart_are_encoded_to_the_same_bytes) {
    enum { N = 70, MOST = 67 };
    struct pn_rng rng = {8};
    static const size_t dims[] = {1, 7, 8, 15, 16, 24, 64, MOST};
    float *apart[N], *together = malloc(N * MOST * sizeof *together);
    for (int i = 0; i < N; i++) apart[i] = malloc(MOST * sizeof *apart[i]);
    for (size_t k = 0; k < sizeof dims / sizeof *dims; k++)
        for (enum pn_codec c = PN_CODEC_FLOAT32; c < PN_CODECS; c++) {
            const size_t dim = dims[k], bytes = pn_codec_row_bytes(c, dim);
            const float *rows[N];
            uint8_t *a = malloc(N * bytes + 1), *b = malloc(N * bytes + 1);
            for (size_t i = 0; i < N; i++) {
                for (size_t d = 0; d < dim; d++) { /* any bits: large ones, tiny ones, what is no number */
                    const uint32_t bits = (uint32_t)(pn_rng_next(&rng) >> 32);
                    memcpy(&together[i * dim + d], &bits, sizeof bits);
                    if (c == PN_CODEC_INT8) together[i * dim + d] = (float)pn_rng_uniform(&rng);
                }
                memcpy(apart[i], together + i * dim, dim * sizeof *apart[i]);
                rows[i] = i % 9 == 4 ? NULL : apart[i];
            }
            memset(a, 77, N * bytes + 1);
            memset(b, 77, N * bytes + 1);
            for (size_t i = 0; i < N; i++)
                if (rows[i] != NULL) pn_codec_encode(c, together + i * dim, 1, dim, a + i * bytes);
            pn_codec_encode_rows(c, rows, N, dim, b);
            ck_assert_mem_eq(a, b, N * bytes + 1);
            free(a);
            free(b);
        }
    for (int i = 0; i < N; i++) free(apart[i]);
    free(together);
} END_TEST

START_TEST(float16_is_the_clipped_number_rounded_whatever_the_machine) {
    enum { N = 4099 };
    struct pn_rng rng = {9};
    static float x[N];
    static uint16_t wire[N];
    for (int round = 0; round < 50; round++) {
        for (size_t i = 0; i < N; i++) {
            const uint32_t bits = (uint32_t)(pn_rng_next(&rng) >> 32);
            memcpy(&x[i], &bits, sizeof bits);
            if (i % 4 == 0) x[i] = (float)((pn_rng_uniform(&rng) - 0.5) * 140000); /* about the limit */
        }
        pn_codec_encode(PN_CODEC_FLOAT16, x, 1, N, wire);
        for (size_t i = 0; i < N; i++) {
            const float c = !isfinite(x[i]) ? x[i] : fminf(fmaxf(x[i], -65504.0f), 65504.0f);
            ck_assert_msg(wire[i] == pn_half_from_float(c), "%g became %x, not %x", (double)x[i], wire[i], pn_half_from_float(c));
        }
    }
} END_TEST

START_TEST(large_numbers_are_clipped_and_what_is_no_number_stays_none) {
    float row[35], back[35];
    unsigned char wire[4 * 35];
    for (size_t dim = 1; dim <= 35; dim += 17) /* by the machine's width, and what is left over */
        for (size_t at = 0; at < dim; at += dim > 1 ? dim - 1 : 1) {
            for (size_t i = 0; i < dim; i++) row[i] = 1;
            row[at] = -1e9f;
            pn_codec_encode(PN_CODEC_FLOAT16, row, 1, dim, wire);
            pn_codec_decode(PN_CODEC_FLOAT16, wire, 1, dim, back);
            ck_assert(back[at] == -65504.0f);
            const float bad[3] = {NAN, INFINITY, -INFINITY};
            for (int b = 0; b < 3; b++) {
                row[at] = bad[b];
                for (int c = 0; c < PN_CODECS; c++) {
                    pn_codec_encode((enum pn_codec)c, row, 1, dim, wire);
                    pn_codec_decode((enum pn_codec)c, wire, 1, dim, back);
                    ck_assert_msg(!isfinite(back[at]), "codec %d made %g of %g", c, (double)back[at], (double)bad[b]);
                }
            }
        }
    for (int i = 0; i < 35; i++) row[i] = 1e-40f; /* no scale has a finite inverse */
    const uint64_t seed = 3;
    pn_codec_encode(PN_CODEC_INT8, row, 1, 35, wire);
    pn_codec_decode(PN_CODEC_INT8, wire, 1, 35, back);
    for (int i = 0; i < 35; i++) ck_assert(back[i] == 0);
    pn_codec_encode_stochastic(PN_CODEC_INT8, row, 1, 35, &seed, wire);
    pn_codec_decode(PN_CODEC_INT8, wire, 1, 35, back);
    for (int i = 0; i < 35; i++) ck_assert(back[i] == 0);
    memset(row, 0, sizeof row);
    pn_codec_encode(PN_CODEC_INT8, row, 1, 35, wire);
    pn_codec_decode(PN_CODEC_INT8, wire, 1, 35, back);
    for (int i = 0; i < 35; i++) ck_assert(back[i] == 0);
} END_TEST

START_TEST(bfloat16_rounds_to_nearest_even) {
    ck_assert_uint_eq(pn_bfloat_from_float(1.0f), 0x3f80);
    ck_assert_uint_eq(pn_bfloat_from_float(1.00390625f), 0x3f80);  /* half way: to even */
    ck_assert_uint_eq(pn_bfloat_from_float(1.01171875f), 0x3f82);
    ck_assert(isnan(pn_float_from_bfloat(pn_bfloat_from_float(NAN))));
    for (uint32_t b = 0; b < 0x7f80; b++) ck_assert_uint_eq(pn_bfloat_from_float(pn_float_from_bfloat((uint16_t)b)), b);
} END_TEST

/* Over many draws the mean is the number itself: normal, subnormal, near the ends; and nothing but the two neighbours comes. */
START_TEST(stochastic_rounding_has_the_number_as_its_expectation) {
    static const float numbers[] = {1.0f, 1.0003f, -0.33333f, 3.14159f, 1000.3f, 6.1e-5f, 6.09e-5f, 1e-6f, -3e-7f, 5e-8f, 65500.0f, -65504.0f, 0.0f};
    enum { N = sizeof numbers / sizeof *numbers, DRAWS = 20000 };
    for (enum pn_codec c = PN_CODEC_FLOAT16; c < PN_CODECS; c++) {
        double sum[N] = {0};
        float low[N], high[N];
        for (uint64_t draw = 0; draw < DRAWS; draw++) {
            unsigned char wire[4 * N];
            float back[N];
            const uint64_t seed = pn_mix64(draw);
            pn_codec_encode_stochastic(c, numbers, 1, N, &seed, wire);
            pn_codec_decode(c, wire, 1, N, back);
            for (int i = 0; i < N; i++) {
                sum[i] += (double)back[i];
                low[i] = draw == 0 || back[i] < low[i] ? back[i] : low[i];
                high[i] = draw == 0 || back[i] > high[i] ? back[i] : high[i];
            }
        }
        for (int i = 0; i < N; i++) {
            const double x = (double)numbers[i], unit = c == PN_CODEC_INT8 ? 65504.0 / 127 : c == PN_CODEC_BFLOAT16 ? fabs(x) * 0x1p-7 : fmax(fabs(x) * 0x1p-10, 0x1p-24);
            ck_assert_msg((double)low[i] <= x + 0.01 * unit && (double)high[i] >= x - 0.01 * unit && (double)(high[i] - low[i]) <= unit * 1.01, "%s %g: %g to %g", pn_codec_names[c], x, (double)low[i], (double)high[i]);
            ck_assert_msg(fabs(sum[i] / DRAWS - x) <= 5 * 0.5 * unit / sqrt(DRAWS), "%s %g: mean %g", pn_codec_names[c], x, sum[i] / DRAWS);
        }
    }
    const float bad[3] = {NAN, INFINITY, 1e30f};
    for (enum pn_codec c = PN_CODEC_FLOAT16; c < PN_CODECS; c++)
        for (int b = 0; b < 3; b++) {
            unsigned char wire[8];
            float back;
            const uint64_t seed = 1;
            pn_codec_encode_stochastic(c, &bad[b], 1, 1, &seed, wire);
            pn_codec_decode(c, wire, 1, 1, &back);
            ck_assert_msg(b == 2 ? isfinite(back) : !isfinite(back), "%s made %g of %g", pn_codec_names[c], (double)back, (double)bad[b]);
        }
} END_TEST

int main(void) {
    Suite *s = suite_create("codec");
    TCase *c = tcase_create("codec");
    tcase_add_test(c, rows_that_lie_apart_are_encoded_to_the_same_bytes);
    tcase_add_test(c, float16_is_the_clipped_number_rounded_whatever_the_machine);
    tcase_add_test(c, each_codec_comes_back_within_its_error_for_every_dimension);
    tcase_add_test(c, large_numbers_are_clipped_and_what_is_no_number_stays_none);
    tcase_add_test(c, bfloat16_rounds_to_nearest_even);
    tcase_add_test(c, stochastic_rounding_has_the_number_as_its_expectation);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
