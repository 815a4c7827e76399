/* Private steps on a device (nn/private.c is the same on the CPU): which rows of the batch are one unit's, all that a unit adds to one row side by side, and the norms of both. */
#include <string.h>
#include "nn/device_inside.h"

enum pn_result pn_device_clip_units(struct pn_device *d, float most, struct pn_error *err) {
    const struct pn_net *net = d->net;
    if (!pn_net_separable(net)) return pn_fail(err, PN_REFUSED, "the model mixes examples: its gradients cannot be clipped one by one");
    if (net->job->precision != PN_FLOAT32) return pn_fail(err, PN_REFUSED, "a private job is computed in float32: products of rounded numbers have other norms than those that are clipped");
    for (size_t i = 0; i < net->n_blocks; i++)
        if (net->blocks[i].kind->norms != NULL && d->runs[i]->norms == NULL)
            return pn_fail(err, PN_REFUSED, "block \"%s\": the norms of its gradients are not found on a GPU yet: use device: cpu (or auto)", net->blocks[i].kind->name);
    d->clip_each = most * (1 - 1e-5f); /* gradients are of float32: what rounding takes must not let more than `most` pass */
    return PN_OK;
}

static bool is(const struct pn_block *b, const char *kind) { return strcmp(b->kind->name, kind) == 0; }

size_t pn_device_units_scratch(const struct pn_device *d, size_t n_rows, size_t n_keys, size_t n_tokens) { return n_rows + 2 * (n_keys + d->net->job->sequence.n_fields * n_tokens); }

/* The blocks over sequences, as pn_row_sources has them: how many, and each one's tokens' rows. */
struct sequences { size_t n; const uint32_t *rows[PN_TOKEN_FIELDS]; };
static struct sequences sequences_of(const struct pn_net *net, const struct pn_device_slot *s) {
    struct sequences q = {0};
    for (size_t i = 0; i < net->n_blocks; i++)
        if (is(&net->blocks[i], "tokens")) q.rows[q.n++] = s->parts[PN_PART_SEQUENCES + (net->blocks[i].w - net->n_sparse) * PN_PARTS_A_SEQUENCE].host;
    return q;
}
/* Example e's touches, as entries of pn_row_sources (a pair's are the same: it has two fields of one key each) and their rows. Returns how many. */
static size_t touches_of(const struct pn_net *net, const struct pn_device_slot *s, const struct pn_batch *b, const struct sequences *sequences, size_t e, uint32_t *entry, uint32_t *row) {
    const uint32_t *position = s->parts[PN_PART_POSITION].host, *first = b->begin + net->first_sequence * b->n_examples;
    size_t n = 0;
    for (size_t f = 0; f < net->n_sparse; f++)
        for (uint32_t i = b->begin[f * b->n_examples + e]; i < b->begin[f * b->n_examples + e + 1]; i++, n++) {
            entry[n] = (uint32_t)(e * net->n_sparse + f);
            row[n] = position[i];
        }
    for (size_t q = 0; q < sequences->n; q++)
        for (uint32_t t = first[e] - first[0]; t < first[e + 1] - first[0]; t++) {
            if (sequences->rows[q][t] == UINT32_MAX) continue;
            entry[n] = (uint32_t)(b->n_examples * net->n_sparse + q * s->n_tokens + t);
            row[n++] = sequences->rows[q][t];
        }
    return n;
}

