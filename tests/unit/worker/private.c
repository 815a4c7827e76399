/* What a private step sends: the right rows, with the right noise, of a batch that was drawn right. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/hash.h"
#include "worker/private.h"

enum { USERS = 120, BUCKETS = 2000, EXAMPLES = 600, BATCH = 100, DIM = 4, DENSE = 5000 };
static struct pn_job job;
static struct pn_features *features;
static struct pn_draws g;

static void open_job(void) {
    static const char text[] =
        "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data: {train: {format: csv, uri: /x, label: y}}\n"
        "  features: [{name: u, type: categorical, buckets: 2000}, {name: v, type: categorical, table: other, buckets: 50}]\n"
        "  tables: {defaults: {init: zero}}\n  model: {name: fm, embeddingDim: 3}\n";
    static const char *const names[] = {"u", "v"};
    struct pn_error err = {""};
    uint8_t key[PN_DRAWS_KEY_BYTES] = {9};
    ck_assert_msg(pn_job_parse(&job, text, strlen(text), "t", NULL, NULL, &err) == PN_OK, "%s", err.text);
    ck_assert_int_eq(pn_features_open(&features, &job, names, 2, &err), PN_OK);
    pn_draws_open(&g, key);
}

/* Examples i of [0, n): u is "i mod 7" for most, so that seven rows are frequent; label i mod 2. */
static struct pn_private *with(struct pn_private_spec spec, size_t n) {
    static const char *const names[] = {"u", "v"};
    struct pn_private *p = pn_private_open(&job, &spec);
    for (size_t begin = 0; begin < n; begin += 64) {
        const size_t m = n - begin < 64 ? n - begin : 64;
        char cells[2000];
        uint32_t offset[128], length[128];
        float labels[64];
        size_t at = 0;
        for (size_t c = 0; c < 2; c++)
            for (size_t i = 0; i < m; i++) {
                const size_t e = begin + i;
                offset[c * m + i] = (uint32_t)at;
                at += (size_t)sprintf(cells + at, "%zu", c == 0 ? (e % 10 == 0 ? 1000 + e : e % 7) : e % 3);
                length[c * m + i] = (uint32_t)at - offset[c * m + i];
                labels[i] = (float)(e % 2);
            }
        const struct pn_raw raw = {m, 2, names, cells, offset, length, labels, NULL, labels};
        struct pn_batch b;
        uint64_t n_bad = 0;
        ck_assert_int_eq(pn_features_batch(features, &raw, &b, &n_bad), PN_OK);
        if (spec.by_user) { /* a user has five rows, far from one another, touching unlike rows */
            b.user = malloc(m * sizeof *b.user);
            for (size_t i = 0; i < m; i++) b.user[i] = pn_mix64((begin + i) % USERS);
        }
        ck_assert(pn_private_add(p, &b));
    }
    ck_assert(pn_private_seal(p));
    ck_assert_uint_eq(pn_private_examples(p), n);
    return p;
}

struct sums { float *rows[PN_MAX_TABLES], *dense; };
static struct sums ones(const struct pn_batch *b) { /* gradients of 1 in every touched row, 2 in every weight */
    struct sums s = {.dense = malloc(DENSE * sizeof(float))};
    for (size_t t = 0; t < 2; t++) {
        s.rows[t] = malloc((b->n_unique[t] * DIM + 1) * sizeof(float));
        for (size_t i = 0; i < b->n_unique[t] * DIM; i++) s.rows[t][i] = 1;
    }
    for (size_t i = 0; i < DENSE; i++) s.dense[i] = 2;
    return s;
}
static void free_sums(struct sums *s) {
    free(s->rows[0]);
    free(s->rows[1]);
    free(s->dense);
}

static bool touched(const struct pn_batch *b, size_t t, uint64_t key) {
    for (size_t i = 0; i < b->n_unique[t]; i++)
        if (b->unique[t][i] == key) return true;
    return false;
}
static void check_order(const struct pn_private_push *x) {
    for (size_t t = 0; t < 2; t++)
        for (size_t i = 1; i < x->n[t]; i++) ck_assert(pn_mix64(x->keys[t][i - 1]) < pn_mix64(x->keys[t][i]));
}

static const struct pn_private_spec plain = {.rows = EXAMPLES, .batch = BATCH, .per_unit = 1, .clip = 1, .noise = 0.001f, .each = {2, 1, 6}};

