/* A table: records (rows.h), what their bytes mean (optimizer.h, common/codec.h), and the operations of a shard on them. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "ps/table/cold.h"
#include "ps/table/internal.h"

#define PUSH_BLOCK 256u
#define WORK_ROWS 32u /* decoded at once: they stay in the first-level cache */

struct pn_table *pn_table_open(const struct pn_table_spec *spec) {
    assert(spec->dim > 0);
    struct pn_table *t = calloc(1, sizeof(*t));
    if (!t) return NULL;
    t->spec = *spec;
    t->n_state = pn_optimizer_state_floats(&spec->optimizer, spec->dim);
    t->value_bytes = (pn_codec_row_bytes(spec->storage, spec->dim) + 3) & ~(size_t)3;
    t->payload_bytes = t->value_bytes + t->n_state * sizeof(float);
    if (spec->storage != PN_CODEC_FLOAT32) t->work = malloc(WORK_ROWS * (((size_t)spec->dim + t->n_state) * sizeof(float) + t->value_bytes));
    if ((spec->storage != PN_CODEC_FLOAT32 && t->work == NULL) || !pn_rows_open(&t->rows, t->payload_bytes + (spec->track ? sizeof(struct pn_trace) : 0))) {
        free(t->work);
        free(t);
        return NULL;
    }
    pn_filter_open(&t->filter, spec->admit_count, spec->admit_probability, spec->admit_counters, spec->init_seed);
    return t;
}

void pn_table_close(struct pn_table *t) {
    if (!t) return;
    pn_cold_close(t->cold);
    pn_rows_close(&t->rows);
    pn_filter_close(&t->filter);
    free(t->places);
    free(t->work);
    free(t->denied);
    free(t);
}

void pn_table_begin_with(struct pn_table *t, void (*begin)(void *, uint64_t, float *), void *owner) {
    t->begin = begin;
    t->begin_owner = owner;
}

uint32_t pn_table_dim(const struct pn_table *t) { return t->spec.dim; }
uint64_t pn_table_rows(const struct pn_table *t) { return t->rows.n_rows + pn_table_cold_rows(t); }
uint64_t pn_table_bytes(const struct pn_table *t) { return pn_rows_bytes(&t->rows) + t->filter.n_bytes + sizeof(*t) + t->max_places * sizeof(*t->places); }
void pn_table_preallocate(struct pn_table *t, uint64_t n_bytes) {
    t->rows.index_memory.wanted = n_bytes / (t->rows.row_bytes + 12) * 12;
    t->rows.row_memory.wanted = n_bytes - t->rows.index_memory.wanted;
}
void pn_table_confine(struct pn_table *t, size_t most_bytes) {
    pn_pages_confine(&t->rows.row_memory, most_bytes);
    pn_pages_confine(&t->rows.index_memory, most_bytes);
}
bool pn_table_ahead(struct pn_table *t, void **at, size_t *n_bytes) {
    return pn_pages_ahead(&t->rows.row_memory, at, n_bytes) || pn_pages_ahead(&t->rows.index_memory, at, n_bytes);
}
size_t pn_table_record_bytes(const struct pn_table *t) { return (sizeof(struct pn_record) + t->payload_bytes + 7) & ~(size_t)7; }

/* ---- pull ---- */

/* Rows of a pull that are on their way at once: more keeps memory busier, until they push one another out of the near caches. */
static size_t pull_block(size_t row_bytes) {
    const size_t n = (96u << 10) / row_bytes;
    return n > PN_FIND_BLOCK ? PN_FIND_BLOCK : n > 16 ? n : 16;
}

/* The first values of a row as it would be stored: a pull of a missing key and the row made later agree. */
static void first_values(const struct pn_table *t, uint64_t key, void *stored) {
    if (t->spec.storage == PN_CODEC_FLOAT32) {
        pn_init_row(&t->spec, key, stored);
        if (t->begin != NULL && !pn_table_denies(t, key)) t->begin(t->begin_owner, key, stored);
        return;
    }
    float values[t->spec.dim];
    pn_init_row(&t->spec, key, values);
    if (t->begin != NULL && !pn_table_denies(t, key)) t->begin(t->begin_owner, key, values);
    pn_codec_encode(t->spec.storage, values, 1, t->spec.dim, stored);
}

/* Copies n rows as they are stored; the sizes that models use most get a loop of their own. */
#define GATHER(BYTES)                                                                                      \
    for (size_t i = 0; i < n; i++) {                                                                       \
        if (from[i] != NULL) memcpy(out + i * (BYTES), from[i], (BYTES));                                  \
        else if (t->spec.explicit_rows) memset(out + i * (BYTES), 0, (BYTES));                             \
        else first_values(t, keys[i], out + i * (BYTES));                                                  \
    }

