/* One table's rows on one shard: keys to rows, with optimizer state. Single thread, no lock.
 *
 * Rows live in fixed-size pages, a list of pages a slot; an open-addressing index a slot points into them. A page is
 * the unit of copy-on-write: pn_table_cut() makes, in O(slots), the present content the snapshot; the writer that
 * first changes a page after that keeps its old image for the scanner. */
#ifndef PN_PS_TABLE_TABLE_H
#define PN_PS_TABLE_TABLE_H

#include "common/codec.h"
#include "common/hash.h"
#include "job/job.h"

struct pn_table;

/* schema is copied. NULL: no memory. */
struct pn_table *pn_table_open(const struct pn_table_spec *schema);
/* The same with a second tier (schema->memory, schema->track): rows beyond the limit live there. The tier's reference goes to the table, also when it fails;
 * its records are of pn_table_tier_bytes. */
struct pn_tier;
struct pn_table *pn_table_open_tiered(const struct pn_table_spec *schema, struct pn_tier *);
size_t pn_table_tier_bytes(const struct pn_table_spec *);
void pn_table_close(struct pn_table *);

uint32_t pn_table_dim(const struct pn_table *);
uint64_t pn_table_rows(const struct pn_table *);         /* in memory and in the second tier */
uint64_t pn_table_cold_rows(const struct pn_table *);    /* of these in the second tier alone */
uint64_t pn_table_cold_bytes(const struct pn_table *);   /* of the second tier, on disk */
uint64_t pn_table_bytes(const struct pn_table *);        /* memory held: pages, index, kept images */
struct pn_table_counters {
    uint64_t admitted, dropped, evicted; /* rows made though there is admission; gradients dropped before it; rows that eviction took */
    uint64_t promoted, demoted, demotions_failed; /* rows brought into memory, rows taken out of it; batches that the tier refused (they stay in memory) */
};
const struct pn_table_counters *pn_table_counters(const struct pn_table *);
/* A bounded piece of eviction: one slot. The caller takes slots in turn, between requests. `step`: the newest step applied. Does nothing while a cut is
 * under way or where the schema has no eviction. */
void pn_table_evict(struct pn_table *, uint32_t i_slot, uint64_t step);
/* The admission counts of a cut, one slot at a time, behind the rows (pn_table_cut): NULL when all have been given. */
const uint8_t *pn_table_scan_counts(struct pn_table *, uint32_t *i_slot, size_t *n_bytes);
enum pn_result pn_table_restore_counts(struct pn_table *, uint32_t i_slot, const uint8_t *counts, size_t n_bytes); /* PN_CORRUPT: another size */
/* A new table takes up a terabyte of addresses, for its rows and again for its index; where many of them live in one process, this leaves each so many. */
void pn_table_confine(struct pn_table *, size_t most_bytes);
/* Memory that rows and index will need, of this shard's part: pn_table_ahead asks for it before anything is pushed. */
void pn_table_preallocate(struct pn_table *, uint64_t n_bytes);
/* Memory to be asked for before it is needed: pages.h. False: nothing to do. */
bool pn_table_ahead(struct pn_table *, void **at, size_t *n_bytes);

/* First values of rows: `begin` may change what the initializer made of a key's row. A function of the key alone, for the table's life. */
void pn_table_begin_with(struct pn_table *, void (*begin)(void *owner, uint64_t key, float *values), void *owner);

/* rows out: n * dim float32. A missing key gives the initializer's row and creates nothing; returns how many were
 * missing (explicit tables: zeros). Keys may repeat. */
size_t pn_table_pull(const struct pn_table *, const uint64_t *keys, size_t n, float *rows);
/* SIZE_MAX from a table with a second tier: that failed, or no memory. */
/* The same as a codec encodes them: n * pn_codec_row_bytes. Where the codec is the table's storage, rows are copied as they are. */
size_t pn_table_pull_as(const struct pn_table *, enum pn_codec, const uint64_t *keys, size_t n, void *rows);

