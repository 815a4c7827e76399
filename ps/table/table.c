/* A table: records (rows.h), what their floats mean (optimizer.h), and the operations of a shard on them. */
#include "ps/table/table.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "ps/table/filter.h"
#include "ps/table/optimizer.h"
#include "ps/table/rows.h"

#define PUSH_BLOCK 256u
#define LINE 16u /* floats of a cache line */

struct pn_table {
    struct pn_table_spec spec;
    uint32_t n_floats, n_state;
    struct pn_rows rows;
    struct pn_filter filter;
    struct pn_table_counters counters;
    pn_place *places; /* scratch of push, seed, restore, scan */
    size_t max_places;
};

/* A record on its way to or from a file: docs/formats.md. */
struct record { uint64_t key; uint32_t frequency, last_step; float floats[]; };
/* What a tracked row has behind its floats. */
struct trace { uint32_t frequency, last_step; };

struct pn_table *pn_table_open(const struct pn_table_spec *spec) {
    assert(spec->dim > 0);
    struct pn_table *t = calloc(1, sizeof(*t));
    if (!t) return NULL;
    t->spec = *spec;
    t->n_state = pn_optimizer_state_floats(&spec->optimizer, spec->dim);
    t->n_floats = spec->dim + t->n_state;
    if (!pn_rows_open(&t->rows, t->n_floats * sizeof(float) + (spec->track ? sizeof(struct trace) : 0))) {
        free(t);
        return NULL;
    }
    pn_filter_open(&t->filter, spec->admit_count, spec->admit_probability, spec->admit_counters, spec->init_seed);
    return t;
}

void pn_table_close(struct pn_table *t) {
    if (!t) return;
    pn_rows_close(&t->rows);
    pn_filter_close(&t->filter);
    free(t->places);
    free(t);
}

uint32_t pn_table_dim(const struct pn_table *t) { return t->spec.dim; }
uint64_t pn_table_rows(const struct pn_table *t) { return t->rows.n_rows; }
uint64_t pn_table_bytes(const struct pn_table *t) { return pn_rows_bytes(&t->rows) + t->filter.n_bytes + sizeof(*t) + t->max_places * sizeof(*t->places); }
bool pn_table_ahead(struct pn_table *t, void **at, size_t *n_bytes) {
    return pn_pages_ahead(&t->rows.row_memory, at, n_bytes) || pn_pages_ahead(&t->rows.index_memory, at, n_bytes);
}
uint32_t pn_table_record_floats(const struct pn_table *t) { return t->n_floats; }
size_t pn_table_record_bytes(const struct pn_table *t) { return (sizeof(struct record) + t->n_floats * sizeof(float) + 7) & ~(size_t)7; }

static struct trace *trace_of(const struct pn_table *t, float *row) { return (struct trace *)(void *)(row + t->n_floats); }

/* ---- pull ---- */

#define PULL_BLOCK 512u
#define AHEAD 24u /* rows on their way while one is copied */

/* Copies n rows; the sizes that models use most get a loop of their own. from[n, n + AHEAD) may be brought, not read. */
#define GATHER(DIM)                                                                                        \
    for (size_t i = 0; i < AHEAD; i++)                                                                     \
        for (size_t b = 0; b < (DIM) && b < 256; b += LINE) __builtin_prefetch(from[i] + b);               \
    for (size_t i = 0; i < n; i++) {                                                                       \
        for (size_t b = 0; b < (DIM) && b < 256; b += LINE) __builtin_prefetch(from[i + AHEAD] + b);       \
        if (from[i] != NULL) memcpy(out + i * (DIM), from[i], (DIM) * sizeof(float));                      \
        else if (t->spec.explicit_rows) memset(out + i * (DIM), 0, (DIM) * sizeof(float));                 \
        else pn_init_row(&t->spec, keys[i], out + i * (DIM));                                              \
    }

static void gather(const struct pn_table *t, const uint64_t *keys, float *const *from, size_t n, float *out) {
    switch (t->spec.dim) {
        case 8: GATHER(8) return;
        case 16: GATHER(16) return;
        case 32: GATHER(32) return;
        case 64: GATHER(64) return;
        default: GATHER((size_t)t->spec.dim)
    }
}

