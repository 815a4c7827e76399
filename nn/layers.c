/* The kinds of blocks: how each binds a computation of blocks.h to values and parameters. */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "common/hash.h"
#include "nn/net.h"

#define X(i) net->values[b->in[i]].x
#define G(i) net->values[b->in[i]].g
#define OUT net->values[b->out[0]].x
#define GOUT net->values[b->out[0]].g
#define N pn_block_rows(b, s)

static size_t value(struct pn_net *net, size_t width) {
    assert(net->n_values < PN_MAX_VALUES);
    net->values[net->n_values].width = width;
    return net->n_values++;
}

struct pn_block *pn_net_add_block(struct pn_net *net, const struct pn_block_kind *kind, const size_t *in, size_t n_in, size_t width) {
    assert(net->n_blocks < PN_MAX_BLOCKS && n_in <= PN_MAX_INPUTS);
    struct pn_block *b = &net->blocks[net->n_blocks++];
    *b = (struct pn_block){.kind = kind, .n_in = n_in, .width = width, .salt = net->n_blocks};
    for (size_t i = 0; i < n_in; i++) b->in[i] = in[i];
    b->from = n_in > 0 ? net->values[in[0]].width : 0;
    b->out[0] = value(net, width);
    if (n_in > 0) b->tokens = net->values[b->out[0]].tokens = net->values[in[0]].tokens;
    return b;
}

size_t pn_net_add_parameters(struct pn_net *net, const char *name, const char *part, size_t rows, size_t columns) {
    assert(net->n_named < 2 * PN_MAX_BLOCKS);
    struct pn_parameters *p = &net->parameters[net->n_named++];
    *p = (struct pn_parameters){.offset = net->n_weights, .shape = {rows, columns}};
    snprintf(p->name, sizeof p->name, "%s%s", name, part);
    net->n_weights += rows * columns;
    return p->offset;
}

/* State of a block: floats behind all weights; the offset is among the state. */
static size_t state(struct pn_net *net, const char *name, const char *part, size_t n) {
    assert(net->n_named < 2 * PN_MAX_BLOCKS);
    struct pn_parameters *p = &net->parameters[net->n_named++];
    *p = (struct pn_parameters){.offset = net->n_state, .shape = {1, n}, .state = true};
    snprintf(p->name, sizeof p->name, "%s%s", name, part);
    net->n_state += n;
    return p->offset;
}

/* Normal with deviation sqrt(gain / from): He et al. 2015 (gain 2) before a relu, LeCun 1998 (gain 1) elsewhere. */
void pn_block_init_weights(const struct pn_net *net, const struct pn_block *b, uint64_t seed, float *p) {
    (void)net;
    struct pn_rng r = {pn_mix64(seed ^ pn_mix64(b->salt))};
    const double scale = sqrt(b->gain / (double)b->from);
    for (size_t j = 0; j < b->from * b->width; j++) p[b->w + j] = (float)(scale * pn_rng_normal(&r));
}

/* ---- embedding ---- */
static void embedding_forward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) {
    if (b->lean && !s->whole) return;
    pn_pool_forward(net->job, net->fields, net->n_sparse, s->batch, s->rows, net->wide, net->k, net->job->linear_scale, OUT, net->values[b->out[1]].x);
}
static void embedding_backward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) {
    if (s->part == PN_PART_INPUTS || (b->lean && !s->whole)) return;
    pn_pool_backward(net->job, net->fields, net->n_sparse, s->batch, net->wide, net->k, net->job->linear_scale, GOUT, net->values[b->out[1]].g, s->row_gradients);
}
static size_t embedding_touch(const struct pn_net *net, const struct pn_block *b, const struct pn_pass *s, size_t e, struct pn_touch *list) {
    const struct pn_batch *batch = s->batch;
    size_t n = 0;
    for (size_t f = 0; f < net->n_sparse; f++) {
        const struct pn_field *field = &net->job->fields[net->fields[f]];
        const uint32_t begin = batch->begin[f * s->n + e], end = batch->begin[f * s->n + e + 1];
        const float *g = net->values[b->out[1]].g + (e * net->n_sparse + f) * net->k, linear = net->wide ? net->job->linear_scale * GOUT[e] : 0;
        for (uint32_t i = begin; i < end; i++) list[n++] = (struct pn_touch){field->i_table, batch->position[i], pn_pool_scale(field->pooling, end - begin) * pn_batch_weight(batch, i), linear, g};
    }
    return n;
}
void pn_add_embedding(struct pn_net *net, size_t *linear, size_t *embedded) {
    static const struct pn_block_kind kind = {"embedding", embedding_forward, embedding_backward, .touch = embedding_touch};
    struct pn_block *b = pn_net_add_block(net, &kind, NULL, 0, 1);
    b->out[1] = value(net, net->n_sparse * net->k);
    *linear = b->out[0];
    *embedded = b->out[1];
}

