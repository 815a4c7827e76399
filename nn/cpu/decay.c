#include <stdlib.h>
#include <string.h>
#include "nn/blocks.h"

bool pn_decay(const struct pn_job *job, const size_t *fields, size_t f, const struct pn_batch *b, const float *const rows[PN_MAX_TABLES], float l2, double *loss,
              float *const row_gradients[PN_MAX_TABLES]) {
    const size_t n = b->n_examples;
    double sum = 0;
    for (uint32_t t = 0; t < job->i_dense_table; t++) {
        const size_t dim = job->tables[t].dim;
        uint32_t *count = calloc(b->n_unique[t] + 1, sizeof *count); /* how often a row is named: one pass over the rows, not over the examples */
        if (count == NULL) return false;
        for (size_t s = 0; s < f; s++)
            for (uint32_t i = b->begin[s * n]; job->fields[fields[s]].i_table == t && i < b->begin[(s + 1) * n]; i++) count[b->position[i]]++;
        for (size_t u = 0; u < b->n_unique[t]; u++) {
            const float share = l2 * (float)count[u] / (float)n, *restrict row = rows[t] + u * dim;
            float *restrict g = row_gradients[t] + u * dim, squares = 0;
            for (size_t d = 0; d < dim; d++) g[d] += share * row[d];
            for (size_t d = 0; d < dim; d++) squares += row[d] * row[d];
            sum += 0.5 * (double)share * (double)squares;
        }
        free(count);
    }
    *loss += sum * (double)n;
    return true;
}
