/* libFM and LIBSVM lines, and the negatives drawn for them. */
#include "tests/unit/reader/env.h"

#define SAME(row, name, expected) ck_assert_str_eq(value(a.raw, row, name), expected)

static struct pn_data libfm(const char *path, const char *columns) {
    struct pn_data d = data_of(PN_FORMAT_LIBFM, path);
    snprintf(d.columns, sizeof d.columns, "%s", columns);
    return d;
}

static struct pn_data weighted(const char *path, const char *columns) {
    struct pn_data d = libfm(path, columns);
    d.weighted = true;
    return d;
}

START_TEST(with_columns_each_pair_is_one_and_without_they_are_one_multi_column) {
    struct fake_env f;
    fake_init(&f, 1);
    fake_put_text(&f, "/a", "1 7:1 12:1.0\n-1\t8:1 13:0 # a comment\n");
    for (int named = 0; named < 2; named++) {
        struct pn_data d = libfm("/a", named ? "user,item" : "");
        struct pn_reader *r = pn_reader_open(&f.env, &d, &(struct pn_reader_options){.n_producers = 1, .batch_size = 10});
        struct answer a = next(&f, r);
        ck_assert_msg(a.result == PN_OK, "%s", a.err.text);
        ck_assert_uint_eq(a.raw->n_rows, 2);
        ck_assert(a.raw->labels[0] == 1 && a.raw->labels[1] == 0);
        if (named) {
            SAME(0, "user", "7");
            SAME(0, "item", "12");
            SAME(1, "user", "8");
            SAME(1, "item", "");
        } else {
            SAME(0, "features", "7|12");
            SAME(1, "features", "8");
        }
        close_reader(&f, r);
    }
    fake_free(&f);
} END_TEST

static const struct { const char *text, *found; } bad[] = {
    {"1 7:1\n", "/a:1: found 1 id:value pairs, expected 2 (columns)"},
    {"1 7:1 8:1\n0 7:1 8:1 9:1\n", "/a:2: found 3 id:value pairs, expected 2 (columns)"},
    {"1 7:1 8\n", "/a:1: \"8\" is no id:value"},
    {"1 7:1 x:1\n", "/a:1: \"x:1\" is no id:value"},
    {"1 7:1 8:0.5\n", "/a:1: \"8:0.5\": a value other than 0 and 1 is read by a feature of type multi with weighted: true (column features), or from a column by id, such as 8=NAME"},
    {"1 7:1 8:nan\n", "/a:1: \"8:nan\": the value is no number"},
    {"1 7:1 8:1e39\n", "/a:1: \"8:1e39\": the value is no number"},
    {"yes 7:1 8:1\n", "/a:1: the label is \"yes\", not a number"},
};

START_TEST(a_bad_line_is_named) {
    struct fake_env f;
    fake_init(&f, 1);
    fake_put_text(&f, "/a", bad[_i].text);
    struct pn_data d = libfm("/a", "user,item");
    struct pn_reader *r = pn_reader_open(&f.env, &d, &(struct pn_reader_options){.n_producers = 1, .batch_size = 10});
    struct answer a = next(&f, r);
    ck_assert_int_eq(a.result, PN_INVALID);
    ck_assert_msg(strcmp(a.err.text, bad[_i].found) == 0, "%s", a.err.text);
    close_reader(&f, r);
    fake_free(&f);
} END_TEST

START_TEST(values_go_along_with_ids_and_are_refused_where_nobody_reads_them) {
    struct fake_env f;
    fake_init(&f, 1);
    fake_put_text(&f, "/a", "+1 7:0.5 12:1 13:-2e-3 14:0.0 15:1.0\n-1\n");
    for (int reads = 0; reads < 2; reads++) {
        struct pn_data d = reads ? weighted("/a", "") : libfm("/a", "");
        struct pn_reader *r = pn_reader_open(&f.env, &d, &(struct pn_reader_options){.n_producers = 1, .batch_size = 10});
        struct answer a = next(&f, r);
        if (reads) {
            ck_assert_msg(a.result == PN_OK, "%s", a.err.text);
            ck_assert_uint_eq(a.raw->n_rows, 2);
            SAME(0, "features", "7:0.5|12|13:-2e-3|15");
            SAME(1, "features", "");
        } else {
            ck_assert_int_eq(a.result, PN_INVALID);
            ck_assert_msg(strstr(a.err.text, "weighted: true") != NULL, "%s", a.err.text);
        }
        close_reader(&f, r);
    }
    fake_free(&f);
} END_TEST

