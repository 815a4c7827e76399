/* What rows come out of which text, and what is said of bad text. */
#include "tests/unit/reader/env.h"

#define SAME(row, name, expected) ck_assert_str_eq(value(a.raw, row, name), expected)

static struct answer read_csv(struct fake_env *f, struct pn_reader **r, const char *text) {
    fake_init(f, 1);
    fake_put_text(f, "/d/a.csv", text);
    struct pn_data d = data_of(PN_FORMAT_CSV, "/d/a.csv");
    *r = pn_reader_open(&f->env, &d, &(struct pn_reader_options){.n_producers = 1, .batch_size = 10});
    return next(f, *r);
}

START_TEST(csv_rows_come_by_column_without_the_label) {
    struct fake_env f;
    struct pn_reader *r;
    struct answer a = read_csv(&f, &r, "id,click,city\r\n7,1,Bern\r\n\r\n8,0,\r\n9,0.5,Bonn");
    ck_assert_msg(a.result == PN_OK, "%s", a.err.text);
    ck_assert_uint_eq(a.raw->n_rows, 3);
    ck_assert_uint_eq(a.raw->n_columns, 2);
    SAME(0, "id", "7");
    SAME(0, "city", "Bern");
    SAME(1, "city", "");
    SAME(2, "city", "Bonn");
    ck_assert(a.raw->labels[0] == 1 && a.raw->labels[1] == 0 && a.raw->labels[2] == 1);
    size_t n;
    const char *const *names = pn_reader_columns(r, &n);
    ck_assert_uint_eq(n, 2);
    ck_assert_str_eq(names[1], "city");
    ck_assert_int_eq(next(&f, r).result, PN_NOT_FOUND);
    ck_assert_int_eq(next(&f, r).result, PN_NOT_FOUND);
    close_reader(&f, r);
    fake_free(&f);
} END_TEST

START_TEST(csv_quotes_hold_separators_quotes_and_line_ends) {
    struct fake_env f;
    struct pn_reader *r;
    struct answer a = read_csv(&f, &r, "\xef\xbb\xbf\"na\"\"me\",click,b\n\"x, y\",1,\"a\nb\"\n5\" disk,0,\"\"\"q\"\"\"\n\"\",1,\n");
    ck_assert_msg(a.result == PN_OK, "%s", a.err.text);
    ck_assert_uint_eq(a.raw->n_rows, 3);
    SAME(0, "na\"me", "x, y");
    SAME(0, "b", "a\nb");
    SAME(1, "na\"me", "5\" disk");
    SAME(1, "b", "\"q\"");
    SAME(2, "na\"me", "");
    close_reader(&f, r);
    fake_free(&f);
} END_TEST

START_TEST(a_header_with_tabs_makes_tabs_the_separator) {
    struct fake_env f;
    struct pn_reader *r;
    struct answer a = read_csv(&f, &r, "user\tclick\tcountry\n3\t1\tA, B\n");
    ck_assert_int_eq(a.result, PN_OK);
    SAME(0, "country", "A, B");
    close_reader(&f, r);
    fake_free(&f);
} END_TEST

static const struct { const char *text, *found; } bad[] = {
    {"a,click\n1,1\n2,0,3\n", "/d/a.csv:3: found 3 columns, expected 2"},
    {"a,click\n1,1\n2\n", "/d/a.csv:3: found 1 columns, expected 2"},
    {"a,click\n\"1\n2\",1\n2\n", "/d/a.csv:4: found 1 columns, expected 2"},
    {"a,click\n1,yes\n", "/d/a.csv:2: the label is \"yes\", not a number"},
    {"a,click\n1,\n", "/d/a.csv:2: the label is \"\", not a number"},
    {"a,click\n1,nan\n", "/d/a.csv:2: the label is \"nan\", not a number"},
    {"a,clicked\n1,1\n", "/d/a.csv:1: no column is named \"click\" (the label); the header has a, clicked"},
    {"", "/d/a.csv:1: the file is empty; expected a line with the names of the columns"},
    {"click\n1\n", "/d/a.csv:1: found 1 columns in the header line"},
    {"a,click\n\"b\"c,1\n", "/d/a.csv:2: column 1: text behind a closing quote"},
    {"a,click\n1,0\n\"b,1\n2,1\n", "/d/a.csv:3: a quote is not closed before the end of the file"},
};

