/* spec.privacy with aggregation: secure: what it resolves to, and what is refused with the reason. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "job/job.h"
#include "privacy/accountant.h"

static struct pn_job job;

static enum pn_result read_job(const char *features, const char *tables, const char *training, const char *privacy, struct pn_error *err) {
    char text[3000];
    snprintf(text, sizeof text, "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data: {train: {format: csv, uri: /x, label: y}}\n  features: [%s]\n  tables: {%s}\n"
             "  model: {name: fm, embeddingDim: 4}\n  training: {batchSize: 100, %s}\n  privacy: {%sepsilon: 4, delta: 1.0e-6, dataset: d, aggregation: secure, %s}\n", features, tables, training, strstr(privacy, "users:") == NULL ? "rows: 100000, " : "", privacy);
    return pn_job_parse(&job, text, strlen(text), "t", NULL, NULL, err);
}
#define FEATURES "{name: u, type: categorical, buckets: 100}, {name: v, type: categorical, buckets: 50}"
#define TRAINING "dataShards: 5, consistency: {mode: sync}"
#define HOLDERS "minWorkers: 3, maxDropout: 0.2"

START_TEST(a_secure_job_says_the_same_when_it_is_read_again) {
    struct pn_error err = {""};
    ck_assert_msg(read_job(FEATURES, "", TRAINING, HOLDERS ", threshold: 20, voteBuckets: 64, phaseTimeout: 2s, data: own", &err) == PN_OK, "%s", err.text);
    const struct pn_privacy_spec first = job.privacy;
    struct pn_privacy_event events[2];
    double epsilon;
    ck_assert(first.secure && first.own_data && first.min_workers == 3 && first.vote_buckets == 64 && first.phase_ms == 2000 && first.max_dropout == .2 && first.max_colluding == .2);
    ck_assert_uint_eq(pn_job_declared_rows(&job), 150);
    ck_assert_uint_eq(pn_job_fewest(&first, 5), 4);
    ck_assert_uint_eq(pn_job_colluding(&first, 5), 1);
    const size_t n = pn_job_privacy_events(&job, pn_job_privacy_steps(&job), 1, events);
    ck_assert_int_eq(pn_privacy_epsilon_rdp_whole(events, n, 1e-6, &epsilon, NULL), PN_OK); /* by whole orders, which discrete noise has */
    ck_assert(epsilon <= 4 && epsilon > 3.98);
    char *text = pn_job_text(&job);
    pn_job_free(&job);
    ck_assert_msg(pn_job_parse(&job, text, strlen(text), "again", NULL, NULL, &err) == PN_OK, "%s", err.text);
    ck_assert(job.privacy.secure && job.privacy.own_data && job.privacy.noise == first.noise && job.privacy.vote_buckets == 64 && job.privacy.phase_ms == 2000 && job.privacy.max_dropout == .2);
    char *twice = pn_job_text(&job);
    ck_assert_str_eq(text, twice);
    free(text);
    free(twice);
    pn_job_free(&job);
} END_TEST

START_TEST(a_secure_job_may_choose_its_rows_once_and_protect_users) {
    struct pn_error err = {""};
    struct pn_privacy_event events[2];
    double epsilon;
    ck_assert_msg(read_job(FEATURES, "", TRAINING, HOLDERS ", unit: user, users: 20000, userField: who, examplesPerUser: 4, selection: fest, threshold: 20, voteNoise: 12, voteBuckets: 64", &err) == PN_OK, "%s", err.text);
    const size_t n = pn_job_privacy_events(&job, pn_job_privacy_steps(&job), 1, events);
    ck_assert(n == 2 && events[1].rate == 1 && events[1].noise == 12 && events[1].steps == 1 && events[0].rate == 500. / 20000);
    ck_assert_int_eq(pn_privacy_epsilon_rdp_whole(events, n, 1e-6, &epsilon, NULL), PN_OK); /* the choice is paid for out of the same epsilon */
    ck_assert(epsilon <= 4 && epsilon > 3.98);
    char *text = pn_job_text(&job);
    pn_job_free(&job);
    ck_assert_msg(pn_job_parse(&job, text, strlen(text), "again", NULL, NULL, &err) == PN_OK, "%s", err.text);
    ck_assert(job.privacy.secure && job.privacy.selection == PN_SELECT_FEST && job.privacy.vote_buckets == 64 && job.privacy.per_user == 4 && job.privacy.rows == 20000);
    free(text);
    pn_job_free(&job);
} END_TEST

