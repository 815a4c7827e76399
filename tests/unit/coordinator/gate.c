/* Early stopping: the gate after each epoch, the best checkpoint, the way back to it. */
#include "tests/unit/coordinator/fake.h"

#define STOPPING_BY(METRIC, MODE, REST)                                                                                                                       \
    "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: lr}\nspec:\n  data:\n    train: {format: csv, uri: \"/d/a.csv\", label: click}\n"                \
    "    validation: {format: csv, uri: \"/d/b.csv\", label: click}\n    test: {format: csv, uri: \"/d/c.csv\", label: click}\n"                                    \
    "  features:\n    - {name: u, type: categorical}\n  model: {name: lr}\n"                                                                                   \
    "  training: {epochs: 6, dataShards: 2, earlyStopping: {metric: " METRIC ", patience: 2}, consistency: {mode: " MODE "}}\n  checkpoint: {keep: 2}\n" REST
#define STOPPING(MODE, REST) STOPPING_BY("auc", MODE, REST)

static const double aucs[] = {0.6, 0.7, 0.65, 0.69, 0.8, 0.8};
static const double rising[] = {0.6, 0.61, 0.62, 0.63, 0.64, 0.65};

static void two_and_two(const double *figures, uint64_t per_epoch, uint64_t steps) {
    cluster();
    W->aucs = figures;
    node("worker-0")->per_epoch = node("worker-1")->per_epoch = per_epoch;
    node("worker-0")->steps = node("worker-1")->steps = steps;
}
static double auc_of_epoch(const char *id, size_t i) { return pn_json_double(pn_json_at(pn_json_get(job(id), "history"), i), "auc", 0); }

START_TEST(training_ends_behind_the_best_epoch_and_goes_back_to_its_checkpoint) {
    two_and_two(aucs, 5, 1000);
    const char *id = submit(STOPPING("async", ""));
    run_ms(4000);
    ck_assert_str_eq(state(id), "SUCCEEDED");
    ck_assert_uint_eq(pn_json_length(pn_json_get(job(id), "history")), 4);
    ck_assert_uint_eq(pn_json_u64(job(id), "best_epoch", 0), 2);
    ck_assert_double_eq_tol(pn_json_double(job(id), "best_auc", 0), 0.7, 1e-9);
    const uint64_t best = pn_json_u64(job(id), "best_checkpoint", 0);
    ck_assert_uint_eq(node("ps-0")->restored, best);
    ck_assert_uint_eq(node("ps-1")->restored, best);
    ck_assert_uint_eq(pn_json_u64(job(id), "generation", 0), 2);
    ck_assert_double_eq_tol(pn_json_double(job(id), "test_auc", 0), 0.81, 1e-9);
    world_close();
} END_TEST

START_TEST(a_best_last_epoch_needs_no_way_back) {
    two_and_two(rising, 5, 30);
    const char *id = submit(STOPPING("async", ""));
    run_ms(6000);
    ck_assert_str_eq(state(id), "SUCCEEDED");
    ck_assert_uint_eq(pn_json_u64(job(id), "best_epoch", 0), 6);
    ck_assert_uint_eq(pn_json_u64(job(id), "generation", 0), 1);
    for (size_t i = 0; i < 6; i++) ck_assert_double_eq_tol(auc_of_epoch(id, i), rising[i], 1e-9);
    world_close();
} END_TEST

START_TEST(every_figure_has_its_direction) {
    static const struct { const char *text; uint64_t best, epochs; } by[] = {
        {STOPPING_BY("ne", "async", ""), 1, 3}, {STOPPING_BY("gauc", "async", "  validation: {groupBy: u}\n"), 2, 4}, {STOPPING_BY("mrr", "async", "  validation: {groupBy: u}\n"), 2, 4}};
    two_and_two(aucs, 5, 1000);
    const char *id = submit(by[_i].text);
    run_ms(4000);
    ck_assert_str_eq(state(id), "SUCCEEDED");
    ck_assert_uint_eq(pn_json_u64(job(id), "best_epoch", 0), by[_i].best);
    ck_assert_uint_eq(pn_json_length(pn_json_get(job(id), "history")), by[_i].epochs);
    ck_assert_double_eq_tol(pn_json_double(pn_json_at(pn_json_get(job(id), "history"), 0), "mrr", 0), 0.6, 1e-9);
    world_close();
} END_TEST

