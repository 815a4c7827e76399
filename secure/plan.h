/* What a plan says of a secure job's round, and the terms of its secure sum. docs/architecture.md, PLAN body, has the fields. */
#ifndef PN_SECURE_PLAN_H
#define PN_SECURE_PLAN_H

#include "common/json.h"
#include "secure/layout.h"

/* COUNTS and UPDATE: a secure sum is made. APPLY: the update's sum is good, servers apply it. */
enum pn_secure_phase { PN_SECURE_IDLE, PN_SECURE_COUNTS, PN_SECURE_UPDATE, PN_SECURE_APPLY };
extern const char *const pn_secure_phases[];

struct pn_secure_plan {
    enum pn_secure_phase phase;
    uint64_t attempt;               /* counts every round that was charged, never falls; 0: none */
    uint64_t step;                  /* what it would become */
    uint64_t applied;               /* the last step that all servers have */
    uint64_t n_weights;             /* 0: not known yet */
    uint32_t n, n_servers;
    uint8_t identities[PN_MAX_PRODUCERS][32];
    uint32_t slots[PN_AGG_MAX_SERVERS]; /* first slot of each */
    uint8_t *passed;                /* UPDATE, in a job that chooses its rows: a bit a bucket; else NULL */
};
/* Reads the object `secure` of a plan's job. PN_INVALID: a line says what is wrong. *out is to be closed. */
enum pn_result pn_secure_plan_read(struct pn_secure_plan *out, struct json_object *secure, const struct pn_job *, struct pn_error *);
void pn_secure_plan_close(struct pn_secure_plan *);
bool pn_secure_same_round(const struct pn_secure_plan *, const struct pn_secure_plan *);

/* The terms of the sum; `first` and the plan live as long as they are used. */
struct pn_agg_terms pn_secure_terms(const struct pn_job *, const struct pn_secure_plan *, const uint64_t *first, unsigned word_bytes);

/* Bytes as hex digits, malloc'ed; and back: false if text has not just 2n of them. */
char *pn_secure_hex(const uint8_t *bytes, size_t n);
bool pn_secure_unhex(const char *text, uint8_t *bytes, size_t n);
static inline size_t pn_secure_bitmap_bytes(uint32_t n_buckets) { return (n_buckets + 7u) / 8u; }

#endif
