#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "common/half.h"
#include "common/hash.h"

static uint32_t bits(float x) {
    uint32_t b;
    memcpy(&b, &x, 4);
    return b;
}
static float number(uint32_t b) {
    float x;
    memcpy(&x, &b, 4);
    return x;
}

START_TEST(every_half_widens_to_the_same_bits_by_hand_and_by_machine) {
    static uint16_t h[65536];
    static float wide[65536];
    for (uint32_t i = 0; i < 65536; i++) h[i] = (uint16_t)i;
    pn_floats_from_halves(h, wide, 65536);
    for (uint32_t i = 0; i < 65536; i++) ck_assert_uint_eq(bits(wide[i]), bits(pn_float_from_half((uint16_t)i)));
} END_TEST

START_TEST(every_half_comes_back_from_its_float) {
    for (uint32_t i = 0; i < 65536; i++) {
        float x = pn_float_from_half((uint16_t)i);
        if (isnan(x)) ck_assert_uint_eq(pn_half_from_float(x), i | 0x200u);
        else ck_assert_uint_eq(pn_half_from_float(x), i);
    }
} END_TEST

START_TEST(floats_narrow_to_the_same_bits_by_hand_and_by_machine) {
    struct pn_rng rng = {1};
    for (int round = 0; round < 60000; round++) {
        float x[8];
        uint16_t h[8];
        for (int i = 0; i < 8; i++) {
            uint32_t b = (uint32_t)pn_rng_next(&rng);
            if (round % 2) b = (b & 0x807fffffu) | (98u + (uint32_t)(pn_rng_next(&rng) % 48)) << 23; /* around the ranges of half */
            if (round % 4 == 3) b &= 0xfffff000u;                                                    /* ties */
            x[i] = number(b);
        }
        pn_halves_from_floats(x, h, 8);
        for (int i = 0; i < 8; i++) ck_assert_msg(h[i] == pn_half_from_float(x[i]), "%08x: %04x and %04x", bits(x[i]), h[i], pn_half_from_float(x[i]));
    }
} END_TEST

START_TEST(ties_round_to_even_and_the_greatest_rounds_to_infinity) {
    ck_assert_uint_eq(pn_half_from_float(1.0f + 0x1p-11f), 0x3c00);
    ck_assert_uint_eq(pn_half_from_float(1.0f + 3 * 0x1p-11f), 0x3c02);
    ck_assert_uint_eq(pn_half_from_float(65519.99f), 0x7bff);
    ck_assert_uint_eq(pn_half_from_float(65520.0f), 0x7c00);
    ck_assert_uint_eq(pn_half_from_float(0x1p-25f), 0);
    ck_assert_uint_eq(pn_half_from_float(0x1.8p-25f), 1);
    ck_assert_uint_eq(pn_half_from_float(-0.0f), 0x8000);
} END_TEST

int main(void) {
    Suite *s = suite_create("half");
    TCase *c = tcase_create("half");
    tcase_set_timeout(c, 120);
    tcase_add_test(c, every_half_widens_to_the_same_bits_by_hand_and_by_machine);
    tcase_add_test(c, every_half_comes_back_from_its_float);
    tcase_add_test(c, floats_narrow_to_the_same_bits_by_hand_and_by_machine);
    tcase_add_test(c, ties_round_to_even_and_the_greatest_rounds_to_infinity);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
