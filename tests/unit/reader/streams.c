/* Records do not depend on how a file is packed or cut; broken packing is noticed; files that are not there. */
#include "tests/unit/reader/env.h"
#include "worker/reader/stream.h"

/* All records joined by '\x1e', fed in pieces of `piece` bytes. */
static enum pn_result records(const char *path, const char *data, size_t n, size_t piece, char *out, struct pn_error *err) {
    struct pn_stream *s = pn_stream_open(path);
    size_t at = 0;
    enum pn_result result = PN_OK;
    char *fed = NULL;
    for (;;) {
        struct pn_record record;
        enum pn_stream_state state = pn_stream_record(s, true, ',', &record, &result, err);
        if (state == PN_STREAM_RECORD) {
            out += sprintf(out, "%llu:", (unsigned long long)record.line);
            memcpy(out, record.text, record.n_bytes);
            out += record.n_bytes;
            *out++ = 0x1e;
        } else if (state == PN_STREAM_HUNGRY) {
            size_t m = n - at < piece ? n - at : piece;
            free(fed);
            fed = malloc(m + 1); /* of its own, so that a sanitizer sees a read beyond */
            memcpy(fed, data + at, m);
            at += m;
            pn_stream_feed(s, fed, m, at == n);
        } else break;
    }
    *out = 0;
    free(fed);
    pn_stream_close(s);
    return result;
}

static const char text[] = "a,b\n1,\"x\ny\"\r\n\n\"q\"\"\",2\n\"\",\"\"\n5\" z,\"\n\n\"\nlast,line";

START_TEST(records_do_not_depend_on_packing_or_cutting) {
    struct fake_env f;
    fake_init(&f, 1);
    struct pn_error err;
    const struct fake_file *files[3] = {fake_put(&f, "a.csv", text, sizeof(text) - 1), fake_put_zst(&f, "a.zst", text, sizeof(text) - 1),
                                        fake_put_gz(&f, "a.gz", text, sizeof(text) - 1)};
    char expected[500], got[500];
    ck_assert_int_eq(records(files[0]->path, files[0]->data, files[0]->n, 1000, expected, &err), PN_OK);
    ck_assert_str_eq(expected, "1:a,b\x1e" "2:1,\"x\ny\"\x1e" "5:\"q\"\"\",2\x1e" "6:\"\",\"\"\x1e" "7:5\" z,\"\n\n\"\x1e" "10:last,line\x1e");
    for (int i = 0; i < 3; i++)
        for (size_t piece = 1; piece <= files[i]->n; piece++) {
            ck_assert_int_eq(records(files[i]->path, files[i]->data, files[i]->n, piece, got, &err), PN_OK);
            ck_assert_str_eq(got, expected);
        }
    fake_free(&f);
} END_TEST

START_TEST(members_and_frames_one_behind_the_other_are_one_text) {
    for (int kind = 0; kind < 2; kind++) {
        struct fake_env f;
        struct pn_error err;
        fake_init(&f, 1);
        const struct fake_file *a = kind ? fake_put_gz(&f, "1", "a,b\nc", 5) : fake_put_zst(&f, "1", "a,b\nc", 5);
        const struct fake_file *b = kind ? fake_put_gz(&f, "2", ",d\ne,f\n", 7) : fake_put_zst(&f, "2", ",d\ne,f\n", 7);
        char both[400], got[100];
        memcpy(both, a->data, a->n);
        memcpy(both + a->n, b->data, b->n);
        for (size_t piece = 1; piece <= a->n + b->n; piece++) {
            ck_assert_int_eq(records(kind ? "x.gz" : "x.zst", both, a->n + b->n, piece, got, &err), PN_OK);
            ck_assert_str_eq(got, "1:a,b\x1e" "2:c,d\x1e" "3:e,f\x1e");
        }
        fake_free(&f);
    }
} END_TEST

