/* A request to forget is kept, is done once all that is kept is without the rows, and is finished by whichever coordinator is there. */
#include "fake.h"

#define LR "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: lr}\nspec:\n  data:\n    train: {format: csv, uri: \"/d/a.csv\", label: click}\n" \
    "  features:\n    - {name: a, type: categorical}\n  model: {name: lr}\n  training: {dataShards: 2}\n  checkpoint: {every: 400ms, keep: 3}\n  publish: {model: clicks}\n"

static struct json_object *request_of(size_t i) { return pn_json_at(pn_json_get(ask("GET", "/api/v1/forget", "")->body, "requests"), i); }
static bool done(size_t i) { return pn_json_bool(request_of(i), "done", false); }
static struct call *forget(const char *id) {
    char body[200];
    snprintf(body, sizeof body, "{\"field\":\"a\",\"who\":\"me\",\"targets\":[{\"job\":\"%s\",\"keys\":[[0,12345678901234567890]]}]}", id);
    return ask("POST", "/api/v1/forget", body);
}
/* Every folder of checkpoints and versions is one that a record names, its files are those without the rows (or were cut behind the request), and the record's files are there. */
static void check_files(const char *id, uint64_t old_version) {
    struct json_object *list = pn_json_get(job(id), "checkpoints");
    size_t named = 0;
    for (size_t i = 0; i < pn_json_length(list); i++) {
        char path[200];
        ck_assert(!pn_json_bool(pn_json_at(list, i), "bad", false));
        for (int p = 0; p < 2; p++) {
            snprintf(path, sizeof path, "%s/ps-%d.ps", pn_json_str(pn_json_at(list, i), "dir", "?"), p);
            ck_assert_msg(file_exists(path), "%s is named and not there", path);
            named++;
        }
        snprintf(path, sizeof path, "%s/manifest.json", pn_json_str(pn_json_at(list, i), "dir", "?"));
        ck_assert(file_exists(path));
    }
    size_t there = 0;
    const uint64_t last = newest(id); /* files behind it are of a cut under way */
    char old[100];
    snprintf(old, sizeof old, "/c/models/clicks/%" PRIu64 "/", old_version);
    for (size_t i = 0; i < W->n_files; i++) {
        const char *path = W->files[i].path, *end = path + strlen(path);
        const char *folder = strstr(path, "/checkpoints/");
        there += folder != NULL && strtoull(folder + 13, NULL, 10) <= last && end - path > 3 && strcmp(end - 3, ".ps") == 0;
        ck_assert_msg(old_version == 0 || strncmp(path, old, strlen(old)) != 0, "%s is still there", path);
    }
    ck_assert_uint_eq(there, named);
}

START_TEST(an_ended_jobs_checkpoints_are_copied_and_its_model_published_anew) {
    cluster();
    boot(SERVING, "serving-0");
    node("worker-0")->steps = node("worker-1")->steps = 30;
    const char *id = submit(LR);
    run_ms(6000);
    ck_assert_str_eq(state(id), "SUCCEEDED");
    struct call *c = forget(id);
    ck_assert_int_eq(c->status, 202);
    ck_assert_uint_eq(durable_count("forget"), 1); /* acknowledged is kept */
    run_ms(6000);
    struct json_object *r = request_of(0);
    ck_assert_msg(pn_json_bool(r, "done", false), "%s", pn_json_text(r));
    ck_assert(strcmp(pn_json_str(r, "who", ""), "me") == 0 && pn_json_u64(r, "done_ms", 0) > 0 && pn_json_u64(r, "checkpoints", 0) >= 1 && pn_json_u64(r, "versions", 0) == 1);
    struct json_object *m = durable("model", "clicks");
    ck_assert_uint_eq(pn_json_u64(m, "active", 0), 2);
    ck_assert_uint_eq(pn_json_length(pn_json_get(m, "versions")), 1);
    json_object_put(m);
    check_files(id, 1);
    ck_assert_int_eq(ask("POST", "/api/v1/models/clicks/rollback", "{}")->status, 409);
    world_close();
} END_TEST

/* The coordinator dies at each of many moments, with its requests in flight. */
START_TEST(whichever_moment_a_coordinator_dies_at_the_next_one_finishes) {
    cluster();
    boot(SERVING, "serving-0");
    node("worker-0")->steps = node("worker-1")->steps = 30;
    const char *id = submit(LR);
    run_ms(6000);
    ck_assert_int_eq(forget(id)->status, 202);
    run_ms((uint64_t)(_i * 45));
    restart_core();
    if (_i % 3 == 0) {
        run_ms(700);
        crash("ps-1");
        boot(PS, "ps-1");
    }
    run_ms(15000);
    ck_assert_msg(done(0), "%s", pn_json_text(request_of(0)));
    check_files(id, 1);
    world_close();
} END_TEST

