/* Blocks of sequences. Tokens of all examples lie behind one another, without padding: nothing is computed for places that are not there, and no mask is needed
 * but the causal one. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "common/hash.h"
#include "nn/net.h"

#define X(i) net->values[b->in[i]].x
#define G(i) net->values[b->in[i]].g
#define OUT net->values[b->out[0]].x
#define GOUT net->values[b->out[0]].g

/* ---- the embeddings of one sequence field, a vector of k a token ---- */

/* The key's place for token i of m of example e in the field's list, which is aligned at its end; SIZE_MAX: it has none. */
static size_t key_of(const struct pn_batch *batch, size_t field, size_t e, size_t i, size_t m) {
    const size_t begin = batch->begin[field * batch->n_examples + e], own = batch->begin[field * batch->n_examples + e + 1] - begin;
    return i + own < m ? SIZE_MAX : begin + i + own - m;
}
static void tokens_forward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) {
    const struct pn_batch *batch = s->batch;
    const uint32_t t = net->job->fields[net->fields[b->w]].i_table;
    const size_t dim = net->wide + net->k;
    for (size_t e = 0, at = 0; e < s->n; e++)
        for (size_t i = 0, m = s->begin[e + 1] - s->begin[e]; i < m; i++, at++) {
            const size_t key = key_of(batch, b->w, e, i, m);
            if (key == SIZE_MAX) memset(OUT + at * net->k, 0, net->k * sizeof(float));
            else
                for (size_t d = 0; d < net->k; d++) OUT[at * net->k + d] = (float)b->gain * s->rows[t][(size_t)batch->position[key] * dim + net->wide + d];
        }
}
static void tokens_backward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) {
    if (s->part == PN_PART_INPUTS) return;
    const struct pn_batch *batch = s->batch;
    const uint32_t t = net->job->fields[net->fields[b->w]].i_table;
    const size_t dim = net->wide + net->k;
    for (size_t e = 0, at = 0; e < s->n; e++)
        for (size_t i = 0, m = s->begin[e + 1] - s->begin[e]; i < m; i++, at++) {
            const size_t key = key_of(batch, b->w, e, i, m);
            if (key == SIZE_MAX) continue;
            float *row = s->row_gradients[t] + (size_t)batch->position[key] * dim + net->wide;
            for (size_t d = 0; d < net->k; d++) row[d] += (float)b->gain * GOUT[at * net->k + d];
        }
}
static size_t tokens_touch(const struct pn_net *net, const struct pn_block *b, const struct pn_pass *s, size_t e, struct pn_touch *list) {
    const uint32_t t = net->job->fields[net->fields[b->w]].i_table;
    size_t n = 0;
    for (size_t i = 0, m = s->begin[e + 1] - s->begin[e]; i < m; i++) {
        const size_t key = key_of(s->batch, b->w, e, i, m);
        if (key != SIZE_MAX) list[n++] = (struct pn_touch){t, s->batch->position[key], (float)b->gain, 0, GOUT + (s->begin[e] - s->begin[0] + i) * net->k};
    }
    return n;
}
static size_t add_tokens(struct pn_net *net, size_t field) { /* field: its place in the batch */
    static const struct pn_block_kind kind = {"tokens", tokens_forward, tokens_backward, .touch = tokens_touch};
    struct pn_block *b = pn_net_add_block(net, &kind, NULL, 0, net->k);
    b->tokens = net->values[b->out[0]].tokens = true;
    b->w = field;
    b->gain = net->job->model == PN_MODEL_SASREC ? sqrt((double)net->k) : 1; /* small rows are as large as positions, where both are added */
    return b->out[0];
}

