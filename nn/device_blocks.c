/* What each kind of block calls of a backend: layers.c and sequence.c once more, with values on the device. A kind that is missing here is refused by name when a model
 * is opened. */
#include <string.h>
#include "nn/device_inside.h"

#define RUN(what) static void what(struct pn_device *d, size_t i_block, struct pn_device_slot *s)
#define BLOCK const struct pn_block *b = &d->net->blocks[i_block]; const struct pn_backend *be = d->be; struct pn_ctx *c = d->ctx; (void)be, (void)c, (void)b, (void)s
#define X(i) d->x[b->in[i]]
#define G(i) d->g[b->in[i]]
#define OUT d->x[b->out[0]]
#define GOUT d->g[b->out[0]]
#define N (b->tokens ? s->n_tokens : s->n)
#define P ((const float *)s->parts[PN_PART_P].dev)
#define DP ((float *)s->parts[PN_PART_DP].dev)
#define FIRST ((const uint32_t *)s->parts[PN_PART_HEADER].dev + (b->tokens ? PN_HEADER_FIRST_TOKEN : PN_HEADER_FIRST))
#define KEPT(k) d->kept[i_block][k]
#define ROWS ((const float *)s->parts[PN_PART_ROWS].dev)
#define DROWS ((float *)s->parts[PN_PART_ROW_GRADIENTS].dev)
#define TOKEN_BEGIN ((const uint32_t *)s->parts[PN_PART_TOKEN_BEGIN].dev)

struct pn_inverse pn_device_inverse(const struct pn_device_slot *s, size_t first, size_t i_inverse) {
    const struct pn_device_part *p = s->parts + first;
    return (struct pn_inverse){.order = p[0].dev, .chunk_begin = p[1].dev, .chunk_row = p[2].dev, .wide_begin = p[3].dev, .partial = p[4].dev,
                               .counts = (const uint32_t *)s->parts[PN_PART_HEADER].dev + 2 + 2 * i_inverse, .most_chunks = p[2].room / sizeof(uint32_t),
                               .most_wide = p[3].room / sizeof(uint32_t)};
}
struct pn_pool_view pn_device_pool_view(const struct pn_device *d, const struct pn_device_slot *s) {
    return (struct pn_pool_view){.n = s->n, .f = d->net->n_sparse, .k = d->net->k, .wide = d->net->wide, .linear_scale = d->net->job->linear_scale,
                                 .pooling = s->parts[PN_PART_POOLING].dev, .begin = s->parts[PN_PART_BEGIN].dev, .position = s->parts[PN_PART_POSITION].dev};
}

