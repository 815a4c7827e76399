/* The computations of blocks.h as one table, so that a model can run where its memory lies: `cpu` (nn/cpu/backend.c: the functions of blocks.h themselves) and
 * `cuda` (nn/cuda/, a module that the worker loads where there is a driver). nn/device.h runs a model's blocks through such a table.
 *
 * All float, uint32_t, uint64_t and double pointers are memory of the table's alloc, but those called host. Matrices are row-major. As in blocks.h every backward
 * adds to gradients of its inputs; of its parameters too, but db and the sums of batch norm may be overwritten: the caller clears them first.
 * Operations are queued in order on the context's compute stream and return at once; finish waits. A failure is kept until finish or await tells it.
 * One thread at a time for a context, but await, which another may call meanwhile. Same input, same bits: no sum depends on which thread comes first. */
#ifndef PN_NN_BACKEND_H
#define PN_NN_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#include "common/result.h"
#include "job/job.h"
#include "nn/tokens.h"

/* Copies in, computation and copies out each have a stream of their own. */
enum pn_stream { PN_STREAM_IN, PN_STREAM_COMPUTE, PN_STREAM_OUT, PN_STREAMS };
#define PN_EVENTS 16u
#define PN_MOST_DEVICES 64u /* of a group */

/* A batch's keys on the device. The rows of all tables lie behind one another, dim = wide + k floats each; position says which row an entry of keys has there. */
struct pn_pool_view {
    size_t n, f, k;             /* examples, pooled fields, embedding floats */
    bool wide;
    float linear_scale;
    const uint32_t *pooling;    /* f: enum pn_pooling */
    const uint32_t *begin;      /* f * n + 1, as in pn_batch */
    const uint32_t *position;
};

/* From rows back to what adds to them, made by pn_inverse_build on the host: row by row the entries order[..] (whose meaning is the operation's: a place of
 * embedded, a token). Rows with more than PN_CHUNK entries are summed in chunks first, then over the chunks. These rows' chunks come first. */
#define PN_CHUNK 64u
struct pn_inverse {
    const uint32_t *order;
    const uint32_t *chunk_begin; /* n_chunks + 1: places in order */
    const uint32_t *chunk_row;   /* n_chunks */
    const uint32_t *wide_begin;  /* n_wide + 1: the chunks of the rows that have several */
    const uint32_t *counts;      /* [0] n_chunks, [1] n_wide; on the device, so that a captured graph serves any batch */
    size_t most_chunks, most_wide; /* at least the counts */
    float *partial;              /* (2 * entries / PN_CHUNK + 2) * dim */
};

/* What is clipped as one (docs/privacy.md): unit u has the rows begin[u] .. begin[u + 1] of what a block runs on, the examples or tokens of an example or of a user. */
struct pn_units {
    size_t n, n_rows;      /* n_rows = begin[n] */
    const uint32_t *begin; /* n + 1 */
};
/* Everything that units add to rows of tables, made by pn_device_stage_units on the host: group i, places begin[i] .. begin[i + 1] of order, is all that one unit adds to one row.
 * An entry of order is the operation's. */
struct pn_touches {
    size_t n_units, most_groups; /* most_groups: at least unit_begin[n_units] */
    const uint32_t *order, *begin;
    const uint32_t *unit_begin;  /* n_units + 1: each unit's groups */
    double *squares;             /* most_groups: of the operation's own */
};
/* What a backward pass leaves of the rows' gradients: an entry e * f + s is a place of the pooled fields, n * f + q * n_tokens + t token t of sequence q, which adds gain times its vector. */
#define PN_TOKEN_FIELDS 4u
struct pn_row_sources {
    struct pn_pool_view pool;
    const float *linear, *embedded; /* NULL: the model pools nothing */
    size_t n_tokens;
    float gain;
    const float *tokens[PN_TOKEN_FIELDS];
};

enum pn_group_loss { PN_GROUP_BPR, PN_GROUP_HINGE, PN_GROUP_SOFTMAX };
enum pn_dense_rule { PN_DENSE_SGD, PN_DENSE_ADAGRAD, PN_DENSE_ADAM };

struct pn_ctx;
struct pn_group;
struct pn_cache_ops; /* nn/cache.h */

struct pn_backend {
    const char *name;
    /* How many devices there are; 0 and a line that says why none. */
    size_t (*devices)(struct pn_error *);
    enum pn_result (*open)(struct pn_ctx **, size_t device, enum pn_precision, struct pn_error *);
    void (*close)(struct pn_ctx *);