/* Applies one optimizer step to each key; keys are unique in a call (the caller summed). skip: NULL, or a bit a slot
 * (1024 bits): rows of set slots are left alone. Missing rows are made by the initializer first.
 * PN_NOT_SEEDED: explicit table and a key is missing: nothing was applied. PN_NO_MEMORY: nothing was applied.
 * step: kept as the row's last-touched step; its frequency goes up by one. */
enum pn_result pn_table_push(struct pn_table *, const uint64_t *keys, const float *gradients, size_t n, uint64_t step,
                             const uint64_t *skip);
/* Gives rows their first value where absent. Idempotent. */
enum pn_result pn_table_seed(struct pn_table *, const uint64_t *keys, const float *rows, size_t n);

/* Rows that are forgotten for good (deny.c): removed from memory and from the second tier, and from then on absent: a push of their keys does nothing, a restore leaves them out, a pull
 * gives the initializer's row. Keys of later calls come on top. *removed goes up by the rows that were there. PN_BUSY: a cut is under way, or rows are on their way to the tier; PN_IO: the tier failed. */
enum pn_result pn_table_forget(struct pn_table *, const uint64_t *keys, size_t n, uint64_t *removed);
bool pn_table_denies(const struct pn_table *, uint64_t key);
/* The keys of a slot's rows in memory, in no order; keys NULL: only how many there are. */
size_t pn_table_list(const struct pn_table *, uint32_t i_slot, uint64_t *keys);

/* ---- whole records, for checkpoints and migration ---- */
/* A record: u64 key, u32 frequency, u32 last-touched step (low bits); the values as the table stores them, to whole floats; float32 optimizer state; padded
 * to 8. Fixed size: */
size_t pn_table_record_bytes(const struct pn_table *);
/* Puts a record as it is (replaces). */
enum pn_result pn_table_restore(struct pn_table *, const void *records, size_t n);
/* Begins a snapshot of the present moment; false if one is under way. Later pushes do not change what it shows. */
bool pn_table_cut(struct pn_table *);
/* Copies up to max records of the snapshot into out (max * record_bytes); each row comes once, slot by slot rising.
 * Returns how many; 0: all have been given and the snapshot is over. */
size_t pn_table_scan(struct pn_table *, void *out, size_t max);
void pn_table_cut_abort(struct pn_table *);

/* ---- the second tier ---- */
/* Demotion, in three parts: the coldest rows of slots beyond their share, from *i_slot on (moved on), are copied; written to the tier; and those that were
 * not pushed meanwhile are taken out of memory. NULL: nothing to do, a cut is under way, or no memory. Of several at a time each has slots of
 * its own. */
struct pn_demotion;
struct pn_demotion *pn_table_demote(struct pn_table *, uint32_t *i_slot, uint64_t step);
void pn_demotion_write(struct pn_demotion *);                    /* any thread; holds the tier, not the table */
void pn_table_demoted(struct pn_table *, struct pn_demotion *);  /* frees it; NULL: the table has gone */
bool pn_table_crowded(const struct pn_table *);                  /* more than an eighth above the limit: demote at once */
/* The tier's part of a cut, behind pn_table_scan, where pn_table_cut_is_cold. NULL: there is none, or no memory. next: whole records of the tier, on any
 * thread; 0: the end or *failed. keep: on the owner's thread, drops those that were in memory at the cut, returns how many are left. */
struct pn_cold_scan;
bool pn_table_cut_is_cold(const struct pn_table *);
struct pn_cold_scan *pn_table_cold_scan(struct pn_table *);
size_t pn_cold_scan_next(struct pn_cold_scan *, void *records, size_t max, bool *failed);
size_t pn_table_cold_keep(struct pn_table *, void *records, size_t n);
void pn_cold_scan_end(struct pn_cold_scan *);

#endif
