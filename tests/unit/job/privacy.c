/* spec.privacy: what it resolves to, and what is refused with the reason. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "job/job.h"
#include "privacy/accountant.h"

static struct pn_job job;

static enum pn_result read_job(const char *data, const char *features, const char *model, const char *training, const char *privacy, struct pn_error *err) {
    char text[3000];
    snprintf(text, sizeof text, "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data: {train: {format: csv, uri: /x, label: y}%s}\n  features: [%s]\n"
             "  model: %s\n  training: {batchSize: 1000, dataShards: 2%s}\n  privacy: {%s}\n", data, features, model, training, privacy);
    return pn_job_parse(&job, text, strlen(text), "t", NULL, NULL, err);
}
#define BY_USER "unit: user, users: 100000, epsilon: 2, delta: 1.0e-7, threshold: 10, dataset: d"
#define GOOD_FEATURES "{name: u, type: categorical, buckets: 100}, {name: n, type: numeric, transform: [standardize], mean: 1, std: 2}"
#define GOOD "rows: 1000000, epsilon: 2, delta: 1.0e-7, clip: 0.5, threshold: 10, dataset: d"

START_TEST(the_noise_is_what_the_epsilon_wants_and_no_more) {
    struct pn_error err = {""};
    ck_assert_msg(read_job("", GOOD_FEATURES, "{name: fm}", ", epochs: 3", GOOD, &err) == PN_OK, "%s", err.text);
    const struct pn_privacy_spec *v = &job.privacy;
    struct pn_privacy_event events[2];
    double epsilon;
    ck_assert_uint_eq(pn_job_privacy_steps(&job), 3 * 500); /* a shard of 500,000 rows, 1,000 a batch */
    ck_assert_uint_eq(pn_job_privacy_events(&job, 1500, 1, events), 1);
    ck_assert(events[0].rate == 0.002 && events[0].noise == v->noise);
    ck_assert_int_eq(pn_privacy_epsilon_rdp(events, 1, 1e-7, &epsilon, NULL), PN_OK);
    ck_assert_double_le(epsilon, 2);
    ck_assert_double_gt(epsilon, 1.99);
    ck_assert(v->selection == PN_SELECT_ADAFEST && v->vote_noise == 4 * v->noise && v->limit == 2 && v->clip == 0.5f);
    char *text = pn_job_text(&job);
    const double noise = v->noise;
    pn_job_free(&job);
    ck_assert_msg(pn_job_parse(&job, text, strlen(text), "again", NULL, NULL, &err) == PN_OK, "%s", err.text);
    ck_assert(job.privacy.noise == noise && strcmp(job.privacy.dataset, "d") == 0); /* whoever reads it later uses the same noise */
    char *twice = pn_job_text(&job);
    ck_assert_str_eq(text, twice);
    free(text);
    free(twice);
    pn_job_free(&job);
} END_TEST

START_TEST(a_job_by_user_counts_users_and_is_read_again_as_it_was) {
    struct pn_error err = {""};
    ck_assert_msg(read_job("", GOOD_FEATURES, "{name: fm}", ", epochs: 2", BY_USER ", userField: 'who \"is\"', examplesPerUser: 5", &err) == PN_OK, "%s", err.text);
    struct pn_privacy_event events[2];
    ck_assert_uint_eq(pn_job_privacy_steps(&job), 2 * 50); /* a shard of 50,000 users, 1,000 a batch */
    ck_assert_uint_eq(pn_job_privacy_events(&job, 100, 1, events), 1);
    ck_assert_double_eq(events[0].rate, 0.02);
    char *text = pn_job_text(&job);
    pn_job_free(&job);
    ck_assert_msg(pn_job_parse(&job, text, strlen(text), "again", NULL, NULL, &err) == PN_OK, "%s", err.text);
    ck_assert(job.privacy.per_user == 5 && job.privacy.rows == 100000 && strcmp(job.privacy.user_field, "who \"is\"") == 0);
    free(text);
    pn_job_free(&job);
} END_TEST