START_TEST(batches_are_poisson_samples) {
    enum { ROUNDS = 3000 };
    open_job();
    struct pn_private *p = with(plain, EXAMPLES);
    double sum = 0, squares = 0, labels = 0;
    ck_assert_uint_eq(pn_private_steps_an_epoch(p), 6);
    for (int r = 0; r < ROUNDS; r++) {
        struct pn_batch b;
        ck_assert_int_eq(pn_private_draw(p, &g, &b), PN_OK);
        sum += (double)b.n_examples;
        squares += ((double)b.n_examples - BATCH) * ((double)b.n_examples - BATCH);
        for (size_t i = 0; i < b.n_examples; i++) labels += (double)b.labels[i];
        pn_batch_free(&b);
    }
    const double variance = EXAMPLES * (1.0 / 6) * (5.0 / 6);
    ck_assert_double_lt(fabs(sum / ROUNDS - BATCH), 3.9 * sqrt(variance / ROUNDS));
    ck_assert_double_lt(fabs(squares / ROUNDS / variance - 1), 0.12);
    ck_assert_double_lt(fabs(labels / sum - 0.5), 0.01);
    pn_private_close(p);
} END_TEST

START_TEST(dense_noise_reaches_every_row_there_can_be) {
    open_job();
    struct pn_private_spec spec = plain;
    spec.noise = 3;
    spec.clip = 2;
    struct pn_private *p = with(spec, EXAMPLES);
    struct pn_batch b;
    struct pn_private_push x;
    ck_assert_int_eq(pn_private_draw(p, &g, &b), PN_OK);
    struct sums s = ones(&b);
    ck_assert_int_eq(pn_private_release(p, &g, &b, s.rows, s.dense, DENSE, &x), PN_OK);
    check_order(&x);
    ck_assert(x.n[0] == BUCKETS && x.n[1] == 50);
    for (size_t i = 0; i < BUCKETS * DIM; i++) { /* no bits that would tell zero and a sum apart: deviation 6, so steps of 4 / 1024 */
        const double step = rint((double)x.gradients[0][i] * BATCH * 256);
        ck_assert((float)(step / 256) * (1.0f / BATCH) == x.gradients[0][i]);
    }
    double sum = 0, squares = 0;
    for (size_t i = 0; i < BUCKETS * DIM; i++) {
        const double noise = (double)x.gradients[0][i] * BATCH - (touched(&b, 0, x.keys[0][i / DIM]) ? 1 : 0);
        sum += noise;
        squares += noise * noise;
    }
    ck_assert_double_lt(fabs(sum / BUCKETS / DIM), 3.9 * 6 / sqrt(BUCKETS * DIM));
    ck_assert_double_lt(fabs(squares / BUCKETS / DIM / 36 - 1), 0.06);
    sum = squares = 0;
    for (size_t i = 0; i < DENSE; i++) {
        const double noise = (double)s.dense[i] * BATCH - 2;
        squares += noise * noise;
    }
    ck_assert_double_lt(fabs(squares / DENSE / 36 - 1), 0.08);
    pn_private_push_free(&x);
    free_sums(&s);
    pn_batch_free(&b);
    pn_private_close(p);
} END_TEST

START_TEST(adafest_sends_the_rows_of_many_and_some_that_nobody_touched) {
    enum { ROUNDS = 300 };
    open_job();
    struct pn_private_spec spec = plain;
    spec.selection = PN_SELECT_ADAFEST;
    spec.noise = 1e-6f;
    struct pn_private *p = with(spec, EXAMPLES);
    double others = 0, rare = 0, frequent = 0, n_rare = 0, n_frequent = 0, untouched = 0;
    for (int r = 0; r < ROUNDS; r++) {
        struct pn_batch b;
        struct pn_private_push x;
        ck_assert_int_eq(pn_private_draw(p, &g, &b), PN_OK);
        struct sums s = ones(&b);
        ck_assert_int_eq(pn_private_release(p, &g, &b, s.rows, s.dense, DENSE, &x), PN_OK);
        check_order(&x);
        size_t count[BUCKETS] = {0}; /* of examples by row */
        for (size_t i = 0; i < b.n_examples; i++) count[b.position[i]]++;
        for (size_t i = 0; i < b.n_unique[0]; i++) {
            bool sent = false;
            for (size_t k = 0; k < x.n[0]; k++)
                if (x.keys[0][k] == b.unique[0][i]) {
                    sent = true;
                    ck_assert_float_eq_tol(x.gradients[0][k * DIM], 1.0f / BATCH, 1e-6f); /* its own gradient, over the expected batch */
                }
            if (count[i] >= 10) { frequent += sent; n_frequent++; }
            if (count[i] == 1) { rare += sent; n_rare++; }
        }
        for (size_t k = 0; k < x.n[0]; k++)
            if (!touched(&b, 0, x.keys[0][k])) {
                others++;
                ck_assert_float_eq_tol(x.gradients[0][k * DIM], 0, 1e-6f);
            }
        untouched += BUCKETS - (double)b.n_unique[0];
        pn_private_push_free(&x);
        free_sums(&s);
        pn_batch_free(&b);
    }
    const double p0 = pn_normal_tail(3), p1 = pn_normal_tail(2.5);
    ck_assert_double_lt(fabs(others - untouched * p0), 3.9 * sqrt(untouched * p0));
    ck_assert_double_lt(fabs(rare - n_rare * p1), 3.9 * sqrt(n_rare * p1));
    ck_assert_double_gt(frequent / n_frequent, pn_normal_tail(-2));
    pn_private_close(p);
} END_TEST

