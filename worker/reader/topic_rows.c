/* Rows out of a topic. What a batch is made of stands in the ledger (common/ledger.h): extents of partitions, durable before anything is made of them.
 *
 *   take what is there of each own partition -> propose it as extents -> (the coordinator writes it down, a plan brings it back) -> give rows out, extent by extent
 *
 * Messages wait in a queue a partition meanwhile. A reader that comes after another one takes the same rows out of the same offsets; the first thing it gives is the row behind
 * those of the steps that the checkpoint holds. All here is the work's side but the functions at the end. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "worker/reader/internal.h"

enum { SHARE_BATCHES = 64, RESERVE_BATCHES = 32, MOST_LISTED = 3000 };
enum { PROPOSE_MS = 20, LOOK_MS = 10000, AGAIN_MS = 1000, POLL_MS = 10 };
#define QUEUED_BYTES (32u << 20)

struct part {
    uint32_t id;
    uint64_t next, dealt, bound;      /* the offset behind the last message taken; behind its last extent; nothing is read from there on */
    bool begun, at_end;
    struct pn_held **queue;           /* a ring: messages taken and not given out */
    size_t head, n, room, n_new;      /* n_new: of them, those at dealt and behind */
};

struct pn_topic_rows {
    struct pn_topic *log;
    struct pn_ledger ledger;
    size_t i_extent;                  /* the one that is being given out */
    uint64_t given, skip, rows_given; /* rows of it given; rows to throw away first; rows of the whole ledger given (or skipped) */
    struct part *parts;
    size_t n_parts;
    const struct part *named;         /* r->path says this one */
    uint64_t queued_bytes, now_ms, looked_ms, pause_ms, proposed_ms, moved_ms;
    bool looked, opened;
    size_t listed;                    /* extents that the last plan had */
    /* a proposal under way: what the ledger must hold before there is another */
    bool proposing, fresh;            /* fresh: the core has not seen it yet */
    uint64_t proposed_at;
    struct json_object *proposal;
    struct json_object *incoming;     /* a plan's ledger */
    bool troubled;
    struct pn_error trouble;
    uint64_t lag;                     /* UINT64_MAX: not known */
    /* the core's side */
    struct json_object *said, *later; /* later: incoming, once no work runs */
    uint64_t said_lag;
    struct pn_timer timer;
    bool timing, told;
    char told_line[200];
};

static bool bad(struct pn_reader *r, enum pn_result result, const char *line) {
    r->result = pn_fail(&r->err, result == PN_NOT_FOUND ? PN_INVALID : result, "%s", line); /* a reader's PN_NOT_FOUND is the end of the data */
    return false;
}

/* ---- partitions ---- */

static struct part *find(struct pn_topic_rows *t, uint32_t id) {
    for (size_t i = 0; i < t->n_parts; i++)
        if (t->parts[i].id == id) return &t->parts[i];
    return NULL;
}

static bool add(struct pn_reader *r, const struct pn_position *p) {
    struct pn_topic_rows *t = r->topic;
    struct part *grown = realloc(t->parts, (t->n_parts + 1) * sizeof *grown);
    if (grown == NULL) return pn_reader_no_memory(r);
    t->parts = grown;
    t->named = NULL;
    t->parts[t->n_parts++] = (struct part){.id = p->partition, .next = p->offset, .dealt = p->offset, .bound = p->bound};
    return true;
}

static struct pn_held *front(const struct part *p) { return p->queue[p->head]; }

static void drop_front(struct pn_topic_rows *t, struct part *p) {
    t->queued_bytes -= front(p)->n_bytes;
    free(front(p));
    p->head = (p->head + 1) % p->room;
    p->n--;
}