START_TEST(fest_pays_for_its_choice) {
    struct pn_error err = {""};
    ck_assert_msg(read_job("", GOOD_FEATURES, "{name: fm}", "", GOOD ", selection: fest, voteNoise: 20", &err) == PN_OK, "%s", err.text);
    struct pn_privacy_event events[2];
    ck_assert_uint_eq(pn_job_privacy_events(&job, 10, 3, events), 2);
    ck_assert(events[1].rate == 1 && events[1].noise == 20 && events[1].steps == 3);
    pn_job_free(&job);
} END_TEST

START_TEST(adafest_among_frequent_rows_pays_for_the_choice_too) {
    struct pn_error err = {""};
    ck_assert_msg(read_job("", GOOD_FEATURES, "{name: fm}", ", epochs: 3", GOOD, &err) == PN_OK, "%s", err.text);
    const double alone = job.privacy.noise;
    pn_job_free(&job);
    ck_assert_msg(read_job("", GOOD_FEATURES, "{name: fm}", ", epochs: 3", GOOD ", voteClip: 3, frequent: {threshold: 50, noise: 7}", &err) == PN_OK, "%s", err.text);
    ck_assert(job.privacy.noise > alone && job.privacy.choice.clip == 3 && job.privacy.vote_noise == 4 * job.privacy.noise && pn_job_chooses(&job.privacy));
    struct pn_privacy_event events[2];
    ck_assert_uint_eq(pn_job_privacy_events(&job, 10, 2, events), 2);
    ck_assert(events[0].noise == job.privacy.noise && events[1].rate == 1 && events[1].noise == 7 && events[1].steps == 2);
    char *text = pn_job_text(&job);
    const double noise = job.privacy.noise;
    pn_job_free(&job);
    ck_assert_msg(pn_job_parse(&job, text, strlen(text), "again", NULL, NULL, &err) == PN_OK, "%s", err.text);
    ck_assert(job.privacy.noise == noise && job.privacy.choice.noise == 7 && job.privacy.choice.threshold == 50 && job.privacy.choice.clip == 3);
    free(text);
    pn_job_free(&job);
} END_TEST

/* A rating in the history of twenty later ones is twenty-one examples' business. */
START_TEST(history_goes_with_users_only) {
    static const struct { const char *unit, *words; } cases[] = {{BY_USER ", userField: user", ""}, {GOOD, "with history a row stands"}, {BY_USER ", userField: item", "userField must be \"user\""}};
    for (size_t i = 0; i < 3; i++) {
        char text[2000];
        struct pn_error err = {""};
        snprintf(text, sizeof text, "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data: {train: {format: movielens, uri: /x, split: u1, part: train, history: 20}}\n"
                 "  features: [{name: u, column: user, type: categorical, buckets: 100}, {name: h, column: history, type: multi, buckets: 100}]\n  model: {name: fm}\n  training: {batchSize: 1000, dataShards: 2}\n"
                 "  privacy: {%s}\n", cases[i].unit);
        const enum pn_result r = pn_job_parse(&job, text, strlen(text), "t", NULL, NULL, &err);
        ck_assert_msg(r == (i == 0 ? PN_OK : PN_INVALID) && (i == 0 || strstr(err.text, cases[i].words) != NULL), "%s", err.text);
        if (r == PN_OK) pn_job_free(&job);
    }
} END_TEST

