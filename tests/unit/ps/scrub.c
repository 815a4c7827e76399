/* A checkpoint's copy without some rows: the same moment in everything else, and nothing of them in its bytes. */
#include "ps/checkpoint.h"
#include "ps/scrub.h"
#include "tests/unit/ps/util.h"

enum { KEYS = 300, GONE = 20 };
static struct { int64_t result; char digest[65]; uint64_t rows; } written_file;
static void on_written(void *owner, int64_t result, uint64_t n_bytes, const char *digest, uint64_t rows) {
    (void)owner, (void)n_bytes;
    written_file.result = result;
    written_file.rows = rows;
    snprintf(written_file.digest, sizeof written_file.digest, "%s", digest);
}
static uint64_t key_of(uint64_t i) { return pn_mix64(i) >> 1; } /* long keys: eight bytes that stand nowhere by chance */
static void train(struct fake *f, struct pn_shard *s, uint64_t from, uint64_t to) {
    for (uint64_t step = from; step <= to; step++) {
        uint64_t keys[30];
        for (uint64_t i = 0; i < 30; i++) keys[i] = key_of((step * 30 + i) % KEYS);
        count_push(f, s, 0, step, keys, 30);
        fake_drop_sent(f);
    }
}
static size_t found(const void *bytes, size_t n, uint64_t key) {
    size_t count = 0;
    for (size_t i = 0; i + 8 <= n; i++) count += memcmp((const uint8_t *)bytes + i, &key, 8) == 0;
    return count;
}

START_TEST(a_copy_is_the_same_moment_without_the_rows) {
    struct fake *f = fake_open();
    struct pn_shard *s = open_shard(f, audit_job("async"), 1, 0, ALL), *back = open_shard(f, audit_job("async"), 1, 0, ALL);
    struct pn_error err = {""};
    train(f, s, 1, 40);
    ck_assert_ptr_nonnull(pn_checkpoint_write(s, "/c/7", "ps-0", 7, on_written, NULL));
    fake_run(f);
    ck_assert_int_eq(written_file.result, 0);
    const struct fake_file *file = fake_file(f, "/c/7/ps-0.ps", false);
    uint32_t tables[GONE] = {0};
    uint64_t keys[GONE], rows, removed;
    for (uint64_t i = 0; i < GONE; i++) {
        keys[i] = key_of(7 * i);
        ck_assert_uint_eq(found(file->data, file->n_bytes, keys[i]), 1);
    }
    void *copy;
    size_t n;
    char hex[65];
    ck_assert_msg(pn_scrub_image(file->data, file->n_bytes, written_file.digest, tables, keys, GONE, &copy, &n, hex, &rows, &removed, &err) == PN_OK, "%s", err.text);
    ck_assert(removed == GONE && rows == KEYS - GONE && written_file.rows == KEYS);
    for (uint64_t i = 0; i < GONE; i++) ck_assert_uint_eq(found(copy, n, keys[i]), 0);
    ck_assert_msg(pn_checkpoint_restore(back, copy, n, hex, &err) == PN_OK, "%s", err.text);
    ck_assert_uint_eq(pn_table_rows(back->tables[0]), KEYS - GONE);
    for (uint64_t i = 0; i < KEYS; i++) ck_assert(first_value(back, 0, key_of(i)) == (i % 7 == 0 && i / 7 < GONE ? 0 : first_value(s, 0, key_of(i))));
    ck_assert_mem_eq(back->audit, s->audit, sizeof s->audit);
    ck_assert_mem_eq(back->windows, s->windows, PN_SLOTS * sizeof *s->windows);
    train(f, back, 1, 40); /* what was in the cut is recognised */
    ck_assert_uint_eq(pn_table_rows(back->tables[0]), KEYS - GONE);
    free(copy);
    /* Nothing to remove: the same bytes. Another digest, a damaged byte: refused. */
    const uint64_t none = 12345;
    ck_assert_int_eq(pn_scrub_image(file->data, file->n_bytes, NULL, tables, &none, 1, &copy, &n, hex, &rows, &removed, &err), PN_OK);
    ck_assert(removed == 0 && n == file->n_bytes && memcmp(copy, file->data, n) == 0 && strcmp(hex, written_file.digest) == 0);
    free(copy);
    ((uint8_t *)file->data)[file->n_bytes / 2] ^= 1;
    ck_assert_int_eq(pn_scrub_image(file->data, file->n_bytes, NULL, tables, keys, GONE, &copy, &n, hex, &rows, &removed, &err), PN_CORRUPT);
    pn_shard_close(s);
    pn_shard_close(back);
    fake_close(f);
} END_TEST

START_TEST(a_shard_that_knows_a_request_leaves_its_rows_out_of_a_restore_and_of_pushes) {
    struct fake *f = fake_open();
    struct pn_shard *s = open_shard(f, audit_job("async"), 1, 0, ALL), *back = open_shard(f, audit_job("async"), 1, 0, ALL);
    struct pn_error err = {""};
    train(f, s, 1, 40);
    ck_assert_ptr_nonnull(pn_checkpoint_write(s, "/c/7", "ps-0", 7, on_written, NULL));
    const uint32_t tables[2] = {0, 0}, no_table = 9;
    const uint64_t keys[2] = {key_of(3), key_of(4)};
    uint64_t removed = 0;
    ck_assert_int_eq(pn_shard_forget(s, tables, keys, 2, &removed), PN_BUSY); /* a cut is under way */
    fake_run(f);
    ck_assert_int_eq(pn_shard_forget(s, &no_table, keys, 1, &removed), PN_INVALID);
    ck_assert_int_eq(pn_shard_forget(s, tables, keys, 2, &removed), PN_OK);
    ck_assert_uint_eq(removed, 2);
    removed = 0;
    ck_assert_int_eq(pn_shard_forget(back, tables, keys, 2, &removed), PN_OK);
    const struct fake_file *file = fake_file(f, "/c/7/ps-0.ps", false);
    ck_assert_int_eq(pn_checkpoint_restore(back, file->data, file->n_bytes, written_file.digest, &err), PN_OK);
    for (int i = 0; i < 2; i++) {
        struct pn_shard *one = i == 0 ? s : back;
        train(f, one, 41, 60);
        ck_assert_uint_eq(pn_table_rows(one->tables[0]), KEYS - 2);
        ck_assert(first_value(one, 0, keys[0]) == 0 && first_value(one, 0, keys[1]) == 0 && first_value(one, 0, key_of(5)) == 6);
    }
    pn_shard_close(s);
    pn_shard_close(back);
    fake_close(f);
} END_TEST

int main(void) {
    TCase *c = tcase_create("scrub");
    tcase_add_test(c, a_copy_is_the_same_moment_without_the_rows);
    tcase_add_test(c, a_shard_that_knows_a_request_leaves_its_rows_out_of_a_restore_and_of_pushes);
    return fake_suite("scrub", c);
}