    /* ---- memory ---- NULL: none left */
    void *(*alloc)(struct pn_ctx *, size_t n_bytes);
    void (*free)(struct pn_ctx *, void *);
    void *(*host_alloc)(struct pn_ctx *, size_t n_bytes); /* pinned: copies from and to it do not hold the host up */
    void (*host_free)(struct pn_ctx *, void *);
    void (*upload)(struct pn_ctx *, void *to, const void *host, size_t n_bytes);     /* on IN */
    void (*download)(struct pn_ctx *, void *host, const void *from, size_t n_bytes); /* on OUT */
    void (*clear)(struct pn_ctx *, void *, size_t n_bytes);                          /* on COMPUTE */

    /* ---- order ---- */
    void (*mark)(struct pn_ctx *, enum pn_stream, size_t event);  /* the event is when all queued there so far is done */
    void (*after)(struct pn_ctx *, enum pn_stream, size_t event); /* what is queued there from now on waits for the event */
    enum pn_result (*await)(struct pn_ctx *, size_t event, struct pn_error *); /* the host waits */
    enum pn_result (*finish)(struct pn_ctx *, struct pn_error *);
    double (*elapsed)(struct pn_ctx *, size_t from, size_t to); /* seconds between two events that have been awaited; 0 where nobody measures */
    /* What is queued on COMPUTE between the two is kept as a graph instead of run. capture false: not possible here; run it each time. */
    bool (*capture)(struct pn_ctx *);
    void *(*captured)(struct pn_ctx *); /* NULL: it failed */
    void (*replay)(struct pn_ctx *, void *graph);
    void (*graph_free)(struct pn_ctx *, void *graph);

    /* ---- several devices as one ---- */
    /* Open contexts of different devices, one each, which outlive the group. PN_REFUSED: there is nothing here that they could sum by. */
    enum pn_result (*join)(struct pn_group **, struct pn_ctx *const *members, size_t n, struct pn_error *);
    void (*leave)(struct pn_group *, bool broken); /* all members are finished; broken: one has failed, for which the others may be waiting, and need not any more */
    /* x[i]: n floats of member i. Each becomes the sum of all, the same bits on all, queued on every member's COMPUTE (outside of a capture). The thread has all members. */
    void (*all_reduce)(struct pn_group *, float *const *x, size_t n);

    /* ---- blocks, as in blocks.h ---- */
    void (*pool_forward)(struct pn_ctx *, const struct pn_pool_view *, const float *rows, float *linear, float *embedded);
    /* An entry of order is e * f + s. */
    void (*pool_backward)(struct pn_ctx *, const struct pn_pool_view *, const struct pn_inverse *, const float *linear_gradient, const float *embedded_gradient,
                          float *row_gradients);
    void (*fm_forward)(struct pn_ctx *, const float *embedded, size_t n, size_t f, size_t k, float *sums, float *out);
    void (*fm_backward)(struct pn_ctx *, const float *embedded, const float *sums, const float *gradient, size_t n, size_t f, size_t k, float *embedded_gradient);
    void (*linear_forward)(struct pn_ctx *, const float *in, size_t n, size_t from, size_t width, const float *w, const float *b, bool relu, float *out);
    void (*linear_backward)(struct pn_ctx *, const float *in, const float *out, size_t n, size_t from, size_t width, const float *w, bool relu, float *g, float *dw, float *db,
                            float *din);
    void (*cross_forward)(struct pn_ctx *, const float *x0, const float *x, size_t n, size_t width, const float *w, const float *b, float *product, float *out);
    void (*cross_backward)(struct pn_ctx *, const float *x0, const float *x, const float *product, const float *g, size_t n, size_t width, const float *w, float *scratch,
                           float *dw, float *db, float *dx0, float *dx);
    void (*dot_forward)(struct pn_ctx *, const float *vectors, size_t n, size_t m, size_t k, float *out);
    void (*dot_backward)(struct pn_ctx *, const float *vectors, const float *g, size_t n, size_t m, size_t k, float *dvectors);
    void (*norm_forward)(struct pn_ctx *, const float *in, size_t n, size_t width, const float *scale, const float *shift, bool relu, float *inverse, float *normal, float *out);
    void (*norm_backward)(struct pn_ctx *, const float *out, const float *inverse, const float *normal, size_t n, size_t width, const float *scale, bool relu, float *g,
                          float *dscale, float *dshift, float *din);
    void (*batch_norm_forward)(struct pn_ctx *, const float *in, size_t n, size_t width, const float *scale, const float *shift, const float *running, bool training, bool relu,
                               float *own, float *normal, float *out);
    void (*batch_norm_backward)(struct pn_ctx *, const float *out, const float *own, const float *normal, size_t n, size_t width, const float *scale, const float *running,
                                bool relu, float *g, float *dscale, float *dshift, float *drunning, float *din);
    /* kept: n_tokens * heads * most floats: what forward leaves for backward is its own affair (all weights, or the logarithm of each row's sum). begin: n + 1, from
     * begin[0] on. scratch: most * most floats, or n_tokens * heads, whichever is more. */
    void (*attention_forward)(struct pn_ctx *, const float *qkv, const uint32_t *begin, size_t n, size_t width, size_t heads, size_t most, bool causal, float *kept, float *out);
    void (*attention_backward)(struct pn_ctx *, const float *qkv, const float *kept, const float *out, const float *g, const uint32_t *begin, size_t n, size_t width, size_t heads,
                               size_t most, bool causal, float *scratch, float *dqkv);
    /* As pn_dropout from *first * width on with the seed pn_mix64(*seed + 0x1000 * salt): the same draws on every backend. */
    void (*dropout)(struct pn_ctx *, const float *in, size_t n, float rate, const uint64_t *seed, uint64_t salt, const uint32_t *first, size_t width, bool add, float *out);

