/* The computations that models are made of: explicit forward and backward. nn/cpu/ has the reference; a CUDA backend stands beside it with the same
 * names. All matrices are row-major float32. Sizes: n examples, f sparse fields, k embedding floats of a field.
 *
 * Every backward ADDS to the gradients of its inputs and parameters (the caller clears them), so that a value may feed several blocks. Parameters belong to one
 * block: batch norm takes their gradients as its own sums and overwrites them.
 * Pure: no state, no allocation; any thread. A gradient of an input may be NULL where nobody needs it, if the comment says so. */
#ifndef PN_NN_BLOCKS_H
#define PN_NN_BLOCKS_H

#include "nn/model.h"

/* Pools the rows of each (example, field) of the batch's first f sparse fields. A row is [w, v_1 .. v_k] if `wide`, else [v_1 .. v_k].
 *   linear    out: n, linear_scale * the sum of the fields' pooled w; untouched unless wide
 *   embedded  out: n * f * k; untouched if k is 0 */
void pn_pool_forward(const struct pn_job *, const size_t *fields, size_t f, const struct pn_batch *, const float *const rows[PN_MAX_TABLES], bool wide, size_t k, float linear_scale,
                     float *linear, float *embedded);
/* What each of n values is multiplied by when they are pooled. */
float pn_pool_scale(enum pn_pooling, uint32_t n);
/* Adds gradients by unique key to row_gradients[t] (n_unique[t] * (wide + k)). */
void pn_pool_backward(const struct pn_job *, const size_t *fields, size_t f, const struct pn_batch *, bool wide, size_t k, float linear_scale, const float *linear_gradient,
                      const float *embedded_gradient, float *const row_gradients[PN_MAX_TABLES]);

/* Second order of a factorization machine (Rendle 2010, eq. 5): out[e] = 1/2 sum_d [(sum_i v_id)^2 - sum_i v_id^2]; sums[n * k] is kept for backward. */
void pn_fm_forward(const float *embedded, size_t n, size_t f, size_t k, float *sums, float *out);
void pn_fm_backward(const float *embedded, const float *sums, const float *gradient, size_t n, size_t f, size_t k, float *embedded_gradient);

/* out[n * width] = in[n * from] W[from * width] + b; relu: max(0, .). b, and db below, may be NULL: no bias. */
void pn_linear_forward(const float *in, size_t n, size_t from, size_t width, const float *w, const float *b, bool relu, float *out);
/* The gradient of out comes in *g (changed in place by relu, a second time without effect); din may be NULL, and dw with db. add: to din; false: din is overwritten. */
void pn_linear_backward(const float *in, const float *out, size_t n, size_t from, size_t width, const float *w, bool relu, float *g, float *dw, float *db, float *din, bool add);

/* A cross layer of DCN-V2 (Wang et al. 2021, eq. 1, full rank): out = x0 * (x W + b) + x, * by element; all n * width, W [width * width].
 * product: n * width, x W + b, kept for backward. */
void pn_cross_forward(const float *x0, const float *x, size_t n, size_t width, const float *w, const float *b, float *product, float *out);
/* scratch: n * width. dx0 and dx may be the same array (the first layer); they may be NULL together, as may dw and db. */
void pn_cross_backward(const float *x0, const float *x, const float *product, const float *g, size_t n, size_t width, const float *w, float *scratch, float *dw, float *db,
                       float *dx0, float *dx);

/* The interaction of DLRM (Naumov et al. 2019): of the m vectors of k of each example the dot products of all pairs i < j, in the order (0,1), (0,2), (1,2),
 * (0,3) ...: out[n * m (m - 1) / 2]. */
void pn_dot_forward(const float *vectors, size_t n, size_t m, size_t k, float *out);
void pn_dot_backward(const float *vectors, const float *g, size_t n, size_t m, size_t k, float *dvectors);

/* Layer normalisation (Ba et al. 2016): out = (in - mean) / sqrt(variance + 1e-5) * scale + shift over each example's width; relu: max(0, .).
 * inverse: n, 1 / sqrt(.), and normal: n * width, both kept for backward. */
