/* A data holder's votes, against the naive way: of each unit the set of buckets that its rows are in. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/hash.h"
#include "secure/noise.h"
#include "worker/private.h"
#include "worker/votes.h"

enum { USERS = 40, EXAMPLES = 300, BUCKETS = 48 };
static struct pn_job job;
static struct pn_secure_rows rows;
static struct pn_private *pool;
static char u[EXAMPLES][8], v[EXAMPLES][8];

/* Example e is user e mod USERS's; a user's examples have rows in common, and two rows may have one bucket. */
static void open_pool(bool by_user) {
    static const char *const names[] = {"u", "v"};
    static const char text[] =
        "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data: {train: {format: csv, uri: /x, label: y}}\n"
        "  features: [{name: u, type: categorical, buckets: 60}, {name: v, type: categorical, table: other, buckets: 9}]\n  model: {name: lr}\n"
        "  training: {batchSize: 10, dataShards: 5, consistency: {mode: sync}}\n"
        "  privacy: {rows: 2000, epsilon: 4, delta: 1.0e-5, dataset: d, aggregation: secure, minWorkers: 3, selection: fest, threshold: 9, voteClip: 1.5, voteBuckets: 48}\n";
    struct pn_error err = {""};
    struct pn_features *features;
    ck_assert_msg(pn_job_parse(&job, text, strlen(text), "t", NULL, NULL, &err) == PN_OK, "%s", err.text);
    ck_assert_msg(pn_secure_rows_open(&rows, &job, 10, &err) == PN_OK, "%s", err.text);
    ck_assert_int_eq(pn_features_open(&features, &job, names, 2, &err), PN_OK);
    const struct pn_private_spec spec = {.rows = 400, .batch = 10, .per_unit = 3, .by_user = by_user, .clip = 1, .noise = 1, .selection = PN_SELECT_FEST, .once = {1.5, 1, 9}};
    pool = pn_private_open(&job, &spec);
    for (size_t begin = 0; begin < EXAMPLES; begin += 64) {
        const size_t m = EXAMPLES - begin < 64 ? EXAMPLES - begin : 64;
        char cells[2000];
        uint32_t offset[128], length[128];
        float labels[64] = {0};
        size_t at = 0;
        for (size_t c = 0; c < 2; c++)
            for (size_t i = 0; i < m; i++) {
                char *text_of = c == 0 ? u[begin + i] : v[begin + i];
                snprintf(text_of, 8, "%zu", c == 0 ? (begin + i) * (begin + i) % 61 : (begin + i) % 7);
                offset[c * m + i] = (uint32_t)at;
                length[c * m + i] = (uint32_t)strlen(text_of);
                at += (size_t)sprintf(cells + at, "%s", text_of);
            }
        const struct pn_raw raw = {m, 2, names, cells, offset, length, labels, NULL, labels};
        struct pn_batch b;
        uint64_t n_bad = 0;
        ck_assert_int_eq(pn_features_batch(features, &raw, &b, &n_bad), PN_OK);
        if (by_user) {
            b.user = malloc(m * sizeof *b.user);
            for (size_t i = 0; i < m; i++) b.user[i] = pn_mix64((begin + i) % USERS);
        }
        ck_assert(pn_private_add(pool, &b));
    }
    ck_assert(pn_private_seal(pool));
    pn_features_close(features);
}
static void close_pool(void) {
    pn_private_close(pool);
    pn_secure_rows_close(&rows);
    pn_job_free(&job);
}

static uint32_t bucket_of(size_t field, const char *value) {
    uint64_t key;
    ck_assert(pn_field_value_key(&job.fields[field], value, strlen(value), &key));
    const uint32_t t = job.fields[field].i_table;
    return rows.bucket[t][pn_secure_row(&rows, t, key)];
}

struct all { struct pn_votes votes; size_t n_units; };
static enum pn_result visit(void *owner, const struct pn_batch *part, size_t e, bool last) {
    struct all *a = owner;
    const enum pn_result r = pn_votes_example(&a->votes, part, e, NULL);
    if (last) {
        pn_votes_unit(&a->votes);
        a->n_units++;
    }
    return r;
}

