/* Runs a model: its blocks in order, then backwards. One flat vector of dense parameters in named parts. */
#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "nn/net.h"

/* What need not be cleared or made: the gradient of a value whose last block overwrites it; vectors that only parts of them are taken of. */
static void spare_passes(struct pn_net *net) {
    size_t last[PN_MAX_VALUES], uses[PN_MAX_VALUES] = {0}, parts[PN_MAX_VALUES] = {0};
    for (size_t i = 0; i < net->n_blocks; i++)
        for (size_t k = 0; k < net->blocks[i].n_in; k++) {
            last[net->blocks[i].in[k]] = i;
            uses[net->blocks[i].in[k]]++;
            parts[net->blocks[i].in[k]] += strcmp(net->blocks[i].kind->name, "part") == 0;
        }
    for (size_t v = 0; v < net->n_values; v++) {
        /* The losses on these add to their gradients themselves. */
        if (uses[v] == 0 || v == net->logit || (net->job->loss == PN_LOSS_IN_BATCH && v == net->embedded) || (net->job->model == PN_MODEL_SASREC && v == net->shared)) continue;
        struct pn_block *b = &net->blocks[last[v]];
        size_t k = 0, twice = 0;
        for (size_t i = 0; i < b->n_in; i++)
            if (b->in[i] == v) k = i, twice++;
        if (b->kind->overwrites && twice == 1) net->values[v].overwritten = b->first[k] = true;
    }
    for (size_t i = 0; i < net->n_blocks; i++) {
        struct pn_block *b = &net->blocks[i];
        const size_t v = b->out[1];
        if (strcmp(b->kind->name, "embedding") != 0 || net->wide || uses[v] == 0 || parts[v] != uses[v] || (net->job->loss == PN_LOSS_IN_BATCH && v == net->embedded)) continue;
        b->lean = net->values[v].skipped = true;
        for (size_t k = 0; k < net->n_blocks; k++) net->blocks[k].lean = net->blocks[k].lean || (net->blocks[k].n_in == 1 && net->blocks[k].in[0] == v);
    }
}