static bool put(struct pn_reader *r, struct part *p, const struct pn_message *m) {
    if (m->n_bytes > PN_RECORD_MAX_BYTES) {
        snprintf(r->path, sizeof r->path, "topic %s[%u]", r->data.kafka.topic, p->id);
        return pn_row_bad(r, m->offset, "a message of %zu bytes; at most %u are taken", m->n_bytes, PN_RECORD_MAX_BYTES);
    }
    if (p->n == p->room) {
        const size_t room = p->room > 0 ? 2 * p->room : 256;
        struct pn_held **grown = malloc(room * sizeof *grown);
        if (grown == NULL) return pn_reader_no_memory(r);
        for (size_t i = 0; i < p->n; i++) grown[i] = p->queue[(p->head + i) % p->room];
        free(p->queue);
        p->queue = grown;
        p->head = 0;
        p->room = room;
    }
    struct pn_held *held = malloc(sizeof *held + m->n_bytes);
    if (held == NULL) return pn_reader_no_memory(r);
    held->line = m->offset;
    held->n_bytes = (uint32_t)m->n_bytes;
    memcpy(held->text, m->data, m->n_bytes);
    p->queue[(p->head + p->n++) % p->room] = held;
    r->topic->queued_bytes += held->n_bytes;
    if (m->offset >= p->dealt) p->n_new++;
    return true;
}

/* Takes what is there of a partition, up to `most` rows that no extent has yet; or, for an extent (until an offset is reached), up to the first row. */
static bool fill(struct pn_reader *r, struct part *p, size_t most, bool needed) {
    struct pn_topic_rows *t = r->topic;
    if (!p->begun) {
        struct pn_error err;
        const enum pn_result result = t->log->ops->begin(t->log, p->id, p->next, &err);
        if (result != PN_OK) return bad(r, result, err.text);
        p->begun = true;
    }
    while (p->next < p->bound && (needed ? p->n == 0 : p->n_new < most && t->queued_bytes < QUEUED_BYTES)) {
        struct pn_message m;
        struct pn_error err;
        switch (t->log->ops->take(t->log, p->id, &m, &err)) {
        case PN_TOPIC_FAILED: return bad(r, PN_INVALID, err.text);
        case PN_TOPIC_NOTHING: return true;
        case PN_TOPIC_END:
            if (m.offset > p->next) p->next = m.offset;
            p->at_end = true;
            return true;
        case PN_TOPIC_MESSAGE:
            if (m.offset < p->next) continue; /* of a batch that began before the offset that was asked for */
            p->at_end = false;
            if (m.offset >= p->bound) {
                p->next = p->bound;
                return true;
            }
            p->next = m.offset + 1;
            t->moved_ms = t->now_ms;
            if (m.n_bytes == 0) break; /* no payload: a tombstone, no row */
            if (!put(r, p, &m)) return false;
            break;
        }
    }
    return true;
}

/* ---- the ledger ---- */

/* Where each partition stands behind all extents, and what is new from there on. */
static bool look_at_ledger(struct pn_reader *r) {
    struct pn_topic_rows *t = r->topic;
    for (size_t i = 0; i < t->ledger.n_extents; i++) { /* partitions that it did not have before */
        const struct pn_extent *e = &t->ledger.extents[i];
        if (find(t, e->partition) == NULL && !add(r, &(struct pn_position){e->partition, e->first, e->bound})) return false;
    }
    for (size_t i = 0; i < t->n_parts; i++) {
        struct part *p = &t->parts[i];
        struct pn_position now;
        if (!pn_ledger_position(&t->ledger, p->id, &now)) continue;
        p->dealt = now.offset;
        p->bound = now.bound;
        p->n_new = 0;
        for (size_t k = p->n; k > 0 && p->queue[(p->head + k - 1) % p->room]->line >= p->dealt; k--) p->n_new++;
    }
    t->proposing = t->proposing && t->ledger.at + t->ledger.n_extents <= t->proposed_at && !t->ledger.closed;
    return true;
}

/* The plan's ledger: what is new of it. */
static bool follow(struct pn_reader *r, struct json_object *o) {
    struct pn_topic_rows *t = r->topic;
    struct pn_ledger told = {0};
    struct pn_error err = {""};
    enum pn_result result = pn_ledger_read(&told, o, &err);
    t->listed = told.n_extents;
    const uint64_t have = t->ledger.at + t->ledger.n_extents;
    if (result == PN_OK && !t->opened) { /* the first: skips whole extents without reading them */
        t->opened = true;
        t->ledger = told;
        told = (struct pn_ledger){0};
        t->skip = r->options.skip_batches * r->options.batch_size;
        if (t->skip < t->ledger.rows) result = pn_fail(&err, PN_INVALID, "a plan whose ledger begins behind the producer's first step");
        else {
            t->rows_given = t->skip;
            pn_ledger_trim(&t->ledger, t->skip);
            t->skip -= t->ledger.rows;
        }
        for (size_t i = 0; result == PN_OK && i < t->ledger.n_positions; i++)
            if (!add(r, &t->ledger.positions[i])) return false;
    } else if (result == PN_OK && told.at > have) result = pn_fail(&err, PN_INVALID, "a plan whose ledger has lost what was not read yet");
    for (size_t i = have > told.at ? have - told.at : 0; result == PN_OK && i < told.n_extents; i++) result = pn_ledger_add(&t->ledger, &told.extents[i], &err);
    t->ledger.closed = t->ledger.closed || told.closed;
    pn_ledger_free(&told);
    if (result != PN_OK) return bad(r, result, err.text);
    return look_at_ledger(r);
}

