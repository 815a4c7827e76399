/* Batches: the unique keys of a table, and batches made of examples of others. */
#include <stdlib.h>
#include <string.h>
#include "common/unique.h"
#include "nn/model.h"

size_t pn_batch_fields(const struct pn_job *job, size_t sparse[PN_MAX_FIELDS]) {
    size_t n = 0;
    for (int sequences = 0; sequences < 2; sequences++)
        for (size_t i = 0; i < job->n_fields; i++)
            if (pn_field_keyed(&job->fields[i]) && (job->fields[i].type == PN_FIELD_SEQUENCE) == sequences) sparse[n++] = i;
    return n;
}

bool pn_batch_unique(struct pn_batch *b, const struct pn_job *job, const size_t *sparse) {
    const size_t n = b->n_examples;
    b->position = malloc((b->n_keys + 1) * sizeof *b->position);
    uint64_t *keys = malloc((b->n_keys + 1) * sizeof *keys);
    uint32_t *index = malloc((b->n_keys + 1) * sizeof *index);
    void *scratch = malloc(pn_unique_scratch(b->n_keys));
    bool ok = b->position != NULL && keys != NULL && index != NULL && scratch != NULL;
    for (uint32_t t = 0; ok && t < job->i_dense_table; t++) {
        size_t m = 0;
        for (size_t s = 0; s < b->n_sparse; s++) {
            if (job->fields[sparse[s]].i_table != t) continue;
            const size_t count = b->begin[(s + 1) * n] - b->begin[s * n];
            memcpy(keys + m, b->keys + b->begin[s * n], count * sizeof *keys);
            m += count;
        }
        if ((b->unique[t] = malloc((m + 1) * sizeof **b->unique)) == NULL) {
            ok = false;
            break;
        }
        b->n_unique[t] = pn_unique(keys, m, b->unique[t], index, scratch);
        m = 0;
        for (size_t s = 0; s < b->n_sparse; s++) {
            if (job->fields[sparse[s]].i_table != t) continue;
            const size_t count = b->begin[(s + 1) * n] - b->begin[s * n];
            memcpy(b->position + b->begin[s * n], index + m, count * sizeof *index);
            m += count;
        }
    }
    free(keys);
    free(index);
    free(scratch);
    return ok;
}

enum pn_result pn_batch_gather(struct pn_batch *b, const struct pn_job *job, const size_t *sparse, const struct pn_batch *const *from, const uint32_t *example, size_t n) {
    *b = (struct pn_batch){.n_examples = n, .n_sparse = n > 0 ? from[0]->n_sparse : 0, .n_dense = n > 0 ? from[0]->n_dense : 0};
    if (n == 0) { /* a batch of nothing still has the job's shape */
        size_t fields[PN_MAX_FIELDS];
        b->n_sparse = pn_batch_fields(job, fields);
        b->n_dense = job->n_fields - b->n_sparse;
    }
    for (size_t s = 0; s < b->n_sparse; s++)
        for (size_t i = 0; i < n; i++) {
            const uint32_t *begin = from[i]->begin + s * from[i]->n_examples + example[i];
            b->n_keys += begin[1] - begin[0];
        }
    if (b->n_keys > UINT32_MAX) return PN_NO_MEMORY; /* begin could not say where they are */
    const bool teacher = n > 0 && from[0]->teacher != NULL, weighted = n > 0 && from[0]->weights != NULL;
    b->begin = malloc((b->n_sparse * n + 1) * sizeof *b->begin);
    b->keys = malloc((b->n_keys + 1) * sizeof *b->keys);
    b->weights = weighted ? malloc((b->n_keys + 1) * sizeof *b->weights) : NULL;
    b->dense = malloc((b->n_dense * n + 1) * sizeof *b->dense);
    b->labels = malloc((n + 1) * sizeof *b->labels);
    b->log_q = malloc((n + 1) * sizeof *b->log_q);
    b->head_labels = malloc((job->n_heads * n + 1) * sizeof *b->head_labels);
    b->teacher = teacher ? malloc(n * sizeof *b->teacher) : NULL;
    bool ok = b->begin != NULL && b->keys != NULL && b->dense != NULL && b->labels != NULL && b->log_q != NULL && b->head_labels != NULL && (!teacher || b->teacher != NULL) &&
              (!weighted || b->weights != NULL);
    size_t at = 0;
    for (size_t s = 0; ok && s < b->n_sparse; s++)
        for (size_t i = 0; i < n; i++) {
            const uint32_t *begin = from[i]->begin + s * from[i]->n_examples + example[i];
            b->begin[s * n + i] = (uint32_t)at;
            memcpy(b->keys + at, from[i]->keys + begin[0], (begin[1] - begin[0]) * sizeof *b->keys);
            if (weighted) memcpy(b->weights + at, from[i]->weights + begin[0], (begin[1] - begin[0]) * sizeof *b->weights);
            at += begin[1] - begin[0];
        }
    if (ok) b->begin[b->n_sparse * n] = (uint32_t)at;
    for (size_t i = 0; ok && i < n; i++) {
        const struct pn_batch *f = from[i];
        const uint32_t e = example[i];
        memcpy(b->dense + i * b->n_dense, f->dense + e * f->n_dense, b->n_dense * sizeof *b->dense);
        b->labels[i] = f->labels[e];
        b->log_q[i] = f->log_q[e];
        for (size_t h = 0; h < job->n_heads; h++) b->head_labels[h * n + i] = f->head_labels[h * f->n_examples + e];
        if (teacher) b->teacher[i] = f->teacher[e];
    }
    if (ok && pn_batch_unique(b, job, sparse)) return PN_OK;
    pn_batch_free(b);
    return PN_NO_MEMORY;
}

void pn_batch_free(struct pn_batch *b) {
    free(b->begin);
    free(b->keys);
    free(b->weights);
    free(b->dense);
    free(b->labels);
    free(b->log_q);
    free(b->head_labels);
    free(b->teacher);
    free(b->user);
    free(b->unit_begin);
    free(b->position);
    for (size_t t = 0; t < PN_MAX_TABLES; t++) {
        free(b->unique[t]);
        free(b->idle[t]);
    }
    memset(b, 0, sizeof *b);
}
