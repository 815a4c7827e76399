/* The inside of a model: values (a vector for each example) and the list of blocks that make them from one another. models.c says which blocks a model is
 * made of, layers.c what each kind of block does, net.c runs them. Not for other folders. */
#ifndef PN_NN_NET_H
#define PN_NN_NET_H

#include "nn/blocks.h"

#define PN_MAX_VALUES 80u
#define PN_MAX_BLOCKS 80u
#define PN_MAX_INPUTS 4u

struct pn_block;
struct pn_touch;

/* One pass over a batch: what every block may read. */
struct pn_pass {
    const struct pn_batch *batch;
    const float *const *rows;
    const float *p;                /* parameters */
    float *dp;                     /* their gradients; forward: NULL */
    float *const *row_gradients;   /* forward: NULL */
    size_t n;
    const uint32_t *begin;         /* sequences: tokens of example e are begin[e] - begin[0] .. begin[e + 1] - begin[0]; NULL without one */
    size_t n_tokens;
    bool training;                 /* dropout is on */
    bool whole;                    /* every value is made (clipping by example looks at all) */
    uint64_t seed;
    /* backward: of inputs, of parameters and rows, or of both. The two parts apart are for clipping by example (private.c). */
    enum pn_part { PN_PART_BOTH, PN_PART_INPUTS, PN_PART_PARAMETERS } part;
};

/* What is clipped as one: an example, or a user's examples. Of a block that runs on tokens or on examples: unit u's rows of it. */
static inline size_t pn_pass_units(const struct pn_pass *s) { return pn_batch_units(s->batch); }
static inline size_t pn_pass_example(const struct pn_pass *s, size_t u) { return pn_batch_unit(s->batch, u); }
static inline size_t pn_pass_row(const struct pn_pass *s, bool tokens, size_t u) {
    const size_t e = pn_pass_example(s, u);
    return tokens ? s->begin[e] - s->begin[0] : e;
}

/* x, g: n * width floats, for room examples; tokens: a vector for each token of all examples' sequences instead, n_tokens * width. g is cleared before the
 * backward pass unless the first block that has a share in it (the last of the list) overwrites it. skipped: made in a whole pass only. */
struct pn_value { size_t width; bool tokens, overwritten, skipped; float *x, *g; };

/* A kind of block. forward writes outputs; backward adds to the gradients of inputs and parameters; overwrites: it looks at b->first and can do without a cleared gradient of an
 * input, each of which it writes whole. init: first values of the parameters; NULL: zeros. */
struct pn_block_kind {
    const char *name;
    void (*forward)(struct pn_net *, struct pn_block *, const struct pn_pass *);
    void (*backward)(struct pn_net *, struct pn_block *, const struct pn_pass *);
    void (*init)(const struct pn_net *, const struct pn_block *, uint64_t seed, float *p);
    bool overwrites;
    /* Of a block with parameters: adds to squares[u] the squared norm of unit u's own gradient of them, from what its output's gradient is after the backward
     * pass. NULL: it has none, or mixes examples (batch norm). */
    void (*norms)(const struct pn_net *, const struct pn_block *, const struct pn_pass *, double *squares);
    /* Of a block over rows: lists example e's gradients of them; returns how many. */
    size_t (*touch)(const struct pn_net *, const struct pn_block *, const struct pn_pass *, size_t e, struct pn_touch *list);
};

/* What one example adds to the gradient of one row: [scale * linear, scale * g[0 .. k)]. */
struct pn_touch { uint32_t table, position; float scale, linear; const float *g; };