size_t pn_table_pull(const struct pn_table *t, const uint64_t *keys, size_t n, float *rows) {
    pn_place places[PULL_BLOCK];
    float *from[PULL_BLOCK + AHEAD];
    size_t n_missing = 0;
    for (size_t begin = 0; begin < n; begin += PULL_BLOCK) {
        const size_t count = n - begin < PULL_BLOCK ? n - begin : PULL_BLOCK;
        n_missing += pn_rows_find(&t->rows, keys + begin, count, places);
        for (size_t i = 0; i < count; i++) from[i] = (uint32_t)places[i] != PN_NO_ROW ? pn_rows_at(&t->rows, places[i]) : NULL;
        for (size_t i = 0; i < AHEAD; i++) from[count + i] = NULL;
        gather(t, keys + begin, from, count, rows + begin * t->spec.dim);
    }
    return n_missing;
}

/* ---- push ---- */

static bool reserve_places(struct pn_table *t, size_t n) {
    if (n <= t->max_places) return true;
    size_t max = n < 1024 ? 1024 : n + n / 2;
    pn_place *places = realloc(t->places, max * sizeof(*places));
    if (!places) return false;
    t->places = places;
    t->max_places = max;
    return true;
}

static float *row_of(struct pn_table *t, uint64_t key, pn_place place) {
    if ((uint32_t)place != PN_NO_ROW) return pn_rows_at(&t->rows, place);
    float *row = pn_rows_make_new(&t->rows, key);
    pn_init_row(&t->spec, key, row);
    pn_optimizer_start(&t->spec.optimizer, t->spec.dim, row, row + t->spec.dim);
    return row;
}

/* Marks the missing keys that get no row yet. Nothing is counted before it is sure that the push goes in. False: no memory. */
static bool filter_missing(struct pn_table *t, const uint64_t *keys, size_t n, uint64_t step, const uint64_t *skip) {
    for (size_t i = 0; i < n; i++) {
        const uint32_t i_slot = (uint32_t)(t->places[i] >> 32);
        if ((uint32_t)t->places[i] != PN_NO_ROW || pn_slot_skipped(skip, i_slot) || pn_filter_admits(&t->filter, pn_mix64(keys[i]), step)) continue;
        if (!pn_filter_reserve(&t->filter, i_slot)) return false;
        t->places[i] = (pn_place)i_slot << 32 | PN_DROPPED;
    }
    return true;
}

static void count_missing(struct pn_table *t, const uint64_t *keys, size_t n, const uint64_t *skip) {
    for (size_t i = 0; i < n; i++) {
        if (pn_slot_skipped(skip, (uint32_t)(t->places[i] >> 32))) continue;
        if ((uint32_t)t->places[i] == PN_NO_ROW) t->counters.admitted++;
        if ((uint32_t)t->places[i] != PN_DROPPED) continue;
        pn_filter_count(&t->filter, pn_mix64(keys[i]));
        t->counters.dropped++;
    }
}

/* Steps whose decay a row has to catch up with; steps of other producers run a little apart. A row that is new has nothing to catch up with. */
static float elapsed(const struct pn_table *t, const struct trace *x, uint32_t step) {
    const struct pn_optimizer_spec *o = &t->spec.optimizer;
    const uint32_t age = step - x->last_step;
    if (x->frequency == 0 || age == 0 || age >= 1u << 31) return 1;
    const uint64_t steps = (uint64_t)age * (o->decay_pace > 0 ? o->decay_pace : 1);
    return (float)(steps < o->decay_cap ? steps : o->decay_cap);
}

