#include "fake.h"

static uint64_t term_of(const char *ps) { return pn_json_u64(pn_json_get(node(ps)->plan, "job"), "term", 0); }
static size_t units_of(const char *worker) { return pn_json_length(pn_json_get(pn_json_get(node(worker)->plan, "job"), "producers")); }
static struct json_object *unit_of(const char *worker, size_t i) { return pn_json_at(pn_json_get(pn_json_get(node(worker)->plan, "job"), "producers"), i); }
static uint64_t generation(void) { return pn_json_u64(pn_json_get(node("ps-0")->plan, "job"), "generation", 0); }

static bool alive(const char *name) {
    struct json_object *nodes = pn_json_get(ask("GET", "/api/v1/status", "")->body, "nodes");
    for (size_t i = 0; i < pn_json_length(nodes); i++)
        if (strcmp(pn_json_str(pn_json_at(nodes, i), "name", ""), name) == 0) return pn_json_bool(pn_json_at(nodes, i), "alive", false);
    return false;
}

START_TEST(a_job_gets_all_servers_and_deals_its_producers) {
    cluster();
    const char *id = submit(AUDIT);
    run_ms(300);
    ck_assert_str_eq(state(id), "RUNNING");
    ck_assert_str_eq(pn_json_str(pn_json_get(node("ps-0")->plan, "job"), "owner", ""), "0-511");
    ck_assert_str_eq(pn_json_str(pn_json_get(node("ps-1")->plan, "job"), "owner", ""), "512-1023");
    ck_assert_uint_ne(term_of("ps-0"), term_of("ps-1"));
    ck_assert_uint_eq(units_of("worker-0"), 1);
    ck_assert_uint_eq(units_of("worker-1"), 1);
    ck_assert_uint_eq(pn_json_u64(unit_of("worker-0", 0), "first_step", 0), 1);
    ck_assert_uint_gt(pn_json_u64(job(id), "samples", 0), 0);
    world_close();
} END_TEST

START_TEST(a_job_waits_until_a_server_and_a_worker_are_there) {
    world_open();
    const char *id = submit(AUDIT);
    boot(PS, "ps-0");
    run_ms(300);
    ck_assert_str_eq(state(id), "PENDING");
    boot(WORKER, "worker-0");
    run_ms(300);
    ck_assert_str_eq(state(id), "RUNNING");
    ck_assert_uint_eq(units_of("worker-0"), 2);
    world_close();
} END_TEST

START_TEST(a_job_that_begins_is_not_restarting) {
    cluster();
    node("ps-0")->open_code = "io"; /* it takes its time to open */
    const char *id = submit(AUDIT);
    while (pn_json_get(node("ps-0")->plan, "job") == NULL) run_ms(1);
    ck_assert_str_eq(state(id), "RUNNING");
    ck_assert_uint_eq(pn_json_u64(job(id), "samples", 0), 0);
    node("ps-0")->open_code = NULL;
    run_ms(2000);
    ck_assert_str_eq(state(id), "RUNNING");
    ck_assert_uint_gt(pn_json_u64(job(id), "samples", 0), 0);
    world_close();
} END_TEST

START_TEST(nobody_is_dead_because_the_coordinator_stood_still) {
    cluster();
    const char *id = submit(AUDIT);
    run_ms(300);
    const uint64_t owner = pn_json_u64(unit_of("worker-0", 0), "incarnation", 0);
    crash("ps-1");
    W->now_ns += 5000000000u; /* the beats of that time have not been read */
    run_ms(300);
    ck_assert_uint_eq(pn_json_u64(job(id), "restarts", 99), 0);
    ck_assert_uint_eq(pn_json_u64(unit_of("worker-0", 0), "incarnation", 0), owner);
    ck_assert(alive("worker-0") && alive("ps-1")); /* not for as long as a lease */
    run_ms(2000);
    ck_assert(alive("worker-0") && !alive("ps-1"));
    world_close();
} END_TEST

START_TEST(jobs_run_one_after_the_other) {
    cluster();
    char first[32], second[32];
    snprintf(first, sizeof first, "%s", submit(AUDIT));
    snprintf(second, sizeof second, "%s", submit(AUDIT));
    run_ms(300);
    ck_assert_str_eq(state(first), "RUNNING");
    ck_assert_str_eq(state(second), "PENDING");
    node("worker-0")->steps = node("worker-1")->steps = 3;
    run_ms(2000);
    ck_assert_str_eq(state(first), "SUCCEEDED");
    ck_assert_str_eq(state(second), "SUCCEEDED");
    world_close();
} END_TEST