/* ---- one field's embedding beside each token of its example (the early fusion of TransAct) ---- */
static void candidate_forward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) {
    for (size_t e = 0, at = 0; e < s->n; e++)
        for (const size_t end = s->begin[e + 1] - s->begin[0]; at < end; at++)
            memcpy(OUT + at * net->k, X(0) + e * b->from + b->w * net->k, net->k * sizeof(float));
}
static void candidate_backward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) {
    for (size_t e = 0, at = 0; e < s->n; e++)
        for (const size_t end = s->begin[e + 1] - s->begin[0]; at < end; at++)
            for (size_t d = 0; d < net->k; d++) G(0)[e * b->from + b->w * net->k + d] += GOUT[at * net->k + d];
}
static size_t add_candidate(struct pn_net *net, size_t embedded, size_t place) {
    static const struct pn_block_kind kind = {"candidate", candidate_forward, candidate_backward, .init = NULL};
    struct pn_block *b = pn_net_add_block(net, &kind, &embedded, 1, net->k);
    b->tokens = net->values[b->out[0]].tokens = true;
    b->w = place;
    return b->out[0];
}

/* ---- positions: a learned vector for each place, counted from the newest action ---- */
static void positions_forward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) {
    for (size_t e = 0, at = 0; e < s->n; e++)
        for (size_t left = s->begin[e + 1] - s->begin[e]; left-- > 0; at++)
            for (size_t d = 0; d < b->width; d++) OUT[at * b->width + d] = X(0)[at * b->width + d] + s->p[b->w + left * b->width + d];
}
static void positions_backward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) {
    for (size_t e = 0, at = 0; e < s->n; e++)
        for (size_t left = s->begin[e + 1] - s->begin[e]; left-- > 0; at++)
            for (size_t d = 0; d < b->width; d++) {
                if (s->part != PN_PART_PARAMETERS) G(0)[at * b->width + d] += GOUT[at * b->width + d];
                if (s->part != PN_PART_INPUTS) s->dp[b->w + left * b->width + d] += GOUT[at * b->width + d];
            }
}
static void positions_init(const struct pn_net *net, const struct pn_block *b, uint64_t seed, float *p) {
    struct pn_rng r = {pn_mix64(seed ^ pn_mix64(b->salt))};
    for (size_t j = 0; j < net->most * b->width; j++) p[b->w + j] = (float)(0.02 * pn_rng_normal(&r));
}
static size_t add_positions(struct pn_net *net, size_t in) {
    static const struct pn_block_kind kind = {"positions", positions_forward, positions_backward, positions_init, .norms = pn_norms_positions};
    struct pn_block *b = pn_net_add_block(net, &kind, &in, 1, net->values[in].width);
    b->w = pn_net_add_parameters(net, "sequence.position", "", net->most, b->width);
    return b->out[0];
}

/* ---- attention ---- */
static void attention_forward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) {
    pn_attention_forward(X(0), s->begin, s->n, b->width, b->heads, net->most, b->causal, b->kept[0], OUT);
}
static void attention_backward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) {
    pn_attention_backward(X(0), b->kept[0], GOUT, s->begin, s->n, b->width, b->heads, net->most, b->causal, b->own, G(0));
}
static size_t add_attention(struct pn_net *net, size_t qkv, size_t heads, bool causal) {
    static const struct pn_block_kind kind = {"attention", attention_forward, attention_backward, .init = NULL};
    struct pn_block *b = pn_net_add_block(net, &kind, &qkv, 1, net->values[qkv].width / 3);
    b->heads = heads;
    b->causal = causal;
    b->kept_width[0] = heads * net->most;
    b->n_own = net->most * net->most;
    return b->out[0];
}

