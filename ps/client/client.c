/* The idea: every request stands in a list until it is answered; one tick sends again what waits too long. A push stays in its producer's ring
 * until a committed checkpoint holds it, with a bit a shard for "acknowledged"; a shard with a new term has forgotten, so its bits are cleared and
 * the ring is sent to it again, in order, never more than 64 steps ahead of the first that it has not acknowledged. */
#include "ps/client/client.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "common/mutant.h"

#define TICK_MS 50u
#define RETRY_MS 250u
#define RETRY_MAX_MS 2000u

struct split;

/* One message to one shard. */
struct leg {
    struct pn_msg *m;       /* NULL: nothing goes to this shard */
    uint64_t term;          /* that it is sealed with */
    uint64_t sent_ns;       /* 0: not sent yet */
    uint32_t attempts;
    bool answered;
};

struct pull {
    struct pull *next;
    uint64_t sequence;
    struct pn_client_part parts[PN_MAX_TABLES];
    size_t n_parts;
    struct split *splits;                /* n_parts */
    struct leg legs[PN_MAX_SHARDS];
    size_t n_open;
    void (*done)(void *, enum pn_result);
    void *owner;
};

struct push {
    struct push *next;      /* in order of step */
    uint64_t sequence, step;
    struct leg legs[PN_MAX_SHARDS];
    size_t n_bytes;
    bool reported;
    void (*done)(void *, enum pn_result);
    void *owner;
};

struct producer {
    struct producer *next;
    uint32_t id, incarnation;
    uint64_t next_step, clock, committed;
    struct push *ring, **ring_end;
    struct push *open[PN_MAX_SHARDS]; /* the first that a shard has not acknowledged: all work is near it, however long the ring */
    size_t ring_bytes;
    bool fenced;
};

struct pn_client {
    struct pn_env *env;
    const struct pn_job *job;
    char job_id[64];
    struct pn_shard_map map;
    bool slots_rise;        /* the map's shards own slots in rising order */
    pn_peer peers[PN_MAX_SHARDS];
    uint64_t sequence;
    struct pull *pulls;
    struct push *seeds;
    struct producer *producers;
    struct pn_timer tick;
    struct pn_client_counters counters;
    unsigned reporting;     /* callbacks under way: close waits for them before it frees */
    bool closed;
};

static void pump(struct pn_client *c);

/* ---- legs ---- */
static uint64_t request_id(uint64_t sequence, uint32_t shard) { return sequence << 6 | shard; }

static bool due(const struct pn_client *c, const struct leg *l) {
    if (l->sent_ns == 0) return true;
    uint64_t wait = (uint64_t)RETRY_MS << (l->attempts > 4 ? 4 : l->attempts);
    if (wait > RETRY_MAX_MS) wait = RETRY_MAX_MS;
    return c->env->ops->now_ns(c->env) >= l->sent_ns + wait * 1000000u; /* sent_ns may be 1 ahead of now */
}

/* Sends or sends again; a message that was out under an older term is copied, for a sent one must not change. */
static void send_leg(struct pn_client *c, struct leg *l, uint32_t shard) {
    uint64_t term = c->map.shards[shard].term;
    if (term == 0 || c->peers[shard] == 0) return;
    if (l->term != term) {
        struct pn_msg *m = l->m;
        if (l->sent_ns != 0 || l->attempts > 0 || m->refs > 1) {
            m = c->env->ops->message(c->env, l->m->n_bytes);
            if (m == NULL) return;
            memcpy(m->data, l->m->data, m->n_bytes);
            pn_msg_unref(l->m);
            l->m = m;
        }
        memcpy(m->data + 8, &term, 8); /* the envelope's term */
        pn_msg_seal(m);
        l->term = term;
    }
    if (l->sent_ns != 0) {
        l->attempts++;
        c->counters.retries++;
    }
    l->sent_ns = c->env->ops->now_ns(c->env) | 1;
    pn_send(c->env, c->peers[shard], pn_msg_ref(l->m));
}

