#include "fake.h"

static bool paused(const char *worker) { return pn_json_get(node(worker)->plan, "cut") != NULL; }
static bool cutting(const char *ps) { return pn_json_get(node(ps)->plan, "cut") != NULL; }

START_TEST(a_checkpoint_commits_when_every_file_is_written) {
    cluster();
    const char *id = submit(AUDIT "  checkpoint: {every: 300ms, keep: 3}\n");
    node("ps-1")->hold_write = true;
    run_ms(1500);
    ck_assert(cutting("ps-0") && cutting("ps-1"));
    ck_assert(!paused("worker-0") && !paused("worker-1")); /* training goes on while files are written */
    ck_assert_uint_eq(n_checkpoints(id), 0);
    ck_assert_uint_eq(durable_count("checkpoint"), 0);
    node("ps-1")->hold_write = false;
    run_ms(200);
    ck_assert_uint_ge(durable_count("checkpoint"), 1);
    ck_assert(file_exists("/c/jobs/job-1/checkpoints/1/manifest.json"));
    run_ms(100);
    ck_assert_uint_ge(pn_json_u64(pn_json_get(pn_json_get(node("worker-0")->plan, "job"), "committed"), "epoch", 0), 1);
    world_close();
} END_TEST

START_TEST(the_servers_flip_only_when_all_producers_have_drained) {
    cluster();
    submit(AUDIT "  checkpoint: {every: 300ms, keep: 3}\n");
    node("worker-1")->hold_drain = true;
    run_ms(1500);
    ck_assert(paused("worker-0") && paused("worker-1"));
    ck_assert(!cutting("ps-0") && !cutting("ps-1"));
    node("worker-1")->hold_drain = false;
    node("ps-0")->hold_flip = true;
    run_ms(300);
    ck_assert(cutting("ps-0") && cutting("ps-1"));
    ck_assert(paused("worker-0") && paused("worker-1")); /* until all have flipped */
    node("ps-0")->hold_flip = false;
    run_ms(200);
    ck_assert(!paused("worker-0"));
    world_close();
} END_TEST

START_TEST(a_sync_cut_lets_everybody_reach_the_step_of_the_first) {
    cluster();
    const char *id = submit(AUDIT_HEAD AUDIT_TAIL TRAINING("sync", 2) "  checkpoint: {every: 300ms, keep: 3}\n");
    run_ms(1500);
    struct json_object *k = durable("checkpoint", "job-1/000000000001");
    ck_assert_ptr_nonnull(k);
    struct json_object *steps = pn_json_get(k, "steps");
    ck_assert_uint_eq(pn_json_length(steps), 2);
    ck_assert_uint_eq(json_object_get_uint64(pn_json_at(steps, 0)), json_object_get_uint64(pn_json_at(steps, 1)));
    json_object_put(k);
    ck_assert_str_eq(state(id), "RUNNING");
    world_close();
} END_TEST

START_TEST(a_straggler_past_the_deadline_costs_the_checkpoint_and_not_the_training) {
    cluster();
    const char *id = submit(AUDIT "  checkpoint: {every: 300ms, keep: 3}\n");
    node("worker-1")->hold_drain = true;
    run_ms(10600);
    node("worker-1")->hold_drain = false;
    uint64_t clock = node("worker-0")->units[0].clock + node("worker-0")->units[1].clock;
    run_ms(2000);
    ck_assert_uint_ge(n_checkpoints(id), 1);
    ck_assert_uint_gt(newest(id), 1); /* the first was abandoned */
    ck_assert_uint_gt(node("worker-0")->units[0].clock + node("worker-0")->units[1].clock, clock);
    world_close();
} END_TEST

START_TEST(a_server_that_cannot_write_costs_the_checkpoint_and_not_the_training) {
    cluster();
    const char *id = submit(AUDIT "  checkpoint: {every: 300ms, keep: 3}\n");
    node("ps-1")->fail_write = true;
    run_ms(2000);
    ck_assert_str_eq(state(id), "RUNNING");
    ck_assert_uint_eq(n_checkpoints(id), 0);
    ck_assert(!file_exists("/c/jobs/job-1/checkpoints/1/ps-0.ps"));
    node("ps-1")->fail_write = false;
    run_ms(1000);
    ck_assert_uint_ge(n_checkpoints(id), 1);
    world_close();
} END_TEST

