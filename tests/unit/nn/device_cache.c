/* nn/device.h with a cache, over the CPU's table: which rows are pulled, how old they may be, what empties it. The model is a sum of weights, so that a score tells which copy
 * of a row a step has read. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/hash.h"
#include "nn/device.h"

enum { N = 12, KEYS = 40 };
static struct pn_job job;
static struct pn_features *features;

static void open_job(void) {
    struct pn_error err = {""};
    static const char *const names[] = {"u"};
    const char *text = "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data: {train: {format: csv, uri: /x, label: y}}\n  features: [{name: u, type: categorical}]\n"
                       "  model: {name: lr}\n";
    ck_assert_msg(pn_job_parse(&job, text, strlen(text), "t", NULL, NULL, &err) == PN_OK, "%s", err.text);
    ck_assert_int_eq(pn_features_open(&features, &job, names, 1, &err), PN_OK);
}
static void close_job(void) {
    pn_features_close(features);
    pn_job_free(&job);
}
static struct pn_device *open_device(uint64_t rows, uint32_t staleness) {
    struct pn_device *d;
    struct pn_error err = {""};
    ck_assert_msg(pn_device_open(&d, &pn_backend_cpu, 0, &job, 0, &err) == PN_OK, "%s", err.text);
    ck_assert_msg(pn_device_cache(d, rows, staleness, &err) == PN_OK, "%s", err.text);
    return d;
}
static struct pn_batch batch_of(struct pn_rng *rng, size_t n, unsigned of) {
    static char text[4000];
    static uint32_t offset[400], length[400];
    static float labels[400];
    static const char *const names[] = {"u"};
    struct pn_raw raw = {.n_rows = n, .n_columns = 1, .names = names, .text = text, .offset = offset, .length = length, .labels = labels};
    struct pn_batch b;
    uint64_t n_bad = 0;
    for (size_t i = 0, at = 0; i < n; i++, at += length[i - 1]) {
        offset[i] = (uint32_t)at;
        length[i] = (uint32_t)sprintf(text + at, "%u", (unsigned)(pn_rng_next(rng) % of));
    }
    ck_assert_int_eq(pn_features_batch(features, &raw, &b, &n_bad), PN_OK);
    return b;
}

/* A step whose missing rows are pulled at `version`; others come as nonsense. Returns how many were pulled. versions[e]: of the row that example e read. */
static size_t step(struct pn_device *d, size_t slot, size_t look, uint64_t now, bool empty, bool keep, const struct pn_batch *b, float version, float versions[N]) {
    struct pn_error err = {""};
    uint32_t missing_[400], *missing[PN_MAX_TABLES] = {missing_};
    size_t n_missing[PN_MAX_TABLES];
    float rows[400], gradients[400], p[PN_DENSE_ROW] = {0}, dp[PN_DENSE_ROW], scores[400], *out[PN_MAX_TABLES] = {gradients};
    const float *in[PN_MAX_TABLES] = {rows};
    double loss;
    ck_assert_msg(pn_device_find(d, look, b, now, empty, missing, n_missing, &err) == PN_OK, "%s", err.text);
    for (size_t i = 0; i < b->n_unique[0]; i++) rows[i] = NAN;
    for (size_t i = 0; i < n_missing[0]; i++) {
        ck_assert(missing_[i] < b->n_unique[0] && (i == 0 || missing_[i - 1] < missing_[i]));
        rows[missing_[i]] = 0.01f * version;
    }
    ck_assert_msg(pn_device_begin_found(d, slot, look, keep, b, in, p, 0, &err) == PN_OK, "%s", err.text);
    ck_assert_msg(pn_device_end(d, slot, b, out, dp, scores, &loss, &err) == PN_OK, "%s", err.text);
    for (size_t e = 0; e < b->n_examples && e < N; e++) versions[e] = 100 * logf(scores[e] / (1 - scores[e]));
    for (size_t i = 0; i < b->n_unique[0]; i++) ck_assert(isfinite(gradients[i]) && fabsf(gradients[i]) > 0); /* of every row, wherever it came from */
    return n_missing[0];
}

START_TEST(a_row_is_pulled_when_it_is_missing_or_older_than_it_may_be) {
    open_job();
    for (uint32_t staleness = 0; staleness <= 5; staleness++) {
        struct pn_device *d = open_device(1000, staleness);
        struct pn_rng rng = {7};
        size_t pulled = 0, wanted = 0;
        for (uint64_t now = 1; now <= 60; now++) {
            struct pn_batch b = batch_of(&rng, N, KEYS);
            float versions[N];
            const size_t n = step(d, now % 2, now % PN_DEVICE_LOOKS, now, false, true, &b, (float)now, versions);
            pulled += n;
            wanted += b.n_unique[0];
            for (size_t e = 0; e < N; e++) {
                ck_assert_msg(versions[e] > (float)now - (float)staleness - 0.1f && versions[e] < (float)now + 0.1f, "step %zu with staleness %u read a row of step %.2f", (size_t)now, staleness,
                              (double)versions[e]);
            }
            if (staleness == 0) ck_assert_uint_eq(n, b.n_unique[0]);
            pn_batch_free(&b);
        }
        const struct pn_device_cache_counts c = pn_device_cache_look(d);
        ck_assert(c.keys == wanted && c.found == wanted - pulled && c.evicted == 0);
        ck_assert(c.rows > 20 && c.rows <= KEYS);
        ck_assert(staleness == 0 ? pulled == wanted : pulled < wanted);
        if (staleness == 5) ck_assert_msg(pulled < wanted * 6 / 10, "%zu of %zu pulled", pulled, wanted); /* each key is in a fourth of the batches */
        pn_device_close(d);
    }
    close_job();
} END_TEST