static void say(struct pn_topic_rows *t, const struct pn_extent *e, size_t n, bool closed) {
    if (t->proposal != NULL) json_object_put(t->proposal);
    t->proposal = pn_ledger_proposal(&t->ledger, e, n, closed);
    t->proposed_at = t->ledger.at + t->ledger.n_extents;
    t->proposing = t->fresh = true;
    t->proposed_ms = t->now_ms;
}

/* ---- the topic as a whole ---- */

/* Where a partition that is new to the ledger begins and ends. */
static enum pn_result place(struct pn_reader *r, uint32_t id, bool late, struct pn_extent *out, struct pn_error *err) {
    const struct pn_kafka_spec *k = &r->data.kafka;
    uint64_t first = 0, end = 0, at;
    const enum pn_result result = r->topic->log->ops->range(r->topic->log, id, &first, &end, err);
    if (result != PN_OK) return result;
    at = !late && k->start == PN_START_LATEST ? end : first;
    if (!late && k->start == PN_START_OFFSETS && id < k->n_offsets) {
        at = k->offsets[id];
        if (at < first || at > end)
            return pn_fail(err, PN_INVALID, "topic \"%s\", partition %u: start is at offset %llu, but the log has %llu to %llu", k->topic, id, (unsigned long long)at, (unsigned long long)first,
                           (unsigned long long)end);
    }
    *out = (struct pn_extent){id, at, at, 0, k->end == PN_END_LATEST ? end : PN_NO_BOUND};
    return PN_OK;
}

/* Asks how many partitions there are, and proposes those that are new. False: failed; else r->topic->looked says whether the brokers answered. */
static bool look(struct pn_reader *r) {
    struct pn_topic_rows *t = r->topic;
    const struct pn_kafka_spec *k = &r->data.kafka;
    struct pn_error err = {""};
    uint32_t n = 0;
    size_t n_fresh = 0;
    t->looked_ms = t->now_ms;
    enum pn_result result = t->log->ops->partitions(t->log, &n, &err);
    if (result == PN_OK && n < r->options.n_producers)
        result = pn_fail(&err, PN_INVALID, "topic \"%s\" has %u partition%s for %u data shards; a shard reads whole partitions: training.dataShards may be at most %u", k->topic, n, n == 1 ? "" : "s",
                         r->options.n_producers, n);
    for (size_t i = 0; result == PN_OK && i < t->n_parts; i++)
        if (t->parts[i].id >= n) result = pn_fail(&err, PN_INVALID, "topic \"%s\" has %u partitions now; partition %u, which this job has read, is gone", k->topic, n, t->parts[i].id);
    const bool late = t->n_parts > 0;
    struct pn_extent *fresh = calloc(n / r->options.n_producers + 1, sizeof *fresh);
    if (fresh == NULL) return pn_reader_no_memory(r);
    for (uint32_t p = r->options.producer; result == PN_OK && p < n && !(late && k->end == PN_END_LATEST); p += r->options.n_producers)
        if (find(t, p) == NULL) result = place(r, p, late, &fresh[n_fresh++], &err);
    t->pause_ms = result != PN_BUSY ? AGAIN_MS : t->pause_ms < 8 * AGAIN_MS ? 2 * t->pause_ms : t->pause_ms;
    if (result == PN_OK) t->looked = true;
    if (result == PN_OK && n_fresh > 0) {
        say(t, fresh, n_fresh, false);
        t->moved_ms = t->now_ms;
    }
    free(fresh);
    return result == PN_OK || result == PN_BUSY || bad(r, result, err.text);
}