START_TEST(a_packed_file_cut_anywhere_is_truncated_and_the_byte_is_named) {
    for (int kind = 0; kind < 2; kind++) {
        struct fake_env f;
        fake_init(&f, 1);
        const struct fake_file *file = kind ? fake_put_gz(&f, "t.csv.gz", text, sizeof(text) - 1) : fake_put_zst(&f, "t.csv.zst", text, sizeof(text) - 1);
        for (size_t n = 0; n < file->n; n++)
            for (size_t piece = 3; piece < 200; piece += 90) {
                char got[500], expected[600];
                struct pn_error err = {""};
                ck_assert_int_eq(records(file->path, file->data, n, piece, got, &err), PN_CORRUPT);
                snprintf(expected, sizeof(expected), "%s: truncated: the file ends at byte %zu inside compressed data", file->path, n);
                ck_assert_str_eq(err.text, expected);
            }
        fake_free(&f);
    }
} END_TEST

START_TEST(damaged_packing_never_passes_for_good) {
    for (int kind = 0; kind < 2; kind++) {
        struct fake_env f;
        fake_init(&f, 1);
        char longer[3000], *got = malloc(400000);
        for (size_t i = 0; i < sizeof(longer); i++) longer[i] = i % 50 == 49 ? '\n' : (char)('a' + i * i % 23);
        const struct fake_file *file = kind ? fake_put_gz(&f, "t.gz", longer, sizeof(longer)) : fake_put_zst(&f, "t.zst", longer, sizeof(longer));
        struct pn_rng rng = {4};
        int noticed = 0;
        for (int round = 0; round < 300; round++) {
            struct pn_error err = {""};
            size_t i = (size_t)(pn_rng_next(&rng) % file->n);
            char was = file->data[i];
            file->data[i] = (char)(was ^ (1 << pn_rng_next(&rng) % 8));
            if (records(file->path, file->data, file->n, 100, got, &err) != PN_OK) {
                noticed++;
                ck_assert(err.text[0]);
            }
            file->data[i] = was;
        }
        if (kind) ck_assert_int_gt(noticed, 250); /* gzip always has a checksum; some header bits mean nothing */
        struct pn_error err;
        ck_assert_int_eq(records(file->path, "not compressed at all", 21, 100, got, &err), PN_CORRUPT);
        ck_assert_ptr_nonnull(strstr(err.text, "damaged compressed data"));
        free(got);
        fake_free(&f);
    }
} END_TEST

START_TEST(a_line_without_end_is_refused_not_swallowed) {
    size_t n = (2u << 20) + 5;
    char *junk = malloc(n), *got = malloc(n + 10);
    memset(junk, 'x', n);
    struct pn_error err;
    ck_assert_int_eq(records("junk.csv", junk, n, 65536, got, &err), PN_INVALID);
    ck_assert_ptr_nonnull(strstr(err.text, "junk.csv:1: a line of more than"));
    free(junk);
    free(got);
} END_TEST

/* ---- files ---- */

START_TEST(a_missing_file_is_sought_with_endings_and_then_named_with_what_is_there) {
    struct fake_env f;
    fake_init(&f, 3);
    fake_put_gz(&f, "/d/a.csv.gz", "click,x\n1,2\n", 12);
    struct pn_data d = data_of(PN_FORMAT_CSV, "/d/a.csv");
    struct pn_reader_options o = whole(4);
    struct pn_reader *r = pn_reader_open(&f.env, &d, &o);
    struct answer a = next(&f, r);
    ck_assert_int_eq(a.result, PN_OK);
    ck_assert_str_eq(value(a.raw, 0, "x"), "2");
    close_reader(&f, r);
    d = data_of(PN_FORMAT_CSV, "/d/b.csv");
    r = pn_reader_open(&f.env, &d, &o);
    for (int i = 0; i < 2; i++) {
        a = next(&f, r);
        ck_assert_int_eq(a.result, PN_IO);
        ck_assert_str_eq(a.err.text, "/d/b.csv: no such file, nor with .zst or .gz behind; its folder has a.csv.gz");
    }
    close_reader(&f, r);
    fake_free(&f);
} END_TEST

/* About a megabyte: several pieces. */
static char *long_csv(size_t n_rows, size_t *n) {
    char *out = malloc(32 * n_rows + 100), *p = out + sprintf(out, "click,i\n");
    for (size_t i = 0; i < n_rows; i++) p += sprintf(p, "%zu,%zu\n", i % 2, i);
    *n = (size_t)(p - out);
    return out;
}

