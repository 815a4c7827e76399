#include "fake.h"

START_TEST(a_submission_repeated_with_its_key_runs_once) {
    cluster();
    struct call *a = submit_text(AUDIT, "mine"), *b = submit_text(AUDIT, "mine"), *other = submit_text(AUDIT, "yours");
    ck_assert_int_eq(a->status, 201);
    ck_assert_int_eq(b->status, 200);
    ck_assert_str_eq(pn_json_str(a->body, "id", "a"), pn_json_str(b->body, "id", "b"));
    ck_assert_str_ne(pn_json_str(a->body, "id", "a"), pn_json_str(other->body, "id", "b"));
    restart_core();
    struct call *again = submit_text(AUDIT, "mine");
    ck_assert_int_eq(again->status, 200);
    ck_assert_str_eq(pn_json_str(a->body, "id", "a"), pn_json_str(again->body, "id", "b"));
    world_close();
} END_TEST

START_TEST(a_bad_job_is_refused_with_line_and_report) {
    cluster();
    struct call *c = submit_text(AUDIT "  trainig: {}\n", "k");
    ck_assert_int_eq(c->status, 400);
    ck_assert_ptr_nonnull(strstr(pn_json_str(c->body, "error", ""), "job.yaml:"));
    ck_assert_ptr_nonnull(strstr(pn_json_str(c->body, "report", ""), "trainig"));
    ck_assert_uint_eq(durable_count("job"), 0);
    world_close();
} END_TEST

START_TEST(wrong_requests_get_the_right_status) {
    cluster();
    static const struct { const char *method, *path, *body; int status; } all[] = {
        {"GET", "/api/v1/jobs/none", "", 404}, {"POST", "/api/v1/jobs/none/cancel", "{}", 404}, {"POST", "/api/v1/jobs/job-1/dance", "{}", 404},
        {"GET", "/nowhere", "", 404}, {"POST", "/api/v1/jobs", "{\"text\":", 400}, {"POST", "/api/v1/jobs", "{}", 400},
        {"DELETE", "/api/v1/jobs", "", 405}, {"POST", "/api/v1/models/x/rollback", "{}", 404}, {"POST", "/api/v1/jobs/job-1/publish", "{}", 409},
        {"POST", "/api/v1/jobs/job-1/restore", "{}", 404}, {"POST", "/api/v1/jobs/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/cancel", "{}", 404}};
    submit(AUDIT);
    run_ms(200);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct call *c = ask(all[i].method, all[i].path, all[i].body);
        ck_assert_msg(c->status == all[i].status, "%s %s: %d, not %d", all[i].method, all[i].path, c->status, all[i].status);
        ck_assert(pn_json_str(c->body, "error", "")[0] != '\0');
    }
    world_close();
} END_TEST

START_TEST(status_names_nodes_with_their_addresses_and_whether_they_live) {
    cluster();
    boot(SERVING, "serving-0");
    run_ms(100);
    crash("worker-1");
    run_ms(2000);
    struct json_object *o = ask("GET", "/api/v1/status", "")->body, *nodes = pn_json_get(o, "nodes");
    ck_assert_uint_eq(pn_json_length(nodes), 5);
    for (size_t i = 0; i < 5; i++) {
        struct json_object *n = pn_json_at(nodes, i);
        ck_assert_int_eq(pn_json_bool(n, "alive", false), strcmp(pn_json_str(n, "name", ""), "worker-1") != 0);
        ck_assert_ptr_nonnull(strstr(pn_json_str(n, "address", ""), "tcp://"));
        if (i > 0) ck_assert_int_lt(strcmp(pn_json_str(pn_json_at(nodes, i - 1), "name", ""), pn_json_str(n, "name", "")), 0);
    }
    world_close();
} END_TEST

START_TEST(a_cancelled_job_stops_and_the_next_begins) {
    cluster();
    char first[32];
    snprintf(first, sizeof first, "%s", submit(AUDIT));
    const char *second = submit(AUDIT);
    run_ms(200);
    char path[64];
    snprintf(path, sizeof path, "/api/v1/jobs/%s/cancel", first);
    ck_assert_int_eq(ask("POST", path, "{}")->status, 200);
    run_ms(200);
    ck_assert_str_eq(state(first), "CANCELLED");
    ck_assert_str_eq(state(second), "RUNNING");
    ck_assert_int_eq(ask("POST", path, "{}")->status, 409);
    snprintf(path, sizeof path, "/api/v1/jobs/%s/checkpoint", first);
    ck_assert_int_eq(ask("POST", path, "{}")->status, 409);
    world_close();
} END_TEST