static void free_legs(struct leg *legs) {
    for (uint32_t i = 0; i < PN_MAX_SHARDS; i++) pn_msg_unref(legs[i].m);
}

/* ---- splitting by shard ---- */
struct ranked { uint64_t mix; uint32_t i; };
static int by_mix(const void *a, const void *b) {
    uint64_t x = ((const struct ranked *)a)->mix, y = ((const struct ranked *)b)->mix;
    return (x > y) - (x < y);
}

/* Keys in the order of pn_unique stand by slot, so a shard's are one piece where its slots are: begin[s] to begin[s + 1]. */
static bool in_order(const struct pn_client *c, const struct pn_client_part *part, uint32_t *begin) {
    if (!c->slots_rise) return false;
    uint64_t last = 0;
    uint32_t shard = 0;
    begin[0] = 0;
    for (size_t k = 0; k < part->n_keys; k++) {
        const uint64_t mix = pn_mix64(part->keys[k]);
        if (k > 0 && mix < last) return false;
        last = mix;
        for (const uint32_t owner = c->map.owner[mix >> 54]; shard < owner;) begin[++shard] = (uint32_t)k;
    }
    while (shard < c->map.n_shards) begin[++shard] = (uint32_t)part->n_keys;
    return true;
}

/* Any other order: the places of the keys, shard by shard, in the order of the wire. */
static uint32_t *put_in_order(const struct pn_client *c, const struct pn_client_part *part, uint32_t *begin) {
    struct ranked *r = malloc((part->n_keys + 1) * sizeof *r);
    uint32_t *order = malloc((part->n_keys + 1) * sizeof *order), at[PN_MAX_SHARDS + 1] = {0};
    if (r == NULL || order == NULL) {
        free(r);
        free(order);
        return NULL;
    }
    for (size_t k = 0; k < part->n_keys; k++) {
        r[k] = (struct ranked){pn_mix64(part->keys[k]), (uint32_t)k};
        at[c->map.owner[r[k].mix >> 54] + 1]++;
    }
    qsort(r, part->n_keys, sizeof *r, by_mix);
    for (uint32_t s = 0; s < c->map.n_shards; s++) at[s + 1] += at[s];
    memcpy(begin, at, (c->map.n_shards + 1) * sizeof *begin);
    for (size_t k = 0; k < part->n_keys; k++) order[at[c->map.owner[r[k].mix >> 54]]++] = r[k].i;
    free(r);
    return order;
}

/* Where the keys of each part lie: in one piece a shard, or by `order`. */
struct split { uint32_t begin[PN_MAX_SHARDS + 1]; uint32_t *order; };

static void free_splits(struct split *splits, size_t n) {
    for (size_t p = 0; p < n; p++) free(splits[p].order);
}

static bool split_parts(const struct pn_client *c, const struct pn_client_part *parts, size_t n_parts, struct split *splits) {
    for (size_t p = 0; p < n_parts; p++) {
        splits[p].order = NULL;
        if (in_order(c, &parts[p], splits[p].begin) || (splits[p].order = put_in_order(c, &parts[p], splits[p].begin)) != NULL) continue;
        free_splits(splits, p);
        return false;
    }
    return true;
}

/* Where the row of the k-th key of a part (in the order of the wire) lies in the caller's array. */
static float *row_of(const struct pn_client_part *part, const uint32_t *order, size_t k, size_t dim) {
    if (order != NULL) k = order[k];
    return part->rows + (part->places != NULL ? part->places[k] : k) * dim;
}

static size_t row_bytes_of(const struct pn_client *c, uint32_t i_table) { return pn_codec_row_bytes(pn_job_codec(c->job, i_table), c->job->tables[i_table].dim); }