START_TEST(fest_sends_the_rows_it_chose_at_first_and_no_others) {
    open_job();
    struct pn_private_spec spec = plain;
    spec.selection = PN_SELECT_FEST;
    spec.once = (struct pn_vote_rule){2, 1, 40}; /* of 600 examples: the seven frequent rows have some 77 votes each */
    struct pn_private *p = with(spec, EXAMPLES);
    ck_assert_int_eq(pn_private_choose(p, &g), PN_OK);
    for (int r = 0; r < 20; r++) {
        struct pn_batch b;
        struct pn_private_push x;
        ck_assert_int_eq(pn_private_draw(p, &g, &b), PN_OK);
        struct sums s = ones(&b);
        ck_assert_int_eq(pn_private_release(p, &g, &b, s.rows, s.dense, DENSE, &x), PN_OK);
        check_order(&x);
        ck_assert(x.n[0] == 7 && x.n[1] == 3);
        for (size_t i = 0; i < 7; i++) ck_assert_float_eq_tol(x.gradients[0][i * DIM], touched(&b, 0, x.keys[0][i]) ? 1.0f / BATCH : 0, 1e-4f);
        pn_private_push_free(&x);
        free_sums(&s);
        pn_batch_free(&b);
    }
    pn_private_close(p);
} END_TEST

/* Of 2,000 rows some 250 are chosen at first, most of them by chance. Later votes let any of these in, as often as their noise says, and none of the others; and a vote is for chosen rows alone, so
 * that it is not shortened for the others. */
START_TEST(adafest_among_chosen_rows_sends_no_others) {
    enum { ROUNDS = 300 };
    open_job();
    struct pn_private_spec spec = plain;
    spec.selection = PN_SELECT_ADAFEST;
    spec.noise = 1e-6f;
    spec.once = (struct pn_vote_rule){2, 20, 46}; /* noise of 40: an eighth of all rows passes */
    spec.each = (struct pn_vote_rule){1, 2, 3};
    struct pn_private *p = with(spec, EXAMPLES);
    ck_assert_int_eq(pn_private_choose(p, &g), PN_OK);
    static uint64_t keys[BUCKETS];
    size_t n_keys = 0;
    double others = 0, untouched = 0, n_chosen = 0;
    for (int r = 0; r < ROUNDS; r++) {
        struct pn_batch b;
        struct pn_private_push x;
        ck_assert_int_eq(pn_private_draw(p, &g, &b), PN_OK);
        ck_assert(b.idle[0] != NULL && b.idle[1] != NULL);
        struct sums s = ones(&b);
        ck_assert_int_eq(pn_private_release(p, &g, &b, s.rows, s.dense, DENSE, &x), PN_OK);
        check_order(&x);
        for (size_t k = 0; k < x.n[0]; k++) {
            size_t i = 0;
            while (i < n_keys && keys[i] != x.keys[0][k]) i++;
            if (i == n_keys) keys[n_keys++] = x.keys[0][k];
            size_t at = 0;
            while (at < b.n_unique[0] && b.unique[0][at] != x.keys[0][k]) at++;
            if (at == b.n_unique[0]) others++;
            else ck_assert(!b.idle[0][at]); /* of the rows of the batch only those that were chosen */
            ck_assert_float_eq_tol(x.gradients[0][k * DIM], at < b.n_unique[0] ? 1.0f / BATCH : 0, 1e-6f);
        }
        pn_private_push_free(&x);
        free_sums(&s);
        pn_batch_free(&b);
    }
    ck_assert_uint_gt(n_keys, 150); /* all that are chosen were sent once: 300 times 1 in 15 */
    ck_assert_uint_lt(n_keys, 350);
    n_chosen = (double)n_keys;
    for (int r = 0; r < 20; r++) { /* how many chosen rows a batch does not touch */
        struct pn_batch b;
        ck_assert_int_eq(pn_private_draw(p, &g, &b), PN_OK);
        double mine = 0;
        for (size_t i = 0; i < b.n_unique[0]; i++) mine += !b.idle[0][i];
        untouched += (n_chosen - mine) / 20 * ROUNDS;
        pn_batch_free(&b);
    }
    ck_assert_double_lt(fabs(others / (untouched * pn_normal_tail(1.5)) - 1), 0.06);
    pn_private_close(p);
} END_TEST