START_TEST(a_finished_job_has_a_final_checkpoint_and_the_servers_keep_it_open) {
    cluster();
    node("worker-0")->steps = node("worker-1")->steps = 5;
    const char *id = submit(AUDIT);
    run_ms(1500);
    ck_assert_str_eq(state(id), "SUCCEEDED");
    ck_assert_uint_eq(n_checkpoints(id), 1);
    ck_assert(pn_json_get(node("worker-0")->plan, "job") == NULL);
    ck_assert_str_eq(pn_json_str(pn_json_get(node("ps-0")->plan, "job"), "id", ""), id);
    world_close();
} END_TEST

START_TEST(the_producers_of_a_dead_worker_go_on_elsewhere_with_a_higher_incarnation) {
    cluster();
    const char *id = submit(AUDIT);
    run_ms(300);
    uint64_t lost = pn_json_u64(unit_of("worker-1", 0), "producer", 99), before = pn_json_u64(unit_of("worker-1", 0), "incarnation", 0);
    crash("worker-1");
    run_ms(3000);
    ck_assert_str_eq(state(id), "RUNNING");
    ck_assert_uint_eq(units_of("worker-0"), 2);
    for (size_t i = 0; i < 2; i++)
        if (pn_json_u64(unit_of("worker-0", i), "producer", 99) == lost) ck_assert_uint_eq(pn_json_u64(unit_of("worker-0", i), "incarnation", 0), before + 1);
    world_close();
} END_TEST

START_TEST(a_worker_that_comes_back_takes_its_producers_again) {
    cluster();
    submit(AUDIT);
    run_ms(300);
    uint64_t before = pn_json_u64(unit_of("worker-1", 0), "incarnation", 0);
    crash("worker-1");
    run_ms(300);
    boot(WORKER, "worker-1");
    run_ms(300);
    ck_assert_uint_eq(units_of("worker-1"), 1);
    ck_assert_uint_gt(pn_json_u64(unit_of("worker-1", 0), "incarnation", 0), before);
    world_close();
} END_TEST

START_TEST(a_producer_that_moves_begins_behind_the_committed_cut) {
    cluster();
    const char *id = submit(AUDIT "  checkpoint: {every: 500ms, keep: 3}\n");
    run_ms(1200);
    ck_assert_uint_ge(n_checkpoints(id), 1);
    crash("worker-1");
    run_ms(2500);
    struct json_object *committed = pn_json_get(pn_json_get(node("worker-0")->plan, "job"), "committed");
    for (size_t i = 0; i < units_of("worker-0"); i++) {
        struct json_object *u = unit_of("worker-0", i);
        if (pn_json_u64(u, "incarnation", 0) == 1) continue;
        uint64_t step = json_object_get_uint64(pn_json_at(pn_json_get(committed, "steps"), pn_json_u64(u, "producer", 0)));
        ck_assert_uint_gt(pn_json_u64(u, "first_step", 0), 1);
        ck_assert_uint_le(pn_json_u64(u, "first_step", 0), step + 1);
    }
    world_close();
} END_TEST

START_TEST(a_server_that_lost_its_memory_gets_a_new_term_and_the_last_checkpoint) {
    cluster();
    const char *id = submit(AUDIT "  checkpoint: {every: 500ms, keep: 3}\n");
    run_ms(1200);
    uint64_t term = term_of("ps-1"), other = term_of("ps-0"), epoch = newest(id);
    crash("ps-1");
    run_ms(300);
    boot(PS, "ps-1");
    run_ms(200);
    ck_assert_str_eq(state(id), "RUNNING");
    ck_assert_uint_gt(term_of("ps-1"), term);
    ck_assert_uint_eq(term_of("ps-0"), other); /* nobody else reopens */
    ck_assert_uint_ge(node("ps-1")->restored, epoch);
    ck_assert_uint_eq(generation(), 1);
    ck_assert_uint_eq(pn_json_u64(pn_json_at(pn_json_get(pn_json_get(node("worker-0")->plan, "job"), "shards"), 1), "term", 0), term_of("ps-1"));
    world_close();
} END_TEST

START_TEST(a_job_whose_server_is_away_says_so_and_waits_for_it) {
    cluster();
    const char *id = submit(AUDIT);
    run_ms(300);
    crash("ps-0");
    run_ms(5000);
    ck_assert_str_eq(state(id), "RUNNING");
    boot(PS, "ps-0")->open_code = "io";
    run_ms(100);
    ck_assert_str_eq(state(id), "RESTARTING");
    node("ps-0")->open_code = NULL;
    run_ms(2000); /* tried again with another term */
    ck_assert_str_eq(state(id), "RUNNING");
    world_close();
} END_TEST