/* Makes one message a shard out of the parts. values: rows go along (push, seed). */
static bool build(struct pn_client *c, enum pn_kind kind, uint64_t sequence, const struct pn_client_part *parts, const struct split *splits, size_t n_parts,
                  bool values, bool to_all, void (*more)(struct pn_writer *, void *), void *ctx, struct leg *legs, size_t *total_bytes) {
    for (uint32_t s = 0; s < c->map.n_shards; s++) {
        uint64_t tables[PN_MAX_TABLES], counts[PN_MAX_TABLES];
        size_t bytes = 0, n_keys = 0;
        for (size_t p = 0; p < n_parts; p++) {
            tables[p] = parts[p].i_table;
            counts[p] = splits[p].begin[s + 1] - splits[p].begin[s];
            n_keys += counts[p];
            bytes += counts[p] * 8 + (values ? pn_pad8(counts[p] * row_bytes_of(c, parts[p].i_table)) : 0);
        }
        if (n_keys == 0 && !to_all) continue;
        struct pn_writer w;
        uint8_t *body;
        pn_write_start(&w, kind, c->map.shards[s].term, request_id(sequence, s));
        pn_write_str(&w, "job", c->job_id);
        more(&w, ctx);
        pn_write_u64s(&w, "tables", tables, n_parts);
        pn_write_u64s(&w, "counts", counts, n_parts);
        struct pn_msg *m = pn_write_finish(&w, c->env, bytes, &body);
        if (m == NULL) return false;
        for (size_t p = 0; p < n_parts; p++) {
            const size_t dim = c->job->tables[parts[p].i_table].dim, row_bytes = row_bytes_of(c, parts[p].i_table), n = counts[p], first = splits[p].begin[s];
            const uint32_t *order = splits[p].order;
            const enum pn_codec codec = pn_job_codec(c->job, parts[p].i_table);
            if (order == NULL && n > 0) memcpy(body, parts[p].keys + first, n * 8);
            for (size_t k = 0; order != NULL && k < n; k++) memcpy(body + k * 8, &parts[p].keys[order[first + k]], 8);
            body += n * 8;
            if (!values) continue;
            if (order == NULL && parts[p].places == NULL && n > 0) pn_codec_encode(codec, parts[p].rows + first * dim, n, dim, body);
            else for (size_t k = 0; k < n; k++) pn_codec_encode(codec, row_of(&parts[p], order, first + k, dim), 1, dim, body + k * row_bytes);
            memset(body + n * row_bytes, 0, pn_pad8(n * row_bytes) - n * row_bytes);
            body += pn_pad8(n * row_bytes);
        }
        pn_msg_seal(m);
        legs[s] = (struct leg){.m = m, .term = c->map.shards[s].term};
        if (total_bytes != NULL) *total_bytes += m->n_bytes;
    }
    return true;
}

/* ---- opening and the map ---- */
/* ssp: others wait for a producer's clock, also while it has nothing to send. An empty pull carries it; its answer is ignored. */
static void announce_clocks(struct pn_client *c) {
    for (struct producer *p = c->producers; p != NULL; p = p->next)
        for (uint32_t s = 0; s < c->map.n_shards; s++) {
            struct pn_writer w;
            uint8_t *body;
            pn_write_start(&w, PN_PULL, c->map.shards[s].term, s);
            pn_write_str(&w, "job", c->job_id);
            pn_write_u64(&w, "producer", p->id);
            pn_write_u64(&w, "clock", p->clock);
            pn_write_u64s(&w, "tables", NULL, 0);
            pn_write_u64s(&w, "counts", NULL, 0);
            struct pn_msg *m = pn_write_finish(&w, c->env, 0, &body);
            if (m == NULL) continue;
            pn_msg_seal(m);
            pn_send(c->env, c->peers[s], m);
        }
}

static void tick(struct pn_timer *t) {
    struct pn_client *c = t->owner;
    pn_timer_start(c->env, t, TICK_MS);
    if (c->job->consistency == PN_SSP && c->map.n_shards > 0) announce_clocks(c);
    pump(c);
}