/* ---- plain numbers ---- */
static void numbers_forward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) { memcpy(OUT, s->batch->dense, s->n * b->width * sizeof(float)); }
static void nothing(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) { (void)net, (void)b, (void)s; }
size_t pn_add_numbers(struct pn_net *net) {
    static const struct pn_block_kind kind = {"numbers", numbers_forward, nothing, .init = NULL};
    return pn_net_add_block(net, &kind, NULL, 0, net->n_dense)->out[0];
}

/* ---- bias ---- */
static void bias_forward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) {
    for (size_t e = 0; e < s->n; e++) OUT[e] = s->p[b->w];
}
static void bias_backward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) {
    for (size_t e = 0; e < s->n && s->part != PN_PART_INPUTS; e++) s->dp[b->w] += GOUT[e];
}
size_t pn_add_bias(struct pn_net *net, const char *name) {
    static const struct pn_block_kind kind = {"bias", bias_forward, bias_backward, .norms = pn_norms_bias};
    struct pn_block *b = pn_net_add_block(net, &kind, NULL, 0, 1);
    b->w = pn_net_add_parameters(net, name, "", 1, 1);
    return b->out[0];
}

/* ---- linear ---- */
static void linear_forward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) {
    pn_linear_forward(X(0), N, b->from, b->width, s->p + b->w, b->biased ? s->p + b->b : NULL, b->relu, OUT);
}
static void linear_backward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) {
    const bool inputs = s->part != PN_PART_PARAMETERS, parameters = s->part != PN_PART_INPUTS;
    pn_linear_backward(X(0), OUT, N, b->from, b->width, s->p + b->w, b->relu, GOUT, parameters ? s->dp + b->w : NULL, parameters && b->biased ? s->dp + b->b : NULL,
                       inputs ? G(0) : NULL, !b->first[0]);
}
size_t pn_add_linear(struct pn_net *net, const char *name, size_t in, size_t width, bool biased, bool relu, double gain) {
    static const struct pn_block_kind kind = {"linear", linear_forward, linear_backward, pn_block_init_weights, .overwrites = true, .norms = pn_norms_linear};
    struct pn_block *b = pn_net_add_block(net, &kind, &in, 1, width);
    b->w = pn_net_add_parameters(net, name, ".weight", b->from, width);
    if (biased) b->b = pn_net_add_parameters(net, name, ".bias", 1, width);
    b->biased = biased;
    b->relu = relu;
    b->gain = gain;
    return b->out[0];
}

/* ---- one column of weights ---- */
static void weight_forward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) {
    for (size_t e = 0; e < s->n; e++) {
        float z = 0;
        for (size_t d = 0; d < b->from; d++) z += X(0)[e * b->from + d] * s->p[b->w + d];
        OUT[e] = z;
    }
}
static void weight_backward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) {
    for (size_t e = 0; e < s->n; e++)
        for (size_t d = 0; d < b->from; d++) {
            if (s->part != PN_PART_INPUTS) s->dp[b->w + d] += GOUT[e] * X(0)[e * b->from + d];
            if (s->part != PN_PART_PARAMETERS) G(0)[e * b->from + d] += GOUT[e] * s->p[b->w + d];
        }
}
size_t pn_add_dot_weight(struct pn_net *net, const char *name, size_t in) {
    static const struct pn_block_kind kind = {"weight", weight_forward, weight_backward, .norms = pn_norms_weight};
    struct pn_block *b = pn_net_add_block(net, &kind, &in, 1, 1);
    b->w = pn_net_add_parameters(net, name, "", b->from, 1);
    return b->out[0];
}