struct pn_block {
    const struct pn_block_kind *kind;
    size_t in[PN_MAX_INPUTS], n_in, out[2]; /* values */
    size_t w, b;                   /* parameters: offsets */
    size_t state;                  /* offset among the state */
    size_t from, width;
    bool relu, biased, causal;
    bool first[PN_MAX_INPUTS];     /* backward: nobody has added to this input's gradient yet: it is overwritten, and was not cleared */
    bool lean;                     /* embedding and parts of it: unless the pass is `whole`, its vectors are not made, their parts are pooled straight from the rows */
    bool tokens;                   /* runs on tokens, not examples: of out[0] and of what is kept */
    size_t heads;
    float rate;                    /* dropout */
    uint64_t salt;                 /* dropout, init: a number of its own */
    double gain;                   /* init: weights have deviation sqrt(gain / from) */
    size_t kept_width[2];          /* floats an example that forward keeps for backward */
    float *kept[2];
    size_t n_own;                  /* floats that forward keeps, whatever the batch */
    float *own;
};

struct pn_parameters { char name[40]; size_t offset, shape[2]; bool state; };

struct pn_net {
    const struct pn_job *job;
    size_t fields[PN_MAX_FIELDS];  /* n_sparse pooled ones, then n_sequences */
    size_t n_sparse, n_sequences, n_dense, k, n_parameters;
    size_t n_weights, n_state;     /* the flat vector: weights, padded to whole rows if there is state, then state; n_parameters is all */
    bool wide;                     /* rows begin with a linear weight */
    struct pn_parameters parameters[2 * PN_MAX_BLOCKS];
    size_t n_named;
    struct pn_value values[PN_MAX_VALUES];
    size_t n_values, logit;        /* logit: the value that the loss takes */
    size_t embedded;               /* ... and the vectors of users and items, that the softmax within a batch takes */
    float *scratch;                /* of the softmax within a batch: its logits */
    size_t n_scratch;
    size_t shared, heads[PN_MAX_HEADS]; /* shared: what the last layer sees; heads: further logits */
    struct pn_place *places;       /* SASRec: room */
    bool own_candidates;           /* ... in the last batch of several rows each had its own */
    float *head_scores;            /* n_heads * room */
    struct pn_block blocks[PN_MAX_BLOCKS];
    size_t n_blocks, room, token_room;
    size_t first_sequence, most;   /* the sparse field (its place in the batch) that says which tokens there are, and the most of an example */
};

/* The floats of the flat vector in whole rows. */
static inline size_t pn_net_padded(const struct pn_net *net) { return (net->n_parameters + PN_DENSE_ROW - 1) / PN_DENSE_ROW * PN_DENSE_ROW; }
/* Where the state begins in the flat vector. */
static inline size_t pn_net_state(const struct pn_net *net) { return (net->n_weights + PN_DENSE_ROW - 1) / PN_DENSE_ROW * PN_DENSE_ROW; }

/* ---- layers.c: adds a block; each returns the value it makes ---- */
/* The sparse fields' rows, pooled: *linear (width 1; only if net->wide) and *embedded (width n_sparse * k; only if k > 0). */
void pn_add_embedding(struct pn_net *, size_t *linear, size_t *embedded);
size_t pn_add_numbers(struct pn_net *);                            /* the batch's plain numbers, width n_dense */
size_t pn_add_bias(struct pn_net *, const char *name);             /* one parameter */
/* Parameters NAME.weight [from, width] and, if biased, NAME.bias. */
size_t pn_add_linear(struct pn_net *, const char *name, size_t in, size_t width, bool biased, bool relu, double gain);
size_t pn_add_dot_weight(struct pn_net *, const char *name, size_t in); /* the one column NAME [from, 1], without a bias */
size_t pn_add_norm(struct pn_net *, const char *name, size_t in, bool relu); /* NAME.scale, NAME.shift */
size_t pn_add_batch_norm(struct pn_net *, const char *name, size_t in, bool relu); /* NAME.scale, NAME.shift, and as state NAME.mean, NAME.variance */
size_t pn_add_dropout(struct pn_net *, size_t in, float rate);     /* rate 0: the input itself */
size_t pn_add_fm(struct pn_net *, size_t embedded);
size_t pn_add_cross(struct pn_net *, const char *name, size_t x0, size_t x);
size_t pn_add_dot(struct pn_net *, size_t vectors);                /* width a multiple of k */
size_t pn_add_pair(struct pn_net *);                               /* product and linear weights of the first two fields' rows, one key each, of two tables */
size_t pn_add_unit(struct pn_net *, size_t vectors);               /* each vector of k to length 1 */
size_t pn_add_part(struct pn_net *, size_t embedded, size_t from, size_t width); /* of each field's vector of k the floats [from, from + width) */
size_t pn_add_product(struct pn_net *, size_t pair);               /* of two vectors side by side, by element */
size_t pn_add_concat(struct pn_net *, const size_t *in, size_t n); /* n 1: the input itself */
size_t pn_add_sum(struct pn_net *, const size_t *in, size_t n);    /* of values of one width */

