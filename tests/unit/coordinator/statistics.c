/* The statistics of a job are a file that its record and its plans name. */
#include "fake.h"
#include "snapshot/artifacts.h"

#define WORDS "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: words}\nspec:\n  data: {train: {format: csv, uri: \"/d/a.csv\", label: click}}\n" \
    "  features:\n    - {name: a, type: categorical, vocabulary: {minCount: 2}}\n  model: {name: lr}\n  training: {dataShards: 2}\n"
#define PUBLISH "  publish: {model: words}\n"
#define FOLDER "/c/jobs/%s/vocabularies/%s"
#define VOCABULARY "u\nw\n"

/* The text, as a worker would have made it, its vocabulary, and how a beat names it. */
static char text[600], named[600], text_name[64], vocabulary_name[64];
static void make(void) {
    struct pn_artifact v, a;
    pn_artifact_make(&v, "vocabulary", VOCABULARY, 4);
    snprintf(vocabulary_name, sizeof vocabulary_name, "%s", v.name);
    struct json_object *o = pn_artifact_write(&v);
    snprintf(text, sizeof text, "{\"a\":{\"vocabulary\":%s}}", pn_json_text(o));
    json_object_put(o);
    pn_artifact_make(&a, "statistics", text, strlen(text));
    snprintf(text_name, sizeof text_name, "%s", a.name);
    o = pn_artifact_write(&a);
    snprintf(named, sizeof named, "%s", pn_json_text(o));
    json_object_put(o);
}
static const char *in_folder(const char *id, const char *name) {
    static char path[300];
    snprintf(path, sizeof path, FOLDER, id, name);
    return path;
}
static void write_files(const char *id) {
    file_write(in_folder(id, text_name), text, strlen(text));
    file_write(in_folder(id, vocabulary_name), VOCABULARY, 4);
}
static void say(const char *statistics) { node("worker-0")->statistics = node("worker-1")->statistics = statistics; }
static void steps(uint64_t n) { node("worker-0")->steps = node("worker-1")->steps = n; }
static struct json_object *planned(void) { return pn_json_get(pn_json_get(node("worker-1")->plan, "job"), "statistics"); }
static struct json_object *recorded(const char *id) { /* put it back */
    struct json_object *o = durable("job", id), *s = pn_json_get(pn_json_get(o, "model"), "statistics");
    s = s != NULL ? json_object_get(s) : NULL;
    json_object_put(o);
    return s;
}

START_TEST(record_and_plans_name_the_file_and_a_new_coordinator_still_does) {
    cluster();
    make();
    say(named);
    const char *id = submit(WORDS);
    run_ms(300);
    for (int life = 0; life < 2; life++) {
        struct json_object *s = recorded(id);
        ck_assert_str_eq(pn_json_text(s), named);
        json_object_put(s);
        ck_assert_str_eq(pn_json_text(planned()), named);
        say("{\"format\":1,\"name\":\"other\",\"bytes\":4,\"digest\":\"0000000000000000000000000000000000000000000000000000000000000000\"}"); /* it must not change */
        if (life == 0) restart_core();
        run_ms(2500);
    }
    world_close();
} END_TEST

START_TEST(what_is_no_file_is_not_taken_and_waits_for_one_that_is) {
    static const char *const bad[] = {"\"{}\"", "{}", "[]", "null", "3", "{\"format\":1,\"name\":\"../../x\",\"bytes\":4,\"digest\":\"0000000000000000000000000000000000000000000000000000000000000000\"}",
        "{\"format\":1,\"name\":\"x\",\"bytes\":0,\"digest\":\"0000000000000000000000000000000000000000000000000000000000000000\"}",
        "{\"format\":1,\"name\":\"x\",\"bytes\":18446744073709551615,\"digest\":\"0000000000000000000000000000000000000000000000000000000000000000\"}",
        "{\"format\":1,\"name\":\"x\",\"bytes\":4,\"digest\":\"0\"}", "{\"format\":1,\"name\":5,\"bytes\":4,\"digest\":{}}"};
    cluster();
    make();
    say(bad[0]);
    const char *id = submit(WORDS);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        say(bad[i]);
        run_ms(200);
        ck_assert_msg(recorded(id) == NULL && planned() == NULL, "%s", bad[i]);
    }
    ck_assert_str_eq(state(id), "RUNNING");
    say(named);
    run_ms(200);
    ck_assert_str_eq(pn_json_text(planned()), named);
    world_close();
} END_TEST

START_TEST(text_of_a_job_that_prepares_nothing_stays_short) {
    cluster();
    const size_t most = 64 << 10;
    char *longer = malloc(most + 4);
    memset(longer, ' ', most + 4);
    longer[0] = longer[most + 2] = '"';
    longer[most + 3] = '\0';
    say(longer);
    const char *id = submit(AUDIT);
    run_ms(300);
    ck_assert(recorded(id) == NULL && planned() == NULL);
    say(named); /* nor does it need a file */
    run_ms(300);
    ck_assert_ptr_null(planned());
    say(NULL);
    run_ms(300);
    ck_assert_str_eq(json_object_get_string(planned()), "{\"a\":1}");
    free(longer);
    world_close();
} END_TEST

