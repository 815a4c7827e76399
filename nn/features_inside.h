/* What features.c (keys and numbers of a batch) and statistics.c (the pass before) share. Not for other folders. */
#ifndef PN_NN_FEATURES_INSIDE_H
#define PN_NN_FEATURES_INSIDE_H

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "common/hash.h"
#include "common/json.h"
#include "nn/forest.h"
#include "nn/model.h"
#include "nn/quantiles.h"
#include "nn/vocabulary.h"

struct pn_features {
    const struct pn_job *job;
    size_t column[PN_MAX_FIELDS];        /* raw column of a field (crosses: none) */
    size_t sparse[PN_MAX_FIELDS], dense[PN_MAX_FIELDS], n_sparse, n_dense;
    bool weighted;                       /* some field is: batches have weights */
    double mean[PN_MAX_FIELDS], std[PN_MAX_FIELDS];
    const double *boundaries[PN_MAX_FIELDS]; /* of the job, or quantiles: not NULL once they are known */
    size_t n_boundaries[PN_MAX_FIELDS];
    const struct pn_vocabularies *vocabularies; /* borrowed; NULL: none */
    /* the pass */
    bool need;
    uint64_t seen;                       /* rows */
    struct pn_counted {
        uint64_t n;                      /* standardize: Welford's sums */
        double mean, m2;
        struct pn_quantiles *quantiles;
        double *boundaries;              /* owned */
        struct pn_counts *counts;
        char *text;                      /* a vocabulary, malloc */
        size_t n_bytes, n_values;
        char digest[65];
    } counted[PN_MAX_FIELDS];
    enum pn_result wrong;                /* the first thing that went wrong in it, said by train */
    size_t i_wrong;                      /* its field */
    /* leaves (job->forest): which fields the trees see, one a column */
    size_t numbers[PN_MAX_FIELDS], n_numbers, categories[PN_MAX_FIELDS], n_categories, i_leaves; /* i_leaves: SIZE_MAX: none */
    struct pn_forest *forest;
    struct pn_forest_rows rows;          /* until it is trained */
    size_t head_column[PN_MAX_HEADS], teacher, user; /* SIZE_MAX: not there, or no column of its own */
};

void pn_features_free_counted(struct pn_features *);
void pn_features_tree_row(const struct pn_features *, const struct pn_raw *, size_t row, float *numbers, uint64_t *keys);

/* ---- one value ---- */
struct pn_slice { const char *text; size_t n; };

static inline struct pn_slice pn_cell(const struct pn_raw *raw, size_t column, size_t row) {
    size_t i = column * raw->n_rows + row;
    return (struct pn_slice){raw->text + raw->offset[i], raw->length[i]};
}

/* A field's value; an empty one is the field's default. */
static inline struct pn_slice pn_cell_of(const struct pn_features *f, const struct pn_raw *raw, size_t i, size_t row) {
    const struct pn_field *field = &f->job->fields[i];
    const struct pn_slice s = pn_cell(raw, f->column[i], row);
    return s.n == 0 && field->missing[0] != '\0' ? (struct pn_slice){field->missing, strlen(field->missing)} : s;
}

/* False: missing or no number; *out is left alone. */
static inline bool pn_number(struct pn_slice s, double *out) {
    char text[64], *end;
    if (s.n == 0 || s.n >= sizeof text) return false;
    memcpy(text, s.text, s.n);
    text[s.n] = '\0';
    const double x = strtod(text, &end);
    if (end != text + s.n || !isfinite(x)) return false;
    *out = x;
    return true;
}

/* A value of a list, which leaves its weight. False: what stands behind the last ':' of a weighted field's value is no number, or nothing is in front of it. */
static inline bool pn_weighed(const struct pn_field *f, struct pn_slice *s, float *weight) {
    *weight = 1;
    if (!f->weighted) return true;
    size_t n = s->n;
    while (n > 0 && s->text[n - 1] != ':') n--;
    if (n == 0) return true;
    double x = 0;
    if (n == 1 || !pn_number((struct pn_slice){s->text + n, s->n - n}, &x) || !isfinite((float)x)) return false;
    *weight = (float)x;
    s->n = n - 1;
    return true;
}

/* A numeric field's value, or its default. False: missing. */
static inline bool pn_number_of(const struct pn_features *f, const struct pn_raw *raw, size_t i, size_t row, double *x, uint64_t *n_bad) {
    const struct pn_slice s = pn_cell(raw, f->column[i], row);
    if (pn_number(s, x)) return true;
    *n_bad += s.n > 0;
    return pn_number((struct pn_slice){f->job->fields[i].missing, strlen(f->job->fields[i].missing)}, x);
}

static inline double pn_transformed(const struct pn_field *f, double x) {
    if (f->clip) x = x < f->clip_low ? f->clip_low : x > f->clip_high ? f->clip_high : x;
    return f->log1p ? copysign(log1p(fabs(x)), x) : x;
}

#endif