START_TEST(a_figure_that_is_not_measured_ends_the_job_at_the_first_epoch) {
    two_and_two(aucs, 5, 1000);
    W->lists = true; /* no AUC */
    const char *id = submit(STOPPING("async", ""));
    run_ms(4000);
    ck_assert_str_eq(state(id), "FAILED");
    ck_assert_str_eq(pn_json_str(job(id), "reason", ""), "earlyStopping: auc cannot be measured on the 10 rows of the validation data: it needs rows of both labels; give it such rows, or take another metric");
    ck_assert(pn_json_get(job(id), "history") == NULL);
    world_close();
} END_TEST

START_TEST(in_sync_a_producer_takes_the_steps_that_another_waits_for) {
    two_and_two(rising, 5, 36);
    const char *id = submit(STOPPING("sync", ""));
    run_ms(8000);
    ck_assert_str_eq(state(id), "SUCCEEDED");
    ck_assert_uint_eq(pn_json_length(pn_json_get(job(id), "history")), 6);
    ck_assert_uint_ge(node("worker-0")->units[0].clock, 30);
    world_close();
} END_TEST

START_TEST(an_epoch_is_measured_again_when_a_node_is_lost_meanwhile) {
    static const char *const lost[] = {"worker-0", "worker-1", "ps-0"};
    two_and_two(aucs, 5, 1000);
    const char *id = submit(STOPPING("async", ""));
    node("worker-0")->hold_evaluation = node("worker-1")->hold_evaluation = true;
    run_ms(500);
    ck_assert(pn_json_get(job(id), "history") == NULL);
    crash(lost[_i]);
    run_ms(50);
    struct node *n = boot(node(lost[_i])->role, lost[_i]);
    n->per_epoch = 5;
    n->hold_evaluation = true;
    run_ms(1000);
    ck_assert_str_eq(state(id), "RUNNING");
    node("worker-0")->hold_evaluation = node("worker-1")->hold_evaluation = false;
    run_ms(6000);
    ck_assert_str_eq(state(id), "SUCCEEDED");
    ck_assert_uint_eq(pn_json_u64(job(id), "best_epoch", 0), 2);
    ck_assert_uint_eq(pn_json_length(pn_json_get(job(id), "history")), 4);
    ck_assert_uint_eq(node("worker-0")->rash + node("worker-1")->rash, 0);
    world_close();
} END_TEST

START_TEST(a_coordinator_that_comes_back_knows_the_best_epoch) {
    two_and_two(aucs, 5, 1000);
    const char *id = submit(STOPPING("async", ""));
    for (int i = 0; i < 400 && pn_json_u64(job(id), "best_epoch", 0) < 2; i++) run_ms(10);
    for (int i = 0; i < 3; i++) {
        restart_core();
        run_ms(120 + 350 * (uint64_t)i);
    }
    run_ms(9000);
    ck_assert_str_eq(state(id), "SUCCEEDED");
    ck_assert_uint_eq(pn_json_u64(job(id), "best_epoch", 0), 2);
    ck_assert_uint_eq(pn_json_length(pn_json_get(job(id), "history")), 4);
    ck_assert_uint_eq(node("ps-0")->restored, pn_json_u64(job(id), "best_checkpoint", 0));
    world_close();
} END_TEST

int main(void) {
    TCase *c = tcase_create("gate");
    tcase_add_test(c, training_ends_behind_the_best_epoch_and_goes_back_to_its_checkpoint);
    tcase_add_test(c, a_best_last_epoch_needs_no_way_back);
    tcase_add_loop_test(c, every_figure_has_its_direction, 0, 3);
    tcase_add_test(c, a_figure_that_is_not_measured_ends_the_job_at_the_first_epoch);
    tcase_add_test(c, in_sync_a_producer_takes_the_steps_that_another_waits_for);
    tcase_add_loop_test(c, an_epoch_is_measured_again_when_a_node_is_lost_meanwhile, 0, 3);
    tcase_add_test(c, a_coordinator_that_comes_back_knows_the_best_epoch);
    return run_tests("gate", c);
}