struct pn_client *pn_client_open(struct pn_env *env, const struct pn_job *job, const char *job_id) {
    struct pn_client *c = calloc(1, sizeof *c);
    if (c == NULL || strlen(job_id) >= sizeof c->job_id) {
        free(c);
        return NULL;
    }
    c->env = env;
    c->job = job;
    memcpy(c->job_id, job_id, strlen(job_id) + 1);
    c->sequence = (env->ops->random(env) >> 32) + 1; /* answers to an earlier life of this worker must not match */
    c->tick = (struct pn_timer){.fire = tick, .owner = c};
    pn_timer_start(env, &c->tick, TICK_MS);
    return c;
}

static void free_pull(struct pull *p) {
    free_legs(p->legs);
    if (p->splits != NULL) free_splits(p->splits, p->n_parts);
    free(p->splits);
    free(p);
}

static void free_push(struct push *p) {
    free_legs(p->legs);
    free(p);
}

static void free_producer(struct producer *p) {
    while (p->ring != NULL) {
        struct push *e = p->ring;
        p->ring = e->next;
        free_push(e);
    }
    free(p);
}

void pn_client_close(struct pn_client *c) {
    if (c == NULL) return;
    pn_timer_stop(c->env, &c->tick);
    while (c->pulls != NULL) {
        struct pull *p = c->pulls;
        c->pulls = p->next;
        free_pull(p);
    }
    while (c->seeds != NULL) {
        struct push *p = c->seeds;
        c->seeds = p->next;
        free_push(p);
    }
    while (c->producers != NULL) {
        struct producer *p = c->producers;
        c->producers = p->next;
        free_producer(p);
    }
    c->closed = true;
    if (c->reporting == 0) free(c);
}

static void update_clock(struct pn_client *c, struct producer *p) {
    p->clock = p->next_step - 1;
    for (uint32_t s = 0; s < c->map.n_shards; s++) {
        while (p->open[s] != NULL && p->open[s]->legs[s].answered) p->open[s] = p->open[s]->next;
        if (p->open[s] != NULL && p->open[s]->step - 1 < p->clock) p->clock = p->open[s]->step - 1;
    }
}

void pn_client_map(struct pn_client *c, const struct pn_shard_map *map) {
    bool first = c->map.n_shards == 0;
    assert((first || map->n_shards == c->map.n_shards) && "the shards of a job keep their number");
    for (uint32_t s = 0; s < map->n_shards; s++) {
        if (first || strcmp(map->shards[s].address, c->map.shards[s].address) != 0) c->peers[s] = c->env->ops->connect(c->env, map->shards[s].address);
        if (first || map->shards[s].term == c->map.shards[s].term) continue;
        /* This shard has forgotten all since the last committed checkpoint. */
        for (struct producer *p = c->producers; p != NULL; p = p->next) {
            p->open[s] = p->ring;
            for (struct push *e = p->ring; e != NULL; e = e->next)
                if (e->legs[s].m != NULL) {
                    c->counters.replays += e->legs[s].answered;
                    e->legs[s].answered = false;
                    e->legs[s].sent_ns = 0;
                    e->legs[s].attempts = 1; /* it may be on its way: copy before a change */
                }
        }
        for (struct push *e = c->seeds; e != NULL; e = e->next)
            if (e->legs[s].m != NULL) {
                e->legs[s].answered = false;
                e->legs[s].sent_ns = 0;
                e->legs[s].attempts = 1;
            }
        for (struct pull *p = c->pulls; p != NULL; p = p->next)
            if (!p->legs[s].answered) {
                p->legs[s].sent_ns = 0;
                p->legs[s].attempts = 1;
            }
    }
    c->map = *map;
    c->slots_rise = true;
    for (uint32_t slot = 1; slot < PN_SLOTS; slot++) c->slots_rise = c->slots_rise && map->owner[slot] >= map->owner[slot - 1];
    for (struct producer *p = c->producers; p != NULL; p = p->next) update_clock(c, p);
    pump(c);
}