static void gather(const struct pn_table *t, const uint64_t *keys, const void *const *from, size_t n, uint8_t *out) {
    const size_t bytes = pn_codec_row_bytes(t->spec.storage, t->spec.dim);
    switch (bytes) {
        case 32: GATHER(32) return;
        case 64: GATHER(64) return;
        case 128: GATHER(128) return;
        case 256: GATHER(256) return;
        default: GATHER(bytes)
    }
}

/* The rows that are not in memory: from the tier, or the first values. */
static size_t pull_cold(const struct pn_table *t, const uint64_t *keys, size_t n, size_t bytes, uint8_t *out) {
    struct pn_cold *c = t->cold;
    const bool any = c->n_rows > 0;
    size_t n_missing = 0;
    if (any && pn_cold_get(c, keys, n, bytes) != PN_OK) return SIZE_MAX;
    for (size_t i = 0; i < n; i++) {
        uint8_t *to = out + c->at[i] * bytes;
        if (any && c->found[i]) memcpy(to, c->records + i * bytes, bytes);
        else {
            first_values(t, keys[c->at[i]], to);
            n_missing++;
        }
    }
    return n_missing;
}

/* Rows as they are stored, one behind the other. */
static size_t pull_stored(const struct pn_table *t, const uint64_t *keys, size_t n, uint8_t *out) {
    const size_t bytes = pn_codec_row_bytes(t->spec.storage, t->spec.dim);
    const void *from[PN_FIND_BLOCK];
    const size_t block = pull_block(bytes);
    size_t n_missing = 0, n_cold = 0;
    if (t->cold != NULL && !pn_cold_reserve(t->cold, n)) return SIZE_MAX;
    for (size_t begin = 0; begin < n; begin += block) {
        const size_t count = n - begin < block ? n - begin : block, missing = pn_rows_ask(&t->rows, keys + begin, count, from, bytes);
        n_missing += missing;
        for (size_t i = 0; t->cold != NULL && missing > 0 && i < count; i++) {
            if (from[i] != NULL) continue;
            t->cold->at[n_cold++] = (uint32_t)(begin + i);
            from[i] = t->cold->nothing;
        }
        gather(t, keys + begin, from, count, out + begin * bytes);
    }
    return n_cold > 0 ? pull_cold(t, keys, n_cold, bytes, out) : n_missing;
}

/* float32 rows as another codec has them: encoded where they lie. */
static size_t pull_encoded(const struct pn_table *t, enum pn_codec codec, const uint64_t *keys, size_t n, uint8_t *out) {
    const size_t dim = t->spec.dim, bytes = pn_codec_row_bytes(codec, dim);
    const void *from[PN_FIND_BLOCK];
    const size_t block = pull_block(dim * sizeof(float));
    float first[dim];
    size_t n_missing = 0;
    for (size_t begin = 0; begin < n; begin += block) {
        const size_t count = n - begin < block ? n - begin : block, missing = pn_rows_ask(&t->rows, keys + begin, count, from, dim * sizeof(float));
        pn_codec_encode_rows(codec, (const float *const *)from, count, dim, out + begin * bytes);
        n_missing += missing;
        for (size_t i = 0; missing > 0 && i < count; i++) {
            if (from[i] != NULL) continue;
            if (t->spec.explicit_rows) memset(first, 0, dim * sizeof *first);
            else first_values(t, keys[begin + i], first);
            pn_codec_encode(codec, first, 1, dim, out + (begin + i) * bytes);
        }
    }
    return n_missing;
}

size_t pn_table_pull_as(const struct pn_table *t, enum pn_codec codec, const uint64_t *keys, size_t n, void *out) {
    if (codec == t->spec.storage) return pull_stored(t, keys, n, out);
    if (t->spec.storage == PN_CODEC_FLOAT32 && t->cold == NULL) return pull_encoded(t, codec, keys, n, out);
    /* In blocks that the second-level cache holds. */
    const size_t dim = t->spec.dim, wire = pn_codec_row_bytes(codec, dim);
    float floats[8192];
    uint8_t raw[4 * 8192];
    const size_t block = 8192 / dim;
    size_t missing = 0;
    for (size_t at = 0; at < n; at += block) {
        const size_t count = n - at < block ? n - at : block;
        uint8_t *to = (uint8_t *)out + at * wire;
        float *values = codec == PN_CODEC_FLOAT32 ? (float *)(void *)to : floats;
        const size_t some = pull_stored(t, keys + at, count, t->spec.storage == PN_CODEC_FLOAT32 ? (uint8_t *)values : raw);
        if (some == SIZE_MAX) return SIZE_MAX;
        missing += some;
        if (t->spec.storage != PN_CODEC_FLOAT32) pn_codec_decode(t->spec.storage, raw, count, dim, values);
        if (codec != PN_CODEC_FLOAT32) pn_codec_encode(codec, values, count, dim, to);
    }
    return missing;
}

