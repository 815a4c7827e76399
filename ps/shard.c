/* The idea: a message is checked whole before anything is done, and changes the shard through ps/apply.h alone. A large push goes in in slices, each in a turn
 * of its own; between two turns pulls are answered, and whatever else comes waits in line behind the push. */
#include "ps/apply.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "common/mutant.h"
#include "common/tier.h"
#include "ps/table/pages.h"

#define MAX_WAITING 4096u

struct pn_shard_held {
    struct pn_msg *m;
    pn_peer from;
    struct pn_frame frame;
    struct pn_shard_held *next;
};

/* A push whose first slices are in. */
struct pn_shard_push {
    struct pn_shard_held *held;
    struct pn_apply apply;
};

/* ---- opening ---- */
static void back_ahead(struct pn_shard *s);
static void take_turn(struct pn_timer *);
static enum pn_result open_table(struct pn_shard *s, size_t i, struct pn_tiers *tiers, struct pn_error *err) {
    const struct pn_table_spec *spec = &s->job.tables[i];
    if (spec->memory == 0) {
        s->tables[i] = pn_table_open(spec);
    } else {
        struct pn_tier *tier;
        if (tiers == NULL) return pn_fail(err, PN_INVALID, "table %s has a memory limit, and this server has no second tier", spec->name);
        enum pn_result r = tiers->open(tiers, spec->name, pn_table_tier_bytes(spec), &tier, err);
        if (r != PN_OK) return r;
        s->tables[i] = pn_table_open_tiered(spec, tier);
    }
    return s->tables[i] != NULL ? PN_OK : pn_fail(err, PN_NO_MEMORY, "no memory for table %s", spec->name);
}

