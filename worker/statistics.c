/* The one pass over the training data that transforms need. It ends with text (run->statistics); where it can be long (pn_job_prepares), as a file of the job, behind those of its vocabularies. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/file.h"
#include "common/mutant.h"
#include "nn/vocabulary.h"
#include "worker/internal.h"

struct pn_statistics {
    struct pn_run *run;
    struct pn_reader *reader;
    struct pn_features *features;
    size_t i_field;               /* whose file is being read or written */
    struct pn_load load;
    struct pn_save save;
    struct pn_io io;
    char writer[24];              /* ends the names of files that this process has not finished */
    char *text;                   /* being written */
    struct pn_artifact file;
    struct pn_work work;
    bool busy, closed;            /* busy: something will call back; freed then */
    enum pn_result made;
    struct pn_error error;
    void (*done)(void *);
    void *owner;
};

static void free_statistics(struct pn_statistics *s) {
    pn_reader_close(s->reader);
    if (s->features != NULL) pn_features_close(s->features);
    pn_run_unref(s->run);
    free(s->text);
    free(s);
}

/* In each callback first: true: nobody wants it any more, and s is gone. */
static bool gone(struct pn_statistics *s) {
    const bool closed = s->closed;
    s->busy = false;
    if (closed) free_statistics(s);
    return closed;
}

/* Of a job that prepares nothing: a few numbers, which each worker makes for itself. */
static void finish(struct pn_statistics *s) {
    if (s->features != NULL && s->run->statistics == NULL) { /* else a plan had them first */
        pn_features_freeze(s->features);
        s->run->statistics = pn_features_statistics(s->features);
    }
    if (s->run->statistics == NULL && !s->run->failed) s->run->statistics = strdup("{}");
    s->done(s->owner);
}

/* ---- vocabularies to files, then the text that names them ---- */
static void write_next(struct pn_statistics *s);

static void cannot_write(struct pn_statistics *s, const char *path, int64_t result) {
    char text[400];
    snprintf(text, sizeof text, "writing %.300s: %s", path, strerror((int)-result));
    pn_run_fail(s->run, PN_IO, text);
}

static void written(struct pn_save *save) {
    struct pn_statistics *s = save->owner;
    if (gone(s)) return;
    if (save->result < 0) cannot_write(s, save->path, save->result);
    else {
        s->i_field++;
        write_next(s);
    }
}

static void write_file(struct pn_statistics *s, const char *name, const void *data, size_t n_bytes, void (*done)(struct pn_save *)) {
    char path[560];
    snprintf(path, sizeof path, "%s/%s", s->run->dir, name);
    s->save.done = done;
    s->save.owner = s;
    s->busy = true;
    pn_save_beside(&s->save, s->run->env, path, s->writer, data, n_bytes);
}

static void text_written(struct pn_save *save) {
    struct pn_statistics *s = save->owner;
    struct pn_run *run = s->run;
    if (gone(s)) return;
    if (save->result < 0) {
        cannot_write(s, save->path, save->result);
        return;
    }
    if (run->statistics == NULL && !run->given) { /* else another's was taken meanwhile */
        run->offered = s->text;
        run->file = s->file;
        s->text = NULL;
#if PN_MUTANT == 26 /* used before a plan names it */
        run->statistics = strdup(run->offered);
#endif
    }
    s->done(s->owner);
}

static void write_text(struct pn_statistics *s) {
    pn_features_freeze(s->features);
    s->text = pn_features_statistics(s->features);
    if (s->text == NULL) {
        pn_run_fail(s->run, PN_NO_MEMORY, "no memory for the text of the statistics");
        return;
    }
    pn_artifact_make(&s->file, "statistics", s->text, strlen(s->text));
#if PN_MUTANT == 25 /* named before it is durable */
    s->run->file = s->file;
    s->run->offered = strdup(s->text);
    s->run->changed(s->run->owner);
#endif
    write_file(s, s->file.name, s->text, s->file.n_bytes, text_written);
}

static void write_next(struct pn_statistics *s) {
    for (; s->i_field < s->run->job.n_fields; s->i_field++) {
        char name[PN_VOCABULARY_NAME];
        size_t n_bytes;
        const char *text = pn_features_file(s->features, s->i_field, &n_bytes, name);
        if (text == NULL) continue;
        write_file(s, name, text, n_bytes, written);
        return;
    }
    write_text(s);
}

static void folder_made(struct pn_io *io) {
    struct pn_statistics *s = io->owner;
    if (gone(s)) return;
    if (io->result < 0) cannot_write(s, s->run->dir, io->result);
    else write_next(s);
}

