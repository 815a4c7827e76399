/* The one place where a push changes the shard. Rows, windows, clocks and audit hashes of a push move together: a push may go in in slices, with pulls
 * answered between them, but nothing that outlives the process may look at the shard before its last slice (pn_shard_settle), and its window is marked with
 * that one. The order of these operations is what a backup will be fed with. */
#ifndef PN_PS_APPLY_H
#define PN_PS_APPLY_H

#include "ps/request.h"

/* A push on its way in. The caller reads q (and keeps its message); the rest is begin's. */
struct pn_apply {
    struct pn_request q;
    uint64_t slots[PN_SLOTS / 64], skip[PN_SLOTS / 64]; /* touched; of these, applied before */
    bool any_new, any_old;
    bool begun;                  /* rows have changed: only a restore undoes that */
    int pass;                    /* 0: tables whose rows exist by SEED only, whole, since they alone can refuse; 1: the others; 2: all is in */
    size_t i_part, i_key;        /* the next ones */
};

/* Looks at the windows. PN_FENCED: nothing is to be done. */
enum pn_result pn_apply_begin(struct pn_shard *, struct pn_apply *);
/* Applies rows until they have cost `budget`, in units of a row that is there already (a new one is 16, one from the second tier 32), or the push is
 * over. PN_EXISTS: over, and all of it was applied before. PN_NOT_SEEDED, PN_NO_MEMORY: nothing was done, or, where the push had begun, the shard is
 * broken; PN_IO: it is. */
enum pn_result pn_apply_some(struct pn_shard *, struct pn_apply *, size_t budget, bool *over);

/* Rows of table t (pn_table_push), counted, and told to the copies of private jobs (ps/changes.h). */
enum pn_result pn_apply_rows(struct pn_shard *, uint32_t t, const uint64_t *keys, const float *values, size_t n, uint64_t step, const uint64_t *skip);

/* The push of one producer is in: its windows, its step, the audit hash. */
void pn_apply_mark(struct pn_shard *, const struct pn_request *, const uint64_t slots[PN_SLOTS / 64], const uint64_t *skip);

#endif
