#include "ps/changes.h"
#include <stdlib.h>
#include <string.h>
#include "common/unique.h"
#include "ps/table/table.h"

#define ANSWER_BYTES ((size_t)8 << 20) /* of one answer, or one slot's rows if they are more */
#define FEWEST 1024u                   /* keys that are kept of a table with fewer rows */

struct push { struct push *next; uint64_t version; size_t n; uint64_t keys[]; };
struct list { struct push *first, **end; size_t n_keys; uint64_t floor; }; /* floor: all changes of versions above it are here */
struct pn_changes { uint64_t version; struct list tables[PN_MAX_TABLES]; };

struct pn_changes *pn_changes_open(void) {
    struct pn_changes *c = calloc(1, sizeof *c);
    if (c == NULL) return NULL;
    c->version = 1; /* 0: who has nothing */
    for (size_t t = 0; t < PN_MAX_TABLES; t++) c->tables[t] = (struct list){.end = &c->tables[t].first, .floor = 1};
    return c;
}

static void drop_first(struct list *l) {
    struct push *p = l->first;
    l->first = p->next;
    if (l->first == NULL) l->end = &l->first;
    l->n_keys -= p->n;
    l->floor = p->version;
    free(p);
}

void pn_changes_close(struct pn_changes *c) {
    for (size_t t = 0; c != NULL && t < PN_MAX_TABLES; t++)
        while (c->tables[t].first != NULL) drop_first(&c->tables[t]);
    free(c);
}

void pn_changes_add(struct pn_changes *c, uint32_t t, const uint64_t *keys, size_t n, uint64_t n_rows) {
    struct list *l = &c->tables[t];
    struct push *p = malloc(sizeof *p + n * sizeof *keys);
    c->version++;
    if (p == NULL) {
        while (l->first != NULL) drop_first(l);
        l->floor = c->version;
        return;
    }
    p->next = NULL;
    p->version = c->version;
    p->n = n;
    memcpy(p->keys, keys, n * sizeof *keys);
    *l->end = p;
    l->end = &p->next;
    l->n_keys += n;
    while (l->n_keys > FEWEST && l->n_keys > n_rows) drop_first(l);
}

/* What an answer has of one table: keys in the order of common/unique.h, or (keys NULL) all rows. */
struct part { uint64_t *keys; size_t n, at, count; };

/* The keys behind a version. False: no memory. */
static bool since(const struct list *l, uint64_t version, struct part *part) {
    size_t n = 0, n_pushes = 0;
    for (const struct push *p = l->first; p != NULL; p = p->next)
        if (p->version > version) n += p->n, n_pushes++;
    uint64_t *all = malloc((n + 1) * sizeof *all);
    part->keys = all;
    if (all == NULL) return false;
    for (const struct push *p = l->first; p != NULL; p = p->next)
        if (p->version > version) {
            memcpy(all + part->n, p->keys, p->n * sizeof *all);
            part->n += p->n;
        }
    if (n_pushes < 2) return true; /* they are in order */
    uint32_t *index = malloc(n * sizeof *index);
    void *scratch = malloc(pn_unique_scratch(n));
    part->keys = malloc(n * sizeof *part->keys);
    const bool ok = index != NULL && scratch != NULL && part->keys != NULL;
    if (ok) part->n = pn_unique(all, n, part->keys, index, scratch);
    free(all);
    free(index);
    free(scratch);
    return ok;
}

static size_t row_bytes(const struct pn_job *job, size_t t) { return pn_codec_row_bytes(pn_job_codec(job, t), job->tables[t].dim); }

/* How many rows of a slot the answer would have of a table. */
static size_t rows_of(const struct part *p, const struct pn_table *table, uint32_t slot) {
    if (p->keys == NULL) return pn_table_list(table, slot, NULL);
    size_t n = p->at + p->count;
    const size_t begin = n;
    while (n < p->n && pn_slot_of(p->keys[n]) == slot) n++;
    return n - begin;
}