START_TEST(a_restore_goes_back_with_a_new_generation_and_forgets_what_came_later) {
    cluster();
    const char *id = submit(AUDIT "  checkpoint: {every: 400ms, keep: 5}\n");
    run_ms(2500);
    struct json_object *list = pn_json_get(job(id), "checkpoints");
    ck_assert_uint_ge(pn_json_length(list), 2);
    uint64_t last = pn_json_u64(pn_json_at(list, 0), "epoch", 0), before = pn_json_u64(pn_json_at(list, 1), "epoch", 0);
    char path[64], body[64];
    snprintf(path, sizeof path, "/api/v1/jobs/%s/restore", id);
    snprintf(body, sizeof body, "{\"epoch\":%" PRIu64 "}", before);
    ck_assert_int_eq(ask("POST", path, body)->status, 200);
    run_ms(200);
    ck_assert_str_eq(state(id), "RUNNING");
    ck_assert_uint_eq(node("ps-0")->restored, before);
    ck_assert_uint_eq(node("ps-1")->restored, before);
    ck_assert_uint_eq(node("ps-0")->generation, 2);
    snprintf(body, sizeof body, "{\"epoch\":%" PRIu64 "}", last);
    ck_assert_int_eq(ask("POST", path, body)->status, 404);
    world_close();
} END_TEST

START_TEST(a_checkpoint_on_demand_of_a_cut_that_fails_answers_503) {
    cluster();
    const char *id = submit(AUDIT);
    run_ms(300);
    node("ps-0")->fail_write = true;
    char path[64];
    snprintf(path, sizeof path, "/api/v1/jobs/%s/checkpoint", id);
    struct call *c = ask("POST", path, "{}");
    run_ms(500);
    ck_assert_int_eq(c->status, 503);
    world_close();
} END_TEST

START_TEST(metrics_and_page_are_there) {
    cluster();
    submit(AUDIT "  checkpoint: {every: 300ms, keep: 2}\n");
    run_ms(1500);
    const char *text = json_object_get_string(ask("GET", "/metrics", "")->body);
    static const char *const names[] = {"pinion_coordinator_epoch 1", "pinion_coordinator_members{role=\"ps\",state=\"alive\"} 2", "pinion_checkpoints_total{result=\"committed\"}",
                                        "pinion_job_examples{job=\"job-1\"}"};
    for (size_t i = 0; i < 4; i++) ck_assert_msg(strstr(text, names[i]) != NULL, "%s is not in\n%s", names[i], text);
    ck_assert_int_eq(ask("GET", "/", "")->status, 200);
    ck_assert_int_eq(ask("GET", "/health", "")->status, 200);
    world_close();
} END_TEST

START_TEST(a_core_that_stops_answers_who_still_waits) {
    cluster();
    const char *id = submit(AUDIT);
    run_ms(300);
    node("ps-0")->hold_write = true;
    char path[64];
    snprintf(path, sizeof path, "/api/v1/jobs/%s/checkpoint", id);
    struct call *c = ask("POST", path, "{}");
    run_ms(300);
    restart_core();
    ck_assert_int_eq(c->status, 503);
    world_close();
} END_TEST

int main(void) {
    TCase *c = tcase_create("api");
    tcase_add_test(c, a_submission_repeated_with_its_key_runs_once);
    tcase_add_test(c, a_bad_job_is_refused_with_line_and_report);
    tcase_add_test(c, wrong_requests_get_the_right_status);
    tcase_add_test(c, status_names_nodes_with_their_addresses_and_whether_they_live);
    tcase_add_test(c, a_cancelled_job_stops_and_the_next_begins);
    tcase_add_test(c, a_restore_goes_back_with_a_new_generation_and_forgets_what_came_later);
    tcase_add_test(c, a_checkpoint_on_demand_of_a_cut_that_fails_answers_503);
    tcase_add_test(c, metrics_and_page_are_there);
    tcase_add_test(c, a_core_that_stops_answers_who_still_waits);
    return run_tests("api", c);
}
