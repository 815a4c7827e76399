#include "nn/quantiles.h"
#include <stdlib.h>
#include <string.h>

enum { LEVELS = 48 }; /* 2^64 numbers would fill fewer */

struct pn_quantiles {
    struct level { double *x; uint32_t n, room; bool odd; } levels[LEVELS];
    uint64_t n;
};

struct pn_quantiles *pn_quantiles_open(void) { return calloc(1, sizeof(struct pn_quantiles)); }

void pn_quantiles_close(struct pn_quantiles *q) {
    for (size_t h = 0; q != NULL && h < LEVELS; h++) free(q->levels[h].x);
    free(q);
}

uint64_t pn_quantiles_count(const struct pn_quantiles *q) { return q->n; }

static int rising(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static bool put(struct level *l, double x) {
    if (l->n == l->room) {
        const uint32_t room = l->room == 0 ? 1024 : l->room * 2;
        double *grown = realloc(l->x, room * sizeof *grown);
        if (grown == NULL) return false;
        l->x = grown;
        l->room = room;
    }
    l->x[l->n++] = x;
    return true;
}

/* Half of a full level goes one up. */
static bool compact(struct pn_quantiles *q, size_t h) {
    struct level *l = &q->levels[h];
    if (h + 1 == LEVELS || (q->levels[h + 1].n == PN_QUANTILES_EXACT && !compact(q, h + 1))) return false;
    qsort(l->x, l->n, sizeof *l->x, rising);
    for (uint32_t i = l->odd; i < l->n; i += 2)
        if (!put(&q->levels[h + 1], l->x[i])) return false;
    l->odd = !l->odd;
    l->n = 0;
    return true;
}

bool pn_quantiles_add(struct pn_quantiles *q, double x) {
    if (q->levels[0].n == PN_QUANTILES_EXACT && !compact(q, 0)) return false;
    if (!put(&q->levels[0], x)) return false;
    q->n++;
    return true;
}

struct weighed { double x; uint64_t weight; };

static int by_number(const void *a, const void *b) { return rising(&((const struct weighed *)a)->x, &((const struct weighed *)b)->x); }

size_t pn_quantiles_boundaries(struct pn_quantiles *q, uint32_t n_parts, double *boundaries) {
    size_t n = 0, n_out = 0;
    uint64_t total = 0, below = 0;
    for (size_t h = 0; h < LEVELS; h++) n += q->levels[h].n;
    struct weighed *all = malloc((n + 1) * sizeof *all);
    if (all == NULL) return SIZE_MAX;
    n = 0;
    for (size_t h = 0; h < LEVELS; h++)
        for (uint32_t i = 0; i < q->levels[h].n; i++) {
            all[n++] = (struct weighed){q->levels[h].x[i], 1ull << h};
            total += 1ull << h;
        }
    qsort(all, n, sizeof *all, by_number);
    size_t at = 0;
    for (uint32_t i = 1; i < n_parts && at < n; i++) {
        while (at < n && ((double)below < (double)total * i / n_parts || (at > 0 && all[at].x <= all[at - 1].x))) below += all[at++].weight;
        if (at < n && (n_out == 0 || all[at].x > boundaries[n_out - 1])) boundaries[n_out++] = all[at].x;
    }
    free(all);
    return n_out;
}
