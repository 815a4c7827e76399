#include "ps/apply.h"
#include <string.h>
#include "ps/changes.h"

/* Rows between two looks at the cost. Those that come from a second tier are looked for together, by two threads. */
#define PIECE 512u
#define TIER_PIECE 4096u

void pn_apply_mark(struct pn_shard *s, const struct pn_request *q, const uint64_t slots[PN_SLOTS / 64], const uint64_t *skip) {
    uint64_t id = pn_mix64(q->step ^ pn_mix64(q->producer + 1));
    for (uint32_t slot = 0; slot < PN_SLOTS; slot++) {
        uint64_t bit = 1ull << slot % 64;
        if (!(slots[slot / 64] & bit)) continue;
        pn_window_mark(pn_shard_window(s, q->producer, slot), (uint32_t)q->incarnation, q->step);
        if (skip == NULL || !(skip[slot / 64] & bit)) s->audit[slot] += id;
    }
    struct pn_shard_producer *p = &s->producers[q->producer];
    if (q->step > p->step) p->step = q->step;
    if (q->last) p->finished = 1;
}

enum pn_result pn_apply_rows(struct pn_shard *s, uint32_t t, const uint64_t *keys, const float *values, size_t n, uint64_t step, const uint64_t *skip) {
    const enum pn_result r = pn_table_push(s->tables[t], keys, values, n, step, skip);
    if (r != PN_OK) return r;
    s->counters.rows_pushed += n;
    if (s->changes != NULL && t < s->job.i_dense_table) pn_changes_add(s->changes, t, keys, n, pn_table_rows(s->tables[t]));
    return PN_OK;
}

enum pn_result pn_apply_begin(struct pn_shard *s, struct pn_apply *a) {
    a->any_new = a->any_old = a->begun = false;
    a->pass = 0;
    a->i_part = a->i_key = 0;
    memset(a->skip, 0, sizeof a->skip);
    pn_request_slots(&a->q, a->slots);
    for (uint32_t slot = 0; slot < PN_SLOTS; slot++) {
        if (!(a->slots[slot / 64] >> slot % 64 & 1)) continue;
        switch (pn_window_look(pn_shard_window(s, a->q.producer, slot), (uint32_t)a->q.incarnation, a->q.step)) {
        case PN_WINDOW_FENCED: return PN_FENCED;
        case PN_WINDOW_DUPLICATE:
            a->skip[slot / 64] |= 1ull << slot % 64;
            a->any_old = true;
            break;
        case PN_WINDOW_NEW: a->any_new = true; break;
        }
    }
    if (!a->any_new) a->pass = 2;
    return PN_OK;
}

/* The next part of this pass that has rows left; NULL: the pass is over. */
static const struct pn_part *next_part(const struct pn_shard *s, struct pn_apply *a) {
    for (; a->i_part < a->q.n_parts; a->i_part++, a->i_key = 0) {
        const struct pn_part *p = &a->q.parts[a->i_part];
        if (s->job.tables[p->i_table].explicit_rows == (a->pass == 0) && a->i_key < p->n) return p;
    }
    return NULL;
}

enum pn_result pn_apply_some(struct pn_shard *s, struct pn_apply *a, size_t budget, bool *over) {
    *over = false;
    for (size_t cost = 0; a->pass < 2; a->pass++, a->i_part = a->i_key = 0)
        for (const struct pn_part *p; (p = next_part(s, a)) != NULL;) {
            if (cost >= budget) return PN_OK;
            struct pn_table *t = s->tables[p->i_table];
            const size_t left = p->n - a->i_key, piece = s->job.tables[p->i_table].memory > 0 ? TIER_PIECE : PIECE, most = piece < budget ? piece : budget;
            const size_t n = a->pass == 0 || left < most ? left : most;
            const uint64_t before = pn_table_rows(t), promoted = pn_table_counters(t)->promoted;
            const enum pn_result r = pn_apply_rows(s, p->i_table, p->keys + a->i_key, p->values + a->i_key * s->job.tables[p->i_table].dim, n, a->q.step, a->any_old ? a->skip : NULL);
            if (r == PN_IO || (r != PN_OK && a->begun)) s->broken = true; /* a part of a push is in, or rows are lost: only a restore mends that */
            if (r != PN_OK) return r;
            a->begun = true;
            a->i_key += n;
            cost += n + 15 * (size_t)(pn_table_rows(t) - before) + 31 * (size_t)(pn_table_counters(t)->promoted - promoted);
        }
    *over = true;
    pn_apply_mark(s, &a->q, a->slots, a->any_old ? a->skip : NULL);
    return a->any_old && !a->any_new ? PN_EXISTS : PN_OK;
}
