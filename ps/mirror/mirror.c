#include "ps/mirror/mirror.h"
#include <stdlib.h>
#include <string.h>
#include "ps/start/start.h"
#include "ps/table/optimizer.h"
#include "ps/table/table.h"

#define TICK_MS 50u
#define RETRY_MS 250u
#define RETRY_MAX_MS 2000u
#define MOST_BYTES ((size_t)64 << 30) /* of a table's copy */
#define MIRROR_SEQUENCE (1ull << 40) /* above those of the client beside it (ps/client/), as both hear REFUSAL */

struct waiter {
    struct waiter *next;
    uint64_t clock;
    void (*done)(void *, enum pn_result);
    void *owner;
};

/* What is asked of one shard. */
struct leg {
    uint64_t version, new_version; /* of the copy; of the transfer under way, from its first answer */
    uint64_t slot, request, sent_ns; /* slot PN_SLOTS: all of it is here. sent_ns 0: not sent yet */
    uint32_t attempts;
};

struct pn_mirror {
    struct pn_env *env;
    const struct pn_job *job;
    char job_id[64];
    struct pn_shard_map map;
    pn_peer peers[PN_MAX_SHARDS];
    struct leg legs[PN_MAX_SHARDS];
    uint64_t sequence, clock;
    struct pn_table *rows[PN_MAX_TABLES]; /* the copy, float32 */
    struct pn_starts *starts;
    struct begin { struct pn_mirror *mirror; uint32_t i_table; uint8_t *room; } begins[PN_MAX_TABLES]; /* room: for an encoded row */
    uint8_t *records;                     /* room for RECORDS of any table */
    bool forgotten;                       /* a shard has another life: the copy is emptied before the next transfer */
    struct waiter *waiting, *served, *ended; /* for the next transfer; for the one under way; for the one that is over, to be told */
    struct pn_timer tick;
    bool reporting, closed;
};
enum { RECORDS = 256 };
struct record { uint64_t key; uint32_t frequency, last_step; float values[]; }; /* ps/table/table.h */

/* ---- the copy ---- */

static void through(enum pn_codec codec, size_t dim, uint8_t *room, float *values) {
    if (codec == PN_CODEC_FLOAT32) return;
    pn_codec_encode(codec, values, 1, dim, room);
    pn_codec_decode(codec, room, 1, dim, values);
}

/* The first values as a server stores them and as they would come over the wire. */
static void first_values(void *owner, uint64_t key, float *values) {
    const struct begin *b = owner;
    const struct pn_job *job = b->mirror->job;
    const struct pn_table_spec *spec = &job->tables[b->i_table];
    const enum pn_codec codec = pn_job_codec(job, b->i_table);
    pn_init_row(spec, key, values);
    pn_starts_row(b->mirror->starts, b->i_table, key, values);
    through(spec->storage, spec->dim, b->room, values);
    if (codec != spec->storage) through(codec, spec->dim, b->room, values); /* else the stored bytes themselves travel */
}

static void empty(struct pn_mirror *m) {
    for (size_t t = 0; t < PN_MAX_TABLES; t++) {
        if (m->rows[t] != NULL) pn_table_close(m->rows[t]);
        m->rows[t] = NULL;
    }
    for (uint32_t s = 0; s < PN_MAX_SHARDS; s++) m->legs[s].version = 0;
}

static bool open_rows(struct pn_mirror *m) {
    for (size_t t = 0; t < m->job->i_dense_table; t++) {
        struct pn_table_spec spec = m->job->tables[t];
        spec.optimizer = (struct pn_optimizer_spec){.kind = PN_SGD}; /* no state */
        spec.storage = PN_CODEC_FLOAT32;
        spec.init = PN_INIT_ZERO; /* first_values has them */
        spec.track = false;
        if ((m->rows[t] = pn_table_open(&spec)) == NULL) return false;
        pn_table_confine(m->rows[t], MOST_BYTES);
        pn_table_begin_with(m->rows[t], first_values, &m->begins[t]);
    }
    return true;
}

