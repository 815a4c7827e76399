/* Who gets a row: keys that were pushed n times (a count-min sketch with conservative update; Cormode and Muthukrishnan 2005, Estan and Varghese 2002), or
 * a share p of pushes. Until then a pull gives the initializer's row and a push is dropped; both are counted. A sketch a slot, so that a shard that takes
 * over a slot takes its counts. The counts belong to the cut: a push that is replayed after a restore meets the same decision. */
#ifndef PN_PS_TABLE_FILTER_H
#define PN_PS_TABLE_FILTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/hash.h"

#define PN_FILTER_ROWS 4u

struct pn_filter {
    uint32_t n;                     /* pushes until a row is made; 0 or 1: at once */
    float p;                        /* share of pushes that make a row; 0: by count */
    uint64_t seed;
    uint32_t width;                 /* counters a sketch row, a power of two */
    uint8_t *counts[PN_SLOTS];      /* PN_FILTER_ROWS * width, when first needed */
    uint8_t *kept[PN_SLOTS];        /* as they were at the cut, of slots changed since */
    bool cut;
    uint32_t i_scan;                /* the next slot that the scan gives */
    uint64_t n_bytes;
};
static inline bool pn_filter_on(const struct pn_filter *f) { return f->n > 1 || f->p > 0; }
static inline size_t pn_filter_slot_bytes(const struct pn_filter *f) { return (size_t)PN_FILTER_ROWS * f->width; }
void pn_filter_open(struct pn_filter *, uint32_t n, float p, uint32_t counters, uint64_t seed); /* counters: of all slots together */
void pn_filter_close(struct pn_filter *);
/* Would this push of a key without a row make one? A function of what was counted and of (seed, key, step). */
bool pn_filter_admits(const struct pn_filter *, uint64_t mix, uint64_t step);
bool pn_filter_reserve(struct pn_filter *, uint32_t i_slot); /* pn_filter_count of the slot needs no memory after it; false: no memory */
void pn_filter_count(struct pn_filter *, uint64_t mix);
void pn_filter_cut(struct pn_filter *);
/* The counts of the next slot that has any, as they were at the cut; NULL: all have been given, the cut is over. */
const uint8_t *pn_filter_scan(struct pn_filter *, uint32_t *i_slot);
void pn_filter_cut_abort(struct pn_filter *);
bool pn_filter_restore(struct pn_filter *, uint32_t i_slot, const uint8_t *counts); /* false: no memory */

#endif
