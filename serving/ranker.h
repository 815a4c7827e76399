/* Candidates to scores with one version of a model. Pure computation: a ranker is used by one thread at a time. */
#ifndef PN_SERVING_RANKER_H
#define PN_SERVING_RANKER_H

#include "nn/model.h"
#include "nn/vocabulary.h"
#include "snapshot/snapshot.h"

#define PN_MAX_CANDIDATES 100000u

/* The raw columns that a job's features read: the inputs of a request. */
struct pn_columns {
    size_t n;
    const char *names[PN_MAX_FIELDS];             /* of the job */
    const struct pn_field *fields[PN_MAX_FIELDS]; /* the first that reads it; a multi field goes before others */
};

void pn_columns_of(struct pn_columns *, const struct pn_job *); /* the job is borrowed */

/* What all rankers of a version share, read only. */
struct pn_scorer {
    const struct pn_snapshot *snapshot;
    struct pn_columns columns;
    size_t n_dense_inputs;
    float *parameters;
    struct pn_vocabularies vocabularies;
};
/* PN_REFUSED: a model without features (audit), which nobody can rank with. */
enum pn_result pn_scorer_open(struct pn_scorer *, const struct pn_snapshot *, struct pn_error *);
void pn_scorer_close(struct pn_scorer *);

/* Candidates, column by column: n is the number of rows, or 1 for a value that all share. Length 0: missing. */
struct pn_values { size_t n; uint32_t *offset, *length; };
struct pn_candidates { size_t n_rows; const char *text; struct pn_values columns[PN_MAX_FIELDS]; };

/* Rows [first, first + n) of the candidates as features take them. offset, length: room for n values of each column. */
struct pn_raw pn_candidates_raw(const struct pn_columns *, const struct pn_candidates *, size_t first, size_t n, uint32_t *offset, uint32_t *length);

struct pn_ranker {
    struct pn_ranker *next; /* for the owner's list */
    struct pn_features *features;
    struct pn_net *net;
};
enum pn_result pn_ranker_open(struct pn_ranker **, const struct pn_scorer *, struct pn_error *);
void pn_ranker_close(struct pn_ranker *);
/* scores: out, n_rows probabilities. n_found and n_absent get added the rows that the snapshot has and lacks. */
enum pn_result pn_ranker_score(struct pn_ranker *, const struct pn_scorer *, const struct pn_candidates *, float *scores,
                               uint64_t *n_found, uint64_t *n_absent, struct pn_error *);
/* One forward over missing values: touches code and memory before the first request does. */
enum pn_result pn_ranker_warm_up(struct pn_ranker *, const struct pn_scorer *, struct pn_error *);

/* The k best, highest first, ties by position. k <= n. index: out, k positions. */
void pn_top_k(const float *scores, size_t n, size_t k, uint32_t *index);

#endif