enum pn_result pn_client_producer(struct pn_client *c, uint32_t id, uint32_t incarnation, uint64_t first_step) {
    struct producer *p = calloc(1, sizeof *p);
    if (p == NULL) return PN_NO_MEMORY;
    p->id = id;
    p->incarnation = incarnation;
    p->next_step = first_step;
    p->clock = p->committed = first_step - 1;
    p->ring_end = &p->ring;
    p->next = c->producers;
    c->producers = p;
    return PN_OK;
}

static struct producer *find_producer(const struct pn_client *c, uint32_t id) {
    for (struct producer *p = c->producers; p != NULL; p = p->next)
        if (p->id == id) return p;
    return NULL;
}

void pn_client_producer_remove(struct pn_client *c, uint32_t id) {
    for (struct producer **at = &c->producers; *at != NULL; at = &(*at)->next)
        if ((*at)->id == id) {
            struct producer *p = *at;
            *at = p->next;
            free_producer(p);
            return;
        }
}

/* ---- sending ---- */
static void pump(struct pn_client *c) {
    for (struct push *e = c->seeds; e != NULL; e = e->next)
        for (uint32_t s = 0; s < c->map.n_shards; s++)
            if (e->legs[s].m != NULL && !e->legs[s].answered && due(c, &e->legs[s])) send_leg(c, &e->legs[s], s);
    for (struct producer *p = c->producers; p != NULL; p = p->next)
        for (uint32_t s = 0; s < c->map.n_shards && !p->fenced; s++)
            for (struct push *e = p->open[s]; e != NULL && e->step - p->open[s]->step < PN_MAX_IN_FLIGHT; e = e->next)
                if (!e->legs[s].answered && due(c, &e->legs[s])) send_leg(c, &e->legs[s], s);
    for (struct pull *p = c->pulls; p != NULL; p = p->next)
        for (uint32_t s = 0; s < c->map.n_shards; s++)
            if (p->legs[s].m != NULL && !p->legs[s].answered && due(c, &p->legs[s])) send_leg(c, &p->legs[s], s);
}

struct pull_fields { uint32_t producer; uint64_t clock; };
static void pull_header(struct pn_writer *w, void *ctx) {
    const struct pull_fields *f = ctx;
    if (f->producer != UINT32_MAX) pn_write_u64(w, "producer", f->producer);
    pn_write_u64(w, "clock", f->clock);
}

void pn_client_pull(struct pn_client *c, uint32_t producer, uint64_t clock, struct pn_client_part *parts, size_t n_parts, void (*done)(void *, enum pn_result),
                    void *owner) {
    struct pull *p = calloc(1, sizeof *p);
    struct pull_fields fields = {producer, clock};
    bool ok = p != NULL && n_parts <= PN_MAX_TABLES && c->map.n_shards > 0;
    if (ok) {
        p->sequence = ++c->sequence;
        memcpy(p->parts, parts, n_parts * sizeof *parts);
        p->n_parts = n_parts;
        p->done = done;
        p->owner = owner;
        bool to_all = c->job->consistency == PN_SSP && producer != UINT32_MAX;
        p->splits = calloc(n_parts + 1, sizeof *p->splits);
        ok = p->splits != NULL && split_parts(c, parts, n_parts, p->splits) &&
             build(c, PN_PULL, p->sequence, parts, p->splits, n_parts, false, to_all, pull_header, &fields, p->legs, NULL);
    }
    if (!ok) {
        if (p != NULL) free_pull(p);
        done(owner, PN_NO_MEMORY);
        return;
    }
    c->counters.pulls++;
    for (uint32_t s = 0; s < c->map.n_shards; s++) p->n_open += p->legs[s].m != NULL;
    if (p->n_open == 0) {
        free_pull(p);
        done(owner, PN_OK);
        return;
    }
    struct pull **at = &c->pulls;
    while (*at != NULL) at = &(*at)->next;
    *at = p;
    for (uint32_t s = 0; s < c->map.n_shards; s++)
        if (p->legs[s].m != NULL) send_leg(c, &p->legs[s], s);
}

