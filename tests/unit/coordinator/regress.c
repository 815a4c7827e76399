/* What the first library got wrong, and (two_lives_...) what its first mending got wrong. */
#include "fake.h"

START_TEST(a_checkpoint_on_demand_is_answered_when_it_is_committed_and_is_one_checkpoint) {
    cluster();
    const char *id = submit(AUDIT);
    run_ms(300);
    char path[64];
    snprintf(path, sizeof path, "/api/v1/jobs/%s/checkpoint", id);
    struct call *c = ask("POST", path, "{}");
    run_ms(1500);
    ck_assert_msg(c->answered, "nobody answered; %zu checkpoints by now", n_checkpoints(id));
    ck_assert_int_eq(c->status, 200);
    ck_assert_uint_eq(pn_json_u64(c->body, "epoch", 0), 1);
    ck_assert_uint_eq(newest(id), 1);
    world_close();
} END_TEST

START_TEST(a_checkpoint_on_demand_while_a_server_is_away_is_not_answered_with_an_old_one) {
    cluster();
    const char *id = submit(AUDIT "  checkpoint: {every: 1h, keep: 2}\n");
    run_ms(300);
    node("worker-0")->ring_full = true; /* one checkpoint by other means */
    run_ms(100);
    node("worker-0")->ring_full = false;
    run_ms(1000);
    uint64_t before = newest(id);
    ck_assert_uint_ge(before, 1);
    crash("ps-1");
    run_ms(2000);
    char path[64];
    snprintf(path, sizeof path, "/api/v1/jobs/%s/checkpoint", id);
    struct call *c = ask("POST", path, "{}");
    run_ms(500);
    ck_assert_msg(!c->answered || c->status != 200, "answered %s, which was there before", pn_json_text(c->body));
    boot(PS, "ps-1");
    run_ms(3000);
    ck_assert(c->answered);
    if (c->status == 200) ck_assert_uint_gt(pn_json_u64(c->body, "epoch", 0), before);
    world_close();
} END_TEST

START_TEST(a_scan_that_fails_once_at_the_start_forgets_no_checkpoint) {
    cluster();
    const char *id = submit(AUDIT "  checkpoint: {every: 300ms, keep: 3}\n");
    run_ms(1500);
    ck_assert_uint_ge(n_checkpoints(id), 1);
    uint64_t before = newest(id);
    W->scan_fails_kind = "checkpoint";
    restart_core();
    run_ms(200);
    ck_assert_uint_eq(newest(id), before);
    world_close();
} END_TEST

#define LR_TEXT "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: lr}\nspec:\n  data:\n    train: {format: csv, uri: \"/d/a.csv\", label: click}\n" \
    "  features:\n    - {name: a, type: categorical}\n  model: {name: lr}\n  training: {dataShards: 2}\n  publish: {model: clicks}\n"

START_TEST(a_coordinator_that_dies_during_the_second_publication_of_a_job_ends_it) {
    cluster();
    const char *id = submit(LR_TEXT "  checkpoint: {every: 300ms, keep: 3}\n");
    run_ms(1500);
    char path[64];
    snprintf(path, sizeof path, "/api/v1/jobs/%s/publish", id);
    struct call *c = ask("POST", path, "{\"force\":true}");
    run_ms(1000);
    ck_assert_int_eq(c->status, 200);
    node("ps-0")->hold_snapshot = true;
    node("worker-0")->steps = node("worker-1")->steps = 1;
    run_ms(2000);
    ck_assert_str_eq(pn_json_str(job(id), "phase", ""), "publication");
    restart_core();
    node("ps-0")->hold_snapshot = false;
    run_ms(20000);
    ck_assert_str_eq(state(id), "SUCCEEDED");
    world_close();
} END_TEST