/* keys and rows of an answer go into the copy. */
static enum pn_result put(struct pn_mirror *m, size_t t, const uint64_t *keys, const uint8_t *wire, size_t n) {
    const size_t size = pn_table_record_bytes(m->rows[t]), dim = m->job->tables[t].dim;
    const enum pn_codec codec = pn_job_codec(m->job, t);
    const size_t row_bytes = pn_codec_row_bytes(codec, dim);
    enum pn_result r = PN_OK;
    for (size_t at = 0; at < n && r == PN_OK; at += RECORDS) {
        const size_t count = n - at < RECORDS ? n - at : RECORDS;
        for (size_t i = 0; i < count; i++) {
            struct record *to = (struct record *)(void *)(m->records + i * size);
            *to = (struct record){.key = keys[at + i]};
            pn_codec_decode(codec, wire + (at + i) * row_bytes, 1, dim, to->values);
        }
        r = pn_table_restore(m->rows[t], m->records, count);
    }
    return r;
}

void pn_mirror_rows(const struct pn_mirror *m, uint32_t i_table, const uint64_t *keys, size_t n, float *rows) { pn_table_pull(m->rows[i_table], keys, n, rows); }

/* ---- asking ---- */

static void ask(struct pn_mirror *m, uint32_t s) {
    struct leg *l = &m->legs[s];
    if (m->map.shards[s].term == 0 || m->peers[s] == 0) return;
    struct pn_writer w;
    uint8_t *body;
    pn_write_start(&w, PN_CHANGES, m->map.shards[s].term, l->request);
    pn_write_str(&w, "job", m->job_id);
    pn_write_u64(&w, "clock", m->clock);
    pn_write_u64(&w, "since", l->version);
    pn_write_u64(&w, "slot", l->slot);
    struct pn_msg *msg = pn_write_finish(&w, m->env, 0, &body);
    if (msg == NULL) return; /* with the next tick */
    pn_msg_seal(msg);
    if (l->sent_ns != 0) l->attempts++;
    l->sent_ns = pn_now_ns(m->env) | 1;
    pn_send(m->env, m->peers[s], msg);
}

static void ask_from(struct pn_mirror *m, uint32_t s, uint64_t slot) {
    struct leg *l = &m->legs[s];
    l->slot = slot;
    l->request = ++m->sequence << 6 | s;
    l->sent_ns = 0;
    l->attempts = 0;
    ask(m, s);
}

static void begin(struct pn_mirror *m);

/* The transfer is over. The owners' callbacks may ask again, or close the mirror. */
static void finish(struct pn_mirror *m, enum pn_result r) {
    m->ended = m->served;
    m->served = NULL;
    m->reporting = true;
    for (struct waiter *w; (w = m->ended) != NULL;) {
        m->ended = w->next;
        if (w->done != NULL) w->done(w->owner, r);
        free(w);
    }
    m->reporting = false;
    if (m->closed) free(m);
    else begin(m);
}

static void begin(struct pn_mirror *m) {
    if (m->served != NULL || m->waiting == NULL || m->map.n_shards == 0 || m->reporting) return;
    /* Those with the lowest clock: a shard may wait for their pushes before it has what others ask for. */
    m->clock = UINT64_MAX;
    for (const struct waiter *w = m->waiting; w != NULL; w = w->next)
        if (w->clock < m->clock) m->clock = w->clock;
    for (struct waiter **from = &m->waiting, **to = &m->served, *w; (w = *from) != NULL;) {
        if (w->clock > m->clock) {
            from = &w->next;
            continue;
        }
        *from = w->next;
        w->next = NULL;
        *to = w;
        to = &w->next;
    }
    if (m->forgotten) {
        empty(m);
        m->forgotten = false;
        if (!open_rows(m)) {
            m->forgotten = true;
            finish(m, PN_NO_MEMORY);
            return;
        }
    }
    pn_timer_start(m->env, &m->tick, TICK_MS);
    for (uint32_t s = 0; s < m->map.n_shards; s++) {
        m->legs[s].new_version = 0;
        ask_from(m, s, 0);
    }
}

