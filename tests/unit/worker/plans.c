/* What a worker makes of the statistics in its plans: it names the file that it made and uses nothing before a plan names it; it takes another's file, or text from before there were files. */
#include <inttypes.h>
#include "common/json.h"
#include "snapshot/artifacts.h"
#include "tests/unit/fake_env.h"
#include "worker/worker.h"

#define HEAD "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data: {train: {format: csv, uri: /d/train.csv, label: y}}\n  features:\n"
#define JOB HEAD "    - {name: n, type: numeric, bucketize: {quantiles: 3}}\n  model: {name: lr}\n"
#define MADE "{ \"n\": { \"boundaries\": [ 2, 3 ] } }"

static void put(struct fake *f, const char *path, const char *text) {
    struct fake_file *file = fake_file(f, path, true);
    file->n_bytes = strlen(text);
    free(file->data);
    file->data = malloc(file->n_bytes + 1);
    memcpy(file->data, text, file->n_bytes);
}

struct world { struct fake *f; struct pn_worker *w; uint64_t revision; struct json_object *beat; bool pushed; };

static struct world open_world(void) {
    struct pn_worker_options o = {.name = "worker-0", .coordinator = "tcp://c"};
    struct world x = {.f = fake_open()};
    put(x.f, "/d/train.csv", "y,n\n1,1\n0,2\n1,3\n0,4\n1,\n");
    x.w = pn_worker_open(&x.f->env, &o);
    ck_assert_ptr_nonnull(x.w);
    pn_worker_core.start(x.w);
    return x;
}

/* Lets all happen that can, and keeps the newest beat. */
static void settle(struct world *x) {
    for (int i = 0; i < 10; i++) {
        fake_run(x->f);
        fake_advance(x->f, 20);
        pn_peer to;
        for (struct pn_msg *m; (m = fake_take(x->f, &to)) != NULL;) {
            struct pn_frame frame;
            ck_assert_int_eq(pn_frame_open(&frame, m->data, m->n_bytes, NULL), PN_OK);
            if (frame.kind == PN_BEAT) {
                if (x->beat != NULL) json_object_put(x->beat);
                x->beat = pn_control_read(&frame, NULL);
            } else x->pushed = true; /* seeds, pulls, pushes: it has begun */
            pn_frame_close(&frame);
            pn_msg_unref(m);
        }
    }
}

static void close_world(struct world *x) {
    pn_worker_close(x->w);
    fake_run(x->f);
    if (x->beat != NULL) json_object_put(x->beat);
    fake_close(x->f);
}

/* statistics: JSON, or NULL. */
static void plan(struct world *x, const char *job, bool first, const char *statistics) {
    struct json_object *o = pn_json_parse("{\"beat_ms\":20,\"job\":{\"id\":\"job-1\",\"generation\":1,\"n_producers\":1,\"shards\":[{\"address\":\"tcp://s\",\"term\":1}],\"slots\":[0],\"dir\":\"/j\"}}", 131, NULL);
    ck_assert_ptr_nonnull(o);
    struct json_object *j = pn_json_get(o, "job");
    pn_json_add_str(j, "text", job);
    pn_json_add(j, "producers", first ? pn_json_parse("[{\"producer\":0,\"incarnation\":1,\"first_step\":1}]", 47, NULL) : json_object_new_array());
    if (statistics != NULL) {
        struct json_object *s = pn_json_parse(statistics, strlen(statistics), NULL);
        ck_assert_ptr_nonnull(s);
        pn_json_add(j, "statistics", s);
    }
    struct pn_msg *m = pn_control_write(&x->f->env, PN_PLAN, 1, ++x->revision, o);
    pn_worker_core.message(x->w, 1, m); /* the coordinator is the first peer it connected to */
    pn_msg_unref(m);
    json_object_put(o);
    settle(x);
}
static const char *state(struct world *x) { return pn_json_str(pn_json_get(x->beat, "job"), "state", "?"); }
static const char *error(struct world *x) { return pn_json_str(pn_json_get(x->beat, "job"), "error", ""); }
static struct json_object *said(struct world *x) { return pn_json_get(pn_json_get(x->beat, "model"), "statistics"); }
static const char *file_of(const char *text, char path[200]) {
    static char named[400];
    struct pn_artifact a;
    pn_artifact_make(&a, "statistics", text, strlen(text));
    struct json_object *o = pn_artifact_write(&a);
    snprintf(named, sizeof named, "%s", pn_json_text(o));
    json_object_put(o);
    snprintf(path, 200, "/j/%s", a.name);
    return named;
}