START_TEST(a_damaged_checkpoint_is_marked_and_the_one_before_is_used_with_a_new_generation) {
    cluster();
    const char *id = submit(AUDIT "  checkpoint: {every: 400ms, keep: 5}\n");
    run_ms(1600);
    ck_assert_uint_ge(n_checkpoints(id), 2);
    crash("ps-1");
    run_ms(60);
    uint64_t bad = newest(id);
    struct node *n = boot(PS, "ps-1");
    n->open_code = "corrupt";
    n->open_fails_from = bad;
    run_ms(300);
    ck_assert_uint_eq(generation(), 2);
    ck_assert_uint_lt(n->restored, bad);
    ck_assert_uint_gt(n->restored, 0);
    struct json_object *list = pn_json_get(job(id), "checkpoints");
    bool marked = false;
    for (size_t i = 0; i < pn_json_length(list); i++)
        if (pn_json_u64(pn_json_at(list, i), "epoch", 0) == bad) marked = pn_json_bool(pn_json_at(list, i), "bad", false);
    ck_assert(marked);
    run_ms(1000);
    ck_assert_str_eq(state(id), "RUNNING");
    ck_assert_uint_gt(newest(id), bad); /* numbers are not used again */
    world_close();
} END_TEST

START_TEST(a_worker_that_cannot_go_on_fails_the_job_with_its_line) {
    cluster();
    const char *id = submit(AUDIT);
    run_ms(200);
    node("worker-1")->job_error = "nowhere.csv: there is no such file";
    run_ms(200);
    ck_assert_str_eq(state(id), "FAILED");
    ck_assert_str_eq(pn_json_str(job(id), "reason", ""), "nowhere.csv: there is no such file");
    world_close();
} END_TEST

START_TEST(too_many_restarts_fail_the_job) {
    cluster();
    const char *id = submit(AUDIT "  failurePolicy: {maxRestarts: 2}\n");
    for (int i = 0; i < 4; i++) {
        run_ms(300);
        crash("ps-1");
        run_ms(100);
        boot(PS, "ps-1");
    }
    run_ms(300);
    ck_assert_str_eq(state(id), "FAILED");
    ck_assert_ptr_nonnull(strstr(pn_json_str(job(id), "reason", ""), "maxRestarts"));
    world_close();
} END_TEST

START_TEST(a_coordinator_that_comes_back_leaves_what_runs_alone) {
    cluster();
    const char *id = submit(AUDIT "  checkpoint: {every: 500ms, keep: 3}\n");
    run_ms(1500);
    uint64_t t0 = term_of("ps-0"), t1 = term_of("ps-1"), epoch = W->plan_epoch, g = generation(), clock = node("worker-0")->units[0].clock + node("worker-0")->units[1].clock;
    restart_core();
    run_ms(2500);
    ck_assert_uint_eq(W->plan_epoch, epoch + 1);
    ck_assert_uint_eq(term_of("ps-0"), t0);
    ck_assert_uint_eq(term_of("ps-1"), t1);
    ck_assert_uint_eq(generation(), g);
    ck_assert_uint_gt(node("worker-0")->units[0].clock + node("worker-0")->units[1].clock, clock);
    ck_assert_str_eq(state(id), "RUNNING");
    ck_assert_uint_ge(n_checkpoints(id), 2);
    world_close();
} END_TEST

START_TEST(a_coordinator_may_come_back_at_any_moment_of_a_job) {
    for (unsigned at = 100; at < 1500; at += 70) {
        cluster();
        node("worker-0")->steps = node("worker-1")->steps = 8;
        const char *id = submit(AUDIT "  checkpoint: {every: 200ms, keep: 2}\n");
        run_ms(at);
        restart_core();
        run_ms(10000);
        ck_assert_str_eq(state(id), "SUCCEEDED");
        struct json_object *k = durable("job", id);
        ck_assert_ptr_nonnull(k);
        json_object_put(k);
        world_close();
    }
} END_TEST

START_TEST(two_lives_of_a_coordinator_give_rising_epochs_terms_and_checkpoint_numbers) {
    cluster();
    const char *id = submit(AUDIT "  checkpoint: {every: 300ms, keep: 2}\n");
    uint64_t epoch = 0, checkpoint = 0;
    for (int i = 0; i < 4; i++) {
        run_ms(3000);
        ck_assert_uint_gt(W->plan_epoch, epoch);
        ck_assert_uint_gt(newest(id), checkpoint);
        epoch = W->plan_epoch;
        checkpoint = newest(id);
        restart_core();
    }
    run_ms(2000);
    world_close();
} END_TEST