struct push_fields { uint32_t producer, incarnation; uint64_t step, clock; bool last; };
static void push_header(struct pn_writer *w, void *ctx) {
    const struct push_fields *f = ctx;
    pn_write_u64(w, "producer", f->producer);
    pn_write_u64(w, "incarnation", f->incarnation);
    pn_write_u64(w, "step", f->step);
    pn_write_u64(w, "clock", f->clock);
    pn_write_u64(w, "last", f->last);
}

enum pn_result pn_client_push(struct pn_client *c, uint32_t producer, uint64_t step, bool last, const struct pn_client_part *parts, size_t n_parts,
                              void (*done)(void *, enum pn_result), void *owner) {
    struct producer *p = find_producer(c, producer);
    assert(p != NULL && step == p->next_step && "steps of a producer rise by one");
    if (p->fenced) return PN_FENCED;
    if (step - p->clock > PN_MAX_IN_FLIGHT) return PN_BUSY;
    struct push *e = calloc(1, sizeof *e);
    if (e == NULL) return PN_NO_MEMORY;
    struct push_fields fields = {producer, p->incarnation, step, p->clock, last};
    e->sequence = ++c->sequence;
    e->step = step;
    e->done = done;
    e->owner = owner;
    struct split splits[PN_MAX_TABLES] = {0};
    bool split = split_parts(c, parts, n_parts, splits), built = split && build(c, PN_PUSH, e->sequence, parts, splits, n_parts, true, true, push_header, &fields, e->legs, &e->n_bytes);
    if (split) free_splits(splits, n_parts);
    if (!built) {
        free_push(e);
        return PN_NO_MEMORY;
    }
    p->next_step++;
    p->ring_bytes += e->n_bytes;
    *p->ring_end = e;
    p->ring_end = &e->next;
    for (uint32_t s = 0; s < c->map.n_shards; s++)
        if (p->open[s] == NULL) p->open[s] = e;
    c->counters.pushes++;
    pump(c);
    return PN_OK;
}

static void seed_header(struct pn_writer *w, void *ctx) { (void)w; (void)ctx; }

void pn_client_seed(struct pn_client *c, const struct pn_client_part *part, void (*done)(void *, enum pn_result), void *owner) {
    struct push *e = calloc(1, sizeof *e);
    struct split split = {0};
    bool cut = e != NULL && split_parts(c, part, 1, &split), built = cut && build(c, PN_SEED, c->sequence + 1, part, &split, 1, true, false, seed_header, NULL, e->legs, &e->n_bytes);
    if (cut) free_splits(&split, 1);
    if (!built) {
        if (e != NULL) free_push(e);
        done(owner, PN_NO_MEMORY);
        return;
    }
    e->sequence = ++c->sequence;
    e->done = done;
    e->owner = owner;
    for (uint32_t s = 0; s < PN_MAX_SHARDS; s++) e->legs[s].answered = e->legs[s].m == NULL;
    struct push **at = &c->seeds;
    while (*at != NULL) at = &(*at)->next;
    *at = e;
    pump(c);
}

/* Takes what is no longer needed off the ring's head. */
static void trim(struct pn_client *c, struct producer *p) {
    while (p->ring != NULL) {
        struct push *e = p->ring;
        bool acknowledged = e->reported;
        for (uint32_t s = 0; s < c->map.n_shards; s++) acknowledged = acknowledged && e->legs[s].answered;
        if (c->job->ack_durable ? e->step > p->committed : !acknowledged) break;
        if (!e->reported) break; /* committed, but its own answer is on the way */
        for (uint32_t s = 0; s < c->map.n_shards; s++)
            if (p->open[s] == e) p->open[s] = e->next;
        p->ring = e->next;
        if (p->ring == NULL) p->ring_end = &p->ring;
        p->ring_bytes -= e->n_bytes;
        free_push(e);
    }
}

void pn_client_committed(struct pn_client *c, uint32_t producer, uint64_t step) {
    struct producer *p = find_producer(c, producer);
    if (p == NULL) return;
    if (step > p->committed) p->committed = step;
    trim(c, p);
    update_clock(c, p);
    /* Seeds stay: the cut may have been taken before they came, and sending them to a shard that has them is harmless. */
}