START_TEST(what_it_made_it_names_and_uses_when_a_plan_names_it) {
    struct world x = open_world();
    struct pn_artifact a;
    char path[200];
    plan(&x, JOB, true, NULL);
    ck_assert_str_eq(state(&x), "starting");
    ck_assert(!x.pushed && pn_artifact_read(said(&x), &a));
    snprintf(path, sizeof path, "/j/%s", a.name);
    ck_assert(fake_file(x.f, path, false) != NULL && fake_file(x.f, path, false)->synced);
    char name[400];
    snprintf(name, sizeof name, "%s", pn_json_text(said(&x)));
    fake_file(x.f, path, false)->exists = false; /* it need not read its own */
    plan(&x, JOB, true, name);
    ck_assert_str_eq(state(&x), "running");
    ck_assert(x.pushed);
    ck_assert_str_eq(pn_json_text(said(&x)), name);
    close_world(&x);
} END_TEST

START_TEST(another_workers_file_is_read_whatever_this_one_made) {
    for (int made = 0; made < 2; made++) {
        struct world x = open_world();
        char path[200];
        const char *name = file_of(MADE, path);
        put(x.f, path, MADE);
        if (made) plan(&x, JOB, true, NULL);
        plan(&x, JOB, true, name);
        ck_assert_msg(strcmp(state(&x), "running") == 0 && x.pushed, "%s", error(&x));
        close_world(&x);
    }
} END_TEST

START_TEST(who_does_not_own_the_first_producer_makes_nothing_and_waits) {
    struct world x = open_world();
    char path[200];
    plan(&x, JOB, false, NULL);
    ck_assert_str_eq(state(&x), "starting");
    ck_assert(!x.pushed && said(&x) == NULL);
    const char *name = file_of(MADE, path);
    put(x.f, path, MADE);
    plan(&x, JOB, false, name);
    ck_assert_msg(strcmp(state(&x), "running") == 0, "%s", error(&x));
    close_world(&x);
} END_TEST

START_TEST(text_in_a_plan_is_taken_as_from_records_of_before) {
    struct world x = open_world();
    plan(&x, JOB, true, "\"{\\\"n\\\":{\\\"boundaries\\\":[2,3]}}\"");
    ck_assert_msg(strcmp(state(&x), "running") == 0 && x.pushed, "%s", error(&x));
    close_world(&x);
} END_TEST

START_TEST(a_name_that_is_none_or_a_file_that_is_not_there_fails_the_run_with_a_line) {
    static const struct { const char *statistics, *says; } bad[] = {
        {"{}", "no sound file"}, {"[1]", "no sound file"}, {"7", "no sound file"}, {"{\"format\":2,\"name\":\"a\",\"bytes\":1,\"digest\":\"x\"}", "no sound file"},
        {"{\"format\":1,\"name\":\"../a\",\"bytes\":4,\"digest\":\"0000000000000000000000000000000000000000000000000000000000000000\"}", "no sound file"},
        {"{\"format\":1,\"name\":\"a\",\"bytes\":99999999999,\"digest\":\"0000000000000000000000000000000000000000000000000000000000000000\"}", "no sound file"},
        {"{\"format\":1,\"name\":\"a\",\"bytes\":-4,\"digest\":\"0000000000000000000000000000000000000000000000000000000000000000\"}", "no sound file"},
        {"{\"format\":1,\"name\":\"a\",\"bytes\":4,\"digest\":\"00\"}", "no sound file"},
        {"{\"format\":1,\"name\":\"a\",\"bytes\":4,\"digest\":\"0000000000000000000000000000000000000000000000000000000000000000\"}", "damaged"},
        {"{\"format\":1,\"name\":\"b\",\"bytes\":4,\"digest\":\"0000000000000000000000000000000000000000000000000000000000000000\"}", "/j/b: No such file"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct world x = open_world();
        put(x.f, "/j/a", "{  }");
        plan(&x, JOB, true, bad[i].statistics);
        ck_assert_msg(strcmp(state(&x), "failed") == 0 && strstr(error(&x), bad[i].says) != NULL && !x.pushed, "%zu: %s %s", i, state(&x), error(&x));
        close_world(&x);
    }
} END_TEST

int main(void) {
    TCase *c = tcase_create("plans");
    tcase_add_test(c, what_it_made_it_names_and_uses_when_a_plan_names_it);
    tcase_add_test(c, another_workers_file_is_read_whatever_this_one_made);
    tcase_add_test(c, who_does_not_own_the_first_producer_makes_nothing_and_waits);
    tcase_add_test(c, text_in_a_plan_is_taken_as_from_records_of_before);
    tcase_add_test(c, a_name_that_is_none_or_a_file_that_is_not_there_fails_the_run_with_a_line);
    return fake_suite("plans", c);
}
