/* A worker's copy of all embedding rows there are, for steps that must not show which rows they read (docs/privacy.md): what is asked for names no row, only a version, so that it cannot depend
 * on anybody's data. Rows that were never pushed are not on the servers and not in the copy: they have their first values, which are a function of (seed, table, key) and of what the job begins
 * with (ps/start/), as a pull of a missing row would give them.
 *
 * The copy is brought up to date by what changed since: its memory and first transfer are the rows that were ever pushed, a later transfer those pushed since the one before. A shard that comes up
 * again may have lost rows: then the whole copy begins anew.
 *
 * A core component: runs on its owner's thread over pn_env, calls back, never blocks. One serves all producers of a worker. The owner hands it every map, and messages of the kinds CHANGED and REFUSAL. */
#ifndef PN_PS_MIRROR_MIRROR_H
#define PN_PS_MIRROR_MIRROR_H

#include "ps/client/client.h"

struct pn_mirror;
/* job is borrowed; none of its tables has a second tier or eviction. Errors as of pn_starts_open. */
enum pn_result pn_mirror_open(struct pn_mirror **, struct pn_env *, const struct pn_job *, const char *job_id, struct pn_error *);
void pn_mirror_close(struct pn_mirror *); /* no callback runs any more. NULL is allowed */
void pn_mirror_map(struct pn_mirror *, const struct pn_shard_map *);
void pn_mirror_message(struct pn_mirror *, pn_peer from, struct pn_frame *);

/* done(owner, PN_OK) once the copy has all that the servers had when this was called, or more. clock: the asker's finished step; in a sync job shards that are behind it are waited for.
 * Tried for ever until the owner closes; other results: a shard refused for good, or no memory. Asks of one clock at the same time share a transfer; a lower clock goes first. */
void pn_mirror_refresh(struct pn_mirror *, uint64_t clock, void (*done)(void *owner, enum pn_result), void *owner);
void pn_mirror_cancel(struct pn_mirror *, const void *owner);
/* rows out: n * dim float32, the bits that a pull of these keys would have given at the last transfer. */
void pn_mirror_rows(const struct pn_mirror *, uint32_t i_table, const uint64_t *keys, size_t n, float *rows);

#endif
