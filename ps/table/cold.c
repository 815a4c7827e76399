#include "ps/table/cold.h"
#include <stdlib.h>
#include <string.h>

#define BATCH 16384u /* rows of a demotion */
#define LEAST 1u     /* rows a slot keeps in memory, however small the limit */

struct pn_table *pn_table_open_tiered(const struct pn_table_spec *spec, struct pn_tier *tier) {
    struct pn_table *t = pn_table_open(spec);
    struct pn_cold *c = calloc(1, sizeof *c);
    uint8_t *nothing = t != NULL ? calloc(1, t->value_bytes + 64) : NULL;
    if (c == NULL || nothing == NULL || !spec->track) {
        free(c);
        free(nothing);
        pn_table_close(t);
        pn_tier_unref(tier);
        return NULL;
    }
    const uint64_t share = spec->memory / (t->rows.row_bytes + 12) / PN_SLOTS;
    *c = (struct pn_cold){.tier = tier, .nothing = nothing, .share = share < LEAST ? LEAST : share < 1u << 30 ? (uint32_t)share : 1u << 30};
    t->cold = c;
    return t;
}

void pn_cold_close(struct pn_cold *c) {
    if (c == NULL) return;
    pn_tier_unref(c->tier);
    free(c->nothing);
    free(c->cut_rows);
    free(c->mixes);
    free(c->at);
    free(c->found_at);
    free(c->records);
    free(c->found);
    free(c);
}

uint64_t pn_table_cold_rows(const struct pn_table *t) { return t->cold != NULL ? t->cold->n_rows : 0; }
uint64_t pn_table_cold_bytes(const struct pn_table *t) { return t->cold != NULL ? t->cold->tier->ops->bytes(t->cold->tier) : 0; }
size_t pn_table_tier_bytes(const struct pn_table_spec *spec) {
    const size_t values = (pn_codec_row_bytes(spec->storage, spec->dim) + 3) & ~(size_t)3;
    return values + pn_optimizer_state_floats(&spec->optimizer, spec->dim) * sizeof(float) + sizeof(struct pn_trace);
}

/* ---- looking rows up ---- */

static bool grow(void **p, size_t n) {
    void *grown = realloc(*p, n);
    if (grown == NULL) return false;
    *p = grown;
    return true;
}

bool pn_cold_reserve(struct pn_cold *c, size_t n) {
    if (n <= c->room) return true;
    const size_t room = n < 1024 ? 1024 : n + n / 2;
    if (!grow((void **)&c->mixes, room * sizeof *c->mixes) || !grow((void **)&c->at, room * sizeof *c->at) || !grow((void **)&c->found_at, room * sizeof *c->found_at) ||
        !grow((void **)&c->found, room * sizeof *c->found)) return false;
    c->room = room;
    return true;
}

enum pn_result pn_cold_get(struct pn_cold *c, const uint64_t *keys, size_t n, size_t n_bytes) {
    if (c->failed) return PN_IO;
    if (n * n_bytes > c->record_room) {
        if (!grow((void **)&c->records, n * n_bytes * 3 / 2)) return PN_NO_MEMORY;
        c->record_room = n * n_bytes * 3 / 2;
    }
    for (size_t i = 0; i < n; i++) c->mixes[i] = pn_mix64(keys[c->at[i]]);
    c->failed = !c->tier->ops->get(c->tier, c->mixes, n, n_bytes, c->records, c->found);
    return c->failed ? PN_IO : PN_OK;
}

/* ---- demotion ---- */

struct pn_demotion {
    struct pn_tier *tier;
    size_t n;
    bool ok;
    uint64_t *mixes;
    uint8_t *records; /* rows as they lie in memory */
};

static void free_demotion(struct pn_demotion *d) {
    pn_tier_unref(d->tier);
    free(d->mixes);
    free(d->records);
    free(d);
}

struct candidate { uint32_t frequency, age, i_row; uint64_t mix; };
/* The least pushed first; of these the longest untouched; of these the oldest number. */
static int colder(const void *a, const void *b) {
    const struct candidate *x = a, *y = b;
    if (x->frequency != y->frequency) return x->frequency < y->frequency ? -1 : 1;
    if (x->age != y->age) return x->age > y->age ? -1 : 1;
    return x->i_row < y->i_row ? -1 : 1;
}

static int by_mix(const void *a, const void *b) {
    const struct candidate *x = a, *y = b;
    return (x->mix > y->mix) - (x->mix < y->mix);
}