/* Is the stream over? PN_OK: yes; PN_BUSY: no; else failed. */
static enum pn_result over(struct pn_reader *r, struct pn_error *err) {
    struct pn_topic_rows *t = r->topic;
    const struct pn_kafka_spec *k = &r->data.kafka;
    bool there = t->n_parts > 0 && k->end != PN_END_NEVER;
    for (size_t i = 0; there && i < t->n_parts; i++) there = k->end == PN_END_LATEST ? t->parts[i].next >= t->parts[i].bound : t->parts[i].at_end;
    if (!there || k->end == PN_END_LATEST) return there ? PN_OK : PN_BUSY;
    if (t->now_ms - t->moved_ms < k->idle_ms) return PN_BUSY;
    for (size_t i = 0; i < t->n_parts; i++) { /* silence may also be a broker that does not answer: it must say that nothing is there */
        uint64_t first, end;
        const enum pn_result result = t->log->ops->range(t->log, t->parts[i].id, &first, &end, err);
        if (result != PN_OK || end > t->parts[i].next) {
            t->moved_ms = t->now_ms;
            return result != PN_OK ? result : PN_BUSY;
        }
    }
    return PN_OK;
}

/* Takes what is there and proposes it, when it is time. */
static bool propose(struct pn_reader *r) {
    struct pn_topic_rows *t = r->topic;
    const uint64_t batch = r->options.batch_size, rows = pn_ledger_rows(&t->ledger);
    if (t->ledger.closed) return true;
    if (!t->proposing && (!t->looked || t->now_ms - t->looked_ms >= LOOK_MS) && (t->looked_ms == 0 || t->now_ms - t->looked_ms >= t->pause_ms) && !look(r)) return false;
    if (t->n_parts == 0) return true;
    uint64_t fresh = 0;
    bool moved = false;
    for (size_t i = 0; i < t->n_parts; i++) {
        if (!fill(r, &t->parts[i], 1 + SHARE_BATCHES * batch / t->n_parts, false)) return false;
        fresh += t->parts[i].n_new;
        moved = moved || t->parts[i].next > t->parts[i].dealt;
    }
    if (t->proposing) return true;
    struct pn_error err = {""};
    const enum pn_result end = over(r, &err);
    if (end != PN_OK && end != PN_BUSY) return bad(r, end, err.text);
    const bool enough = fresh >= batch - rows % batch && rows - t->rows_given < RESERVE_BATCHES * batch && t->now_ms - t->proposed_ms >= PROPOSE_MS;
    if (t->listed + t->n_parts > MOST_LISTED || (end != PN_OK && !enough)) return true;
    struct pn_extent *e = calloc(t->n_parts, sizeof *e);
    size_t n = 0;
    if (e == NULL) return pn_reader_no_memory(r);
    for (size_t i = 0; moved && i < t->n_parts; i++) {
        const struct part *p = &t->parts[i];
        if (p->next > p->dealt) e[n++] = (struct pn_extent){p->id, p->dealt, p->next, p->n_new, p->bound};
    }
    say(t, e, n, end == PN_OK);
    free(e);
    return true;
}

/* ---- rows ---- */

/* A message's one line: without its end, and with no other in it. */
static bool one_line(struct pn_reader *r, struct pn_record *record) {
    if (record->n_bytes > 0 && record->text[record->n_bytes - 1] == '\n') record->n_bytes--;
    if (record->n_bytes > 0 && record->text[record->n_bytes - 1] == '\r') record->n_bytes--;
    if (r->data.format == PN_FORMAT_JSONL) return true;
    bool quoted = false, begins = true;
    for (size_t i = 0; i < record->n_bytes; i++) {
        const char c = record->text[i];
        if (quoted && c == '"' && i + 1 < record->n_bytes && record->text[i + 1] == '"') i++;
        else if (quoted) quoted = c != '"';
        else if (c == '"' && begins && r->data.format == PN_FORMAT_CSV) quoted = true;
        else if (c == '\n') return pn_row_bad(r, record->line, "the message holds more than one line; a message is one row");
        begins = !quoted && c == r->separator;
    }
    return !quoted || pn_row_bad(r, record->line, "a quote is not closed");
}