    /* ---- small ones ---- */
    /* out[r * out_step + d] (+)= in[r * in_step + d] for r < n, d < width. */
    void (*copy)(struct pn_ctx *, const float *in, size_t in_step, size_t n, size_t width, bool add, float *out, size_t out_step);
    void (*fill)(struct pn_ctx *, const float *value, size_t n, float *out);                        /* out[i] = *value */
    void (*scale)(struct pn_ctx *, const float *factor, size_t n, float *x);                        /* x[i] *= *factor */
    void (*column_sums)(struct pn_ctx *, const float *g, size_t n, size_t width, float *out);       /* out[d] += sum over rows */
    void (*weight_forward)(struct pn_ctx *, const float *in, size_t n, size_t from, const float *w, float *out); /* out[e] = in[e] . w */
    void (*weight_backward)(struct pn_ctx *, const float *in, const float *g, size_t n, size_t from, const float *w, float *dw, float *din);
    void (*product_forward)(struct pn_ctx *, const float *in, size_t n, size_t width, float *out);  /* in: n * 2 width; out = left * right */
    void (*product_backward)(struct pn_ctx *, const float *in, const float *g, size_t n, size_t width, float *din);

    /* ---- sequences; token t is of example example[t] and has left[t] behind it in its example; row UINT32_MAX: no key there ---- */
    void (*tokens_forward)(struct pn_ctx *, const float *rows, const uint32_t *row, size_t n_tokens, bool wide, size_t k, float gain, float *out);
    void (*tokens_backward)(struct pn_ctx *, const struct pn_inverse *, bool wide, size_t k, float gain, const float *g, float *row_gradients); /* an entry of order is a token */
    void (*candidate_forward)(struct pn_ctx *, const float *x, const uint32_t *example, size_t n_tokens, size_t from, size_t at, size_t k, float *out);
    void (*candidate_backward)(struct pn_ctx *, const float *g, const uint32_t *begin, size_t n, size_t from, size_t at, size_t k, float *dx);
    void (*positions_forward)(struct pn_ctx *, const float *x, const uint32_t *left, size_t n_tokens, size_t width, const float *p, float *out);
    void (*positions_backward)(struct pn_ctx *, const float *g, const uint32_t *begin, size_t n, size_t most, size_t n_tokens, size_t width, float *dp, float *dx);
    void (*summary_forward)(struct pn_ctx *, const float *x, const uint32_t *begin, size_t n, size_t width, size_t recent, float *place, float *out);
    void (*summary_backward)(struct pn_ctx *, const float *place, const float *g, const uint32_t *begin, size_t n, size_t width, size_t recent, float *dx);

    /* ---- losses; *loss = weight times the sum (bce) or n times the mean (groups) ---- */
    /* pn_bce, or pn_bce_taught where teacher is given; gradient may be NULL. */
    void (*bce)(struct pn_ctx *, const float *logits, const float *labels, const float *teacher, float taught, float temperature, float weight, size_t n, float *scores,
                float *gradient, double *loss);
    void (*group_loss)(struct pn_ctx *, enum pn_group_loss, const float *logits, const float *labels, const float *log_q, float parameter, size_t n, float *gradient, double *loss);
    void (*in_batch_softmax)(struct pn_ctx *, const float *pairs, const uint64_t *items, const float *log_q, size_t n, size_t k, float temperature, float *scratch, float *dpairs,
                             double *loss);