size_t pn_table_pull(const struct pn_table *t, const uint64_t *keys, size_t n, float *rows) { return pn_table_pull_as(t, PN_CODEC_FLOAT32, keys, n, rows); }

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

/* Key number i of a request is missing in memory but there in the tier. Holds after look_cold. */
static bool is_cold(const struct pn_table *t, size_t i) { return t->cold != NULL && t->cold->found_at[i] > 0; }

/* Looks in the tier for what is missing in memory. */
static enum pn_result look_cold(struct pn_table *t, const uint64_t *keys, size_t n, const uint64_t *skip) {
    struct pn_cold *c = t->cold;
    size_t n_at = 0;
    if (!pn_cold_reserve(c, n)) return PN_NO_MEMORY;
    memset(c->found_at, 0, n * sizeof *c->found_at);
    if (c->n_rows == 0) return PN_OK;
    for (size_t i = 0; i < n; i++)
        if ((uint32_t)t->places[i] == PN_NO_ROW && !pn_slot_skipped(skip, (uint32_t)(t->places[i] >> 32))) c->at[n_at++] = (uint32_t)i;
    enum pn_result r = pn_cold_get(c, keys, n_at, t->rows.row_bytes);
    for (size_t i = 0; r == PN_OK && i < n_at; i++)
        if (c->found[i]) c->found_at[c->at[i]] = (uint32_t)i + 1;
    return r;
}

static uint8_t *row_of(struct pn_table *t, uint64_t key, pn_place place, size_t i) {
    if ((uint32_t)place != PN_NO_ROW) return pn_rows_at(&t->rows, place);
    uint8_t *row = pn_rows_make_new(&t->rows, key);
    if (is_cold(t, i)) {
        memcpy(row, t->cold->records + (t->cold->found_at[i] - 1) * t->rows.row_bytes, t->rows.row_bytes);
        t->cold->n_rows--;
        t->counters.promoted++;
        return row;
    }
    float decoded[t->spec.storage == PN_CODEC_FLOAT32 ? 1 : t->spec.dim];
    const float *values = (const float *)(const void *)row;
    first_values(t, key, row);
    if (t->spec.storage != PN_CODEC_FLOAT32) {
        pn_codec_decode(t->spec.storage, row, 1, t->spec.dim, decoded);
        values = decoded;
    }
    pn_optimizer_start(&t->spec.optimizer, t->spec.dim, values, pn_state_of(t, row));
    return row;
}

/* Marks the missing keys that get no row yet. Nothing is counted before it is sure that the push goes in. False: no memory. */
static bool filter_missing(struct pn_table *t, const uint64_t *keys, size_t n, uint64_t step, const uint64_t *skip) {
    for (size_t i = 0; i < n; i++) {
        const uint32_t i_slot = (uint32_t)(t->places[i] >> 32);
        if ((uint32_t)t->places[i] != PN_NO_ROW || is_cold(t, i) || pn_slot_skipped(skip, i_slot) || pn_filter_admits(&t->filter, pn_mix64(keys[i]), step)) continue;
        if (!pn_filter_reserve(&t->filter, i_slot)) return false;
        t->places[i] = (pn_place)i_slot << 32 | PN_DROPPED;
    }
    return true;
}

static void count_missing(struct pn_table *t, const uint64_t *keys, size_t n, const uint64_t *skip) {
    for (size_t i = 0; i < n; i++) {
        if (pn_slot_skipped(skip, (uint32_t)(t->places[i] >> 32))) continue;
        if ((uint32_t)t->places[i] == PN_NO_ROW && !is_cold(t, i)) t->counters.admitted++;
        if ((uint32_t)t->places[i] != PN_DROPPED || pn_table_denies(t, keys[i])) continue;
        pn_filter_count(&t->filter, pn_mix64(keys[i]));
        t->counters.dropped++;
    }
}

/* One step on rows whose values are not stored as float32: decoded with their state into rows as the optimizers take them, rounded on the way back. What is
 * drawn for the rounding is a function of (seed, key, step): a replay draws the same. */