RUN(embedding_forward) {
    BLOCK;
    const struct pn_pool_view v = pn_device_pool_view(d, s);
    be->pool_forward(c, &v, ROWS, OUT, d->x[b->out[1]]);
}
RUN(embedding_backward) {
    BLOCK;
    const struct pn_pool_view v = pn_device_pool_view(d, s);
    const struct pn_inverse inverse = pn_device_inverse(s, PN_PART_INVERSE, 0);
    be->pool_backward(c, &v, &inverse, GOUT, d->g[b->out[1]], DROWS);
}
RUN(numbers_forward) { BLOCK; be->copy(c, s->parts[PN_PART_DENSE].dev, b->width, s->n, b->width, false, OUT, b->width); }
RUN(nothing) { (void)d, (void)i_block, (void)s; }
RUN(bias_forward) { BLOCK; be->fill(c, P + b->w, s->n, OUT); }
RUN(bias_backward) { BLOCK; be->column_sums(c, GOUT, s->n, 1, DP + b->w); }
RUN(linear_forward) { BLOCK; be->linear_forward(c, X(0), N, b->from, b->width, P + b->w, b->biased ? P + b->b : NULL, b->relu, OUT); }
RUN(linear_backward) { BLOCK; be->linear_backward(c, X(0), OUT, N, b->from, b->width, P + b->w, b->relu, GOUT, DP + b->w, b->biased ? DP + b->b : NULL, G(0)); }
RUN(weight_forward) { BLOCK; be->weight_forward(c, X(0), s->n, b->from, P + b->w, OUT); }
RUN(weight_backward) { BLOCK; be->weight_backward(c, X(0), GOUT, s->n, b->from, P + b->w, DP + b->w, G(0)); }
RUN(norm_forward) { BLOCK; be->norm_forward(c, X(0), N, b->width, P + b->w, P + b->b, b->relu, KEPT(0), KEPT(1), OUT); }
RUN(norm_backward) { BLOCK; be->norm_backward(c, OUT, KEPT(0), KEPT(1), N, b->width, P + b->w, b->relu, GOUT, DP + b->w, DP + b->b, G(0)); }
RUN(batch_norm_forward) {
    BLOCK;
    be->batch_norm_forward(c, X(0), s->n, b->width, P + b->w, P + b->b, P + pn_net_state(d->net) + b->state, true, b->relu, d->own[i_block], KEPT(0), OUT);
}
RUN(batch_norm_backward) {
    BLOCK;
    const size_t at = pn_net_state(d->net) + b->state;
    be->batch_norm_backward(c, OUT, d->own[i_block], KEPT(0), s->n, b->width, P + b->w, P + at, b->relu, GOUT, DP + b->w, DP + b->b, DP + at, G(0));
}
RUN(dropout_forward) { BLOCK; be->dropout(c, X(0), N * b->width, b->rate, s->parts[PN_PART_HEADER].dev, b->salt, FIRST, b->width, false, OUT); }
RUN(dropout_backward) { BLOCK; be->dropout(c, GOUT, N * b->width, b->rate, s->parts[PN_PART_HEADER].dev, b->salt, FIRST, b->width, true, G(0)); }
RUN(fm_forward) { BLOCK; be->fm_forward(c, X(0), s->n, d->net->n_sparse, d->net->k, KEPT(0), OUT); }
RUN(fm_backward) { BLOCK; be->fm_backward(c, X(0), KEPT(0), GOUT, s->n, d->net->n_sparse, d->net->k, G(0)); }
RUN(cross_forward) { BLOCK; be->cross_forward(c, X(0), X(1), s->n, b->width, P + b->w, P + b->b, KEPT(0), OUT); }
RUN(cross_backward) { BLOCK; be->cross_backward(c, X(0), X(1), KEPT(0), GOUT, s->n, b->width, P + b->w, KEPT(1), DP + b->w, DP + b->b, G(0), G(1)); }
RUN(dot_forward) { BLOCK; be->dot_forward(c, X(0), s->n, b->from / d->net->k, d->net->k, OUT); }
RUN(dot_backward) { BLOCK; be->dot_backward(c, X(0), GOUT, s->n, b->from / d->net->k, d->net->k, G(0)); }
RUN(part_forward) {
    BLOCK;
    const size_t m = b->from / d->net->k, width = b->width / m;
    be->copy(c, X(0) + b->w, d->net->k, s->n * m, width, false, OUT, width);
}
RUN(part_backward) {
    BLOCK;
    const size_t m = b->from / d->net->k, width = b->width / m;
    be->copy(c, GOUT, width, s->n * m, width, true, G(0) + b->w, d->net->k);
}
RUN(product_forward) { BLOCK; be->product_forward(c, X(0), s->n, b->width, OUT); }
RUN(product_backward) { BLOCK; be->product_backward(c, X(0), GOUT, s->n, b->width, G(0)); }
RUN(pair_forward) {
    BLOCK;
    const struct pn_pool_view v = pn_device_pool_view(d, s);
    be->pair_forward(c, &v, ROWS, OUT);
}
RUN(pair_backward) {
    BLOCK;
    const struct pn_pool_view v = pn_device_pool_view(d, s);
    const struct pn_inverse inverse = pn_device_inverse(s, PN_PART_INVERSE, 0);
    be->pair_backward(c, &v, &inverse, ROWS, GOUT, DROWS);
}
RUN(unit_forward) { BLOCK; be->unit_forward(c, X(0), s->n * (b->width / d->net->k), d->net->k, OUT); }
RUN(unit_backward) { BLOCK; be->unit_backward(c, X(0), OUT, GOUT, s->n * (b->width / d->net->k), d->net->k, G(0)); }
RUN(concat_forward) {
    BLOCK;
    for (size_t i = 0, at = 0; i < b->n_in; at += d->net->values[b->in[i++]].width)
        be->copy(c, X(i), d->net->values[b->in[i]].width, N, d->net->values[b->in[i]].width, false, OUT + at, b->width);
}
RUN(concat_backward) {
    BLOCK;
    for (size_t i = 0, at = 0; i < b->n_in; at += d->net->values[b->in[i++]].width)
        be->copy(c, GOUT + at, b->width, N, d->net->values[b->in[i]].width, true, G(i), d->net->values[b->in[i]].width);
}
RUN(sum_forward) {
    BLOCK;
    for (size_t i = 0; i < b->n_in; i++) be->copy(c, X(i), b->width, N, b->width, i > 0, OUT, b->width);
}
RUN(sum_backward) {
    BLOCK;
    for (size_t i = 0; i < b->n_in; i++) be->copy(c, GOUT, b->width, N, b->width, true, G(i), b->width);
}

