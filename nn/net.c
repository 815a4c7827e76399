/* Models out of blocks: LR, FM (Rendle 2010), DeepFM (Guo et al. 2017). One flat vector of dense parameters in named blocks:
 * bias; weights of plain numbers; then for each layer of the tower its matrix [from, width] and bias. */
#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/hash.h"
#include "nn/blocks.h"

struct block { char name[32]; size_t offset, shape[2]; };
struct layer { size_t from, width, w, b; };

struct pn_net {
    const struct pn_job *job;
    size_t fields[PN_MAX_FIELDS], n_sparse, n_dense, dim, k, n_parameters, n_layers, n_blocks;
    struct block blocks[2 * PN_MAX_LAYERS + 6];
    struct layer layers[PN_MAX_LAYERS + 1];
    /* buffers, grown to the largest batch seen */
    size_t room;
    float *pooled, *pooled_gradient, *sums, *logits, *gradient, *input, *input_gradient, *outs[PN_MAX_LAYERS + 1], *grads[PN_MAX_LAYERS + 1], *scores;
};

static size_t add_block(struct pn_net *net, const char *name, size_t rows, size_t columns) {
    struct block *b = &net->blocks[net->n_blocks++];
    snprintf(b->name, sizeof b->name, "%s", name);
    b->offset = net->n_parameters;
    b->shape[0] = rows;
    b->shape[1] = columns;
    net->n_parameters += rows * columns;
    return b->offset;
}

