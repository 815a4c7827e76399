/* The pass that makes vocabularies, and the reading of them, in a world whose every step the test takes: ended anywhere, failing anywhere, done by two workers at once. */
#include <inttypes.h>
#include "tests/unit/fake_env.h"
#include "worker/internal.h"

static const char job_text[] =
    "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data: {train: {format: csv, uri: /d/train.csv, label: y}}\n  features:\n"
    "    - {name: a, type: categorical, vocabulary: {minCount: 2}}\n    - {name: b, type: categorical, vocabulary: {file: /d/b.txt}}\n"
    "    - {name: c, type: categorical, vocabulary: {values: [x]}}\n    - {name: n, type: numeric, bucketize: {quantiles: 3}}\n  model: {name: lr}\n";

static void put(struct fake *f, const char *path, const char *text) {
    struct fake_file *file = fake_file(f, path, true);
    file->n_bytes = strlen(text);
    file->data = malloc(file->n_bytes + 1);
    memcpy(file->data, text, file->n_bytes);
}

static struct fake *world(void) {
    struct fake *f = fake_open();
    put(f, "/d/train.csv", "y,a,b,c,n\n1,u,p,x,1\n0,v,q,y,2\n1,u,p,,3\n0,w,q,x,4\n1,w,,z,\n1,w,,z,none\n");
    put(f, "/d/b.txt", "p\nr\n");
    return f;
}

static void nothing(void *owner) { (void)owner; }
static struct pn_run *open_run(struct fake *f) {
    struct pn_run *run = calloc(1, sizeof *run);
    struct pn_error err = {""};
    *run = (struct pn_run){.refs = 1, .env = &f->env, .changed = nothing, .dir = "/jobs/1/vocabularies"};
    ck_assert_msg(pn_job_parse(&run->job, job_text, strlen(job_text), "job", NULL, NULL, &err) == PN_OK, "%s", err.text);
    return run;
}

static bool ends(const char *path, const char *ending) { return strlen(path) >= strlen(ending) && strcmp(path + strlen(path) - strlen(ending), ending) == 0; }

/* Files with the name of a vocabulary, none of them a part. And the text is what its name says, and is not there before what it names. */
static size_t whole_files(struct fake *f) {
    size_t n = 0;
    bool text = false;
    for (size_t i = 0; i < FAKE_FILES; i++) {
        const struct fake_file *file = &f->files[i];
        const size_t length = strlen(file->path);
        if (file->exists && ends(file->path, ".statistics")) {
            struct pn_artifact a;
            pn_artifact_make(&a, "statistics", file->data, file->n_bytes);
            ck_assert(file->synced && !text && ends(file->path, a.name));
            text = true;
        }
        if (!file->exists || length < 11 || strcmp(file->path + length - 11, ".vocabulary") != 0) continue;
        ck_assert(file->synced);
        ck_assert((file->n_bytes == 4 && memcmp(file->data, "w\nu\n", 4) == 0) || (file->n_bytes == 4 && memcmp(file->data, "p\nr\n", 4) == 0));
        n++;
    }
    ck_assert(!text || n == 2);
    return n;
}

static void done(void *owner) { ++*(int *)owner; }

START_TEST(what_one_worker_counted_another_reads) {
    struct fake *f = world();
    struct pn_run *run = open_run(f), *other = open_run(f);
    int n = 0;
    struct pn_statistics *s = pn_statistics_start(run, done, &n);
    fake_run(f);
    ck_assert_msg(n == 1 && !run->failed && run->statistics == NULL && run->offered != NULL, "%s", run->error.text);
    ck_assert_uint_eq(whole_files(f), 2);
    other->file = run->file;
    other->given = true;
    struct pn_vocabulary_run *v = pn_vocabularies_start(other, done, &n);
    fake_run(f);
    ck_assert_msg(n == 2 && !other->failed && other->has_vocabularies, "%s", other->error.text);
    ck_assert_str_eq(other->statistics, run->offered);
    const struct pn_job *job = &other->job;
    static const struct { size_t field; const char *value; bool in; } facts[] = {{0, "u", true}, {0, "w", true}, {0, "v", false}, {1, "p", true}, {1, "r", true}, {1, "q", false}, {2, "x", true}, {2, "z", false}};
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++)
        ck_assert_int_eq(pn_vocabulary_has(other->vocabularies.of[facts[i].field], pn_hash(facts[i].value, 1, job->fields[facts[i].field].hash_seed)), facts[i].in);
    pn_statistics_close(s);
    pn_vocabularies_stop(v);
    pn_run_unref(run);
    pn_run_unref(other);
    fake_close(f);
} END_TEST

