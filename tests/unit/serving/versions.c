#include "tests/unit/serving/world.h"

static struct world *w;
static void setup(void) {
    w = malloc(sizeof *w);
    world_init(w);
}
static void teardown(void) {
    world_free(w);
    free(w);
}
static int status(const char *method, const char *path, const char *body) {
    struct reply *a = ask(w, method, path, body);
    int s = a->status;
    if (s != 200) { /* whatever is wrong is said in JSON */
        struct json_object *o = json_of(a);
        ck_assert_ptr_nonnull(pn_json_get(o, "error"));
        json_object_put(o);
    }
    drop(a);
    return s;
}
static unsigned long version_that_answers(const char *path) {
    char *body = infer_body(5, 0);
    struct reply *a = ask(w, "POST", path, body);
    unsigned long v = 0;
    if (a->status == 200) {
        struct json_object *o = json_of(a);
        v = strtoul(pn_json_str(o, "model_version", "0"), NULL, 10);
        json_object_put(o);
    }
    drop(a);
    free(body);
    return v;
}
static void serve(uint64_t version, uint64_t publication) {
    world_plan(w, version, publication);
    world_work(w);
    world_tick(w, 1);
}

START_TEST(a_version_is_served_once_it_is_verified_and_not_before) {
    publish(w, 1, PN_STORE_FLOAT32, 20);
    ck_assert_int_eq(status("GET", "/v2/health/live", ""), 200);
    ck_assert_int_eq(status("GET", "/v2/health/ready", ""), 503);
    ck_assert_int_eq(status("GET", "/v2/models/m", ""), 404);
    world_plan(w, 1, 1);
    struct reply *a = send_request(w, "GET", "/v2/models/m/ready", NULL, "", 0);
    ck_assert_int_eq(a->status, 503);
    drop(a);
    world_work(w);
    ck_assert_int_eq(status("GET", "/v2/health/ready", ""), 200);
    ck_assert_int_eq(status("GET", "/v2/models/m/ready", ""), 200);
    ck_assert_uint_eq(version_that_answers("/v2/models/m/infer"), 1);
    world_tick(w, 1);
    ck_assert_uint_eq(beat_number(w, "active"), 1);
    ck_assert_uint_eq(beat_number(w, "publication"), 1);
} END_TEST

START_TEST(a_corrupt_version_is_refused_and_the_one_before_goes_on) {
    static const char *const names[] = {"000.seg", "001.seg", "dense.safetensors", "job.yaml", "statistics.json", "manifest.json"};
    publish(w, 1, PN_STORE_FLOAT16, 20);
    publish(w, 2, PN_STORE_FLOAT16, 20);
    serve(1, 1);
    struct world_file *f = file_of(w, 2, names[_i]);
    ((uint8_t *)f->data)[_i == 5 ? 2 : f->n / 2] ^= 4;
    serve(2, 2);
    ck_assert_uint_eq(version_that_answers("/v2/models/m/infer"), 1);
    ck_assert_uint_eq(beat_number(w, "active"), 1);
    ck_assert_uint_eq(beat_number(w, "publication"), 1);
    struct json_object *failed = pn_json_get(pn_json_at(pn_json_get(w->beat, "models"), 0), "failed");
    ck_assert_uint_eq(pn_json_u64(failed, "version", 0), 2);
    ck_assert_ptr_nonnull(strstr(pn_json_str(failed, "error", ""), names[_i]));
    ck_assert_int_eq(w->n_errors, 1);
    /* loud once, tried again, and taken when it is whole */
    for (int i = 0; i < 20; i++) {
        world_tick(w, 5000);
        world_work(w);
    }
    ck_assert_int_eq(w->n_errors, 1);
    ((uint8_t *)f->data)[_i == 5 ? 2 : f->n / 2] ^= 4;
    world_tick(w, 70000);
    world_work(w);
    ck_assert_uint_eq(version_that_answers("/v2/models/m/infer"), 2);
    world_tick(w, 1);
    ck_assert_uint_eq(beat_number(w, "publication"), 2);
    ck_assert_ptr_null(pn_json_get(pn_json_at(pn_json_get(w->beat, "models"), 0), "failed"));
} END_TEST

