/* Pages of one size out of large regions that the system backs with huge pages where it can (madvise).
 * Random rows in 4 KiB pages cost a walk of the page table each; that is most of the time of a lookup. */
#ifndef PN_PS_TABLE_PAGES_H
#define PN_PS_TABLE_PAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

extern bool pn_huge_pages;        /* true; false asks for small pages, to see what huge ones give. Set before the first table. */

struct pn_pages {
    size_t page_bytes;            /* a multiple of 64 */
    void *free_pages;             /* a list through their first words */
    uint8_t *next, *end;          /* what is left of the last region */
    void **regions;               /* n_regions of region_bytes each */
    size_t n_regions, max_regions, region_bytes;
    uint64_t n_bytes;             /* of all regions */
};
void pn_pages_open(struct pn_pages *, size_t page_bytes);
void pn_pages_close(struct pn_pages *);     /* with all its pages */
void *pn_pages_take(struct pn_pages *);     /* a page of 64-byte aligned, uninitialised memory; NULL: no memory */
void pn_pages_give(struct pn_pages *, void *page);

#endif
