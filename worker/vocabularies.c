/* The statistics of a run, where a plan names their file, and the vocabularies, from the files that they name: read, verified and made ready before the first batch. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/file.h"
#include "snapshot/artifacts.h"
#include "worker/internal.h"

struct pn_vocabulary_run {
    struct pn_run *run;
    struct pn_artifact *files;
    size_t n_files, i_file;
    struct pn_vocabularies made;
    struct pn_load load;
    struct pn_work work;
    bool busy, closed;            /* busy: something will call back; freed then */
    enum pn_result result;
    struct pn_error error;
    void (*done)(void *);
    void *owner;
};

static void free_run(struct pn_vocabulary_run *v) {
    pn_vocabularies_close(&v->made);
    pn_run_unref(v->run);
    free(v->load.data);
    free(v->files);
    free(v);
}

static bool gone(struct pn_vocabulary_run *v) {
    const bool closed = v->closed;
    v->busy = false;
    if (closed) free_run(v);
    return closed;
}

static void next(struct pn_vocabulary_run *v);

static size_t field_of(const struct pn_vocabulary_run *v, const struct pn_artifact *a) {
    size_t i = 0;
    while (i < v->run->job.n_fields && !(pn_field_files(&v->run->job.fields[i]) && strcmp(v->run->job.fields[i].name, a->feature) == 0)) i++;
    return i;
}

/* ---- the text ---- */
static void begin(struct pn_vocabulary_run *v) {
    struct pn_error why = {""};
    const enum pn_result r = pn_artifacts_read(v->run->statistics, &v->files, &v->n_files, &why);
    if (r != PN_OK) pn_run_fail(v->run, r, why.text);
    else next(v);
}

static void verify(struct pn_work *w) {
    struct pn_vocabulary_run *v = w->owner;
    v->result = pn_artifact_verify(&v->run->file, v->load.data, v->load.n_bytes, &v->error);
}

static void verified(struct pn_work *w) {
    struct pn_vocabulary_run *v = w->owner;
    if (gone(v)) return;
    if (v->result != PN_OK) {
        char text[480];
        snprintf(text, sizeof text, "the statistics of the features: %.400s", v->error.text);
        pn_run_fail(v->run, v->result, text);
        return;
    }
    v->run->statistics = v->load.data;
    v->load.data = NULL;
    begin(v);
}

static void text_loaded(struct pn_load *l) {
    struct pn_vocabulary_run *v = l->owner;
    if (gone(v)) return;
    if (l->result < 0) {
        char text[480];
        snprintf(text, sizeof text, "the statistics of the features, %.300s: %s", l->path, strerror((int)-l->result));
        pn_run_fail(v->run, PN_IO, text);
        return;
    }
    v->busy = true;
    v->work = (struct pn_work){.run = verify, .done = verified, .owner = v};
    pn_work_start(v->run->env, &v->work);
}

static void load(struct pn_vocabulary_run *v, const char *name, void (*done)(struct pn_load *)) {
    char path[560];
    snprintf(path, sizeof path, "%s/%s", v->run->dir, name);
    v->busy = true;
    v->load.done = done;
    v->load.owner = v;
    pn_load_start(&v->load, v->run->env, path, PN_ARTIFACT_BYTES);
}

/* ---- what it names ---- */
/* On a work thread. */
static void make(struct pn_work *w) {
    struct pn_vocabulary_run *v = w->owner;
    if (v->i_file == v->n_files) { /* the last: those without a file */
        struct pn_vocabularies given;
        v->result = pn_vocabularies_open(&given, &v->run->job, &v->error);
        for (size_t i = 0; v->result == PN_OK && i < v->run->job.n_fields; i++)
            if (given.of[i] != NULL) v->made.of[i] = given.of[i];
        return;
    }
    const struct pn_artifact *a = &v->files[v->i_file];
    const size_t i = field_of(v, a);
    struct pn_error why = {""};
    v->result = pn_artifact_verify(a, v->load.data, v->load.n_bytes, &why);
    if (v->result == PN_OK && i < v->run->job.n_fields && v->made.of[i] == NULL)
        v->result = pn_vocabulary_read(&v->made.of[i], v->load.data, v->load.n_bytes, v->run->job.fields[i].hash_seed, &why);
    free(v->load.data);
    v->load.data = NULL;
    if (v->result != PN_OK) pn_fail(&v->error, v->result, "the vocabulary of feature \"%s\": %s", a->feature, why.text);
}

static void made(struct pn_work *w) {
    struct pn_vocabulary_run *v = w->owner;
    if (gone(v)) return;
    if (v->result != PN_OK) {
        pn_run_fail(v->run, v->result, v->error.text);
    } else if (v->i_file < v->n_files) {
        v->i_file++;
        next(v);
    } else {
        v->run->vocabularies = v->made;
        v->run->has_vocabularies = true;
        v->made = (struct pn_vocabularies){0};
        v->done(v->owner);
    }
}

static void loaded(struct pn_load *l) {
    struct pn_vocabulary_run *v = l->owner;
    if (gone(v)) return;
    if (l->result < 0) {
        char text[480];
        snprintf(text, sizeof text, "the vocabulary of feature \"%s\", %.300s: %s", v->files[v->i_file].feature, l->path, strerror((int)-l->result));
        pn_run_fail(v->run, PN_IO, text);
        return;
    }
    v->busy = true;
    v->work = (struct pn_work){.run = make, .done = made, .owner = v};
    pn_work_start(v->run->env, &v->work);
}

static void next(struct pn_vocabulary_run *v) {
    if (v->i_file == v->n_files) {
        v->busy = true;
        v->work = (struct pn_work){.run = make, .done = made, .owner = v};
        pn_work_start(v->run->env, &v->work);
        return;
    }
    load(v, v->files[v->i_file].name, loaded);
}

struct pn_vocabulary_run *pn_vocabularies_start(struct pn_run *run, void (*done)(void *), void *owner) {
    struct pn_vocabulary_run *v = calloc(1, sizeof *v);
    if (v == NULL) return NULL;
    *v = (struct pn_vocabulary_run){.run = run, .done = done, .owner = owner};
    run->refs++;
    if (run->statistics == NULL) load(v, run->file.name, text_loaded);
    else begin(v);
    return v;
}

void pn_vocabularies_stop(struct pn_vocabulary_run *v) {
    if (v == NULL) return;
    v->closed = true;
    if (!v->busy) free_run(v);
}
