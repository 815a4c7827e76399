/* The rows of one table by key: 1024 slots, each with its own index and its own list of row pages.
 *
 * Index of a slot: buckets of eight 8-byte entries, one cache line each. pn_mix64 is a bijection, so an entry need not hold a key: it holds the low
 * bits of the mixed key that the place of its bucket does not tell (quotienting, Cleary 1984; Knuth 6.4 ex. 13), and the row's number in the slot. One
 * compare of a line finds a key with no look at the row and no false match. A key lies in its home bucket or one of the seven behind it; buckets are
 * kept at most seven eighths full, and grow by an eighth, so that slots never double. What finds no place there (crafted keys) goes to a sorted stash.
 *
 * Rows of a slot lie in pages of a power of two of rows, in order of making; only a slot's first, still small page ever moves. What leads from a key to its
 * row is kept small, for the caches: 8 bytes a slot, then two maps of 32-bit block numbers [block of the slot][slot]; slots grow alike, so both are dense.
 * A row is `row_bytes` of floats (values, then optimizer state) and whatever the table puts behind; what all this costs beside is about 10 bytes a row.
 *
 * Snapshot: a cut notes how many rows each slot has (new rows come behind and so do not show). Before a row that is in the cut is changed for the first
 * time, its image is put aside for the scanner, unless the scanner has passed it. Rows are deleted only while no cut is under way. */
#ifndef PN_PS_TABLE_ROWS_H
#define PN_PS_TABLE_ROWS_H

#include <stdbool.h>
#include "common/hash.h"
#include "common/result.h"
#include "ps/table/pages.h"

#define PN_BUCKET 8u                /* entries */
#define PN_CHUNK 64u                /* buckets: 4 KiB */
#define PN_REACH 8u                 /* buckets in which a key may lie */

struct pn_stashed { uint64_t mix; uint32_t i_row; };
struct pn_slot_index { uint32_t n_buckets, low_bits; }; /* n_buckets 0: no index yet; low_bits: of the mixed key in an entry */
struct pn_slot {
    uint32_t n_rows, room;          /* room: rows that the pages hold */
    uint32_t n_stashed, max_stashed;
    uint32_t pending;               /* rows about to be made; 0 between calls */
    struct pn_stashed *stash;       /* rising by mix */
};

struct pn_cut;
struct pn_rows {
    struct pn_slot_index *indexes;  /* PN_SLOTS */
    struct pn_slot *slots;          /* PN_SLOTS */
    uint32_t *chunk_of, *page_of;   /* [block of the slot * PN_SLOTS + slot]: where it is in index_memory, in row_memory */
    size_t max_chunks, max_pages;   /* blocks of a slot that the maps hold */
    size_t row_bytes;
    uint32_t page_shift, page_mask; /* rows of a page: page_mask + 1 */
    struct pn_pages row_memory, index_memory;
    uint64_t n_rows, n_small_bytes; /* small: what is malloc'ed */
    struct pn_cut *cut;             /* one is under way */
    uint32_t i_ahead;               /* the slot whose turn it is to grow ahead */
};

/* Where a row is: slot << 32 | number in the slot. */
typedef uint64_t pn_place;
#define PN_ROW_UNIT 4u              /* rows: the smallest page, and what block numbers count */
#define PN_NO_ROW UINT32_MAX
#define PN_DROPPED (UINT32_MAX - 1) /* set by the table: missing, and no row is to be made */

