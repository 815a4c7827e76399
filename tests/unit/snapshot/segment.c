#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "snapshot/internal.h"

static void *build(int storage, uint32_t n, size_t *n_bytes, struct pn_rng rng) {
    struct pn_segment_writer *w = pn_segment_start(storage);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t key = pn_rng_next(&rng);
        float row[5];
        for (int d = 0; d < 5; d++) row[d] = (float)pn_rng_normal(&rng) * (i % 7 == 0 ? 1000.0f : 0.01f);
        ck_assert_int_eq(pn_segment_add(w, 1 + i % 2, 5 - i % 2 * 2, &key, row, 1), PN_OK);
    }
    void *image = NULL;
    char hex[65];
    ck_assert_int_eq(pn_segment_finish(w, &image, n_bytes, hex), PN_OK);
    return image;
}

START_TEST(rows_come_back_within_the_error_of_their_storage) {
    enum { N = 4000 };
    size_t n_bytes;
    void *image = build(_i, N, &n_bytes, (struct pn_rng){7});
    struct pn_segment s;
    struct pn_error err = {""};
    ck_assert_msg(pn_segment_read(&s, image, n_bytes, &err) == PN_OK, "%s", err.text);
    ck_assert_uint_eq(s.n_tables, 2);
    ck_assert_uint_eq(s.tables[0].n_rows + s.tables[1].n_rows, N);
    struct pn_rng rng = {7};
    for (uint32_t i = 0; i < N; i++) {
        uint64_t key = pn_rng_next(&rng);
        const struct pn_segment_table *t = &s.tables[i % 2];
        ck_assert_uint_eq(t->i_table, 1 + i % 2);
        size_t at = pn_segment_find(t, key, pn_segment_guess(t, key));
        ck_assert_uint_ne(at, SIZE_MAX);
        ck_assert_uint_eq(pn_segment_find(t, key, i % 50), at); /* any guess is right */
        ck_assert_uint_eq(pn_segment_find(t, key, SIZE_MAX), at);
        ck_assert_uint_eq(pn_segment_find(t, key + 1, at), SIZE_MAX);
        float row[5], got[5], most = 0;
        for (int d = 0; d < 5; d++) row[d] = (float)pn_rng_normal(&rng) * (i % 7 == 0 ? 1000.0f : 0.01f);
        for (uint32_t d = 0; d < t->dim; d++) most = fmaxf(most, fabsf(row[d]));
        pn_segment_row(&s, t, at, got);
        for (uint32_t d = 0; d < t->dim; d++) {
            float bound = _i == PN_STORE_FLOAT32 ? 0 : _i == PN_STORE_FLOAT16 ? fmaxf(fabsf(row[d]) * 0x1p-11f, 0x1p-25f) : most / 127 * 0.5001f;
            ck_assert_msg(fabsf(got[d] - row[d]) <= bound, "storage %d: %g became %g", _i, (double)row[d], (double)got[d]);
        }
    }
    free(image);
} END_TEST

START_TEST(lookups_are_right_however_the_keys_are_spread) {
    struct pn_rng rng = {3};
    for (int round = 0; round < 300; round++) {
        struct pn_segment_writer *w = pn_segment_start(PN_STORE_FLOAT32);
        uint64_t keys[200], key = round % 3 == 0 ? 0 : pn_rng_next(&rng) >> 8;
        size_t n = 1 + (size_t)(pn_rng_next(&rng) % 200);
        for (size_t i = 0; i < n; i++) {
            key += 1 + (pn_rng_next(&rng) >> (8 + pn_rng_next(&rng) % 56)) / 256;
            keys[i] = key;
            float v = (float)i;
            ck_assert_int_eq(pn_segment_add(w, 0, 1, &key, &v, 1), PN_OK);
        }
        void *image;
        size_t n_bytes;
        char hex[65];
        struct pn_segment s;
        ck_assert_int_eq(pn_segment_finish(w, &image, &n_bytes, hex), PN_OK);
        ck_assert_int_eq(pn_segment_read(&s, image, n_bytes, NULL), PN_OK);
        for (size_t i = 0; i < n; i++) {
            ck_assert_uint_eq(pn_segment_find(&s.tables[0], keys[i], pn_segment_guess(&s.tables[0], keys[i])), i);
            uint64_t other = keys[i] - 1;
            if (i == 0 || keys[i - 1] != other) ck_assert_uint_eq(pn_segment_find(&s.tables[0], other, pn_segment_guess(&s.tables[0], other)), SIZE_MAX);
        }
        free(image);
    }
} END_TEST

