/* A table: records (rows.h), what their floats mean (optimizer.h), and the operations of a shard on them. */
#include "ps/table/table.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "ps/table/optimizer.h"
#include "ps/table/rows.h"

#define PULL_BLOCK 256u
#define AHEAD 6u /* rows prefetched ahead of the one being changed */

struct pn_table {
    struct pn_table_spec spec;
    uint32_t n_floats;
    struct pn_rows rows;
    pn_place *places; /* scratch of push, seed, restore */
    size_t max_places;
};

struct pn_table *pn_table_open(const struct pn_table_spec *spec) {
    assert(spec->dim > 0);
    struct pn_table *t = calloc(1, sizeof(*t));
    if (!t) return NULL;
    t->spec = *spec;
    t->n_floats = spec->dim + pn_optimizer_state_floats(&spec->optimizer, spec->dim);
    if (!pn_rows_open(&t->rows, (sizeof(struct pn_row) + t->n_floats * sizeof(float) + 7) & ~(size_t)7)) {
        free(t);
        return NULL;
    }
    return t;
}

void pn_table_close(struct pn_table *t) {
    if (!t) return;
    pn_rows_close(&t->rows);
    free(t->places);
    free(t);
}

uint32_t pn_table_dim(const struct pn_table *t) { return t->spec.dim; }
uint64_t pn_table_rows(const struct pn_table *t) { return t->rows.n_rows; }
uint64_t pn_table_bytes(const struct pn_table *t) { return t->rows.n_bytes + sizeof(*t) + t->max_places * sizeof(*t->places); }
uint32_t pn_table_record_floats(const struct pn_table *t) { return t->n_floats; }
size_t pn_table_record_bytes(const struct pn_table *t) { return t->rows.record_bytes; }

size_t pn_table_pull(const struct pn_table *t, const uint64_t *keys, size_t n, float *rows) {
    const uint32_t dim = t->spec.dim;
    pn_place places[PULL_BLOCK];
    size_t n_missing = 0;
    for (size_t begin = 0; begin < n; begin += PULL_BLOCK) {
        size_t count = n - begin < PULL_BLOCK ? n - begin : PULL_BLOCK;
        pn_rows_find(&t->rows, keys + begin, count, places);
        for (size_t i = 0; i < count; i++) {
            float *out = rows + (begin + i) * dim;
            if ((uint32_t)places[i] != PN_NO_ROW) {
                memcpy(out, pn_rows_place(&t->rows, places[i])->values, dim * sizeof(float));
                continue;
            }
            n_missing++;
            if (t->spec.explicit_rows) memset(out, 0, dim * sizeof(float));
            else pn_init_row(&t->spec, keys[begin + i], out);
        }
    }
    return n_missing;
}

static bool find(struct pn_table *t, const uint64_t *keys, size_t n) {
    if (n > t->max_places) {
        size_t max = n < 1024 ? 1024 : n + n / 2;
        pn_place *places = realloc(t->places, max * sizeof(*places));
        if (!places) return false;
        t->places = places;
        t->max_places = max;
    }
    pn_rows_find(&t->rows, keys, n, t->places);
    return true;
}

static void prefetch(const struct pn_table *t, size_t i, size_t n) {
    if (i >= n || (uint32_t)t->places[i] == PN_NO_ROW) return;
    const char *row = (const char *)pn_rows_place(&t->rows, t->places[i]);
    for (size_t b = 0; b < t->rows.record_bytes && b < 512; b += 64) __builtin_prefetch(row + b, 1);
}

enum pn_result pn_table_push(struct pn_table *t, const uint64_t *keys, const float *gradients, size_t n, uint64_t step,
                             const uint64_t *skip) {
    const struct pn_optimizer_spec *o = &t->spec.optimizer;
    const uint32_t dim = t->spec.dim;
    if (!find(t, keys, n)) return PN_NO_MEMORY;
    if (t->spec.explicit_rows)
        for (size_t i = 0; i < n; i++)
            if ((uint32_t)t->places[i] == PN_NO_ROW && !pn_slot_skipped(skip, (uint32_t)(t->places[i] >> 32))) return PN_NOT_SEEDED;
    enum pn_result result = pn_rows_prepare(&t->rows, t->places, n, skip, true, true);
    if (result != PN_OK) return result;
    for (size_t i = 0; i < n; i++) {
        prefetch(t, i + AHEAD, n);
        if (pn_slot_skipped(skip, (uint32_t)(t->places[i] >> 32))) continue;
        struct pn_row *row;
        if ((uint32_t)t->places[i] != PN_NO_ROW) {
            row = pn_rows_place(&t->rows, t->places[i]);
        } else {
            bool made;
            row = pn_rows_make(&t->rows, keys[i], &made);
            if (made) {
                pn_init_row(&t->spec, keys[i], row->values);
                pn_optimizer_start(o, dim, row->values, row->values + dim);
            }
        }
        pn_optimizer_step(o, dim, row->values, row->values + dim, gradients + i * dim);
        if (row->frequency < UINT32_MAX) row->frequency++;
        row->last_step = (uint32_t)step;
    }
    return PN_OK;
}

enum pn_result pn_table_seed(struct pn_table *t, const uint64_t *keys, const float *rows, size_t n) {
    const uint32_t dim = t->spec.dim;
    if (!find(t, keys, n)) return PN_NO_MEMORY;
    enum pn_result result = pn_rows_prepare(&t->rows, t->places, n, NULL, false, true);
    if (result != PN_OK) return result;
    for (size_t i = 0; i < n; i++) {
        if ((uint32_t)t->places[i] != PN_NO_ROW) continue;
        bool made;
        struct pn_row *row = pn_rows_make(&t->rows, keys[i], &made);
        if (!made) continue;
        memcpy(row->values, rows + i * dim, dim * sizeof(float));
        pn_optimizer_start(&t->spec.optimizer, dim, row->values, row->values + dim);
    }
    return PN_OK;
}

enum pn_result pn_table_restore(struct pn_table *t, const void *records, size_t n) {
    enum { N = 256 };
    const size_t size = t->rows.record_bytes;
    const uint8_t *record = records;
    uint64_t keys[N];
    /* In bounded pieces, each found and given room at once; a half-restored table is of no use anyway. */
    for (; n > 0; n -= n < N ? n : N) {
        size_t count = n < N ? n : N;
        for (size_t i = 0; i < count; i++) memcpy(&keys[i], record + i * size, sizeof(keys[i]));
        if (!find(t, keys, count)) return PN_NO_MEMORY;
        enum pn_result result = pn_rows_prepare(&t->rows, t->places, count, NULL, true, true);
        if (result != PN_OK) return result;
        for (size_t i = 0; i < count; i++, record += size) {
            bool made;
            memcpy(pn_rows_make(&t->rows, keys[i], &made), record, size);
        }
    }
    return PN_OK;
}

bool pn_table_cut(struct pn_table *t) { return pn_rows_cut(&t->rows); }
size_t pn_table_scan(struct pn_table *t, void *out, size_t max) { return pn_rows_scan(&t->rows, out, max); }
void pn_table_cut_abort(struct pn_table *t) { pn_rows_cut_abort(&t->rows); }
