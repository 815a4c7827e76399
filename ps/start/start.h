/* Rows that begin with those of published models (model.start of a job): NeuMF's with a finished GMF's and MLP's (He et al. 2017, section 3.4.1). A row is made from
 * the snapshot when it is first pulled or pushed, in place of what the initializer would draw, so that nothing is copied at the start, and a shard that comes up
 * again makes the same rows. A key that a snapshot does not have keeps the initializer's values there.
 * Or with pre-trained embeddings from files (import.h), in the same way. */
#ifndef PN_PS_START_H
#define PN_PS_START_H

#include "common/env.h"
#include "job/job.h"

struct pn_table;
struct pn_starts;
/* Opens the job's snapshots and imports (maps and verifies all of their bytes, on this thread) and ties the tables to them; tables[job->n_tables] outlive *out (NULL: none is tied). *out NULL: the
 * job starts from nothing. PN_INVALID: a table or feature does not fit, or the snapshot is damaged; PN_IO: it is
 * not there. */
enum pn_result pn_starts_open(struct pn_starts **out, struct pn_env *, const struct pn_job *, struct pn_table *const *tables, struct pn_error *);
/* values: what the initializer made of the key's row in table i_table; of it those floats are changed that the job begins with. starts NULL: none. One thread at a time. */
void pn_starts_row(struct pn_starts *, uint32_t i_table, uint64_t key, float *values);
void pn_starts_close(struct pn_starts *);

#endif
