/* nn/devices.h: a batch cut into parts, and one result made of theirs. */
#include "nn/devices.h"
#include <stdlib.h>
#include <string.h>
#include "nn/device_inside.h"

/* One device's part of a step. batch: of the arrays in `memory`, the rest borrowed from the whole. */
struct part {
    struct pn_batch batch;
    struct pn_device_share share;
    size_t n, first_unit;
    uint32_t *memory;
    float *head_labels;
    size_t room, head_room;
};

struct pn_devices {
    size_t n;
    struct pn_group *group; /* NULL: one device */
    bool broken;            /* a device has failed in a step: the others may wait for it */
    struct pn_device_seconds seconds;
    struct pn_device **members;
    struct part *parts[PN_DEVICE_SLOTS]; /* n each */
};

enum pn_result pn_devices_open(struct pn_devices **out, const struct pn_backend *be, const size_t *numbers, size_t n, const struct pn_job *job, size_t n_dense_inputs,
                               struct pn_error *err) {
    struct pn_devices *g = calloc(1, sizeof *g);
    struct pn_ctx **contexts = calloc(n, sizeof(struct pn_ctx *));
    bool ok = g != NULL && contexts != NULL && (g->members = calloc(n, sizeof(struct pn_device *))) != NULL;
    for (size_t s = 0; s < PN_DEVICE_SLOTS; s++) ok = ok && (g->parts[s] = calloc(n, sizeof(struct part))) != NULL;
    enum pn_result r = ok ? PN_OK : pn_fail(err, PN_NO_MEMORY, "no memory for %zu devices", n);
    for (size_t i = 0; r == PN_OK && i < n; i++) {
        r = pn_device_open(&g->members[i], be, numbers[i], job, n_dense_inputs, err);
        if (r != PN_OK) break;
        g->n++;
        g->members[i]->shares = n > 1;
        contexts[i] = g->members[i]->ctx;
    }
    if (r == PN_OK && n > 1) r = be->join(&g->group, contexts, n, err);
    free(contexts);
    if (r == PN_OK) *out = g;
    else if (g != NULL) pn_devices_close(g);
    return r;
}

/* All devices have their own part of the slot's step: whoever waits for the sum before would wait for ever for a device that has failed. */
static enum pn_result await_own(struct pn_devices *g, size_t slot, struct pn_error *err) {
    enum pn_result r = PN_OK;
    for (size_t i = 0; r == PN_OK && i < g->n; i++) r = g->members[i]->be->await(g->members[i]->ctx, PN_EVENT_OWN + slot, err);
    g->broken = g->broken || r != PN_OK;
    return r;
}

void pn_devices_close(struct pn_devices *g) {
    for (size_t s = 0; s < PN_DEVICE_SLOTS && g->group != NULL && !g->broken; s++) await_own(g, s, NULL); /* steps that nobody ended */
    for (size_t i = 0; i < g->n && !g->broken; i++) g->members[i]->be->finish(g->members[i]->ctx, NULL);
    if (g->group != NULL) g->members[0]->be->leave(g->group, g->broken);
    for (size_t i = 0; i < g->n; i++) pn_device_close(g->members[i]);
    for (size_t s = 0; s < PN_DEVICE_SLOTS; s++) {
        for (size_t i = 0; g->parts[s] != NULL && i < g->n; i++) {
            free(g->parts[s][i].memory);
            free(g->parts[s][i].head_labels);
        }
        free(g->parts[s]);
    }
    free(g->members);
    free(g);
}

size_t pn_devices_number(const struct pn_devices *g) { return g->n; }

struct pn_device *pn_devices_one(struct pn_devices *g, size_t i) { return g->members[i]; }

struct pn_device_seconds pn_devices_time(const struct pn_devices *g) { return g->n == 1 ? pn_device_time(g->members[0]) : g->seconds; }