START_TEST(every_flipped_bit_of_a_segment_is_detected) {
    size_t n_bytes;
    uint8_t *image = build(_i, 40, &n_bytes, (struct pn_rng){1}), *copy = aligned_alloc(64, n_bytes);
    struct pn_segment s;
    for (size_t i = 0; i < n_bytes; i++)
        for (int bit = 0; bit < 8; bit++) {
            memcpy(copy, image, n_bytes);
            copy[i] ^= (uint8_t)(1u << bit);
            ck_assert_msg(pn_segment_read(&s, copy, n_bytes, NULL) == PN_CORRUPT, "byte %zu, bit %d", i, bit);
        }
    free(copy);
    free(image);
} END_TEST

START_TEST(every_truncation_and_every_addition_is_detected) {
    size_t n_bytes;
    uint8_t *image = build(PN_STORE_INT8, 40, &n_bytes, (struct pn_rng){1});
    struct pn_segment s;
    for (size_t n = 0; n < n_bytes; n++) {
        uint8_t *copy = malloc(n + 1); /* the sanitizer sees a read behind */
        memcpy(copy, image, n);
        ck_assert_int_eq(pn_segment_read(&s, copy, n, NULL), PN_CORRUPT);
        free(copy);
    }
    uint8_t *longer = calloc(1, n_bytes + 64);
    memcpy(longer, image, n_bytes);
    ck_assert_int_eq(pn_segment_read(&s, longer, n_bytes + 64, NULL), PN_CORRUPT);
    free(longer);
    free(image);
} END_TEST

/* With a right checksum the header still must not lead anywhere. */
START_TEST(a_hostile_header_with_a_right_checksum_reads_nothing_outside) {
    size_t n_bytes;
    uint8_t *image = build(_i, 40, &n_bytes, (struct pn_rng){1}), *copy = aligned_alloc(64, n_bytes);
    struct pn_rng rng = {9};
    struct pn_segment s;
    for (int round = 0; round < 20000; round++) {
        memcpy(copy, image, n_bytes);
        uint64_t evil = (const uint64_t[]){0, 1, UINT64_MAX, 1ull << 63, 1ull << 61, n_bytes, pn_rng_next(&rng)}[pn_rng_next(&rng) % 7];
        size_t at = 16 + (size_t)(pn_rng_next(&rng) % 44) * 4, n = pn_rng_next(&rng) % 2 ? 8 : 4;
        memcpy(copy + at, &evil, n);
        memset(copy + 20, 0, 4);
        uint32_t n_tables;
        memcpy(&n_tables, copy + 16, 4);
        uint32_t crc = pn_crc32c(0, copy, 64 + (n_tables <= 2 ? n_tables : 2) * 64u);
        memcpy(copy + 20, &crc, 4);
        if (pn_segment_read(&s, copy, n_bytes, NULL) != PN_OK) continue;
        for (uint32_t t = 0; t < s.n_tables; t++) { /* another table's number, for example: nothing that leads outside */
            const struct pn_segment_table *table = &s.tables[t];
            const uint8_t *end = table->rows + table->n_rows * pn_segment_row_bytes(s.storage, table->dim);
            ck_assert((const uint8_t *)table->keys > copy && end <= copy + n_bytes);
        }
    }
    free(copy);
    free(image);
} END_TEST

