/* The blocks that models are made of: explicit forward and backward. nn/cpu/ has the reference; a CUDA backend stands beside it with the same names.
 * All matrices are row-major float32. Sizes: n examples, f sparse fields, k embedding floats behind the linear weight (a row is [w, v_1 .. v_k]). */
#ifndef PN_NN_BLOCKS_H
#define PN_NN_BLOCKS_H

#include "nn/model.h"

/* Pools the rows of each (example, field): pooled[n * f * (1 + k)]. */
void pn_pool_forward(const struct pn_job *, const size_t *fields, const struct pn_batch *, const float *const rows[PN_MAX_TABLES], size_t dim, float *pooled);
/* Adds up gradients by unique key: row_gradients[t] is overwritten. */
void pn_pool_backward(const struct pn_job *, const size_t *fields, const struct pn_batch *, const float *pooled_gradient, size_t dim, float *const row_gradients[PN_MAX_TABLES]);

/* Second order of a factorization machine (Rendle 2010, eq. 5): out[e] += 1/2 sum_d [(sum_i v_id)^2 - sum_i v_id^2]; sums[n * k] is kept for backward. */
void pn_fm_forward(const float *pooled, size_t n, size_t f, size_t k, float *sums, float *out);
void pn_fm_backward(const float *pooled, const float *sums, const float *gradient, size_t n, size_t f, size_t k, float *pooled_gradient /* added to */);

/* out[n * width] = in[n * from] W[from * width] + b; relu: max(0, .). */
void pn_linear_forward(const float *in, size_t n, size_t from, size_t width, const float *w, const float *b, bool relu, float *out);
/* gradient of out comes in *g (changed in place by relu); dw, db overwritten; din NULL or overwritten. */
void pn_linear_backward(const float *in, const float *out, size_t n, size_t from, size_t width, const float *w, bool relu, float *g, float *dw, float *db, float *din);

/* Inverted dropout: keeps with 1 - rate, scales by its inverse; the mask is a function of (seed, i). Backward is the same call on the gradient. */
void pn_dropout(float *x, size_t n, float rate, uint64_t seed);

/* Log loss on logits: scores = sigmoid, gradient (NULL allowed) = (score - label) / n; returns the sum of losses. */
double pn_bce(const float *logits, const float *labels, size_t n, float *scores, float *gradient);

#endif