/* ---- layer norm ---- */
static void norm_forward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) {
    pn_norm_forward(X(0), N, b->width, s->p + b->w, s->p + b->b, b->relu, b->kept[0], b->kept[1], OUT);
}
static void norm_backward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) {
    const bool inputs = s->part != PN_PART_PARAMETERS, parameters = s->part != PN_PART_INPUTS;
    pn_norm_backward(OUT, b->kept[0], b->kept[1], N, b->width, s->p + b->w, b->relu, GOUT, parameters ? s->dp + b->w : NULL, parameters ? s->dp + b->b : NULL, inputs ? G(0) : NULL);
}
static void norm_init(const struct pn_net *net, const struct pn_block *b, uint64_t seed, float *p) {
    (void)net, (void)seed;
    for (size_t d = 0; d < b->width; d++) p[b->w + d] = 1;
}
size_t pn_add_norm(struct pn_net *net, const char *name, size_t in, bool relu) {
    static const struct pn_block_kind kind = {"norm", norm_forward, norm_backward, norm_init, .norms = pn_norms_norm};
    struct pn_block *b = pn_net_add_block(net, &kind, &in, 1, net->values[in].width);
    b->w = pn_net_add_parameters(net, name, ".scale", 1, b->width);
    b->b = pn_net_add_parameters(net, name, ".shift", 1, b->width);
    b->relu = relu;
    b->kept_width[0] = 1;
    b->kept_width[1] = b->width;
    return b->out[0];
}

/* ---- batch norm ---- */
static void batch_norm_forward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) {
    const float *running = s->p + pn_net_state(net) + b->state;
    pn_batch_norm_forward(X(0), s->n, b->width, s->p + b->w, s->p + b->b, running, s->training, b->relu, b->own, b->kept[0], OUT);
}
static void batch_norm_backward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) {
    const size_t at = pn_net_state(net) + b->state;
    pn_batch_norm_backward(OUT, b->own, b->kept[0], s->n, b->width, s->p + b->w, s->p + at, b->relu, GOUT, s->dp + b->w, s->dp + b->b, s->dp + at, G(0), !b->first[0]);
}
static void batch_norm_init(const struct pn_net *net, const struct pn_block *b, uint64_t seed, float *p) {
    norm_init(net, b, seed, p);
    for (size_t d = 0; d < b->width; d++) p[pn_net_state(net) + b->state + b->width + d] = 1;
}
size_t pn_add_batch_norm(struct pn_net *net, const char *name, size_t in, bool relu) {
    static const struct pn_block_kind kind = {"batch norm", batch_norm_forward, batch_norm_backward, .init = batch_norm_init, .overwrites = true};
    struct pn_block *b = pn_net_add_block(net, &kind, &in, 1, net->values[in].width);
    b->w = pn_net_add_parameters(net, name, ".scale", 1, b->width);
    b->b = pn_net_add_parameters(net, name, ".shift", 1, b->width);
    b->state = state(net, name, ".mean", b->width);
    state(net, name, ".variance", b->width);
    b->relu = relu;
    b->kept_width[0] = b->width;
    b->n_own = 3 * b->width;
    return b->out[0];
}

/* ---- dropout ---- */
static uint64_t drop_seed(const struct pn_block *b, uint64_t seed) { return pn_mix64(seed + 0x1000 * b->salt); }
static void dropout_forward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) {
    if (s->training) pn_dropout(X(0), N * b->width, 0, b->rate, drop_seed(b, s->seed), false, OUT);
    else memcpy(OUT, X(0), N * b->width * sizeof(float));
}
static void dropout_backward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) {
    pn_dropout(GOUT, N * b->width, 0, b->rate, drop_seed(b, s->seed), !b->first[0], G(0));
}
size_t pn_add_dropout(struct pn_net *net, size_t in, float rate) {
    static const struct pn_block_kind kind = {"dropout", dropout_forward, dropout_backward, .overwrites = true};
    if (rate <= 0) return in;
    struct pn_block *b = pn_net_add_block(net, &kind, &in, 1, net->values[in].width);
    b->rate = rate;
    return b->out[0];
}