bool pn_rows_open(struct pn_rows *, size_t row_bytes);
void pn_rows_close(struct pn_rows *);
uint64_t pn_rows_bytes(const struct pn_rows *);
/* Finds n keys, memory latency overlapped. A missing one gets slot << 32 | PN_NO_ROW. Returns how many are missing. */
size_t pn_rows_find(const struct pn_rows *, const uint64_t *keys, size_t n, pn_place *places);
/* The same for at most PN_FIND_BLOCK keys whose rows are read next: where each is (NULL: missing), its first n_bytes on their way from memory. */
size_t pn_rows_ask(const struct pn_rows *, const uint64_t *keys, size_t n, const void **rows, size_t n_bytes);
#define PN_FIND_BLOCK 512u
#define PN_LINE 64u                 /* bytes of the processor's cache */
#define PN_MOST_ASKED 1024u         /* bytes asked for ahead of a row: many wide rows would push each other out again */
/* Makes sure that the following changes need no memory: images of found rows that a cut still needs (if `change`), room for the missing ones (if
 * `make`). Slots of `skip` (NULL: none) are left out. PN_NO_MEMORY: no row was changed. */
enum pn_result pn_rows_prepare(struct pn_rows *, const pn_place *places, size_t n, const uint64_t *skip, bool change, bool make);
/* The row of a key for which room was prepared, made now, zeroed. `made` is false if it was there after all (the same key twice in one call). */
void *pn_rows_make(struct pn_rows *, uint64_t key, bool *made);
void *pn_rows_make_new(struct pn_rows *, uint64_t key);  /* the same for a key that is known to be missing */

/* Growth ahead, behind n_new new rows: slots whose index is within a fiftieth of its limit grow in turn, a few at a time. Without it a push may find many at
 * their limits at once, and whoever waits behind it waits for all. */
void pn_rows_grow_ahead(struct pn_rows *, size_t n_new);

/* Takes the rows with gone[number] out of a slot; others move into their places. Not while a cut is under way. False: no memory, nothing changed. */
bool pn_rows_remove(struct pn_rows *, uint32_t i_slot, const bool *gone);

bool pn_rows_cut(struct pn_rows *);  /* false: one is under way, or no memory */
/* Up to max rows of the cut: their keys, and the rows packed. 0: all have been given and the cut is over. */
size_t pn_rows_scan(struct pn_rows *, uint64_t *keys, void *rows, size_t max);
void pn_rows_cut_abort(struct pn_rows *);

static inline bool pn_slot_skipped(const uint64_t *skip, uint32_t i_slot) { return skip && (skip[i_slot >> 6] >> (i_slot & 63) & 1); }
static inline const uint32_t *pn_rows_page(const struct pn_rows *t, pn_place place) { return &t->page_of[(uint64_t)((uint32_t)place >> t->page_shift) * PN_SLOTS + (place >> 32)]; }
static inline void *pn_rows_at(const struct pn_rows *t, pn_place place) {
    return t->row_memory.base + ((uint64_t)*pn_rows_page(t, place) * PN_ROW_UNIT + ((uint32_t)place & t->page_mask)) * t->row_bytes;
}

/* ---- index.c ---- */
bool pn_index_open(struct pn_rows *);
void pn_index_close(struct pn_rows *);
bool pn_index_reserve(struct pn_rows *, uint32_t i_slot, uint32_t n_new); /* room for n_new more; false: no memory, nothing changed */
uint32_t pn_index_find(const struct pn_rows *, uint64_t mix);             /* the row's number in its slot; PN_NO_ROW: missing */
bool pn_index_grow(struct pn_rows *, uint32_t i_slot, uint32_t n_new, bool *grown); /* the same without what crafted keys may need */
void pn_index_put(struct pn_rows *, uint64_t mix, uint32_t i_row);
/* The keys of all rows of a slot below n, by row number. */
void pn_index_keys(const struct pn_rows *, uint32_t i_slot, uint32_t n, uint64_t *keys);
/* A new index of a slot: the keys of rows 0 to n - 1. False: no memory, the old one stays. */
bool pn_index_remake(struct pn_rows *, uint32_t i_slot, const uint64_t *keys, uint32_t n);
/* Makes a map of blocks hold `blocks` a slot; false: no memory. */
bool pn_map_reserve(struct pn_rows *, uint32_t **map, size_t *max, size_t blocks);
/* The variants of pn_rows_find's inner part, for tests: 0 portable, 1 AVX2, 2 AVX-512; false: this machine has not got it. */
bool pn_index_use(int variant);

#endif