START_TEST(what_cannot_be_kept_is_refused_with_the_reason) {
    static const struct { const char *data, *features, *model, *training, *privacy, *words; } cases[] = {
        {"", "{name: u, type: categorical}", "{name: fm}", "", GOOD, "give it buckets"},
        {"", "{name: u, type: categorical, buckets: 9}, {name: n, type: numeric, transform: [standardize]}", "{name: fm}", "", GOOD, "mean and std"},
        {"", GOOD_FEATURES, "{name: deepfm, norm: batch}", "", GOOD, "batch norm"},
        {", validation: {format: csv, uri: /v, label: y}", GOOD_FEATURES, "{name: fm}", ", earlyStopping: {}", GOOD, "earlyStopping"},
        {"", GOOD_FEATURES, "{name: fm}", ", clipNorm: 1", GOOD, "clipNorm"},
        {"", GOOD_FEATURES, "{name: fm}", ", deviceCache: {rows: 100, staleness: 1}", GOOD, "privacy and deviceCache"},
        {"", GOOD_FEATURES, "{name: fm}\n  tables: {defaults: {eviction: {ageSteps: 10}}}", "", GOOD, "privacy and eviction"},
        {"", GOOD_FEATURES, "{name: fm}\n  tables: {defaults: {memory: 64Mi}}", "", GOOD, "memory limit do not go together"},
        {"", GOOD_FEATURES, "{name: fm}", "", "epsilon: 2, delta: 1.0e-7, threshold: 10, dataset: d", "needs rows"},
        {"", GOOD_FEATURES, "{name: fm}", "", "rows: 1000000, epsilon: 2, delta: 1.0e-7, dataset: d", "needs threshold"},
        {"", GOOD_FEATURES, "{name: fm}", "", "rows: 1000000, epsilon: 2, delta: 1.0e-5, threshold: 10, dataset: d", "below 1 / rows"},
        {"", GOOD_FEATURES, "{name: fm}", "", "rows: 1000, epsilon: 2, delta: 1.0e-7, threshold: 10, dataset: d", "fewer than all"},
        {"", GOOD_FEATURES, "{name: fm}", "", GOOD ", budget: 1", "below what this job alone"},
        {"", GOOD_FEATURES, "{name: fm}", "", GOOD ", noiseMultiplier: 0.4", "the job would spend epsilon"},
        {"", GOOD_FEATURES, "{name: fm}", "", GOOD ", aggregation: secure", "needs minWorkers"},
        {"", GOOD_FEATURES, "{name: fm}", "", GOOD ", unit: user", "needs users"},
        {"", GOOD_FEATURES, "{name: fm}", "", GOOD ", unit: user, users: 100000, userField: u", "rows has no meaning for unit: user"},
        {"", GOOD_FEATURES, "{name: fm}", "", GOOD ", examplesPerUser: 3", "unit: user only"},
        {"", GOOD_FEATURES, "{name: fm}", "", BY_USER, "needs userField"},
        {"", GOOD_FEATURES, "{name: fm}", "", BY_USER ", userField: u, examplesPerUser: 0", "examplesPerUser"},
        {"", GOOD_FEATURES, "{name: fm}", "", "rows: 1000000, epsilon: 0.001, delta: 1.0e-12, threshold: 10, dataset: d", "no noise below"},
        {"", "{name: u, type: categorical, buckets: 100}, {name: v, type: categorical, buckets: 50, hash: {share: u}}", "{name: fm}", "", GOOD, "have not the same keys"},
        {"", "{name: u, type: numeric, bucketize: [1, 2, 3], hash: {share: v}}, {name: v, type: categorical, buckets: 5}", "{name: fm}", "", GOOD, "have not the same keys"},
        {"", GOOD_FEATURES, "{name: fm}", "", GOOD ", selection: fest, frequent: {threshold: 5}", "selection: adafest only"},
        {"", GOOD_FEATURES, "{name: fm}", "", GOOD ", frequent: {noise: 5}", "frequent needs threshold"},
        {"", GOOD_FEATURES, "{name: fm}", "", GOOD ", aggregation: secure, minWorkers: 2, frequent: {threshold: 5}", "aggregation: central only"},
        {"", GOOD_FEATURES, "{name: fm}", "", GOOD ", selection: dense", "has a meaning for selection"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pn_error err = {""};
        ck_assert_msg(read_job(cases[i].data, cases[i].features, cases[i].model, cases[i].training, cases[i].privacy, &err) == PN_INVALID, "%s: taken", cases[i].words);
        ck_assert_msg(strstr(err.text, cases[i].words) != NULL, "\"%s\" does not say \"%s\"", err.text, cases[i].words);
    }
} END_TEST

int main(void) {
    Suite *s = suite_create("privacy");
    TCase *t = tcase_create("privacy");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, the_noise_is_what_the_epsilon_wants_and_no_more);
    tcase_add_test(t, a_job_by_user_counts_users_and_is_read_again_as_it_was);
    tcase_add_test(t, fest_pays_for_its_choice);
    tcase_add_test(t, adafest_among_frequent_rows_pays_for_the_choice_too);
    tcase_add_test(t, history_goes_with_users_only);
    tcase_add_test(t, what_cannot_be_kept_is_refused_with_the_reason);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
