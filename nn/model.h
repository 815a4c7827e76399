/* Features and models: raw columns to keys, keys' rows to scores, scores to gradients. Pure computation: may run on a
 * work thread; one object is used by one thread at a time. */
#ifndef PN_NN_MODEL_H
#define PN_NN_MODEL_H

#include "job/job.h"

/* ---- raw rows, as readers make them and as the serving request brings them ---- */
/* Column-wise text: value of column c in row r is text[offset[c * n_rows + r] .. + length[...]]. Length 0 = missing. */
struct pn_raw {
    size_t n_rows, n_columns;
    const char *const *names;        /* n_columns, borrowed */
    const char *text;
    const uint32_t *offset, *length; /* [n_columns * n_rows] */
    const float *labels;             /* [n_rows] 0 or 1; NULL when serving */
    const float *log_q;              /* [n_rows] log of the probability that the row's item is drawn as a negative; NULL: not known */
    const float *values;             /* [n_rows] the labels before their threshold; NULL when serving */
};

/* ---- features ---- */
struct pn_features;
/* job is borrowed. names: the raw columns that will come. PN_INVALID names a field whose column is not there. */
enum pn_result pn_features_open(struct pn_features **, const struct pn_job *, const char *const *names, size_t n_columns,
                                struct pn_error *);
void pn_features_close(struct pn_features *);
/* Are the columns there that further labels (job->heads) and, if `teacher`, distillation take? Serving does without. */
enum pn_result pn_features_labelled(const struct pn_features *, bool teacher, struct pn_error *);
/* Fields with `standardize` and std 0, quantiles, counted vocabularies and trees need a pass: feed rows, train, then freeze. Deterministic given the rows in order. */
bool pn_features_need_statistics(const struct pn_features *);
void pn_features_observe(struct pn_features *, const struct pn_raw *);
bool pn_features_want_rows(const struct pn_features *); /* would further rows change anything? */
/* What is made of the rows observed if the job wants it (pn_job_prepares): quantiles, vocabularies, trees. Long: for a work thread. Before freeze.
 * PN_INVALID: a column had nothing in it, or more different values than a vocabulary can have; err names the feature. */
enum pn_result pn_features_train(struct pn_features *, struct pn_error *);
/* The text of field i's vocabulary from elsewhere (a file that the job names). text: malloc, taken in any case. PN_INVALID: err has what is wrong with it, without a name. */
enum pn_result pn_features_give(struct pn_features *, size_t i, char *text, size_t n_bytes, struct pn_error *);
/* The text of field i's vocabulary and the name of the file that it goes into (by its digest), as the statistics name it. NULL: none. Borrowed. */
const char *pn_features_file(const struct pn_features *, size_t i, size_t *n_bytes, char name[64]);
void pn_features_freeze(struct pn_features *);
/* What pn_features_batch takes vocabularies from, for fields that have one. Borrowed. */
struct pn_vocabularies;
void pn_features_use(struct pn_features *, const struct pn_vocabularies *);
/* Statistics as JSON text (malloc) and back: a file of the job and of the snapshot, or, short, a part of beats and plans (docs/formats.md). */
char *pn_features_statistics(const struct pn_features *);
enum pn_result pn_features_set_statistics(struct pn_features *, const char *json, struct pn_error *);