/* ---- factorization machine ---- */
static void fm_forward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) { pn_fm_forward(X(0), s->n, net->n_sparse, net->k, b->kept[0], OUT); }
static void fm_backward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) { pn_fm_backward(X(0), b->kept[0], GOUT, s->n, net->n_sparse, net->k, G(0)); }
size_t pn_add_fm(struct pn_net *net, size_t embedded) {
    static const struct pn_block_kind kind = {"fm", fm_forward, fm_backward, .init = NULL};
    struct pn_block *b = pn_net_add_block(net, &kind, &embedded, 1, 1);
    b->kept_width[0] = net->k;
    return b->out[0];
}

/* ---- cross ---- */
static void cross_forward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) {
    pn_cross_forward(X(0), X(1), s->n, b->width, s->p + b->w, s->p + b->b, b->kept[0], OUT);
}
static void cross_backward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) {
    const bool inputs = s->part != PN_PART_PARAMETERS, parameters = s->part != PN_PART_INPUTS;
    pn_cross_backward(X(0), X(1), b->kept[0], GOUT, s->n, b->width, s->p + b->w, b->kept[1], parameters ? s->dp + b->w : NULL, parameters ? s->dp + b->b : NULL,
                      inputs ? G(0) : NULL, inputs ? G(1) : NULL);
}
size_t pn_add_cross(struct pn_net *net, const char *name, size_t x0, size_t x) {
    static const struct pn_block_kind kind = {"cross", cross_forward, cross_backward, pn_block_init_weights, .norms = pn_norms_cross};
    struct pn_block *b = pn_net_add_block(net, &kind, (size_t[]){x0, x}, 2, net->values[x0].width);
    b->w = pn_net_add_parameters(net, name, ".weight", b->width, b->width);
    b->b = pn_net_add_parameters(net, name, ".bias", 1, b->width);
    b->gain = 1;
    b->kept_width[0] = b->kept_width[1] = b->width;
    return b->out[0];
}

/* ---- dot products of all pairs ---- */
static void dot_forward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) { pn_dot_forward(X(0), s->n, b->from / net->k, net->k, OUT); }
static void dot_backward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) { pn_dot_backward(X(0), GOUT, s->n, b->from / net->k, net->k, G(0)); }
size_t pn_add_dot(struct pn_net *net, size_t vectors) {
    static const struct pn_block_kind kind = {"dot", dot_forward, dot_backward, .init = NULL};
    const size_t m = net->values[vectors].width / net->k;
    return pn_net_add_block(net, &kind, &vectors, 1, m * (m - 1) / 2)->out[0];
}

/* ---- the product of two fields' rows ---- */
static void pair_forward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) {
    const uint32_t t[2] = {net->job->fields[net->fields[0]].i_table, net->job->fields[net->fields[1]].i_table};
    pn_pair_forward((const float *const[]){s->rows[t[0]], s->rows[t[1]]}, (const uint32_t *const[]){s->batch->position, s->batch->position + s->n}, s->n, net->wide, net->k,
                    net->job->linear_scale, OUT);
}
static void pair_backward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) {
    if (s->part == PN_PART_INPUTS) return;
    const uint32_t t[2] = {net->job->fields[net->fields[0]].i_table, net->job->fields[net->fields[1]].i_table};
    pn_pair_backward((const float *const[]){s->rows[t[0]], s->rows[t[1]]}, (const uint32_t *const[]){s->batch->position, s->batch->position + s->n}, s->n, net->wide, net->k,
                     net->job->linear_scale, GOUT, (float *const[]){s->row_gradients[t[0]], s->row_gradients[t[1]]});
}
static size_t pair_touch(const struct pn_net *net, const struct pn_block *b, const struct pn_pass *s, size_t e, struct pn_touch *list) {
    for (size_t f = 0; f < 2; f++) { /* either row's gradient is the other row */
        const uint32_t other = net->job->fields[net->fields[1 - f]].i_table;
        const float *row = s->rows[other] + (size_t)s->batch->position[(1 - f) * s->n + e] * (net->wide + net->k);
        list[f] = (struct pn_touch){net->job->fields[net->fields[f]].i_table, s->batch->position[f * s->n + e], GOUT[e], net->wide ? net->job->linear_scale : 0, row + net->wide};
    }
    return 2;
}
size_t pn_add_pair(struct pn_net *net) {
    static const struct pn_block_kind kind = {"pair", pair_forward, pair_backward, .touch = pair_touch};
    return pn_net_add_block(net, &kind, NULL, 0, 1)->out[0];
}

