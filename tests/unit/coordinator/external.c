/* Jobs whose producers are client processes. */
#include "fake.h"

#define EXTERNAL(shards, more) "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: e}\nspec:\n  data: {external: true}\n  tables: {t: {dim: 4}}\n" \
                               "  model: {name: external}\n  training: {dataShards: " #shards "}\n" more

static size_t units_of(const char *worker) { return pn_json_length(pn_json_get(pn_json_get(node(worker)->plan, "job"), "producers")); }
static struct json_object *unit_of(const char *worker) { return pn_json_at(pn_json_get(pn_json_get(node(worker)->plan, "job"), "producers"), 0); }
static uint64_t restarts(const char *id) { return pn_json_u64(job(id), "restarts", 99); }
static const char *told(const char *client) { return pn_json_str(pn_json_get(node(client)->plan, "external"), "state", "?"); }

static char id[32];
static void start(const char *text) {
    cluster();
    snprintf(id, sizeof id, "%s", submit(text));
    run_ms(300);
}
static struct node *client(const char *name) {
    struct node *n = boot(WORKER, name);
    n->serves = id;
    run_ms(200);
    return n;
}

START_TEST(an_external_job_runs_without_workers_and_none_is_given_its_producers) {
    start(EXTERNAL(2, ""));
    ck_assert_str_eq(state(id), "RUNNING");
    ck_assert(pn_json_get(node("worker-0")->plan, "job") == NULL && pn_json_get(node("worker-1")->plan, "job") == NULL);
    ck_assert_str_eq(pn_json_str(pn_json_get(node("ps-0")->plan, "job"), "id", ""), id);
    world_close();
} END_TEST

START_TEST(each_client_gets_as_many_producers_as_it_takes) {
    start(EXTERNAL(2, ""));
    client("c-0");
    ck_assert_uint_eq(units_of("c-0"), 1);
    client("c-1");
    client("c-2");
    ck_assert(units_of("c-0") == 1 && units_of("c-1") == 1 && units_of("c-2") == 0);
    ck_assert_str_eq(told("c-2"), "RUNNING");
    ck_assert_ptr_nonnull(pn_json_get(node("c-2")->plan, "job")); /* it may read */
    world_close();
} END_TEST

START_TEST(a_client_takes_nothing_of_a_job_that_it_did_not_come_for) {
    cluster();
    snprintf(id, sizeof id, "job-7");
    client("lost");
    ck_assert_str_eq(told("lost"), "UNKNOWN");
    snprintf(id, sizeof id, "%s", submit(AUDIT));
    client("wrong");
    run_ms(300);
    ck_assert_str_eq(told("wrong"), "NOT_EXTERNAL");
    ck_assert(units_of("worker-0") + units_of("worker-1") == 2 && units_of("wrong") == 0);
    world_close();
} END_TEST

START_TEST(a_client_that_dies_frees_its_producer_for_the_next_without_a_restart_of_the_job) {
    start(EXTERNAL(1, "  checkpoint: {every: 500ms, keep: 3}\n  failurePolicy: {maxRestarts: 0}\n"));
    client("c-0");
    run_ms(1500);
    ck_assert_uint_ge(n_checkpoints(id), 1);
    crash("c-0");
    run_ms(2500);
    uint64_t before = newest(id);
    run_ms(1500);
    ck_assert_uint_gt(newest(id), before); /* checkpoints go on while it is nobody's */
    client("c-1");
    ck_assert_uint_eq(units_of("c-1"), 1);
    ck_assert(pn_json_u64(unit_of("c-1"), "incarnation", 0) == 2 && pn_json_u64(unit_of("c-1"), "first_step", 0) > 1);
    ck_assert_str_eq(state(id), "RUNNING");
    ck_assert_uint_eq(restarts(id), 0);
    world_close();
} END_TEST

START_TEST(who_waits_gets_a_producer_that_becomes_free) {
    start(EXTERNAL(1, ""));
    client("c-0");
    client("c-1");
    ck_assert_uint_eq(units_of("c-1"), 0);
    crash("c-0");
    run_ms(2500);
    ck_assert_uint_eq(units_of("c-1"), 1);
    world_close();
} END_TEST

