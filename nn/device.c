/* nn/device.h: staging on the host, a model's buffers on the device, the steps of a slot. What each kind of block calls is in device_blocks.c. */
#include <stdlib.h>
#include <string.h>
#include "nn/device_inside.h"

/* ---- memory ---- */

static void drop_graphs(struct pn_device *d) {
    bool waited = false;
    for (size_t i = 0; i < PN_DEVICE_GRAPHS; i++)
        if (d->graphs[i].graph != NULL) {
            if (!waited) d->be->finish(d->ctx, NULL); /* the other slot's may be running */
            waited = true;
            d->be->graph_free(d->ctx, d->graphs[i].graph);
            d->graphs[i].graph = NULL;
        }
    memset(d->seen, 0, sizeof d->seen);
}
/* Room for n bytes in a part of a slot, on both sides. What grew has a new place, so nothing captured holds any more. */
bool pn_device_room(struct pn_device *d, struct pn_device_part *p, size_t n) {
    if (n <= p->room && p->dev != NULL) return true;
    drop_graphs(d);
    if (p->dev != NULL) d->be->free(d->ctx, p->dev);
    if (p->host != NULL) d->be->host_free(d->ctx, p->host);
    p->room = (n + n / 4 + 255) / 256 * 256;
    p->dev = d->be->alloc(d->ctx, p->room);
    p->host = d->be->host_alloc(d->ctx, p->room);
    return p->dev != NULL && p->host != NULL;
}
static bool device_room(struct pn_device *d, float **p, size_t *has, size_t n) {
    if (n <= *has && *p != NULL) return true;
    drop_graphs(d);
    if (*p != NULL) d->be->free(d->ctx, *p);
    *p = d->be->alloc(d->ctx, (n + 64) * sizeof **p);
    *has = *p != NULL ? n : 0;
    return *p != NULL;
}

bool pn_device_scratch(struct pn_device *d, size_t n_floats) { return device_room(d, &d->scratch, &d->scratch_room, n_floats + 1); }

/* One allocation each for all values, for their gradients, for what forward keeps. */
static bool reserve(struct pn_device *d, size_t n, size_t n_tokens) {
    struct pn_net *net = d->net;
    if (n <= d->n_room && n_tokens <= d->token_room && d->arena != NULL) return true;
    if (n < d->n_room) n = d->n_room;
    if (n_tokens < d->token_room) n_tokens = d->token_room;
    n_tokens += n_tokens / 4;
    size_t values = 0, kept = 0;
    for (int pass = 0; pass < 2; pass++) {
        values = kept = 0;
        for (size_t i = 0; i < net->n_values; i++) {
            if (pass == 1) {
                d->x[i] = d->arena + values;
                d->g[i] = d->gradients + values;
            }
            values += ((net->values[i].tokens ? n_tokens : n) * net->values[i].width + 63) / 64 * 64;
        }
        for (size_t i = 0; i < net->n_blocks; i++) {
            const struct pn_block *b = &net->blocks[i];
            for (int k = 0; k < 2; k++) {
                if (pass == 1) d->kept[i][k] = d->keep + kept;
                kept += ((b->tokens ? n_tokens : n) * b->kept_width[k] + 63) / 64 * 64;
            }
            if (pass == 1) d->own[i] = d->keep + kept;
            const size_t tokens = b->heads > 0 ? n_tokens * b->heads : 0; /* attention's scratch */
            kept += ((b->n_own > tokens ? b->n_own : tokens) + 63) / 64 * 64;
        }
        if (pass == 0 && (!device_room(d, &d->arena, &d->arena_room, values) || !device_room(d, &d->gradients, &d->gradient_room, values) || !device_room(d, &d->keep, &d->keep_room, kept)))
            return false;
    }
    const size_t batch = net->job->loss == PN_LOSS_IN_BATCH ? n * n : 0;
    if (!pn_device_scratch(d, batch)) return false;
    drop_graphs(d);
    d->n_values_floats = values;
    d->n_room = n;
    d->token_room = n_tokens;
    return true;
}