START_TEST(a_bad_row_is_named_by_file_line_found_and_expected) {
    struct fake_env f;
    struct pn_reader *r;
    struct answer a = read_csv(&f, &r, bad[_i].text);
    ck_assert_int_eq(a.result, PN_INVALID);
    ck_assert_msg(strstr(a.err.text, bad[_i].found) == a.err.text, "%s", a.err.text);
    struct answer again = next(&f, r); /* it stays so */
    ck_assert_int_eq(again.result, PN_INVALID);
    ck_assert_str_eq(again.err.text, a.err.text);
    close_reader(&f, r);
    fake_free(&f);
} END_TEST

START_TEST(criteo_lines_have_forty_columns_and_empty_ones_are_missing) {
    struct fake_env f;
    fake_init(&f, 1);
    fake_put_text(&f, "/c.txt", "0\t1\t\t5\t0\t1382\t4\t15\t2\t181\t1\t2\t\t2\ta\tb\t\td\te\tf\tg\th\ti\tj\tk\tl\tm\tn\to\tp\tq\tr\ts\tt\tu\tv\tw\tx\ty\tz\n"
                                "1\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\n1\t2\t3\n");
    struct pn_data d = data_of(PN_FORMAT_CRITEO, "/c.txt");
    struct pn_reader *r = pn_reader_open(&f.env, &d, &(struct pn_reader_options){.n_producers = 1, .batch_size = 2});
    size_t n;
    ck_assert_ptr_nonnull(pn_reader_columns(r, &n));
    ck_assert_uint_eq(n, 39);
    struct answer a = next(&f, r);
    ck_assert_msg(a.result == PN_OK, "%s", a.err.text);
    ck_assert(a.raw->labels[0] == 0 && a.raw->labels[1] == 1);
    SAME(0, "I1", "1");
    SAME(0, "I2", "");
    SAME(0, "I13", "2");
    SAME(0, "C1", "a");
    SAME(0, "C26", "z");
    for (size_t c = 0; c < 39; c++) ck_assert_uint_eq(a.raw->length[2 * c + 1], 0);
    a = next(&f, r);
    ck_assert_int_eq(a.result, PN_INVALID);
    ck_assert_str_eq(a.err.text, "/c.txt:3: found 3 columns, expected 40 separated by tabs (label, I1..I13, C1..C26)");
    close_reader(&f, r);
    fake_free(&f);
} END_TEST

static void put_movielens(struct fake_env *f) {
    fake_init(f, 2);
    fake_put_text(f, "/ml/u.user", "1|24|M|technician|85711\n3|23|F|writer|E8N\n");
    static const char items[] = "5|Les Mis\xe9rables (1995)|01-Jan-1995||http://x|0|1|0|0|1|0|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
                                "6|unknown||||1|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0\n";
    fake_put_zst(f, "/ml/u.item.zst", items, sizeof(items) - 1);
    fake_put_text(f, "/ml/u.data", "1\t5\t4\t881250949\n3\t6\t3\t0\n3\t5\t1\t86399\n1\t6\t5\t259200\n");
    static const char test[] = "3\t5\t1\t86399\n";
    fake_put_gz(f, "/ml/u1.test.gz", test, sizeof(test) - 1);
}
static struct pn_data movielens(int part) {
    struct pn_data d = data_of(PN_FORMAT_MOVIELENS, "/ml");
    snprintf(d.split, sizeof(d.split), "u1");
    d.part = part;
    d.threshold = 4;
    return d;
}

