/* The checkpoint file of a shard (docs/formats.md): blocks of at most 1 MiB, each with its checksum; a digest of the whole.
 * Values, optimizer state, windows and clocks of one cut. */
#ifndef PN_PS_CHECKPOINT_H
#define PN_PS_CHECKPOINT_H

#include "ps/shard.h"

/* A block on disk: this head, then n_bytes of payload, padded to a multiple of 8. */
struct pn_block {
    uint32_t type, i_table;
    uint64_t n_bytes;
    uint32_t crc_payload, crc_head; /* CRC-32C; of the head: its first 20 bytes */
};
enum pn_block_type {
    PN_BLOCK_HEAD = 1,      /* JSON: format, job, generation, epoch, term, n_producers, first_slot, last_slot, tables */
    PN_BLOCK_RECORDS = 2,   /* records of table i_table as pn_table_scan gives them */
    PN_BLOCK_WINDOWS = 3,   /* struct pn_saved_window[] */
    PN_BLOCK_PRODUCERS = 4, /* struct pn_shard_producer[n_producers] */
    PN_BLOCK_AUDIT = 5,     /* u64[PN_SLOTS], then u64 sync_step */
    PN_BLOCK_END = 6,       /* u64 rows, u64 blocks before this one */
    PN_BLOCK_COUNTS = 7     /* behind the records: admission counts of table i_table: u64 slot, then the sketch of that slot */
};
#define PN_BLOCK_MAX_BYTES (1u << 20)
/* A block whose type, table and n_bytes stand: its checksums, and the zeros behind its payload (room for pn_pad8(n_bytes)). */
void pn_block_seal(struct pn_block *, uint8_t *payload);
struct pn_saved_window { uint32_t producer, slot; struct pn_window window; };

/* ---- writing: the cut was taken; files of a piece at a time while the shard goes on ---- */
struct pn_checkpoint_writer;
/* Takes the cut of the shard at this moment and begins to write `dir`/`name`.ps. done runs once unless abandoned before:
 * result 0 and size, digest, rows; or a negative errno (nothing of it counts; the attempt's file is removed). NULL: no memory or a cut is under way. */
struct pn_checkpoint_writer *pn_checkpoint_write(struct pn_shard *, const char *dir, const char *name, uint64_t epoch,
                                                 void (*done)(void *owner, int64_t result, uint64_t n_bytes, const char *digest, uint64_t rows), void *owner);
/* No done any more; memory goes when the operation in flight returned. Ends the shard's cut. */
void pn_checkpoint_abandon(struct pn_checkpoint_writer *);

/* ---- reading: a whole file in memory; pure ---- */
struct pn_checkpoint_head {
    char job_id[64];
    uint64_t epoch;
    uint32_t n_producers, first_slot, last_slot, n_tables;
    uint32_t record_bytes[PN_MAX_TABLES], dim[PN_MAX_TABLES];
    bool explicit_rows[PN_MAX_TABLES];
    enum pn_codec storage[PN_MAX_TABLES]; /* of the values in a record */
};
/* Visits every block in order after checking digest (64 hex digits, NULL: unknown), structure and checksums of all of them: a bad file changes nothing.
 * PN_CORRUPT names the block. */
enum pn_result pn_checkpoint_read(const void *image, size_t n_bytes, const char *digest, struct pn_checkpoint_head *head,
                                  enum pn_result (*visit)(void *ctx, const struct pn_checkpoint_head *, const struct pn_block *, const void *payload),
                                  void *ctx, struct pn_error *);
/* Takes what belongs to the shard's slots out of a file. */
enum pn_result pn_checkpoint_restore(struct pn_shard *, const void *image, size_t n_bytes, const char *digest, struct pn_error *);

#endif