START_TEST(with_a_full_store_nothing_new_is_decided_and_training_goes_on) {
    cluster();
    const char *id = submit(AUDIT);
    run_ms(500);
    uint64_t term = term_of("ps-1");
    W->store_full = true;
    crash("ps-1");
    run_ms(200);
    boot(PS, "ps-1");
    run_ms(500); /* every plan is checked against the store */
    ck_assert(node("ps-1")->plan == NULL || term_of("ps-1") == term);
    ck_assert_int_eq(submit_text(AUDIT, "another")->status, 503);
    W->store_full = false;
    run_ms(500);
    ck_assert_uint_gt(term_of("ps-1"), term);
    ck_assert_str_eq(state(id), "RUNNING");
    ck_assert_int_eq(submit_text(AUDIT, "another")->status, 201);
    world_close();
} END_TEST

START_TEST(any_one_failed_commit_only_costs_time) {
    for (unsigned n = 1; n < 25; n++) {
        cluster();
        node("worker-0")->steps = node("worker-1")->steps = 8;
        const char *id = submit(AUDIT "  checkpoint: {every: 200ms, keep: 2}\n");
        W->fail_commit = n;
        run_ms(4000);
        ck_assert_str_eq(state(id), "SUCCEEDED");
        world_close();
    }
} END_TEST

START_TEST(the_epoch_is_durable_before_anything_is_answered) {
    W = calloc(1, sizeof *W);
    W->env.ops = &fake_ops;
    W->store.ops = &fake_store_ops;
    W->store_full = true;
    start_core();
    boot(PS, "ps-0");
    boot(WORKER, "worker-0");
    run_ms(500);
    ck_assert_uint_eq(W->n_plans, 0);
    ck_assert_int_eq(ask("GET", "/api/v1/status", "")->status, 503);
    W->store_full = false;
    run_ms(500);
    ck_assert_uint_gt(W->n_plans, 0);
    ck_assert_uint_eq(W->plan_epoch, 1);
    world_close();
} END_TEST

START_TEST(a_lost_plan_is_sent_again_until_it_is_named) {
    cluster();
    submit(AUDIT);
    struct node *n = node("ps-1");
    run_ms(50);
    n->epoch = n->revision = 0; /* as if it had never come */
    json_object_put(n->plan);
    n->plan = NULL;
    run_ms(100);
    ck_assert_ptr_nonnull(n->plan);
    uint64_t sent = W->n_plans;
    for (size_t i = 0; i < W->n_nodes; i++) W->nodes[i].hold_drain = true;
    run_ms(500);
    ck_assert_uint_eq(W->n_plans, sent); /* and not without need */
    world_close();
} END_TEST

START_TEST(evaluation_goes_to_another_worker_when_its_worker_dies) {
    cluster();
    node("worker-0")->steps = node("worker-1")->steps = 3;
    boot(WORKER, "worker-0")->hold_evaluation = true;
    boot(WORKER, "worker-1")->hold_evaluation = true;
    const char *id = submit("apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: lr}\nspec:\n  data:\n    train: {format: csv, uri: \"/d/a.csv\", label: click}\n"
                            "    validation: {format: csv, uri: \"/d/b.csv\", label: click}\n    test: {format: csv, uri: \"/d/c.csv\", label: click}\n"
                            "  features:\n    - {name: a, type: categorical}\n  model: {name: lr}\n  training: {dataShards: 2}\n");
    run_ms(1500);
    const char *first = pn_json_get(node("worker-0")->plan, "evaluate") != NULL ? "worker-0" : "worker-1", *second = first[7] == '0' ? "worker-1" : "worker-0";
    ck_assert_ptr_nonnull(pn_json_get(node(first)->plan, "evaluate"));
    ck_assert(pn_json_get(node(second)->plan, "evaluate") == NULL);
    crash(first);
    run_ms(2500);
    ck_assert_ptr_nonnull(pn_json_get(node(second)->plan, "evaluate"));
    node(second)->hold_evaluation = false;
    run_ms(500);
    ck_assert_str_eq(state(id), "SUCCEEDED");
    ck_assert_double_eq(pn_json_double(job(id), "validation_auc", 0), 0.79);
    ck_assert_double_eq(pn_json_double(job(id), "test_auc", 0), 0.81);
    world_close();
} END_TEST

