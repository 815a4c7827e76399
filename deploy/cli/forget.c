/* pinion forget: the rows keyed by a value go from everything that the cluster keeps. The value itself goes nowhere: its keys are made here, by the transform code of
 * training, and only they are sent and recorded. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "deploy/cli/cli.h"
#include "nn/model.h"

static const char *when(uint64_t ms, char text[32]) {
    const time_t s = (time_t)(ms / 1000);
    struct tm tm;
    text[0] = '-';
    text[1] = '\0';
    if (ms > 0) strftime(text, 32, "%Y-%m-%d %H:%M:%S", localtime_r(&s, &tm));
    return text;
}

static void describe(struct json_object *e) {
    char asked[32], done[32];
    struct json_object *keys = pn_json_get(e, "keys");
    printf("%-4llu %-10s field %s, asked %s by %s, %s%s", (unsigned long long)pn_json_u64(e, "number", 0), pn_json_str(e, "job", ""), pn_json_str(e, "field", ""),
           when(pn_json_u64(e, "asked_ms", 0), asked), pn_json_str(e, "who", ""), pn_json_bool(e, "done", false) ? "done " : "not done yet: ",
           pn_json_bool(e, "done", false) ? when(pn_json_u64(e, "done_ms", 0), done) : pn_json_str(e, "note", ""));
    printf("\n     keys");
    for (size_t i = 0; i < pn_json_length(keys); i++)
        printf(" %llu:%016llx", (unsigned long long)json_object_get_uint64(pn_json_at(pn_json_at(keys, i), 0)), (unsigned long long)json_object_get_uint64(pn_json_at(pn_json_at(keys, i), 1)));
    printf("; removed: %llu rows from servers, %llu from %llu checkpoints, %llu published versions\n", (unsigned long long)pn_json_u64(e, "server_rows", 0),
           (unsigned long long)pn_json_u64(e, "checkpoint_rows", 0), (unsigned long long)pn_json_u64(e, "checkpoints", 0), (unsigned long long)pn_json_u64(e, "versions", 0));
}

static int list(const struct cli *c) {
    struct json_object *o = cli_must(c, "GET", "/api/v1/forget", NULL), *all = pn_json_get(o, "requests");
    if (c->json) puts(pn_json_text(o));
    for (size_t i = 0; !c->json && i < pn_json_length(all); i++) describe(pn_json_at(all, i));
    if (!c->json && pn_json_length(all) == 0) printf("nothing has been forgotten\n");
    return EXIT_DONE;
}

/* What of the job is keyed by the value: [[table, key], ..]; *crossed: rows that are keyed by it and something else, too; *shared: other values have the same row. */
static struct json_object *keys_of(const struct pn_job *job, const char *field, const char *value, bool *crossed, bool *shared) {
    struct json_object *keys = json_object_new_array();
    for (size_t i = 0; i < job->n_fields; i++) {
        const struct pn_field *f = &job->fields[i];
        uint64_t key;
        if (f->type == PN_FIELD_CROSS)
            for (uint32_t k = 0; k < f->n_crossed; k++) {
                const struct pn_field *of = &job->fields[f->crossed[k]];
                *crossed = *crossed || strcmp(of->name, field) == 0 || strcmp(of->column, field) == 0;
            }
        if ((strcmp(f->name, field) != 0 && strcmp(f->column, field) != 0) || !pn_field_value_key(f, value, strlen(value), &key)) continue;
        *shared = *shared || f->buckets > 0;
        struct json_object *pair = json_object_new_array();
        json_object_array_add(pair, json_object_new_uint64(f->i_table));
        json_object_array_add(pair, json_object_new_uint64(key));
        bool twice = false; /* fields that share their hash have one row */
        for (size_t k = 0; k < pn_json_length(keys); k++) twice = twice || json_object_equal(pn_json_at(keys, k), pair);
        if (twice) json_object_put(pair);
        else json_object_array_add(keys, pair);
    }
    return keys;
}

static void add_job(const struct cli *c, const char *id, const char *field, const char *value, struct json_object *targets, bool *crossed, bool *shared) {
    static struct pn_job job;
    char path[200];
    struct pn_error err;
    snprintf(path, sizeof path, "/api/v1/jobs/%.64s/text", id);
    struct json_object *o = cli_must(c, "GET", path, NULL);
    const char *text = pn_json_str(o, "text", "");
    if (pn_job_parse(&job, text, strlen(text), id, NULL, NULL, &err) != PN_OK) cli_fail(EXIT_FAILED, "job %s cannot be read: %s", id, err.text);
    struct json_object *keys = keys_of(&job, field, value, crossed, shared);
    pn_job_free(&job);
    json_object_put(o);
    if (pn_json_length(keys) == 0) {
        json_object_put(keys);
        return;
    }
    struct json_object *target = json_object_new_object();
    pn_json_add_str(target, "job", id);
    pn_json_add(target, "keys", keys);
    json_object_array_add(targets, target);
}