static void step_decoded(struct pn_table *t, const struct pn_optimizer_spec *o, uint8_t *const *rows, const float *const *gradients, const uint64_t *keys, const float *l2, size_t n, uint64_t step) {
    const size_t dim = t->spec.dim, floats = dim + t->n_state;
    float *decoded[WORK_ROWS];
    for (size_t at = 0; at < n; at += WORK_ROWS) {
        const size_t count = n - at < WORK_ROWS ? n - at : WORK_ROWS;
        for (size_t i = 0; i < count; i++)
            for (size_t b = 0; b < t->payload_bytes && b < PN_MOST_ASKED; b += PN_LINE) __builtin_prefetch(rows[at + i] + b, 1);
        for (size_t i = 0; i < count; i++) {
            decoded[i] = t->work + i * floats;
            pn_codec_decode(t->spec.storage, rows[at + i], 1, dim, decoded[i]);
            memcpy(decoded[i] + dim, pn_state_of(t, rows[at + i]), t->n_state * sizeof(float));
        }
        pn_optimizer_steps(o, t->spec.dim, decoded, gradients + at, l2 != NULL ? l2 + at : NULL, count);
        for (size_t i = 0; i < count; i++) {
            const uint64_t seed = pn_mix64(keys[at + i] ^ pn_mix64(t->spec.init_seed + step));
            pn_codec_encode_stochastic(t->spec.storage, decoded[i], 1, dim, &seed, rows[at + i]);
            memcpy(pn_state_of(t, rows[at + i]), decoded[i] + dim, t->n_state * sizeof(float));
        }
    }
}

/* Steps whose decay a row has to catch up with; steps of other producers run a little apart. A row that is new has nothing to catch up with. */
static float elapsed(const struct pn_table *t, const struct pn_trace *x, uint32_t step) {
    const struct pn_optimizer_spec *o = &t->spec.optimizer;
    const uint32_t age = step - x->last_step;
    if (x->frequency == 0 || age == 0 || age >= 1u << 31) return 1;
    const uint64_t steps = (uint64_t)age * (o->decay_pace > 0 ? o->decay_pace : 1);
    return (float)(steps < o->decay_cap ? steps : o->decay_cap);
}

enum pn_result pn_table_push(struct pn_table *t, const uint64_t *keys, const float *gradients, size_t n, uint64_t step,
                             const uint64_t *skip) {
    struct pn_optimizer_spec paced = t->spec.optimizer;
    const struct pn_optimizer_spec *o = &paced;
    paced.lr *= pn_optimizer_pace(o, step);
    const uint32_t dim = t->spec.dim;
    if (!reserve_places(t, n)) return PN_NO_MEMORY;
    const size_t n_missing = pn_rows_find(&t->rows, keys, n, t->places);
    if (n_missing > 0 && t->spec.explicit_rows)
        for (size_t i = 0; i < n; i++)
            if ((uint32_t)t->places[i] == PN_NO_ROW && !pn_slot_skipped(skip, (uint32_t)(t->places[i] >> 32))) return PN_NOT_SEEDED;
    for (size_t i = 0; t->n_denied > 0 && n_missing > 0 && i < n; i++)
        if ((uint32_t)t->places[i] == PN_NO_ROW && pn_table_denies(t, keys[i])) t->places[i] = (t->places[i] >> 32) << 32 | PN_DROPPED;
    if (n_missing > 0 && t->cold != NULL) {
        enum pn_result result = look_cold(t, keys, n, skip);
        if (result != PN_OK) return result;
    }
    const bool filtered = n_missing > 0 && pn_filter_on(&t->filter) && !t->spec.explicit_rows;
    if (filtered && !filter_missing(t, keys, n, step, skip)) return PN_NO_MEMORY;
    if (n_missing > 0 || t->rows.cut) {
        enum pn_result result = pn_rows_prepare(&t->rows, t->places, n, skip, true, n_missing > 0);
        if (result != PN_OK) return result;
    }
    if (filtered) count_missing(t, keys, n, skip);
    uint8_t *rows[PUSH_BLOCK];
    const float *g[PUSH_BLOCK];
    float l2[PUSH_BLOCK];
    uint64_t k[PUSH_BLOCK];
    const bool lazy = o->decay_cap > 0 && t->spec.track;
    for (size_t begin = 0; begin < n; begin += PUSH_BLOCK) {
        const size_t end = n - begin < PUSH_BLOCK ? n : begin + PUSH_BLOCK;
        size_t count = 0;
        for (size_t i = begin; i < end; i++) {
            if (skip && pn_slot_skipped(skip, (uint32_t)(t->places[i] >> 32))) continue;
            if ((uint32_t)t->places[i] == PN_DROPPED) continue;
            rows[count] = row_of(t, keys[i], t->places[i], i);
            if (t->spec.explicit_rows && keys[i] & PN_STATE_KEY) { /* state: no optimizer; the dense table is float32 */
                float *state = (float *)(void *)rows[count];
                for (uint32_t d = 0; d < dim; d++) state[d] -= gradients[i * dim + d];
                continue;
            }
            k[count] = keys[i];
            g[count++] = gradients + i * dim;
        }
        if (lazy)
            for (size_t i = 0; i < count; i++) l2[i] = o->l2 * elapsed(t, pn_trace_of(t, rows[i]), (uint32_t)step);
        if (t->work != NULL) step_decoded(t, o, rows, g, k, lazy ? l2 : NULL, count, step);
        else pn_optimizer_steps(o, dim, (float *const *)(void *)rows, g, lazy ? l2 : NULL, count);
        for (size_t i = 0; t->spec.track && i < count; i++) {
            struct pn_trace *x = pn_trace_of(t, rows[i]);
            if (x->frequency < UINT32_MAX) x->frequency++;
            x->last_step = (uint32_t)step;
        }
    }
    if (n_missing > 0) pn_rows_grow_ahead(&t->rows, n_missing);
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
        uint8_t *row = pn_rows_make(&t->rows, keys[i], &made);
        if (!made) continue;
        pn_codec_encode(t->spec.storage, rows + i * dim, 1, dim, row);
        pn_optimizer_start(&t->spec.optimizer, dim, rows + i * dim, pn_state_of(t, row));
    }
    return PN_OK;
}