/* Takes slots from `slot` on into the parts' counts, as many as an answer holds. Returns the first that it does not. */
static uint32_t fill(struct part *parts, const struct pn_job *job, struct pn_table *const *tables, uint32_t slot, uint32_t last_slot) {
    const size_t n_tables = job->i_dense_table;
    size_t bytes = 0;
    for (; slot <= last_slot; slot++) {
        size_t n[PN_MAX_TABLES], more = 0;
        for (size_t t = 0; t < n_tables; t++) {
            n[t] = rows_of(&parts[t], tables[t], slot);
            more += n[t] * (8 + row_bytes(job, t));
        }
        if (bytes > 0 && bytes + more > ANSWER_BYTES) break;
        bytes += more;
        for (size_t t = 0; t < n_tables; t++) parts[t].count += n[t];
    }
    return slot;
}

static struct pn_msg *write(const struct pn_changes *c, struct pn_env *env, const struct pn_job *job, struct pn_table *const *tables, const struct part *parts, uint32_t first_slot, uint32_t next,
                            bool ends, uint64_t term, uint64_t request, const char **why) {
    uint64_t numbers[PN_MAX_TABLES], counts[PN_MAX_TABLES];
    const size_t n_tables = job->i_dense_table;
    size_t bytes = 0;
    for (size_t t = 0; t < n_tables; t++) {
        numbers[t] = t;
        counts[t] = parts[t].count;
        bytes += parts[t].count * 8 + pn_pad8(parts[t].count * row_bytes(job, t));
    }
    struct pn_writer w;
    uint8_t *body;
    pn_write_start(&w, PN_CHANGED, term, request);
    pn_write_u64s(&w, "tables", numbers, n_tables);
    pn_write_u64s(&w, "counts", counts, n_tables);
    pn_write_u64(&w, "version", c->version);
    pn_write_u64(&w, "next", ends ? PN_SLOTS : next);
    struct pn_msg *m = pn_write_finish(&w, env, bytes, &body);
    if (m == NULL) {
        *why = "the rows of one slot would make a larger answer than a frame may be, or memory is out";
        return NULL;
    }
    for (size_t t = 0; t < n_tables; t++) {
        const size_t n = parts[t].count, n_bytes = n * row_bytes(job, t);
        uint64_t *keys = (uint64_t *)(void *)body;
        if (parts[t].keys != NULL) memcpy(keys, parts[t].keys + parts[t].at, n * 8);
        else
            for (size_t slot = first_slot, at = 0; slot < next; slot++) at += pn_table_list(tables[t], (uint32_t)slot, keys + at);
        body += n * 8;
        pn_table_pull_as(tables[t], pn_job_codec(job, t), keys, n, body);
        memset(body + n_bytes, 0, pn_pad8(n_bytes) - n_bytes);
        body += pn_pad8(n_bytes);
    }
    pn_msg_seal(m);
    return m;
}

struct pn_msg *pn_changes_answer(const struct pn_changes *c, struct pn_env *env, const struct pn_job *job, struct pn_table *const *tables, uint32_t first_slot, uint32_t last_slot, uint64_t term,
                                 const struct pn_frame *f, uint64_t *n_rows, const char **why) {
    struct part parts[PN_MAX_TABLES] = {{0}};
    uint64_t version, slot;
    if (!pn_frame_u64(f, "since", &version) || version > c->version || !pn_frame_u64(f, "slot", &slot) || slot > last_slot) {
        *why = "since is a version that this shard gave, or 0, and slot one of its own, or below";
        return NULL;
    }
    if (slot < first_slot) slot = first_slot;
    struct pn_msg *m = NULL;
    bool ok = true;
    for (size_t t = 0; ok && t < job->i_dense_table; t++) {
        if (version < c->tables[t].floor) continue; /* all of it */
        ok = since(&c->tables[t], version, &parts[t]);
        while (ok && parts[t].at < parts[t].n && pn_slot_of(parts[t].keys[parts[t].at]) < slot) parts[t].at++;
    }
    *why = "no memory for an answer";
    if (ok) {
        const uint32_t next = fill(parts, job, tables, (uint32_t)slot, last_slot);
        m = write(c, env, job, tables, parts, (uint32_t)slot, next, next > last_slot, term, f->request, why);
    }
    *n_rows = 0;
    for (size_t t = 0; t < PN_MAX_TABLES; t++) {
        *n_rows += parts[t].count;
        free(parts[t].keys);
    }
    return m;
}
