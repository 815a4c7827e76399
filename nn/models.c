/* The models, each a list of blocks. Names of parameters: bias, numeric.weight, deep.N, cross.N, bottom.N, top.N, head,
 * head.NAME of further labels. */
#include <stdio.h>
#include "nn/net.h"

/* A tower of linear layers, with layer or batch norm between each and its relu if the job wants it. prefix.N.weight, .bias, .scale, .shift, .mean, .variance. */
static size_t tower(struct pn_net *net, const char *prefix, size_t in, const uint32_t *widths, size_t n, float dropout) {
    for (size_t i = 0; i < n; i++) {
        char name[24];
        snprintf(name, sizeof name, "%s.%zu", prefix, i);
        /* Batch norm takes away any bias before it: its gradient would be rounding alone, which Adam makes whole steps of, and running means lag behind them. */
        in = pn_add_linear(net, name, in, widths[i], net->job->norm != PN_NORM_BATCH, net->job->norm == PN_NORM_NONE, 2);
        if (net->job->norm == PN_NORM_LAYER) in = pn_add_norm(net, name, in, true);
        if (net->job->norm == PN_NORM_BATCH) in = pn_add_batch_norm(net, name, in, true);
        in = pn_add_dropout(net, in, dropout);
    }
    return in;
}

/* tower and a last layer of one unit, named as its next. */
static size_t tower_to_logit(struct pn_net *net, const char *prefix, size_t in) {
    const struct pn_job *job = net->job;
    char name[24];
    snprintf(name, sizeof name, "%s.%zu", prefix, job->n_hidden);
    net->shared = tower(net, prefix, in, job->hidden, job->n_hidden, job->dropout);
    return pn_add_linear(net, name, net->shared, 1, true, false, 1);
}

/* Logistic regression, and what FM, Wide&Deep and DeepFM have of it: bias + scale * sum of weights + numbers * weights. */
static size_t first_order(struct pn_net *net, size_t linear, size_t numbers) {
    size_t parts[3], n = 0;
    parts[n++] = pn_add_bias(net, "bias");
    parts[n++] = linear;
    if (net->n_dense > 0) parts[n++] = pn_add_dot_weight(net, "numeric.weight", numbers);
    return pn_add_sum(net, parts, n);
}

/* DLRM (Naumov et al. 2019): numbers through a bottom tower to one more vector of k; dot products of all pairs; a top tower over the bottom's vector and
 * the products. interaction cat: the vectors themselves in place of the products (as BARS ran it on Frappe); both: products and vectors. */
static size_t dlrm(struct pn_net *net, size_t embedded, size_t numbers) {
    const struct pn_job *job = net->job;
    size_t parts[2], n = 0, top[2], n_top = 0;
    if (net->n_dense > 0) {
        size_t bottom = tower(net, "bottom", numbers, job->bottom, job->n_bottom, 0);
        char name[24];
        snprintf(name, sizeof name, "bottom.%zu", job->n_bottom);
        parts[n++] = bottom = pn_add_linear(net, name, bottom, net->k, true, true, 2);
        if (job->interaction == PN_INTERACTION_DOT) top[n_top++] = bottom;
    }
    parts[n++] = embedded;
    const size_t vectors = pn_add_concat(net, parts, n);
    if (job->interaction != PN_INTERACTION_DOT) top[n_top++] = vectors;
    if (job->interaction != PN_INTERACTION_CAT) top[n_top++] = pn_add_dot(net, vectors);
    return tower_to_logit(net, "top", pn_add_concat(net, top, n_top));
}

/* DCN-V2 (Wang et al. 2021): cross layers and a tower side by side over the same input (parallel), or the tower over the crosses (stacked). */
static size_t dcn_v2(struct pn_net *net, size_t x0) {
    const struct pn_job *job = net->job;
    size_t x = x0;
    for (uint32_t i = 0; i < job->n_cross; i++) {
        char name[24];
        snprintf(name, sizeof name, "cross.%u", i);
        x = pn_add_cross(net, name, x0, x);
    }
    const size_t deep = tower(net, "deep", job->stacked ? x : x0, job->hidden, job->n_hidden, job->dropout);
    net->shared = job->stacked || job->n_hidden == 0 ? deep : pn_add_concat(net, (size_t[]){x, deep}, 2);
    return pn_add_linear(net, "head", net->shared, 1, true, false, 1);
}

/* Matrix factorization (Koren et al. 2009; Rendle et al. 2020): the dot product of user and item, with biases if the job wants them. */
static size_t mf(struct pn_net *net, size_t linear, size_t embedded) {
    size_t parts[3] = {pn_add_dot(net, embedded)}, n = 1;
    if (!net->wide) return parts[0];
    parts[n++] = linear;
    parts[n++] = pn_add_bias(net, "bias");
    return pn_add_sum(net, parts, n);
}