/* Of three examples' rows one was not chosen: a vote of norm 1 is 1 / sqrt(2) for each of two, and 1 for the one of the example whose other row is out. */
START_TEST(a_vote_is_for_chosen_rows_alone) {
    static const char *const names[] = {"u", "v"};
    open_job();
    struct pn_private_spec spec = plain;
    spec.selection = PN_SELECT_ADAFEST;
    spec.per_unit = 1;
    spec.rows = 3.0 + 1e-9;
    spec.batch = 3;
    for (int above = 0; above < 2; above++) {
        const uint32_t offset[] = {0, 0, 0, 1, 1, 2}, length[] = {1, 1, 1, 1, 1, 1}; /* u: a a a, v: b b c */
        const float labels[] = {0, 1, 0};
        const struct pn_raw raw = {3, 2, names, "abc", offset, length, labels, NULL, labels};
        struct pn_batch b;
        uint64_t n_bad = 0;
        ck_assert_int_eq(pn_features_batch(features, &raw, &b, &n_bad), PN_OK);
        spec.once = (struct pn_vote_rule){2, 1e-6, 1.5};                     /* a has 3 votes, b 2, c 1 */
        spec.each = (struct pn_vote_rule){1, 1e-6, above ? 2.45 : 2.35};     /* a has 1 / sqrt(2) twice and 1 once: 2.41; were c counted, 2.12 */
        struct pn_private *p = pn_private_open(&job, &spec);
        ck_assert(pn_private_add(p, &b) && pn_private_seal(p));
        ck_assert_int_eq(pn_private_choose(p, &g), PN_OK);
        struct pn_private_push x;
        ck_assert_int_eq(pn_private_draw(p, &g, &b), PN_OK);
        ck_assert_uint_eq(b.n_examples, 3);
        struct sums s = ones(&b);
        ck_assert_int_eq(pn_private_release(p, &g, &b, s.rows, s.dense, DENSE, &x), PN_OK);
        ck_assert(x.n[0] == (above ? 0 : 1) && x.n[1] == 0);
        pn_private_push_free(&x);
        free_sums(&s);
        pn_batch_free(&b);
        pn_private_close(p);
    }
} END_TEST

START_TEST(an_empty_batch_still_sends_its_noise) {
    open_job();
    struct pn_private *p = with(plain, 0);
    struct pn_batch b;
    struct pn_private_push x;
    ck_assert_int_eq(pn_private_draw(p, &g, &b), PN_OK);
    ck_assert(b.n_examples == 0 && b.n_unique[0] == 0 && b.n_sparse == 2 && b.n_dense == 0);
    struct sums s = ones(&b);
    ck_assert_int_eq(pn_private_release(p, &g, &b, s.rows, s.dense, DENSE, &x), PN_OK);
    ck_assert_uint_eq(x.n[0], BUCKETS);
    pn_private_push_free(&x);
    free_sums(&s);
    pn_batch_free(&b);
    pn_private_close(p);
} END_TEST