START_TEST(a_client_that_leaves_is_gone_at_once) {
    start(EXTERNAL(1, ""));
    client("c-0");
    client("c-1");
    node("c-0")->leaving = true;
    run_ms(50);
    crash("c-0");
    run_ms(150);
    ck_assert_uint_eq(units_of("c-1"), 1);
    struct call *c = ask("GET", "/api/v1/status", "");
    ck_assert_ptr_null(strstr(pn_json_text(c->body), "\"c-0\""));
    world_close();
} END_TEST

START_TEST(a_client_that_comes_back_by_its_name_gets_its_producer_at_once) {
    start(EXTERNAL(1, ""));
    client("c-0");
    client("c-1");
    node("c-0")->up = false;
    client("c-0");
    run_ms(100);
    ck_assert_uint_eq(units_of("c-0") + units_of("c-1"), 1);
    const char *owner = units_of("c-0") == 1 ? "c-0" : "c-1";
    ck_assert_uint_eq(pn_json_u64(unit_of(owner), "incarnation", 0), 2);
    world_close();
} END_TEST

START_TEST(the_job_ends_with_a_final_checkpoint_when_all_producers_have_finished) {
    start(EXTERNAL(2, ""));
    client("c-0")->steps = 5;
    run_ms(1000);
    ck_assert_str_eq(state(id), "RUNNING"); /* the other has not even come */
    client("c-1")->steps = 5;
    run_ms(1500);
    ck_assert_str_eq(state(id), "SUCCEEDED");
    ck_assert_str_eq(told("c-0"), "SUCCEEDED");
    world_close();
} END_TEST

START_TEST(a_finish_that_no_checkpoint_holds_is_lost_with_its_client_and_one_that_is_held_stays) {
    start(EXTERNAL(2, ""));
    client("c-0")->steps = 5;
    run_ms(500);
    node("c-0")->hold_drain = true; /* no checkpoint comes about */
    crash("c-0");
    run_ms(2500);
    client("c-2")->steps = 5;
    ck_assert(units_of("c-2") == 1 && pn_json_u64(unit_of("c-2"), "first_step", 0) == 1);
    node("c-2")->ring_full = true; /* wants a checkpoint */
    run_ms(1500);
    ck_assert_uint_ge(n_checkpoints(id), 1);
    crash("c-2");
    run_ms(2500);
    client("c-3")->steps = 5; /* gets the other one */
    run_ms(1500);
    ck_assert_str_eq(state(id), "SUCCEEDED");
    world_close();
} END_TEST

START_TEST(a_coordinator_that_comes_back_leaves_clients_alone) {
    start(EXTERNAL(1, ""));
    client("c-0");
    restart_core();
    run_ms(3000);
    ck_assert_uint_eq(units_of("c-0"), 1);
    ck_assert_uint_eq(pn_json_u64(unit_of("c-0"), "incarnation", 0), 1);
    world_close();
} END_TEST

START_TEST(an_external_job_is_not_published) {
    start(EXTERNAL(1, ""));
    client("c-0")->steps = 5;
    run_ms(1500);
    char path[80];
    snprintf(path, sizeof path, "/api/v1/jobs/%s/publish", id);
    struct call *c = ask("POST", path, "{}");
    ck_assert_int_eq(c->status, 409);
    ck_assert_ptr_nonnull(strstr(pn_json_text(c->body), "external"));
    world_close();
} END_TEST

int main(void) {
    TCase *c = tcase_create("external");
    tcase_add_test(c, an_external_job_runs_without_workers_and_none_is_given_its_producers);
    tcase_add_test(c, each_client_gets_as_many_producers_as_it_takes);
    tcase_add_test(c, a_client_takes_nothing_of_a_job_that_it_did_not_come_for);
    tcase_add_test(c, a_client_that_dies_frees_its_producer_for_the_next_without_a_restart_of_the_job);
    tcase_add_test(c, who_waits_gets_a_producer_that_becomes_free);
    tcase_add_test(c, a_client_that_leaves_is_gone_at_once);
    tcase_add_test(c, a_client_that_comes_back_by_its_name_gets_its_producer_at_once);
    tcase_add_test(c, the_job_ends_with_a_final_checkpoint_when_all_producers_have_finished);
    tcase_add_test(c, a_finish_that_no_checkpoint_holds_is_lost_with_its_client_and_one_that_is_held_stays);
    tcase_add_test(c, a_coordinator_that_comes_back_leaves_clients_alone);
    tcase_add_test(c, an_external_job_is_not_published);
    return run_tests("external", c);
}
