/* Vocabularies: counted, as text, read, and as keys of a batch. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/hash.h"
#include "nn/model.h"
#include "nn/vocabulary.h"

static char *text_of(const struct pn_counts *c, uint64_t min_count, uint32_t max_size, size_t *n) {
    char *text;
    size_t n_bytes;
    ck_assert_int_eq(pn_counts_text(c, min_count, max_size, &text, &n_bytes, n), PN_OK);
    ck_assert_uint_eq(strlen(text), n_bytes);
    return text;
}

static void add(struct pn_counts *c, const char *value) { ck_assert_int_eq(pn_counts_add(c, value, strlen(value)), PN_OK); }

START_TEST(values_stand_by_count_then_by_their_bytes) {
    struct pn_counts *c = pn_counts_open();
    static const char *const values[] = {"b", "a", "c", "ab", "c", "b", "a", "c", "d", "", "x\ny", "x\r"};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) add(c, values[i]);
    size_t n;
    char *text = text_of(c, 1, 100, &n);
    ck_assert_str_eq(text, "c\na\nb\nab\nd\n"); /* neither a missing value nor one that breaks a line */
    free(text);
    text = text_of(c, 2, 100, &n);
    ck_assert_str_eq(text, "c\na\nb\n");
    free(text);
    text = text_of(c, 1, 2, &n);
    ck_assert_str_eq(text, "c\na\n");
    ck_assert_uint_eq(n, 2);
    free(text);
    text = text_of(c, 4, 100, &n);
    ck_assert_str_eq(text, "");
    ck_assert_uint_eq(n, 0);
    free(text);
    pn_counts_close(c);
} END_TEST

/* The same rows in file order, and dealt to some shards that are counted one after the other: batches in other orders, too. */
START_TEST(a_vocabulary_does_not_depend_on_order_and_division_of_the_rows) {
    enum { ROWS = 6000 };
    static char rows[ROWS][12];
    struct pn_rng rng = {3};
    for (int round = 0; round < 20; round++) {
        const double kinds = 2 + (double)(pn_rng_next(&rng) % 3000);
        const uint64_t min_count = 1 + pn_rng_next(&rng) % 4, shards = 1 + pn_rng_next(&rng) % 7;
        const uint32_t most = 1 + (uint32_t)(pn_rng_next(&rng) % 2000);
        struct pn_counts *whole = pn_counts_open(), *dealt = pn_counts_open();
        for (int i = 0; i < ROWS; i++) {
            const double u = pn_rng_uniform(&rng);
            snprintf(rows[i], sizeof rows[i], "v%d", (int)(u * u * kinds)); /* some are frequent */
            add(whole, rows[i]);
        }
        for (uint64_t s = shards; s-- > 0;)
            for (int i = ROWS; i-- > 0;)
                if ((uint64_t)(i / 64) % shards == s) add(dealt, rows[i]);
        size_t n, m;
        char *a = text_of(whole, min_count, most, &n), *b = text_of(dealt, min_count, most, &m);
        ck_assert_str_eq(a, b);
        ck_assert_uint_eq(n, m);
        ck_assert_uint_le(n, most);
        /* what it says is so: every value in it came min_count times, and nothing more frequent was left out */
        struct pn_vocabulary *v = NULL;
        struct pn_error err = {""};
        if (n > 0) ck_assert_msg(pn_vocabulary_read(&v, a, strlen(a), 7, &err) == PN_OK, "%s", err.text);
        uint64_t least = UINT64_MAX, left_out = 0;
        for (int i = 0; i < ROWS; i += 97) {
            uint64_t count = 0;
            for (int k = 0; k < ROWS; k++) count += strcmp(rows[k], rows[i]) == 0;
            if (v != NULL && pn_vocabulary_has(v, pn_hash(rows[i], strlen(rows[i]), 7))) least = count < least ? count : least;
            else if (count >= min_count && count > left_out) left_out = count;
        }
        ck_assert_uint_ge(least, min_count);
        ck_assert_uint_ge(least, left_out);
        pn_vocabulary_close(v);
        free(a);
        free(b);
        pn_counts_close(whole);
        pn_counts_close(dealt);
    }
} END_TEST