static void tick(struct pn_timer *t) {
    struct pn_mirror *m = t->owner;
    if (m->served == NULL) return;
    pn_timer_start(m->env, t, TICK_MS);
    for (uint32_t s = 0; s < m->map.n_shards; s++) {
        const struct leg *l = &m->legs[s];
        uint64_t pause = (uint64_t)RETRY_MS << (l->attempts > 4 ? 4 : l->attempts);
        if (pause > RETRY_MAX_MS) pause = RETRY_MAX_MS;
        if (l->slot < PN_SLOTS && (l->sent_ns == 0 || pn_now_ns(m->env) >= l->sent_ns + pause * 1000000u)) ask(m, s);
    }
}

/* Who is served waits again. */
static void call_off(struct pn_mirror *m) {
    struct waiter **at = &m->served;
    while (*at != NULL) at = &(*at)->next;
    *at = m->waiting;
    m->waiting = m->served;
    m->served = NULL;
}

void pn_mirror_refresh(struct pn_mirror *m, uint64_t clock, void (*done)(void *, enum pn_result), void *owner) {
    struct waiter *w = malloc(sizeof *w), **at = &m->waiting;
    if (w == NULL) {
        done(owner, PN_NO_MEMORY);
        return;
    }
    *w = (struct waiter){.clock = clock, .done = done, .owner = owner};
    while (*at != NULL) at = &(*at)->next;
    *at = w;
    if (m->served != NULL && clock < m->clock) call_off(m);
    begin(m);
}

void pn_mirror_cancel(struct pn_mirror *m, const void *owner) {
    struct waiter *lists[] = {m->waiting, m->served, m->ended};
    for (size_t i = 0; i < 3; i++)
        for (struct waiter *w = lists[i]; w != NULL; w = w->next)
            if (w->owner == owner) w->done = NULL;
}

/* ---- answers ---- */

static void on_changed(struct pn_mirror *m, struct pn_frame *f, uint32_t s) {
    struct leg *l = &m->legs[s];
    uint64_t tables[PN_MAX_TABLES], counts[PN_MAX_TABLES], version, next;
    const uint64_t *keys[PN_MAX_TABLES];
    const uint8_t *rows[PN_MAX_TABLES];
    size_t n = 0, n_counts = 0;
    if (!pn_frame_u64s(f, "tables", tables, PN_MAX_TABLES, &n) || !pn_frame_u64s(f, "counts", counts, PN_MAX_TABLES, &n_counts) || n != n_counts || !pn_frame_u64(f, "version", &version) ||
        version == 0 || !pn_frame_u64(f, "next", &next) || next <= l->slot)
        return;
    for (size_t i = 0; i < n; i++) {
        if (tables[i] >= m->job->i_dense_table) return;
        keys[i] = pn_frame_take(f, counts[i], 8);
        rows[i] = keys[i] == NULL ? NULL : pn_frame_take(f, counts[i], pn_codec_row_bytes(pn_job_codec(m->job, tables[i]), m->job->tables[tables[i]].dim));
        if (rows[i] == NULL) return;
    }
    enum pn_result r = PN_OK;
    for (size_t i = 0; i < n && r == PN_OK; i++) r = put(m, tables[i], keys[i], rows[i], counts[i]);
    if (r != PN_OK) {
        finish(m, r);
        return;
    }
    /* What changed between this transfer's first answer and its last comes once more with the next. */
    if (l->new_version == 0) l->new_version = version;
    if (next < PN_SLOTS) {
        ask_from(m, s, next);
        return;
    }
    l->version = l->new_version;
    l->slot = PN_SLOTS;
    for (uint32_t i = 0; i < m->map.n_shards; i++)
        if (m->legs[i].slot < PN_SLOTS) return;
    finish(m, PN_OK);
}

