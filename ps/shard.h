/* One shard: the tables of a job for a range of slots, and what must change with them in one event: windows, clocks, audit hashes.
 * Single thread. Knows nothing of the coordinator (ps.c) nor of files (checkpoint.c). */
#ifndef PN_PS_SHARD_H
#define PN_PS_SHARD_H

#include "common/env.h"
#include "common/wire.h"
#include "job/job.h"
#include "ps/changes.h"
#include "ps/start/start.h"
#include "ps/table/table.h"
#include "ps/window.h"

struct pn_shard_producer {
    uint64_t clock;        /* every step up to it is acknowledged by all shards, as the producer says */
    uint64_t step;         /* highest step applied here (sync: all up to it) */
    uint32_t incarnation;
    uint32_t finished;     /* its last push is applied */
};

struct pn_shard_held;      /* a message that waits: a pull (ssp), a push (sync), or what came behind an open push */
struct pn_shard_push;      /* a push that goes in in slices (ps/apply.h) */
#define PN_SHARD_SLICE 8192u /* cost of a slice: a quarter of a millisecond */

struct pn_shard_counters {
    uint64_t pulls, pushes, seeds, rows_pulled, rows_missing, rows_pushed, duplicates, refused, poison, held;
};

struct pn_shard {
    struct pn_env *env;
    struct pn_job job;
    char job_id[64];
    uint64_t term, generation;
    uint32_t n_producers, first_slot, last_slot;
    struct pn_table *tables[PN_MAX_TABLES];
    struct pn_starts *starts;          /* model.start; NULL: none */
    struct pn_changes *changes;        /* of a private job, whose workers keep copies; else NULL */
    struct pn_window *windows;         /* [n_producers * PN_SLOTS] */
    struct pn_shard_producer producers[PN_MAX_PRODUCERS];
    uint64_t audit[PN_SLOTS];          /* sum of pn_mix64 over the (producer, step) applied in a slot: two servers with the same pushes agree */
    uint64_t sync_step;                /* sync: the last step applied for all */
    uint32_t n_files;                  /* checkpoint files taken in so far */
    struct pn_shard_held *waiting;     /* held pulls, and asks for changes */
    struct pn_shard_held **ring;       /* sync: [n_producers * 64] held pushes by step % 64 */
    size_t n_waiting;
    size_t slice;                      /* what a push may cost at a time; whoever opened the shard may change it */
    struct pn_timer turn;              /* runs while `open` or `line` is there */
    struct pn_shard_push *open;        /* its first slices are in; NULL: none */
    struct pn_shard_held *line, **line_end; /* what waits behind it, in order */
    size_t n_line;
    struct pn_shard_backing *backing;  /* memory is being asked for ahead of its use */
    struct pn_shard_demotion *demotion;/* rows are on their way to the second tier */
    bool forget_waits;                 /* for the demotion under way; no other begins */
    uint32_t demote_slot[PN_MAX_TABLES];
    bool broken;                       /* memory ran out in the middle of a push, or the second tier failed: the shard must be restored */
    struct pn_shard_counters counters;
};

/* Makes empty tables. job_text is parsed. PN_INVALID: err says why. */
struct pn_tiers;
enum pn_result pn_shard_open(struct pn_shard **, struct pn_env *, struct pn_tiers * /* NULL: jobs that need one are refused */, const char *job_text, const char *job_id, uint64_t term, uint64_t generation,
                             uint32_t n_producers, uint32_t first_slot, uint32_t last_slot, struct pn_error *);
void pn_shard_close(struct pn_shard *);
/* Rows that are forgotten for good (pn_table_forget): those of n keys, keys[i] of table tables[i], that are this shard's. May be called while the shard is being restored.
 * *removed goes up. PN_BUSY: again later; PN_INVALID: no such table, or the dense one; others: the shard is broken. */
enum pn_result pn_shard_forget(struct pn_shard *, const uint32_t *tables, const uint64_t *keys, size_t n, uint64_t *removed);
/* Answers PULL, PUSH, SEED and CHANGES. The message may be kept. */
void pn_shard_message(struct pn_shard *, pn_peer from, struct pn_msg *, struct pn_frame *);
/* Finishes the push that is open, if one is: between two calls of the shard's, rows and windows then agree. Before whatever looks at both. */
void pn_shard_settle(struct pn_shard *);
/* Secure jobs: one step, the mean of a secure sum over all holders, applied as one event as a sync step is. parts: keys unique and rising by pn_mix64, of this
 * shard's slots. PN_EXISTS: the step is in already, nothing was done. PN_INVALID: it is not the next. PN_NOT_SEEDED: nothing was done. Other errors: the shard is broken. */
struct pn_shard_sum { uint32_t i_table; size_t n; const uint64_t *keys; const float *values; };
enum pn_result pn_shard_apply_sum(struct pn_shard *, uint64_t step, bool last, const struct pn_shard_sum *parts, size_t n_parts);
/* REFUSAL to a message that reached a server without this shard. */
void pn_shard_refuse(struct pn_env *, pn_peer to, uint64_t term, uint64_t request, enum pn_result code, const char *text);

static inline struct pn_window *pn_shard_window(struct pn_shard *s, uint64_t producer, uint32_t slot) { return &s->windows[producer * PN_SLOTS + slot]; }
static inline bool pn_shard_owns(const struct pn_shard *s, uint64_t key) {
    uint32_t slot = pn_slot_of(key);
    return slot >= s->first_slot && slot <= s->last_slot;
}

#endif
