/* What a data holder of a secure job votes for: each unit (an example, or a user with all its examples) once for each bucket that one of its rows is in (secure/layout.h), all its
 * votes together of L2 norm voteClip at most. They add up exactly, in any order (pn_secure_vote), so that one unit more changes what it votes for and nothing else. One thread at a time. */
#ifndef PN_WORKER_VOTES_H
#define PN_WORKER_VOTES_H

#include "nn/model.h"
#include "secure/layout.h"

struct pn_votes {
    const struct pn_job *job;           /* borrowed, like rows */
    const struct pn_secure_rows *rows;
    double *sums;                       /* [rows->n_buckets], the caller's from pn_votes_open on */
    /* the unit under way */
    uint64_t *stamp, unit;
    uint32_t *mine;
    size_t n_mine, sparse[PN_MAX_FIELDS];
};
/* PN_NO_MEMORY: nothing to close. */
enum pn_result pn_votes_open(struct pn_votes *, const struct pn_job *, const struct pn_secure_rows *);
/* Example e of the unit under way. PN_INVALID: it has a row that the job does not declare; nothing of it may leave. */
enum pn_result pn_votes_example(struct pn_votes *, const struct pn_batch *, size_t e, struct pn_error *);
/* That was its last. */
void pn_votes_unit(struct pn_votes *);
/* All units of a batch. */
enum pn_result pn_votes_batch(struct pn_votes *, const struct pn_batch *, struct pn_error *);
/* Frees all but sums. */
void pn_votes_close(struct pn_votes *);

#endif