    /* The product of two fields' rows, one key an example in either (blocks.h); an entry of order is 2 e + s. */
    void (*pair_forward)(struct pn_ctx *, const struct pn_pool_view *, const float *rows, float *out);
    void (*pair_backward)(struct pn_ctx *, const struct pn_pool_view *, const struct pn_inverse *, const float *rows, const float *g, float *row_gradients);
    void (*unit_forward)(struct pn_ctx *, const float *vectors, size_t n, size_t k, float *out);
    void (*unit_backward)(struct pn_ctx *, const float *vectors, const float *unit, const float *g, size_t n, size_t k, float *dvectors);
    /* pn_decay by row: of rows r < *n_rows <= most, share[r] * row to row_gradients and weight times the sum of share[r] / 2 |row|^2 to *loss. */
    void (*decay)(struct pn_ctx *, const float *rows, const float *share, const uint32_t *n_rows, size_t most, size_t dim, double weight, float *row_gradients, double *loss);
    /* SASRec (tokens.h); *loss = weight times what those return. z: out of its own affair, 3 n floats and 4 more (n: entries, or tokens). An entry of order is an entry of
     * row (log loss), or a token that has a target (softmax). scratch: (2 k + PN_TOKEN_CHUNK) n_at floats. */
    void (*token_bce)(struct pn_ctx *, const struct pn_tokens_view *, const struct pn_inverse *, const float *x, const float *rows, double share, double weight, float *z, float *dx,
                      float *row_gradients, double *loss);
    void (*token_softmax)(struct pn_ctx *, const struct pn_tokens_view *, const struct pn_inverse *, const float *x, const float *rows, double share, double weight, float *z,
                          float *scratch, float *dx, float *row_gradients, double *loss);
    void (*token_scores)(struct pn_ctx *, const float *x, const float *rows, const uint32_t *target, const uint32_t *begin, size_t n, size_t k, float *scores);

    /* ---- dense parameters ---- */
    void (*sum_squares)(struct pn_ctx *, const float *x, size_t n, double *sum);                /* *sum += */
    void (*clip)(struct pn_ctx *, const double *squares, float most, size_t n, float *x);      /* x *= most / sqrt(*squares) if that is below 1 */
    /* One step of an optimizer over a flat vector. state: Adagrad n, Adam 2 n floats; step: from 1, Adam's correction. */
    void (*dense_step)(struct pn_ctx *, enum pn_dense_rule, float lr, float epsilon, float beta1, float beta2, uint64_t step, size_t n, const float *g, float *state, float *p);
    /* Differential privacy: squares[u] += the squared norm of unit u's own gradient, without making it where that is less work (nn/example_norms.c says how).
     * Of a linear layer: the sum over the unit's rows of the outer products of (in, and with `biased` a 1 behind it) and g, by element times z (NULL: it is not; cross: x0). */
    void (*outer_norms)(struct pn_ctx *, const struct pn_units *, const float *in, size_t from, bool biased, const float *g, const float *z, size_t width, double *squares);
    /* ... of layer norm; of positions (units of examples; begin: their tokens, n + 1); of rows: of pooled fields and sequences together, of a pair's two rows. */
    void (*layer_norms)(struct pn_ctx *, const struct pn_units *, const float *normal, const float *g, size_t width, double *squares);
    void (*position_norms)(struct pn_ctx *, const struct pn_units *, const float *g, const uint32_t *begin, size_t most, size_t width, double *squares);
    void (*row_norms)(struct pn_ctx *, const struct pn_touches *, const struct pn_row_sources *, double *squares);
    void (*pair_norms)(struct pn_ctx *, const struct pn_touches *, const struct pn_pool_view *, const float *rows, const float *g, double *squares); /* entry: 2 e + s */
    /* Abadi et al. 2016: g_e *= min(1, most / sqrt(squares[unit[e]])), 0 where that is no number. And normal noise of deviation sigma, a function of (seed, i). */
    void (*clip_units)(struct pn_ctx *, const double *squares, const uint32_t *unit, float most, size_t n, size_t width, float *g);
    void (*add_noise)(struct pn_ctx *, size_t n, float sigma, uint64_t seed, float *x);

    const struct pn_cache_ops *cache; /* of hot rows */
};

/* nn/cpu/backend.c: the reference, and what a machine without a GPU tests nn/device.c with. */
extern const struct pn_backend pn_backend_cpu;

/* Host: the inverse of rows[n] (< n_rows each; UINT32_MAX: left out). id: what order holds for entry i (NULL: i). Room: order n, chunk_begin n + 2, chunk_row n + 1,
 * wide_begin n / PN_CHUNK + 2, counts 2, scratch n_rows + 1. */
void pn_inverse_build(const uint32_t *rows, const uint32_t *id, size_t n, size_t n_rows, uint32_t *order, uint32_t *chunk_begin, uint32_t *chunk_row, uint32_t *wide_begin,
                      uint32_t counts[2], uint32_t *scratch);

#ifdef __cplusplus
}
#endif
#endif