enum pn_result pn_device_open(struct pn_device **out, const struct pn_backend *be, size_t device, const struct pn_job *job, size_t n_dense_inputs, struct pn_error *err) {
    struct pn_device *d = calloc(1, sizeof *d);
    if (d == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory for a model");
    d->be = be;
    enum pn_result r = job->model == PN_MODEL_AUDIT || job->model == PN_MODEL_EXTERNAL
                           ? pn_fail(err, PN_REFUSED, "this model has nothing to compute on a GPU: use device: cpu (or auto)")
                           : pn_net_open(&d->net, job, n_dense_inputs, err);
    for (size_t i = 0; r == PN_OK && i < d->net->n_blocks; i++) {
        d->runs[i] = pn_device_block(d->net->blocks[i].kind->name);
        if (d->runs[i] == NULL) r = pn_fail(err, PN_REFUSED, "block \"%s\" is not computed on a GPU yet: use device: cpu (or auto)", d->net->blocks[i].kind->name);
        if (r == PN_OK && d->net->blocks[i].heads > 0 && d->net->blocks[i].width / d->net->blocks[i].heads > 128)
            r = pn_fail(err, PN_REFUSED, "attention heads wider than 128 are not computed on a GPU: use device: cpu (or auto)");
    }
    for (size_t i = 0; r == PN_OK && i < job->n_fields; i++)
        if (job->fields[i].weighted) r = pn_fail(err, PN_REFUSED, "feature \"%s\" is weighted, which is not computed on a GPU yet: use device: cpu (or auto)", job->fields[i].name);
    if (r == PN_OK) r = be->open(&d->ctx, device, job->precision, err);
    if (r != PN_OK) {
        pn_device_close(d);
        return r;
    }
    d->dim = d->net->wide + d->net->k;
    *out = d;
    return PN_OK;
}

void pn_device_close(struct pn_device *d) {
    if (d->ctx != NULL) {
        d->be->finish(d->ctx, NULL);
        drop_graphs(d);
        pn_device_cache_close(d);
        for (size_t s = 0; s < PN_DEVICE_SLOTS; s++)
            for (size_t i = 0; i < PN_PARTS; i++) {
                if (d->slots[s].parts[i].dev != NULL) d->be->free(d->ctx, d->slots[s].parts[i].dev);
                if (d->slots[s].parts[i].host != NULL) d->be->host_free(d->ctx, d->slots[s].parts[i].host);
            }
        float *all[] = {d->arena, d->gradients, d->keep, d->scratch};
        for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
            if (all[i] != NULL) d->be->free(d->ctx, all[i]);
        d->be->close(d->ctx);
    }
    if (d->net != NULL) pn_net_close(d->net);
    free(d->build);
    free(d);
}

struct pn_device_seconds pn_device_time(const struct pn_device *d) { return d->seconds; }

struct pn_device_counts pn_device_look(const struct pn_device *d) { return d->counts; }

/* ---- staging ---- */

void *pn_device_stage(struct pn_device *d, struct pn_device_slot *s, size_t i, size_t n) {
    if (!pn_device_room(d, &s->parts[i], n + 64)) return NULL;
    s->used[i] = n;
    return s->parts[i].host;
}
static bool stage_copy(struct pn_device *d, struct pn_device_slot *s, size_t i, const void *from, size_t n) {
    void *to = pn_device_stage(d, s, i, n);
    if (to != NULL && n > 0) memcpy(to, from, n);
    return to != NULL;
}

bool pn_device_stage_inverse(struct pn_device *d, struct pn_device_slot *s, size_t first, size_t i_inverse, const uint32_t *rows, const uint32_t *id, size_t n, size_t n_rows) {
    uint32_t *order = pn_device_stage(d, s, first, n * sizeof *order), *chunk_begin = pn_device_stage(d, s, first + 1, (n + 2) * sizeof *order), *chunk_row = pn_device_stage(d, s, first + 2, (n + 1) * sizeof *order),
             *wide_begin = pn_device_stage(d, s, first + 3, (n / PN_CHUNK + 2) * sizeof *order);
    if (order == NULL || chunk_begin == NULL || chunk_row == NULL || wide_begin == NULL) return false;
    if (!pn_device_room(d, &s->parts[first + 4], (2 * (s->parts[first].room / sizeof *order / PN_CHUNK) + 4) * d->dim * sizeof(float))) return false;
    uint32_t *counts = (uint32_t *)s->parts[PN_PART_HEADER].host + 2 + 2 * i_inverse;
    pn_inverse_build(rows, id, n, n_rows, order, chunk_begin, chunk_row, wide_begin, counts, d->build);
    s->used[first + 1] = (counts[0] + 1) * sizeof *order;
    s->used[first + 2] = counts[0] * sizeof *order;
    s->used[first + 3] = (counts[1] + 1) * sizeof *order;
    s->used[first + 4] = 0;
    return true;
}

/* Which row token i of m of an example takes of a field's list, aligned at its end (as key_of in sequence.c). */
static uint32_t token_row(const uint32_t *begin, const uint32_t *position, size_t e, size_t i, size_t m) {
    const size_t own = begin[e + 1] - begin[e];
    return i + own < m ? UINT32_MAX : position[begin[e] + i + own - m];
}

static bool stage_sequences(struct pn_device *d, struct pn_device_slot *s, const struct pn_batch *b, size_t n_rows) {
    const struct pn_net *net = d->net;
    const uint32_t *begin = b->begin + net->first_sequence * b->n_examples, *position = s->parts[PN_PART_POSITION].host;
    uint32_t *example = pn_device_stage(d, s, PN_PART_EXAMPLE, s->n_tokens * sizeof *example), *left = pn_device_stage(d, s, PN_PART_LEFT, s->n_tokens * sizeof *left);
    if (example == NULL || left == NULL || !stage_copy(d, s, PN_PART_TOKEN_BEGIN, begin, (b->n_examples + 1) * sizeof *begin)) return false;
    for (size_t e = 0, at = 0; e < b->n_examples; e++)
        for (size_t m = begin[e + 1] - begin[e], i = 0; i < m; i++, at++) {
            example[at] = (uint32_t)e;
            left[at] = (uint32_t)(m - 1 - i);
        }
    for (size_t q = 0; q < net->n_sequences && q < PN_DEVICE_SEQUENCES; q++) {
        const size_t first = PN_PART_SEQUENCES + q * PN_PARTS_A_SEQUENCE;
        uint32_t *row = pn_device_stage(d, s, first, s->n_tokens * sizeof *row);
        if (row == NULL) return false;
        for (size_t e = 0, at = 0; e < b->n_examples; e++)
            for (size_t m = begin[e + 1] - begin[e], i = 0; i < m; i++, at++) row[at] = token_row(b->begin + (net->n_sparse + q) * b->n_examples, position, e, i, m);
        const uint32_t role = (uint32_t)net->fields[net->n_sparse + q] + 1;
        if (role == net->job->sequence.negatives || role == net->job->sequence.seen) continue; /* nobody sums by their rows here */
        if (!pn_device_stage_inverse(d, s, first + 1, 1 + q, row, NULL, s->n_tokens, n_rows)) return false;
    }
    return true;
}

/* pn_decay's share of each row: how often the examples' pooled fields name it. */
static bool stage_shares(struct pn_device *d, struct pn_device_slot *s, const struct pn_batch *b, size_t n_rows) {
    const uint32_t *position = s->parts[PN_PART_POSITION].host;
    uint32_t *count = d->build;
    float *share = pn_device_stage(d, s, PN_PART_SHARES, n_rows * sizeof *share);
    if (share == NULL) return false;
    memset(count, 0, n_rows * sizeof *count);
    for (uint32_t i = 0; i < b->begin[d->net->n_sparse * b->n_examples]; i++) count[position[i]]++;
    const size_t n = s->share != NULL ? s->share->n : b->n_examples;
    for (size_t r = 0; r < n_rows; r++) share[r] = d->net->job->embedding_l2 * (float)count[r] / (float)n;
    return true;
}

static bool stage_batch(struct pn_device *d, struct pn_device_slot *s, struct pn_device_look *look, const struct pn_batch *b, const float *const rows[PN_MAX_TABLES], const float *p,
                        uint64_t seed) {
    const struct pn_net *net = d->net;
    const struct pn_job *job = net->job;
    const size_t n = b->n_examples, n_fields = net->n_sparse + net->n_sequences, dim = d->dim;
    size_t base[PN_MAX_TABLES] = {0}, n_rows = 0;
    for (uint32_t t = 0; t < job->i_dense_table; t++) {
        base[t] = n_rows;
        n_rows += b->n_unique[t];
    }
    s->n = n;
    s->n_rows = n_rows;
    s->n_units = d->clip_each > 0 ? pn_batch_units(b) : n;
    s->teacher = b->teacher != NULL && job->distill.weight > 0;
    memset(s->used, 0, sizeof s->used);
    const size_t units = d->clip_each > 0 ? pn_device_units_scratch(d, n_rows, b->n_keys, s->n_tokens) : 0, scratch = n_rows + b->n_keys + 2 > units ? n_rows + b->n_keys + 2 : units;
    if (scratch > d->build_room) {
        free(d->build);
        d->build_room = scratch + scratch / 4;
        if ((d->build = malloc(d->build_room * sizeof *d->build)) == NULL) {
            d->build_room = 0;
            return false;
        }
    }
    uint64_t *header = pn_device_stage(d, s, PN_PART_HEADER, PN_HEADER_WORDS * sizeof(uint32_t));
    uint32_t *position = pn_device_stage(d, s, PN_PART_POSITION, b->n_keys * sizeof *position);
    float *all = pn_device_stage(d, s, PN_PART_ROWS, n_rows * dim * sizeof *all), *labels = pn_device_stage(d, s, PN_PART_LABELS, n * sizeof *labels);
    if (header == NULL || position == NULL || all == NULL || labels == NULL) return false;
    memset(header, 0, PN_HEADER_WORDS * sizeof(uint32_t));
    header[0] = seed;
    ((uint32_t *)header)[PN_HEADER_ROWS] = (uint32_t)n_rows;
    if (s->share != NULL) {
        ((uint32_t *)header)[PN_HEADER_FIRST] = (uint32_t)s->share->first;
        ((uint32_t *)header)[PN_HEADER_FIRST_TOKEN] = (uint32_t)s->share->first_token;
        memcpy((uint32_t *)header + PN_HEADER_OF_LOSS, &s->share->of_loss, sizeof(float));
        memcpy((uint32_t *)header + PN_HEADER_OF_HEADS, &s->share->of_heads, sizeof(float));
    }
    memcpy(labels, b->labels, n * sizeof *labels);
    for (size_t f = 0; f < n_fields; f++) {
        const uint32_t add = (uint32_t)base[job->fields[net->fields[f]].i_table];
        for (uint32_t i = b->begin[f * n]; i < b->begin[(f + 1) * n]; i++) position[i] = b->position[i] + add;
    }
    for (uint32_t t = 0; t < job->i_dense_table && look == NULL && s->share == NULL; t++)
        if (b->n_unique[t] > 0) memcpy(all + base[t] * dim, rows[t], b->n_unique[t] * dim * sizeof *all);
    for (uint32_t t = 0; t < job->i_dense_table && s->share != NULL; t++)
        for (size_t i = 0; i < b->n_unique[t]; i++) memcpy(all + (base[t] + i) * dim, rows[t] + s->share->which[t][i] * dim, dim * sizeof *all);
    if (look != NULL) { /* device memory is made of the cache's and the pulled ones */
        float *pulled = pn_device_stage(d, s, PN_PART_PULLED, n_rows * dim * sizeof *pulled);
        uint32_t *source = pn_device_stage(d, s, PN_PART_SOURCE, n_rows * sizeof *source);
        if (pulled == NULL || source == NULL) return false;
        s->used[PN_PART_ROWS] = 0;
        s->used[PN_PART_PULLED] = pn_device_cache_pack(d, look, b, rows, pulled, source) * dim * sizeof *pulled;
    }
    uint32_t *pooling = pn_device_stage(d, s, PN_PART_POOLING, (net->n_sparse + 1) * sizeof *pooling);
    if (pooling == NULL) return false;
    for (size_t f = 0; f < net->n_sparse; f++) pooling[f] = job->fields[net->fields[f]].pooling;
    bool ok = stage_copy(d, s, PN_PART_BEGIN, b->begin, (n_fields * n + 1) * sizeof *b->begin) && stage_copy(d, s, PN_PART_P, p, net->n_parameters * sizeof *p);
    if (ok && net->n_dense > 0) ok = stage_copy(d, s, PN_PART_DENSE, b->dense, n * net->n_dense * sizeof *b->dense);
    if (ok && job->n_heads > 0) ok = stage_copy(d, s, PN_PART_HEAD_LABELS, b->head_labels, job->n_heads * n * sizeof *b->head_labels);
    if (ok && s->teacher) ok = stage_copy(d, s, PN_PART_TEACHER, b->teacher, n * sizeof *b->teacher);
    if (ok && job->log_q) ok = stage_copy(d, s, PN_PART_LOG_Q, b->log_q, n * sizeof *b->log_q);
    if (ok && job->loss == PN_LOSS_IN_BATCH) ok = stage_copy(d, s, PN_PART_ITEMS, b->keys + n, n * sizeof *b->keys);
    /* entries of the pooled fields: place e * f + s of the pooled vectors */
    uint32_t *id = d->build + n_rows + 1;
    const uint32_t *begin = b->begin;
    for (size_t f = 0; f < net->n_sparse; f++)
        for (size_t e = 0; e < n; e++)
            for (uint32_t i = begin[f * n + e]; i < begin[f * n + e + 1]; i++) id[i] = (uint32_t)(e * net->n_sparse + f);
    ok = ok && pn_device_stage_inverse(d, s, PN_PART_INVERSE, 0, position, id, net->n_sparse > 0 ? begin[net->n_sparse * n] : 0, n_rows);
    if (ok && net->n_sequences > 0) ok = stage_sequences(d, s, b, n_rows);
    if (ok && job->model == PN_MODEL_SASREC) ok = pn_device_sasrec_stage(d, s, b);
    if (ok && d->clip_each > 0) ok = pn_device_stage_units(d, s, b);
    if (ok && job->embedding_l2 > 0) ok = stage_shares(d, s, b, n_rows);
    ok = ok && pn_device_room(d, &s->parts[PN_PART_ROW_GRADIENTS], s->parts[PN_PART_ROWS].room) && pn_device_room(d, &s->parts[PN_PART_DP], (net->n_parameters + PN_DENSE_ROW) * sizeof(float)) &&
         pn_device_room(d, &s->parts[PN_PART_SCORES], (n + 1) * (1 + job->n_heads) * sizeof(float)) && pn_device_room(d, &s->parts[PN_PART_LOSS], (3 + PN_MAX_HEADS) * sizeof(double));
    return ok;
}

/* ---- a step ---- */

static void losses(struct pn_device *d, struct pn_device_slot *s) {
    const struct pn_job *job = d->net->job;
    const size_t n = s->n, at = d->net->logit;
    const float *labels = s->parts[PN_PART_LABELS].dev, *log_q = job->log_q ? s->parts[PN_PART_LOG_Q].dev : NULL, *heads = s->parts[PN_PART_HEAD_LABELS].dev;
    float *scores = s->parts[PN_PART_SCORES].dev;
    double *loss = s->parts[PN_PART_LOSS].dev;
    if (job->model == PN_MODEL_SASREC) {
        pn_device_sasrec_loss(d, s);
        return;
    }
    const bool main = job->loss == PN_LOSS_BCE || s->teacher; /* the gradient is that of the log loss */
    const float weight = d->clip_each > 0 ? (float)n : 1; /* of the sum, not of the mean */
    d->be->bce(d->ctx, d->x[at], labels, s->teacher ? s->parts[PN_PART_TEACHER].dev : NULL, job->distill.weight, job->distill.temperature, weight, n, scores, main ? d->g[at] : NULL, loss);
    if (!main && job->loss == PN_LOSS_IN_BATCH)
        d->be->in_batch_softmax(d->ctx, d->x[d->net->embedded], s->parts[PN_PART_ITEMS].dev, log_q, n, d->net->k, job->temperature, d->scratch, d->g[d->net->embedded], loss);
    else if (!main)
        d->be->group_loss(d->ctx, job->loss == PN_LOSS_BPR ? PN_GROUP_BPR : job->loss == PN_LOSS_HINGE ? PN_GROUP_HINGE : PN_GROUP_SOFTMAX, d->x[at], labels, log_q,
                          job->loss == PN_LOSS_HINGE ? job->margin : job->temperature, n, d->g[at], loss);
    for (size_t h = 0; h < job->n_heads; h++)
        d->be->bce(d->ctx, d->x[d->net->heads[h]], heads + h * n, NULL, 0, 1, weight * job->heads[h].weight, n, scores + (1 + h) * n, d->g[d->net->heads[h]], loss + 1 + h);
    if (!d->shares || d->clip_each > 0) return; /* a sum is one whoever has its terms */
    const float *factors = (const float *)s->parts[PN_PART_HEADER].dev + PN_HEADER_OF_LOSS;
    d->be->scale(d->ctx, factors, n, d->g[at]);
    for (size_t h = 0; h < job->n_heads; h++) d->be->scale(d->ctx, factors + 1, n, d->g[d->net->heads[h]]);
}

/* All gradients to 0, those of the losses, and back through the blocks. norms: with the squared norms of the units'; clipped: of units scaled down by them. */
static void backward(struct pn_device *d, struct pn_device_slot *s, size_t n_rows, bool norms, bool clipped) {
    struct pn_net *net = d->net;
    float *rows = s->parts[PN_PART_ROW_GRADIENTS].dev;
    d->be->clear(d->ctx, d->gradients, d->n_values_floats * sizeof(float));
    d->be->clear(d->ctx, rows, n_rows * sizeof *rows);
    d->be->clear(d->ctx, s->parts[PN_PART_DP].dev, s->parts[PN_PART_DP].room);
    d->be->clear(d->ctx, s->parts[PN_PART_LOSS].dev, (3 + PN_MAX_HEADS) * sizeof(double));
    losses(d, s);
    for (size_t h = 0; clipped && h <= net->job->n_heads; h++)
        d->be->clip_units(d->ctx, s->parts[PN_PART_SQUARES].dev, s->parts[PN_PART_UNIT].dev, d->clip_each, s->n, 1, d->g[h == 0 ? net->logit : net->heads[h - 1]]);
    for (size_t i = net->n_blocks; i-- > 0;) {
        d->runs[i]->backward(d, i, s);
        if (norms && d->runs[i]->norms != NULL) d->runs[i]->norms(d, i, s);
    }
    if (norms) pn_device_row_norms(d, s);
}

static void run(struct pn_device *d, struct pn_device_slot *s) {
    struct pn_net *net = d->net;
    float *rows = s->parts[PN_PART_ROW_GRADIENTS].dev, *dp = s->parts[PN_PART_DP].dev;
    double *loss = s->parts[PN_PART_LOSS].dev;
    const size_t n_rows = s->parts[PN_PART_ROWS].room / sizeof *rows / d->dim * d->dim; /* the whole room, so that a captured step serves any batch */
    if (s->n == 0) { /* an empty draw of a private job */
        d->be->clear(d->ctx, dp, s->parts[PN_PART_DP].room);
        d->be->clear(d->ctx, loss, (3 + PN_MAX_HEADS) * sizeof *loss);
        return;
    }
    for (size_t i = 0; i < net->n_blocks; i++) d->runs[i]->forward(d, i, s);
    if (d->clip_each > 0) {
        d->be->clear(d->ctx, s->parts[PN_PART_SQUARES].dev, s->n_units * sizeof(double));
        backward(d, s, n_rows, true, false);
    }
    backward(d, s, n_rows, false, d->clip_each > 0);
    if (net->job->embedding_l2 > 0)
        d->be->decay(d->ctx, s->parts[PN_PART_ROWS].dev, s->parts[PN_PART_SHARES].dev, (const uint32_t *)s->parts[PN_PART_HEADER].dev + PN_HEADER_ROWS,
                     s->parts[PN_PART_SHARES].room / sizeof(float), d->dim, (double)s->n, rows, loss + 2 + PN_MAX_HEADS);
    if (!(net->job->clip_norm > 0) || d->shares) return; /* of several devices the norm is known when their gradients are one: pn_devices_end */
    const size_t weights = net->n_state > 0 ? pn_net_state(net) : net->n_parameters; /* state is no gradient */
    double *squares = loss + 1 + PN_MAX_HEADS;
    d->be->sum_squares(d->ctx, rows, n_rows, squares);
    d->be->sum_squares(d->ctx, dp, weights, squares);
    d->be->clip(d->ctx, squares, net->job->clip_norm, n_rows, rows);
    d->be->clip(d->ctx, squares, net->job->clip_norm, weights, dp);
}

/* A shape is run twice before it is captured: then all that grows has grown. */
static void run_or_replay(struct pn_device *d, size_t slot) {
    struct pn_device_slot *s = &d->slots[slot];
    if (d->net->n_sequences > 0) {
        run(d, s);
        return;
    }
    struct pn_device_graph *free_ = NULL;
    for (size_t i = 0; i < PN_DEVICE_GRAPHS; i++) {
        struct pn_device_graph *g = &d->graphs[i];
        if (g->graph == NULL) free_ = free_ != NULL ? free_ : g;
        else if (g->slot == slot && g->n == s->n && g->n_units == s->n_units && g->teacher == s->teacher) {
            d->counts.replayed++;
            d->be->replay(d->ctx, g->graph);
            return;
        }
    }
    struct pn_device_seen *seen = &d->seen[slot];
    const bool same = seen->n == s->n && seen->n_units == s->n_units, again = same && seen->times >= 2;
    *seen = (struct pn_device_seen){s->n, s->n_units, same ? seen->times + 1 : 1};
    if (!again || free_ == NULL || !d->be->capture(d->ctx)) {
        run(d, s);
        return;
    }
    run(d, s);
    void *graph = d->be->captured(d->ctx);
    if (graph == NULL) { /* nothing of it has run */
        run(d, s);
        return;
    }
    *free_ = (struct pn_device_graph){graph, slot, s->n, s->n_units, s->teacher};
    d->counts.graphs++;
    d->counts.replayed++;
    d->be->replay(d->ctx, graph);
}

enum pn_result pn_device_begin(struct pn_device *d, size_t slot, const struct pn_batch *b, const float *const rows[PN_MAX_TABLES], const float *p, uint64_t seed,
                               struct pn_error *err) {
    const enum pn_result r = pn_device_queue(d, slot, NULL, false, NULL, b, rows, p, seed, err);
    if (r == PN_OK) pn_device_collect(d, slot, true);
    return r;
}

enum pn_result pn_device_queue(struct pn_device *d, size_t slot, struct pn_device_look *look, bool keep, const struct pn_device_share *share, const struct pn_batch *b,
                               const float *const rows[PN_MAX_TABLES], const float *p, uint64_t seed, struct pn_error *err) {
    struct pn_device_slot *s = &d->slots[slot];
    const struct pn_net *net = d->net;
    s->share = share;
    if (b->n_sparse != net->n_sparse + net->n_sequences || b->n_dense != net->n_dense) return pn_fail(err, PN_INVALID, "a batch of %zu sparse fields and %zu numbers: the model takes %zu and %zu", b->n_sparse, b->n_dense, net->n_sparse + net->n_sequences, net->n_dense);
    if (net->n_sequences > PN_DEVICE_SEQUENCES) return pn_fail(err, PN_REFUSED, "more than %u sequence fields are not computed on a GPU", PN_DEVICE_SEQUENCES);
    s->n_tokens = 0;
    if (net->n_sequences > 0) s->n_tokens = b->begin[(net->first_sequence + 1) * b->n_examples] - b->begin[net->first_sequence * b->n_examples];
    if (!reserve(d, b->n_examples, s->n_tokens) || !stage_batch(d, s, look, b, rows, p, seed)) return pn_fail(err, PN_NO_MEMORY, "no memory for a batch of %zu examples on the device", b->n_examples);
    const size_t begun = PN_EVENT_BEGIN + PN_STAGES_OF_STEP * slot;
    d->be->mark(d->ctx, PN_STREAM_IN, begun);
    for (size_t i = 0; i < PN_PARTS; i++)
        if (s->used[i] > 0) d->be->upload(d->ctx, s->parts[i].dev, s->parts[i].host, s->used[i]);
    if (look != NULL) pn_device_cache_place(d, s, look, keep, b);
    d->be->mark(d->ctx, PN_STREAM_IN, 3 * slot);
    d->be->after(d->ctx, PN_STREAM_COMPUTE, 3 * slot);
    d->be->mark(d->ctx, PN_STREAM_COMPUTE, begun + 1);
    run_or_replay(d, slot);
    d->counts.steps++;
    d->be->mark(d->ctx, PN_STREAM_COMPUTE, PN_EVENT_OWN + slot);
    return PN_OK;
}

void pn_device_collect(struct pn_device *d, size_t slot, bool dense) {
    struct pn_device_slot *s = &d->slots[slot];
    d->be->mark(d->ctx, PN_STREAM_COMPUTE, 3 * slot + 1);
    d->be->after(d->ctx, PN_STREAM_OUT, 3 * slot + 1);
    d->be->mark(d->ctx, PN_STREAM_OUT, PN_EVENT_BEGIN + PN_STAGES_OF_STEP * slot + 2);
    const size_t sizes[][2] = {{PN_PART_ROW_GRADIENTS, s->n_rows * d->dim * sizeof(float)}, {PN_PART_DP, dense ? pn_net_padded(d->net) * sizeof(float) : 0},
                               {PN_PART_SCORES, s->n * (1 + d->net->job->n_heads) * sizeof(float)}, {PN_PART_LOSS, (3 + PN_MAX_HEADS) * sizeof(double)}};
    for (size_t i = 0; i < 4; i++) d->be->download(d->ctx, s->parts[sizes[i][0]].host, s->parts[sizes[i][0]].dev, sizes[i][1]);
    d->be->mark(d->ctx, PN_STREAM_OUT, 3 * slot + 2);
}

enum pn_result pn_device_await(struct pn_device *d, size_t slot, struct pn_error *err) {
    const enum pn_result r = d->be->await(d->ctx, 3 * slot + 2, err);
    if (r != PN_OK) return r;
    const size_t begun = PN_EVENT_BEGIN + PN_STAGES_OF_STEP * slot;
    d->seconds.in += d->be->elapsed(d->ctx, begun, 3 * slot);
    d->seconds.compute += d->be->elapsed(d->ctx, begun + 1, PN_EVENT_OWN + slot);
    if (d->shares) d->seconds.sum += d->be->elapsed(d->ctx, PN_EVENT_OWN + slot, 3 * slot + 1);
    d->seconds.out += d->be->elapsed(d->ctx, begun + 2, 3 * slot + 2);
    return PN_OK;
}

double pn_device_loss(const struct pn_device *d, const struct pn_device_slot *s) {
    const struct pn_job *job = d->net->job;
    const double *parts = s->parts[PN_PART_LOSS].host;
    double loss = s->share != NULL && !(d->clip_each > 0) ? parts[0] * s->share->loss : parts[0];
    for (size_t i = 1; i <= job->n_heads; i++) loss += parts[i];
    if (d->clip_each > 0 && s->n > 0) loss /= (double)s->n;
    if (job->embedding_l2 > 0 && s->n > 0) loss += s->share != NULL ? parts[2 + PN_MAX_HEADS] * (double)s->share->n / (double)s->n : parts[2 + PN_MAX_HEADS];
    return loss;
}

enum pn_result pn_device_end(struct pn_device *d, size_t slot, const struct pn_batch *b, float *const row_gradients[PN_MAX_TABLES], float *dp, float *scores, double *loss,
                             struct pn_error *err) {
    struct pn_device_slot *s = &d->slots[slot];
    const struct pn_job *job = d->net->job;
    const enum pn_result r = pn_device_await(d, slot, err);
    if (r != PN_OK) return r;
    const float *rows = s->parts[PN_PART_ROW_GRADIENTS].host;
    for (uint32_t t = 0; t < job->i_dense_table; t++) {
        if (b->n_unique[t] > 0) memcpy(row_gradients[t], rows, b->n_unique[t] * d->dim * sizeof *rows);
        rows += b->n_unique[t] * d->dim;
    }
    memcpy(dp, s->parts[PN_PART_DP].host, pn_net_padded(d->net) * sizeof *dp);
    memcpy(scores, s->parts[PN_PART_SCORES].host, s->n * sizeof *scores);
    *loss = pn_device_loss(d, s);
    return PN_OK;
}