START_TEST(a_publication_by_hand_at_the_end_of_training_evaluates_nothing_that_is_not_there) {
    cluster();
    const char *id = submit(LR_TEXT "  checkpoint: {every: 300ms, keep: 3}\n");
    run_ms(1500);
    node("ps-0")->hold_snapshot = true;
    char path[64];
    snprintf(path, sizeof path, "/api/v1/jobs/%s/publish", id);
    struct call *c = ask("POST", path, "{\"force\":true}");
    node("worker-0")->steps = node("worker-1")->steps = 1;
    run_ms(2000);
    for (int i = 0; i < 2; i++) ck_assert_ptr_null(pn_json_get(node(i ? "worker-1" : "worker-0")->plan, "evaluate"));
    node("ps-0")->hold_snapshot = false;
    run_ms(3000);
    ck_assert_int_eq(c->status, 200);
    ck_assert_str_eq(state(id), "SUCCEEDED");
    ck_assert_uint_eq(pn_json_u64(job(id), "version", 0), 2);
    world_close();
} END_TEST

START_TEST(eleven_jobs_keep_their_order_over_a_restart) {
    world_open();
    for (int i = 0; i < 11; i++) submit(AUDIT);
    restart_core();
    struct json_object *jobs = pn_json_get(ask("GET", "/api/v1/jobs", "")->body, "jobs");
    for (size_t i = 0; i < 11; i++) {
        char id[32];
        snprintf(id, sizeof id, "job-%zu", i + 1);
        ck_assert_str_eq(pn_json_str(pn_json_at(jobs, i), "id", ""), id);
    }
    world_close();
} END_TEST

START_TEST(a_file_that_the_server_did_not_name_is_in_no_checkpoint) {
    cluster();
    const char *id = submit(AUDIT "  checkpoint: {every: 300ms, keep: 3}\n");
    node("ps-1")->no_file = true;
    run_ms(1500);
    ck_assert_uint_eq(n_checkpoints(id), 0);
    world_close();
} END_TEST

START_TEST(a_late_beat_of_an_earlier_life_takes_nothing_back) {
    cluster();
    submit(AUDIT);
    run_ms(300);
    struct json_object *late = make_beat(node("ps-1"));
    pn_peer from = node("ps-1")->peer;
    crash("ps-1");
    run_ms(200);
    boot(PS, "ps-1");
    run_ms(200);
    uint64_t term = node("ps-1")->term;
    deliver(from, late);
    json_object_put(late);
    run_ms(300);
    ck_assert_uint_eq(node("ps-1")->term, term);
    world_close();
} END_TEST

START_TEST(two_lives_heard_the_wrong_way_round_are_set_right) {
    cluster();
    const char *id = submit(AUDIT);
    run_ms(300);
    struct json_object *late = make_beat(node("worker-1"));
    pn_peer from = node("worker-1")->peer;
    boot(WORKER, "worker-1");
    restart_core(); /* knows nothing of the order */
    run_ms(200);
    deliver(from, late);
    json_object_put(late);
    run_ms(5000);
    ck_assert_str_eq(state(id), "RUNNING");
    crash("worker-0");
    run_ms(3000); /* all producers are with the one that was mistaken */
    uint64_t samples = pn_json_u64(job(id), "samples", 0);
    for (int i = 0; i < 50; i++) { /* and no beat of it is ignored any more */
        run_ms(200);
        uint64_t now = pn_json_u64(job(id), "samples", 0);
        ck_assert_uint_gt(now, samples);
        samples = now;
    }
    world_close();
} END_TEST

START_TEST(dense_parameters_that_lie_about_their_width_fail_the_publication_alone) {
    cluster();
    const char *id = submit(LR_TEXT "  checkpoint: {every: 300ms, keep: 3}\n");
    run_ms(1500);
    char path[64];
    snprintf(path, sizeof path, "/api/v1/jobs/%s/publish", id);
    struct call *c = ask("POST", path, "{\"force\":true}");
    for (int i = 0; i < 200 && !c->answered; i++) { /* n = 1, dim = 0 */
        static const uint64_t lie[] = {1, 0, 0};
        if (file_exists("/c/models/clicks/1/000.dense")) file_write("/c/models/clicks/1/000.dense", lie, sizeof lie);
        run_ms(10);
    }
    ck_assert_int_eq(c->status, 503);
    world_close();
} END_TEST