void pn_client_cancel(struct pn_client *c, const void *owner) {
    for (struct pull **at = &c->pulls; *at != NULL;) {
        struct pull *p = *at;
        if (p->owner != owner) {
            at = &p->next;
            continue;
        }
        *at = p->next;
        free_pull(p);
    }
    for (struct push *e = c->seeds; e != NULL; e = e->next)
        if (e->owner == owner) e->done = NULL;
    for (struct producer *p = c->producers; p != NULL; p = p->next)
        for (struct push *e = p->ring; e != NULL; e = e->next)
            if (e->owner == owner) e->done = NULL;
}

bool pn_client_ring_full(const struct pn_client *c, uint32_t producer) {
    const struct producer *p = find_producer(c, producer);
    return p != NULL && c->job->ack_durable && p->ring_bytes >= c->job->ring_bytes;
}

uint64_t pn_client_clock(const struct pn_client *c, uint32_t producer) {
    const struct producer *p = find_producer(c, producer);
    return p == NULL ? 0 : p->clock;
}

const struct pn_client_counters *pn_client_counters(const struct pn_client *c) { return &c->counters; }

/* ---- answers ---- */

/* Runs a callback that may close the client; false if it did. */
static bool report(struct pn_client *c, void (*done)(void *, enum pn_result), void *owner, enum pn_result r) {
    c->reporting++;
    if (done != NULL) done(owner, r);
    c->reporting--;
    if (!c->closed) return true;
    if (c->reporting == 0) free(c);
    return false;
}

static void on_rows(struct pn_client *c, struct pn_frame *f, uint32_t s) {
    for (struct pull **at = &c->pulls; *at != NULL; at = &(*at)->next) {
        struct pull *p = *at;
        if (p->sequence != f->request >> 6) continue;
        if (p->legs[s].m == NULL || p->legs[s].answered) return;
        uint64_t tables[PN_MAX_TABLES], counts[PN_MAX_TABLES];
        size_t n = 0, n_counts = 0;
        if (!pn_frame_u64s(f, "tables", tables, PN_MAX_TABLES, &n) || !pn_frame_u64s(f, "counts", counts, PN_MAX_TABLES, &n_counts) || n != p->n_parts || n != n_counts)
            return;
        for (size_t i = 0; i < n; i++) {
            const size_t dim = c->job->tables[p->parts[i].i_table].dim;
            const struct split *split = &p->splits[i];
            const size_t first = split->begin[s];
            if (tables[i] != p->parts[i].i_table || counts[i] != split->begin[s + 1] - first) return;
            const enum pn_codec codec = pn_job_codec(c->job, p->parts[i].i_table);
            const size_t row_bytes = pn_codec_row_bytes(codec, dim);
            const uint8_t *rows = pn_frame_take(f, counts[i], row_bytes);
            if (rows == NULL) return;
            if (split->order == NULL && p->parts[i].places == NULL && counts[i] > 0) pn_codec_decode(codec, rows, counts[i], dim, p->parts[i].rows + first * dim);
            else for (size_t k = 0; k < counts[i]; k++) pn_codec_decode(codec, rows + k * row_bytes, 1, dim, row_of(&p->parts[i], split->order, first + k, dim));
        }
        p->legs[s].answered = true;
        if (--p->n_open > 0) return;
        *at = p->next;
        void (*done)(void *, enum pn_result) = p->done;
        void *owner = p->owner;
        free_pull(p);
        report(c, done, owner, PN_OK);
        return;
    }
}