START_TEST(a_request_sees_one_version_from_begin_to_end) {
    publish(w, 1, PN_STORE_FLOAT32, 20);
    publish(w, 2, PN_STORE_FLOAT32, 20);
    publish(w, 3, PN_STORE_FLOAT32, 20);
    serve(1, 1);
    char *body = infer_body(2000, 0);
    struct reply *before = ask(w, "POST", "/v2/models/m/infer", body);
    struct reply *a = send_request(w, "POST", "/v2/models/m/infer", NULL, body, strlen(body)); /* large: on a work thread */
    ck_assert_int_eq(a->n_answers, 0);
    struct pn_work *held = w->works[0];
    w->n_works = 0;
    serve(2, 2);
    serve(3, 3); /* version 1 is in no list any more */
    ck_assert_int_eq(status("GET", "/v2/models/m/versions/1", ""), 404);
    held->run(held);
    held->done(held);
    ck_assert_int_eq(a->status, 200);
    ck_assert_str_eq((char *)a->body, (char *)before->body);
    ck_assert_uint_eq(version_that_answers("/v2/models/m/infer"), 3);
    ck_assert_uint_eq(version_that_answers("/v2/models/m/versions/2/infer"), 2); /* the one before stays */
    drop(a);
    drop(before);
    free(body);
} END_TEST

START_TEST(a_rollback_takes_the_version_before_at_once) {
    publish(w, 1, PN_STORE_INT8, 20);
    publish(w, 2, PN_STORE_INT8, 20);
    serve(1, 1);
    serve(2, 2);
    world_plan(w, 1, 3);
    ck_assert_uint_eq(w->n_works, 0); /* nothing to load */
    ck_assert_uint_eq(version_that_answers("/v2/models/m/infer"), 1);
    world_tick(w, 1);
    ck_assert_uint_eq(beat_number(w, "publication"), 3);
} END_TEST

START_TEST(a_version_that_is_taken_away_is_let_go_of) {
    publish(w, 1, PN_STORE_FLOAT32, 20);
    publish(w, 2, PN_STORE_FLOAT32, 20);
    serve(1, 1);
    serve(2, 2);
    ck_assert_uint_eq(version_that_answers("/v2/models/m/versions/1/infer"), 1);
    world_plan_json(w, "{\"lease_ms\":1000,\"beat_ms\":100,\"models\":[{\"name\":\"m\",\"publication\":2,\"active\":2,\"dir\":\"/m/2\",\"keep\":[2]}]}");
    ck_assert_int_eq(status("GET", "/v2/models/m/versions/1", ""), 404);
    ck_assert_uint_eq(version_that_answers("/v2/models/m/infer"), 2);
    world_tick(w, 1);
    ck_assert_uint_eq(pn_json_length(pn_json_get(pn_json_at(pn_json_get(w->beat, "models"), 0), "loaded")), 1);
} END_TEST

START_TEST(the_newest_plan_holds_and_the_last_good_one_for_ever) {
    publish(w, 1, PN_STORE_FLOAT32, 20);
    publish(w, 2, PN_STORE_FLOAT32, 20);
    w->revision = 9;
    serve(2, 2);
    w->revision = 3;
    world_plan(w, 1, 1); /* a late one */
    world_work(w);
    ck_assert_uint_eq(version_that_answers("/v2/models/m/infer"), 2);
    world_plan_json(w, "{\"models\":7}");
    w->revision = 20;
    world_plan_json(w, "{\"models\":7}");
    world_plan_json(w, "{\"models\":[7,{},{\"name\":\"m\",\"active\":2,\"dir\":\"/m/2\",\"keep\":7},{\"name\":\"n\",\"active\":1,\"dir\":\"/n/1\"}]}");
    for (int i = 0; i < 50; i++) world_tick(w, 1000);
    ck_assert_uint_eq(version_that_answers("/v2/models/m/infer"), 2);
    ck_assert_int_eq(status("GET", "/v2/health/ready", ""), 503); /* n is nowhere */
    ck_assert_int_eq(status("POST", "/v2/models/n/infer", "{}"), 503);
    world_plan_json(w, "{\"models\":[]}");
    ck_assert_int_eq(status("GET", "/v2/models/m", ""), 404);
    ck_assert_int_eq(w->n_mapped, 0);
} END_TEST

START_TEST(a_replica_that_closes_while_it_loads_and_ranks_leaves_nothing) {
    publish(w, 1, PN_STORE_FLOAT32, 20);
    publish(w, 2, PN_STORE_FLOAT32, 20);
    serve(1, 1);
    char *body = infer_body(2000, 0);
    struct reply *a[30];
    for (int i = 0; i < 30; i++) a[i] = send_request(w, "POST", "/v2/models/m/infer", NULL, body, strlen(body));
    world_plan(w, 2, 2);
    pn_serving_close(w->core);
    world_work(w);
    int n_ok = 0, n_stopped = 0;
    for (int i = 0; i < 30; i++) {
        ck_assert_int_eq(a[i]->n_answers, 1);
        n_ok += a[i]->status == 200;
        n_stopped += a[i]->status == 503;
        drop(a[i]);
    }
    ck_assert_int_eq(n_ok, 16);
    ck_assert_int_eq(n_stopped, 14);
    ck_assert_int_eq(w->n_mapped, 0);
    w->core = NULL;
    free(body);
} END_TEST