size_t pn_table_list(const struct pn_table *t, uint32_t i_slot, uint64_t *keys) {
    const uint32_t n = t->rows.slots[i_slot].n_rows;
    if (keys != NULL) pn_index_keys(&t->rows, i_slot, n, keys);
    return n;
}

/* ---- whole records ---- */

enum pn_result pn_table_restore(struct pn_table *t, const void *records, size_t n) {
    enum { N = 256 };
    const size_t size = pn_table_record_bytes(t);
    const uint8_t *at = records;
    uint64_t keys[N];
    uint32_t i_slot = 0;
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
            const struct pn_record *r = (const struct pn_record *)(const void *)at;
            uint8_t *row = pn_rows_make(&t->rows, keys[i], &made);
            memcpy(row, r->payload, t->payload_bytes);
            if (t->spec.track) *pn_trace_of(t, row) = (struct pn_trace){r->frequency, r->last_step};
        }
        while (pn_table_crowded(t)) {
            struct pn_demotion *d = pn_table_demote(t, &i_slot, 0);
            if (d == NULL) return PN_NO_MEMORY;
            const uint64_t before = t->rows.n_rows;
            pn_demotion_write(d);
            pn_table_demoted(t, d);
            if (t->rows.n_rows == before) return PN_IO; /* the tier takes nothing */
        }
    }
    return PN_OK;
}

bool pn_table_cut(struct pn_table *t) {
    if (!pn_rows_cut(&t->rows)) return false;
    if (!pn_cold_cut(t)) {
        pn_rows_cut_abort(&t->rows);
        return false;
    }
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
            struct pn_trace trace = {0, 0};
            if (t->spec.track) memcpy(&trace, packed + i * row_bytes + t->payload_bytes, sizeof trace);
            const struct pn_record head = {keys[i], trace.frequency, trace.last_step};
            memmove(to + sizeof head, packed + i * row_bytes, t->payload_bytes);
            memcpy(to, &head, sizeof head);
            memset(to + sizeof head + t->payload_bytes, 0, size - sizeof head - t->payload_bytes);
        }
        given += n;
        if (n < want) break;
    }
    return given;
}
void pn_table_cut_abort(struct pn_table *t) {
    pn_rows_cut_abort(&t->rows);
    pn_filter_cut_abort(&t->filter);
    pn_cold_cut_end(t);
}

const uint8_t *pn_table_scan_counts(struct pn_table *t, uint32_t *i_slot, size_t *n_bytes) {
    *n_bytes = pn_filter_slot_bytes(&t->filter);
    return pn_filter_scan(&t->filter, i_slot);
}

enum pn_result pn_table_restore_counts(struct pn_table *t, uint32_t i_slot, const uint8_t *counts, size_t n_bytes) {
    if (!pn_filter_on(&t->filter) || n_bytes != pn_filter_slot_bytes(&t->filter) || i_slot >= PN_SLOTS) return PN_CORRUPT;
    return pn_filter_restore(&t->filter, i_slot, counts) ? PN_OK : PN_NO_MEMORY;
}

const struct pn_table_counters *pn_table_counters(const struct pn_table *t) { return &t->counters; }
