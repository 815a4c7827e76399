/* Sequences: leave one out of SASRec's and S3-Rec's files, kept negatives; MovieLens in time order. */
#include "tests/unit/reader/env.h"

#define SAME(row, name, expected) ck_assert_str_eq(value(a.raw, row, name), expected)

static const char lines[] = "1 3 4 5 6 7\n2 1 2 3\n3 8 9\n4 9\n";
static const char pairs[] = "1 3\n1 4\n1 5\n1 6\n1 7\n2 1\n2 2\n2 3\n3 8\n3 9\n4 9\n";

static struct answer read_part(struct fake_env *f, struct pn_reader **r, int format, int part, uint32_t history, uint32_t per_positive, uint32_t epoch) {
    fake_init(f, 1);
    fake_put_text(f, "/d/s.txt", format == PN_FORMAT_SASREC ? pairs : lines);
    struct pn_data d = data_of((enum pn_format)format, "/d/s.txt");
    d.part = part;
    d.history = history;
    d.negatives.per_positive = per_positive;
    d.negatives.seed = 5;
    d.negatives.redraw = epoch > 0;
    struct pn_reader_options o = whole(10);
    o.epoch = epoch;
    *r = pn_reader_open(&f->env, &d, &o);
    return next(f, *r);
}

START_TEST(a_user_is_a_row_and_its_last_two_items_are_left_out) {
    struct fake_env f;
    struct pn_reader *r;
    const int format = _i == 0 ? PN_FORMAT_SASREC : PN_FORMAT_S3REC;
    struct answer a = read_part(&f, &r, format, PN_PART_TRAIN, 10, 1, 0);
    ck_assert_msg(a.result == PN_OK, "%s", a.err.text);
    ck_assert_uint_eq(a.raw->n_rows, 2); /* users 1 and 3: two items of 2 are left out, 4 has one only */
    SAME(0, "user", "1");
    SAME(0, "history", "3|4");
    SAME(0, "target", "4|5");
    SAME(0, "seen", "");
    SAME(1, "history", "8");
    SAME(1, "target", "9");
    close_reader(&f, r);
    fake_free(&f);
    a = read_part(&f, &r, format, PN_PART_VALIDATION, 2, 0, 0);
    ck_assert_uint_eq(a.raw->n_rows, 2); /* users 1 and 2 */
    SAME(0, "history", "4|5");
    SAME(0, "target", "6");
    SAME(0, "seen", "3|4|5");
    SAME(0, "negatives", "1|2|3|4|5|6|7|8|9");
    SAME(1, "history", "1");
    SAME(1, "target", "2");
    SAME(1, "negatives", "");
    close_reader(&f, r);
    fake_free(&f);
    a = read_part(&f, &r, format, PN_PART_TEST, 10, 0, 0);
    SAME(0, "history", "3|4|5|6");
    SAME(0, "target", "7");
    SAME(1, "target", "3");
    close_reader(&f, r);
    fake_free(&f);
} END_TEST

START_TEST(tabs_and_blanks_are_the_same_wherever_they_stand) {
    static const struct { const char *text; int format; } same[] = {{lines, PN_FORMAT_S3REC}, {"1\t3\t4\t5\t6\t7\n2\t1 2\t 3\n  3 8 9 \n\t4\t9\n", PN_FORMAT_S3REC},
        {pairs, PN_FORMAT_SASREC}, {"1\t3\n1 4\n  1 5\n1\t 6\t\n\t1\t7\n 2 1\n 2 2\n2\t3\n3\t8\n3\t9\n4\t9\n", PN_FORMAT_SASREC}};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        struct fake_env f;
        fake_init(&f, 1);
        fake_put_text(&f, "/d/t.txt", same[i].text);
        struct pn_data d = data_of((enum pn_format)same[i].format, "/d/t.txt");
        d.part = PN_PART_TEST;
        d.history = 10;
        struct pn_reader_options o = whole(10);
        struct pn_reader *r = pn_reader_open(&f.env, &d, &o);
        struct answer a = next(&f, r);
        ck_assert_msg(a.result == PN_OK, "%s", a.err.text);
        ck_assert_uint_eq(a.raw->n_rows, 2);
        SAME(0, "user", "1");
        SAME(0, "history", "3|4|5|6");
        SAME(0, "target", "7");
        SAME(1, "user", "2");
        SAME(1, "history", "1|2");
        SAME(1, "target", "3");
        close_reader(&f, r);
        fake_free(&f);
    }
} END_TEST

START_TEST(negatives_are_never_the_users_own_and_kept_unless_redrawn) {
    struct fake_env f;
    struct pn_reader *r;
    char first[600], drawn[600];
    struct answer a = read_part(&f, &r, PN_FORMAT_S3REC, PN_PART_TEST, 10, 50, 0);
    snprintf(first, sizeof first, "%s", value(a.raw, 0, "negatives"));
    size_t n = 1;
    for (const char *p = first; *p; p++) {
        n += *p == '|';
        if (p == first || p[-1] == '|') ck_assert_msg(strchr("1289", *p) != NULL, "%s", p); /* user 1 has 3 to 7 */
    }
    ck_assert_uint_eq(n, 50);
    close_reader(&f, r);
    fake_free(&f);
    a = read_part(&f, &r, PN_FORMAT_SASREC, PN_PART_TEST, 10, 50, 0);
    SAME(0, "negatives", first);
    close_reader(&f, r);
    fake_free(&f);
    a = read_part(&f, &r, PN_FORMAT_S3REC, PN_PART_TEST, 10, 50, 1);
    snprintf(drawn, sizeof drawn, "%s", value(a.raw, 0, "negatives"));
    ck_assert_str_ne(drawn, first);
    close_reader(&f, r);
    fake_free(&f);
    a = read_part(&f, &r, PN_FORMAT_S3REC, PN_PART_TRAIN, 10, 3, 0); /* three for each of two places */
    n = 1;
    for (const char *p = value(a.raw, 0, "negatives"); *p; p++) n += *p == '|';
    ck_assert_uint_eq(n, 6);
    close_reader(&f, r);
    fake_free(&f);
} END_TEST

