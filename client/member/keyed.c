#include "client/member/keyed.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "common/unique.h"

enum pn_result pn_keyed_open(struct pn_keyed *b, const uint64_t *keys, size_t n_keys, float *rows, size_t dim) {
    void *scratch = malloc(pn_unique_scratch(n_keys));
    *b = (struct pn_keyed){.n_keys = n_keys, .dim = dim, .rows = rows};
    b->unique = malloc((n_keys + 1) * sizeof *b->unique);
    b->index = malloc((n_keys + 1) * sizeof *b->index);
    b->first = malloc((n_keys + 1) * sizeof *b->first);
    const bool ok = scratch != NULL && b->unique != NULL && b->index != NULL && b->first != NULL;
    if (ok) {
        b->n_unique = pn_unique(keys, n_keys, b->unique, b->index, scratch);
        for (size_t i = n_keys; i > 0; i--) b->first[b->index[i - 1]] = (uint32_t)(i - 1);
    } else {
        pn_keyed_free(b);
    }
    free(scratch);
    return ok ? PN_OK : PN_NO_MEMORY;
}

enum pn_result pn_keyed_sum(struct pn_keyed *b, struct pn_error *err) {
    if (b->n_unique < b->n_keys) {
        b->sums = malloc(b->n_unique * b->dim * sizeof *b->sums);
        if (b->sums == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory for %zu sums of gradients", b->n_unique);
        for (size_t i = 0; i < b->n_keys; i++) {
            const float *from = b->rows + i * b->dim;
            float *to = b->sums + b->index[i] * b->dim;
            if (b->first[b->index[i]] == i) memcpy(to, from, b->dim * sizeof *to);
            else for (size_t d = 0; d < b->dim; d++) to[d] += from[d];
        }
    }
    const float *values = b->sums != NULL ? b->sums : b->rows;
    for (size_t u = 0; u < b->n_unique; u++) {
        bool good = true;
        for (size_t d = 0; d < b->dim; d++) good &= fabsf(values[u * b->dim + d]) <= 3.3e38f; /* false for NaN */
        if (good) continue;
        const uint64_t key = b->unique[b->sums != NULL ? u : b->index[u]];
        return pn_fail(err, PN_INVALID, "the gradient of key %llu is not a finite number; nothing was pushed", (unsigned long long)key);
    }
    return PN_OK;
}

void pn_keyed_spread(struct pn_keyed *b) {
    for (size_t i = 0; b->n_unique < b->n_keys && i < b->n_keys; i++) {
        const uint32_t first = b->first[b->index[i]];
        if (first != i) memcpy(b->rows + i * b->dim, b->rows + first * b->dim, b->dim * sizeof *b->rows);
    }
}

struct pn_client_part pn_keyed_client_part(const struct pn_keyed *b, uint32_t i_table) {
    return (struct pn_client_part){i_table, b->n_unique, b->unique, b->sums != NULL ? b->sums : b->rows, b->sums != NULL ? NULL : b->first};
}

void pn_keyed_free(struct pn_keyed *b) {
    free(b->unique);
    free(b->index);
    free(b->first);
    free(b->sums);
    b->unique = NULL;
    b->index = b->first = NULL;
    b->sums = NULL;
}
