/* The learning curve's points of validation: an epoch each, with what was measured and nothing else; they are thinned, and come back with a record, also with one of before. */
#include <math.h>
#include "tests/unit/coordinator/fake.h"

#define JOB(TRAINING, VALIDATION)                                                                                                                              \
    "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: lr}\nspec:\n  data:\n    train: {format: csv, uri: \"/d/a.csv\", label: click}\n"                \
    "    validation: {format: csv, uri: \"/d/b.csv\", label: click}\n    test: {format: csv, uri: \"/d/c.csv\", label: click}\n"                                    \
    "  features:\n    - {name: u, type: categorical}\n  model: {name: lr}\n  training: {dataShards: 2, " TRAINING "}\n" VALIDATION
#define RANKING JOB("epochs: 6, earlyStopping: {metric: ndcg@10, patience: 2}", "  validation: {groupBy: u}\n")
#define LONG JOB("epochs: 100000", "")

static struct json_object *points(const char *id) { return pn_json_get(pn_json_get(job(id), "curve"), "validation"); }
static double at(const char *id, size_t i, const char *key) { return pn_json_double(pn_json_at(points(id), i), key, NAN); }
static bool has(struct json_object *o, const char *part, const char *figure) {
    char key[64];
    snprintf(key, sizeof key, "%s%s", part, figure);
    return pn_json_get(o, key) != NULL;
}
static bool in_metrics(const char *text) { return strstr(json_object_get_string(ask("GET", "/metrics", "")->body), text) != NULL; }

/* A beat of worker-0 says that this was measured behind that epoch. */
static void measured(uint64_t epoch, const char *figures) {
    char text[200];
    snprintf(text, sizeof text, "{\"task\":\"validation\",\"state\":\"done\",\"epoch\":%" PRIu64 ",%s,\"rows\":10}", epoch, figures);
    node("worker-0")->validation = text;
    struct json_object *o = make_beat(node("worker-0"));
    node("worker-0")->validation = NULL;
    deliver(node("worker-0")->peer, o);
    json_object_put(o);
}
static const char *long_job(void) {
    cluster();
    node("worker-0")->steps = node("worker-1")->steps = 1000000;
    const char *id = submit(LONG);
    run_ms(300);
    ck_assert_str_eq(state(id), "RUNNING");
    return id;
}

START_TEST(a_job_that_ranks_lists_has_their_figures_and_none_that_was_not_measured) {
    static const double ndcg[] = {0.6, 0.7, 0.7, 0.7, 0, 0};
    cluster();
    W->aucs = ndcg;
    W->lists = true;
    node("worker-0")->per_epoch = node("worker-1")->per_epoch = 5;
    node("worker-0")->steps = node("worker-1")->steps = 1000;
    const char *id = submit(RANKING);
    for (int i = 0; i < 400 && pn_json_u64(job(id), "best_epoch", 0) < 2; i++) run_ms(10);
    ck_assert(in_metrics("pinion_job_ndcg{job=\"job-1\"} 0.7\n"));
    ck_assert(!in_metrics("pinion_job_auc") && !in_metrics("pinion_job_logloss") && !in_metrics("pinion_job_head1_auc"));
    run_ms(4000);
    ck_assert_str_eq(state(id), "SUCCEEDED");
    ck_assert_uint_eq(pn_json_length(points(id)), 4); /* equal figures, two epochs; the last one, too */
    for (size_t i = 0; i < 4; i++) {
        ck_assert_double_eq(at(id, i, "epoch"), (double)(i + 1));
        ck_assert_double_eq(at(id, i, "ndcg"), ndcg[i]);
        ck_assert(!has(pn_json_at(points(id), i), "", "auc") && !has(pn_json_at(points(id), i), "", "logloss"));
    }
    struct json_object *o = job(id);
    static const char *const parts[] = {"validation_", "test_", "best_"};
    for (size_t i = 0; i < 3; i++) ck_assert(has(o, parts[i], "ndcg") && !has(o, parts[i], "auc") && !has(o, parts[i], "logloss") && !has(o, parts[i], "head1_auc"));
    ck_assert_str_eq(pn_json_str(o, "stop_by", ""), "ndcg@10");
    ck_assert_uint_eq(pn_json_u64(o, "rank_k", 0), 10);
    world_close();
} END_TEST

START_TEST(a_point_is_an_epoch_not_a_value) {
    const char *id = long_job();
    for (uint64_t e = 1; e <= 3; e++)
        for (int i = 0; i < 5; i++) measured(e, "\"auc\":0.75,\"logloss\":0.5");
    ck_assert_uint_eq(pn_json_length(points(id)), 3);
    measured(2, "\"auc\":0.1,\"logloss\":0.9"); /* of a worker that did the epoch again after another one's death */
    ck_assert_uint_eq(pn_json_length(points(id)), 3);
    ck_assert_double_eq(at(id, 1, "auc"), 0.75);
    ck_assert_double_eq(pn_json_double(job(id), "validation_auc", 0), 0.75);
    measured(4, "\"hr\":0.5"); /* nothing else was measured */
    ck_assert_double_eq(at(id, 3, "hr"), 0.5);
    ck_assert(!has(pn_json_at(points(id), 3), "", "auc") && !has(job(id), "validation_", "auc"));
    world_close();
} END_TEST