/* Behind each step in turn: whatever is in flight comes back to nobody, and all memory is given back (the sanitizer looks). */
START_TEST(the_pass_and_the_reading_can_end_behind_any_step) {
    bool ended = false;
    for (int steps = 0; !ended; steps++) {
        struct fake *f = world();
        struct pn_run *run = open_run(f);
        int n = 0;
        struct pn_statistics *s = pn_statistics_start(run, done, &n);
        struct pn_vocabulary_run *v = NULL;
        for (int i = 0; i < steps && !ended; i++) {
            const bool more = fake_step(f);
            if (!more && v == NULL) {
                run->given = true;
                v = pn_vocabularies_start(run, done, &n);
            }
            else ended = !more;
        }
        pn_statistics_close(s);
        pn_vocabularies_stop(v);
        pn_run_unref(run);
        fake_run(f);
        ck_assert_int_eq(n, ended ? 2 : n);
        (void)whole_files(f);
        fake_close(f);
        ck_assert_int_lt(steps, 500);
    }
} END_TEST

START_TEST(an_operation_that_fails_is_said_and_leaves_no_part_of_a_file) {
    uint64_t n_failed = 0;
    for (uint64_t k = 1; k < 100; k++) {
        struct fake *f = world();
        struct pn_run *run = open_run(f);
        int n = 0;
        f->fail_io = k;
        struct pn_statistics *s = pn_statistics_start(run, done, &n);
        fake_run(f);
        struct pn_vocabulary_run *v = NULL;
        run->given = !run->failed && n == 1;
        if (run->given) v = pn_vocabularies_start(run, done, &n);
        fake_run(f);
        const bool reached = f->n_io_done >= k;
        if (run->failed) ck_assert(run->error.text[0] != '\0');
        else ck_assert_int_eq(n, 2);
        n_failed += run->failed;
        (void)whole_files(f);
        pn_statistics_close(s);
        pn_vocabularies_stop(v);
        pn_run_unref(run);
        fake_close(f);
        if (!reached) break;
    }
    ck_assert_uint_gt(n_failed, 10);
} END_TEST

/* One of the waiting requests, of any kind and of any of the two, as a seed says. */
static bool step_of_any(struct fake *f, struct pn_rng *rng) {
    const size_t n = f->n_ios + f->n_works;
    if (n == 0) return false;
    const size_t i = pn_rng_next(rng) % n;
    if (i < f->n_ios) { /* to the front: that is the next */
        struct pn_io *io = f->ios[i];
        memmove(f->ios + 1, f->ios, i * sizeof *f->ios);
        f->ios[0] = io;
        return fake_step(f);
    }
    struct pn_work *w = f->works[i - f->n_ios];
    f->works[i - f->n_ios] = f->works[--f->n_works];
    w->run(w);
    w->done(w);
    return true;
}

/* One was thought dead and is not: the file is whole at every moment, and both say the same. */
START_TEST(two_workers_that_count_at_once_write_one_file) {
    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct pn_rng rng = {seed};
        struct fake *f = world();
        struct pn_run *run[2] = {open_run(f), open_run(f)};
        struct pn_statistics *s[2];
        int n = 0;
        s[0] = pn_statistics_start(run[0], done, &n);
        s[1] = pn_statistics_start(run[1], done, &n);
        while (step_of_any(f, &rng)) (void)whole_files(f);
        ck_assert_int_eq(n, 2);
        ck_assert_str_eq(run[0]->offered, run[1]->offered);
        ck_assert_str_eq(run[0]->file.digest, run[1]->file.digest);
        ck_assert_uint_eq(whole_files(f), 2);
        for (int i = 0; i < 2; i++) {
            pn_statistics_close(s[i]);
            pn_run_unref(run[i]);
        }
        fake_close(f);
    }
} END_TEST

