/* Patterns and folders among a job's files become lists when the job is submitted, and stay what they were then. */
#include "job/job.h"
#include "tests/unit/coordinator/fake.h"

static void text_of(char *out, size_t room, const char *train, const char *test) {
    snprintf(out, room,
             "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data:\n    train: {%s}\n%s%s%s"
             "  features: [{name: u, type: categorical}]\n  tables: {defaults: {optimizer: {name: adagrad, lr: 0.1}, init: zero}}\n  model: {name: lr}\n  optimizer: {name: adam, lr: 0.01}\n"
             "  training: {batchSize: 32, dataShards: 2}\n", train, test ? "    test: {" : "", test ? test : "", test ? "}\n" : "");
}
/* The files of a stored job, joined by blanks. */
static const char *files_of(const char *id, bool test) {
    static char out[4000];
    static struct pn_job j;
    struct json_object *record = durable("job", id);
    const char *text = pn_json_str(record, "text", "");
    ck_assert_int_eq(pn_job_parse(&j, text, strlen(text), "job", NULL, NULL, NULL), PN_OK);
    const struct pn_data *d = test ? &j.test : &j.train;
    int n = snprintf(out, sizeof out, "%s", d->path);
    for (uint32_t i = 0; i < d->n_more; i++) n += snprintf(out + n, sizeof out - (size_t)n, " %s", d->more[i]);
    json_object_put(record);
    pn_job_free(&j);
    return out;
}

START_TEST(patterns_and_folders_become_sorted_lists_once) {
    char text[2000];
    cluster();
    static const char *const there[] = {"/data/part-2.tsv.zst", "/data/part-10.tsv", "/data/part-1.tsv", "/data/part-1.tsv.gz", "/data/other.csv", "/data/.part-0.tsv", "/in/_SUCCESS", "/in/b", "/in/a"};
    for (size_t i = 0; i < sizeof there / sizeof *there; i++) file_write(there[i], "x", 1);
    text_of(text, sizeof text, "format: csv, label: y, uri: [other.csv, \"part-*.tsv\", /in/a]", "format: csv, label: y, uri: /in/");
    struct call *c = submit_text(text, "k");
    ck_assert(!c->answered);
    run_ms(100);
    ck_assert_int_eq(c->status, 201);
    char id[32];
    snprintf(id, sizeof id, "%s", pn_json_str(c->body, "id", ""));
    /* part-1.tsv and part-1.tsv.gz are one file */
    ck_assert_str_eq(files_of(id, false), "/data/other.csv /data/part-1.tsv /data/part-10.tsv /data/part-2.tsv.zst /in/a");
    ck_assert_str_eq(files_of(id, true), "/in/a /in/b");
    file_write("/data/part-3.tsv", "x", 1);
    restart_core();
    run_ms(2000);
    ck_assert_str_eq(files_of(id, false), "/data/other.csv /data/part-1.tsv /data/part-10.tsv /data/part-2.tsv.zst /in/a");
    c = submit_text(text, "k"); /* asked twice: it runs once */
    run_ms(100);
    ck_assert(c->status == 200 && strcmp(pn_json_str(c->body, "id", ""), id) == 0);
    world_close();
} END_TEST

START_TEST(two_submissions_of_one_key_run_once_also_while_files_are_looked_up) {
    char text[2000];
    cluster();
    file_write("/data/a.csv", "x", 1);
    text_of(text, sizeof text, "format: csv, label: y, uri: \"*.csv\"", NULL);
    struct call *a = submit_text(text, "k"), *b = submit_text(text, "k");
    run_ms(100);
    ck_assert(a->status == 201 && b->status == 200);
    ck_assert_uint_eq(durable_count("job"), 1);
    world_close();
} END_TEST

START_TEST(what_fits_nothing_is_refused_in_one_line) {
    static const struct { const char *train, *why; } bad[] = {
        {"format: csv, label: y, uri: \"day-*.csv\"", "uri \"/data/day-*.csv\": no file fits; its folder has a.csv"},
        {"format: csv, label: y, uri: \"no/*.csv\"", "uri \"/data/no/*.csv\": its folder cannot be listed"},
        {"format: csv, label: y, uri: \"*/a.csv\"", NULL}, /* only the name may be a pattern: a file of this name is looked for by the reader */
        {"format: csv, label: y, uri: /many/", "files; a data set has at most 64"}};
    char text[2000], path[64];
    cluster();
    file_write("/data/a.csv", "x", 1);
    for (int i = 0; i < 70; i++) {
        snprintf(path, sizeof path, "/many/%03d", i);
        file_write(path, "x", 1);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        text_of(text, sizeof text, bad[i].train, NULL);
        struct call *c = submit_text(text, "");
        run_ms(50);
        ck_assert(c->answered);
        if (bad[i].why == NULL) ck_assert_int_eq(c->status, 201);
        else ck_assert_msg(c->status == 400 && strstr(pn_json_str(c->body, "error", ""), bad[i].why) != NULL, "%d %s", c->status, pn_json_str(c->body, "error", ""));
    }
    world_close();
} END_TEST

int main(void) {
    TCase *c = tcase_create("files");
    tcase_add_test(c, patterns_and_folders_become_sorted_lists_once);
    tcase_add_test(c, two_submissions_of_one_key_run_once_also_while_files_are_looked_up);
    tcase_add_test(c, what_fits_nothing_is_refused_in_one_line);
    return run_tests("files", c);
}
