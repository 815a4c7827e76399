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

int main(void) {
    Suite *s = suite_create("codec");
    TCase *c = tcase_create("codec");
    tcase_add_test(c, each_codec_comes_back_within_its_error_for_every_dimension);
    tcase_add_test(c, large_numbers_are_clipped_and_what_is_no_number_stays_none);
    tcase_add_test(c, bfloat16_rounds_to_nearest_even);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
