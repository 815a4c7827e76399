/* Which rows of a shard were pushed to lately, for workers that keep a copy of all rows there are (ps/mirror/): private jobs, whose pulls must not tell what is in a batch.
 *
 * The idea: each push of a table gets a version, and its keys are kept in a list. Who has the rows of version v asks for what came behind it; where the list no longer goes back so far, all rows
 * are listed, from the table. A table's list never has more keys than the table has rows, so an answer is never larger than the table. Nothing of it is kept on disk: a shard that comes up again
 * has another term, and its copies begin anew. */
#ifndef PN_PS_CHANGES_H
#define PN_PS_CHANGES_H

#include "common/env.h"
#include "common/wire.h"
#include "job/job.h"

struct pn_table;
struct pn_changes;
struct pn_changes *pn_changes_open(void); /* NULL: no memory */
void pn_changes_close(struct pn_changes *);
/* Rows of table t were changed: keys unique, rising by pn_mix64. n_rows: of the table now. Without memory the list is forgotten, so that everybody gets everything. */
void pn_changes_add(struct pn_changes *, uint32_t t, const uint64_t *keys, size_t n, uint64_t n_rows);

/* The answer to CHANGES `f` (docs/wire.md) of a shard of slots first to last with these tables, behind which are no others than those of explicit rows. *n_rows: how many it has. NULL: *why says why not. */
struct pn_msg *pn_changes_answer(const struct pn_changes *, struct pn_env *, const struct pn_job *, struct pn_table *const *tables, uint32_t first_slot, uint32_t last_slot, uint64_t term,
                                 const struct pn_frame *f, uint64_t *n_rows, const char **why);

#endif