/* ---- net.c ---- */
enum pn_result pn_net_run(struct pn_net *, struct pn_pass *, bool gradients); /* forward; gradients: with room for the way back */
void pn_net_clear(struct pn_net *, const struct pn_pass *);                   /* all gradients */
/* The batch's loss with heads and teacher, summed over its examples; gradients of the logits, of the mean. */
double pn_net_losses(struct pn_net *, const struct pn_pass *, float *scores);

/* ---- losses.c ---- */
/* The job's loss: scores = sigmoid of the logits; gradients of the logits (IN_BATCH: of the embedded vectors) are added. Returns its mean * n. */
double pn_net_loss(struct pn_net *, const struct pn_pass *, float *scores);
/* How many terms its mean over these rows is of: rows, pairs, or groups. */
size_t pn_loss_terms(enum pn_loss, const float *labels, size_t n);
/* ---- for the files that add blocks ---- */
static inline size_t pn_block_rows(const struct pn_block *b, const struct pn_pass *s) { return b->tokens ? s->n_tokens : s->n; }
struct pn_block *pn_net_add_block(struct pn_net *, const struct pn_block_kind *, const size_t *in, size_t n_in, size_t width); /* tokens as its first input */
size_t pn_net_add_parameters(struct pn_net *, const char *name, const char *part, size_t rows, size_t columns);
void pn_block_init_weights(const struct pn_net *, const struct pn_block *, uint64_t seed, float *p);

/* ---- sequence.c ---- */
/* The transformer of spec.model.sequence over the actions and, if there is one, the candidate's embedding; a vector a token, of sequence.width. */
size_t pn_add_encoder(struct pn_net *, size_t embedded, bool causal);
/* What a ranking model takes of the encoder's tokens: the greatest of each unit over the tokens, and the last `recent` tokens, newest first; 0 where there is none. */
size_t pn_add_sequence_summary(struct pn_net *, size_t tokens);

/* ---- sasrec.c: the loss on the encoder's tokens (net->shared) ---- */
/* The mean over the batch's tokens, times n. Gradients of tokens and rows are added. scores: sigmoid of each example's last target. False: no memory. */
bool pn_sasrec_loss(struct pn_net *, const struct pn_pass *, float *scores, double *loss);
/* Fills net->places and scores. */
bool pn_sasrec_rank(struct pn_net *, const struct pn_pass *, float *scores);

/* ---- example_norms.c: the squared norm of each unit's gradient, without making it ---- */
void pn_norms_bias(const struct pn_net *, const struct pn_block *, const struct pn_pass *, double *squares);
void pn_norms_linear(const struct pn_net *, const struct pn_block *, const struct pn_pass *, double *squares);
void pn_norms_weight(const struct pn_net *, const struct pn_block *, const struct pn_pass *, double *squares);
void pn_norms_norm(const struct pn_net *, const struct pn_block *, const struct pn_pass *, double *squares);
void pn_norms_cross(const struct pn_net *, const struct pn_block *, const struct pn_pass *, double *squares);
void pn_norms_positions(const struct pn_net *, const struct pn_block *, const struct pn_pass *, double *squares);
/* Of a block over rows too, all blocks at once: a row that a unit touches twice counts as the sum. False: no memory. */
bool pn_norms_rows(const struct pn_net *, const struct pn_pass *, double *squares);

/* ---- models.c ---- */
void pn_net_build(struct pn_net *);

#endif
