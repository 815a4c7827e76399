#include "ps/table/pages.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_BYTES ((size_t)2 << 20)
#define SMALL_BYTES ((size_t)4 << 20)
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MOST ((size_t)16 << 30) /* the sanitizers want address space, too */
#else
#define MOST ((size_t)1 << 40)
#endif
#define LEAST ((size_t)16 << 20)

bool pn_huge_pages = true;

bool pn_pages_open(struct pn_pages *p, size_t unit_bytes, const uint32_t sizes[PN_PAGE_SIZES]) {
    *p = (struct pn_pages){.unit_bytes = unit_bytes};
    memcpy(p->sizes, sizes, sizeof p->sizes);
    for (uint32_t i = 0; i < PN_PAGE_SIZES; i++) p->freed[i] = PN_NO_BLOCK;
    /* Addresses only: nothing is counted until it is touched. A limit on addresses gives less. */
    for (p->reserved = MOST; p->reserved >= LEAST; p->reserved /= 2) {
        uint8_t *at = mmap(NULL, p->reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (at == MAP_FAILED) continue;
        size_t head = -(uintptr_t)at & (HUGE_BYTES - 1);
        if (head > 0) munmap(at, head);
        p->base = at + head;
        p->reserved -= head;
        p->max_units = p->reserved / unit_bytes < PN_NO_BLOCK ? p->reserved / unit_bytes : PN_NO_BLOCK;
        madvise(p->base, SMALL_BYTES, MADV_NOHUGEPAGE);
        if (pn_huge_pages) madvise(p->base + SMALL_BYTES, p->reserved - SMALL_BYTES, MADV_HUGEPAGE); /* no is an answer */
        return true;
    }
    return false;
}

void pn_pages_close(struct pn_pages *p) {
    if (p->base != NULL) munmap(p->base, p->reserved);
    p->base = NULL;
}

void pn_pages_confine(struct pn_pages *p, size_t most_bytes) {
    const size_t keep = (most_bytes + HUGE_BYTES - 1) & ~(HUGE_BYTES - 1);
    if (keep >= p->reserved || keep < LEAST) return;
    munmap(p->base + keep, p->reserved - keep);
    p->reserved = keep;
    if (keep / p->unit_bytes < p->max_units) p->max_units = keep / p->unit_bytes;
}

uint32_t pn_pages_take(struct pn_pages *p, int i) {
    uint32_t block = p->freed[i];
    if (block != PN_NO_BLOCK) {
        memcpy(&p->freed[i], pn_pages_at(p, block), sizeof p->freed[i]);
        return block;
    }
    if (p->max_units - p->n_units < p->sizes[i]) return PN_NO_BLOCK;
    block = (uint32_t)p->n_units;
    p->n_units += p->sizes[i];
    return block;
}

bool pn_pages_ahead(struct pn_pages *p, void **at, size_t *n_bytes) {
    const uint64_t used = p->n_units * p->unit_bytes;
    if (used < SMALL_BYTES && p->n_backed >= p->wanted) return false;
    const uint64_t share = used / 256, soon = share < 2 * HUGE_BYTES ? 2 * HUGE_BYTES : share < 8 * HUGE_BYTES ? share : 8 * HUGE_BYTES;
    const uint64_t ahead = p->wanted > used + soon ? p->wanted - used : soon;
    const uint64_t from = ((p->n_backed > used ? p->n_backed : used) + HUGE_BYTES - 1) / HUGE_BYTES * HUGE_BYTES, to = from + HUGE_BYTES;
    if (to > used + ahead || to > p->reserved) return false; /* one huge page at a time: the others on this machine want its cores, too */
    *at = p->base + from;
    *n_bytes = to - from;
    p->n_backed = to;
    return true;
}

void pn_pages_back(void *at, size_t n_bytes) {
#ifdef MADV_POPULATE_WRITE
    madvise(at, n_bytes, MADV_POPULATE_WRITE); /* an old kernel says no: the pages come when they are touched, as ever */
#else
    (void)at;
    (void)n_bytes;
#endif
}

void pn_pages_give(struct pn_pages *p, uint32_t block, int i) {
    memcpy(pn_pages_at(p, block), &p->freed[i], sizeof p->freed[i]);
    p->freed[i] = block;
}

uint64_t pn_pages_bytes(const struct pn_pages *p) {
    uint64_t used = p->n_units * p->unit_bytes, n = used > p->n_backed ? used : p->n_backed, page = n <= SMALL_BYTES || !pn_huge_pages ? 4096 : HUGE_BYTES;
    return (n + page - 1) / page * page;
}