/* The same where nobody else takes the two vectors: without a copy of them for each example. */
static bool mf_direct(const struct pn_net *net) {
    const struct pn_job *job = net->job;
    return job->model == PN_MODEL_MF && !job->cosine && job->embedding_dropout <= 0 && job->loss != PN_LOSS_IN_BATCH &&
           job->fields[net->fields[0]].i_table != job->fields[net->fields[1]].i_table;
}

/* NeuMF (He et al. 2017, eq. 12): the product by element of one pair of vectors (GMF) beside a tower over another pair (MLP), one last layer over both. Either
 * alone is a model too. */
static size_t neumf(struct pn_net *net, size_t embedded) {
    const struct pn_job *job = net->job;
    size_t parts[2], n = 0;
    if (job->model != PN_MODEL_MLP) parts[n++] = pn_add_product(net, pn_add_part(net, embedded, 0, job->embedding_dim));
    if (job->model != PN_MODEL_GMF) {
        const size_t from = job->model == PN_MODEL_NEUMF ? job->embedding_dim : 0;
        parts[n++] = tower(net, "deep", pn_add_part(net, embedded, from, net->k - from), job->hidden, job->n_hidden, job->dropout);
    }
    net->shared = pn_add_concat(net, parts, n);
    return pn_add_linear(net, "head", net->shared, 1, true, false, 1);
}

static void add_main(struct pn_net *net) {
    const struct pn_job *job = net->job;
    size_t linear, embedded, numbers = 0, parts[3], n = 0;
    if (job->model == PN_MODEL_SASREC) { /* Kang and McAuley 2018; its logits are products with rows: sasrec.c */
        net->shared = pn_add_encoder(net, 0, true);
        return;
    }
    if (mf_direct(net)) {
        const size_t pair = pn_add_pair(net);
        net->logit = net->wide ? pn_add_sum(net, (size_t[]){pair, pn_add_bias(net, "bias")}, 2) : pair;
        return;
    }
    pn_add_embedding(net, &linear, &embedded);
    embedded = pn_add_dropout(net, embedded, job->embedding_dropout);
    if (net->n_dense > 0) numbers = pn_add_numbers(net);
    if (job->cosine) embedded = pn_add_unit(net, embedded);
    net->embedded = embedded;
    if (pn_model_pair(job->model)) {
        net->logit = job->model == PN_MODEL_MF ? mf(net, linear, embedded) : neumf(net, embedded);
        return;
    }
    size_t side[3], n_side = 0, both = embedded; /* what towers and crosses see side by side */
    side[n_side++] = embedded;
    if (net->n_dense > 0) side[n_side++] = numbers;
    if (job->sequence.n_fields > 0) side[n_side++] = pn_add_sequence_summary(net, pn_add_encoder(net, embedded, false));
    if (pn_model_deep(job->model) && job->model != PN_MODEL_DLRM) both = pn_add_concat(net, side, n_side);
    switch (job->model) {
    case PN_MODEL_AUDIT:
    case PN_MODEL_SASREC:
    case PN_MODEL_EXTERNAL: return;
    case PN_MODEL_DLRM: net->logit = dlrm(net, embedded, numbers); return;
    case PN_MODEL_DCN_V2: net->logit = dcn_v2(net, both); return;
    case PN_MODEL_MF:
    case PN_MODEL_GMF:
    case PN_MODEL_MLP:
    case PN_MODEL_NEUMF:
    case PN_MODEL_LR:
    case PN_MODEL_FM:
    case PN_MODEL_WIDE_DEEP:
    case PN_MODEL_DEEPFM: break;
    }
    parts[n++] = first_order(net, linear, numbers);
    if (job->model == PN_MODEL_FM || job->model == PN_MODEL_DEEPFM) parts[n++] = pn_add_fm(net, embedded);             /* Rendle 2010; Guo et al. 2017 */
    if (job->model == PN_MODEL_WIDE_DEEP || job->model == PN_MODEL_DEEPFM) parts[n++] = tower_to_logit(net, "deep", both); /* Cheng et al. 2016 */
    net->logit = pn_add_sum(net, parts, n);
}

void pn_net_build(struct pn_net *net) {
    add_main(net);
    for (size_t i = 0; i < net->job->n_heads; i++) {
        char name[40];
        snprintf(name, sizeof name, "head.%s", net->job->heads[i].name);
        net->heads[i] = pn_add_linear(net, name, net->shared, 1, true, false, 1);
    }
}