START_TEST(a_column_by_id_is_its_value_0_where_there_is_none_and_the_rest_are_ids) {
    struct fake_env f;
    fake_init(&f, 1);
    fake_put_text(&f, "/a", "1 1:0.5 2:-7 30:0.25\n0 30:1 2:0\n1 12:3\n");
    struct pn_data d = weighted("/a", "2=height,1=age,3=none");
    struct pn_reader *r = pn_reader_open(&f.env, &d, &(struct pn_reader_options){.n_producers = 1, .batch_size = 10});
    struct answer a = next(&f, r);
    ck_assert_msg(a.result == PN_OK, "%s", a.err.text);
    ck_assert_uint_eq(a.raw->n_columns, 4);
    static const char *const wanted[3][4] = {{"-7", "0.5", "0", "30:0.25"}, {"0", "0", "0", "30"}, {"0", "0", "0", "12:3"}};
    for (size_t i = 0; i < 3; i++) {
        SAME(i, "height", wanted[i][0]);
        SAME(i, "age", wanted[i][1]);
        SAME(i, "none", wanted[i][2]);
        SAME(i, "features", wanted[i][3]);
    }
    close_reader(&f, r);
    fake_put_text(&f, "/b", "1 1:2 2:3 1:4\n");
    d = weighted("/b", "2=height,1=age");
    r = pn_reader_open(&f.env, &d, &(struct pn_reader_options){.n_producers = 1, .batch_size = 10});
    a = next(&f, r);
    ck_assert_msg(a.result == PN_INVALID && strcmp(a.err.text, "/b:1: id 1 stands twice") == 0, "%s", a.err.text);
    close_reader(&f, r);
    fake_free(&f);
} END_TEST

/* 40 users with 5 items of 60 each; the other file has 5 more of each, which must not be drawn either. */
enum { USERS = 40, ITEMS = 60, PER = 20 };
static bool seen(unsigned user, unsigned item) { return (item + user) % 6 == 0; }

static void put_positives(struct fake_env *f) {
    static char train[20000], test[20000];
    size_t n = 0, m = 0;
    for (unsigned u = 0; u < USERS; u++)
        for (unsigned i = 0; i < ITEMS; i++) {
            if (!seen(u, i)) continue;
            if (i % 2) n += (size_t)snprintf(train + n, sizeof train - n, "1 %u:1 %u:1 %u:1\n", u, 1000 + i, 2000 + u % 7);
            else m += (size_t)snprintf(test + m, sizeof test - m, "1 %u:1 %u:1 %u:1\n-1 %u:1 %u:1 5:1\n", u, 1000 + i, 2000 + u % 7, u, 1000 + (i + 1) % ITEMS);
        }
    fake_init(f, 3);
    fake_put_zst(f, "/train.zst", train, n);
    fake_put_gz(f, "/test.gz", test, m);
}

static struct pn_data with_negatives(bool redraw) {
    struct pn_data d = libfm("/train", "user,item,context");
    d.negatives.per_positive = PER;
    snprintf(d.negatives.column, sizeof d.negatives.column, "item");
    snprintf(d.negatives.group, sizeof d.negatives.group, "user");
    snprintf(d.negatives.seen[0], sizeof d.negatives.seen[0], "/test");
    snprintf(d.negatives.seen[1], sizeof d.negatives.seen[1], "/train");
    d.negatives.n_seen = 2;
    d.negatives.seed = 9;
    d.negatives.redraw = redraw;
    return d;
}

/* All rows of an epoch as "label user item context" lines, in the order given out; *n rows. */
static char *read_all(struct fake_env *f, const struct pn_data *d, uint32_t epoch, uint64_t shuffle, uint32_t batch, uint32_t producer, uint32_t n_producers, size_t *n) {
    char *text = calloc(1, 400000);
    size_t used = 0;
    *n = 0;
    struct pn_reader *r = pn_reader_open(&f->env, d, &(struct pn_reader_options){.producer = producer, .n_producers = n_producers, .batch_size = batch, .epoch = epoch,
                                                                               .shuffle_buffer = shuffle, .shuffle_seed = 4});
    for (;;) {
        struct answer a = next(f, r);
        if (a.result == PN_NOT_FOUND) break;
        ck_assert_msg(a.result == PN_OK, "%s", a.err.text);
        for (size_t i = 0; i < a.raw->n_rows; i++, ++*n) {
            char user[20], item[20], context[20];
            snprintf(user, sizeof user, "%s", value(a.raw, i, "user"));
            snprintf(item, sizeof item, "%s", value(a.raw, i, "item"));
            snprintf(context, sizeof context, "%s", value(a.raw, i, "context"));
            used += (size_t)sprintf(text + used, "%d %s %s %s\n", a.raw->labels[i] > 0, user, item, context);
        }
    }
    close_reader(f, r);
    return text;
}