START_TEST(points_are_thinned_and_the_newest_stays) {
    const char *id = long_job();
    const size_t last = 3003;
    for (uint64_t e = 1; e <= last; e++) measured(e, "\"auc\":0.75,\"logloss\":0.5");
    const size_t n = pn_json_length(points(id));
    ck_assert_uint_lt(n, 400);
    ck_assert_uint_ge(n, 180);
    ck_assert_double_eq(at(id, n - 1, "epoch"), (double)last);
    for (size_t i = 1; i + 1 < n; i++) ck_assert_double_eq(at(id, i, "epoch") - at(id, i - 1, "epoch"), 8); /* three times there were 400 points: 200 are left, of twice the distance */
    world_close();
} END_TEST

START_TEST(behind_a_way_back_an_epoch_takes_its_old_points_place) {
    const char *id = long_job();
    ask("POST", "/api/v1/jobs/job-1/checkpoint", "");
    run_ms(500);
    ck_assert_uint_ge(n_checkpoints(id), 1);
    for (uint64_t e = 1; e <= 5; e++) measured(e, "\"auc\":0.75,\"logloss\":0.5");
    ck_assert_int_eq(ask("POST", "/api/v1/jobs/job-1/restore", "{}")->status, 200);
    run_ms(500);
    ck_assert_uint_eq(pn_json_u64(job(id), "generation", 0), 2);
    measured(3, "\"auc\":0.8,\"logloss\":0.5");
    ck_assert_uint_eq(pn_json_length(points(id)), 3);
    ck_assert_double_eq(at(id, 1, "auc"), 0.75);
    ck_assert_double_eq(at(id, 2, "auc"), 0.8);
    world_close();
} END_TEST

/* The job's record with other texts for `curve` and `test`. */
static void rewrite(const char *curve, const char *test) {
    for (size_t i = 0; i < W->durable.n; i++) {
        struct record *r = &W->durable.all[i];
        if (strcmp(r->kind, "job") != 0) continue;
        struct json_object *o = pn_json_parse(r->json, strlen(r->json), NULL);
        pn_json_add(o, "curve", pn_json_parse(curve, strlen(curve), NULL));
        pn_json_add(o, "test", pn_json_parse(test, strlen(test), NULL));
        free(r->json);
        r->json = strdup(pn_json_text(o));
        json_object_put(o);
    }
}

START_TEST(a_record_of_before_is_read_and_its_zeros_are_dropped) {
    const char *id = long_job();
    ask("POST", "/api/v1/jobs/job-1/cancel", "");
    run_ms(300);
    rewrite("{\"train\":[[1.5,100,0.7]],\"validation\":[[2,200,0.75,0.5],[3,300,0,0],[4,400,0.5,0]],\"distance_ms\":250}",
            "{\"auc\":0,\"logloss\":0,\"head1_auc\":0,\"head2_auc\":0,\"head3_auc\":0,\"hr\":0.5,\"ndcg\":0,\"rows\":10}");
    restart_core();
    run_ms(300);
    ck_assert_uint_eq(pn_json_length(points(id)), 2); /* of what measured nothing there is no point */
    ck_assert_double_eq(at(id, 0, "auc"), 0.75);
    ck_assert_double_eq(at(id, 0, "logloss"), 0.5);
    ck_assert_double_eq(at(id, 0, "seconds"), 2);
    ck_assert_double_eq(at(id, 0, "samples"), 200);
    ck_assert(!has(pn_json_at(points(id), 0), "", "epoch"));
    ck_assert_double_eq(at(id, 1, "auc"), 0.5); /* SASRec's */
    ck_assert(!has(pn_json_at(points(id), 1), "", "logloss"));
    struct json_object *o = job(id);
    ck_assert(!has(o, "test_", "auc") && !has(o, "test_", "logloss") && !has(o, "test_", "head1_auc"));
    ck_assert_double_eq(pn_json_double(o, "test_hr", 0), 0.5);
    ck_assert_double_eq(pn_json_double(o, "test_ndcg", 1), 0); /* measured: nobody's item was among the first */
    restart_core(); /* and as it is written now */
    run_ms(300);
    ck_assert_uint_eq(pn_json_length(points(id)), 2);
    ck_assert_double_eq(at(id, 1, "samples"), 400);
    world_close();
} END_TEST

START_TEST(points_go_on_behind_those_of_an_old_record) {
    const char *id = long_job();
    measured(1, "\"auc\":0.5,\"logloss\":0.7");
    ask("POST", "/api/v1/jobs/job-1/checkpoint", "");
    run_ms(500);
    rewrite("{\"validation\":[[2,200,0.75,0.5],[3,300,0.76,0.5]],\"distance_ms\":250}", "null");
    restart_core();
    run_ms(2000); /* it listens for a lease first */
    for (uint64_t e = 3; e <= 5; e++) measured(e, "\"auc\":0.8,\"logloss\":0.4");
    ck_assert_uint_eq(pn_json_length(points(id)), 5);
    ck_assert_double_eq(at(id, 1, "auc"), 0.76);
    ck_assert_double_eq(at(id, 4, "epoch"), 5);
    world_close();
} END_TEST

int main(void) {
    TCase *c = tcase_create("curve");
    tcase_add_test(c, a_job_that_ranks_lists_has_their_figures_and_none_that_was_not_measured);
    tcase_add_test(c, a_point_is_an_epoch_not_a_value);
    tcase_add_test(c, points_are_thinned_and_the_newest_stays);
    tcase_add_test(c, behind_a_way_back_an_epoch_takes_its_old_points_place);
    tcase_add_test(c, a_record_of_before_is_read_and_its_zeros_are_dropped);
    tcase_add_test(c, points_go_on_behind_those_of_an_old_record);
    return run_tests("curve", c);
}