/* ---- sequences ---- */
RUN(tokens_forward) {
    BLOCK;
    be->tokens_forward(c, ROWS, s->parts[PN_PART_SEQUENCES + (b->w - d->net->n_sparse) * PN_PARTS_A_SEQUENCE].dev, s->n_tokens, d->net->wide, d->net->k, (float)b->gain, OUT);
}
RUN(tokens_backward) {
    BLOCK;
    const size_t q = b->w - d->net->n_sparse;
    const struct pn_inverse inverse = pn_device_inverse(s, PN_PART_SEQUENCES + q * PN_PARTS_A_SEQUENCE + 1, 1 + q);
    be->tokens_backward(c, &inverse, d->net->wide, d->net->k, (float)b->gain, GOUT, DROWS);
}
RUN(candidate_forward) { BLOCK; be->candidate_forward(c, X(0), s->parts[PN_PART_EXAMPLE].dev, s->n_tokens, b->from, b->w, d->net->k, OUT); }
RUN(candidate_backward) { BLOCK; be->candidate_backward(c, GOUT, TOKEN_BEGIN, s->n, b->from, b->w, d->net->k, G(0)); }
RUN(positions_forward) { BLOCK; be->positions_forward(c, X(0), s->parts[PN_PART_LEFT].dev, s->n_tokens, b->width, P + b->w, OUT); }
RUN(positions_backward) { BLOCK; be->positions_backward(c, GOUT, TOKEN_BEGIN, s->n, d->net->most, s->n_tokens, b->width, DP + b->w, G(0)); }
RUN(attention_forward) { BLOCK; be->attention_forward(c, X(0), TOKEN_BEGIN, s->n, b->width, b->heads, d->net->most, b->causal, KEPT(0), OUT); }
RUN(attention_backward) {
    BLOCK;
    be->attention_backward(c, X(0), KEPT(0), OUT, GOUT, TOKEN_BEGIN, s->n, b->width, b->heads, d->net->most, b->causal, d->own[i_block], G(0));
}
RUN(summary_forward) { BLOCK; be->summary_forward(c, X(0), TOKEN_BEGIN, s->n, b->from, b->width / b->from - 1, KEPT(0), OUT); }
RUN(summary_backward) { BLOCK; be->summary_backward(c, KEPT(0), GOUT, TOKEN_BEGIN, s->n, b->from, b->width / b->from - 1, G(0)); }

/* ---- squared norms of the units' own gradients; those of rows are in device_private.c ---- */
#define SQUARES ((double *)s->parts[PN_PART_SQUARES].dev)
#define UNITS const struct pn_units units = pn_device_units(s, b->tokens)
RUN(bias_norms) { BLOCK; UNITS; be->outer_norms(c, &units, GOUT, 0, true, GOUT, NULL, 1, SQUARES); }
RUN(linear_norms) { BLOCK; UNITS; be->outer_norms(c, &units, X(0), b->from, b->biased, GOUT, NULL, b->width, SQUARES); }
RUN(weight_norms) { BLOCK; UNITS; be->outer_norms(c, &units, X(0), b->from, false, GOUT, NULL, 1, SQUARES); }
RUN(norm_norms) { BLOCK; UNITS; be->layer_norms(c, &units, KEPT(1), GOUT, b->width, SQUARES); }
RUN(cross_norms) { BLOCK; UNITS; be->outer_norms(c, &units, X(1), b->width, true, GOUT, X(0), b->width, SQUARES); }
RUN(positions_norms) {
    BLOCK;
    const struct pn_units units = pn_device_units(s, false);
    be->position_norms(c, &units, GOUT, TOKEN_BEGIN, d->net->most, b->width, SQUARES);
}

static const struct pn_device_run all[] = {
    {"embedding", embedding_forward, embedding_backward, NULL}, {"numbers", numbers_forward, nothing, NULL}, {"bias", bias_forward, bias_backward, bias_norms},
    {"linear", linear_forward, linear_backward, linear_norms}, {"weight", weight_forward, weight_backward, weight_norms}, {"norm", norm_forward, norm_backward, norm_norms},
    {"batch norm", batch_norm_forward, batch_norm_backward, NULL}, {"dropout", dropout_forward, dropout_backward, NULL}, {"fm", fm_forward, fm_backward, NULL},
    {"cross", cross_forward, cross_backward, cross_norms}, {"dot", dot_forward, dot_backward, NULL}, {"part", part_forward, part_backward, NULL}, {"product", product_forward, product_backward, NULL}, {"pair", pair_forward, pair_backward, NULL},
    {"unit", unit_forward, unit_backward, NULL},
    {"concat", concat_forward, concat_backward, NULL}, {"sum", sum_forward, sum_backward, NULL}, {"tokens", tokens_forward, tokens_backward, NULL},
    {"candidate", candidate_forward, candidate_backward, NULL}, {"positions", positions_forward, positions_backward, positions_norms}, {"attention", attention_forward, attention_backward, NULL},
    {"summary", summary_forward, summary_backward, NULL}};

const struct pn_device_run *pn_device_block(const char *kind) {
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (strcmp(all[i].name, kind) == 0) return &all[i];
    return NULL;
}
