#include <stdlib.h>
#include <string.h>
#include "nn/blocks.h"

/* One row: its gradient, and half its share of the squares. Eight lanes: one sum would be a chain of additions. */
PN_MACHINES double pn_decay_row(const float *restrict row, size_t dim, float share, float *restrict g) {
    enum { LANES = 8 };
    float lane[LANES] = {0}, squares = 0;
    size_t d = 0;
    for (; d + LANES <= dim; d += LANES)
        for (size_t j = 0; j < LANES; j++) {
            g[d + j] += share * row[d + j];
            lane[j] += row[d + j] * row[d + j];
        }
    for (; d < dim; d++) {
        g[d] += share * row[d];
        squares += row[d] * row[d];
    }
    for (size_t j = 0; j < LANES; j++) squares += lane[j];
    return 0.5 * (double)share * (double)squares;
}

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
        for (size_t u = 0; u < b->n_unique[t]; u++) sum += pn_decay_row(rows[t] + u * dim, dim, l2 * (float)count[u] / (float)n, row_gradients[t] + u * dim);
        free(count);
    }
    *loss += sum * (double)n;
    return true;
}