START_TEST(a_row_lives_as_many_steps_as_it_may_and_no_longer) {
    open_job();
    struct pn_device *d = open_device(1000, 3);
    struct pn_rng rng = {1};
    struct pn_batch b = batch_of(&rng, N, 1); /* one key */
    float versions[N];
    const size_t expected[] = {1, 0, 0, 0, 1, 0, 0, 0, 1};
    for (uint64_t now = 1; now <= 9; now++) ck_assert_uint_eq(step(d, 0, 0, now, false, true, &b, (float)now, versions), expected[now - 1]);
    pn_batch_free(&b);
    pn_device_close(d);
    close_job();
} END_TEST

START_TEST(an_emptied_cache_serves_nothing_of_before_and_what_is_not_kept_is_pulled_again) {
    open_job();
    struct pn_device *d = open_device(1000, 1000);
    struct pn_rng rng = {3};
    struct pn_batch b = batch_of(&rng, N, KEYS);
    float versions[N];
    ck_assert_uint_eq(step(d, 0, 0, 1, false, false, &b, 1, versions), b.n_unique[0]);
    ck_assert_uint_eq(step(d, 1, 0, 2, false, true, &b, 2, versions), b.n_unique[0]); /* step 1 was not kept */
    ck_assert_uint_eq(step(d, 0, 0, 3, false, true, &b, 3, versions), 0);
    ck_assert_float_eq_tol(versions[0], 2, 0.01f);
    ck_assert_uint_eq(step(d, 1, 0, 4, true, true, &b, 4, versions), b.n_unique[0]);
    ck_assert_float_eq_tol(versions[0], 4, 0.01f);
    ck_assert_uint_eq(step(d, 0, 0, 5, false, true, &b, 5, versions), 0);
    pn_batch_free(&b);
    pn_device_close(d);
    close_job();
} END_TEST

START_TEST(steps_that_were_found_before_others_began_keep_what_they_found) {
    open_job();
    struct pn_device *d = open_device(1, 1000); /* one bucket: 128 places */
    struct pn_rng rng = {5};
    struct pn_error err = {""};
    struct pn_batch b = batch_of(&rng, 100, 100000), other = batch_of(&rng, 399, 100000);
    float versions[N];
    uint32_t missing_[400], *missing[PN_MAX_TABLES] = {missing_};
    size_t n_missing[PN_MAX_TABLES];
    step(d, 0, 0, 1, false, true, &b, 1, versions);
    ck_assert_int_eq(pn_device_find(d, 5, &b, 2, false, missing, n_missing, &err), PN_OK); /* step 2: all there */
    ck_assert_uint_eq(n_missing[0], 0);
    step(d, 1, 1, 3, false, true, &other, 3, versions); /* 399 rows: nothing of step 1's need be left */
    float rows[400], gradients[400], p[PN_DENSE_ROW] = {0}, dp[PN_DENSE_ROW], scores[400], *out[PN_MAX_TABLES] = {gradients};
    const float *in[PN_MAX_TABLES] = {rows};
    double loss;
    for (size_t i = 0; i < 400; i++) rows[i] = NAN;
    ck_assert_int_eq(pn_device_begin_found(d, 0, 5, true, &b, in, p, 0, &err), PN_OK);
    ck_assert_int_eq(pn_device_end(d, 0, &b, out, dp, scores, &loss, &err), PN_OK);
    for (size_t e = 0; e < b.n_examples; e++) ck_assert_float_eq_tol(100 * logf(scores[e] / (1 - scores[e])), 1, 0.01f);
    pn_batch_free(&b);
    pn_batch_free(&other);
    pn_device_close(d);
    close_job();
} END_TEST

int main(void) {
    Suite *s = suite_create("device cache");
    TCase *c = tcase_create("device cache");
    tcase_add_test(c, a_row_is_pulled_when_it_is_missing_or_older_than_it_may_be);
    tcase_add_test(c, a_row_lives_as_many_steps_as_it_may_and_no_longer);
    tcase_add_test(c, an_emptied_cache_serves_nothing_of_before_and_what_is_not_kept_is_pulled_again);
    tcase_add_test(c, steps_that_were_found_before_others_began_keep_what_they_found);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    const int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed > 0;
}