void pn_norm_forward(const float *in, size_t n, size_t width, const float *scale, const float *shift, bool relu, float *inverse, float *normal, float *out);
/* The gradient of out comes in *g (changed in place by relu, a second time without effect). din may be NULL; dscale and dshift may be NULL together. */
void pn_norm_backward(const float *out, const float *inverse, const float *normal, size_t n, size_t width, const float *scale, bool relu, float *g, float *dscale, float *dshift,
                      float *din);

/* Batch normalisation (Ioffe and Szegedy 2015): as layer norm, but over the examples of the batch, each unit by itself.
 *   running  mean [width] and variance [width] over batches; used in place of the batch's own when `training` is false
 *   own      3 * width: mean, variance, 1 / sqrt(variance + 1e-5) of this batch; normal: n * width; both kept for backward */
void pn_batch_norm_forward(const float *in, size_t n, size_t width, const float *scale, const float *shift, const float *running, bool training, bool relu, float *own,
                           float *normal, float *out);
/* drunning: overwritten with what, subtracted, moves the running statistics a share of .05 towards the batch's (the variance without bias).
 * add: to din; false: din is overwritten. */
void pn_batch_norm_backward(const float *out, const float *own, const float *normal, size_t n, size_t width, const float *scale, const float *running, bool relu, float *g,
                            float *dscale, float *dshift, float *drunning, float *din, bool add);

/* Multi-head attention (Vaswani et al. 2017, eq. 1) inside each example. Tokens of all examples lie behind one another, without padding: those of example e
 * are begin[e] - begin[0] .. begin[e + 1] - begin[0]. A token of qkv is [q | k | v], each width = heads * (width / heads) floats; causal: a token sees itself and those
 * before it. most: at least the longest example's tokens.
 *   weights  tokens * heads * most: softmax(q k' / sqrt(width / heads)), kept for backward; row (token, head) has its example's tokens first
 *   out      tokens * width */
void pn_attention_forward(const float *qkv, const uint32_t *begin, size_t n, size_t width, size_t heads, size_t most, bool causal, float *weights, float *out);
/* scratch: most * most. Adds to dqkv. */
void pn_attention_backward(const float *qkv, const float *weights, const float *g, const uint32_t *begin, size_t n, size_t width, size_t heads, size_t most, bool causal,
                           float *scratch, float *dqkv);

/* Inverted dropout: keeps with 1 - rate, scales by its inverse; the mask is a function of (seed, first + i), so that a part of a batch that begins
 * there has the batch's draws. Backward is the same call on the gradient. add: out += instead of out =. */
void pn_dropout(const float *in, size_t n, size_t first, float rate, uint64_t seed, bool add, float *out);

/* Log loss on logits: scores = sigmoid, gradient (NULL allowed) = (score - label) / n; returns the sum of losses. */
double pn_bce(const float *logits, const float *labels, size_t n, float *scores, float *gradient);

/* Losses over groups: a row of label 1 and the rows of label 0 behind it, up to the next of label 1; rows before the first are left out. gradient: n,
 * overwritten. Each returns the mean loss and is the mean's gradient.
 *   bpr      mean over (positive, negative) of -log sigmoid(s+ - s-) (Rendle et al. 2009)
 *   hinge    mean over (positive, negative) of max(0, margin - s+ + s-) (Weston et al. 2011, without the rank's weight)
 *   softmax  mean over positives of -log(exp z+ / sum of exp z of the group), z = s / temperature - log_q; log_q NULL: z = s / temperature
 *            (Jean et al. 2015; a corrected draw estimates the softmax over all items) */
double pn_bpr(const float *logits, const float *labels, size_t n, float *gradient);
double pn_hinge(const float *logits, const float *labels, size_t n, float margin, float *gradient);
double pn_sampled_softmax(const float *logits, const float *labels, const float *log_q, size_t n, float temperature, float *gradient);
/* Softmax over the items of a batch (Yi et al. 2019, eq. 3 to 5): pairs[n * 2k] are n users' and items' vectors side by side; row e has to find its own item among
 * all n. z = u . v / temperature - log_q; an item that is in the batch more than once (same item key) does not stand against itself.
 * scratch: n * n. Adds to dpairs; returns the mean loss. */