/* The coldest rows of a slot that has too many: down to a twentieth below its share, so that it is not sorted again with the next row. */
static bool pick(struct pn_table *t, uint32_t i_slot, uint64_t step, struct pn_demotion *d) {
    const uint32_t n = t->rows.slots[i_slot].n_rows, keep = t->cold->share - t->cold->share / 20;
    const uint32_t going = n - keep;
    if (d->n + going > BATCH && d->n > 0) return false; /* next time */
    struct candidate *c = malloc(n * sizeof *c);
    uint64_t *keys = malloc(n * sizeof *keys), *mixes = realloc(d->mixes, (d->n + going) * sizeof *mixes);
    if (mixes != NULL) d->mixes = mixes;
    uint8_t *records = realloc(d->records, (d->n + going) * t->rows.row_bytes);
    if (records != NULL) d->records = records;
    const bool ok = c != NULL && keys != NULL && mixes != NULL && records != NULL;
    if (ok) {
        for (uint32_t i = 0; i < n; i++) {
            const struct pn_trace *x = pn_trace_of(t, pn_rows_at(&t->rows, (pn_place)i_slot << 32 | i));
            const uint32_t age = (uint32_t)step - x->last_step;
            c[i] = (struct candidate){x->frequency, age < 1u << 31 ? age : 0, i, 0};
        }
        qsort(c, n, sizeof *c, colder);
        pn_index_keys(&t->rows, i_slot, n, keys);
        for (uint32_t i = 0; i < going; i++) c[i].mix = pn_mix64(keys[c[i].i_row]);
        qsort(c, going, sizeof *c, by_mix); /* the tier likes them rising */
        for (uint32_t i = 0; i < going; i++, d->n++) {
            d->mixes[d->n] = c[i].mix;
            memcpy(d->records + d->n * t->rows.row_bytes, pn_rows_at(&t->rows, (pn_place)i_slot << 32 | c[i].i_row), t->rows.row_bytes);
        }
    }
    free(c);
    free(keys);
    return ok;
}

struct pn_demotion *pn_table_demote(struct pn_table *t, uint32_t *i_slot, uint64_t step) {
    struct pn_cold *c = t->cold;
    if (c == NULL || c->failed || t->rows.cut || c->cut_rows != NULL) return NULL;
    struct pn_demotion *d = NULL;
    for (uint32_t i = 0; i < PN_SLOTS; i++, *i_slot = (*i_slot + 1) % PN_SLOTS) {
        if (t->rows.slots[*i_slot].n_rows <= c->share || pn_slot_skipped(c->flying, *i_slot)) continue;
        if (d == NULL) {
            if ((d = calloc(1, sizeof *d)) == NULL) return NULL;
            d->tier = pn_tier_ref(c->tier);
        }
        if (!pick(t, *i_slot, step, d)) break;
        c->flying[*i_slot >> 6] |= 1ull << (*i_slot & 63);
    }
    if (d != NULL && d->n == 0) {
        free_demotion(d);
        d = NULL;
    }
    return d;
}

void pn_demotion_write(struct pn_demotion *d) { d->ok = d->tier->ops->put(d->tier, d->mixes, d->records, d->n); }

void pn_table_demoted(struct pn_table *t, struct pn_demotion *d) {
    struct pn_cold *c = t != NULL ? t->cold : NULL;
    for (size_t i = 0; c != NULL && i < d->n; i++) c->flying[d->mixes[i] >> 60] &= ~(1ull << (d->mixes[i] >> 54 & 63));
    if (c == NULL || !d->ok || t->rows.cut || c->cut_rows != NULL) { /* a failed put loses nothing: the rows are still in memory */
        if (c != NULL) t->counters.demotions_failed += !d->ok;
        free_demotion(d);
        return;
    }
    for (size_t begin = 0, end; begin < d->n; begin = end) {
        const uint32_t i_slot = (uint32_t)(d->mixes[begin] >> 54);
        for (end = begin; end < d->n && d->mixes[end] >> 54 == i_slot;) end++;
        const uint32_t n = t->rows.slots[i_slot].n_rows;
        bool *gone = calloc(n + 1, sizeof *gone);
        if (gone == NULL) continue;
        uint32_t n_gone = 0;
        for (size_t i = begin; i < end; i++) {
            const uint32_t i_row = pn_index_find(&t->rows, d->mixes[i]);
            if (i_row == PN_NO_ROW) continue;
            /* Every push moves the frequency: what has the same trace has the same bytes. A saturated one is hot and was not picked. */
            uint8_t *row = pn_rows_at(&t->rows, (pn_place)i_slot << 32 | i_row);
            if (memcmp(pn_trace_of(t, row), d->records + i * t->rows.row_bytes + t->payload_bytes, sizeof(struct pn_trace)) != 0) continue;
            gone[i_row] = true;
            n_gone++;
        }
        if (n_gone > 0 && pn_rows_remove(&t->rows, i_slot, gone)) {
            c->n_rows += n_gone;
            t->counters.demoted += n_gone;
        }
        free(gone);
    }
    free_demotion(d);
}