START_TEST(every_path_answers_with_its_status) {
    static const struct { const char *method, *path; int status; } cases[] = {
        {"GET", "/v2", 200}, {"GET", "/v2/", 200}, {"POST", "/v2", 405}, {"GET", "/", 404}, {"GET", "/v3", 404}, {"GET", "/v2/health", 404},
        {"GET", "/v2/health/live", 200}, {"GET", "/v2/health/ready", 200}, {"POST", "/v2/health/ready", 405}, {"GET", "/health", 200}, {"GET", "/metrics", 200},
        {"GET", "/v2/models/m", 200}, {"GET", "/v2/models/m/", 200}, {"GET", "/prefix/v2/models/m", 200}, {"GET", "/v2/models/none", 404}, {"GET", "/v2/models", 404},
        {"GET", "/v2/models/m/versions/1", 200}, {"GET", "/v2/models/m/versions/2", 404}, {"GET", "/v2/models/m/versions/x", 404}, {"GET", "/v2/models/m/versions", 404},
        {"GET", "/v2/models/m/ready", 200}, {"GET", "/v2/models/m/versions/1/ready", 200}, {"GET", "/v2/models/m/config", 200}, {"GET", "/v2/models/m/stats", 200},
        {"GET", "/v2/models/stats", 200}, {"GET", "/v2/models/m/infer", 405}, {"POST", "/v2/models/m/config", 405}, {"GET", "/v2/models/m/nothing", 404},
        {"GET", "/v2/models/m/versions/1/ready/x", 404}, {"POST", "/v2/repository/index", 200}, {"GET", "/v2/repository/index", 405},
        {"POST", "/v2/repository/models/m/load", 501}, {"GET", "/v2/a/b/c/d/e/f/g/h/i/j/k", 404}, {"POST", "/v2/models/m/infer", 400},
    };
    publish(w, 1, PN_STORE_FLOAT32, 20);
    serve(1, 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int s = status(cases[i].method, cases[i].path, "");
        ck_assert_msg(s == cases[i].status, "%s %s: %d", cases[i].method, cases[i].path, s);
    }
} END_TEST

START_TEST(what_a_replica_tells_is_sound) {
    static const char *const paths[] = {"/v2", "/v2/models/m", "/v2/models/m/config", "/v2/models/m/stats", "/v2/models/m/versions/1/stats"};
    publish(w, 1, PN_STORE_FLOAT32, 20);
    serve(1, 1);
    ck_assert_uint_eq(version_that_answers("/v2/models/m/infer"), 1);
    for (size_t i = 0; i < 5; i++) {
        struct reply *a = ask(w, "GET", paths[i], "");
        json_object_put(json_of(a));
        drop(a);
    }
    struct reply *a = ask(w, "GET", "/v2/models/m", "");
    struct json_object *o = json_of(a), *inputs = pn_json_get(o, "inputs");
    ck_assert_uint_eq(pn_json_length(inputs), N_COLUMNS); /* crosses have no column of their own */
    for (size_t i = 0; i < N_COLUMNS; i++) ck_assert_str_eq(pn_json_str(pn_json_at(inputs, i), "name", ""), world_columns[i]);
    json_object_put(o);
    drop(a);
    a = ask(w, "GET", "/metrics", "");
    const char *text = (const char *)a->body;
    ck_assert_ptr_nonnull(strstr(text, "pinion_serve_requests_total{model=\"m\",code=\"200\"} 1\n"));
    ck_assert_ptr_nonnull(strstr(text, "pinion_serve_model_version{model=\"m\"} 1\n"));
    ck_assert_ptr_nonnull(strstr(text, "pinion_serve_candidates_total{model=\"m\"} 5\n"));
    ck_assert_ptr_nonnull(strstr(text, "_bucket{model=\"m\",le=\"+Inf\"} 1\n"));
    drop(a);
    a = ask(w, "POST", "/v2/repository/index", "{\"ready\":true}");
    o = json_of(a);
    ck_assert_uint_eq(pn_json_length(o), 1);
    json_object_put(o);
    drop(a);
} END_TEST

int main(void) {
    TCase *c = tcase_create("versions");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_test(c, a_version_is_served_once_it_is_verified_and_not_before);
    tcase_add_loop_test(c, a_corrupt_version_is_refused_and_the_one_before_goes_on, 0, 6);
    tcase_add_test(c, a_request_sees_one_version_from_begin_to_end);
    tcase_add_test(c, a_rollback_takes_the_version_before_at_once);
    tcase_add_test(c, a_version_that_is_taken_away_is_let_go_of);
    tcase_add_test(c, the_newest_plan_holds_and_the_last_good_one_for_ever);
    tcase_add_test(c, a_replica_that_closes_while_it_loads_and_ranks_leaves_nothing);
    tcase_add_test(c, every_path_answers_with_its_status);
    tcase_add_test(c, what_a_replica_tells_is_sound);
    return run_cases("versions", c);
}