enum pn_result pn_devices_clip_units(struct pn_devices *g, float most, struct pn_error *err) {
    enum pn_result r = PN_OK;
    for (size_t i = 0; r == PN_OK && i < g->n; i++) r = pn_device_clip_units(g->members[i], most, err);
    return r;
}

/* ---- the cut ---- */

/* SASRec: how many of these examples' tokens have a target, as sasrec.c reads the two fields. */
static size_t targets(const struct pn_net *net, const struct pn_batch *b) {
    size_t q = 0, n = 0;
    if (net->job->model != PN_MODEL_SASREC) return 0;
    while (net->fields[net->n_sparse + q] != net->job->sequence.target - 1) q++;
    const uint32_t *begin = b->begin + net->first_sequence * b->n_examples, *own = b->begin + (net->n_sparse + q) * b->n_examples;
    for (size_t e = 0; e < b->n_examples; e++) {
        const size_t tokens = begin[e + 1] - begin[e], there = own[e + 1] - own[e];
        n += there < tokens ? there : tokens;
    }
    return n;
}

/* The first unit that begins at example e or behind it; n_units: none does. */
static size_t unit_from(const struct pn_batch *b, size_t e) {
    size_t low = 0, high = b->n_units;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (b->unit_begin[middle] < e) low = middle + 1;
        else high = middle;
    }
    return low;
}

/* Part i of the batch: which examples, and their share in it. What is clipped as one stays on one device, as its norm is of the whole. */
static void cut(struct pn_devices *g, size_t slot, size_t i, const struct pn_batch *b) {
    const struct pn_net *net = g->members[0]->net;
    const struct pn_job *job = net->job;
    const enum pn_loss loss = b->teacher != NULL && job->distill.weight > 0 ? PN_LOSS_BCE : job->loss;
    const size_t n = b->n_examples;
    size_t first = 0, end = 0;
    for (size_t k = 0; k <= i; k++) {
        first = end;
        end = n * (k + 1) / g->n > first ? n * (k + 1) / g->n : first;
        while (loss != PN_LOSS_BCE && end < n && b->labels[end] < 0.5f) end++; /* a positive row keeps those behind it */
        if (b->unit_begin != NULL) end = b->unit_begin[unit_from(b, end)];
    }
    struct part *p = &g->parts[slot][i];
    p->n = end - first;
    p->first_unit = b->unit_begin != NULL ? unit_from(b, first) : 0;
    const double all = (double)pn_loss_terms(loss, b->labels, n), of_loss = all > 0 ? (double)pn_loss_terms(loss, b->labels + first, p->n) / all : 0, of_heads = n > 0 ? (double)p->n / (double)n : 0;
    p->share = (struct pn_device_share){.first = first, .n = n, .n_targets = targets(net, b), .of_loss = (float)of_loss, .of_heads = (float)of_heads, .loss = 1};
    if (net->n_sequences > 0) p->share.first_token = b->begin[net->first_sequence * n + first] - b->begin[net->first_sequence * n];
    /* A part says its examples times its mean; SASRec's mean is the whole's already. */
    if (p->n > 0 && job->model == PN_MODEL_SASREC) p->share.loss = 1 / of_heads;
    else if (p->n > 0 && loss != PN_LOSS_BCE) p->share.loss = of_loss / of_heads;
}