/* ---- what takes long ---- */
static void make(struct pn_work *w) {
    struct pn_statistics *s = w->owner;
    s->made = pn_features_train(s->features, &s->error);
}

static void made(struct pn_work *w) {
    struct pn_statistics *s = w->owner;
    if (gone(s)) return;
    if (s->made != PN_OK) {
        pn_run_fail(s->run, s->made, s->error.text);
        return;
    }
    s->i_field = 0;
    s->busy = true;
    s->io = (struct pn_io){.op = PN_IO_MKDIR, .path = s->run->dir, .done = folder_made, .owner = s};
    pn_io_start(s->run->env, &s->io);
}

/* ---- vocabularies that the job names a file for ---- */
static void read_next(struct pn_statistics *s);

static void take(struct pn_work *w) {
    struct pn_statistics *s = w->owner;
    s->made = pn_features_give(s->features, s->i_field, s->load.data, s->load.n_bytes, &s->error);
}

static void taken(struct pn_work *w) {
    struct pn_statistics *s = w->owner;
    if (gone(s)) return;
    if (s->made != PN_OK) {
        char text[480];
        snprintf(text, sizeof text, "the vocabulary of feature \"%s\", %.200s: %.160s", s->run->job.fields[s->i_field].name, s->load.path, s->error.text);
        pn_run_fail(s->run, s->made, text);
        return;
    }
    s->i_field++;
    read_next(s);
}

static void loaded(struct pn_load *l) {
    struct pn_statistics *s = l->owner;
    if (s->closed) free(l->data);
    if (gone(s)) return;
    if (l->result < 0) {
        char text[480];
        snprintf(text, sizeof text, "the vocabulary of feature \"%s\", %.300s: %s", s->run->job.fields[s->i_field].name, l->path, strerror((int)-l->result));
        pn_run_fail(s->run, PN_INVALID, text);
        return;
    }
    s->busy = true;
    s->work = (struct pn_work){.run = take, .done = taken, .owner = s};
    pn_work_start(s->run->env, &s->work);
}

static void read_next(struct pn_statistics *s) {
    const struct pn_job *job = &s->run->job;
    while (s->i_field < job->n_fields && job->fields[s->i_field].vocabulary.kind != PN_VOCABULARY_FILE) s->i_field++;
    s->busy = true;
    if (s->i_field < job->n_fields) {
        s->load.done = loaded;
        s->load.owner = s;
        pn_load_start(&s->load, s->run->env, job->fields[s->i_field].vocabulary.path, PN_VOCABULARY_BYTES);
        return;
    }
    s->work = (struct pn_work){.run = make, .done = made, .owner = s};
    pn_work_start(s->run->env, &s->work);
}

/* ---- rows ---- */
static void on_rows(void *owner, enum pn_result r, const struct pn_raw *raw, const struct pn_error *err) {
    struct pn_statistics *s = owner;
    struct pn_error why = {""};
    if (r == PN_OK && s->features == NULL) r = pn_features_open(&s->features, &s->run->job, raw->names, raw->n_columns, &why);
    else if (err != NULL) why = *err;
    if (r == PN_OK && pn_features_need_statistics(s->features)) {
        pn_features_observe(s->features, raw);
        if (pn_features_want_rows(s->features)) {
            pn_reader_next(s->reader, on_rows, s);
            return;
        }
    }
    pn_reader_close(s->reader); /* it may keep all pairs of the `seen` files */
    s->reader = NULL;
    pn_run_hide_row(s->run, r, &why);
    if (r != PN_OK && r != PN_NOT_FOUND) pn_run_fail(s->run, r, why.text);
    else if (s->features == NULL && pn_job_prepares(&s->run->job)) pn_run_fail(s->run, PN_INVALID, "the training data have no rows: nothing can be counted for the features");
    if (!s->run->failed && s->features != NULL && pn_job_prepares(&s->run->job)) read_next(s);
    else finish(s);
}

struct pn_statistics *pn_statistics_start(struct pn_run *run, void (*done)(void *), void *owner) {
    struct pn_statistics *s = calloc(1, sizeof *s);
    if (s == NULL) return NULL;
    *s = (struct pn_statistics){.run = run, .done = done, .owner = owner};
    snprintf(s->writer, sizeof s->writer, "%016" PRIx64, run->env->ops->random(run->env));
    struct pn_reader_options o = {.n_producers = 1, .batch_size = 4096, .parsed = run->parsed};
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
    if (!s->busy) free_statistics(s);
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
