#include <stdlib.h>
#include <string.h>
#include "worker/internal.h"

#define MOST_ROWS 100000u /* trees: those that the job says */

struct pn_statistics {
    struct pn_run *run;
    struct pn_reader *reader;
    struct pn_features *features;
    uint64_t rows;
    struct pn_work work;
    bool in_work, closed; /* freed when the work returned */
    enum pn_result trained;
    struct pn_error error;
    void (*done)(void *);
    void *owner;
};

static void finish(struct pn_statistics *s) {
    if (s->features != NULL) {
        pn_features_freeze(s->features);
        s->run->statistics = pn_features_statistics(s->features);
    }
    if (s->run->statistics == NULL && !s->run->failed) s->run->statistics = strdup("{}");
    s->done(s->owner);
}

static void free_statistics(struct pn_statistics *s) {
    pn_reader_close(s->reader);
    if (s->features != NULL) pn_features_close(s->features);
    pn_run_unref(s->run);
    free(s);
}

static void train(struct pn_work *w) {
    struct pn_statistics *s = w->owner;
    s->trained = pn_features_train(s->features, &s->error);
}

static void trained(struct pn_work *w) {
    struct pn_statistics *s = w->owner;
    s->in_work = false;
    if (s->closed) {
        free_statistics(s);
        return;
    }
    if (s->trained != PN_OK) pn_run_fail(s->run, s->trained, s->error.text);
    else finish(s);
}

static void on_rows(void *owner, enum pn_result r, const struct pn_raw *raw, const struct pn_error *err) {
    struct pn_statistics *s = owner;
    struct pn_error why = {""};
    if (r == PN_OK && s->features == NULL) r = pn_features_open(&s->features, &s->run->job, raw->names, raw->n_columns, &why);
    else if (err != NULL) why = *err;
    if (r == PN_OK && pn_features_need_statistics(s->features)) {
        pn_features_observe(s->features, raw);
        s->rows += raw->n_rows;
        if (s->rows < (s->run->job.forest.trees > 0 ? s->run->job.forest.rows : MOST_ROWS)) {
            pn_reader_next(s->reader, on_rows, s);
            return;
        }
    }
    if (r != PN_OK && r != PN_NOT_FOUND) pn_run_fail(s->run, r, why.text);
    if (!s->run->failed && s->features != NULL && s->run->job.forest.trees > 0) {
        s->in_work = true;
        s->work = (struct pn_work){.run = train, .done = trained, .owner = s};
        pn_work_start(s->run->env, &s->work);
        return;
    }
    finish(s);
}

struct pn_statistics *pn_statistics_start(struct pn_run *run, void (*done)(void *), void *owner) {
    struct pn_statistics *s = calloc(1, sizeof *s);
    if (s == NULL) return NULL;
    *s = (struct pn_statistics){.run = run, .done = done, .owner = owner};
    struct pn_reader_options o = {.n_producers = 1, .batch_size = 4096};
    s->reader = pn_reader_open(run->env, &run->job.train, &o);
    if (s->reader == NULL) {
        free(s);
        return NULL;
    }
    run->refs++;
    pn_reader_next(s->reader, on_rows, s);
    return s;
}

void pn_statistics_close(struct pn_statistics *s) {
    if (s == NULL) return;
    s->closed = true;
    if (!s->in_work) free_statistics(s);
}

char *pn_statistics_given(const struct pn_job *job) {
    struct json_object *o = json_object_new_object();
    for (size_t i = 0; i < job->n_fields; i++) {
        const struct pn_field *f = &job->fields[i];
        if (!f->standardize) continue;
        struct json_object *e = json_object_new_object();
        pn_json_add_double(e, "mean", f->mean);
        pn_json_add_double(e, "std", f->std);
        pn_json_add(o, f->name, e);
    }
    char *text = strdup(pn_json_text(o));
    json_object_put(o);
    return text;
}