static void on_ack(struct pn_client *c, const struct pn_frame *f, uint32_t s) {
    for (struct push *e = c->seeds; e != NULL; e = e->next)
        if (e->sequence == f->request >> 6) {
            e->legs[s].answered = true;
            bool all = true;
            for (uint32_t i = 0; i < c->map.n_shards; i++) all = all && e->legs[i].answered;
            if (all && !e->reported) {
                e->reported = true;
                report(c, e->done, e->owner, PN_OK);
            }
            return;
        }
    for (struct producer *p = c->producers; p != NULL; p = p->next)
        for (struct push *e = p->open[s]; e != NULL; e = e->next) {
            if (e->sequence != f->request >> 6) continue;
            if (e->legs[s].answered) return;
            e->legs[s].answered = true;
            bool all = true;
            for (uint32_t i = 0; i < c->map.n_shards; i++) all = all && e->legs[i].answered;
            update_clock(c, p);
            if (all && !e->reported) {
                void (*done)(void *, enum pn_result) = e->done;
                void *owner = e->owner;
                e->reported = true;
                trim(c, p);
                if (!report(c, done, owner, PN_OK)) return;
            }
            pump(c); /* a replay may go on by one */
            return;
        }
}

/* A shard without the dense parameters' first values gets them again, at once. */
static void send_seeds(struct pn_client *c, uint32_t s) {
    for (struct push *seed = c->seeds; seed != NULL; seed = seed->next)
        if (seed->legs[s].m != NULL) {
            seed->legs[s].answered = false;
            send_leg(c, &seed->legs[s], s);
        }
}

static void on_refusal(struct pn_client *c, const struct pn_frame *f, uint32_t s) {
    char code[24] = "", text[200] = "";
    pn_frame_str(f, "code", code, sizeof code);
    pn_frame_str(f, "text", text, sizeof text);
    enum pn_result r = pn_result_from_name(code);
    if (r == PN_STALE_TERM) {
        c->counters.stale_terms++; /* the map will come; the tick repeats */
        return;
    }
    if (r == PN_BUSY || r == PN_NO_MEMORY) return;
    for (struct pull **at = &c->pulls; *at != NULL; at = &(*at)->next)
        if ((*at)->sequence == f->request >> 6) {
            struct pull *p = *at;
            if (r == PN_NOT_SEEDED) {
                send_seeds(c, s);
                p->legs[s].sent_ns = 0; /* again with the next tick */
                return;
            }
            *at = p->next;
            void (*done)(void *, enum pn_result) = p->done;
            void *owner = p->owner;
            free_pull(p);
            pn_log(c->env, PN_WARN, "a pull was refused by shard %u: %s", s, text);
            report(c, done, owner, r);
            return;
        }
    for (struct push *e = c->seeds; e != NULL; e = e->next)
        if (e->sequence == f->request >> 6) {
            e->legs[s].answered = true; /* asking again would be refused again */
            pn_log(c->env, PN_WARN, "a seed was refused by shard %u: %s", s, text);
            if (e->reported) return;
            e->reported = true;
            report(c, e->done, e->owner, r);
            return;
        }
    for (struct producer *p = c->producers; p != NULL; p = p->next)
        for (struct push *e = p->open[s]; e != NULL; e = e->next) {
            if (e->sequence != f->request >> 6) continue;
            if (r == PN_NOT_SEEDED) {
                send_seeds(c, s);
                return;
            }
            if (r == PN_FENCED) p->fenced = true;
            else pn_log(c->env, PN_WARN, "push %llu of producer %u was refused by shard %u: %s", (unsigned long long)e->step, p->id, s, text);
            if (!e->reported) {
                e->reported = true;
                report(c, e->done, e->owner, r);
            }
            return;
        }
}

void pn_client_message(struct pn_client *c, pn_peer from, struct pn_msg *m, struct pn_frame *f) {
    (void)m;
    uint32_t s = (uint32_t)(f->request & 63);
    /* An answer of a lower term is of a shard's earlier life: what it acknowledged may be gone. */
    if (s >= c->map.n_shards || from != c->peers[s]) return;
#if PN_MUTANT != 7
    if (f->term != c->map.shards[s].term && f->kind != PN_REFUSAL) return;
#endif
    if (f->kind == PN_ROWS) on_rows(c, f, s);
    else if (f->kind == PN_ACK) on_ack(c, f, s);
    else if (f->kind == PN_REFUSAL) on_refusal(c, f, s);
}