enum pn_result pn_net_open(struct pn_net **out, const struct pn_job *job, size_t n_dense_inputs, struct pn_error *err) {
    struct pn_net *net = calloc(1, sizeof *net);
    if (net == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory for a model");
    openblas_set_num_threads(1); /* sums in one order: the same bits each time; parallel are the producers */
    net->job = job;
    net->n_dense = n_dense_inputs;
    for (size_t i = 0; i < job->n_fields; i++)
        if (job->fields[i].type != PN_FIELD_NUMERIC || job->fields[i].n_boundaries > 0 || job->fields[i].criteo_log) net->fields[net->n_sparse++] = i;
    net->k = job->model == PN_MODEL_LR ? 0 : job->embedding_dim;
    net->dim = 1 + net->k;
    add_block(net, "bias", 1, 1);
    if (n_dense_inputs > 0) add_block(net, "numeric.weight", n_dense_inputs, 1);
    if (job->model == PN_MODEL_DEEPFM) {
        size_t from = net->n_sparse * net->k + n_dense_inputs;
        for (size_t i = 0; i <= job->n_hidden; i++) {
            size_t width = i < job->n_hidden ? job->hidden[i] : 1;
            char name[32];
            snprintf(name, sizeof name, "deep.%zu.weight", i);
            size_t w = add_block(net, name, from, width);
            snprintf(name, sizeof name, "deep.%zu.bias", i);
            size_t b = add_block(net, name, 1, width);
            net->layers[net->n_layers++] = (struct layer){from, width, w, b};
            from = width;
        }
    }
    *out = net;
    return PN_OK;
}

void pn_net_close(struct pn_net *net) {
    free(net->pooled);
    free(net->pooled_gradient);
    free(net->sums);
    free(net->logits);
    free(net->gradient);
    free(net->input);
    free(net->input_gradient);
    free(net->scores);
    for (size_t i = 0; i <= PN_MAX_LAYERS; i++) {
        free(net->outs[i]);
        free(net->grads[i]);
    }
    free(net);
}

size_t pn_net_parameters(const struct pn_net *net) { return net->n_parameters; }

bool pn_net_block(const struct pn_net *net, size_t i, const char **name, size_t *offset, size_t shape[2]) {
    if (i >= net->n_blocks) return false;
    *name = net->blocks[i].name;
    *offset = net->blocks[i].offset;
    shape[0] = net->blocks[i].shape[0];
    shape[1] = net->blocks[i].shape[1];
    return true;
}

/* He et al. 2015 for the tower, zeros elsewhere. */
void pn_net_init(const struct pn_net *net, uint64_t seed, float *p) {
    memset(p, 0, net->n_parameters * sizeof *p);
    for (size_t i = 0; i < net->n_layers; i++) {
        const struct layer *l = &net->layers[i];
        struct pn_rng r = {pn_mix64(seed ^ pn_mix64(i + 1))};
        const double scale = sqrt((i + 1 < net->n_layers ? 2.0 : 1.0) / (double)l->from);
        for (size_t j = 0; j < l->from * l->width; j++) p[l->w + j] = (float)(scale * pn_rng_normal(&r));
    }
}

static bool grow(float **p, size_t n) {
    float *grown = realloc(*p, (n + 1) * sizeof *grown);
    if (grown == NULL) return false;
    *p = grown;
    return true;
}

static bool reserve(struct pn_net *net, size_t n) {
    if (n <= net->room) return true;
    size_t input = net->n_sparse * net->k + net->n_dense;
    bool ok = grow(&net->pooled, n * net->n_sparse * net->dim) && grow(&net->pooled_gradient, n * net->n_sparse * net->dim) && grow(&net->sums, n * (net->k + 1)) &&
              grow(&net->logits, n) && grow(&net->gradient, n) && grow(&net->input, n * input) && grow(&net->input_gradient, n * input) && grow(&net->scores, n);
    for (size_t i = 0; ok && i < net->n_layers; i++) ok = grow(&net->outs[i], n * net->layers[i].width) && grow(&net->grads[i], n * net->layers[i].width);
    if (ok) net->room = n;
    return ok;
}

/* The tower's seeds: each layer drops by its own. */
static uint64_t drop_seed(uint64_t seed, size_t layer) { return pn_mix64(seed + 0x1000 * (layer + 1)); }

static enum pn_result forward(struct pn_net *net, const struct pn_batch *b, const float *const rows[PN_MAX_TABLES], const float *p, float dropout, uint64_t seed) {
    const size_t n = b->n_examples, f = net->n_sparse, k = net->k;
    if (b->n_sparse != f || b->n_dense != net->n_dense) return PN_INVALID;
    if (!reserve(net, n)) return PN_NO_MEMORY;
    pn_pool_forward(net->job, net->fields, b, rows, net->dim, net->pooled);
    for (size_t e = 0; e < n; e++) {
        float z = p[0];
        for (size_t i = 0; i < f; i++) z += net->job->linear_scale * net->pooled[(e * f + i) * net->dim];
        for (size_t d = 0; d < net->n_dense; d++) z += b->dense[e * net->n_dense + d] * p[1 + d];
        net->logits[e] = z;
    }
    if (k > 0) pn_fm_forward(net->pooled, n, f, k, net->sums, net->logits);
    if (net->n_layers == 0) return PN_OK;
    const size_t width = f * k + net->n_dense;
    for (size_t e = 0; e < n; e++) {
        float *in = net->input + e * width;
        for (size_t i = 0; i < f; i++) memcpy(in + i * k, net->pooled + (e * f + i) * net->dim + 1, k * sizeof *in);
        if (net->n_dense > 0) memcpy(in + f * k, b->dense + e * net->n_dense, net->n_dense * sizeof *in);
    }
    const float *in = net->input;
    for (size_t i = 0; i < net->n_layers; i++) {
        const struct layer *l = &net->layers[i];
        bool hidden = i + 1 < net->n_layers;
        pn_linear_forward(in, n, l->from, l->width, p + l->w, p + l->b, hidden, net->outs[i]);
        if (hidden) pn_dropout(net->outs[i], n * l->width, dropout, drop_seed(seed, i));
        in = net->outs[i];
    }
    for (size_t e = 0; e < n; e++) net->logits[e] += in[e];
    return PN_OK;
}

enum pn_result pn_net_forward(struct pn_net *net, const struct pn_batch *b, const float *const rows[PN_MAX_TABLES], const float *p, float *scores) {
    enum pn_result r = forward(net, b, rows, p, 0, 0);
    if (r == PN_OK) pn_bce(net->logits, b->labels, b->n_examples, scores, NULL);
    return r;
}

enum pn_result pn_net_step(struct pn_net *net, const struct pn_batch *b, const float *const rows[PN_MAX_TABLES], const float *p, uint64_t seed,
                           float *const row_gradients[PN_MAX_TABLES], float *dp, float *scores, double *loss) {
    const size_t n = b->n_examples, f = net->n_sparse, k = net->k, padded = (net->n_parameters + PN_DENSE_ROW - 1) / PN_DENSE_ROW * PN_DENSE_ROW;
    const float dropout = net->n_layers > 0 ? net->job->dropout : 0;
    enum pn_result r = forward(net, b, rows, p, dropout, seed);
    if (r != PN_OK) return r;
    *loss = pn_bce(net->logits, b->labels, n, scores, net->gradient);
    memset(dp, 0, padded * sizeof *dp);
    memset(net->pooled_gradient, 0, n * f * net->dim * sizeof(float));
    for (size_t e = 0; e < n; e++) {
        const float g = net->gradient[e];
        dp[0] += g;
        for (size_t d = 0; d < net->n_dense; d++) dp[1 + d] += g * b->dense[e * net->n_dense + d];
        for (size_t i = 0; i < f; i++) net->pooled_gradient[(e * f + i) * net->dim] = g * net->job->linear_scale;
    }
    if (k > 0) pn_fm_backward(net->pooled, net->sums, net->gradient, n, f, k, net->pooled_gradient);
    if (net->n_layers > 0) {
        memcpy(net->grads[net->n_layers - 1], net->gradient, n * sizeof(float));
        for (size_t i = net->n_layers; i-- > 0;) {
            const struct layer *l = &net->layers[i];
            const bool hidden = i + 1 < net->n_layers;
            /* A dropped unit is 0 behind relu too: out > 0 says both that it was kept and that relu let it pass. */
            if (hidden) pn_dropout(net->grads[i], n * l->width, dropout, drop_seed(seed, i));
            pn_linear_backward(i > 0 ? net->outs[i - 1] : net->input, net->outs[i], n, l->from, l->width, p + l->w, hidden, net->grads[i], dp + l->w, dp + l->b,
                               i > 0 ? net->grads[i - 1] : net->input_gradient);
        }
        const size_t width = f * k + net->n_dense;
        for (size_t e = 0; e < n; e++)
            for (size_t i = 0; i < f; i++) {
                float *g = net->pooled_gradient + (e * f + i) * net->dim + 1;
                const float *in = net->input_gradient + e * width + i * k;
                for (size_t d = 0; d < k; d++) g[d] += in[d];
            }
    }
    pn_pool_backward(net->job, net->fields, b, net->pooled_gradient, net->dim, row_gradients);
    return PN_OK;
}