START_TEST(without_buckets_for_votes_each_row_has_its_own) {
    struct pn_error err = {""};
    ck_assert_msg(read_job(FEATURES, "", TRAINING, HOLDERS ", threshold: 20", &err) == PN_OK, "%s", err.text);
    ck_assert(job.privacy.vote_buckets == 150 && job.privacy.phase_ms == 10000 && !job.privacy.own_data);
    pn_job_free(&job);
} END_TEST

START_TEST(what_a_secure_job_cannot_have_is_refused_with_the_reason) {
    static const struct { const char *features, *tables, *training, *privacy, *words; } cases[] = {
        {FEATURES, "", "dataShards: 5", HOLDERS ", threshold: 9", "needs training.consistency {mode: sync}"},
        {FEATURES, "", TRAINING, "threshold: 9", "needs minWorkers"},
        {FEATURES, "", TRAINING ", device: cuda", HOLDERS ", threshold: 9", "compute their steps on the CPU; take training.device: cpu (or auto)"},
        {FEATURES, "", TRAINING, "minWorkers: 2, threshold: 9", "minWorkers: at least 3"},
        {FEATURES, "", TRAINING, "minWorkers: 6, threshold: 9", "fewer data holders than minWorkers (6)"},
        {FEATURES, "", TRAINING, "minWorkers: 3, maxDropout: 0.6, maxColluding: 0.6, threshold: 9", "whose noise counts"},
        {FEATURES, "", TRAINING, "minWorkers: 3, maxDropout: 0.4, maxColluding: 0.4, threshold: 9", "cannot stand"},
        {FEATURES, "", TRAINING, HOLDERS ", selection: dense, voteBuckets: 9", "voteBuckets has a meaning for selection: adafest and fest only"},
        {FEATURES, "defaults: {eviction: {ageSteps: 10}}", TRAINING, HOLDERS ", threshold: 9", "eviction do not go together"},
        {"{name: u, type: categorical, buckets: 600000}", "", TRAINING, HOLDERS ", threshold: 9", "2097152 is the most"},
        {"{name: u, type: categorical}", "", TRAINING, HOLDERS ", threshold: 9", "give it buckets"},
        {"{name: u, type: multi, weighted: true, buckets: 100}", "", TRAINING, HOLDERS ", threshold: 9", "is weighted"},
        {"{name: u, type: categorical, buckets: 100}, {name: v, type: categorical, buckets: 100, hash: {share: u}}", "", TRAINING, HOLDERS ", threshold: 9", "share rows"},
        {FEATURES, "", TRAINING, HOLDERS ", threshold: 9, phaseTimeout: 1ms", "from 100ms to 10m"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pn_error err = {""};
        ck_assert_msg(read_job(cases[i].features, cases[i].tables, cases[i].training, cases[i].privacy, &err) == PN_INVALID, "case %zu was taken", i);
        ck_assert_msg(strstr(err.text, cases[i].words) != NULL, "case %zu: %s", i, err.text);
    }
} END_TEST

START_TEST(its_keys_have_no_place_in_a_central_job) {
    struct pn_error err = {""};
    const char *text = "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data: {train: {format: csv, uri: /x, label: y}}\n  features: [" FEATURES "]\n"
                       "  model: {name: fm}\n  training: {batchSize: 100, dataShards: 2}\n  privacy: {rows: 100000, epsilon: 4, delta: 1.0e-6, dataset: d, threshold: 9, minWorkers: 3}\n";
    ck_assert(pn_job_parse(&job, text, strlen(text), "t", NULL, NULL, &err) == PN_INVALID && strstr(err.text, "aggregation: secure only") != NULL);
} END_TEST

int main(void) {
    Suite *s = suite_create("job-secure");
    TCase *c = tcase_create("secure");
    tcase_add_test(c, a_secure_job_says_the_same_when_it_is_read_again);
    tcase_add_test(c, a_secure_job_may_choose_its_rows_once_and_protect_users);
    tcase_add_test(c, without_buckets_for_votes_each_row_has_its_own);
    tcase_add_test(c, what_a_secure_job_cannot_have_is_refused_with_the_reason);
    tcase_add_test(c, its_keys_have_no_place_in_a_central_job);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    const int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