START_TEST(a_rating_carries_its_user_its_film_and_its_hour) {
    struct fake_env f;
    put_movielens(&f);
    struct pn_data d = movielens(PN_PART_ALL);
    struct pn_reader *r = pn_reader_open(&f.env, &d, &(struct pn_reader_options){.n_producers = 1, .batch_size = 10});
    struct answer a = next(&f, r);
    ck_assert_msg(a.result == PN_OK, "%s", a.err.text);
    ck_assert_uint_eq(a.raw->n_rows, 4);
    SAME(0, "user", "1");
    SAME(0, "item", "5");
    SAME(0, "age", "24");
    SAME(0, "gender", "M");
    SAME(0, "occupation", "technician");
    SAME(0, "zip", "85");
    SAME(0, "genres", "Action|Children's");
    SAME(0, "decade", "1990");
    SAME(0, "title", "Les Mis\xc3\xa9rables (1995)");
    SAME(0, "hour", "15"); /* Thu 4 Dec 1997 15:55:49 UTC */
    SAME(0, "weekday", "3");
    SAME(1, "decade", "");
    SAME(1, "genres", "unknown");
    SAME(1, "zip", "E8");
    SAME(1, "hour", "0");
    SAME(2, "hour", "23");
    SAME(2, "weekday", "3");
    SAME(3, "weekday", "6"); /* Sunday 4 Jan 1970 */
    ck_assert(a.raw->labels[0] == 1 && a.raw->labels[1] == 0 && a.raw->labels[2] == 0 && a.raw->labels[3] == 1);
    close_reader(&f, r);
    fake_free(&f);
} END_TEST

START_TEST(train_is_the_data_without_the_test_file_and_test_is_the_test_file) {
    for (int part = PN_PART_TRAIN; part <= PN_PART_TEST; part++) {
        struct fake_env f;
        put_movielens(&f);
        struct pn_data d = movielens(part);
        struct pn_reader *r = pn_reader_open(&f.env, &d, &(struct pn_reader_options){.n_producers = 1, .batch_size = 10});
        struct answer a = next(&f, r);
        ck_assert_msg(a.result == PN_OK, "%s", a.err.text);
        ck_assert_uint_eq(a.raw->n_rows, part == PN_PART_TRAIN ? 3 : 1);
        for (size_t i = 0; i < a.raw->n_rows; i++)
            ck_assert_int_eq(strcmp(value(a.raw, i, "user"), "3") == 0 && strcmp(value(a.raw, i, "item"), "5") == 0, part == PN_PART_TEST);
        close_reader(&f, r);
        fake_free(&f);
    }
} END_TEST

START_TEST(a_rating_of_somebody_unknown_is_refused) {
    struct fake_env f;
    fake_init(&f, 1);
    fake_put_text(&f, "/ml/u.user", "1|24|M|technician|85711\n");
    fake_put_text(&f, "/ml/u.item", "5|T|01-Jan-1995|||0|1|0|0|1|0|0|0|0|0|0|0|0|0|0|0|0|0|0\n");
    fake_put_text(&f, "/ml/u.data", "1\t5\t4\t881250949\n2\t5\t3\t0\n");
    struct pn_data d = movielens(PN_PART_ALL);
    struct pn_reader *r = pn_reader_open(&f.env, &d, &(struct pn_reader_options){.n_producers = 1, .batch_size = 10});
    struct answer a = next(&f, r);
    ck_assert_int_eq(a.result, PN_INVALID);
    ck_assert_str_eq(a.err.text, "/ml/u.data:2: user 2 is not in u.user");
    close_reader(&f, r);
    fake_free(&f);
} END_TEST

int main(void) {
    TCase *c = tcase_create("formats");
    tcase_add_test(c, csv_rows_come_by_column_without_the_label);
    tcase_add_test(c, csv_quotes_hold_separators_quotes_and_line_ends);
    tcase_add_test(c, a_header_with_tabs_makes_tabs_the_separator);
    tcase_add_loop_test(c, a_bad_row_is_named_by_file_line_found_and_expected, 0, sizeof(bad) / sizeof(bad[0]));
    tcase_add_test(c, criteo_lines_have_forty_columns_and_empty_ones_are_missing);
    tcase_add_test(c, a_rating_carries_its_user_its_film_and_its_hour);
    tcase_add_test(c, train_is_the_data_without_the_test_file_and_test_is_the_test_file);
    tcase_add_test(c, a_rating_of_somebody_unknown_is_refused);
    return run_suite(c);
}