/* The examples of a part as a batch of their own, of as much as a device takes: no keys. False: no memory. */
static bool cut_out(const struct pn_net *net, struct part *p, const struct pn_batch *b) {
    const struct pn_job *job = net->job;
    const size_t n = b->n_examples, first = p->share.first, m = p->n, n_fields = net->n_sparse + net->n_sequences;
    struct pn_batch *own = &p->batch;
    size_t n_keys = 0, n_rows = 0;
    for (size_t f = 0; f < n_fields; f++) n_keys += b->begin[f * n + first + m] - b->begin[f * n + first];
    for (uint32_t t = 0; t < job->i_dense_table; t++) n_rows += b->n_unique[t];
    const size_t n_units = b->unit_begin != NULL ? unit_from(b, first + m) - p->first_unit : 0;
    const size_t room = n_fields * m + 1 + n_keys + 2 * n_rows + n_units + 1;
    if (room > p->room) {
        free(p->memory);
        p->room = room + room / 4;
        if ((p->memory = malloc(p->room * sizeof *p->memory)) == NULL) return p->room = 0, false;
    }
    if (job->n_heads * m > p->head_room) {
        free(p->head_labels);
        p->head_room = job->n_heads * m + 64;
        if ((p->head_labels = malloc(p->head_room * sizeof *p->head_labels)) == NULL) return p->head_room = 0, false;
    }
    *own = (struct pn_batch){.n_examples = m, .n_sparse = b->n_sparse, .n_dense = b->n_dense, .n_keys = n_keys, .labels = b->labels + first, .log_q = b->log_q + first,
                             .head_labels = p->head_labels, .n_units = n_units};
    if (b->n_dense > 0) own->dense = b->dense + first * b->n_dense;
    if (b->teacher != NULL) own->teacher = b->teacher + first;
    for (size_t h = 0; h < job->n_heads; h++) memcpy(p->head_labels + h * m, b->head_labels + h * n + first, m * sizeof *p->head_labels);
    uint32_t *which = p->memory, *place = which + n_rows, *base[PN_MAX_TABLES]; /* place: of the whole's rows among the part's */
    own->begin = place + n_rows;
    own->position = own->begin + n_fields * m + 1;
    if (b->unit_begin != NULL) {
        own->unit_begin = own->position + n_keys;
        for (size_t u = 0; u <= n_units; u++) own->unit_begin[u] = b->unit_begin[p->first_unit + u] - (uint32_t)first;
    }
    memset(place, 0, n_rows * sizeof *place);
    for (uint32_t t = 0; t < job->i_dense_table; t++, place += b->n_unique[t - 1]) base[t] = place;
    for (size_t f = 0; f < n_fields; f++)
        for (uint32_t i = b->begin[f * n + first]; i < b->begin[f * n + first + m]; i++) base[job->fields[net->fields[f]].i_table][b->position[i]] = 1;
    for (uint32_t t = 0; t < job->i_dense_table; t++) { /* rows in the whole's order */
        p->share.which[t] = which;
        for (size_t u = 0; u < b->n_unique[t]; u++)
            if (base[t][u] != 0) {
                base[t][u] = (uint32_t)own->n_unique[t];
                which[own->n_unique[t]++] = (uint32_t)u;
            }
        which += own->n_unique[t];
    }
    uint32_t at = 0;
    for (size_t f = 0; f < n_fields; f++) {
        const uint32_t *row = base[job->fields[net->fields[f]].i_table], *begin = b->begin + f * n + first;
        for (size_t e = 0; e < m; e++) own->begin[f * m + e] = at + begin[e] - begin[0];
        for (uint32_t i = begin[0]; i < begin[m]; i++) own->position[at++] = row[b->position[i]];
    }
    own->begin[n_fields * m] = at;
    return true;
}

/* ---- a step ---- */

enum pn_result pn_devices_bring(struct pn_devices *g, size_t slot, size_t i, const struct pn_batch *b, const float *const rows[PN_MAX_TABLES], const float *p, uint64_t seed,
                                struct pn_error *err) {
    struct part *part = &g->parts[slot][i];
    cut(g, slot, i, b);
    if (!cut_out(g->members[i]->net, part, b)) return pn_fail(err, PN_NO_MEMORY, "no memory for a part of a batch of %zu examples", b->n_examples);
    return pn_device_queue(g->members[i], slot, NULL, false, &part->share, &part->batch, rows, p, seed, err);
}

