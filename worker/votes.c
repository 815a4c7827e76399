#include "worker/votes.h"
#include <stdlib.h>
#include <string.h>
#include "secure/noise.h"

enum pn_result pn_votes_open(struct pn_votes *v, const struct pn_job *job, const struct pn_secure_rows *rows) {
    const size_t n = rows->n_buckets + 1u;
    *v = (struct pn_votes){.job = job, .rows = rows, .unit = 1, .sums = calloc(n, sizeof *v->sums), .stamp = calloc(n, sizeof *v->stamp), .mine = malloc(n * sizeof *v->mine)};
    pn_batch_fields(job, v->sparse);
    if (v->sums != NULL && v->stamp != NULL && v->mine != NULL) return PN_OK;
    free(v->sums);
    pn_votes_close(v);
    return PN_NO_MEMORY;
}

void pn_votes_close(struct pn_votes *v) {
    free(v->stamp);
    free(v->mine);
    memset(v, 0, sizeof *v);
}

enum pn_result pn_votes_example(struct pn_votes *v, const struct pn_batch *b, size_t e, struct pn_error *err) {
    for (size_t s = 0; s < b->n_sparse; s++) {
        const uint32_t t = v->job->fields[v->sparse[s]].i_table;
        for (uint32_t i = b->begin[s * b->n_examples + e]; i < b->begin[s * b->n_examples + e + 1]; i++) {
            const size_t row = pn_secure_row(v->rows, t, b->keys[i]);
            if (row == SIZE_MAX) return pn_secure_undeclared(v->job, t, err);
            const uint32_t bucket = v->rows->bucket[t][row];
            if (v->stamp[bucket] == v->unit) continue;
            v->stamp[bucket] = v->unit;
            v->mine[v->n_mine++] = bucket;
        }
    }
    return PN_OK;
}

void pn_votes_unit(struct pn_votes *v) {
    const double vote = pn_secure_vote(&v->job->privacy, v->n_mine);
    for (size_t i = 0; i < v->n_mine; i++) v->sums[v->mine[i]] += vote;
    v->n_mine = 0;
    v->unit++;
}

enum pn_result pn_votes_batch(struct pn_votes *v, const struct pn_batch *b, struct pn_error *err) {
    enum pn_result r = PN_OK;
    for (size_t u = 0; r == PN_OK && u < pn_batch_units(b); u++) {
        for (size_t e = pn_batch_unit(b, u); r == PN_OK && e < pn_batch_unit(b, u + 1); e++) r = pn_votes_example(v, b, e, err);
        if (r == PN_OK) pn_votes_unit(v);
    }
    return r;
}