enum pn_result pn_net_open(struct pn_net **out, const struct pn_job *job, size_t n_dense_inputs, struct pn_error *err) {
    struct pn_net *net = calloc(1, sizeof *net);
    if (net == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory for a model");
    openblas_set_num_threads(1); /* sums in one order: the same bits each time; parallel are the producers */
    net->job = job;
    net->n_dense = n_dense_inputs;
    net->n_sparse = pn_batch_fields(job, net->fields);
    while (net->n_sparse > 0 && job->fields[net->fields[net->n_sparse - 1]].type == PN_FIELD_SEQUENCE) net->n_sparse--, net->n_sequences++;
    net->k = pn_job_width(job);
    net->wide = pn_job_wide(job);
    pn_net_build(net);
    spare_passes(net);
    net->n_parameters = net->n_state > 0 ? pn_net_state(net) + net->n_state : net->n_weights;
    for (size_t i = 0; i < net->n_named; i++)
        if (net->parameters[i].state) net->parameters[i].offset += pn_net_state(net);
    for (size_t i = 0; i < net->n_blocks; i++) {
        struct pn_block *b = &net->blocks[i];
        if (b->n_own > 0 && (b->own = malloc(b->n_own * sizeof *b->own)) == NULL) {
            pn_net_close(net);
            return pn_fail(err, PN_NO_MEMORY, "no memory for a model");
        }
    }
    *out = net;
    return PN_OK;
}

void pn_net_close(struct pn_net *net) {
    for (size_t i = 0; i < net->n_values; i++) {
        free(net->values[i].x);
        free(net->values[i].g);
    }
    for (size_t i = 0; i < net->n_blocks; i++) {
        free(net->blocks[i].own);
        for (int k = 0; k < 2; k++) free(net->blocks[i].kept[k]);
    }
    free(net->scratch);
    free(net->places);
    free(net->head_scores);
    free(net);
}

size_t pn_net_parameters(const struct pn_net *net) { return net->n_parameters; }

uint64_t pn_net_row_key(const struct pn_net *net, size_t i_row) { return net->n_state > 0 && i_row >= pn_net_state(net) / PN_DENSE_ROW ? i_row | PN_STATE_KEY : i_row; }

bool pn_net_block(const struct pn_net *net, size_t i, const char **name, size_t *offset, size_t shape[2]) {
    if (i >= net->n_named) return false;
    *name = net->parameters[i].name;
    *offset = net->parameters[i].offset;
    shape[0] = net->parameters[i].shape[0];
    shape[1] = net->parameters[i].shape[1];
    return true;
}

void pn_net_init(const struct pn_net *net, uint64_t seed, float *p) {
    memset(p, 0, net->n_parameters * sizeof *p);
    for (size_t i = 0; i < net->n_blocks; i++)
        if (net->blocks[i].kind->init != NULL) net->blocks[i].kind->init(net, &net->blocks[i], seed, p);
}

static bool grow(float **p, size_t n) {
    float *grown = realloc(*p, (n + 1) * sizeof *grown);
    if (grown == NULL) return false;
    *p = grown;
    return true;
}

/* Room for a batch of n; a net that only scores never needs gradients. */
static bool reserve(struct pn_net *net, size_t n, size_t n_tokens, bool gradients) {
    if (n > net->room || n_tokens > net->token_room) {
        if (n < net->room) n = net->room;
        if (n_tokens < net->token_room) n_tokens = net->token_room;
        net->room = net->token_room = 0;
        for (size_t i = 0; i < net->n_values; i++) {
            if (!grow(&net->values[i].x, (net->values[i].tokens ? n_tokens : n) * net->values[i].width)) return false;
            free(net->values[i].g);
            net->values[i].g = NULL;
        }
        for (size_t i = 0; i < net->n_blocks; i++)
            for (int k = 0; k < 2; k++)
                if (net->blocks[i].kept_width[k] > 0 && !grow(&net->blocks[i].kept[k], (net->blocks[i].tokens ? n_tokens : n) * net->blocks[i].kept_width[k])) return false;
        if (!grow(&net->head_scores, n * net->job->n_heads)) return false;
        struct pn_place *places = net->job->model == PN_MODEL_SASREC ? realloc(net->places, (n + 1) * sizeof *places) : NULL;
        if (places != NULL) net->places = places;
        else if (net->job->model == PN_MODEL_SASREC) return false;
        net->room = n;
        net->token_room = n_tokens;
    }
    for (size_t i = 0; gradients && i < net->n_values; i++)
        if (net->values[i].g == NULL && !grow(&net->values[i].g, (net->values[i].tokens ? net->token_room : net->room) * net->values[i].width)) return false;
    return true;
}

enum pn_result pn_net_run(struct pn_net *net, struct pn_pass *s, bool gradients) {
    if (s->batch->n_sparse != net->n_sparse + net->n_sequences || s->batch->n_dense != net->n_dense) return PN_INVALID;
    if (net->n_sequences > 0) {
        s->begin = s->batch->begin + net->first_sequence * s->n;
        s->n_tokens = s->begin[s->n] - s->begin[0];
    }
    if (!reserve(net, s->n, s->n_tokens, gradients)) return PN_NO_MEMORY;
    for (size_t i = 0; i < net->n_blocks; i++) net->blocks[i].kind->forward(net, &net->blocks[i], s);
    return PN_OK;
}

enum pn_result pn_net_forward(struct pn_net *net, const struct pn_batch *b, const float *const rows[PN_MAX_TABLES], const float *p, float *scores) {
    struct pn_pass s = {.batch = b, .rows = rows, .p = p, .n = b->n_examples};
    enum pn_result r = pn_net_run(net, &s, false);
    if (r != PN_OK) return r;
    if (net->job->model == PN_MODEL_SASREC) return pn_sasrec_rank(net, &s, scores) ? PN_OK : PN_NO_MEMORY;
    pn_bce(net->values[net->logit].x, b->labels, b->n_examples, scores, NULL);
    for (size_t h = 0; h < net->job->n_heads; h++)
        pn_bce(net->values[net->heads[h]].x, b->head_labels + h * b->n_examples, b->n_examples, net->head_scores + h * net->room, NULL);
    return r;
}

const float *pn_net_logits(const struct pn_net *net) { return net->values[net->logit].x; }
const struct pn_place *pn_net_places(const struct pn_net *net) { return net->places; }
const float *pn_net_head_scores(const struct pn_net *net, size_t i) { return net->head_scores + i * net->room; }

void pn_net_clear(struct pn_net *net, const struct pn_pass *s) {
    for (size_t i = 0; i < net->n_values; i++) {
        const struct pn_value *v = &net->values[i];
        if (!v->overwritten && (s->whole || !v->skipped)) memset(v->g, 0, (v->tokens ? s->n_tokens : s->n) * v->width * sizeof(float));
    }
    for (uint32_t t = 0; t < net->job->i_dense_table; t++) memset(s->row_gradients[t], 0, s->batch->n_unique[t] * net->job->tables[t].dim * sizeof(float));
    memset(s->dp, 0, pn_net_padded(net) * sizeof *s->dp);
}


double pn_net_losses(struct pn_net *net, const struct pn_pass *s, float *scores) {
    const struct pn_job *job = net->job;
    const struct pn_batch *b = s->batch;
    const size_t n = b->n_examples;
    const struct pn_value *logit = &net->values[net->logit];
    double sum = b->teacher != NULL && job->distill.weight > 0 ? pn_bce_taught(logit->x, b->labels, b->teacher, job->distill.weight, job->distill.temperature, n, scores, logit->g)
                                                               : pn_net_loss(net, s, scores);
    for (size_t h = 0; h < job->n_heads; h++) {
        const struct pn_value *v = &net->values[net->heads[h]];
        sum += (double)job->heads[h].weight * pn_bce(v->x, b->head_labels + h * n, n, net->head_scores + h * net->room, v->g);
        for (size_t e = 0; e < n; e++) v->g[e] *= job->heads[h].weight;
    }
    return sum;
}

enum pn_result pn_net_step(struct pn_net *net, const struct pn_batch *b, const float *const rows[PN_MAX_TABLES], const float *p, uint64_t seed,
                           float *const row_gradients[PN_MAX_TABLES], float *dp, float *scores, double *loss) {
    struct pn_pass s = {.batch = b, .rows = rows, .p = p, .dp = dp, .row_gradients = row_gradients, .n = b->n_examples, .training = true, .seed = seed};
    enum pn_result r = pn_net_run(net, &s, true);
    if (r == PN_OK && net->job->loss == PN_LOSS_IN_BATCH && s.n * s.n > net->n_scratch) {
        if (!grow(&net->scratch, s.n * s.n)) return PN_NO_MEMORY;
        net->n_scratch = s.n * s.n;
    }
    if (r != PN_OK) return r;
    pn_net_clear(net, &s);
    if (net->job->model != PN_MODEL_SASREC) *loss = pn_net_losses(net, &s, scores);
    else if (!pn_sasrec_loss(net, &s, scores, loss)) return PN_NO_MEMORY;
    for (size_t i = net->n_blocks; i-- > 0;) net->blocks[i].kind->backward(net, &net->blocks[i], &s);
    if (net->job->embedding_l2 > 0 && !pn_decay(net->job, net->fields, net->n_sparse, b, rows, net->job->embedding_l2, loss, row_gradients)) return PN_NO_MEMORY;
    return PN_OK;
}

void pn_net_clip(const struct pn_net *net, const struct pn_batch *b, float *const row_gradients[PN_MAX_TABLES], float *dp, double most) {
    const struct pn_job *job = net->job;
    double squares = 0;
    for (int pass = 0; pass < 2; pass++) {
        const double norm = sqrt(squares);
        if (pass == 1 && !(norm > most)) return;
        const float scale = pass == 1 ? (float)(most / norm) : 1;
        for (uint32_t t = 0; t <= job->i_dense_table; t++) {
            const bool dense = t == job->i_dense_table;
            const size_t n = !dense ? b->n_unique[t] * job->tables[t].dim : net->n_state > 0 ? pn_net_state(net) : pn_net_padded(net);
            float *g = dense ? dp : row_gradients[t];
            for (size_t i = 0; i < n; i++) {
                if (pass == 0) squares += (double)g[i] * (double)g[i];
                else g[i] *= scale;
            }
        }
    }
}
