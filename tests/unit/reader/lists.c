/* JSON lines, and lists of files: packed in any way they are one data set, shuffled, dealt and gone on with as if they were one file. */
#include "tests/unit/reader/env.h"

#define SAME(row, name, expected) ck_assert_str_eq(value(a.raw, row, name), expected)

static struct pn_data json_data(const char *columns) {
    struct pn_data d = data_of(PN_FORMAT_JSONL, "/d/a.jsonl");
    snprintf(d.columns, sizeof d.columns, "%s", columns);
    return d;
}

START_TEST(a_line_of_json_gives_the_declared_columns) {
    struct fake_env f;
    fake_init(&f, 1);
    fake_put_text(&f, "/d/a.jsonl",
                  "{\"user\": \"u\\u00e9\", \"click\": 1, \"n\": 1.50, \"tags\": [\"a\", 7, null, true], \"other\": {\"x\": 1}}\n\n{\"click\": false, \"user\": null, \"n\": 12345678901234567890, \"tags\": []}\n{\"tags\":\"a|b\",\"click\":\"1\",\"n\":-0.1,\"user\":3}");
    struct pn_data d = json_data("user,n,tags");
    struct pn_reader *r = pn_reader_open(&f.env, &d, &(struct pn_reader_options){.n_producers = 1, .batch_size = 10});
    size_t n;
    ck_assert_str_eq(pn_reader_columns(r, &n)[2], "tags");
    ck_assert_uint_eq(n, 3);
    struct answer a = next(&f, r);
    ck_assert_msg(a.result == PN_OK, "%s", a.err.text);
    ck_assert_uint_eq(a.raw->n_rows, 3);
    SAME(0, "user", "u\xc3\xa9");
    SAME(0, "n", "1.50");
    SAME(0, "tags", "a|7||1");
    SAME(1, "user", "");
    SAME(1, "n", "12345678901234567890");
    SAME(1, "tags", "");
    SAME(2, "user", "3");
    SAME(2, "n", "-0.1");
    ck_assert(a.raw->labels[0] == 1 && a.raw->labels[1] == 0 && a.raw->labels[2] == 1);
    close_reader(&f, r);
    fake_free(&f);
} END_TEST

static const struct { const char *text, *found; } bad[] = {
    {"{\"u\":1,\"click\":1}\n{\"u\":1\n", "/d/a.jsonl:2: no JSON: "},
    {"[1]\n", "/d/a.jsonl:1: found no JSON object"},
    {"{\"u\":1}\n", "/d/a.jsonl:1: there is no label \"click\""},
    {"{\"u\":1,\"click\":[1]}\n", "/d/a.jsonl:1: there is no label \"click\""},
    {"{\"u\":1,\"click\":\"yes\"}\n", "/d/a.jsonl:1: the label is \"yes\", not a number"},
    {"{\"u\":{\"a\":1},\"click\":1}\n", "/d/a.jsonl:1: \"u\" is an object"},
    {"{\"u\":[[1]],\"click\":1}\n", "/d/a.jsonl:1: the list \"u\" holds something else"},
};

START_TEST(a_bad_line_of_json_is_named) {
    struct fake_env f;
    fake_init(&f, 1);
    fake_put_text(&f, "/d/a.jsonl", bad[_i].text);
    struct pn_data d = json_data("u");
    struct pn_reader *r = pn_reader_open(&f.env, &d, &(struct pn_reader_options){.n_producers = 1, .batch_size = 10});
    struct answer a = next(&f, r);
    ck_assert_int_eq(a.result, PN_INVALID);
    ck_assert_msg(strstr(a.err.text, bad[_i].found) == a.err.text, "%s", a.err.text);
    close_reader(&f, r);
    fake_free(&f);
} END_TEST

/* 300 rows in three files: plain, gzip and zstd; formats with and without a header. */
static const enum pn_format formats[] = {PN_FORMAT_CSV, PN_FORMAT_JSONL, PN_FORMAT_LIBFM, PN_FORMAT_CRITEO};
enum { ROWS = 300, BATCH = 7 };

static size_t write_rows(char *text, enum pn_format format, int from, int to) {
    size_t n = format == PN_FORMAT_CSV ? (size_t)sprintf(text, "u,click\n") : 0;
    for (int i = from; i < to; i++) {
        if (format == PN_FORMAT_CSV) n += (size_t)sprintf(text + n, "%d,%d\n", i, i % 2);
        if (format == PN_FORMAT_JSONL) n += (size_t)sprintf(text + n, "{\"u\":%d,\"click\":%d}\n", i, i % 2);
        if (format == PN_FORMAT_LIBFM) n += (size_t)sprintf(text + n, "%d %d:1\n", i % 2, i);
        if (format == PN_FORMAT_CRITEO) n += (size_t)sprintf(text + n, "%d\t%d%.38s\n", i % 2, i, "\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t");
    }
    return n;
}

static void put_files(struct fake_env *f, struct pn_data *d, enum pn_format format, bool split) {
    static char text[ROWS * 80];
    *d = data_of(format, "/d/a");
    if (format == PN_FORMAT_LIBFM || format == PN_FORMAT_JSONL) snprintf(d->columns, sizeof d->columns, "u");
    if (!split) {
        fake_put(f, "/d/a", text, write_rows(text, format, 0, ROWS));
        return;
    }
    fake_put(f, "/d/a", text, write_rows(text, format, 0, 120));
    fake_put_gz(f, "/d/b.gz", text, write_rows(text, format, 120, 121));
    fake_put_zst(f, "/d/c.zst", text, write_rows(text, format, 121, ROWS));
    snprintf(d->more[0], sizeof d->more[0], "/d/b"); /* its ending is found */
    snprintf(d->more[1], sizeof d->more[1], "/d/c.zst");
    d->n_more = 2;
}

