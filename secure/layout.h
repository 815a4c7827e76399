/* Which word of a secure sum stands for what, the same at every part of a job: a function of the job file, the number of weights, the servers' slots and, in an
 * update, of the buckets that passed the threshold. Nothing here depends on anybody's data. Pure; any thread.
 *
 * A vector is cut by server. Counts: a word a bucket, cut evenly. An update: of server s, table by table, the rows of its slots that are in, rising by pn_mix64
 * of their keys, dim words each; the weights are the last table. A segment begins at a multiple of 16 words and has at least 16. */
#ifndef PN_SECURE_LAYOUT_H
#define PN_SECURE_LAYOUT_H

#include "common/result.h"
#include "job/job.h"
#include "privacy/secagg/round.h"

/* All rows that a job can have. Plain data; arrays by table, the weights' table among them. */
struct pn_secure_rows {
    size_t n_tables, n[PN_MAX_TABLES];
    uint64_t *keys[PN_MAX_TABLES];    /* each once, rising by pn_mix64 */
    uint32_t *bucket[PN_MAX_TABLES];  /* of each row; NULL: the weights, which are always in */
    uint32_t dim[PN_MAX_TABLES];
    uint32_t n_buckets;
    uint64_t n_values;                /* floats of all rows */
};
/* n_weights: floats of the model's weights, at most PN_SECURE_MAX_VALUES. Every keyed field has a domain (pn_field_domain).
 * A row's bucket: with as many buckets as rows each has its own, with fewer they are dealt by a hash. PN_REFUSED: more values than a round may have. */
enum pn_result pn_secure_rows_open(struct pn_secure_rows *, const struct pn_job *, uint64_t n_weights, struct pn_error *);
void pn_secure_rows_close(struct pn_secure_rows *);
/* The place of a key among a table's rows; SIZE_MAX: it is none of them. */
size_t pn_secure_row(const struct pn_secure_rows *, size_t i_table, uint64_t key);
/* PN_INVALID, with a line: what a holder says that has such a row. */
enum pn_result pn_secure_undeclared(const struct pn_job *, size_t i_table, struct pn_error *);

struct pn_secure_layout {
    uint32_t n_servers;
    uint64_t first[PN_AGG_MAX_SERVERS + 1];              /* words, as pn_agg_terms wants them */
    uint32_t *row[PN_MAX_TABLES];                        /* update: the rows that are in, by place; NULL in counts */
    size_t begin[PN_MAX_TABLES][PN_AGG_MAX_SERVERS + 1]; /* server s has row[t][begin[t][s]..begin[t][s + 1]) */
};
void pn_secure_layout_counts(struct pn_secure_layout *, uint32_t n_buckets, uint32_t n_servers);
/* slots: n_servers first slots, rising from 0. passed: a bit a bucket, NULL: all are in. PN_NO_MEMORY. */
enum pn_result pn_secure_layout_update(struct pn_secure_layout *, const struct pn_secure_rows *, const uint32_t *slots, uint32_t n_servers, const uint8_t *passed, struct pn_error *);
void pn_secure_layout_close(struct pn_secure_layout *);
/* The first word of table t's rows in server s's segment, from the segment's beginning. */
uint64_t pn_secure_layout_offset(const struct pn_secure_layout *, const struct pn_secure_rows *, size_t t, uint32_t s);

static inline bool pn_secure_bit(const uint8_t *bits, uint32_t i) { return bits[i / 8] >> i % 8 & 1; }

#endif
