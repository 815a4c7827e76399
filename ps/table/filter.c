#include "ps/table/filter.h"
#include <stdlib.h>
#include <string.h>

void pn_filter_open(struct pn_filter *f, uint32_t n, float p, uint32_t counters, uint64_t seed) {
    *f = (struct pn_filter){.n = n, .p = p, .seed = seed, .width = 16};
    while (f->width * 2 * PN_FILTER_ROWS * PN_SLOTS <= counters) f->width *= 2;
}

void pn_filter_close(struct pn_filter *f) {
    pn_filter_cut_abort(f);
    for (uint32_t i = 0; i < PN_SLOTS; i++) free(f->counts[i]);
}

static size_t place(const struct pn_filter *f, uint64_t mix, uint32_t row) { return (size_t)row * f->width + (pn_mix64(mix + row) & (f->width - 1)); }

static uint8_t estimate(const struct pn_filter *f, const uint8_t *counts, uint64_t mix) {
    uint8_t least = UINT8_MAX;
    for (uint32_t r = 0; r < PN_FILTER_ROWS; r++)
        if (counts[place(f, mix, r)] < least) least = counts[place(f, mix, r)];
    return least;
}

bool pn_filter_admits(const struct pn_filter *f, uint64_t mix, uint64_t step) {
    if (f->p > 0) return (double)(pn_mix64(f->seed ^ mix ^ pn_mix64(step)) >> 11) * 0x1p-53 < (double)f->p;
    const uint8_t *counts = f->counts[mix >> 54];
    return f->n <= 1 || (counts != NULL && (uint32_t)estimate(f, counts, mix) + 1 >= f->n);
}

static uint8_t *copy(struct pn_filter *f, const uint8_t *from) {
    uint8_t *p = from != NULL ? malloc(pn_filter_slot_bytes(f)) : calloc(1, pn_filter_slot_bytes(f));
    if (p != NULL) f->n_bytes += pn_filter_slot_bytes(f);
    if (p != NULL && from != NULL) memcpy(p, from, pn_filter_slot_bytes(f));
    return p;
}

bool pn_filter_reserve(struct pn_filter *f, uint32_t i_slot) {
    if (f->p > 0) return true;
    const bool needed = f->cut && i_slot >= f->i_scan && f->kept[i_slot] == NULL; /* the scan has not passed */
    if (needed && f->counts[i_slot] != NULL && (f->kept[i_slot] = copy(f, f->counts[i_slot])) == NULL) return false;
    if (needed && f->counts[i_slot] == NULL && (f->kept[i_slot] = copy(f, NULL)) == NULL) return false;
    return f->counts[i_slot] != NULL || (f->counts[i_slot] = copy(f, NULL)) != NULL;
}

void pn_filter_count(struct pn_filter *f, uint64_t mix) {
    if (f->p > 0) return;
    uint8_t *counts = f->counts[mix >> 54];
    const uint8_t now = estimate(f, counts, mix);
    if (now == UINT8_MAX) return;
    for (uint32_t r = 0; r < PN_FILTER_ROWS; r++) /* only the least ones rise: the others count somebody else, too */
        if (counts[place(f, mix, r)] == now) counts[place(f, mix, r)]++;
}

void pn_filter_cut(struct pn_filter *f) {
    pn_filter_cut_abort(f);
    f->cut = true;
    f->i_scan = 0;
}

const uint8_t *pn_filter_scan(struct pn_filter *f, uint32_t *i_slot) {
    if (f->i_scan > 0 && f->cut && f->kept[f->i_scan - 1] != NULL) { /* what was given last */
        free(f->kept[f->i_scan - 1]);
        f->kept[f->i_scan - 1] = NULL;
        f->n_bytes -= pn_filter_slot_bytes(f);
    }
    while (f->cut && f->i_scan < PN_SLOTS) {
        *i_slot = f->i_scan++;
        const uint8_t *counts = f->kept[*i_slot] != NULL ? f->kept[*i_slot] : f->counts[*i_slot];
        if (counts != NULL) return counts;
    }
    f->cut = false;
    return NULL;
}

void pn_filter_cut_abort(struct pn_filter *f) {
    for (uint32_t i = 0; i < PN_SLOTS; i++) {
        if (f->kept[i] != NULL) f->n_bytes -= pn_filter_slot_bytes(f);
        free(f->kept[i]);
        f->kept[i] = NULL;
    }
    f->cut = false;
}

bool pn_filter_restore(struct pn_filter *f, uint32_t i_slot, const uint8_t *counts) {
    if (f->counts[i_slot] == NULL && (f->counts[i_slot] = copy(f, NULL)) == NULL) return false;
    memcpy(f->counts[i_slot], counts, pn_filter_slot_bytes(f));
    return true;
}
