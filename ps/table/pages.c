#include "ps/table/pages.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_BYTES ((size_t)2 << 20)

bool pn_huge_pages = true;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static void *map(size_t n) { return aligned_alloc(64, n); } /* so that the sanitizer sees the ends */
static void unmap(void *p, size_t n) { (void)n; free(p); }
#else
/* Aligned to a huge page; the surplus at both ends goes back. */
static void *map(size_t n) {
    uint8_t *p = mmap(NULL, n + HUGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return NULL;
    size_t head = -(uintptr_t)p & (HUGE_BYTES - 1);
    if (head > 0) munmap(p, head);
    if (head < HUGE_BYTES) munmap(p + head + n, HUGE_BYTES - head);
    if (pn_huge_pages) madvise(p + head, n, MADV_HUGEPAGE); /* no is an answer */
    return p + head;
}
static void unmap(void *p, size_t n) { munmap(p, n); }
#endif

void pn_pages_open(struct pn_pages *p, size_t page_bytes) {
    *p = (struct pn_pages){.page_bytes = page_bytes, .region_bytes = (page_bytes + HUGE_BYTES - 1) / HUGE_BYTES * HUGE_BYTES};
}

void pn_pages_close(struct pn_pages *p) {
    for (size_t i = 0; i < p->n_regions; i++) unmap(p->regions[i], p->region_bytes);
    free(p->regions);
    pn_pages_open(p, p->page_bytes);
}

static bool grow(struct pn_pages *p) {
    if (p->n_regions == p->max_regions) {
        size_t max = p->max_regions > 0 ? 2 * p->max_regions : 16;
        void **regions = realloc(p->regions, max * sizeof *regions);
        if (regions == NULL) return false;
        p->regions = regions;
        p->max_regions = max;
    }
    uint8_t *r = map(p->region_bytes);
    if (r == NULL) return false;
    p->regions[p->n_regions++] = r;
    p->n_bytes += p->region_bytes;
    p->next = r;
    p->end = r + p->region_bytes;
    return true;
}

void *pn_pages_take(struct pn_pages *p) {
    void *page = p->free_pages;
    if (page != NULL) {
        memcpy(&p->free_pages, page, sizeof(void *));
        return page;
    }
    if ((size_t)(p->end - p->next) < p->page_bytes && !grow(p)) return NULL;
    page = p->next;
    p->next += p->page_bytes;
    return page;
}

void pn_pages_give(struct pn_pages *p, void *page) {
    memcpy(page, &p->free_pages, sizeof(void *));
    p->free_pages = page;
}