START_TEST(a_running_job_takes_no_cut_before_all_its_servers_know) {
    cluster();
    const char *id = submit(LR);
    run_ms(3000);
    ck_assert_uint_ge(n_checkpoints(id), 2);
    node("ps-1")->hold_forget = true;
    const uint64_t before = newest(id);
    ck_assert_int_eq(forget(id)->status, 202);
    run_ms(3000);
    ck_assert(!done(0) && newest(id) == before);
    ck_assert_ptr_nonnull(strstr(pn_json_str(request_of(0), "note", ""), "ps-1"));
    crash("ps-0"); /* a server that comes back knows it from its first plan on */
    boot(PS, "ps-0");
    node("ps-1")->hold_forget = false;
    run_ms(6000);
    ck_assert(done(0) && newest(id) > before);
    ck_assert_str_eq(state(id), "RUNNING");
    ck_assert_uint_eq(node("ps-0")->forgot, 1);
    check_files(id, 0);
    ck_assert_int_eq(forget(id)->status, 202); /* the same again: there is nothing to do */
    run_ms(100);
    ck_assert(done(1) && pn_json_bool(request_of(1), "again", false) && pn_json_u64(request_of(1), "checkpoints", 9) == 0);
    ck_assert_int_eq(ask("POST", "/api/v1/forget", "{\"field\":\"a\",\"who\":\"me\",\"targets\":[{\"job\":\"job-1\",\"keys\":[[0,12345678901234567890],[0,7]]}]}")->status, 202);
    run_ms(4000); /* another one: the list grows, all is looked at again */
    ck_assert(done(2) && !pn_json_bool(request_of(2), "again", true));
    ck_assert_uint_eq(pn_json_length(pn_json_get(pn_json_get(pn_json_get(node("ps-0")->plan, "job"), "forget"), "keys")), 3);
    world_close();
} END_TEST

START_TEST(a_checkpoint_that_turns_out_damaged_is_removed) {
    cluster();
    const char *id = submit(LR);
    run_ms(3000);
    node("ps-0")->corrupt_scrub = true;
    ck_assert_int_eq(forget(id)->status, 202);
    run_ms(2500);
    node("ps-0")->corrupt_scrub = false;
    run_ms(8000);
    ck_assert(done(0));
    check_files(id, 0);
    world_close();
} END_TEST

START_TEST(nothing_is_taken_that_is_not_kept_or_makes_no_sense) {
    cluster();
    const char *id = submit(LR);
    run_ms(1000);
    W->store_full = true;
    ck_assert_int_eq(forget(id)->status, 503);
    W->store_full = false;
    ck_assert_uint_eq(pn_json_length(pn_json_get(ask("GET", "/api/v1/forget", "")->body, "requests")), 0);
    static const char *const bad[] = {"{}", "{\"field\":\"a\",\"targets\":[{\"job\":\"job-9\",\"keys\":[[0,1]]}]}", "{\"field\":\"a\",\"targets\":[{\"job\":\"job-1\",\"keys\":[]}]}",
                                      "{\"field\":\"a\",\"targets\":[{\"job\":\"job-1\",\"keys\":[[1,1]]}]}", "{\"field\":\"a\",\"targets\":[{\"job\":\"job-1\",\"keys\":[[0]]}]}",
                                      "{\"field\":\"a\",\"targets\":[{\"job\":\"job-1\",\"keys\":[[0,\"x\"]]}]}", "{\"targets\":[{\"job\":\"job-1\",\"keys\":[[0,1]]}]}",
                                      "{\"field\":\"a\",\"targets\":[{\"job\":\"job-1\",\"keys\":[[0,1]]},{\"job\":\"job-9\",\"keys\":[[0,1]]}]}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) ck_assert_int_eq(ask("POST", "/api/v1/forget", bad[i])->status, 400);
    ck_assert_uint_eq(durable_count("forget"), 0);
    world_close();
} END_TEST

int main(void) {
    TCase *c = tcase_create("forget");
    tcase_add_test(c, an_ended_jobs_checkpoints_are_copied_and_its_model_published_anew);
    tcase_add_loop_test(c, whichever_moment_a_coordinator_dies_at_the_next_one_finishes, 0, 40);
    tcase_add_test(c, a_running_job_takes_no_cut_before_all_its_servers_know);
    tcase_add_test(c, a_checkpoint_that_turns_out_damaged_is_removed);
    tcase_add_test(c, nothing_is_taken_that_is_not_kept_or_makes_no_sense);
    return run_tests("forget", c);
}