enum pn_result pn_table_push(struct pn_table *t, const uint64_t *keys, const float *gradients, size_t n, uint64_t step,
                             const uint64_t *skip) {
    const struct pn_optimizer_spec *o = &t->spec.optimizer;
    const uint32_t dim = t->spec.dim;
    if (!reserve_places(t, n)) return PN_NO_MEMORY;
    const size_t n_missing = pn_rows_find(&t->rows, keys, n, t->places);
    if (n_missing > 0 && t->spec.explicit_rows)
        for (size_t i = 0; i < n; i++)
            if ((uint32_t)t->places[i] == PN_NO_ROW && !pn_slot_skipped(skip, (uint32_t)(t->places[i] >> 32))) return PN_NOT_SEEDED;
    const bool filtered = n_missing > 0 && pn_filter_on(&t->filter) && !t->spec.explicit_rows;
    if (filtered && !filter_missing(t, keys, n, step, skip)) return PN_NO_MEMORY;
    if (n_missing > 0 || t->rows.cut) {
        enum pn_result result = pn_rows_prepare(&t->rows, t->places, n, skip, true, n_missing > 0);
        if (result != PN_OK) return result;
    }
    if (filtered) count_missing(t, keys, n, skip);
    float *rows[PUSH_BLOCK];
    const float *g[PUSH_BLOCK];
    float l2[PUSH_BLOCK];
    const bool lazy = o->decay_cap > 0 && t->spec.track;
    for (size_t begin = 0; begin < n; begin += PUSH_BLOCK) {
        const size_t end = n - begin < PUSH_BLOCK ? n : begin + PUSH_BLOCK;
        size_t count = 0;
        for (size_t i = begin; i < end; i++) {
            if (skip && pn_slot_skipped(skip, (uint32_t)(t->places[i] >> 32))) continue;
            if ((uint32_t)t->places[i] == PN_DROPPED) continue;
            rows[count] = row_of(t, keys[i], t->places[i]);
            g[count++] = gradients + i * dim;
        }
        if (lazy)
            for (size_t i = 0; i < count; i++) l2[i] = o->l2 * elapsed(t, trace_of(t, rows[i]), (uint32_t)step);
        pn_optimizer_steps(o, dim, rows, g, lazy ? l2 : NULL, count);
        for (size_t i = 0; t->spec.track && i < count; i++) {
            struct trace *x = trace_of(t, rows[i]);
            if (x->frequency < UINT32_MAX) x->frequency++;
            x->last_step = (uint32_t)step;
        }
    }
    return PN_OK;
}

enum pn_result pn_table_seed(struct pn_table *t, const uint64_t *keys, const float *rows, size_t n) {
    const uint32_t dim = t->spec.dim;
    if (!reserve_places(t, n)) return PN_NO_MEMORY;
    pn_rows_find(&t->rows, keys, n, t->places);
    enum pn_result result = pn_rows_prepare(&t->rows, t->places, n, NULL, false, true);
    if (result != PN_OK) return result;
    for (size_t i = 0; i < n; i++) {
        if ((uint32_t)t->places[i] != PN_NO_ROW) continue;
        bool made;
        float *row = pn_rows_make(&t->rows, keys[i], &made);
        if (!made) continue;
        memcpy(row, rows + i * dim, dim * sizeof(float));
        pn_optimizer_start(&t->spec.optimizer, dim, row, row + dim);
    }
    return PN_OK;
}

/* ---- whole records ---- */

enum pn_result pn_table_restore(struct pn_table *t, const void *records, size_t n) {
    enum { N = 256 };
    const size_t size = pn_table_record_bytes(t);
    const uint8_t *at = records;
    uint64_t keys[N];
    /* In bounded pieces, each found and given room at once; a half-restored table is of no use anyway. */
    for (; n > 0; n -= n < N ? n : N) {
        size_t count = n < N ? n : N;
        for (size_t i = 0; i < count; i++) memcpy(&keys[i], at + i * size, sizeof(keys[i]));
        if (!reserve_places(t, count)) return PN_NO_MEMORY;
        pn_rows_find(&t->rows, keys, count, t->places);
        enum pn_result result = pn_rows_prepare(&t->rows, t->places, count, NULL, true, true);
        if (result != PN_OK) return result;
        for (size_t i = 0; i < count; i++, at += size) {
            bool made;
            const struct record *r = (const struct record *)(const void *)at;
            float *row = pn_rows_make(&t->rows, keys[i], &made);
            memcpy(row, r->floats, t->n_floats * sizeof(float));
            if (t->spec.track) *trace_of(t, row) = (struct trace){r->frequency, r->last_step};
        }
    }
    return PN_OK;
}

bool pn_table_cut(struct pn_table *t) {
    if (!pn_rows_cut(&t->rows)) return false;
    if (pn_filter_on(&t->filter)) pn_filter_cut(&t->filter);
    return true;
}