/* A batch of examples in the form models take. */
struct pn_batch {
    size_t n_examples, n_sparse, n_dense;   /* sparse fields: in the order of the job, but sequences last; then numeric inputs */
    /* Keys of sparse field f of example e: keys[begin[f * n_examples + e] .. begin[f * n_examples + e + 1]); begin has
     * n_sparse * n_examples + 1 entries; keys are field-major. A missing value has the field's own "missing" key;
     * a sequence holds its keys in order, oldest first, and may be empty. */
    uint32_t *begin;
    uint64_t *keys;
    size_t n_keys;
    float *weights;                         /* [n_keys] how many times a key's row counts; NULL: each once, no field is weighted */
    float *dense;                           /* [n_examples * n_dense] */
    float *labels;                          /* [n_examples] */
    float *log_q;                           /* [n_examples] as in pn_raw; zeros where it is not known */
    float *head_labels;                     /* [n_heads * n_examples], 0 or 1 */
    float *teacher;                         /* [n_examples] logits, NaN where there is none; NULL: the data has no such column */
    /* Per table: the unique keys (in the order of common/unique.h) and, for each entry of keys, the position in its table's unique list. */
    uint64_t *unique[PN_MAX_TABLES];
    size_t n_unique[PN_MAX_TABLES];
    uint32_t *position;                     /* [n_keys] */
    /* Privacy. [n_unique[t]] rows whose gradients nobody sends (they were not chosen): they count for no unit's norm and have no votes. NULL: there are none. A device counts them all, which clips more. */
    bool *idle[PN_MAX_TABLES];
    /* Privacy by user. user: [n_examples] each example's (a hash), NULL without a privacy.userField. unit_begin: [n_units + 1]: the examples of unit u stand together, from
     * unit_begin[u] to unit_begin[u + 1]; NULL: each example is one. */
    uint64_t *user;
    uint32_t *unit_begin;
    size_t n_units;
};
static inline float pn_batch_weight(const struct pn_batch *b, size_t i_key) { return b->weights != NULL ? b->weights[i_key] : 1; }
static inline bool pn_batch_idle(const struct pn_batch *b, uint32_t i_table, uint32_t position) { return b->idle[i_table] != NULL && b->idle[i_table][position]; }
/* The units of a batch, and the first example of unit u (which may be their number). */
static inline size_t pn_batch_units(const struct pn_batch *b) { return b->unit_begin != NULL ? b->n_units : b->n_examples; }
static inline size_t pn_batch_unit(const struct pn_batch *b, size_t u) { return b->unit_begin != NULL ? b->unit_begin[u] : u; }
/* A user's number: a hash of the text, the same wherever rows are dealt or grouped by user. */
uint64_t pn_user_of(const char *text, size_t n);
/* Makes *batch (all arrays owned by it). Rejects nothing: bad numbers count as missing (n_bad gets the count). */
enum pn_result pn_features_batch(struct pn_features *, const struct pn_raw *, struct pn_batch *, uint64_t *n_bad);
/* The same of rows that the model learns from: no statistic of labels has theirs in it (forest.h). */
enum pn_result pn_features_learned(struct pn_features *, const struct pn_raw *, struct pn_batch *, uint64_t *n_bad);
/* SASRec: are the lists of candidates (negatives) and of what was had (seen) within maxLength, beyond which a list loses its beginning? PN_INVALID: err says which is not. Other models: PN_OK. */
enum pn_result pn_features_whole(const struct pn_features *, const struct pn_raw *, struct pn_error *err);
void pn_batch_free(struct pn_batch *);
/* The keyed fields (their indices in the job) in the order of a batch: sequences last. Returns how many. */
size_t pn_batch_fields(const struct pn_job *, size_t sparse[PN_MAX_FIELDS]);
/* Fills unique, n_unique and position from the keys. False: no memory; *b is as it was but for those. */
bool pn_batch_unique(struct pn_batch *, const struct pn_job *, const size_t *sparse);
/* *out: a batch of n examples, example i being number example[i] of *from[i]; all of one job. */
enum pn_result pn_batch_gather(struct pn_batch *out, const struct pn_job *, const size_t *sparse, const struct pn_batch *const *from, const uint32_t *example, size_t n);

/* The key of one value of a field that has a key a value (categorical, multi, sequence), as a batch has it. False: a field of another type. */
bool pn_field_value_key(const struct pn_field *, const char *value, size_t n, uint64_t *key);

/* ---- models ---- */
struct pn_net;
/* Dense parameters are one flat vector, padded to whole rows of PN_DENSE_ROW floats (keys 0, 1, 2 ... of the dense table). Behind them come
 * whole rows of state (running statistics of batch norm), which move by what a push subtracts and not by the optimizer (PN_STATE_KEY). */
enum pn_result pn_net_open(struct pn_net **, const struct pn_job *, size_t n_dense_inputs, struct pn_error *);
void pn_net_close(struct pn_net *);
size_t pn_net_parameters(const struct pn_net *);                      /* floats, without padding at the end; state included */
uint64_t pn_net_row_key(const struct pn_net *, size_t i_row);         /* the key of a row of the flat vector in the dense table: state has PN_STATE_KEY */
void pn_net_init(const struct pn_net *, uint64_t seed, float *parameters);
/* Named blocks of the flat vector, for safetensors and ONNX. Returns false past the end. */
bool pn_net_block(const struct pn_net *, size_t i, const char **name, size_t *offset, size_t shape[2]);
/* rows[t]: n_unique[t] * dim(t) floats as pulled. scores: n_examples probabilities. */
enum pn_result pn_net_forward(struct pn_net *, const struct pn_batch *, const float *const rows[PN_MAX_TABLES],
                              const float *parameters, float *scores);
/* The scores of the last forward pass before the sigmoid, by which rows are ranked: a sigmoid runs into 1. [n_examples], valid until the next pass. */
const float *pn_net_logits(const struct pn_net *);
/* The probabilities of head i for the examples of the last pass; valid until the next. */
const float *pn_net_head_scores(const struct pn_net *, size_t i);
/* SASRec: where each example's target stood among its candidates in the last forward pass: rank from 0, ties and what is no number against the target; n_candidates without it; 0: none, or no
 * history or target: such an example has no place, and counts for nothing. Each example's candidates are its own; where only the first has any they are everybody's, without what each has `seen`. One example alone is taken as
 * those of the batch before, and at first as the latter.
 * NULL for other models. Valid until the next pass. */
