#include <check.h>
#include <stdlib.h>
#include <string.h>
#include "common/hash.h"
#include "common/json.h"
#include "common/wire.h"

static void release(struct pn_msg *m) { free(m); }
static struct pn_msg *message(struct pn_env *e, size_t n) {
    (void)e;
    struct pn_msg *m = malloc(sizeof *m + n + 8);
    *m = (struct pn_msg){.data = (uint8_t *)(m + 1), .n_bytes = n, .refs = 1, .free = release};
    return m;
}
static const struct pn_env_ops ops = {.message = message};
static struct pn_env env = {&ops};

static struct pn_msg *sample(void) {
    struct pn_writer w;
    pn_write_start(&w, PN_PUSH, 7, 99);
    pn_write_u64(&w, "step", UINT64_MAX);
    pn_write_str(&w, "job", "j-1");
    uint64_t tables[] = {0, 3, 70000};
    pn_write_u64s(&w, "tables", tables, 3);
    uint8_t *body;
    struct pn_msg *m = pn_write_finish(&w, &env, 24, &body);
    for (int i = 0; i < 24; i++) body[i] = (uint8_t)i;
    pn_msg_seal(m);
    return m;
}

START_TEST(a_sealed_message_reads_back_as_written) {
    struct pn_msg *m = sample();
    struct pn_frame f;
    struct pn_error err;
    ck_assert_int_eq(pn_frame_open(&f, m->data, m->n_bytes, &err), PN_OK);
    uint64_t v, list[3];
    size_t n;
    char job[8];
    ck_assert_int_eq(f.kind, PN_PUSH);
    ck_assert_uint_eq(f.term, 7);
    ck_assert_uint_eq(f.request, 99);
    ck_assert(pn_frame_u64(&f, "step", &v) && v == UINT64_MAX);
    ck_assert(pn_frame_str(&f, "job", job, sizeof job) && strcmp(job, "j-1") == 0);
    ck_assert(!pn_frame_str(&f, "job", job, 3)); /* no room for the NUL */
    ck_assert(pn_frame_u64s(&f, "tables", list, 3, &n) && n == 3 && list[2] == 70000);
    ck_assert(!pn_frame_u64s(&f, "tables", list, 2, &n));
    ck_assert(!pn_frame_u64(&f, "absent", &v));
    ck_assert_ptr_nonnull(pn_frame_take(&f, 2, 4));
    const uint8_t *rest = pn_frame_take(&f, 16, 1);
    ck_assert(rest != NULL && rest[0] == 8);
    ck_assert_ptr_null(pn_frame_take(&f, 1, 1));
    ck_assert_ptr_null(pn_frame_take(&f, SIZE_MAX, 8));
    pn_frame_close(&f);
    pn_msg_unref(m);
} END_TEST