START_TEST(what_is_no_id_is_named_by_its_line) {
    static const struct { const char *text, *words; int format; } bad[] = {
        {"1 2\n1 x\n", "/d/b.txt:2: \"x\" is no id", PN_FORMAT_SASREC}, {"1 2 3\n2 0\n", "/d/b.txt:2:", PN_FORMAT_S3REC}, {"1\n", "no item behind the user", PN_FORMAT_S3REC},
        {"1 2-3\n", "is no id", PN_FORMAT_SASREC}, {"1 2\n1 3 978300760\n", "/d/b.txt:2: found 3 numbers, expected a user and an item", PN_FORMAT_SASREC}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct fake_env f;
        fake_init(&f, 1);
        fake_put_text(&f, "/d/b.txt", bad[i].text);
        struct pn_data d = data_of((enum pn_format)bad[i].format, "/d/b.txt");
        d.part = PN_PART_TRAIN;
        d.history = 5;
        struct pn_reader_options o = whole(10);
        struct pn_reader *r = pn_reader_open(&f.env, &d, &o);
        struct answer a = next(&f, r);
        ck_assert_int_eq(a.result, PN_INVALID);
        ck_assert_msg(strstr(a.err.text, bad[i].words) != NULL, "%s", a.err.text);
        close_reader(&f, r);
        fake_free(&f);
    }
} END_TEST

/* Twenty ratings by two users, one a second, the file in falling time; the last two of a second together. */
static void put_ratings(struct fake_env *f) {
    char text[1000];
    size_t n = 0;
    fake_init(f, 1);
    fake_put_text(f, "/ml/u.user", "1|24|M|technician|85711\n2|53|F|other|94043\n");
    char items[3000];
    size_t m = 0;
    for (int i = 1; i <= 20; i++) m += (size_t)snprintf(items + m, sizeof items - m, "%d|T|01-Jan-1995|||0|1|0|0|1|0|0|0|0|0|0|0|0|0|0|0|0|0|0\n", i);
    fake_put_text(f, "/ml/u.item", items);
    for (int i = 20; i >= 1; i--) n += (size_t)snprintf(text + n, sizeof text - n, "%d\t%d\t%d\t%d\n", 1 + i % 2, i, 1 + i % 5, i == 20 ? 118 : 100 + i);
    fake_put_text(f, "/ml/u.data", text);
}

START_TEST(a_split_by_time_and_histories_of_before_the_moment) {
    static const struct { int part; uint32_t n; } parts[] = {{PN_PART_TRAIN, 16}, {PN_PART_VALIDATION, 2}, {PN_PART_TEST, 2}, {PN_PART_ALL, 20}};
    for (size_t i = 0; i < 4; i++) {
        struct fake_env f;
        put_ratings(&f);
        struct pn_data d = data_of(PN_FORMAT_MOVIELENS, "/ml");
        snprintf(d.split, sizeof d.split, "time");
        d.part = parts[i].part;
        d.threshold = 4;
        d.history = 3;
        struct pn_reader_options o = whole(100);
        struct pn_reader *r = pn_reader_open(&f.env, &d, &o);
        struct answer a = next(&f, r);
        ck_assert_msg(a.result == PN_OK, "%s", a.err.text);
        ck_assert_uint_eq(a.raw->n_rows, parts[i].n);
        for (size_t row = 0; row < a.raw->n_rows; row++) {
            const int item = atoi(value(a.raw, row, "item"));
            if (item == 1) SAME(row, "history", "");
            if (item == 7) SAME(row, "history", "1|3|5");
            if (item == 7) SAME(row, "history_rating", "2|4|1");
            if (item == 19) SAME(row, "history", "13|15|17");
            if (item == 18 || item == 20) SAME(row, "history", "12|14|16"); /* of one second: neither knows of the other */
            if (parts[i].part == PN_PART_TRAIN) ck_assert_int_le(item, 16);
            if (parts[i].part == PN_PART_TEST) ck_assert(item == 19 || item == 18);
        }
        close_reader(&f, r);
        fake_free(&f);
    }
} END_TEST

int main(void) {
    TCase *c = tcase_create("sequences");
    tcase_add_loop_test(c, a_user_is_a_row_and_its_last_two_items_are_left_out, 0, 2);
    tcase_add_test(c, tabs_and_blanks_are_the_same_wherever_they_stand);
    tcase_add_test(c, negatives_are_never_the_users_own_and_kept_unless_redrawn);
    tcase_add_test(c, what_is_no_id_is_named_by_its_line);
    tcase_add_test(c, a_split_by_time_and_histories_of_before_the_moment);
    return run_suite(c);
}