/* ---- from tokens to one vector an example: the greatest of each unit, and the newest tokens as they are ---- */
static void summary_forward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) {
    const size_t w = b->from, recent = b->width / w - 1;
    for (size_t e = 0; e < s->n; e++) {
        const size_t first = s->begin[e] - s->begin[0], m = s->begin[e + 1] - s->begin[e];
        float *out = OUT + e * b->width, *place = b->kept[0] + e * w; /* place: which token was greatest, exact below 2^24 */
        memset(out, 0, b->width * sizeof(float));
        for (size_t d = 0; d < w && m > 0; d++) {
            size_t best = 0;
            for (size_t i = 1; i < m; i++)
                if (X(0)[(first + i) * w + d] > X(0)[(first + best) * w + d]) best = i;
            out[d] = X(0)[(first + best) * w + d];
            place[d] = (float)best;
        }
        for (size_t r = 0; r < recent && r < m; r++) memcpy(out + (1 + r) * w, X(0) + (first + m - 1 - r) * w, w * sizeof(float));
    }
}
static void summary_backward(struct pn_net *net, struct pn_block *b, const struct pn_pass *s) {
    const size_t w = b->from, recent = b->width / w - 1;
    for (size_t e = 0; e < s->n; e++) {
        const size_t first = s->begin[e] - s->begin[0], m = s->begin[e + 1] - s->begin[e];
        const float *g = GOUT + e * b->width, *place = b->kept[0] + e * w;
        for (size_t d = 0; d < w && m > 0; d++) G(0)[(first + (size_t)place[d]) * w + d] += g[d];
        for (size_t r = 0; r < recent && r < m; r++)
            for (size_t d = 0; d < w; d++) G(0)[(first + m - 1 - r) * w + d] += g[(1 + r) * w + d];
    }
}
size_t pn_add_sequence_summary(struct pn_net *net, size_t tokens) {
    static const struct pn_block_kind kind = {"summary", summary_forward, summary_backward, .init = NULL};
    const size_t w = net->values[tokens].width;
    struct pn_block *b = pn_net_add_block(net, &kind, &tokens, 1, w * (1 + net->job->sequence.recent));
    b->tokens = net->values[b->out[0]].tokens = false;
    b->kept_width[0] = w;
    return b->out[0];
}

/* ---- the encoder ---- */

/* A field's place in the batch. */
static size_t place_of(const struct pn_net *net, size_t i_field) {
    size_t i = 0;
    while (net->fields[i] != i_field) i++;
    return i;
}

/* A block of a transformer with the norms before (Xiong et al. 2020), which trains without warm-up: x + attention(norm(x)), then x + feed-forward(norm(x)). */
static size_t add_transformer(struct pn_net *net, size_t x, uint32_t i, bool causal) {
    const struct pn_sequence_spec *q = &net->job->sequence;
    char name[40];
    snprintf(name, sizeof name, "sequence.%u.norm", i);
    size_t y = pn_add_norm(net, name, x, false);
    snprintf(name, sizeof name, "sequence.%u.qkv", i);
    y = add_attention(net, pn_add_linear(net, name, y, 3 * q->width, true, false, 1), q->heads, causal);
    snprintf(name, sizeof name, "sequence.%u.out", i);
    y = pn_add_dropout(net, pn_add_linear(net, name, y, q->width, true, false, 1), q->dropout);
    x = pn_add_sum(net, (size_t[]){x, y}, 2);
    snprintf(name, sizeof name, "sequence.%u.norm2", i);
    y = pn_add_norm(net, name, x, false);
    snprintf(name, sizeof name, "sequence.%u.wide", i);
    y = pn_add_dropout(net, pn_add_linear(net, name, y, q->feed_forward, true, true, 2), q->dropout);
    snprintf(name, sizeof name, "sequence.%u.narrow", i);
    y = pn_add_dropout(net, pn_add_linear(net, name, y, q->width, true, false, 1), q->dropout);
    return pn_add_sum(net, (size_t[]){x, y}, 2);
}

size_t pn_add_encoder(struct pn_net *net, size_t embedded, bool causal) {
    const struct pn_sequence_spec *q = &net->job->sequence;
    size_t parts[PN_MAX_INPUTS + 1], n = 0;
    net->first_sequence = place_of(net, q->fields[0]);
    net->most = net->job->fields[q->fields[0]].max_length;
    for (uint32_t i = 0; i < q->n_fields; i++) parts[n++] = add_tokens(net, place_of(net, q->fields[i]));
    size_t x = pn_add_concat(net, parts, n);
    if (q->candidate > 0) x = pn_add_concat(net, (size_t[]){x, add_candidate(net, embedded, place_of(net, q->candidate - 1))}, 2);
    if (net->values[x].width != q->width || q->candidate > 0) x = pn_add_linear(net, "sequence.in", x, q->width, true, false, 1);
    if (q->positions) x = add_positions(net, x);
    x = pn_add_dropout(net, x, q->dropout);
    for (uint32_t i = 0; i < q->blocks; i++) x = add_transformer(net, x, i, causal);
    return pn_add_norm(net, "sequence.norm", x, false);
}