void pn_devices_join(struct pn_devices *g, size_t slot) {
    struct pn_device *one = g->members[0];
    float *dp[PN_MOST_DEVICES];
    for (size_t i = 0; i < g->n; i++) dp[i] = g->members[i]->slots[slot].parts[PN_PART_DP].dev;
    one->be->all_reduce(g->group, dp, pn_net_padded(one->net));
    for (size_t i = 0; i < g->n; i++) pn_device_collect(g->members[i], slot, i == 0); /* all have the same */
}

enum pn_result pn_devices_begin(struct pn_devices *g, size_t slot, const struct pn_batch *b, const float *const rows[PN_MAX_TABLES], const float *p, uint64_t seed,
                                struct pn_error *err) {
    if (g->n == 1) return pn_device_begin(g->members[0], slot, b, rows, p, seed, err);
    enum pn_result r = PN_OK;
    for (size_t i = 0; r == PN_OK && i < g->n; i++) r = pn_devices_bring(g, slot, i, b, rows, p, seed, err);
    if (r == PN_OK) pn_devices_join(g, slot);
    return r;
}

/* What member i made, into the batch's own. */
static void add(struct pn_devices *g, size_t slot, size_t i, float *const row_gradients[PN_MAX_TABLES], float *scores, double *loss) {
    struct pn_device *d = g->members[i];
    const struct part *p = &g->parts[slot][i];
    const struct pn_device_slot *s = &d->slots[slot];
    const float *from = s->parts[PN_PART_ROW_GRADIENTS].host;
    for (uint32_t t = 0; t < d->net->job->i_dense_table; t++)
        for (size_t u = 0; u < p->batch.n_unique[t]; u++, from += d->dim) {
            float *to = row_gradients[t] + p->share.which[t][u] * d->dim;
            for (size_t k = 0; k < d->dim; k++) to[k] += from[k];
        }
    memcpy(scores + p->share.first, s->parts[PN_PART_SCORES].host, p->n * sizeof *scores);
    *loss += pn_device_loss(d, s);
}

enum pn_result pn_devices_end(struct pn_devices *g, size_t slot, const struct pn_batch *b, float *const row_gradients[PN_MAX_TABLES], float *dp, float *scores, double *loss,
                              struct pn_error *err) {
    if (g->n == 1) return pn_device_end(g->members[0], slot, b, row_gradients, dp, scores, loss, err);
    const struct pn_net *net = g->members[0]->net;
    struct pn_device_seconds step = {0};
    for (uint32_t t = 0; t < net->job->i_dense_table; t++) memset(row_gradients[t], 0, b->n_unique[t] * net->job->tables[t].dim * sizeof(float));
    *loss = 0;
    enum pn_result r = await_own(g, slot, err);
    for (size_t i = 0; r == PN_OK && i < g->n; i++) { /* in the members' order: the same bits each time */
        const struct pn_device_seconds before = pn_device_time(g->members[i]);
        r = pn_device_await(g->members[i], slot, err);
        if (r != PN_OK) break;
        add(g, slot, i, row_gradients, scores, loss);
        const struct pn_device_seconds now = pn_device_time(g->members[i]), took = {now.in - before.in, now.compute - before.compute, now.sum - before.sum, now.out - before.out};
        step.in = took.in > step.in ? took.in : step.in;
        step.compute = took.compute > step.compute ? took.compute : step.compute;
        step.sum = i == 0 || took.sum < step.sum ? took.sum : step.sum; /* who comes last waits for nobody */
        step.out = took.out > step.out ? took.out : step.out;
    }
    if (r != PN_OK) {
        g->broken = true;
        return r;
    }
    g->seconds.in += step.in;
    g->seconds.compute += step.compute;
    g->seconds.sum += step.sum;
    g->seconds.out += step.out;
    memcpy(dp, g->members[0]->slots[slot].parts[PN_PART_DP].host, pn_net_padded(net) * sizeof *dp);
    if (net->job->clip_norm > 0) pn_net_clip(net, b, row_gradients, dp, (double)net->job->clip_norm);
    return PN_OK;
}
