#include "fake.h"
#include "snapshot/snapshot.h"

#define LR "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: lr}\nspec:\n  data:\n    train: {format: csv, uri: \"/d/a.csv\", label: click}\n" \
    "    validation: {format: csv, uri: \"/d/b.csv\", label: click}\n" \
    "  features:\n    - {name: a, type: categorical}\n  model: {name: lr}\n  training: {dataShards: 2}\n"
#define PUBLISH "  publish: {model: clicks, storage: int8, gate: {minAuc: %s}}\n"

static const char *lr_job(const char *gate) {
    static char text[2000];
    snprintf(text, sizeof text, LR PUBLISH, gate);
    return text;
}
static void finish_soon(void) { node("worker-0")->steps = node("worker-1")->steps = 4; }
static struct json_object *served(void) { return pn_json_at(pn_json_get(node("serving-0")->plan, "models"), 0); }
static uint64_t active(void) { return pn_json_u64(served(), "active", 0); }

START_TEST(a_job_that_publishes_ends_with_a_version_that_the_replicas_get) {
    cluster();
    boot(SERVING, "serving-0");
    finish_soon();
    const char *id = submit(lr_job("0.7"));
    run_ms(4000);
    ck_assert_str_eq(state(id), "SUCCEEDED");
    ck_assert_str_eq(pn_json_str(job(id), "reason", "?"), "");
    ck_assert_uint_eq(pn_json_u64(job(id), "version", 0), 1);
    ck_assert_uint_eq(active(), 1);
    ck_assert_str_eq(pn_json_str(served(), "dir", ""), "/c/models/clicks/1");
    static const char *const names[] = {"manifest.json", "job.yaml", "statistics.json", "dense.safetensors"};
    for (int i = 0; i < 4; i++) {
        char path[200];
        snprintf(path, sizeof path, "/c/models/clicks/1/%s", names[i]);
        ck_assert(file_exists(path));
    }
    size_t at = file_at("/c/models/clicks/1/dense.safetensors"), n = 0;
    void *image = NULL; /* aligned as a mapped file is */
    ck_assert_int_eq(posix_memalign(&image, 64, W->files[at].n + 64), 0);
    memcpy(image, W->files[at].data, W->files[at].n);
    const float *w = pn_safetensors_find(image, W->files[at].n, "w", &n);
    ck_assert_ptr_nonnull(w);
    ck_assert_uint_eq(n, 2);
    ck_assert_float_eq(w[0], 1.5f);
    ck_assert_float_eq(w[1], 2.5f);
    free(image);
    struct json_object *m = durable("model", "clicks");
    ck_assert_uint_eq(pn_json_u64(m, "active", 0), 1);
    json_object_put(m);
    world_close();
} END_TEST

START_TEST(the_gate_holds_a_bad_model_back) {
    cluster();
    boot(SERVING, "serving-0");
    finish_soon();
    const char *id = submit(lr_job("0.95"));
    run_ms(4000);
    ck_assert_str_eq(state(id), "SUCCEEDED");
    ck_assert_ptr_nonnull(strstr(pn_json_str(job(id), "reason", ""), "gate"));
    ck_assert_ptr_null(served());
    char path[64];
    snprintf(path, sizeof path, "/api/v1/jobs/%s/publish", id);
    ck_assert_int_eq(ask("POST", path, "{}")->status, 409);
    struct call *c = ask("POST", path, "{\"force\":true}");
    run_ms(1000);
    ck_assert_int_eq(c->status, 200);
    ck_assert_uint_eq(pn_json_u64(c->body, "version", 0), 1);
    ck_assert_uint_eq(active(), 1);
    world_close();
} END_TEST