static void check_all(bool by_user) {
    open_pool(by_user);
    struct all a = {.n_units = 0};
    ck_assert_int_eq(pn_votes_open(&a.votes, &job, &rows), PN_OK);
    ck_assert_int_eq(pn_private_visit(pool, visit, &a), PN_OK);
    const size_t n_units = by_user ? USERS : EXAMPLES;
    ck_assert_uint_eq(a.n_units, n_units);
    double naive[BUCKETS] = {0}, most = 0;
    for (size_t unit = 0; unit < n_units; unit++) {
        bool in[BUCKETS] = {false};
        size_t m = 0;
        for (size_t e = unit; e < EXAMPLES; e += by_user ? USERS : EXAMPLES) in[bucket_of(0, u[e])] = in[bucket_of(1, v[e])] = true;
        for (size_t b = 0; b < BUCKETS; b++) m += in[b];
        for (size_t b = 0; b < BUCKETS; b++) naive[b] += in[b] ? pn_secure_vote(&job.privacy, m) : 0;
        if ((double)m > most) most = (double)m;
    }
    for (size_t b = 0; b < BUCKETS; b++) ck_assert_msg(a.votes.sums[b] == naive[b], "bucket %zu: %.17g, naive %.17g", b, a.votes.sums[b], naive[b]);
    ck_assert(by_user ? most > 5 : most == 2); /* else a user's votes would not be told from its examples' */
    free(a.votes.sums);
    pn_votes_close(&a.votes);
    close_pool();
}
START_TEST(each_example_votes_once_for_each_of_its_buckets) { check_all(false); } END_TEST
START_TEST(each_user_votes_once_for_each_bucket_of_any_of_its_examples) { check_all(true); } END_TEST

START_TEST(a_drawn_batch_votes_by_its_units) {
    for (int by_user = 0; by_user < 2; by_user++) {
        open_pool(by_user);
        struct pn_draws g;
        const uint8_t key[PN_DRAWS_KEY_BYTES] = {5};
        pn_draws_open(&g, key);
        size_t n_voted = 0;
        for (int again = 0; again < 50; again++) {
            struct pn_batch b;
            struct pn_votes votes;
            ck_assert_int_eq(pn_private_draw(pool, &g, &b), PN_OK);
            ck_assert_int_eq(pn_votes_open(&votes, &job, &rows), PN_OK);
            ck_assert_int_eq(pn_votes_batch(&votes, &b, NULL), PN_OK);
            double squares = 0, naive[BUCKETS] = {0};
            const size_t n_units = by_user ? b.n_units : b.n_examples;
            for (size_t unit = 0; unit < n_units; unit++) {
                bool in[BUCKETS] = {false};
                size_t m = 0;
                for (size_t e = by_user ? b.unit_begin[unit] : unit; e < (by_user ? b.unit_begin[unit + 1] : unit + 1); e++)
                    for (size_t s = 0; s < 2; s++) in[rows.bucket[s == 0 ? job.fields[0].i_table : job.fields[1].i_table][pn_secure_row(&rows, job.fields[s].i_table, b.keys[b.begin[s * b.n_examples + e]])]] = true;
                for (size_t k = 0; k < BUCKETS; k++) m += in[k];
                for (size_t k = 0; k < BUCKETS; k++) naive[k] += in[k] ? pn_secure_vote(&job.privacy, m) : 0;
                squares += (double)m * pow(pn_secure_vote(&job.privacy, m), 2);
                n_voted += m > 2;
            }
            ck_assert_double_le(squares, (double)n_units * 1.5 * 1.5);
            for (size_t k = 0; k < BUCKETS; k++) ck_assert(votes.sums[k] == naive[k]);
            free(votes.sums);
            pn_votes_close(&votes);
            pn_batch_free(&b);
        }
        ck_assert(by_user ? n_voted > 50 : n_voted == 0);
        pn_draws_close(&g);
        close_pool();
    }
} END_TEST

START_TEST(a_row_that_is_not_declared_stops_it) {
    open_pool(false);
    struct pn_votes votes;
    struct pn_error err = {""};
    uint64_t keys[] = {12345, 6};
    uint32_t begin[] = {0, 1, 2};
    const struct pn_batch b = {.n_examples = 1, .n_sparse = 2, .begin = begin, .keys = keys, .n_keys = 2};
    ck_assert_int_eq(pn_votes_open(&votes, &job, &rows), PN_OK);
    ck_assert_int_eq(pn_votes_batch(&votes, &b, &err), PN_INVALID);
    ck_assert_ptr_nonnull(strstr(err.text, "not among those declared"));
    free(votes.sums);
    pn_votes_close(&votes);
    close_pool();
} END_TEST

int main(void) {
    Suite *s = suite_create("votes");
    TCase *c = tcase_create("votes");
    tcase_add_test(c, each_example_votes_once_for_each_of_its_buckets);
    tcase_add_test(c, each_user_votes_once_for_each_bucket_of_any_of_its_examples);
    tcase_add_test(c, a_drawn_batch_votes_by_its_units);
    tcase_add_test(c, a_row_that_is_not_declared_stops_it);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    const int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
