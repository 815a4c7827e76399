/* What worker/private.c (examples, batches) and worker/private_rows.c (which rows are sent, and noise) share. */
#ifndef PN_WORKER_PRIVATE_INSIDE_H
#define PN_WORKER_PRIVATE_INSIDE_H

#include "worker/private.h"

/* The keys that a table can have: those of its fields, each field's once, though several may share them (hash.share). */
struct pn_private_domain { const struct pn_field *fields[PN_MAX_FIELDS]; size_t n_fields; uint64_t n; };

struct pn_private {
    const struct pn_job *job;
    struct pn_private_spec spec;
    size_t sparse[PN_MAX_FIELDS];       /* fields of a batch, in its order */
    struct pn_batch *parts;
    size_t *first;                      /* [n_parts + 1]: the number of a part's first example */
    size_t n_parts, room;
    uint64_t *member;                   /* by user: the examples' numbers, a user's together and rising */
    size_t *begin, n_users;             /* [n_users + 1]: where a user's begin */
    struct pn_private_domain domains[PN_MAX_TABLES];
    bool has_chosen;                    /* rows were chosen beforehand: */
    uint64_t *chosen[PN_MAX_TABLES];    /* in the order of common/unique.h */
    size_t n_chosen[PN_MAX_TABLES];
};

/* All examples of all units as one batch. */
enum pn_result pn_private_all(const struct pn_private *, struct pn_draws *, struct pn_batch *out);
/* Of a drawn batch: which rows can be sent at all (pn_batch.idle), if some were chosen beforehand. False: no memory. */
bool pn_private_mark(const struct pn_private *, struct pn_batch *);

#endif