START_TEST(a_rollback_is_a_new_publication_of_an_older_version) {
    cluster();
    boot(SERVING, "serving-0");
    finish_soon();
    const char *id = submit(lr_job("0.5"));
    run_ms(4000);
    char path[64];
    snprintf(path, sizeof path, "/api/v1/jobs/%s/publish", id);
    struct call *c = ask("POST", path, "{}");
    run_ms(1000);
    ck_assert_int_eq(c->status, 200);
    ck_assert_uint_eq(active(), 2);
    ck_assert_uint_eq(json_object_get_uint64(pn_json_at(pn_json_get(served(), "keep"), 1)), 1); /* the one before stays loaded */
    uint64_t publication = pn_json_u64(served(), "publication", 0);
    c = ask("POST", "/api/v1/models/clicks/rollback", "{}");
    ck_assert_int_eq(c->status, 200);
    run_ms(100);
    ck_assert_uint_eq(active(), 1);
    ck_assert_uint_gt(pn_json_u64(served(), "publication", 0), publication);
    ck_assert_int_eq(ask("POST", "/api/v1/models/clicks/rollback", "{}")->status, 409); /* nothing older */
    ck_assert_int_eq(ask("POST", "/api/v1/models/clicks/rollback", "{\"version\":77}")->status, 409);
    ck_assert_int_eq(ask("POST", "/api/v1/models/clicks/rollback", "{\"version\":2}")->status, 200);
    ck_assert_int_eq(ask("POST", "/api/v1/models/none/rollback", "{}")->status, 404);
    restart_core();
    run_ms(300);
    ck_assert_uint_eq(active(), 2);
    world_close();
} END_TEST

START_TEST(a_version_exists_only_with_its_record) {
    cluster();
    boot(SERVING, "serving-0");
    finish_soon();
    const char *id = submit(lr_job("0.5"));
    run_ms(4000);
    char path[64];
    snprintf(path, sizeof path, "/api/v1/jobs/%s/publish", id);
    struct call *c = ask("POST", path, "{}");
    run_ms(60);
    W->store_full = true;
    run_ms(1000);
    ck_assert(!c->answered);
    ck_assert_uint_eq(active(), 1);
    W->store_full = false;
    run_ms(300);
    ck_assert_int_eq(c->status, 200);
    ck_assert_uint_eq(active(), 2);
    world_close();
} END_TEST

START_TEST(a_server_that_cannot_convert_fails_the_publication_with_its_line) {
    cluster();
    boot(SERVING, "serving-0");
    finish_soon();
    const char *id = submit(lr_job("0.99"));
    run_ms(4000);
    char path[64];
    snprintf(path, sizeof path, "/api/v1/jobs/%s/publish", id);
    node("ps-1")->fail_snapshot = true;
    struct call *c = ask("POST", path, "{\"force\":true}");
    ck_assert_int_eq(ask("POST", path, "{\"force\":true}")->status, 409); /* one at a time */
    run_ms(500);
    ck_assert_int_eq(c->status, 503);
    ck_assert_ptr_null(served());
    node("ps-1")->fail_snapshot = false;
    run_ms(200);
    c = ask("POST", path, "{\"force\":true}");
    run_ms(500);
    ck_assert_int_eq(c->status, 200);
    ck_assert_uint_eq(pn_json_u64(c->body, "version", 0), 2); /* a number is not used twice */
    world_close();
} END_TEST

START_TEST(a_full_disk_fails_the_publication_and_nothing_else) {
    cluster();
    finish_soon();
    const char *id = submit(lr_job("0.99"));
    run_ms(4000);
    char path[64];
    snprintf(path, sizeof path, "/api/v1/jobs/%s/publish", id);
    W->io_error = ENOSPC;
    struct call *c = ask("POST", path, "{\"force\":true}");
    run_ms(500);
    ck_assert_int_eq(c->status, 503);
    ck_assert(!file_exists("/c/models/clicks/1/manifest.json"));
    ck_assert_str_eq(state(id), "SUCCEEDED");
    world_close();
} END_TEST

int main(void) {
    TCase *c = tcase_create("publish");
    tcase_add_test(c, a_job_that_publishes_ends_with_a_version_that_the_replicas_get);
    tcase_add_test(c, the_gate_holds_a_bad_model_back);
    tcase_add_test(c, a_rollback_is_a_new_publication_of_an_older_version);
    tcase_add_test(c, a_version_exists_only_with_its_record);
    tcase_add_test(c, a_server_that_cannot_convert_fails_the_publication_with_its_line);
    tcase_add_test(c, a_full_disk_fails_the_publication_and_nothing_else);
    return run_tests("publish", c);
}