static void on_refusal(struct pn_mirror *m, const struct pn_frame *f, uint32_t s) {
    char code[24] = "", text[200] = "";
    pn_frame_str(f, "code", code, sizeof code);
    pn_frame_str(f, "text", text, sizeof text);
    const enum pn_result r = pn_result_from_name(code);
    if (r == PN_STALE_TERM || r == PN_BUSY || r == PN_NO_MEMORY) return; /* the tick asks again, by the map of then */
    pn_log(m->env, PN_WARN, "shard %u does not say what has changed: %s", s, text);
    finish(m, r);
}

void pn_mirror_message(struct pn_mirror *m, pn_peer from, struct pn_frame *f) {
    const uint32_t s = (uint32_t)(f->request & 63);
    if (m->served == NULL || s >= m->map.n_shards || from != m->peers[s] || f->request != m->legs[s].request || m->legs[s].slot >= PN_SLOTS) return;
    if (f->kind == PN_CHANGED && f->term == m->map.shards[s].term) on_changed(m, f, s);
    else if (f->kind == PN_REFUSAL) on_refusal(m, f, s);
}

/* ---- life ---- */

void pn_mirror_map(struct pn_mirror *m, const struct pn_shard_map *map) {
    const bool first = m->map.n_shards == 0;
    bool other = false;
    for (uint32_t s = 0; s < map->n_shards; s++) {
        if (first || strcmp(map->shards[s].address, m->map.shards[s].address) != 0) m->peers[s] = m->env->ops->connect(m->env, map->shards[s].address);
        other = other || (!first && map->shards[s].term != m->map.shards[s].term);
    }
    m->map = *map;
    if (other) { /* whoever waits for a transfer waits for one of the shards' new lives */
        m->forgotten = true;
        call_off(m);
    }
    begin(m);
}

enum pn_result pn_mirror_open(struct pn_mirror **out, struct pn_env *env, const struct pn_job *job, const char *job_id, struct pn_error *err) {
    struct pn_mirror *m = calloc(1, sizeof *m);
    *out = NULL;
    if (m == NULL || strlen(job_id) >= sizeof m->job_id) {
        free(m);
        return pn_fail(err, PN_NO_MEMORY, "no memory for a copy of the rows");
    }
    m->env = env;
    m->job = job;
    memcpy(m->job_id, job_id, strlen(job_id) + 1);
    m->sequence = MIRROR_SEQUENCE | (env->ops->random(env) >> 32); /* answers to an earlier life of this worker must not match */
    m->tick = (struct pn_timer){.fire = tick, .owner = m};
    bool ok = true;
    size_t most = 0;
    for (size_t t = 0; ok && t < job->i_dense_table; t++) {
        m->begins[t] = (struct begin){m, (uint32_t)t, malloc(job->tables[t].dim * sizeof(float) + 64)}; /* no codec takes more */
        ok = m->begins[t].room != NULL;
    }
    ok = ok && open_rows(m);
    for (size_t t = 0; ok && t < job->i_dense_table; t++)
        if (pn_table_record_bytes(m->rows[t]) > most) most = pn_table_record_bytes(m->rows[t]);
    ok = ok && (m->records = calloc(RECORDS, most + 1)) != NULL;
    enum pn_result r = ok ? pn_starts_open(&m->starts, env, job, NULL, err) : pn_fail(err, PN_NO_MEMORY, "no memory for a copy of the rows");
    if (r != PN_OK) pn_mirror_close(m);
    else *out = m;
    return r;
}

static void drop(struct waiter **list) {
    for (struct waiter *w; (w = *list) != NULL;) {
        *list = w->next;
        free(w);
    }
}

void pn_mirror_close(struct pn_mirror *m) {
    if (m == NULL) return;
    pn_timer_stop(m->env, &m->tick);
    drop(&m->waiting);
    drop(&m->served);
    drop(&m->ended);
    empty(m);
    for (size_t t = 0; t < PN_MAX_TABLES; t++) free(m->begins[t].room);
    pn_starts_close(m->starts);
    free(m->records);
    m->closed = true;
    if (!m->reporting) free(m);
}