bool pn_table_crowded(const struct pn_table *t) {
    const struct pn_cold *c = t->cold;
    return c != NULL && t->rows.n_rows > (uint64_t)c->share * PN_SLOTS / 8 * 9;
}

/* ---- the cut ---- */

bool pn_cold_cut(struct pn_table *t) {
    struct pn_cold *c = t->cold;
    if (c == NULL) return true;
    if ((c->cut_rows = malloc(PN_SLOTS * sizeof *c->cut_rows)) == NULL) return false;
    for (uint32_t i = 0; i < PN_SLOTS; i++) c->cut_rows[i] = t->rows.slots[i].n_rows;
    c->cut_n_rows = c->n_rows;
    return true;
}

void pn_cold_cut_end(struct pn_table *t) {
    if (t->cold == NULL) return;
    free(t->cold->cut_rows);
    t->cold->cut_rows = NULL;
}

bool pn_table_cut_is_cold(const struct pn_table *t) { return t->cold != NULL && t->cold->cut_rows != NULL && t->cold->cut_n_rows > 0; }

/* A scan holds the tier, not the table: it may outlive it. */
struct pn_cold_scan {
    struct pn_tier *tier;
    struct pn_tier_scan *scan;
    size_t record_bytes, payload_bytes, tier_bytes;
    uint64_t *mixes;
    uint8_t *rows;
    size_t room;
};

struct pn_cold_scan *pn_table_cold_scan(struct pn_table *t) {
    if (!pn_table_cut_is_cold(t)) return NULL;
    struct pn_cold_scan *s = calloc(1, sizeof *s);
    if (s == NULL) return NULL;
    *s = (struct pn_cold_scan){.tier = pn_tier_ref(t->cold->tier), .record_bytes = pn_table_record_bytes(t), .payload_bytes = t->payload_bytes, .tier_bytes = t->rows.row_bytes};
    return s;
}

/* Any thread. */
size_t pn_cold_scan_next(struct pn_cold_scan *s, void *out, size_t max, bool *failed) {
    *failed = true;
    if (s->scan == NULL && (s->scan = s->tier->ops->scan(s->tier)) == NULL) return 0;
    if (max > s->room) {
        if (!grow((void **)&s->mixes, max * sizeof *s->mixes) || !grow((void **)&s->rows, max * s->tier_bytes)) return 0;
        s->room = max;
    }
    *failed = false;
    const size_t n = s->tier->ops->next(s->scan, s->mixes, s->rows, max, failed);
    for (size_t i = 0; i < n; i++) {
        uint8_t *to = (uint8_t *)out + i * s->record_bytes;
        const uint8_t *row = s->rows + i * s->tier_bytes;
        struct pn_record head = {.key = pn_unmix64(s->mixes[i])};
        memset(to, 0, s->record_bytes);
        memcpy(&head.frequency, row + s->payload_bytes, sizeof(struct pn_trace));
        memcpy(to, &head, sizeof head);
        memcpy(to + sizeof head, row, s->payload_bytes);
    }
    return n;
}

/* The owner's thread. */
size_t pn_table_cold_keep(struct pn_table *t, void *records, size_t n) {
    const size_t bytes = pn_table_record_bytes(t);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        const uint8_t *from = (const uint8_t *)records + i * bytes;
        uint64_t key;
        memcpy(&key, from, 8);
        const uint64_t mix = pn_mix64(key);
        if (pn_index_find(&t->rows, mix) < t->cold->cut_rows[mix >> 54]) continue; /* it was in memory: what is here is older */
        if (kept != i) memcpy((uint8_t *)records + kept * bytes, from, bytes);
        kept++;
    }
    return kept;
}

void pn_cold_scan_end(struct pn_cold_scan *s) {
    if (s == NULL) return;
    if (s->scan != NULL) s->tier->ops->scan_end(s->scan);
    pn_tier_unref(s->tier);
    free(s->mixes);
    free(s->rows);
    free(s);
}
