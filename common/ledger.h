/* What a data shard of a stream out of a log (Kafka) consists of: the extents of partitions, in the order in which their rows are read.
 *
 * The idea: which partition has rows when is a matter of time, but batch k of a producer must be the same rows whenever and by whomever it is made (docs/architecture.md,
 * "Exactly once"). So a reader first says which offsets it would read next; the coordinator writes that down with the job's record; only then are batches made of them. The
 * ledger is a file's stand-in: its rows, one after the other, are fixed for ever, and rows [k * batch, (k + 1) * batch) are step k + 1.
 *
 * Rows count what is a row (a message with a payload); offsets may have gaps. What no checkpoint can go back to is taken out at the front (pn_ledger_trim): then `positions`
 * says where each partition stood there. So the rows before a step, the positions and the extents behind them are the position that a checkpoint holds.
 * Plain data, no thread. */
#ifndef PN_COMMON_LEDGER_H
#define PN_COMMON_LEDGER_H

#include "common/json.h"
#include "common/result.h"

#define PN_LEDGER_PARTITIONS 1024u   /* of one data shard, at most */
#define PN_LEDGER_EXTENTS 4096u      /* at most; a checkpoint makes room */
#define PN_NO_BOUND UINT64_MAX

/* Offsets [first, end) of a partition, which hold `rows` rows. A partition's first extent has no offsets and no rows: it says where reading begins, and up to which offset the job
 * reads it (bound; PN_NO_BOUND: for ever). Each further one begins where the last one of its partition ended. */
struct pn_extent { uint32_t partition; uint64_t first, end, rows, bound; };
struct pn_position { uint32_t partition; uint64_t offset, bound; };
struct pn_ledger {
    uint64_t at, rows;               /* extents, and their rows, that were taken out at the front */
    struct pn_position *positions;   /* where each known partition stood before extents[0] */
    size_t n_positions;
    struct pn_extent *extents;
    size_t n_extents, room;
    bool closed;                     /* nothing comes behind */
};

void pn_ledger_free(struct pn_ledger *);                       /* empties it; one of zeros is empty */
/* Where a partition stands behind all extents. False: it is not known yet. */
bool pn_ledger_position(const struct pn_ledger *, uint32_t partition, struct pn_position *out);
uint64_t pn_ledger_rows(const struct pn_ledger *);             /* all of them, also those taken out */
/* One more extent. PN_INVALID: it does not follow (another begin than its partition's end, more rows than offsets, closed, too many); PN_NO_MEMORY. */
enum pn_result pn_ledger_add(struct pn_ledger *, const struct pn_extent *, struct pn_error *);
/* Takes out the extents at the front that lie wholly in the first `rows` rows. True: there were some. */
bool pn_ledger_trim(struct pn_ledger *, uint64_t rows);

/* {"at", "rows", "positions": [[partition, offset, bound?]..], "extents": [[partition, first, end, rows, bound?]..], "closed"}. The caller has it. */
struct json_object *pn_ledger_write(const struct pn_ledger *);
/* Up to the extent in which row `rows` (counted from 0) lies: what a checkpoint behind so many rows needs. `closed` only if nothing is left out. */
struct json_object *pn_ledger_write_at(const struct pn_ledger *, uint64_t rows);
/* Into an empty one. PN_INVALID: no sound ledger. */
enum pn_result pn_ledger_read(struct pn_ledger *, struct json_object *, struct pn_error *);
/* What a reader proposes: {"at": extents before it, "extents", "closed"}. Appends what is new of it: something that was taken already is passed over, so that it may be repeated.
 * *changed: there was something. On PN_INVALID nothing was taken. */
enum pn_result pn_ledger_take(struct pn_ledger *, struct json_object *proposal, bool *changed, struct pn_error *);
struct json_object *pn_ledger_proposal(const struct pn_ledger *, const struct pn_extent *, size_t n, bool closed);

#endif