START_TEST(a_failing_disk_is_told_after_the_rows_before_it) {
    struct fake_env f;
    fake_init(&f, 5);
    size_t n;
    char *csv = long_csv(100000, &n);
    struct fake_file *file = fake_put(&f, "/l.csv", csv, n);
    file->error = EIO;
    file->error_at = 600000;
    struct pn_data d = data_of(PN_FORMAT_CSV, "/l.csv");
    struct pn_reader_options o = whole(1000);
    struct pn_reader *r = pn_reader_open(&f.env, &d, &o);
    struct answer a;
    size_t rows = 0;
    while ((a = next(&f, r)).result == PN_OK) rows += a.raw->n_rows;
    ck_assert_int_eq(a.result, PN_IO);
    ck_assert_ptr_nonnull(strstr(a.err.text, "/l.csv: cannot be read at byte 524288: "));
    ck_assert_uint_gt(rows, 50000);
    close_reader(&f, r);
    free(csv);
    fake_free(&f);
} END_TEST

START_TEST(a_reader_may_be_closed_at_any_moment) {
    size_t n;
    char *csv = long_csv(60000, &n);
    for (uint64_t seed = 0; seed < 300; seed++) {
        struct fake_env f;
        fake_init(&f, seed);
        if (seed % 5) fake_put(&f, "/l.csv", csv, n);
        struct pn_data d = data_of(PN_FORMAT_CSV, "/l.csv");
        struct pn_reader_options o = whole(7000);
        o.shuffle_buffer = seed % 3 * 500;
        struct pn_reader *r = pn_reader_open(&f.env, &d, &o);
        struct answer a = {0};
        pn_reader_next(r, on_answer, &a);
        for (uint64_t steps = seed % 40; steps; steps--) {
            if (!fake_step(&f) && a.result != PN_OK) break;
            if (a.came && a.result == PN_OK) {
                a = (struct answer){0};
                pn_reader_next(r, on_answer, &a);
            }
        }
        bool came = a.came;
        close_reader(&f, r);
        ck_assert_int_eq(came, a.came); /* nothing is called after close */
        fake_free(&f);
    }
    free(csv);
} END_TEST

static struct pn_reader *to_close;
static void close_inside(void *owner, enum pn_result result, const struct pn_raw *raw, const struct pn_error *err) {
    (void)raw, (void)err;
    *(enum pn_result *)owner = result;
    pn_reader_close(to_close);
}

START_TEST(a_reader_may_be_closed_from_inside_its_answer) {
    for (int kind = 0; kind < 3; kind++) {
        struct fake_env f;
        fake_init(&f, 11);
        size_t n;
        char *csv = long_csv(60000, &n);
        if (kind) fake_put(&f, "/l.csv", csv, kind == 1 ? n : 8);
        struct pn_data d = data_of(PN_FORMAT_CSV, "/l.csv");
        struct pn_reader_options o = whole(10);
        to_close = pn_reader_open(&f.env, &d, &o);
        enum pn_result result = PN_FAILED;
        pn_reader_next(to_close, close_inside, &result);
        while (fake_step(&f)) {}
        ck_assert_int_eq(result, kind == 0 ? PN_IO : kind == 1 ? PN_OK : PN_NOT_FOUND);
        free(csv);
        fake_free(&f);
    }
} END_TEST

int main(void) {
    TCase *c = tcase_create("streams");
    tcase_add_test(c, records_do_not_depend_on_packing_or_cutting);
    tcase_add_test(c, members_and_frames_one_behind_the_other_are_one_text);
    tcase_add_test(c, a_packed_file_cut_anywhere_is_truncated_and_the_byte_is_named);
    tcase_add_test(c, damaged_packing_never_passes_for_good);
    tcase_add_test(c, a_line_without_end_is_refused_not_swallowed);
    tcase_add_test(c, a_missing_file_is_sought_with_endings_and_then_named_with_what_is_there);
    tcase_add_test(c, a_failing_disk_is_told_after_the_rows_before_it);
    tcase_add_test(c, a_reader_may_be_closed_at_any_moment);
    tcase_add_test(c, a_reader_may_be_closed_from_inside_its_answer);
    return run_suite(c);
}