START_TEST(a_text_that_is_not_what_the_plan_says_fails_the_run) {
    static const struct { const char *text, *says; } bad[] = {{NULL, "No such file"}, {"{\"a\":1}", "digest"}, {"{}", "it has 2 bytes and had 7"}, {"{\"a\":2}x", "it has 8 bytes"}, {"", "it has 0 bytes"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct fake *f = world();
        struct pn_run *run = open_run(f);
        char path[200];
        int n = 0;
        pn_artifact_make(&run->file, "statistics", "{\"a\":2}", 7);
        run->given = true;
        snprintf(path, sizeof path, "%s/%s", run->dir, run->file.name);
        if (bad[i].text != NULL) put(f, path, bad[i].text);
        struct pn_vocabulary_run *v = pn_vocabularies_start(run, done, &n);
        fake_run(f);
        ck_assert_msg(run->failed && n == 0 && run->statistics == NULL && strstr(run->error.text, bad[i].says) != NULL && strstr(run->error.text, run->file.name) != NULL, "%zu: %s", i, run->error.text);
        pn_vocabularies_stop(v);
        pn_run_unref(run);
        fake_close(f);
    }
} END_TEST

START_TEST(a_file_that_is_not_what_the_statistics_say_fails_the_run) {
    static const struct { const char *statistics, *says; } bad[] = {
        {"{\"a\":{\"vocabulary\":{\"format\":1,\"name\":\"none\",\"bytes\":4,\"digest\":\"" "0000000000000000000000000000000000000000000000000000000000000000" "\"}}}", "No such file"},
        {"{\"a\":{\"vocabulary\":{\"format\":1,\"name\":\"here\",\"bytes\":4,\"digest\":\"" "0000000000000000000000000000000000000000000000000000000000000000" "\"}}}", "damaged"},
        {"{\"a\":{\"vocabulary\":{\"format\":1,\"name\":\"here\",\"bytes\":5,\"digest\":\"" "0000000000000000000000000000000000000000000000000000000000000000" "\"}}}", "has 4 bytes"},
        {"{\"a\":{\"vocabulary\":{\"format\":1,\"name\":\"../here\",\"bytes\":4,\"digest\":\"" "0000000000000000000000000000000000000000000000000000000000000000" "\"}}}", "no sound file"},
        {"{\"a\":{\"vocabulary\":{\"format\":2,\"name\":\"here\"}}}", "not of format 1"},
        {"{\"a\":{\"vocabulary\":{\"format\":1}}}", "no sound file"},
        {"[]", "no JSON object"},
        {"{\"a\":", ""}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct fake *f = world();
        put(f, "/jobs/1/vocabularies/here", "a\nb\n");
        struct pn_run *run = open_run(f);
        int n = 0;
        run->statistics = strdup(bad[i].statistics);
        struct pn_vocabulary_run *v = pn_vocabularies_start(run, done, &n);
        fake_run(f);
        ck_assert_msg(run->failed && n == 0 && strstr(run->error.text, bad[i].says) != NULL, "%zu: %s", i, run->error.text);
        pn_vocabularies_stop(v);
        pn_run_unref(run);
        fake_close(f);
    }
} END_TEST

int main(void) {
    TCase *c = tcase_create("vocabularies");
    tcase_add_test(c, what_one_worker_counted_another_reads);
    tcase_add_test(c, the_pass_and_the_reading_can_end_behind_any_step);
    tcase_add_test(c, an_operation_that_fails_is_said_and_leaves_no_part_of_a_file);
    tcase_add_test(c, two_workers_that_count_at_once_write_one_file);
    tcase_add_test(c, a_text_that_is_not_what_the_plan_says_fails_the_run);
    tcase_add_test(c, a_file_that_is_not_what_the_statistics_say_fails_the_run);
    return fake_suite("vocabularies", c);
}