static bool give(struct pn_reader *r, const struct part *p, const struct pn_held *held) {
    struct pn_record record = {held->text, held->n_bytes, held->line};
    if (r->topic->named != p) {
        snprintf(r->path, sizeof r->path, "topic %s[%u]", r->data.kafka.topic, p->id);
        r->topic->named = p;
    }
    r->batch.n_columns = r->n_names;
    if (!one_line(r, &record)) return false;
    return r->data.format == PN_FORMAT_CSV ? pn_csv_row(r, &record) : r->data.format == PN_FORMAT_CRITEO ? pn_criteo_row(r, &record) : pn_json_row(r, &record);
}

static bool lost(struct pn_reader *r, const struct pn_extent *e) {
    char line[400];
    snprintf(line, sizeof line, "topic \"%.250s\", partition %u: offsets %llu to %llu held %llu messages when they were dealt to this job, and hold only %llu now; a restart cannot give the same batches",
             r->data.kafka.topic, e->partition, (unsigned long long)e->first, (unsigned long long)e->end, (unsigned long long)e->rows, (unsigned long long)r->topic->given);
    return bad(r, PN_INVALID, line);
}

static enum pn_advance advance(struct pn_reader *r) {
    struct pn_topic_rows *t = r->topic;
    struct pn_error err = {""};
    if (t->log == NULL) {
        if (r->options.topic == NULL) bad(r, PN_INVALID, "this worker was built without Kafka");
        else if ((t->log = r->options.topic(&r->data.kafka, &err)) == NULL) bad(r, PN_INVALID, err.text);
        if (r->result != PN_OK) return PN_ADVANCE_FAILED;
    }
    if (t->incoming != NULL) {
        struct json_object *o = t->incoming;
        t->incoming = NULL;
        const bool good = follow(r, o);
        json_object_put(o);
        if (!good) return PN_ADVANCE_FAILED;
    }
    if (!t->opened) return PN_ADVANCE_WAIT; /* no plan yet */
    if (!propose(r)) return PN_ADVANCE_FAILED;
    while (r->batch.n_rows < r->options.batch_size) {
        if (t->i_extent == t->ledger.n_extents) {
            if (!t->ledger.closed) return PN_ADVANCE_WAIT;
            r->ended = true;
            break;
        }
        const struct pn_extent *e = &t->ledger.extents[t->i_extent];
        if (t->given == e->rows) {
            t->given = 0;
            if (++t->i_extent >= 64) { /* what is behind us is of no use */
                const size_t before = t->ledger.n_extents;
                pn_ledger_trim(&t->ledger, t->rows_given);
                const size_t gone = before - t->ledger.n_extents; /* those without rows that come next may be among them */
                t->i_extent = t->i_extent > gone ? t->i_extent - gone : 0;
            }
            continue;
        }
        struct part *p = find(t, e->partition);
        if (p->n == 0 && !fill(r, p, 0, true)) return PN_ADVANCE_FAILED;
        if (p->n == 0 && p->next < e->end) return PN_ADVANCE_WAIT;
        if (p->n == 0 || front(p)->line >= e->end) {
            lost(r, e);
            return PN_ADVANCE_FAILED;
        }
        t->given++;
        if (t->skip > 0) t->skip--;
        else {
            t->rows_given++;
            if (!give(r, p, front(p))) return PN_ADVANCE_FAILED;
        }
        if (front(p)->line >= p->dealt) p->n_new--;
        drop_front(t, p);
    }
    return r->batch.n_rows > 0 ? PN_ADVANCE_BATCH : PN_ADVANCE_END;
}

/* Offsets that the log has and no batch had yet. Where the log ends is known from what was fetched last. */
static uint64_t lag_of(const struct pn_topic_rows *t, size_t begun_rows) {
    uint64_t lag = begun_rows;
    for (size_t i = 0; i < t->n_parts; i++) {
        const struct part *p = &t->parts[i];
        const uint64_t end = p->begun ? t->log->ops->end(t->log, p->id) : 0, upto = end < p->bound ? end : p->bound, at = p->n > 0 ? front(p)->line : p->next;
        if (end == 0 && !p->at_end) return UINT64_MAX;
        lag += upto > at ? upto - at : 0;
    }
    return t->n_parts > 0 ? lag : UINT64_MAX;
}

enum pn_advance pn_topic_advance(struct pn_reader *r) {
    struct pn_topic_rows *t = r->topic;
    const enum pn_advance a = advance(r);
    t->lag = t->log != NULL ? lag_of(t, a == PN_ADVANCE_WAIT ? r->batch.n_rows : 0) : UINT64_MAX;
    t->troubled = t->log != NULL && t->log->ops->trouble(t->log, &t->trouble);
    return a;
}