/* All rows of a producer, as "row:label " text. */
static void drain(struct fake_env *f, const struct pn_data *d, struct pn_reader_options o, char *out) {
    struct pn_reader *r = pn_reader_open(&f->env, d, &o);
    out[0] = '\0';
    for (struct answer a; (a = next(f, r)).result != PN_NOT_FOUND;) {
        ck_assert_msg(a.result == PN_OK, "%s", a.err.text);
        for (size_t i = 0; i < a.raw->n_rows; i++)
            out += sprintf(out, "%.*s:%g ", (int)a.raw->length[i], a.raw->text + a.raw->offset[i], (double)a.raw->labels[i]);
    }
    close_reader(f, r);
}

START_TEST(files_of_a_list_are_one_data_set) {
    const enum pn_format format = formats[_i];
    static char one[ROWS * 12], list[ROWS * 12];
    for (uint32_t k = 0; k < 8; k++) {
        struct fake_env f;
        struct pn_data d;
        const struct pn_reader_options o = {.n_producers = 2, .producer = k & 1, .batch_size = BATCH, .shuffle_buffer = k & 2 ? 50 : 0, .shuffle_seed = 5, .skip_batches = k & 4 ? 11 : 0};
        fake_init(&f, 1);
        put_files(&f, &d, format, false);
        drain(&f, &d, o, one);
        fake_free(&f);
        fake_init(&f, 2 + k);
        put_files(&f, &d, format, true);
        drain(&f, &d, o, list);
        ck_assert_str_eq(one, list);
        ck_assert_uint_gt(strlen(one), 200);
        d.first_row = 118; /* ranges count over the files */
        d.n_rows = 5;
        drain(&f, &d, (struct pn_reader_options){.n_producers = 1, .batch_size = BATCH}, list);
        ck_assert_str_eq(list, "118:0 119:1 120:0 121:1 122:0 ");
        fake_free(&f);
    }
} END_TEST

START_TEST(a_bad_row_is_named_with_its_own_file_also_when_it_waited_in_the_shuffle) {
    for (uint64_t buffer = 0; buffer <= 100; buffer += 100) {
        struct fake_env f;
        fake_init(&f, 3);
        fake_put_text(&f, "/d/a", "u,click\n1,1\n");
        fake_put_text(&f, "/d/b", "u,click\n1,1\n2,no\n");
        fake_put_text(&f, "/d/c", "u,click\n1,1\n1,0\n");
        struct pn_data d = data_of(PN_FORMAT_CSV, "/d/a");
        snprintf(d.more[0], sizeof d.more[0], "/d/b");
        snprintf(d.more[1], sizeof d.more[1], "/d/c");
        d.n_more = 2;
        struct pn_reader *r = pn_reader_open(&f.env, &d, &(struct pn_reader_options){.n_producers = 1, .batch_size = 10, .shuffle_buffer = buffer});
        struct answer a = next(&f, r);
        ck_assert_int_eq(a.result, PN_INVALID);
        ck_assert_str_eq(a.err.text, "/d/b:3: the label is \"no\", not a number");
        close_reader(&f, r);
        fake_free(&f);
    }
} END_TEST

START_TEST(another_header_or_a_missing_file_in_a_list_is_named) {
    for (int k = 0; k < 2; k++) {
        struct fake_env f;
        fake_init(&f, 3);
        fake_put_text(&f, "/d/a", "u,click\n1,1\n");
        if (k == 0) fake_put_text(&f, "/d/b", "click,u\n1,1\n");
        struct pn_data d = data_of(PN_FORMAT_CSV, "/d/a");
        snprintf(d.more[0], sizeof d.more[0], "/d/b");
        d.n_more = 1;
        struct pn_reader *r = pn_reader_open(&f.env, &d, &(struct pn_reader_options){.n_producers = 1, .batch_size = 10});
        struct answer a = next(&f, r);
        ck_assert_int_eq(a.result, k == 0 ? PN_INVALID : PN_IO);
        ck_assert_msg(strstr(a.err.text, k == 0 ? "/d/b:1: the header is another than that of the list's first file: \"click,u\" and not \"u,click\"" : "/d/b: no such file") == a.err.text, "%s", a.err.text);
        close_reader(&f, r);
        fake_free(&f);
    }
} END_TEST

int main(void) {
    TCase *c = tcase_create("lists");
    tcase_add_test(c, a_line_of_json_gives_the_declared_columns);
    tcase_add_loop_test(c, a_bad_line_of_json_is_named, 0, sizeof(bad) / sizeof(bad[0]));
    tcase_add_loop_test(c, files_of_a_list_are_one_data_set, 0, sizeof(formats) / sizeof(formats[0]));
    tcase_add_test(c, a_bad_row_is_named_with_its_own_file_also_when_it_waited_in_the_shuffle);
    tcase_add_test(c, another_header_or_a_missing_file_in_a_list_is_named);
    return run_suite(c);
}