START_TEST(negatives_are_unseen_items_of_the_same_user_and_context) {
    struct fake_env f;
    put_positives(&f);
    struct pn_data d = with_negatives(false);
    size_t n, positives = 0, used[ITEMS] = {0};
    char *text = read_all(&f, &d, 0, 0, 7, 0, 1, &n);
    unsigned label, user, item, context, last_user = 0, last_context = 0;
    size_t since = PER;
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        ck_assert_int_eq(sscanf(line, "%u %u %u %u", &label, &user, &item, &context), 4);
        if (label) {
            ck_assert_uint_eq(since, PER); /* each positive is followed by its negatives */
            ck_assert(seen(user, item - 1000));
            positives++;
            since = 0;
            last_user = user;
            last_context = context;
        } else {
            ck_assert(user == last_user && context == last_context && !seen(user, item - 1000));
            used[item - 1000]++;
            since++;
        }
    }
    ck_assert_uint_eq(n, positives * (1 + PER));
    for (size_t i = 0; i < ITEMS; i++) ck_assert_msg(used[i] > n / ITEMS / 4, "item %zu was drawn %zu times", i, used[i]); /* uniform, roughly */
    free(text);
    fake_free(&f);
} END_TEST

START_TEST(draws_are_the_same_each_time_and_redrawn_only_if_wanted) {
    struct fake_env f;
    put_positives(&f);
    for (int redraw = 0; redraw < 2; redraw++) {
        struct pn_data d = with_negatives(redraw);
        size_t n, m;
        char *first = read_all(&f, &d, 0, 0, 7, 0, 1, &n), *again = read_all(&f, &d, 0, 0, 100, 0, 1, &m), *later = read_all(&f, &d, 1, 0, 7, 0, 1, &m);
        ck_assert_str_eq(first, again);
        ck_assert((strcmp(first, later) == 0) == !redraw);
        free(first);
        free(again);
        free(later);
    }
    fake_free(&f);
} END_TEST

static int by_line(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }
static size_t sorted_lines(char *text, char **lines) {
    size_t n = 0;
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) lines[n++] = line;
    qsort(lines, n, sizeof *lines, by_line);
    return n;
}

START_TEST(producers_share_the_shuffled_rows_without_loss_or_repetition) {
    struct fake_env f;
    put_positives(&f);
    struct pn_data d = with_negatives(false);
    size_t n, a, b;
    char *all = read_all(&f, &d, 2, 100, 8, 0, 1, &n), *one = read_all(&f, &d, 2, 100, 8, 0, 2, &a), *two = read_all(&f, &d, 2, 100, 8, 1, 2, &b);
    ck_assert_uint_eq(a + b, n);
    char *both = calloc(1, 400000);
    sprintf(both, "%s%s", one, two);
    static char *x[20000], *y[20000];
    ck_assert_uint_eq(sorted_lines(all, x), n);
    ck_assert_uint_eq(sorted_lines(both, y), n);
    for (size_t i = 0; i < n; i++) ck_assert_str_eq(x[i], y[i]);
    free(all);
    free(one);
    free(two);
    free(both);
    fake_free(&f);
} END_TEST

START_TEST(a_user_who_has_seen_everything_is_named) {
    struct fake_env f;
    fake_init(&f, 1);
    fake_put_text(&f, "/train", "1 1:1 5:1 9:1\n1 1:1 6:1 9:1\n");
    struct pn_data d = with_negatives(false);
    d.negatives.n_seen = 1;
    snprintf(d.negatives.seen[0], sizeof d.negatives.seen[0], "/train");
    struct pn_reader *r = pn_reader_open(&f.env, &d, &(struct pn_reader_options){.n_producers = 1, .batch_size = 10});
    struct answer a = next(&f, r);
    ck_assert_int_eq(a.result, PN_INVALID);
    ck_assert_msg(strstr(a.err.text, "/train:1: no negative can be drawn") == a.err.text, "%s", a.err.text);
    close_reader(&f, r);
    fake_free(&f);
} END_TEST

int main(void) {
    TCase *c = tcase_create("libfm");
    tcase_add_test(c, with_columns_each_pair_is_one_and_without_they_are_one_multi_column);
    tcase_add_loop_test(c, a_bad_line_is_named, 0, sizeof(bad) / sizeof(bad[0]));
    tcase_add_test(c, values_go_along_with_ids_and_are_refused_where_nobody_reads_them);
    tcase_add_test(c, a_column_by_id_is_its_value_0_where_there_is_none_and_the_rest_are_ids);
    tcase_add_test(c, negatives_are_unseen_items_of_the_same_user_and_context);
    tcase_add_test(c, draws_are_the_same_each_time_and_redrawn_only_if_wanted);
    tcase_add_test(c, producers_share_the_shuffled_rows_without_loss_or_repetition);
    tcase_add_test(c, a_user_who_has_seen_everything_is_named);
    return run_suite(c);
}