struct pn_place { uint32_t rank, n_candidates; float loss; /* cross entropy over target and candidates; -1: not measured, as they are everybody's; NaN: a score is no number, or infinite */ };
const struct pn_place *pn_net_places(const struct pn_net *);
/* Forward (with dropout drawn from rng_seed) and backward of the job's loss (training.loss), a mean over the batch; log loss may be distilled by a teacher, heads add theirs. row_gradients[t]: out,
 * n_unique[t] * dim(t), summed by unique key. parameter_gradients: out, padded size. loss: its mean times the examples.
 * scores: out, before the update (progressive validation). Deterministic: same input, same bits. */
enum pn_result pn_net_step(struct pn_net *, const struct pn_batch *, const float *const rows[PN_MAX_TABLES],
                           const float *parameters, uint64_t rng_seed, float *const row_gradients[PN_MAX_TABLES],
                           float *parameter_gradients, float *scores, double *loss);

/* Pascanu et al. 2013: all gradients of a step together are scaled down to the L2 norm `most` where they are longer. State is no gradient. */
void pn_net_clip(const struct pn_net *, const struct pn_batch *, float *const row_gradients[PN_MAX_TABLES], float *parameter_gradients, double most);

/* As pn_net_step, for training with differential privacy (Abadi et al. 2016): each unit's own gradient (an example's, or with unit_begin the sum of
 * a user's examples'), dense parameters and rows together, is scaled down to an L2 norm of at most `clip`, and the SUM of the scaled gradients comes out, not their mean. The norms are found without making any unit's
 * gradient (ghost norms: Goodfellow 2015, Li et al. 2022), and what the backward pass has left is used again (Bu et al. 2023): about the cost of pn_net_step.
 *   spread  0: none; else a unit is scaled down further until the norms of its examples add up to at most spread * clip. The norm of a sum says nothing of terms that cancel, and
 *           roundoff is that of the terms
 *   norms   out: one a unit, before scaling; may be NULL
 *   loss    out: as in pn_net_step
 * A unit whose gradient is no number is left out, as if it were not in the batch (scores then lose their places).
 * PN_INVALID: the model is not pn_net_separable. */
enum pn_result pn_net_step_clipped(struct pn_net *, const struct pn_batch *, const float *const rows[PN_MAX_TABLES], const float *parameters, uint64_t rng_seed, float clip, float spread,
                                   float *const row_gradients[PN_MAX_TABLES], float *parameter_gradients, float *scores, float *norms, double *loss);
/* Is the gradient a sum over examples? No: batch norm, SASRec, and losses of groups of rows mix them. */
bool pn_net_separable(const struct pn_net *);

/* ---- metrics ---- */
/* In an order of scores what is no number (NaN) comes last; the means and sums of such scores are none either. */
/* Area under the ROC curve, ties count half; NaN when one class is missing. O(n log n). */
double pn_auc(const float *scores, const float *labels, size_t n);
double pn_log_loss(const float *scores, const float *labels, size_t n); /* mean, natural log, clamped at 1e-7 */
/* Log loss over the entropy of the labels' mean (He et al. 2014): 1 says no more than the mean does. NaN when one class is missing. */
double pn_normalised_entropy(const float *scores, const float *labels, size_t n);
/* Mean score over mean label: 1 is right, above is too high. NaN without a positive. */
double pn_calibration(const float *scores, const float *labels, size_t n);
/* Expected calibration error (Naeini et al. 2015): n_bins equal bins of [0, 1], the share of rows in each times |mean score - mean label|. n_bins at most 1000. */
double pn_calibration_error(const float *scores, const float *labels, size_t n, size_t n_bins);
/* AUC of each group (a user, a query), weighted by its rows; groups with one class only do not count; NaN when all are such. */
double pn_group_auc(const float *scores, const float *labels, const uint64_t *groups, size_t n);
/* Lists by group, best score first; equal scores stand against the positives. Mean over the n_groups groups that have a positive; NaN without one.
 *   hit     is a positive among the first k (HR@k)       recall  share of the positives among the first k
 *   ndcg    sum of 1 / log2(place + 1) over positives among the first k, over the best that min(k, positives) can reach
 *   mrr     1 / place of the first positive, however far down */
struct pn_ranking { double hit, recall, ndcg, mrr; size_t n_groups; };
struct pn_ranking pn_rank_metrics(const float *scores, const float *labels, const uint64_t *groups, size_t n, size_t k);

#endif