/* ---- vectors of length 1 ---- */
static void unit_forward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) { pn_unit_forward(X(0), s->n * (b->width / net->k), net->k, net->k, OUT); }
static void unit_backward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) { pn_unit_backward(X(0), OUT, GOUT, s->n * (b->width / net->k), net->k, G(0)); }
size_t pn_add_unit(struct pn_net *net, size_t vectors) {
    static const struct pn_block_kind kind = {"unit", unit_forward, unit_backward, .init = NULL};
    return pn_net_add_block(net, &kind, &vectors, 1, net->values[vectors].width)->out[0];
}

/* ---- a part of each field's vector ---- */
static void part_forward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) {
    const size_t m = b->from / net->k, width = b->width / m;
    if (b->lean && !s->whole) pn_pool_part_forward(net->job, net->fields, m, s->batch, s->rows, net->wide + net->k, net->wide + b->w, width, OUT);
    else pn_columns(X(0) + b->w, net->k, s->n * m, width, false, OUT, width);
}
static void part_backward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) {
    const size_t m = b->from / net->k, width = b->width / m;
    if (b->lean && !s->whole) pn_pool_part_backward(net->job, net->fields, m, s->batch, net->wide + net->k, net->wide + b->w, width, GOUT, s->row_gradients);
    else pn_columns(GOUT, width, s->n * m, width, true, G(0) + b->w, net->k);
}
size_t pn_add_part(struct pn_net *net, size_t embedded, size_t from, size_t width) {
    static const struct pn_block_kind kind = {"part", part_forward, part_backward, .init = NULL};
    assert(from + width <= net->k);
    if (width == net->k) return embedded;
    struct pn_block *b = pn_net_add_block(net, &kind, &embedded, 1, net->values[embedded].width / net->k * width);
    b->w = from; /* no parameter: where it begins */
    return b->out[0];
}

/* ---- product by element ---- */
static void product_forward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) { pn_product_forward(X(0), s->n, b->width, OUT); }
static void product_backward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) { pn_product_backward(X(0), GOUT, s->n, b->width, !b->first[0], G(0)); }
size_t pn_add_product(struct pn_net *net, size_t pair) {
    static const struct pn_block_kind kind = {"product", product_forward, product_backward, .overwrites = true};
    return pn_net_add_block(net, &kind, &pair, 1, net->values[pair].width / 2)->out[0];
}

/* ---- side by side ---- */
static void concat_forward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) {
    for (size_t i = 0, at = 0; i < b->n_in; at += net->values[b->in[i++]].width) pn_columns(X(i), net->values[b->in[i]].width, N, net->values[b->in[i]].width, false, OUT + at, b->width);
}
static void concat_backward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) {
    for (size_t i = 0, at = 0; i < b->n_in; at += net->values[b->in[i++]].width)
        pn_columns(GOUT + at, b->width, N, net->values[b->in[i]].width, !b->first[i], G(i), net->values[b->in[i]].width);
}
size_t pn_add_concat(struct pn_net *net, const size_t *in, size_t n) {
    static const struct pn_block_kind kind = {"concat", concat_forward, concat_backward, .overwrites = true};
    if (n == 1) return in[0];
    size_t width = 0;
    for (size_t i = 0; i < n; i++) width += net->values[in[i]].width;
    return pn_net_add_block(net, &kind, in, n, width)->out[0];
}

/* ---- sum ---- */
static void sum_forward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) {
    memcpy(OUT, X(0), N * b->width * sizeof(float));
    for (size_t i = 1; i < b->n_in; i++)
        for (size_t j = 0; j < N * b->width; j++) OUT[j] += X(i)[j];
}
static void sum_backward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) {
    for (size_t i = 0; i < b->n_in; i++)
        for (size_t j = 0; j < N * b->width; j++) G(i)[j] += GOUT[j];
}
size_t pn_add_sum(struct pn_net *net, const size_t *in, size_t n) {
    static const struct pn_block_kind kind = {"sum", sum_forward, sum_backward, .init = NULL};
    return n == 1 ? in[0] : pn_net_add_block(net, &kind, in, n, net->values[in[0]].width)->out[0];
}