/* Example e is user e mod 120's: five each. Its key in u tells e back where e mod 10 is 0; the label is e mod 2, the same for all of a user's. */
START_TEST(batches_by_user_take_users_and_at_most_k_of_their_examples) {
    enum { ROUNDS = 2000 };
    open_job();
    struct pn_private_spec spec = plain;
    spec.by_user = true;
    spec.per_unit = 2;
    spec.rows = USERS;
    spec.batch = 30;
    struct pn_private *p = with(spec, EXAMPLES);
    ck_assert(pn_private_units(p) == USERS && pn_private_steps_an_epoch(p) == 4);
    double users = 0, squares = 0, seen[EXAMPLES] = {0};
    for (int r = 0; r < ROUNDS; r++) {
        struct pn_batch b;
        ck_assert_int_eq(pn_private_draw(p, &g, &b), PN_OK);
        ck_assert(b.unit_begin != NULL && b.unit_begin[0] == 0 && b.unit_begin[b.n_units] == b.n_examples && b.n_examples == 2 * b.n_units);
        users += (double)b.n_units;
        squares += ((double)b.n_units - 30) * ((double)b.n_units - 30);
        for (size_t u = 0; u < b.n_units; u++) {
            const uint32_t e = b.unit_begin[u];
            ck_assert(b.unit_begin[u + 1] == e + 2 && b.labels[e] == b.labels[e + 1]);
        }
        for (size_t e = 0; e < EXAMPLES; e += 10) {
            char text[16];
            sprintf(text, "%zu", 1000 + e);
            const uint64_t key = pn_field_domain_key(&job.fields[0], pn_mix64(pn_hash(text, strlen(text), job.fields[0].hash_seed)) % BUCKETS);
            for (size_t i = 0; i < b.n_examples; i++) seen[e] += b.keys[b.begin[i]] == key;
        }
        pn_batch_free(&b);
    }
    const double variance = USERS * 0.25 * 0.75;
    ck_assert_double_lt(fabs(users / ROUNDS - 30), 3.9 * sqrt(variance / ROUNDS));
    ck_assert_double_lt(fabs(squares / ROUNDS / variance - 1), 0.13);
    double all = 0, far = 0, n = 0;
    for (size_t e = 0; e < EXAMPLES; e += 10) {
        if (seen[e] > ROUNDS) continue; /* its bucket is a frequent value's, too */
        n++;
        all += seen[e];
        far += fabs(seen[e] - 0.1 * ROUNDS) > 3.9 * sqrt(0.1 * 0.9 * ROUNDS);
    }
    ck_assert_double_gt(n, 50);
    ck_assert_double_lt(fabs(all / n / ROUNDS - 0.1), 0.006); /* a quarter of the users, two of five examples */
    ck_assert_double_le(far, 2); /* two rare values may share a bucket */
    pn_private_close(p);
} END_TEST

START_TEST(a_user_votes_once_for_a_row_and_its_votes_are_clipped_together) {
    open_job();
    struct pn_private_spec spec = plain;
    spec.by_user = true;
    spec.per_unit = 5;
    spec.rows = 1.0 + 1e-9; /* of one user, who is always drawn */
    spec.batch = 1;
    spec.selection = PN_SELECT_ADAFEST;
    spec.each.noise = 1e-6;
    spec.each.clip = 1;
    for (int above = 0; above < 2; above++) {
        static const char *const names[] = {"u", "v"};
        const uint32_t offset[] = {0, 1, 2, 3, 3, 3}, length[] = {1, 1, 1, 1, 1, 1}; /* u: a b c, v: d d d */
        const float labels[] = {0, 1, 0};
        const struct pn_raw raw = {3, 2, names, "abcd", offset, length, labels, NULL, labels};
        struct pn_batch b;
        uint64_t n_bad = 0;
        ck_assert_int_eq(pn_features_batch(features, &raw, &b, &n_bad), PN_OK);
        b.user = calloc(3, sizeof *b.user);
        spec.each.threshold = above ? 0.51 : 0.49; /* four rows: each has a vote of 1 / sqrt(4), the one touched three times too */
        struct pn_private *p = pn_private_open(&job, &spec);
        ck_assert(pn_private_add(p, &b) && pn_private_seal(p));
        struct pn_private_push x;
        ck_assert_int_eq(pn_private_draw(p, &g, &b), PN_OK);
        ck_assert(b.n_units == 1 && b.n_examples == 3);
        struct sums s = ones(&b);
        ck_assert_int_eq(pn_private_release(p, &g, &b, s.rows, s.dense, DENSE, &x), PN_OK);
        ck_assert_uint_eq(x.n[0] + x.n[1], above ? 0 : 4);
        pn_private_push_free(&x);
        free_sums(&s);
        pn_batch_free(&b);
        pn_private_close(p);
    }
} END_TEST

int main(void) {
    Suite *s = suite_create("private");
    TCase *t = tcase_create("private");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, batches_are_poisson_samples);
    tcase_add_test(t, dense_noise_reaches_every_row_there_can_be);
    tcase_add_test(t, adafest_sends_the_rows_of_many_and_some_that_nobody_touched);
    tcase_add_test(t, fest_sends_the_rows_it_chose_at_first_and_no_others);
    tcase_add_test(t, adafest_among_chosen_rows_sends_no_others);
    tcase_add_test(t, a_vote_is_for_chosen_rows_alone);
    tcase_add_test(t, an_empty_batch_still_sends_its_noise);
    tcase_add_test(t, batches_by_user_take_users_and_at_most_k_of_their_examples);
    tcase_add_test(t, a_user_votes_once_for_a_row_and_its_votes_are_clipped_together);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
