/* Memory of a table: one long reservation of addresses, filled from its beginning, so that a place in it is a 32-bit number of units and no list of
 * pages stands between a number and its address. The system backs it with huge pages where it can (madvise): random rows in 4 KiB pages cost a walk of
 * the page table each, and that is most of the time of a lookup. The first 4 MiB stay in small pages, for tables that stay small. */
#ifndef PN_PS_TABLE_PAGES_H
#define PN_PS_TABLE_PAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

extern bool pn_huge_pages;        /* true; false asks for small pages, to see what huge ones give. Set before the first table. */

#define PN_PAGE_SIZES 3u          /* blocks of so many sizes come back and are given out again */
#define PN_NO_BLOCK UINT32_MAX

struct pn_pages {
    uint8_t *base;                /* 2 MiB aligned */
    size_t unit_bytes;
    uint32_t sizes[PN_PAGE_SIZES];/* in units, rising */
    uint32_t freed[PN_PAGE_SIZES];/* lists through the blocks' first words */
    uint64_t n_units, max_units;
    size_t reserved;
    uint64_t n_backed;            /* bytes from the beginning that have memory behind them already */
    uint64_t wanted;              /* bytes to be backed as soon as can be, used or not: set by the owner */
};
/* False: no addresses. */
bool pn_pages_open(struct pn_pages *, size_t unit_bytes, const uint32_t sizes[PN_PAGE_SIZES]);
void pn_pages_close(struct pn_pages *);
void pn_pages_confine(struct pn_pages *, size_t most_bytes); /* before the first block is taken: gives back the addresses beyond */
/* A block of sizes[i] units, uninitialised; PN_NO_BLOCK: no memory. */
uint32_t pn_pages_take(struct pn_pages *, int i);
void pn_pages_give(struct pn_pages *, uint32_t block, int i);
/* The memory that growth will want next is asked for beforehand, off the request path: the kernel clears a huge page in milliseconds. If something is
 * to be done, true, with the place and the length; pn_pages_back may then run on any thread while the pages are used. One at a time. */
bool pn_pages_ahead(struct pn_pages *, void **at, size_t *n_bytes);
void pn_pages_back(void *at, size_t n_bytes);
uint64_t pn_pages_bytes(const struct pn_pages *);
static inline void *pn_pages_at(const struct pn_pages *p, uint64_t unit) { return p->base + unit * p->unit_bytes; }

#endif
