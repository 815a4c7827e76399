/* What serving needs of a trained model, as files (docs/formats.md):
 *
 *   <dir>/manifest.json      written last: format, job, version, checkpoint, files {name, bytes, blake2b}, tables, storage
 *   <dir>/job.yaml           features and model, as resolved
 *   <dir>/statistics.json    of the transforms
 *   <dir>/dense.safetensors  the model's dense parameters by block
 *   <dir>/NNN.seg            embeddings: one file a checkpoint file, all tables, sorted by (table, key)
 *
 * A folder without a valid manifest does not exist. */
#ifndef PN_SNAPSHOT_SNAPSHOT_H
#define PN_SNAPSHOT_SNAPSHOT_H

#include "common/env.h"
#include "common/hash.h"
#include "job/job.h"

/* ---- writing a segment: from (key, row) pairs of one table after the other ---- */
struct pn_segment_writer;
struct pn_segment_writer *pn_segment_start(int storage /* PN_STORE_* */);
/* Rows of one table, any order; copied and quantised (float16 round to nearest even; int8 with one scale a row, max|x|/127). */
enum pn_result pn_segment_add(struct pn_segment_writer *, uint32_t i_table, uint32_t dim, const uint64_t *keys, const float *rows, size_t n);
/* Sorts and lays out the file image: header, per table {keys[], scales[], rows[]}, each block with CRC-32C. malloc; frees the writer. */
enum pn_result pn_segment_finish(struct pn_segment_writer *, void **image, size_t *n_bytes, char digest_hex[65]);
void pn_segment_abandon(struct pn_segment_writer *);

/* ---- safetensors ---- */
/* File image of named float32 blocks. names/offsets/shapes by callback-free arrays. malloc. */
enum pn_result pn_safetensors_write(const float *parameters, size_t n_blocks, const char *const *names, const size_t *offsets,
                                    const size_t (*shapes)[2], void **image, size_t *n_bytes);
/* Finds block `name` in an image; checks every offset against the bytes that are there. NULL: not there or hostile. */
const float *pn_safetensors_find(const void *image, size_t n_bytes, const char *name, size_t *n_floats);

/* ---- reading: a version mapped read-only ---- */
struct pn_snapshot;
/* Maps and verifies every file against the manifest (digest), every block's checksum. PN_CORRUPT names file and block. */
enum pn_result pn_snapshot_open(struct pn_snapshot **, struct pn_env *, const char *dir, struct pn_error *);
/* The same in two steps: map reads the manifest and maps (core thread, short); verify reads every byte (pure: may run on a work
 * thread, while nobody else uses the snapshot). Nothing but close may be called before verify returned PN_OK. */
enum pn_result pn_snapshot_map(struct pn_snapshot **, struct pn_env *, const char *dir, struct pn_error *);
enum pn_result pn_snapshot_verify(struct pn_snapshot *, struct pn_error *);
void pn_snapshot_close(struct pn_snapshot *);
const struct pn_job *pn_snapshot_job(const struct pn_snapshot *);
uint64_t pn_snapshot_version(const struct pn_snapshot *);
const char *pn_snapshot_model(const struct pn_snapshot *);
uint64_t pn_snapshot_published_ms(const struct pn_snapshot *); /* 0: not known */
const char *pn_snapshot_statistics(const struct pn_snapshot *); /* JSON text */
uint64_t pn_snapshot_rows(const struct pn_snapshot *);
/* A verified file of the version by its name, mapped; NULL: it has no such file. */
const void *pn_snapshot_file(const struct pn_snapshot *, const char *name, size_t *n_bytes);
/* The dense vector by the net's blocks, as written. */
const float *pn_snapshot_dense(const struct pn_snapshot *, const char *block, size_t *n_floats);
/* The keys of a table, rising: n of them. keys NULL: only their number. */
size_t pn_snapshot_keys(const struct pn_snapshot *, uint32_t i_table, uint64_t *keys);
/* rows out: n * dim(i_table), dequantised; an absent key gives zeros. Returns how many were absent. */
size_t pn_snapshot_pull(const struct pn_snapshot *, uint32_t i_table, const uint64_t *keys, size_t n, float *rows);

#endif
