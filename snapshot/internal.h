/* Shared by the snapshot's files. docs/formats.md, "Snapshot". */
#ifndef PN_SNAPSHOT_INTERNAL_H
#define PN_SNAPSHOT_INTERNAL_H

#include "common/half.h"
#include "snapshot/snapshot.h"

/* ---- segment.c ---- */
#define PN_SEGMENT_ALIGN 64u

struct pn_segment_table {
    uint32_t i_table, dim;
    size_t n_rows;
    const uint64_t *keys;  /* sorted, no two the same */
    const float *scales;   /* int8 only */
    const uint8_t *rows;
};
struct pn_segment {
    int storage;
    uint32_t n_tables;
    struct pn_segment_table tables[PN_MAX_TABLES];
};
/* Reads an image that outlives *segment; checks every length, every checksum, the order of the keys and the padding. */
enum pn_result pn_segment_read(struct pn_segment *, const void *image, size_t n_bytes, struct pn_error *);
/* The position of a key, or SIZE_MAX. `guess` is where it may be (any value). */
size_t pn_segment_find(const struct pn_segment_table *, uint64_t key, size_t guess);
/* Where a key stands if keys are spread evenly, as hashes are. */
size_t pn_segment_guess(const struct pn_segment_table *, uint64_t key);
size_t pn_segment_row_bytes(int storage, uint32_t dim);
/* Dequantises row i. */
void pn_segment_row(const struct pn_segment *, const struct pn_segment_table *, size_t i, float *row);

/* The field `name` of a JSON object, if it is a name of a file in the folder itself (nothing that leads elsewhere). */
struct json_object;
bool pn_snapshot_plain_name(struct json_object *, char name[64]);

#endif