START_TEST(every_flipped_bit_is_refused) {
    struct pn_msg *m = sample();
    for (size_t bit = 0; bit < m->n_bytes * 8; bit++) {
        m->data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        struct pn_frame f;
        ck_assert_int_ne(pn_frame_open(&f, m->data, m->n_bytes, NULL), PN_OK);
        m->data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    pn_msg_unref(m);
} END_TEST

START_TEST(every_truncation_is_refused) {
    struct pn_msg *m = sample();
    for (size_t n = 0; n < m->n_bytes; n++) {
        struct pn_frame f;
        ck_assert_int_ne(pn_frame_open(&f, m->data, n, NULL), PN_OK);
    }
    pn_msg_unref(m);
} END_TEST

/* A frame with a right checksum and a header of the attacker's choice. */
static enum pn_result open_header(const uint8_t *header, size_t n) {
    size_t padded = pn_pad8(n);
    uint8_t *p = calloc(1, 32 + padded);
    memcpy(p, "PNW1\x01\x01", 6);
    uint32_t length = (uint32_t)padded;
    memcpy(p + 24, &length, 4);
    memcpy(p + 32, header, n);
    uint32_t crc = pn_crc32c(0, p, 32 + padded);
    memcpy(p + 28, &crc, 4);
    struct pn_frame f;
    enum pn_result r = pn_frame_open(&f, p, 32 + padded, NULL);
    if (r == PN_OK) pn_frame_close(&f);
    free(p);
    return r;
}

START_TEST(a_header_that_claims_more_than_is_there_is_refused_before_it_is_unpacked) {
    static const uint8_t bomb[] = {0xdd, 0x10, 0x00, 0x00, 0x00}, map_bomb[] = {0xdf, 0x7f, 0xff, 0xff, 0xff},
                         array_in_map[] = {0x81, 0xa1, 'a', 0xdc, 0xff, 0xff}, text[] = {0x81, 0xa1, 'a', 0xda, 0xff, 0xff},
                         deep[] = {0x81, 0xa1, 'a', 0x91, 0x91, 0x91, 0x91, 0x01}, ext[] = {0x81, 0xa1, 'a', 0xd4, 1, 2},
                         good[] = {0x81, 0xa1, 'a', 0x01}, none[] = {0x80};
    ck_assert_int_ne(open_header(bomb, sizeof bomb), PN_OK);
    ck_assert_int_ne(open_header(map_bomb, sizeof map_bomb), PN_OK);
    ck_assert_int_ne(open_header(array_in_map, sizeof array_in_map), PN_OK);
    ck_assert_int_ne(open_header(text, sizeof text), PN_OK);
    ck_assert_int_ne(open_header(deep, sizeof deep), PN_OK);
    ck_assert_int_ne(open_header(ext, sizeof ext), PN_OK);
    ck_assert_int_eq(open_header(good, sizeof good), PN_OK);
    ck_assert_int_eq(open_header(none, sizeof none), PN_OK);
} END_TEST

START_TEST(random_headers_never_crash_the_reader) {
    struct pn_rng r = {42};
    for (int i = 0; i < 200000; i++) {
        uint8_t h[24];
        for (size_t k = 0; k < sizeof h; k++) h[k] = (uint8_t)pn_rng_next(&r);
        h[0] = (uint8_t)(0x80 | (h[0] & 0x0f));
        open_header(h, 1 + pn_rng_next(&r) % sizeof h);
    }
} END_TEST

START_TEST(json_keeps_64_bit_keys_and_refuses_what_follows_a_value) {
    struct pn_error err;
    const char *text = "{\"a\":18446744073709551615,\"b\":-1,\"c\":1.5,\"d\":\"x\",\"e\":[1,2]}";
    struct json_object *o = pn_json_parse(text, strlen(text), &err);
    ck_assert_ptr_nonnull(o);
    ck_assert_uint_eq(pn_json_u64(o, "a", 0), UINT64_MAX);
    ck_assert_uint_eq(pn_json_u64(o, "b", 5), 5);
    ck_assert(pn_json_double(o, "c", 0) == 1.5);
    ck_assert_uint_eq(pn_json_length(pn_json_get(o, "e")), 2);
    ck_assert_ptr_null(pn_json_at(pn_json_get(o, "e"), 2));
    json_object_put(o);
    static const char *const bad[] = {"", "{", "{}x", "{\"a\":}", "nul", "[1,]", "\xff"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) ck_assert_ptr_null(pn_json_parse(bad[i], strlen(bad[i]), &err));
} END_TEST

START_TEST(a_control_message_carries_its_object) {
    struct json_object *o = json_object_new_object();
    pn_json_add_u64(o, "n", 3);
    struct pn_msg *m = pn_control_write(&env, PN_BEAT, 4, 5, o);
    struct pn_frame f;
    ck_assert_int_eq(pn_frame_open(&f, m->data, m->n_bytes, NULL), PN_OK);
    struct json_object *back = pn_control_read(&f, NULL);
    ck_assert_uint_eq(pn_json_u64(back, "n", 0), 3);
    json_object_put(back);
    json_object_put(o);
    pn_frame_close(&f);
    pn_msg_unref(m);
} END_TEST

START_TEST(crc32c_and_blake2b_give_the_published_values) {
    ck_assert_uint_eq(pn_crc32c(0, "123456789", 9), 0xe3069283u);
    ck_assert_uint_eq(pn_crc32c(pn_crc32c(0, "1234", 4), "56789", 5), 0xe3069283u);
    struct pn_digest d;
    char hex[65];
    pn_digest_start(&d);
    pn_digest_add(&d, "abc", 3);
    pn_digest_hex(&d, hex);
    ck_assert_str_eq(hex, "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
} END_TEST

int main(void) {
    Suite *s = suite_create("wire");
    TCase *t = tcase_create("wire");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, a_sealed_message_reads_back_as_written);
    tcase_add_test(t, every_flipped_bit_is_refused);
    tcase_add_test(t, every_truncation_is_refused);
    tcase_add_test(t, a_header_that_claims_more_than_is_there_is_refused_before_it_is_unpacked);
    tcase_add_test(t, random_headers_never_crash_the_reader);
    tcase_add_test(t, json_keeps_64_bit_keys_and_refuses_what_follows_a_value);
    tcase_add_test(t, a_control_message_carries_its_object);
    tcase_add_test(t, crc32c_and_blake2b_give_the_published_values);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
