/* Rows that are forgotten for good: removed, and absent from then on whatever is pushed or restored. The list is short (requests of people), so it is searched;
 * a bit a slot tells most keys apart from it at once. */
#include <stdlib.h>
#include <string.h>
#include "ps/table/cold.h"
#include "ps/table/internal.h"

static size_t place_of(const struct pn_table *t, uint64_t mix) {
    size_t low = 0, high = t->n_denied;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (t->denied[middle] < mix) low = middle + 1;
        else high = middle;
    }
    return low;
}

bool pn_table_denies(const struct pn_table *t, uint64_t key) {
    const uint64_t mix = pn_mix64(key);
    if (t->n_denied == 0 || !(t->denied_slots[mix >> 60] >> (mix >> 54 & 63) & 1)) return false;
    const size_t i = place_of(t, mix);
    return i < t->n_denied && t->denied[i] == mix;
}

static bool deny(struct pn_table *t, uint64_t mix) {
    const size_t at = place_of(t, mix);
    if (at < t->n_denied && t->denied[at] == mix) return true;
    uint64_t *grown = realloc(t->denied, (t->n_denied + 1) * sizeof *grown);
    if (grown == NULL) return false;
    memmove(grown + at + 1, grown + at, (t->n_denied - at) * sizeof *grown);
    grown[at] = mix;
    t->denied = grown;
    t->n_denied++;
    t->denied_slots[mix >> 60] |= 1ull << (mix >> 54 & 63);
    return true;
}

static enum pn_result remove_cold(struct pn_table *t, uint64_t key, bool in_memory, uint64_t *removed) {
    struct pn_cold *c = t->cold;
    if (!pn_cold_reserve(c, 1)) return PN_NO_MEMORY;
    c->at[0] = 0;
    const enum pn_result r = pn_cold_get(c, &key, 1, t->rows.row_bytes);
    if (r != PN_OK || !c->found[0]) return r;
    if (!c->tier->ops->remove(c->tier, c->mixes, 1)) {
        c->failed = true;
        return PN_IO;
    }
    if (!in_memory) { /* else what the tier had was an older copy, and not counted */
        c->n_rows--;
        (*removed)++;
    }
    return PN_OK;
}

enum pn_result pn_table_forget(struct pn_table *t, const uint64_t *keys, size_t n, uint64_t *removed) {
    if (t->rows.cut) return PN_BUSY;
    for (size_t i = 0; t->cold != NULL && i < PN_SLOTS / 64; i++)
        if (t->cold->flying[i] != 0) return PN_BUSY; /* a row on its way there would come behind the removal */
    for (size_t i = 0; i < n; i++) {
        const uint64_t mix = pn_mix64(keys[i]);
        const uint32_t i_slot = (uint32_t)(mix >> 54), i_row = pn_index_find(&t->rows, mix), n_rows = t->rows.slots[i_slot].n_rows;
        bool *gone = i_row != PN_NO_ROW ? calloc(n_rows, sizeof *gone) : NULL;
        if (i_row != PN_NO_ROW) {
            if (gone == NULL) return PN_NO_MEMORY;
            gone[i_row] = true;
            memset(pn_rows_at(&t->rows, (pn_place)i_slot << 32 | i_row), 0, t->rows.row_bytes); /* its bytes may stay behind the last row */
            const bool ok = pn_rows_remove(&t->rows, i_slot, gone);
            free(gone);
            if (!ok) return PN_NO_MEMORY;
            (*removed)++;
        }
        if (t->cold != NULL) {
            const enum pn_result r = remove_cold(t, keys[i], i_row != PN_NO_ROW, removed);
            if (r != PN_OK) return r;
        }
        if (!deny(t, mix)) return PN_NO_MEMORY;
    }
    return PN_OK;
}
