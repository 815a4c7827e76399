#include "secure/layout.h"
#include <stdlib.h>
#include <string.h>
#include "common/hash.h"

static int by_u64(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* keys[n] in any order, maybe repeated -> rising by mix, each once. */
static size_t in_order(uint64_t *keys, size_t n) {
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) keys[i] = pn_mix64(keys[i]);
    qsort(keys, n, sizeof *keys, by_u64);
    for (size_t i = 0; i < n; i++)
        if (kept == 0 || keys[kept - 1] != keys[i]) keys[kept++] = keys[i];
    for (size_t i = 0; i < kept; i++) keys[i] = pn_unmix64(keys[i]);
    return kept;
}

enum pn_result pn_secure_rows_open(struct pn_secure_rows *r, const struct pn_job *job, uint64_t n_weights, struct pn_error *err) {
    memset(r, 0, sizeof *r);
    r->n_tables = job->n_tables;
    r->n_buckets = job->privacy.vote_buckets;
    const uint64_t n_rows = pn_job_declared_rows(job), n_dense = (n_weights + PN_DENSE_ROW - 1) / PN_DENSE_ROW;
    if (n_weights > PN_SECURE_MAX_VALUES) return pn_fail(err, PN_REFUSED, "aggregation: secure: a model of %llu weights; %u values are the most of a round", (unsigned long long)n_weights, PN_SECURE_MAX_VALUES);
    uint64_t number = 0;
    for (size_t t = 0; t < job->n_tables; t++) {
        const bool dense = t == job->i_dense_table;
        uint64_t room = dense ? n_dense : 0;
        for (size_t i = 0; !dense && i < job->n_fields; i++)
            if (pn_field_keyed(&job->fields[i]) && job->fields[i].i_table == t) room += pn_field_domain(&job->fields[i]);
        r->dim[t] = job->tables[t].dim;
        r->keys[t] = malloc((room + 1) * sizeof *r->keys[t]);
        if (r->keys[t] == NULL) goto no_memory;
        size_t n = 0;
        for (uint64_t i = 0; dense && i < n_dense; i++) r->keys[t][n++] = i;
        for (size_t i = 0; !dense && i < job->n_fields; i++) {
            const struct pn_field *f = &job->fields[i];
            if (!pn_field_keyed(f) || f->i_table != t) continue;
            for (uint64_t k = 0; k < pn_field_domain(f); k++) r->keys[t][n++] = pn_field_domain_key(f, k);
        }
        r->n[t] = in_order(r->keys[t], n);
        r->n_values += r->n[t] * r->dim[t];
        if (dense) continue;
        r->bucket[t] = malloc((r->n[t] + 1) * sizeof *r->bucket[t]);
        if (r->bucket[t] == NULL) goto no_memory;
        for (size_t i = 0; i < r->n[t]; i++, number++)
            r->bucket[t][i] = r->n_buckets >= n_rows ? (uint32_t)number : (uint32_t)(pn_mix64(r->keys[t][i] ^ pn_mix64(t + 1)) % (r->n_buckets > 0 ? r->n_buckets : 1));
    }
    if (r->n_values <= PN_SECURE_MAX_VALUES) return PN_OK;
    pn_fail(err, PN_REFUSED, "aggregation: secure: rows and weights have %llu values, and %u is the most of a round; give features fewer buckets", (unsigned long long)r->n_values, PN_SECURE_MAX_VALUES);
    pn_secure_rows_close(r);
    return PN_REFUSED;
no_memory:
    pn_secure_rows_close(r);
    return pn_fail(err, PN_NO_MEMORY, "no memory for the rows of a secure job");
}

void pn_secure_rows_close(struct pn_secure_rows *r) {
    for (size_t t = 0; t < PN_MAX_TABLES; t++) {
        free(r->keys[t]);
        free(r->bucket[t]);
    }
    memset(r, 0, sizeof *r);
}

size_t pn_secure_row(const struct pn_secure_rows *r, size_t t, uint64_t key) {
    const uint64_t mix = pn_mix64(key);
    size_t low = 0, high = r->n[t];
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (pn_mix64(r->keys[t][middle]) < mix) low = middle + 1;
        else high = middle;
    }
    return low < r->n[t] && r->keys[t][low] == key ? low : SIZE_MAX;
}

enum pn_result pn_secure_undeclared(const struct pn_job *job, size_t t, struct pn_error *err) {
    return pn_fail(err, PN_INVALID, "a row of table %s is not among those declared: nothing of it may leave", job->tables[t].name);
}

/* A segment's words: whole steps of 16, and at least one. */
static uint64_t padded(uint64_t n) { return n == 0 ? 16 : (n + 15) / 16 * 16; }

void pn_secure_layout_counts(struct pn_secure_layout *l, uint32_t n_buckets, uint32_t n_servers) {
    memset(l, 0, sizeof *l);
    l->n_servers = n_servers;
    const uint64_t each = padded((n_buckets + n_servers - 1) / n_servers);
    for (uint32_t s = 0; s < n_servers; s++) l->first[s + 1] = l->first[s] + each;
}

enum pn_result pn_secure_layout_update(struct pn_secure_layout *l, const struct pn_secure_rows *r, const uint32_t *slots, uint32_t n_servers, const uint8_t *passed, struct pn_error *err) {
    memset(l, 0, sizeof *l);
    l->n_servers = n_servers;
    uint64_t words[PN_AGG_MAX_SERVERS] = {0};
    for (size_t t = 0; t < r->n_tables; t++) {
        l->row[t] = malloc((r->n[t] + 1) * sizeof *l->row[t]);
        if (l->row[t] == NULL) {
            pn_secure_layout_close(l);
            return pn_fail(err, PN_NO_MEMORY, "no memory for the layout of a secure sum");
        }
        size_t n = 0;
        uint32_t s = 0;
        for (size_t i = 0; i < r->n[t]; i++) {
            while (s + 1 < n_servers && pn_slot_of(r->keys[t][i]) >= slots[s + 1]) l->begin[t][++s] = n;
            if (passed != NULL && r->bucket[t] != NULL && !pn_secure_bit(passed, r->bucket[t][i])) continue;
            l->row[t][n++] = (uint32_t)i;
        }
        while (s < n_servers) l->begin[t][++s] = n;
        for (s = 0; s < n_servers; s++) words[s] += (l->begin[t][s + 1] - l->begin[t][s]) * r->dim[t];
    }
    for (uint32_t s = 0; s < n_servers; s++) l->first[s + 1] = l->first[s] + padded(words[s]);
    return PN_OK;
}

void pn_secure_layout_close(struct pn_secure_layout *l) {
    for (size_t t = 0; t < PN_MAX_TABLES; t++) free(l->row[t]);
    memset(l, 0, sizeof *l);
}

uint64_t pn_secure_layout_offset(const struct pn_secure_layout *l, const struct pn_secure_rows *r, size_t t, uint32_t s) {
    uint64_t at = 0;
    for (size_t i = 0; i < t; i++) at += (l->begin[i][s + 1] - l->begin[i][s]) * r->dim[i];
    return at;
}