START_TEST(what_a_storage_cannot_hold_is_refused) {
    float nan_row = NAN, big = 70000, inf = INFINITY;
    uint64_t key = 1;
    for (int storage = 0; storage < 3; storage++) {
        struct pn_segment_writer *w = pn_segment_start(storage);
        ck_assert_int_eq(pn_segment_add(w, 0, 1, &key, &nan_row, 1), PN_INVALID);
        ck_assert_int_eq(pn_segment_add(w, 0, 1, &key, &inf, 1), PN_INVALID);
        ck_assert_int_eq(pn_segment_add(w, 0, 1, &key, &big, 1), storage == PN_STORE_FLOAT16 ? PN_INVALID : PN_OK);
        ck_assert_int_eq(pn_segment_add(w, 0, 2, &key, &big, 1), PN_INVALID);
        ck_assert_int_eq(pn_segment_add(w, PN_MAX_TABLES, 1, &key, &big, 1), PN_INVALID);
        pn_segment_abandon(w);
    }
    struct pn_segment_writer *w = pn_segment_start(PN_STORE_FLOAT32);
    float x = 1;
    void *image;
    size_t n;
    char hex[65];
    ck_assert_int_eq(pn_segment_add(w, 0, 1, &key, &x, 1), PN_OK);
    ck_assert_int_eq(pn_segment_add(w, 0, 1, &key, &x, 1), PN_OK);
    ck_assert_int_eq(pn_segment_finish(w, &image, &n, hex), PN_INVALID); /* the key stands twice */
} END_TEST

START_TEST(an_empty_segment_is_a_segment) {
    void *image;
    size_t n;
    char hex[65];
    struct pn_segment s;
    ck_assert_int_eq(pn_segment_finish(pn_segment_start(PN_STORE_INT8), &image, &n, hex), PN_OK);
    ck_assert_int_eq(pn_segment_read(&s, image, n, NULL), PN_OK);
    ck_assert_uint_eq(s.n_tables, 0);
    free(image);
} END_TEST

START_TEST(zeros_and_tiny_rows_survive_int8) {
    struct pn_segment_writer *w = pn_segment_start(PN_STORE_INT8);
    const uint64_t keys[3] = {1, 2, 3};
    const float rows[6] = {0, 0, 1e-40f, -1e-37f, -127, 127};
    void *image;
    size_t n;
    char hex[65];
    struct pn_segment s;
    float row[2];
    ck_assert_int_eq(pn_segment_add(w, 0, 2, keys, rows, 3), PN_OK);
    ck_assert_int_eq(pn_segment_finish(w, &image, &n, hex), PN_OK);
    ck_assert_int_eq(pn_segment_read(&s, image, n, NULL), PN_OK);
    for (size_t i = 0; i < 3; i++) {
        pn_segment_row(&s, &s.tables[0], i, row);
        ck_assert_float_eq_tol(row[0], rows[2 * i], 1e-34f);
        ck_assert_float_eq_tol(row[1], rows[2 * i + 1], 1e-34f);
    }
    free(image);
} END_TEST

int main(void) {
    Suite *s = suite_create("segment");
    TCase *c = tcase_create("segment");
    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, rows_come_back_within_the_error_of_their_storage, 0, 3);
    tcase_add_test(c, lookups_are_right_however_the_keys_are_spread);
    tcase_add_loop_test(c, every_flipped_bit_of_a_segment_is_detected, 0, 3);
    tcase_add_test(c, every_truncation_and_every_addition_is_detected);
    tcase_add_loop_test(c, a_hostile_header_with_a_right_checksum_reads_nothing_outside, 0, 3);
    tcase_add_test(c, what_a_storage_cannot_hold_is_refused);
    tcase_add_test(c, an_empty_segment_is_a_segment);
    tcase_add_test(c, zeros_and_tiny_rows_survive_int8);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
