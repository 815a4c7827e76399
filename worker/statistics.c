#include <stdlib.h>
#include <string.h>
#include "worker/internal.h"

#define MOST_ROWS 100000u

struct pn_statistics {
    struct pn_run *run;
    struct pn_reader *reader;
    struct pn_features *features;
    uint64_t rows;
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

static void on_rows(void *owner, enum pn_result r, const struct pn_raw *raw, const struct pn_error *err) {
    struct pn_statistics *s = owner;
    struct pn_error why = {""};
    if (r == PN_OK && s->features == NULL) r = pn_features_open(&s->features, &s->run->job, raw->names, raw->n_columns, &why);
    else if (err != NULL) why = *err;
    if (r == PN_OK && pn_features_need_statistics(s->features)) {
        pn_features_observe(s->features, raw);
        s->rows += raw->n_rows;
        if (s->rows < MOST_ROWS) {
            pn_reader_next(s->reader, on_rows, s);
            return;
        }
    }
    if (r != PN_OK && r != PN_NOT_FOUND) pn_run_fail(s->run, r, why.text);
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
    pn_reader_next(s->reader, on_rows, s);
    return s;
}

void pn_statistics_close(struct pn_statistics *s) {
    if (s == NULL) return;
    pn_reader_close(s->reader);
    if (s->features != NULL) pn_features_close(s->features);
    free(s);
}