static void limits(bool crossed, bool shared) {
    printf("What this does not undo:\n"
           "  - the dense weights, and rows of other values, that were learned from this value's data;\n"
           "  - the data: a job that is submitted later and reads the value learns it again (these jobs will not: their servers ignore its keys for good);\n"
           "  - what was copied elsewhere: exports, snapshots and checkpoints that somebody took away, file system backups;\n"
           "  - privacy budgets that were spent on it.\n");
    if (crossed) printf("  - rows of crosses with this field: their keys are of the value and another one together, and were not looked for.\n");
    if (shared) printf("  Its feature has buckets: the row is gone for the other values of its bucket, too.\n");
}

int verb_forget(const struct cli *c) {
    const char *field = cli_option(c, "field", NULL), *value = cli_option(c, "value", NULL), *who = cli_option(c, "who", getenv("USER"));
    if (cli_option(c, "list", NULL) != NULL) return list(c);
    if (field == NULL || value == NULL || value[0] == '\0') cli_fail(EXIT_USAGE, "pinion forget needs --field NAME and --value V, or --list");
    if (c->n_rest > 1) cli_fail(EXIT_USAGE, "pinion forget takes one job at most; without one it is all jobs that have the field");
    const long timeout_s = cli_number(c, "timeout", 600, 1, 1000000);
    bool crossed = false, shared = false;
    struct json_object *targets = json_object_new_array(), *body = json_object_new_object();
    if (c->n_rest == 1) add_job(c, c->rest[0], field, value, targets, &crossed, &shared);
    else {
        struct json_object *o = cli_must(c, "GET", "/api/v1/jobs", NULL), *jobs = pn_json_get(o, "jobs");
        for (size_t i = 0; i < pn_json_length(jobs); i++) add_job(c, pn_json_str(pn_json_at(jobs, i), "id", ""), field, value, targets, &crossed, &shared);
    }
    if (pn_json_length(targets) == 0)
        cli_fail(EXIT_REFUSED, "no %s has rows keyed by values of \"%s\": a categorical, multi or sequence feature of that name or column is needed (crosses, bucketized numbers and leaves are not keyed by one value)",
                 c->n_rest == 1 ? c->rest[0] : "job", field);
    pn_json_add_str(body, "field", field);
    pn_json_add_str(body, "who", who != NULL ? who : "unknown");
    pn_json_add(body, "targets", targets);
    struct json_object *answer = cli_must(c, "POST", "/api/v1/forget", body), *numbers = pn_json_get(answer, "numbers");
    if (!c->json) printf("the request is kept (%zu job%s) and goes on whatever restarts\n", pn_json_length(numbers), pn_json_length(numbers) == 1 ? "" : "s");
    fflush(stdout);
    char url[600];
    snprintf(url, sizeof url, "%s/api/v1/forget", cli_coordinator(c));
    for (long waited_ms = 0;; waited_ms += 100) {
        struct json_object *o = NULL, *left = NULL;
        const bool answered = cli_http(url, "GET", NULL, &o) == 200; /* a coordinator that is being started again */
        struct json_object *all = answered ? pn_json_get(o, "requests") : NULL;
        size_t done = 0;
        for (size_t i = 0; i < pn_json_length(all); i++)
            for (size_t k = 0; k < pn_json_length(numbers); k++) {
                if (pn_json_u64(pn_json_at(all, i), "number", 0) != json_object_get_uint64(pn_json_at(numbers, k))) continue;
                if (pn_json_bool(pn_json_at(all, i), "done", false)) done++;
                else left = pn_json_at(all, i);
            }
        if (done == pn_json_length(numbers)) {
            if (c->json) puts(pn_json_text(o));
            for (size_t i = 0; !c->json && i < pn_json_length(all); i++)
                for (size_t k = 0; k < pn_json_length(numbers); k++)
                    if (pn_json_u64(pn_json_at(all, i), "number", 0) == json_object_get_uint64(pn_json_at(numbers, k))) describe(pn_json_at(all, i));
            if (!c->json) limits(crossed, shared);
            return EXIT_DONE;
        }
        if (waited_ms >= timeout_s * 1000) {
            fprintf(stderr, "pinion: not done yet after %ld s, and goes on (pinion forget --list): %s\n", timeout_s, left != NULL ? pn_json_str(left, "note", "") : "the coordinator does not answer");
            return EXIT_TIMEOUT;
        }
        if (o != NULL) json_object_put(o);
        nanosleep(&(struct timespec){0, 100000000}, NULL);
    }
}