size_t pn_table_scan(struct pn_table *t, void *out, size_t max) {
    enum { N = 256 };
    const size_t size = pn_table_record_bytes(t), row_bytes = t->rows.row_bytes;
    uint64_t keys[N];
    size_t given = 0;
    while (given < max) {
        /* The packed rows go to the end of their room, and from there each to its place. */
        size_t want = max - given < N ? max - given : N;
        uint8_t *to = (uint8_t *)out + given * size, *packed = to + want * (size - row_bytes);
        size_t n = pn_rows_scan(&t->rows, keys, packed, want);
        for (size_t i = 0; i < n; i++, to += size) {
            struct trace trace = {0, 0};
            if (t->spec.track) memcpy(&trace, packed + i * row_bytes + t->n_floats * sizeof(float), sizeof trace);
            const struct record head = {keys[i], trace.frequency, trace.last_step};
            memmove(to + sizeof head, packed + i * row_bytes, t->n_floats * sizeof(float));
            memcpy(to, &head, sizeof head);
            memset(to + sizeof head + t->n_floats * sizeof(float), 0, size - sizeof head - t->n_floats * sizeof(float));
        }
        given += n;
        if (n < want) break;
    }
    return given;
}
void pn_table_cut_abort(struct pn_table *t) {
    pn_rows_cut_abort(&t->rows);
    pn_filter_cut_abort(&t->filter);
}

const uint8_t *pn_table_scan_counts(struct pn_table *t, uint32_t *i_slot, size_t *n_bytes) {
    *n_bytes = pn_filter_slot_bytes(&t->filter);
    return pn_filter_scan(&t->filter, i_slot);
}

enum pn_result pn_table_restore_counts(struct pn_table *t, uint32_t i_slot, const uint8_t *counts, size_t n_bytes) {
    if (!pn_filter_on(&t->filter) || n_bytes != pn_filter_slot_bytes(&t->filter) || i_slot >= PN_SLOTS) return PN_CORRUPT;
    return pn_filter_restore(&t->filter, i_slot, counts) ? PN_OK : PN_NO_MEMORY;
}

/* ---- eviction ---- */

const struct pn_table_counters *pn_table_counters(const struct pn_table *t) { return &t->counters; }

struct candidate { uint32_t frequency, age, i_row; };
/* Least pushed first; of these the longest untouched; of these the oldest number: one order on every machine. */
static int by_worth(const void *a, const void *b) {
    const struct candidate *x = a, *y = b;
    if (x->frequency != y->frequency) return x->frequency < y->frequency ? -1 : 1;
    if (x->age != y->age) return x->age > y->age ? -1 : 1;
    return x->i_row < y->i_row ? -1 : 1;
}

void pn_table_evict(struct pn_table *t, uint32_t i_slot, uint64_t step) {
    if ((t->spec.evict_age == 0 && t->spec.evict_rows == 0) || t->rows.cut) return;
    const uint32_t n = t->rows.slots[i_slot].n_rows;
    if (n == 0) return;
    bool *gone = calloc(n, sizeof *gone);
    struct candidate *c = malloc(n * sizeof *c);
    uint32_t n_gone = 0, n_left = 0;
    if (gone && c) {
        for (uint32_t i = 0; i < n; i++) {
            const struct trace *x = trace_of(t, pn_rows_at(&t->rows, (pn_place)i_slot << 32 | i));
            const uint32_t age = (uint32_t)step - x->last_step;
            gone[i] = t->spec.evict_age > 0 && age < 1u << 31 && age > t->spec.evict_age; /* a step ahead of ours is young */
            n_gone += gone[i];
            if (!gone[i]) c[n_left++] = (struct candidate){x->frequency, age < 1u << 31 ? age : 0, i};
        }
        /* A slot's share of the limit; a twentieth below it, so that it is not sorted again with the next row. */
        const uint64_t most = t->spec.evict_rows / PN_SLOTS;
        if (t->spec.evict_rows > 0 && n_left > most) {
            qsort(c, n_left, sizeof *c, by_worth);
            for (uint32_t i = 0; i < n_left - (uint32_t)(most - most / 20); i++, n_gone++) gone[c[i].i_row] = true;
        }
        if (n_gone > 0 && pn_rows_remove(&t->rows, i_slot, gone)) t->counters.evicted += n_gone;
    }
    free(gone);
    free(c);
}