START_TEST(a_text_that_is_no_vocabulary_is_refused_with_its_line) {
    static const struct { const char *text, *says; } bad[] = {
        {"", "empty"}, {"a\n\nb\n", "line 2 is empty"}, {"a\nb\na\n", "line 3: \"a\" stands twice"}, {"\n", "line 1 is empty"}, {"a\r\nb\r\na\r\n", "line 3"}, {"a\n\r\n", "line 2 is empty"}};
    struct pn_vocabulary *v;
    struct pn_error err;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        err.text[0] = '\0';
        ck_assert_int_eq(pn_vocabulary_read(&v, bad[i].text, strlen(bad[i].text), 1, &err), PN_INVALID);
        ck_assert_msg(strstr(err.text, bad[i].says) != NULL, "%s", err.text);
        ck_assert_ptr_null(v);
    }
    char *large = malloc(2 * (PN_VOCABULARY_MOST + 1) + 1);
    for (size_t i = 0; i <= PN_VOCABULARY_MOST; i++) memcpy(large + 2 * i, "a\n", 2);
    ck_assert_int_eq(pn_vocabulary_read(&v, large, 2 * (PN_VOCABULARY_MOST + 1), 1, &err), PN_INVALID);
    ck_assert_msg(strstr(err.text, "at most 16777216 values") != NULL, "%s", err.text);
    free(large);
    ck_assert_int_eq(pn_vocabulary_read(&v, "one\r\nlast", 9, 1, &err), PN_OK); /* line ends of either kind, none at the end */
    ck_assert_uint_eq(pn_vocabulary_size(v), 2);
    ck_assert(pn_vocabulary_has(v, pn_hash("one", 3, 1)) && pn_vocabulary_has(v, pn_hash("last", 4, 1)) && !pn_vocabulary_has(v, pn_hash("one\r", 4, 1)) && !pn_vocabulary_has(v, 0));
    pn_vocabulary_close(v);
} END_TEST

#define HEAD "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data: {train: {format: csv, uri: /x, label: y}}\n  features:\n"
static struct pn_job job;
static const char *const names[] = {"a", "n"};
static const char text[] = "redredbluegreen1234567";
/* a: red red blue green "" ; n: 1 2 3 "" 7 */
static const uint32_t offset[] = {0, 3, 6, 10, 0, 15, 16, 17, 0, 21}, length[] = {3, 3, 4, 5, 0, 1, 1, 1, 0, 1};
static const struct pn_raw raw = {.n_rows = 5, .n_columns = 2, .names = names, .text = text, .offset = offset, .length = length};

static struct pn_features *open_job(const char *features) {
    char yaml[2000];
    struct pn_error err = {""};
    struct pn_features *f;
    snprintf(yaml, sizeof yaml, HEAD "%s  model: {name: lr}\n", features);
    ck_assert_msg(pn_job_parse(&job, yaml, strlen(yaml), "job", NULL, NULL, &err) == PN_OK, "%s", err.text);
    ck_assert_int_eq(pn_features_open(&f, &job, names, 2, &err), PN_OK);
    return f;
}

static void keys_of(struct pn_features *f, uint64_t keys[5]) {
    struct pn_batch b;
    uint64_t n_bad = 0;
    ck_assert_int_eq(pn_features_batch(f, &raw, &b, &n_bad), PN_OK);
    memcpy(keys, b.keys, 5 * sizeof *keys);
    pn_batch_free(&b);
}

START_TEST(values_of_the_vocabulary_keep_their_keys_and_the_others_share) {
    uint64_t plain[5], keys[5], many[5];
    struct pn_vocabularies v;
    struct pn_error err = {""};
    struct pn_features *f = open_job("    - {name: a, type: categorical}\n");
    keys_of(f, plain);
    pn_features_close(f);
    pn_job_free(&job);

    f = open_job("    - {name: a, type: categorical, vocabulary: {values: [red, purple]}}\n");
    struct pn_batch b;
    uint64_t n_bad = 0;
    ck_assert_int_eq(pn_features_batch(f, &raw, &b, &n_bad), PN_INVALID); /* not before it has its vocabulary */
    ck_assert_int_eq(pn_vocabularies_open(&v, &job, &err), PN_OK);
    pn_features_use(f, &v);
    keys_of(f, keys);
    ck_assert(keys[0] == plain[0] && keys[1] == plain[1] && keys[4] == plain[4]);
    ck_assert(keys[2] == keys[3] && keys[2] != plain[2] && keys[2] != keys[0] && keys[2] != keys[4]);
    pn_features_close(f);
    pn_vocabularies_close(&v);
    pn_job_free(&job);

    f = open_job("    - {name: a, type: categorical, vocabulary: {values: [red], oov: 1000}}\n");
    ck_assert_int_eq(pn_vocabularies_open(&v, &job, &err), PN_OK);
    pn_features_use(f, &v);
    keys_of(f, many);
    ck_assert(many[0] == plain[0] && many[2] != many[3] && many[2] != plain[2]);
    pn_features_close(f);
    pn_vocabularies_close(&v);
    pn_job_free(&job);
} END_TEST