START_TEST(a_server_that_dies_behind_the_final_checkpoint_does_not_keep_the_job_from_its_end) {
    cluster();
    node("worker-0")->steps = node("worker-1")->steps = 3;
    node("ps-0")->hold_write = true;
    const char *id = submit(AUDIT);
    run_ms(500);
    crash("ps-0");
    run_ms(200);
    boot(PS, "ps-0");
    run_ms(3000);
    ck_assert_str_eq(state(id), "SUCCEEDED");
    world_close();
} END_TEST

START_TEST(nonsense_in_beats_changes_nothing) {
    static const char *const bad[] = {
        "{}", "{\"role\":\"ps\"}", "{\"role\":\"king\",\"name\":\"x\",\"incarnation\":1}", "{\"role\":\"ps\",\"name\":\"\",\"incarnation\":1}",
        "{\"role\":\"ps\",\"name\":\"../../x\",\"incarnation\":1}", "{\"role\":\"ps\",\"name\":7,\"incarnation\":\"a\"}",
        "{\"role\":\"worker\",\"name\":\"w\",\"incarnation\":1,\"plan\":3,\"job\":[],\"producers\":{\"a\":1},\"cut\":7,\"model\":\"x\"}",
        "{\"role\":\"worker\",\"name\":\"w\",\"incarnation\":1,\"job\":{\"id\":\"job-1\",\"generation\":1,\"state\":\"running\"},\"producers\":[null,3,{\"producer\":99999}]}",
        "{\"role\":\"ps\",\"name\":\"p\",\"incarnation\":1,\"plan\":[\"a\",null],\"job\":{\"id\":3},\"cut\":{\"epoch\":-1},\"snapshot\":[1]}"};
    cluster();
    const char *id = submit(AUDIT);
    run_ms(200);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct json_object *o = pn_json_parse(bad[i], strlen(bad[i]), NULL);
        ck_assert_ptr_nonnull(o);
        deliver(5, o);
        json_object_put(o);
    }
    run_ms(300);
    ck_assert_str_eq(state(id), "RUNNING");
    ck_assert_uint_eq(units_of("worker-0") + units_of("worker-1"), 2);
    world_close();
} END_TEST

int main(void) {
    TCase *c = tcase_create("jobs");
    tcase_add_test(c, a_job_gets_all_servers_and_deals_its_producers);
    tcase_add_test(c, a_job_waits_until_a_server_and_a_worker_are_there);
    tcase_add_test(c, a_job_that_begins_is_not_restarting);
    tcase_add_test(c, nobody_is_dead_because_the_coordinator_stood_still);
    tcase_add_test(c, jobs_run_one_after_the_other);
    tcase_add_test(c, a_finished_job_has_a_final_checkpoint_and_the_servers_keep_it_open);
    tcase_add_test(c, the_producers_of_a_dead_worker_go_on_elsewhere_with_a_higher_incarnation);
    tcase_add_test(c, a_worker_that_comes_back_takes_its_producers_again);
    tcase_add_test(c, a_producer_that_moves_begins_behind_the_committed_cut);
    tcase_add_test(c, a_server_that_lost_its_memory_gets_a_new_term_and_the_last_checkpoint);
    tcase_add_test(c, a_job_whose_server_is_away_says_so_and_waits_for_it);
    tcase_add_test(c, a_damaged_checkpoint_is_marked_and_the_one_before_is_used_with_a_new_generation);
    tcase_add_test(c, a_worker_that_cannot_go_on_fails_the_job_with_its_line);
    tcase_add_test(c, too_many_restarts_fail_the_job);
    tcase_add_test(c, a_coordinator_that_comes_back_leaves_what_runs_alone);
    tcase_add_test(c, a_coordinator_may_come_back_at_any_moment_of_a_job);
    tcase_add_test(c, two_lives_of_a_coordinator_give_rising_epochs_terms_and_checkpoint_numbers);
    tcase_add_test(c, with_a_full_store_nothing_new_is_decided_and_training_goes_on);
    tcase_add_test(c, any_one_failed_commit_only_costs_time);
    tcase_add_test(c, the_epoch_is_durable_before_anything_is_answered);
    tcase_add_test(c, a_lost_plan_is_sent_again_until_it_is_named);
    tcase_add_test(c, evaluation_goes_to_another_worker_when_its_worker_dies);
    tcase_add_test(c, a_server_that_dies_behind_the_final_checkpoint_does_not_keep_the_job_from_its_end);
    tcase_add_test(c, nonsense_in_beats_changes_nothing);
    return run_tests("jobs", c);
}