enum pn_result pn_shard_open(struct pn_shard **out, struct pn_env *env, struct pn_tiers *tiers, const char *job_text, const char *job_id, uint64_t term, uint64_t generation,
                             uint32_t n_producers, uint32_t first_slot, uint32_t last_slot, struct pn_error *err) {
    if (n_producers == 0 || n_producers > PN_MAX_PRODUCERS || first_slot > last_slot || last_slot >= PN_SLOTS || strlen(job_id) >= 64)
        return pn_fail(err, PN_INVALID, "a shard of slots %u-%u for %u producers is not possible", first_slot, last_slot, n_producers);
    struct pn_shard *s = calloc(1, sizeof *s);
    if (s == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory for a shard");
    enum pn_result r = pn_job_parse(&s->job, job_text, strlen(job_text), "job", NULL, NULL, err);
    if (r != PN_OK) {
        free(s);
        return r;
    }
    s->env = env;
    memcpy(s->job_id, job_id, strlen(job_id) + 1);
    s->term = term;
    s->generation = generation;
    s->n_producers = n_producers;
    s->first_slot = first_slot;
    s->last_slot = last_slot;
    s->slice = PN_SHARD_SLICE;
    s->turn = (struct pn_timer){.fire = take_turn, .owner = s};
    s->line_end = &s->line;
    s->windows = calloc((size_t)n_producers * PN_SLOTS, sizeof *s->windows);
    s->ring = calloc((size_t)n_producers * PN_WINDOW_STEPS, sizeof *s->ring);
    for (size_t t = 0; t < s->job.n_tables; t++) s->job.tables[t].optimizer.decay_pace = s->job.consistency == PN_SYNC ? 1 : n_producers;
    bool ok = s->windows != NULL && s->ring != NULL;
    if (!ok) r = pn_fail(err, PN_NO_MEMORY, "no memory for the windows of job %s", job_id);
    if (r == PN_OK && s->job.privacy.rows > 0 && (s->changes = pn_changes_open()) == NULL) r = pn_fail(err, PN_NO_MEMORY, "no memory for the changes of job %s", job_id);
    for (size_t t = 0; t < s->job.n_tables && r == PN_OK; t++) r = open_table(s, t, tiers, err);
    if (r == PN_OK) r = pn_starts_open(&s->starts, env, &s->job, s->tables, err);
    if (r != PN_OK) {
        pn_shard_close(s);
        return r;
    }
    for (size_t t = 0; t < s->job.n_tables; t++) pn_table_preallocate(s->tables[t], s->job.tables[t].preallocate / PN_SLOTS * (last_slot - first_slot + 1));
    back_ahead(s);
    *out = s;
    return PN_OK;
}

static void drop_held(struct pn_shard_held *h) {
    if (h == NULL) return;
    pn_frame_close(&h->frame);
    pn_msg_unref(h->m);
    free(h);
}

static struct pn_shard_held *hold(pn_peer from, struct pn_msg *m, struct pn_frame *f) {
    struct pn_shard_held *h = calloc(1, sizeof *h);
    if (h == NULL) return NULL;
    h->m = pn_msg_ref(m);
    h->from = from;
    h->frame = *f;
    f->zone = NULL; /* the held frame closes it */
    return h;
}

static void drop_push(struct pn_shard_push *p) {
    if (p == NULL) return;
    pn_request_drop(&p->apply.q);
    drop_held(p->held);
    free(p);
}

static struct pn_shard_held *take_from_line(struct pn_shard *s) {
    struct pn_shard_held *h = s->line;
    if (h == NULL) return NULL;
    s->line = h->next;
    if (s->line == NULL) s->line_end = &s->line;
    s->n_line--;
    return h;
}

/* What is under way and what waits behind it is forgotten: nobody had an answer, so it comes again. */
static void drop_line(struct pn_shard *s) {
    pn_timer_stop(s->env, &s->turn);
    drop_push(s->open);
    s->open = NULL;
    while (s->line != NULL) drop_held(take_from_line(s));
}

/* ---- memory ahead of its use ---- */
struct pn_shard_backing { struct pn_work work; struct pn_shard *shard; /* NULL: closed meanwhile */ void *at; size_t n_bytes; };
static void back(struct pn_work *w) {
    struct pn_shard_backing *b = w->owner;
    pn_pages_back(b->at, b->n_bytes);
}
static void backed(struct pn_work *w) {
    struct pn_shard_backing *b = w->owner;
    struct pn_shard *s = b->shard;
    free(b);
    if (s == NULL) return;
    s->backing = NULL;
    back_ahead(s);
}
static void back_ahead(struct pn_shard *s) {
    void *at;
    size_t n_bytes;
    for (size_t t = 0; s->backing == NULL && t < s->job.n_tables; t++) {
        if (!pn_table_ahead(s->tables[t], &at, &n_bytes)) continue;
        struct pn_shard_backing *b = malloc(sizeof *b);
        if (b == NULL) return; /* it comes when it is touched */
        *b = (struct pn_shard_backing){.work = {.run = back, .done = backed, .owner = b, .background = true}, .shard = s, .at = at, .n_bytes = n_bytes};
        s->backing = b;
        pn_work_start(s->env, &b->work);
    }
}

/* ---- rows on their way to the second tier ---- */
struct pn_shard_demotion { struct pn_work work; struct pn_shard *shard; /* NULL: closed meanwhile */ struct pn_table *table; struct pn_demotion *rows; };
static void write_demotion(struct pn_work *w) { pn_demotion_write(((struct pn_shard_demotion *)w->owner)->rows); }
static void demoted(struct pn_work *w) {
    struct pn_shard_demotion *d = w->owner;
    if (d->shard != NULL) d->shard->demotion = NULL;
    pn_table_demoted(d->shard != NULL ? d->table : NULL, d->rows);
    free(d);
}
static uint64_t newest_step(const struct pn_shard *s) {
    uint64_t step = 0;
    for (uint32_t p = 0; p < s->n_producers; p++)
        if (s->producers[p].step > step) step = s->producers[p].step;
    return step;
}
static void demote(struct pn_shard *s) {
    for (size_t t = 0; t < s->job.n_tables; t++) {
        struct pn_table *table = s->tables[t];
        if (s->job.tables[t].memory == 0) continue;
        if ((s->demotion != NULL || s->forget_waits) && !pn_table_crowded(table)) continue;
        struct pn_demotion *rows = pn_table_demote(table, &s->demote_slot[t], newest_step(s));
        if (rows == NULL) continue;
        struct pn_shard_demotion *d = s->demotion == NULL && !s->forget_waits ? malloc(sizeof *d) : NULL;
        if (d == NULL) { /* rows come faster than they can go beside the requests: the limit comes first */
            pn_demotion_write(rows);
            pn_table_demoted(table, rows);
            continue;
        }
        *d = (struct pn_shard_demotion){.work = {.run = write_demotion, .done = demoted, .owner = d}, .shard = s, .table = table, .rows = rows};
        s->demotion = d;
        pn_work_start(s->env, &d->work);
    }
}

void pn_shard_close(struct pn_shard *s) {
    if (s == NULL) return;
    if (s->demotion != NULL) s->demotion->shard = NULL;
    if (s->backing != NULL) s->backing->shard = NULL;
    drop_line(s);
    while (s->waiting != NULL) {
        struct pn_shard_held *h = s->waiting;
        s->waiting = h->next;
        drop_held(h);
    }
    if (s->ring != NULL)
        for (size_t i = 0; i < (size_t)s->n_producers * PN_WINDOW_STEPS; i++) drop_held(s->ring[i]);
    for (size_t t = 0; t < s->job.n_tables; t++)
        if (s->tables[t] != NULL) pn_table_close(s->tables[t]);
    pn_starts_close(s->starts);
    pn_changes_close(s->changes);
    free(s->ring);
    free(s->windows);
    pn_job_free(&s->job);
    free(s);
}

enum pn_result pn_shard_forget(struct pn_shard *s, const uint32_t *tables, const uint64_t *keys, size_t n, uint64_t *removed) {
    for (size_t i = 0; i < n; i++)
        if (tables[i] >= s->job.n_tables || s->job.tables[tables[i]].explicit_rows) return PN_INVALID;
    for (size_t i = 0; i < n; i++) {
        if (!pn_shard_owns(s, keys[i])) continue;
        const enum pn_result r = pn_table_forget(s->tables[tables[i]], &keys[i], 1, removed);
        if (r == PN_OK && s->changes != NULL) pn_changes_add(s->changes, tables[i], &keys[i], 1, pn_table_rows(s->tables[tables[i]])); /* copies are told, too */
        if (r == PN_OK) continue;
        s->broken = s->broken || r == PN_IO;
        s->forget_waits = r == PN_BUSY;
        return r; /* all of them again: what is forgotten is so twice */
    }
    s->forget_waits = false;
    return PN_OK;
}

/* ---- answers ---- */
void pn_shard_refuse(struct pn_env *env, pn_peer to, uint64_t term, uint64_t request, enum pn_result code, const char *text) {
    struct pn_writer w;
    uint8_t *body;
    pn_write_start(&w, PN_REFUSAL, term, request);
    pn_write_str(&w, "code", pn_result_name(code));
    pn_write_str(&w, "text", text);
    struct pn_msg *m = pn_write_finish(&w, env, 0, &body);
    if (m == NULL) return; /* the asker asks again */
    pn_msg_seal(m);
    pn_send(env, to, m);
}

static void refuse(struct pn_shard *s, pn_peer to, const struct pn_frame *f, enum pn_result code, const char *text) {
    s->counters.refused++;
    pn_shard_refuse(s->env, to, s->term, f->request, code, text);
}

static void acknowledge(struct pn_shard *s, pn_peer to, uint64_t request, uint64_t step) {
    struct pn_writer w;
    uint8_t *body;
    pn_write_start(&w, PN_ACK, s->term, request);
    pn_write_u64(&w, "step", step);
    pn_write_str(&w, "level", "applied");
    struct pn_msg *m = pn_write_finish(&w, s->env, 0, &body);
    if (m == NULL) return;
    pn_msg_seal(m);
    pn_send(s->env, to, m);
}

/* One slot's turn for each step: in bounded pieces, and in sync mode the same on every server that has the same steps. */
static void evict(struct pn_shard *s, uint64_t turn) {
    const uint64_t step = newest_step(s);
    for (size_t t = 0; t < s->job.n_tables; t++) pn_table_evict(s->tables[t], (uint32_t)(turn % PN_SLOTS), step);
}

/* ---- sync: all producers' pushes of one step become one ---- */

struct cursor { const struct pn_part *part; size_t at; };

/* Sums the producers' gradients of table t by key, in the order of producers. Sizes are bounded by the held messages. */
static enum pn_result push_sum(struct pn_shard *s, const struct pn_request *all, uint32_t n, uint32_t t, uint64_t step, const uint64_t *skip) {
    struct cursor c[PN_MAX_PRODUCERS];
    size_t most = 0, n_cursors = 0, dim = s->job.tables[t].dim;
    for (uint32_t p = 0; p < n; p++)
        for (size_t i = 0; i < all[p].n_parts; i++)
            if (all[p].parts[i].i_table == t && all[p].parts[i].n > 0) {
                c[n_cursors++] = (struct cursor){&all[p].parts[i], 0};
                most += all[p].parts[i].n;
            }
    if (most == 0) return PN_OK;
    uint64_t *keys = malloc(most * sizeof *keys);
    float *sums = malloc(most * dim * sizeof *sums);
    enum pn_result r = PN_NO_MEMORY;
    if (keys != NULL && sums != NULL) {
        size_t n_keys = 0;
        for (;;) {
            uint64_t least = 0, least_mix = 0;
            bool any = false;
            for (size_t i = 0; i < n_cursors; i++) {
                if (c[i].at >= c[i].part->n) continue;
                const uint64_t mix = pn_mix64(c[i].part->keys[c[i].at]);
                if (any && mix >= least_mix) continue;
                least = c[i].part->keys[c[i].at];
                least_mix = mix;
                any = true;
            }
            if (!any) break;
            float *sum = sums + n_keys * dim;
            bool first = true;
            for (size_t i = 0; i < n_cursors; i++) {
                if (c[i].at >= c[i].part->n || c[i].part->keys[c[i].at] != least) continue;
                const float *g = c[i].part->values + c[i].at++ * dim;
                for (size_t d = 0; d < dim; d++) sum[d] = first ? g[d] : sum[d] + g[d];
                first = false;
            }
            keys[n_keys++] = least;
        }
        r = pn_apply_rows(s, t, keys, sums, n_keys, step, skip);
    }
    free(keys);
    free(sums);
    return r;
}

static struct pn_shard_held **ring_at(struct pn_shard *s, uint64_t producer, uint64_t step) {
    return &s->ring[producer * PN_WINDOW_STEPS + step % PN_WINDOW_STEPS];
}

/* Applies the next step if the pushes of all unfinished producers are there. all[0, *n) is to be dropped by the caller. */
static bool sync_one(struct pn_shard *s, struct pn_request *all, uint32_t *n_read) {
    const uint64_t step = s->sync_step + 1;
    uint32_t n = 0, open = 0;
    for (uint32_t p = 0; p < s->n_producers; p++) {
        if (s->producers[p].finished) continue;
        open++;
        struct pn_shard_held *h = *ring_at(s, p, step);
        if (h == NULL) return false;
        /* It was checked when it came; the fields are read again because the frame is kept, not the request. */
        struct pn_request *q = &all[n++];
        *n_read = n;
        if (pn_request_read(s, &h->frame, q, true, true) != NULL || !pn_frame_u64(&h->frame, "step", &q->step) || q->step != step) return false;
        pn_frame_u64(&h->frame, "producer", &q->producer);
        pn_frame_u64(&h->frame, "incarnation", &q->incarnation);
        pn_frame_u64(&h->frame, "last", &q->last);
    }
    if (open == 0) return false;
    /* A slot that has this step already: it came from a file of a shard that was ahead of the others. */
    uint64_t slots[PN_SLOTS / 64], skip[PN_SLOTS / 64] = {0};
    for (uint32_t i = 0; i < n; i++) {
        pn_request_slots(&all[i], slots);
        for (uint32_t slot = 0; slot < PN_SLOTS; slot++)
            if ((slots[slot / 64] >> slot % 64 & 1) && pn_window_look(pn_shard_window(s, all[i].producer, slot), UINT32_MAX, step) == PN_WINDOW_DUPLICATE)
                skip[slot / 64] |= 1ull << slot % 64;
    }
    bool applied = false;
    for (int pass = 0; pass < 2; pass++)
        for (uint32_t t = 0; t < s->job.n_tables; t++) {
            if (s->job.tables[t].explicit_rows != (pass == 0)) continue;
            enum pn_result r = push_sum(s, all, n, t, step, skip);
            if (r == PN_NOT_SEEDED) { /* nothing is in yet: refuse all, they come again behind the seed */
                for (uint32_t i = 0; i < n; i++) {
                    struct pn_shard_held **at = ring_at(s, all[i].producer, step), *h = *at;
                    refuse(s, h->from, &h->frame, r, "the dense parameters have no values yet");
                    *at = NULL;
                    drop_held(h);
                }
                return false;
            }
            if (r != PN_OK) {
                s->broken = s->broken || applied || r == PN_IO;
                return false; /* no memory: the pushes stay held */
            }
            applied = true;
        }
    s->sync_step = step;
    for (uint32_t i = 0; i < n; i++) {
        pn_request_slots(&all[i], slots);
        pn_apply_mark(s, &all[i], slots, skip);
    }
    evict(s, step);
    for (uint32_t i = 0; i < n; i++) {
        struct pn_shard_held **at = ring_at(s, all[i].producer, step), *h = *at;
        acknowledge(s, h->from, h->frame.request, step);
        *at = NULL;
        drop_held(h);
    }
    return true;
}

/* Step after step. */
static void sync_advance(struct pn_shard *s) {
    for (bool more = true; more;) {
        struct pn_request all[PN_MAX_PRODUCERS];
        uint32_t n = 0;
        more = sync_one(s, all, &n);
        for (uint32_t i = 0; i < n; i++) pn_request_drop(&all[i]);
    }
}

enum pn_result pn_shard_apply_sum(struct pn_shard *s, uint64_t step, bool last, const struct pn_shard_sum *parts, size_t n_parts) {
    if (step <= s->sync_step) return PN_EXISTS;
    if (step != s->sync_step + 1 || s->broken) return PN_INVALID;
    bool applied = false;
    for (int pass = 0; pass < 2; pass++) /* the weights first: without their first values nothing is done */
        for (size_t i = 0; i < n_parts; i++) {
            if (s->job.tables[parts[i].i_table].explicit_rows != (pass == 0) || parts[i].n == 0) continue;
            const enum pn_result r = pn_apply_rows(s, parts[i].i_table, parts[i].keys, parts[i].values, parts[i].n, step, NULL);
            if (r != PN_OK) {
                s->broken = s->broken || applied || r == PN_IO;
                return r;
            }
            applied = true;
        }
    s->sync_step = step;
    for (uint32_t p = 0; p < s->n_producers; p++) {
        s->producers[p].step = s->producers[p].clock = step;
        s->producers[p].finished = last;
    }
    s->counters.pushes++;
    back_ahead(s);
    return PN_OK;
}

/* ---- pulls ---- */
static uint64_t slowest(const struct pn_shard *s) {
    uint64_t least = UINT64_MAX;
    for (uint32_t p = 0; p < s->n_producers; p++)
        if (!s->producers[p].finished && s->producers[p].clock < least) least = s->producers[p].clock;
    return least;
}

static void answer_pull(struct pn_shard *s, pn_peer from, const struct pn_frame *f, const struct pn_request *q) {
    uint64_t tables[PN_MAX_TABLES], counts[PN_MAX_TABLES];
    size_t bytes = 0;
    for (size_t i = 0; i < q->n_parts; i++) {
        tables[i] = q->parts[i].i_table;
        counts[i] = q->parts[i].n;
        bytes += pn_pad8(q->parts[i].n * pn_codec_row_bytes(pn_job_codec(&s->job, tables[i]), s->job.tables[tables[i]].dim));
    }
    struct pn_writer w;
    uint8_t *body;
    pn_write_start(&w, PN_ROWS, s->term, f->request);
    pn_write_u64s(&w, "tables", tables, q->n_parts);
    pn_write_u64s(&w, "counts", counts, q->n_parts);
    struct pn_msg *m = pn_write_finish(&w, s->env, bytes, &body);
    if (m == NULL) {
        refuse(s, from, f, PN_INVALID, "the answer would be larger than a frame may be, or memory is out: ask for fewer rows");
        return;
    }
    for (size_t i = 0; i < q->n_parts; i++) {
        const enum pn_codec codec = pn_job_codec(&s->job, tables[i]);
        size_t row_bytes = q->parts[i].n * pn_codec_row_bytes(codec, s->job.tables[tables[i]].dim);
        size_t missing = pn_table_pull_as(s->tables[tables[i]], codec, q->parts[i].keys, q->parts[i].n, body);
        if (missing == SIZE_MAX) {
            pn_msg_unref(m);
            s->broken = true;
            refuse(s, from, f, PN_IO, "the second tier failed, or memory is out: the server comes back from the last checkpoint");
            return;
        }
        if (missing > 0 && s->job.tables[tables[i]].explicit_rows) { /* zeros would be taken for weights */
            pn_msg_unref(m);
            refuse(s, from, f, PN_NOT_SEEDED, "the dense parameters have no values yet");
            return;
        }
        memset(body + row_bytes, 0, pn_pad8(row_bytes) - row_bytes);
        body += pn_pad8(row_bytes);
        s->counters.rows_pulled += q->parts[i].n;
        s->counters.rows_missing += missing;
    }
    pn_msg_seal(m);
    pn_send(s->env, from, m);
    s->counters.pulls++;
}

static bool too_early(const struct pn_shard *s, uint64_t clock) {
    if (s->job.consistency == PN_SYNC) return clock > s->sync_step; /* being brought up again: the asker has seen more than this shard has */
    return s->job.consistency == PN_SSP && clock > s->job.staleness && slowest(s) < clock - s->job.staleness;
}

static void hold_back(struct pn_shard *s, pn_peer from, struct pn_msg *m, struct pn_frame *f) {
    for (struct pn_shard_held *h = s->waiting; h != NULL; h = h->next)
        if (h->from == from && h->frame.request == f->request) return; /* asked again: it waits already */
    struct pn_shard_held *h = s->n_waiting < MAX_WAITING ? hold(from, m, f) : NULL;
    if (h == NULL) {
        refuse(s, from, f, PN_BUSY, "too many pulls wait for the slowest producer");
        return;
    }
    s->counters.held++;
    s->n_waiting++;
    h->next = s->waiting;
    s->waiting = h;
}

static void on_pull(struct pn_shard *s, pn_peer from, struct pn_msg *m, struct pn_frame *f) {
    struct pn_request q;
    const char *wrong = pn_request_read(s, f, &q, false, false);
    uint64_t producer = UINT64_MAX, clock = 0;
    if (wrong != NULL) {
        refuse(s, from, f, PN_INVALID, wrong);
        return;
    }
    /* A reader without a producer (evaluation) never waits. */
    if (pn_frame_u64(f, "producer", &producer) && producer < s->n_producers && pn_frame_u64(f, "clock", &clock) && clock > s->producers[producer].clock)
        s->producers[producer].clock = clock;
    if (!too_early(s, clock)) {
        answer_pull(s, from, f, &q);
        return;
    }
    if (q.n_parts > 0) hold_back(s, from, m, f); /* else it only tells a clock */
}

/* Never held for the slowest: the worker has pulled its weights at the same clock before, and a copy that is brought up to date serves all of its producers. */
static bool changes_too_early(const struct pn_shard *s, uint64_t clock) { return s->job.consistency == PN_SYNC && clock > s->sync_step; }

static void answer_changes(struct pn_shard *s, pn_peer from, const struct pn_frame *f) {
    const char *why = "the workers of this job keep no copies of rows";
    uint64_t n_rows = 0;
    struct pn_msg *m = s->changes == NULL ? NULL : pn_changes_answer(s->changes, s->env, &s->job, s->tables, s->first_slot, s->last_slot, s->term, f, &n_rows, &why);
    if (m == NULL) {
        refuse(s, from, f, PN_INVALID, why);
        return;
    }
    pn_send(s->env, from, m);
    s->counters.pulls++;
    s->counters.rows_pulled += n_rows;
}

static void on_changes(struct pn_shard *s, pn_peer from, struct pn_msg *m, struct pn_frame *f) {
    uint64_t clock = 0;
    pn_frame_u64(f, "clock", &clock);
    if (changes_too_early(s, clock)) hold_back(s, from, m, f);
    else answer_changes(s, from, f);
}

static void answer_waiting(struct pn_shard *s) {
    for (struct pn_shard_held **at = &s->waiting; *at != NULL;) {
        struct pn_shard_held *h = *at;
        uint64_t clock = 0;
        struct pn_request q;
        pn_frame_u64(&h->frame, "clock", &clock);
        const bool changes = h->frame.kind == PN_CHANGES;
        if (changes ? changes_too_early(s, clock) : too_early(s, clock)) {
            at = &h->next;
            continue;
        }
        if (changes) answer_changes(s, h->from, &h->frame);
        else if (pn_request_read(s, &h->frame, &q, false, false) == NULL) answer_pull(s, h->from, &h->frame, &q);
        *at = h->next;
        s->n_waiting--;
        drop_held(h);
    }
}

/* ---- pushes ---- */
/* The push has gone in, or will not. */
static void pushed(struct pn_shard *s, pn_peer to, const struct pn_frame *f, const struct pn_request *q, enum pn_result r) {
    if (r == PN_OK || r == PN_EXISTS) {
        s->counters.pushes++;
        if (r == PN_EXISTS) s->counters.duplicates++;
#if PN_MUTANT != 2
        acknowledge(s, to, f->request, q->step);
#else
        (void)q;
#endif
        evict(s, s->counters.pushes);
    } else {
        refuse(s, to, f, r, r == PN_FENCED ? "a newer incarnation of this producer is at work"
                            : r == PN_NOT_SEEDED ? "the dense parameters have no values yet" : "the server is out of memory");
    }
    if (s->waiting != NULL) answer_waiting(s);
}

/* The open push's next slice. */
static void go_on(struct pn_shard *s, size_t budget) {
    struct pn_shard_push *p = s->open;
    bool over;
    const enum pn_result r = pn_apply_some(s, &p->apply, budget, &over);
    if (r == PN_OK && !over) return;
    s->open = NULL;
    pushed(s, p->held->from, &p->held->frame, &p->apply.q, r);
    drop_push(p);
    if (s->broken) drop_line(s);
}

void pn_shard_settle(struct pn_shard *s) {
    if (s->open != NULL) go_on(s, SIZE_MAX);
}

/* The first slice of a push; what is left of it stays open, and takes over q's parts and the frame. */
static void apply_push(struct pn_shard *s, pn_peer from, struct pn_msg *m, struct pn_frame *f, struct pn_apply *a, const char *wrong) {
    struct pn_request *q = &a->q;
    if (wrong == NULL && s->job.privacy.secure) wrong = "this job's updates come as secure sums alone; a push would be one worker's in the clear";
    if (wrong == NULL && (!pn_frame_u64(f, "producer", &q->producer) || q->producer >= s->n_producers)) wrong = "no such producer";
    if (wrong == NULL && (!pn_frame_u64(f, "incarnation", &q->incarnation) || q->incarnation > UINT32_MAX)) wrong = "no incarnation";
    if (wrong == NULL && (!pn_frame_u64(f, "step", &q->step) || q->step == 0)) wrong = "no step";
    if (wrong == NULL && (!pn_frame_u64(f, "clock", &q->clock) || !pn_frame_u64(f, "last", &q->last))) wrong = "no clock";
    if (wrong != NULL) {
        refuse(s, from, f, PN_INVALID, wrong);
        return;
    }
    if (!pn_request_finite(s, q)) {
        s->counters.poison++;
        refuse(s, from, f, PN_INVALID, "poison: a gradient is not a finite number; the push was not applied");
        return;
    }
    struct pn_shard_producer *p = &s->producers[q->producer];
    if (q->incarnation < p->incarnation) {
        refuse(s, from, f, PN_FENCED, "a newer incarnation of this producer is at work");
        return;
    }
    p->incarnation = (uint32_t)q->incarnation;
    if (q->clock > p->clock) p->clock = q->clock;
    if (s->job.consistency == PN_SYNC) {
        if (q->step <= s->sync_step || p->finished) {
            s->counters.duplicates++;
            acknowledge(s, from, f->request, q->step);
        } else if (q->step > s->sync_step + PN_WINDOW_STEPS) {
            refuse(s, from, f, PN_INVALID, "more than 64 steps ahead");
        } else {
            struct pn_shard_held *h = hold(from, m, f), **at = ring_at(s, q->producer, q->step);
            if (h == NULL) return; /* it comes again */
            drop_held(*at);
            *at = h;
            sync_advance(s);
            if (s->waiting != NULL) answer_waiting(s);
        }
        return;
    }
#if PN_MUTANT == 2 /* acknowledged before applied: what a full moment later refuses is lost */
    acknowledge(s, from, f->request, q->step);
    if (pn_mix64(q->step) % 64 == 0) return;
#endif
    bool over = false;
    enum pn_result r = pn_apply_begin(s, a);
    if (r == PN_OK) r = pn_apply_some(s, a, s->slice, &over);
    if (r == PN_OK && !over) {
        struct pn_shard_push *p = malloc(sizeof *p);
        struct pn_shard_held *h = p != NULL ? hold(from, m, f) : NULL;
        if (h != NULL) {
            *p = (struct pn_shard_push){h, *a};
            q->n_parts = 0;
            s->open = p;
#if PN_MUTANT == 9 /* acknowledged with its first slice; and the cut (checkpoint.c) does not wait for the last */
            acknowledge(s, from, h->frame.request, q->step);
#endif
            return;
        }
        free(p);
        r = pn_apply_some(s, a, SIZE_MAX, &over); /* no memory to stop in the middle */
    }
    pushed(s, from, f, q, r);
}

static void on_push(struct pn_shard *s, pn_peer from, struct pn_msg *m, struct pn_frame *f) {
    struct pn_apply a;
    const char *wrong = pn_request_read(s, f, &a.q, true, true);
    apply_push(s, from, m, f, &a, wrong);
    pn_request_drop(&a.q);
}

static void apply_seed(struct pn_shard *s, pn_peer from, struct pn_frame *f, const struct pn_request *q, const char *wrong) {
    if (wrong == NULL && !pn_request_finite(s, q)) wrong = "a value is not a finite number";
    if (wrong != NULL) {
        refuse(s, from, f, PN_INVALID, wrong);
        return;
    }
    for (size_t i = 0; i < q->n_parts; i++)
        if (pn_table_seed(s->tables[q->parts[i].i_table], q->parts[i].keys, q->parts[i].values, q->parts[i].n) != PN_OK) {
            refuse(s, from, f, PN_NO_MEMORY, "the server is out of memory"); /* what was seeded stays: seeding again is harmless */
            return;
        }
    s->counters.seeds++;
    acknowledge(s, from, f->request, 0);
}

static void on_seed(struct pn_shard *s, pn_peer from, struct pn_frame *f) {
    struct pn_request q;
    const char *wrong = pn_request_read(s, f, &q, true, false);
    apply_seed(s, from, f, &q, wrong);
    pn_request_drop(&q);
}

/* ---- messages and turns ---- */
static void dispatch(struct pn_shard *s, pn_peer from, struct pn_msg *m, struct pn_frame *f) {
    char id[64];
    if (!pn_frame_str(f, "job", id, sizeof id) || strcmp(id, s->job_id) != 0) {
        refuse(s, from, f, PN_STALE_TERM, "this server works for another job");
        return;
    }
#if PN_MUTANT != 7 /* term check missing */
    if (f->term != s->term) {
        refuse(s, from, f, PN_STALE_TERM, "the shard map has moved on");
        return;
    }
#endif
    switch (f->kind) {
    case PN_PULL: on_pull(s, from, m, f); break;
    case PN_PUSH: on_push(s, from, m, f); break;
    case PN_SEED: on_seed(s, from, f); break;
    case PN_CHANGES: on_changes(s, from, m, f); break;
    default: break;
    }
    if (f->kind == PN_PULL && s->waiting != NULL) answer_waiting(s);
    if (f->kind != PN_PULL && f->kind != PN_CHANGES) {
        back_ahead(s);
        if (s->open == NULL) demote(s);
    }
}

/* Behind an open push only pulls go on, and of those only the ones whose sender has nothing of its own before them. */
static bool must_wait(const struct pn_shard *s, pn_peer from, const struct pn_frame *f) {
    if (s->open == NULL && s->line == NULL) return false;
    if (f->kind != PN_PULL || (s->open != NULL && s->open->held->from == from)) return true;
    for (const struct pn_shard_held *h = s->line; h != NULL; h = h->next)
        if (h->from == from) return true;
    return false;
}

static void next_turn(struct pn_shard *s) {
    if (!s->broken && !s->turn.active && (s->open != NULL || s->line != NULL)) pn_timer_start(s->env, &s->turn, 0);
}

static void take_turn(struct pn_timer *t) {
    struct pn_shard *s = t->owner;
    if (s->open != NULL) {
        go_on(s, s->slice);
        back_ahead(s);
        if (s->open == NULL) demote(s); /* once a push: it looks through many slots */
    } else {
        struct pn_shard_held *h = take_from_line(s);
        if (h != NULL) dispatch(s, h->from, h->m, &h->frame);
        drop_held(h);
    }
    next_turn(s);
}

void pn_shard_message(struct pn_shard *s, pn_peer from, struct pn_msg *m, struct pn_frame *f) {
    if (must_wait(s, from, f)) {
        struct pn_shard_held *h = s->n_line < MAX_WAITING ? hold(from, m, f) : NULL;
        if (h == NULL) return; /* it comes again */
        *s->line_end = h;
        s->line_end = &h->next;
        s->n_line++;
    } else {
        dispatch(s, from, m, f);
    }
    next_turn(s);
}