/* ---- the core's side ---- */

static void again(struct pn_timer *timer) {
    struct pn_reader *r = timer->owner;
    r->topic->timing = false;
    pn_reader_go_on(r);
}

bool pn_topic_rows_open(struct pn_reader *r) {
    struct pn_topic_rows *t = r->topic = calloc(1, sizeof *t);
    if (t == NULL) return false;
    t->timer = (struct pn_timer){.fire = again, .owner = r};
    t->pause_ms = AGAIN_MS;
    t->lag = t->said_lag = UINT64_MAX;
    if (r->data.format == PN_FORMAT_CRITEO) return pn_criteo_columns(r);
    if (r->data.format == PN_FORMAT_JSONL) return pn_json_columns(r);
    char header[sizeof r->data.columns];
    snprintf(header, sizeof header, "%s", r->data.columns);
    for (char *c = header; r->data.tabs && *c != '\0'; c++)
        if (*c == ',') *c = '\t';
    pn_csv_header(r, &(struct pn_record){header, strlen(header), 0}); /* false: r->result says it at the first advance */
    return true;
}

void pn_topic_rows_free(struct pn_reader *r) {
    struct pn_topic_rows *t = r->topic;
    if (t == NULL) return;
    if (t->log != NULL) t->log->ops->close(t->log);
    for (size_t i = 0; i < t->n_parts; i++) {
        while (t->parts[i].n > 0) drop_front(t, &t->parts[i]);
        free(t->parts[i].queue);
    }
    free(t->parts);
    pn_ledger_free(&t->ledger);
    if (t->proposal != NULL) json_object_put(t->proposal);
    if (t->said != NULL) json_object_put(t->said);
    if (t->incoming != NULL) json_object_put(t->incoming);
    if (t->later != NULL) json_object_put(t->later);
    free(t);
    r->topic = NULL;
}

void pn_topic_rows_stop(struct pn_reader *r) {
    if (r->topic->timing) pn_timer_stop(r->env, &r->topic->timer);
    r->topic->timing = false;
}

void pn_topic_rows_prepare(struct pn_reader *r) {
    struct pn_topic_rows *t = r->topic;
    t->now_ms = pn_now_ms(r->env);
    if (t->later == NULL) return;
    if (t->incoming != NULL) json_object_put(t->incoming);
    t->incoming = t->later;
    t->later = NULL;
}

bool pn_topic_rows_wait(struct pn_reader *r) {
    struct pn_topic_rows *t = r->topic;
    if (t->later != NULL) return false;
    t->timing = true;
    pn_timer_start(r->env, &t->timer, POLL_MS);
    return true;
}

void pn_topic_rows_worked(struct pn_reader *r) {
    struct pn_topic_rows *t = r->topic;
    if (t->troubled && (!t->told || strncmp(t->told_line, t->trouble.text, sizeof t->told_line - 1) != 0)) {
        snprintf(t->told_line, sizeof t->told_line, "%.199s", t->trouble.text);
        pn_log(r->env, PN_WARN, "%s", t->trouble.text);
    }
    if (!t->troubled && t->told) pn_log(r->env, PN_INFO, "kafka brokers %.150s answer again", r->data.kafka.brokers);
    t->told = t->troubled;
    t->said_lag = t->lag;
    if (!t->fresh) return;
    t->fresh = false;
    if (t->said != NULL) json_object_put(t->said);
    t->said = json_object_get(t->proposal);
    if (r->options.proposes != NULL) r->options.proposes(r->options.owner);
}

struct json_object *pn_reader_proposal(const struct pn_reader *r) { return r->topic != NULL && r->topic->said != NULL ? json_object_get(r->topic->said) : NULL; }

uint64_t pn_reader_lag(const struct pn_reader *r) { return r->topic != NULL ? r->topic->said_lag : UINT64_MAX; }

void pn_reader_deal(struct pn_reader *r, struct json_object *ledger) {
    struct pn_topic_rows *t = r->topic;
    if (t == NULL) return;
    if (t->later != NULL) json_object_put(t->later);
    t->later = json_object_get(ledger);
    if (!t->timing) return;
    pn_topic_rows_stop(r);
    pn_reader_go_on(r);
}