/* Touches of one unit and row get a group; groups of a unit stand together, so that an older number than its first is another unit's. */
static bool stage_touches(struct pn_device *d, struct pn_device_slot *s, const struct pn_batch *b) {
    const uint32_t *units = s->parts[PN_PART_UNITS].host;
    const size_t most = (pn_device_units_scratch(d, s->n_rows, b->n_keys, s->n_tokens) - s->n_rows) / 2;
    uint32_t *group_of = d->build, *entry = group_of + s->n_rows, *group = entry + most, n_groups = 0;
    uint32_t *order = pn_device_stage(d, s, PN_PART_TOUCHES, most * sizeof *order), *begin = pn_device_stage(d, s, PN_PART_TOUCH_BEGIN, (most + 1) * sizeof *begin),
             *groups = pn_device_stage(d, s, PN_PART_UNIT_GROUPS, (s->n_units + 1) * sizeof *groups);
    if (order == NULL || begin == NULL || groups == NULL || !pn_device_room(d, &s->parts[PN_PART_TOUCH_SQUARES], (most + 1) * sizeof(double))) return false;
    const struct sequences sequences = sequences_of(d->net, s);
    size_t n = 0;
    memset(group_of, 0xff, s->n_rows * sizeof *group_of);
    for (size_t u = 0; u < s->n_units; u++) {
        const uint32_t first = groups[u] = n_groups;
        for (size_t e = units[u]; e < units[u + 1]; e++)
            for (const size_t end = n + touches_of(d->net, s, b, &sequences, e, entry + n, group + n); n < end; n++) {
                uint32_t *own = &group_of[group[n]];
                if (*own == UINT32_MAX || *own < first) {
                    begin[n_groups] = 0;
                    *own = n_groups++;
                }
                group[n] = *own;
                begin[*own]++;
            }
    }
    groups[s->n_units] = n_groups;
    uint32_t at = 0;
    for (size_t i = 0; i < n_groups; i++) { /* counts become places */
        const uint32_t many = begin[i];
        begin[i] = at;
        at += many;
    }
    for (size_t i = 0; i < n; i++) order[begin[group[i]]++] = entry[i];
    memmove(begin + 1, begin, n_groups * sizeof *begin); /* each had become the next one's */
    begin[0] = 0;
    s->used[PN_PART_TOUCHES] = n * sizeof *order;
    s->used[PN_PART_TOUCH_BEGIN] = (n_groups + 1) * sizeof *begin;
    return true;
}

bool pn_device_stage_units(struct pn_device *d, struct pn_device_slot *s, const struct pn_batch *b) {
    const uint32_t *first = b->begin + d->net->first_sequence * b->n_examples;
    const bool sequences = d->net->n_sequences > 0;
    uint32_t *units = pn_device_stage(d, s, PN_PART_UNITS, (s->n_units + 1) * sizeof *units), *unit = pn_device_stage(d, s, PN_PART_UNIT, b->n_examples * sizeof *unit),
             *tokens = pn_device_stage(d, s, PN_PART_UNIT_TOKENS, sequences ? (s->n_units + 1) * sizeof *tokens : 0);
    if (units == NULL || unit == NULL || tokens == NULL || !pn_device_room(d, &s->parts[PN_PART_SQUARES], (s->n_units + 1) * sizeof(double))) return false;
    for (size_t u = 0; u <= s->n_units; u++) {
        units[u] = (uint32_t)pn_batch_unit(b, u);
        if (sequences) tokens[u] = first[units[u]] - first[0];
    }
    for (size_t u = 0; u < s->n_units; u++)
        for (size_t e = units[u]; e < units[u + 1]; e++) unit[e] = (uint32_t)u;
    return stage_touches(d, s, b);
}

struct pn_units pn_device_units(const struct pn_device_slot *s, bool tokens) {
    return (struct pn_units){.n = s->n_units, .n_rows = tokens ? s->n_tokens : s->n, .begin = s->parts[tokens ? PN_PART_UNIT_TOKENS : PN_PART_UNITS].dev};
}

void pn_device_row_norms(struct pn_device *d, struct pn_device_slot *s) {
    const struct pn_net *net = d->net;
    double *squares = s->parts[PN_PART_SQUARES].dev;
    const struct pn_touches t = {.n_units = s->n_units, .most_groups = s->parts[PN_PART_TOUCH_SQUARES].room / sizeof(double), .order = s->parts[PN_PART_TOUCHES].dev,
                                 .begin = s->parts[PN_PART_TOUCH_BEGIN].dev, .unit_begin = s->parts[PN_PART_UNIT_GROUPS].dev, .squares = s->parts[PN_PART_TOUCH_SQUARES].dev};
    struct pn_row_sources sources = {.pool = pn_device_pool_view(d, s), .n_tokens = s->n_tokens, .gain = 1};
    size_t q = 0;
    for (size_t i = 0; i < net->n_blocks; i++) {
        const struct pn_block *b = &net->blocks[i];
        if (is(b, "pair")) {
            d->be->pair_norms(d->ctx, &t, &sources.pool, s->parts[PN_PART_ROWS].dev, d->g[b->out[0]], squares);
            return; /* nothing else touches the rows of such a model */
        }
        if (is(b, "embedding")) {
            sources.linear = d->g[b->out[0]];
            sources.embedded = d->g[b->out[1]];
        }
        if (is(b, "tokens")) {
            sources.gain = (float)b->gain;
            sources.tokens[q++] = d->g[b->out[0]];
        }
    }
    d->be->row_norms(d->ctx, &t, &sources, squares);
}