START_TEST(what_was_counted_comes_back_from_text_and_statistics) {
    uint64_t keys[5], plain[5];
    size_t n_bytes;
    char name[64];
    struct pn_error err = {""};
    struct pn_features *f = open_job("    - {name: a, type: categorical}\n");
    keys_of(f, plain);
    pn_features_close(f);
    pn_job_free(&job);
    f = open_job("    - {name: a, type: categorical, vocabulary: {minCount: 2}}\n    - {name: n, type: numeric, bucketize: {quantiles: 4}}\n");
    ck_assert(pn_features_need_statistics(f) && pn_job_prepares(&job));
    pn_features_observe(f, &raw);
    ck_assert(pn_features_want_rows(f));
    ck_assert_msg(pn_features_train(f, &err) == PN_OK, "%s", err.text);
    pn_features_freeze(f);
    const char *made = pn_features_file(f, 0, &n_bytes, name);
    ck_assert_str_eq(made, "red\n");
    ck_assert_ptr_nonnull(strstr(name, ".vocabulary"));
    char *statistics = pn_features_statistics(f);
    ck_assert_msg(strstr(statistics, name) != NULL && strstr(statistics, "\"boundaries\":[") != NULL, "%s", statistics);
    struct pn_vocabularies v = {0};
    ck_assert_int_eq(pn_vocabulary_read(&v.of[0], made, n_bytes, job.fields[0].hash_seed, &err), PN_OK);
    struct pn_features *g;
    ck_assert_int_eq(pn_features_open(&g, &job, names, 2, &err), PN_OK);
    ck_assert_msg(pn_features_set_statistics(g, statistics, &err) == PN_OK, "%s", err.text);
    pn_features_use(g, &v);
    keys_of(g, keys);
    ck_assert(keys[0] == plain[0] && keys[2] == keys[3] && keys[2] != plain[2]);
    /* four parts of 1 2 3 7: each its own */
    struct pn_batch b;
    uint64_t n_bad = 0;
    ck_assert_int_eq(pn_features_batch(g, &raw, &b, &n_bad), PN_OK);
    for (size_t i = 5; i < 10; i++)
        for (size_t k = i + 1; k < 10; k++) ck_assert_uint_ne(b.keys[i], b.keys[k]);
    pn_batch_free(&b);
    static const char *const bad[] = {"{}", "{\"n\":{\"boundaries\":[2,1]}}", "{\"n\":{\"boundaries\":[1,2,3,4]}}", "{\"n\":{\"boundaries\":7}}", "{\"n\":{\"boundaries\":[\"x\"]}}", "[]", "{\"n\":3}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) ck_assert_int_eq(pn_features_set_statistics(g, bad[i], &err), PN_INVALID);
    free(statistics);
    pn_features_close(f);
    pn_features_close(g);
    pn_vocabularies_close(&v);
    pn_job_free(&job);
} END_TEST

START_TEST(a_column_without_values_is_said_so) {
    static const uint32_t none[10] = {0};
    const struct pn_raw empty = {.n_rows = 5, .n_columns = 2, .names = names, .text = text, .offset = offset, .length = none};
    static const struct { const char *features, *says; } bad[] = {
        {"    - {name: c, column: a, type: categorical, vocabulary: {minCount: 1}}\n", "no value of column \"a\" came 1 times in the 5 rows"},
        {"    - {name: q, column: n, type: numeric, bucketize: {quantiles: 3}}\n", "there is no number in column \"n\" of the 5 rows"}};
    for (size_t i = 0; i < 2; i++) {
        struct pn_error err = {""};
        struct pn_features *f = open_job(bad[i].features);
        pn_features_observe(f, &empty);
        ck_assert_int_eq(pn_features_train(f, &err), PN_INVALID);
        ck_assert_msg(strstr(err.text, bad[i].says) != NULL, "%s", err.text);
        pn_features_close(f);
        pn_job_free(&job);
    }
} END_TEST

START_TEST(a_pass_ends_with_the_rows_that_the_features_ask_for) {
    struct pn_features *f = open_job("    - {name: a, type: categorical, vocabulary: {rows: 7}}\n    - {name: n, type: numeric, bucketize: {quantiles: 2, rows: 3}}\n");
    struct pn_error err = {""};
    size_t n_bytes;
    char name[64];
    pn_features_observe(f, &raw);
    ck_assert(pn_features_want_rows(f));
    pn_features_observe(f, &raw); /* of these two rows more: red, red */
    ck_assert(!pn_features_want_rows(f));
    ck_assert_msg(pn_features_train(f, &err) == PN_OK, "%s", err.text);
    ck_assert_str_eq(pn_features_file(f, 0, &n_bytes, name), "red\nblue\ngreen\n");
    char *statistics = pn_features_statistics(f);
    ck_assert_msg(strstr(statistics, "\"boundaries\":[3]") != NULL, "%s", statistics); /* of 1 2 3: half or more lie below 3 */
    free(statistics);
    pn_features_close(f);
    pn_job_free(&job);
} END_TEST

int main(void) {
    Suite *s = suite_create("vocabulary");
    TCase *t = tcase_create("values");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, values_stand_by_count_then_by_their_bytes);
    tcase_add_test(t, a_vocabulary_does_not_depend_on_order_and_division_of_the_rows);
    tcase_add_test(t, a_text_that_is_no_vocabulary_is_refused_with_its_line);
    tcase_add_test(t, values_of_the_vocabulary_keep_their_keys_and_the_others_share);
    tcase_add_test(t, what_was_counted_comes_back_from_text_and_statistics);
    tcase_add_test(t, a_column_without_values_is_said_so);
    tcase_add_test(t, a_pass_ends_with_the_rows_that_the_features_ask_for);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    const int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed > 0;
}