START_TEST(a_server_lost_in_the_middle_of_a_cut_abandons_it) {
    for (int phase = 0; phase < 2; phase++) {
        cluster();
        const char *id = submit(AUDIT "  checkpoint: {every: 300ms, keep: 3}\n");
        if (phase == 0) node("ps-1")->hold_flip = true;
        else node("ps-1")->hold_write = true;
        run_ms(1000);
        ck_assert(cutting("ps-1"));
        crash("ps-1");
        run_ms(100);
        boot(PS, "ps-1");
        run_ms(100);
        ck_assert_uint_eq(n_checkpoints(id), 0);
        run_ms(1500);
        ck_assert_uint_ge(n_checkpoints(id), 1);
        ck_assert_uint_gt(newest(id), 1);
        world_close();
    }
} END_TEST

START_TEST(a_manifest_that_cannot_be_written_costs_the_checkpoint) {
    cluster();
    const char *id = submit(AUDIT "  checkpoint: {every: 300ms, keep: 3}\n");
    W->io_error = ENOSPC;
    run_ms(2000);
    ck_assert_uint_eq(n_checkpoints(id), 0);
    ck_assert_str_eq(state(id), "RUNNING");
    W->io_error = 0;
    run_ms(1500);
    ck_assert_uint_ge(n_checkpoints(id), 1);
    world_close();
} END_TEST

START_TEST(the_store_decides_whether_a_checkpoint_exists) {
    cluster();
    const char *id = submit(AUDIT "  checkpoint: {every: 300ms, keep: 3}\n");
    node("ps-0")->hold_write = true;
    run_ms(1000);
    node("ps-0")->hold_write = false;
    W->store_full = true;
    run_ms(500);
    ck_assert(file_exists("/c/jobs/job-1/checkpoints/1/manifest.json"));
    ck_assert_uint_eq(n_checkpoints(id), 0);
    ck_assert(pn_json_get(pn_json_get(node("worker-0")->plan, "job"), "committed") == NULL);
    W->store_full = false;
    run_ms(300);
    ck_assert_uint_ge(n_checkpoints(id), 1);
    world_close();
} END_TEST

START_TEST(only_so_many_checkpoints_are_kept) {
    cluster();
    const char *id = submit(AUDIT "  checkpoint: {every: 200ms, keep: 2}\n");
    run_ms(6000);
    ck_assert_uint_ge(newest(id), 5);
    ck_assert_uint_le(n_checkpoints(id), 3); /* the newest two, and one that is about to go */
    ck_assert(!file_exists("/c/jobs/job-1/checkpoints/1/manifest.json"));
    ck_assert(!file_exists("/c/jobs/job-1/checkpoints/1/ps-0.ps"));
    world_close();
} END_TEST

START_TEST(a_full_ring_asks_for_a_checkpoint) {
    cluster();
    const char *id = submit(AUDIT);
    run_ms(500);
    ck_assert_uint_eq(n_checkpoints(id), 0);
    node("worker-0")->ring_full = true;
    run_ms(100);
    node("worker-0")->ring_full = false;
    run_ms(700);
    ck_assert_uint_ge(n_checkpoints(id), 1);
    world_close();
} END_TEST

START_TEST(a_restart_in_the_middle_of_a_cut_begins_another) {
    cluster();
    const char *id = submit(AUDIT "  checkpoint: {every: 300ms, keep: 3}\n");
    node("ps-1")->hold_write = true;
    run_ms(1000);
    ck_assert(cutting("ps-1"));
    restart_core();
    node("ps-1")->hold_write = false;
    run_ms(4000);
    ck_assert_uint_ge(n_checkpoints(id), 1);
    struct json_object *first = durable("checkpoint", "job-1/000000000001");
    ck_assert_ptr_null(first); /* its number is spent */
    world_close();
} END_TEST

int main(void) {
    TCase *c = tcase_create("cuts");
    tcase_add_test(c, a_checkpoint_commits_when_every_file_is_written);
    tcase_add_test(c, the_servers_flip_only_when_all_producers_have_drained);
    tcase_add_test(c, a_sync_cut_lets_everybody_reach_the_step_of_the_first);
    tcase_add_test(c, a_straggler_past_the_deadline_costs_the_checkpoint_and_not_the_training);
    tcase_add_test(c, a_server_that_cannot_write_costs_the_checkpoint_and_not_the_training);
    tcase_add_test(c, a_server_lost_in_the_middle_of_a_cut_abandons_it);
    tcase_add_test(c, a_manifest_that_cannot_be_written_costs_the_checkpoint);
    tcase_add_test(c, the_store_decides_whether_a_checkpoint_exists);
    tcase_add_test(c, only_so_many_checkpoints_are_kept);
    tcase_add_test(c, a_full_ring_asks_for_a_checkpoint);
    tcase_add_test(c, a_restart_in_the_middle_of_a_cut_begins_another);
    return run_tests("cuts", c);
}
