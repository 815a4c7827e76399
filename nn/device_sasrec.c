/* SASRec's losses on a device: what sasrec.c reads from the batch laid out as nn/tokens.h wants it. Targets and their inverse are those of their sequence field. */
#include <string.h>
#include "nn/device_inside.h"

static size_t sequence_of(const struct pn_net *net, uint32_t role) {
    size_t q = 0;
    while (net->fields[net->n_sparse + q] != role - 1) q++;
    return q;
}

bool pn_device_sasrec_stage(struct pn_device *d, struct pn_device_slot *s, const struct pn_batch *b) {
    const struct pn_net *net = d->net;
    const size_t n = b->n_examples, q = sequence_of(net, net->job->sequence.target);
    const uint32_t *tokens = b->begin + net->first_sequence * n, *negatives = b->begin + (net->n_sparse + sequence_of(net, net->job->sequence.negatives)) * n;
    const uint32_t *target = s->parts[PN_PART_SEQUENCES + q * PN_PARTS_A_SEQUENCE].host, *position = s->parts[PN_PART_POSITION].host;
    s->n_targets = s->n_union = 0;
    for (size_t t = 0; t < s->n_tokens; t++) s->n_targets += target[t] != UINT32_MAX;
    if (s->share != NULL) s->n_targets = s->share->n_targets; /* the mean is over the whole batch's */
    if (net->job->sequence.softmax) { /* each row of the batch's negatives once */
        uint32_t *at = pn_device_stage(d, s, PN_PART_UNION, s->n_rows * sizeof *at), *mark = d->build;
        if (at == NULL) return false;
        memset(mark, 0, s->n_rows * sizeof *mark);
        for (uint32_t i = negatives[0]; i < negatives[n]; i++)
            if (mark[position[i]]++ == 0) at[s->n_union++] = position[i];
        s->used[PN_PART_UNION] = s->n_union * sizeof *at;
        return pn_device_scratch(d, (2 * net->k + PN_TOKEN_CHUNK) * s->n_union) && pn_device_room(d, &s->parts[PN_PART_Z], (3 * s->n_tokens + 4) * sizeof(float));
    }
    const size_t most = s->n_tokens + negatives[n] - negatives[0];
    uint32_t *begin = pn_device_stage(d, s, PN_PART_ENTRY_BEGIN, (s->n_tokens + 1) * sizeof *begin), *row = pn_device_stage(d, s, PN_PART_ENTRY_ROW, most * sizeof *row),
             *token = pn_device_stage(d, s, PN_PART_ENTRY_TOKEN, most * sizeof *token), entries = 0;
    if (begin == NULL || row == NULL || token == NULL) return false;
    for (size_t e = 0, t = 0; e < n; e++) {
        const size_t m = tokens[e + 1] - tokens[e], each = m > 0 ? (negatives[e + 1] - negatives[e]) / m : 0;
        for (size_t i = 0; i < m; i++, t++) {
            begin[t] = entries;
            for (size_t j = 0; target[t] != UINT32_MAX && j <= each; j++, entries++) { /* the target, then its negatives */
                row[entries] = j == 0 ? target[t] : position[negatives[e] + i * each + j - 1];
                token[entries] = (uint32_t)t;
            }
        }
    }
    begin[s->n_tokens] = entries;
    s->used[PN_PART_ENTRY_ROW] = s->used[PN_PART_ENTRY_TOKEN] = entries * sizeof *row;
    return pn_device_stage_inverse(d, s, PN_PART_ENTRY_INVERSE, PN_ENTRIES_INVERSE, row, NULL, entries, s->n_rows) &&
           pn_device_room(d, &s->parts[PN_PART_Z], (3 * (size_t)entries + 4) * sizeof(float));
}

void pn_device_sasrec_loss(struct pn_device *d, struct pn_device_slot *s) {
    const struct pn_net *net = d->net;
    const size_t q = sequence_of(net, net->job->sequence.target), first = PN_PART_SEQUENCES + q * PN_PARTS_A_SEQUENCE;
    const float *x = d->x[net->shared], *rows = s->parts[PN_PART_ROWS].dev;
    float *dx = d->g[net->shared], *drows = s->parts[PN_PART_ROW_GRADIENTS].dev, *z = s->parts[PN_PART_Z].dev;
    double *loss = s->parts[PN_PART_LOSS].dev;
    const double share = s->n_targets > 0 ? 1 / (double)s->n_targets : 0;
    const struct pn_tokens_view v = {.n_tokens = s->n_tokens, .k = net->k, .begin = s->parts[PN_PART_ENTRY_BEGIN].dev, .row = s->parts[PN_PART_ENTRY_ROW].dev,
                                     .token = s->parts[PN_PART_ENTRY_TOKEN].dev, .target = s->parts[first].dev, .at = s->parts[PN_PART_UNION].dev, .n_at = s->n_union};
    if (net->job->sequence.softmax) {
        const struct pn_inverse inverse = pn_device_inverse(s, first + 1, 1 + q);
        d->be->token_softmax(d->ctx, &v, &inverse, x, rows, share, (double)s->n, z, d->scratch, dx, drows, loss);
    } else {
        const struct pn_inverse inverse = pn_device_inverse(s, PN_PART_ENTRY_INVERSE, PN_ENTRIES_INVERSE);
        d->be->token_bce(d->ctx, &v, &inverse, x, rows, share, (double)s->n, z, dx, drows, loss);
    }
    d->be->token_scores(d->ctx, x, rows, v.target, s->parts[PN_PART_TOKEN_BEGIN].dev, s->n, net->k, s->parts[PN_PART_SCORES].dev);
}