START_TEST(two_models_may_use_the_same_number_one_after_the_other) {
    cluster();
    node("worker-0")->steps = node("worker-1")->steps = 3;
    char a[32], path[64];
    static char other[1200];
    snprintf(other, sizeof other, "%s", LR_TEXT);
    memcpy(strstr(other, "clicks"), "clacks", 6);
    snprintf(a, sizeof a, "%s", submit("apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: first}\nspec:\n  data:\n    train: {format: csv, uri: \"/d/a.csv\", label: click}\n"
                                       "  features:\n    - {name: a, type: categorical}\n  model: {name: lr}\n  training: {dataShards: 2}\n"));
    const char *b = submit(other); /* it publishes clacks 1 at its end */
    run_ms(6000);
    ck_assert_str_eq(state(b), "SUCCEEDED");
    ck_assert_uint_eq(pn_json_u64(job(b), "version", 0), 1);
    struct call *c = NULL;
    for (int round = 0; round < 3; round++) { /* first 1, first 2, and at once clacks 2 */
        snprintf(path, sizeof path, "/api/v1/jobs/%s/publish", round < 2 ? a : b);
        c = ask("POST", path, "{}");
        if (round == 2) run_ms(300);
        node("ps-0")->loses_idle_plans = node("ps-1")->loses_idle_plans = round == 1;
        for (int i = 0; i < 300 && !c->answered; i++) run_ms(10);
        ck_assert_int_eq(c->status, 200);
        ck_assert_uint_eq(pn_json_u64(c->body, "version", 0), round == 0 ? 1 : 2);
    }
    ck_assert(file_exists("/c/models/clacks/2/000.dense"));
    world_close();
} END_TEST

START_TEST(no_more_nodes_than_the_limit_whatever_they_are_called) {
    world_open();
    for (int i = 0; i < 600; i++) {
        struct json_object *o = json_object_new_object();
        char name[32];
        snprintf(name, sizeof name, "n%05d", 1000 - i);
        pn_json_add_str(o, "role", "serving");
        pn_json_add_str(o, "name", name);
        pn_json_add_u64(o, "incarnation", 1);
        deliver(5, o);
        json_object_put(o);
    }
    ck_assert_uint_le(pn_json_length(pn_json_get(ask("GET", "/api/v1/status", "")->body, "nodes")), 256);
    world_close();
} END_TEST

START_TEST(one_death_is_one_restart_however_many_producers_move) {
    cluster();
    const char *id = submit(AUDIT_HEAD AUDIT_TAIL TRAINING("async", 16) "  failurePolicy: {maxRestarts: 3}\n");
    run_ms(300);
    crash("worker-1");
    run_ms(3000);
    ck_assert_str_eq(state(id), "RUNNING");
    ck_assert_uint_eq(pn_json_u64(job(id), "restarts", 0), 1);
    world_close();
} END_TEST

int main(void) {
    TCase *c = tcase_create("regress");
    tcase_add_test(c, a_checkpoint_on_demand_is_answered_when_it_is_committed_and_is_one_checkpoint);
    tcase_add_test(c, a_checkpoint_on_demand_while_a_server_is_away_is_not_answered_with_an_old_one);
    tcase_add_test(c, a_scan_that_fails_once_at_the_start_forgets_no_checkpoint);
    tcase_add_test(c, a_coordinator_that_dies_during_the_second_publication_of_a_job_ends_it);
    tcase_add_test(c, a_publication_by_hand_at_the_end_of_training_evaluates_nothing_that_is_not_there);
    tcase_add_test(c, eleven_jobs_keep_their_order_over_a_restart);
    tcase_add_test(c, a_file_that_the_server_did_not_name_is_in_no_checkpoint);
    tcase_add_test(c, a_late_beat_of_an_earlier_life_takes_nothing_back);
    tcase_add_test(c, two_lives_heard_the_wrong_way_round_are_set_right);
    tcase_add_test(c, dense_parameters_that_lie_about_their_width_fail_the_publication_alone);
    tcase_add_test(c, two_models_may_use_the_same_number_one_after_the_other);
    tcase_add_test(c, no_more_nodes_than_the_limit_whatever_they_are_called);
    tcase_add_test(c, one_death_is_one_restart_however_many_producers_move);
    return run_tests("regress", c);
}