START_TEST(a_record_from_before_there_were_files_goes_on_with_its_text) {
    cluster();
    make();
    say(named);
    const char *id = submit(WORDS PUBLISH);
    run_ms(300);
    for (size_t i = 0; i < W->durable.n; i++) {
        if (strcmp(W->durable.all[i].kind, "job") != 0) continue;
        struct json_object *o = pn_json_parse(W->durable.all[i].json, strlen(W->durable.all[i].json), NULL);
        pn_json_add_str(pn_json_get(o, "model"), "statistics", text);
        free(W->durable.all[i].json);
        W->durable.all[i].json = strdup(pn_json_text(o));
        json_object_put(o);
    }
    file_write(in_folder(id, vocabulary_name), VOCABULARY, 4);
    restart_core();
    run_ms(2500);
    ck_assert_str_eq(json_object_get_string(planned()), text);
    steps(4);
    boot(SERVING, "serving-0");
    run_ms(4000);
    ck_assert_str_eq(state(id), "SUCCEEDED");
    const size_t at = file_at("/c/models/words/1/statistics.json");
    ck_assert(at != SIZE_MAX && W->files[at].n == strlen(text) && memcmp(W->files[at].data, text, strlen(text)) == 0);
    ck_assert(file_exists(in_folder(id, vocabulary_name)));
    world_close();
} END_TEST

START_TEST(a_version_has_the_text_and_none_is_made_of_a_damaged_one) {
    cluster();
    make();
    say(named);
    steps(4);
    const char *id = submit(WORDS PUBLISH);
    write_files(id);
    run_ms(4000);
    ck_assert_str_eq(state(id), "SUCCEEDED");
    const size_t at = file_at("/c/models/words/1/statistics.json");
    char path[300];
    ck_assert(at != SIZE_MAX && W->files[at].n == strlen(text) && memcmp(W->files[at].data, text, strlen(text)) == 0);
    snprintf(path, sizeof path, "/c/models/words/1/%s", vocabulary_name);
    ck_assert(file_exists(path));
    snprintf(path, sizeof path, "/api/v1/jobs/%s/publish", id);
    for (int missing = 0; missing < 2; missing++) {
        if (missing) file_remove(in_folder(id, text_name));
        else W->files[file_at(in_folder(id, text_name))].data[3] ^= 1;
        struct call *c = ask("POST", path, "{\"force\":true}");
        run_ms(1000);
        ck_assert_int_eq(c->status, 503);
        const char *why = pn_json_str(c->body, "error", "");
        ck_assert_msg(strstr(why, text_name) != NULL && strstr(why, missing ? "No such file" : "damaged") != NULL && strchr(why, '\n') == NULL, "%s", why);
    }
    world_close();
} END_TEST

START_TEST(when_the_job_has_ended_what_nothing_names_goes) {
    for (int damaged = 0; damaged < 3; damaged++) {
        cluster();
        make();
        say(named);
        const char *id = submit(WORDS);
        write_files(id);
        char part[100], other[] = "00000000000000000000000000000000.statistics";
        snprintf(part, sizeof part, "%s.0123456789abcdef", text_name);
        file_write(in_folder(id, part), text, 9);
        file_write(in_folder(id, other), "{}", 2);
        if (damaged == 1) W->files[file_at(in_folder(id, text_name))].data[3] ^= 1;
        run_ms(1000);
        ck_assert(file_exists(in_folder(id, part)) && file_exists(in_folder(id, other))); /* it runs: somebody may be writing them */
        steps(4);
        if (damaged == 2) restart_core(); /* the new one does it */
        run_ms(6000);
        ck_assert_str_eq(state(id), "SUCCEEDED");
        ck_assert(file_exists(in_folder(id, text_name)) && file_exists(in_folder(id, vocabulary_name)));
        ck_assert_int_eq(file_exists(in_folder(id, part)), damaged == 1); /* what it names is not known for sure: nothing is touched */
        ck_assert_int_eq(file_exists(in_folder(id, other)), damaged == 1);
        world_close();
    }
} END_TEST

START_TEST(the_coordinator_can_end_behind_any_step_of_it) {
    for (size_t n = 0; n < 12; n++) {
        cluster();
        make();
        say(named);
        const char *id = submit(WORDS);
        write_files(id);
        file_write(in_folder(id, "left.0123"), "x", 1);
        run_ms(300);
        char path[100];
        snprintf(path, sizeof path, "/api/v1/jobs/%s/cancel", id);
        ck_assert_int_eq(ask("POST", path, "{}")->status, 200);
        run_ms(10 * n);
        restart_core();
        run_ms(3000);
        ck_assert(!file_exists(in_folder(id, "left.0123")) && file_exists(in_folder(id, text_name)) && file_exists(in_folder(id, vocabulary_name)));
        world_close();
    }
} END_TEST

int main(void) {
    TCase *c = tcase_create("statistics");
    tcase_add_test(c, record_and_plans_name_the_file_and_a_new_coordinator_still_does);
    tcase_add_test(c, what_is_no_file_is_not_taken_and_waits_for_one_that_is);
    tcase_add_test(c, text_of_a_job_that_prepares_nothing_stays_short);
    tcase_add_test(c, a_record_from_before_there_were_files_goes_on_with_its_text);
    tcase_add_test(c, a_version_has_the_text_and_none_is_made_of_a_damaged_one);
    tcase_add_test(c, when_the_job_has_ended_what_nothing_names_goes);
    tcase_add_test(c, the_coordinator_can_end_behind_any_step_of_it);
    return run_tests("statistics", c);
}