double pn_in_batch_softmax(const float *pairs, const uint64_t *items, const float *log_q, size_t n, size_t k, float temperature, float *scratch, float *dpairs);
/* As pn_bce, taught (Hinton et al. 2015, section 2.1, for two classes): (1 - weight) BCE(label, logit) + weight T^2 BCE(sigmoid(teacher / T), sigmoid(logit / T)),
 * where T^2 keeps the gradient's size whatever T is. teacher: n logits; NaN: that row has its label alone. */
double pn_bce_taught(const float *logits, const float *labels, const float *teacher, float weight, float temperature, size_t n, float *scores, float *gradient);
/* L2 of the examples' rows: (l2 / 2) * the mean over the examples of the squares of every row that an example's pooled fields name, linear weights included; a row that comes
 * k times counts k times (Rendle et al. 2020 regularise so; also the L2 of BPR). Added to *loss (a sum over the batch) and to row_gradients. False: no memory. */
bool pn_decay(const struct pn_job *, const size_t *fields, size_t f, const struct pn_batch *, const float *const rows[PN_MAX_TABLES], float l2, double *loss,
              float *const row_gradients[PN_MAX_TABLES]);
/* Of one row: share * row to g; returns share / 2 |row|^2. */
double pn_decay_row(const float *row, size_t dim, float share, float *g);
/* The product of two rows an example, with their linear weights (the first float) if wide, straight from the pulled rows and into their gradients: nothing of width k is
 * written for an example. rows[i], position[i]: of the first and the second field; they lie in tables of their own. */
void pn_pair_forward(const float *const rows[2], const uint32_t *const position[2], size_t n, bool wide, size_t k, float linear_scale, float *out);
void pn_pair_backward(const float *const rows[2], const uint32_t *const position[2], size_t n, bool wide, size_t k, float linear_scale, const float *gradient,
                      float *const row_gradients[2]);
/* Moves n rows of width floats, from_step apart, to rows to_step apart; add: adds. */
void pn_columns(const float *from, size_t from_step, size_t n, size_t width, bool add, float *to, size_t to_step);
/* out[n * k] = the product by element of the two halves of each row of pairs [n * 2k]; backward adds to dpairs, or overwrites. */
void pn_product_forward(const float *pairs, size_t n, size_t k, float *out);
void pn_product_backward(const float *pairs, const float *g, size_t n, size_t k, bool add, float *dpairs);
/* As pn_pool_forward and backward, of the vectors' floats [at, at + width) alone: out, g: n * f * width. dim: floats of a row; the vector's first is row[first]. */
void pn_pool_part_forward(const struct pn_job *, const size_t *fields, size_t f, const struct pn_batch *, const float *const rows[PN_MAX_TABLES], size_t dim, size_t at, size_t width,
                          float *out);
void pn_pool_part_backward(const struct pn_job *, const size_t *fields, size_t f, const struct pn_batch *, size_t dim, size_t at, size_t width, const float *g,
                           float *const row_gradients[PN_MAX_TABLES]);
/* n vectors of k floats, `step` apart, to length 1; out may be vectors. backward: of vectors side by side (step k); adds to dvectors. */
void pn_unit_forward(const float *vectors, size_t n, size_t step, size_t k, float *out);
void pn_unit_backward(const float *vectors, const float *unit, const float *gradient, size_t n, size_t k, float *dvectors);
/* The greatest of n numbers and `least`. z[i] becomes exp(z[i] - most), at most 1; returns their sum. */
float pn_greatest(const float *z, size_t n, float least);
double pn_exp_sum(float *z, size_t n, float most);

/* Compiled for several machines, chosen at run time; no sum is reordered, so that the bits are the same on all. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define PN_MACHINES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define PN_MACHINES
#endif

#endif
