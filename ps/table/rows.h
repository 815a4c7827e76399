/* The records of one table by key: 1024 slots, each with its own index and its own list of pages.
 *
 * A slot's index is open addressing over one-byte tags (0: empty, else 0x80 and seven bits of the hash), probed
 * sixteen at once; beside each tag stands the number of the row within its slot. Row r lives in page r >> shift at
 * place r & mask; pages never move, so growth copies only the index, and only of one slot.
 *
 * Snapshot: a cut notes how many rows each slot has (new rows come behind and so do not show) and takes a number.
 * Before a page that has rows in the cut is changed for the first time, its image is put aside for the scanner,
 * unless the scanner has passed it. Nothing is deleted, so the number of a row is for ever. */
#ifndef PN_PS_TABLE_ROWS_H
#define PN_PS_TABLE_ROWS_H

#include <stdbool.h>
#include "common/hash.h"
#include "common/result.h"

/* A record, in memory as on disk. Its size is padded with zeros to a multiple of 8. */
struct pn_row {
    uint64_t key;
    uint32_t frequency;  /* pushes so far, saturating */
    uint32_t last_step;  /* low bits of the step of the last one */
    float values[];      /* dim, then the optimizer's state */
};

/* A page as it was at the cut. */
struct pn_image {
    struct pn_image *previous, *next; /* all kept images, for an abort */
    uint32_t i_slot, i_page;
    _Alignas(8) uint8_t rows[];
};
struct pn_page {
    uint8_t *rows;
    struct pn_image *image;
    uint64_t kept;                    /* number of the last cut whose image was put aside */
};
struct pn_slot {
    void *block;                      /* holds refs and tags */
    uint32_t *refs;
    uint8_t *tags;
    uint32_t n_places;                /* 0 or 16 * a power of two */
    uint32_t n_rows, n_rows_at_cut;
    uint32_t n_pages, max_pages;
    uint32_t pending;                 /* rows about to be made; 0 between calls */
    struct pn_page *pages;
};
struct pn_rows {
    struct pn_slot *slots;            /* PN_SLOTS */
    size_t record_bytes, page_bytes;
    uint32_t shift, mask;             /* rows of a page: mask + 1 */
    uint64_t n_rows, n_bytes;
    uint64_t i_cut;                   /* number of the last cut */
    bool cut;                         /* one is under way */
    uint32_t scan_slot, scan_row;     /* the next row to give */
    struct pn_image *images;
};

/* Where a row is: slot << 32 | number in the slot. */
typedef uint64_t pn_place;
#define PN_NO_ROW UINT32_MAX

bool pn_rows_open(struct pn_rows *, size_t record_bytes);
void pn_rows_close(struct pn_rows *);
/* Finds n keys, memory latency overlapped. A missing one gets slot << 32 | PN_NO_ROW. */
void pn_rows_find(const struct pn_rows *, const uint64_t *keys, size_t n, pn_place *places);
/* Makes sure that the following changes need no memory: images of the pages of found rows that a cut still needs (if
 * `change`), room for the missing ones (if `make`). Slots of `skip` (NULL: none) are left out. PN_NO_MEMORY: no row was changed. */
enum pn_result pn_rows_prepare(struct pn_rows *, const pn_place *places, size_t n, const uint64_t *skip, bool change, bool make);
/* The row of a key for which room was prepared, made now: metadata and values are zero but for the key. `made` is false
 * if it was there after all (the same key twice in one call). */
struct pn_row *pn_rows_make(struct pn_rows *, uint64_t key, bool *made);

bool pn_rows_cut(struct pn_rows *);
size_t pn_rows_scan(struct pn_rows *, void *out, size_t max);
void pn_rows_cut_abort(struct pn_rows *);

static inline bool pn_slot_skipped(const uint64_t *skip, uint32_t i_slot) {
    return skip && (skip[i_slot >> 6] >> (i_slot & 63) & 1);
}
static inline struct pn_row *pn_rows_at(const struct pn_rows *t, uint32_t i_slot, uint32_t i_row) {
    return (struct pn_row *)(t->slots[i_slot].pages[i_row >> t->shift].rows + (i_row & t->mask) * t->record_bytes);
}
static inline struct pn_row *pn_rows_place(const struct pn_rows *t, pn_place place) {
    return pn_rows_at(t, (uint32_t)(place >> 32), (uint32_t)place);
}

#endif
