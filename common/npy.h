/* Arrays in NumPy's .npy files (numpy.lib.format, versions 1.0 to 3.0), read where they lie. */
#ifndef PN_COMMON_NPY_H
#define PN_COMMON_NPY_H

#include <stddef.h>
#include <stdint.h>
#include "common/result.h"

struct pn_npy {
    char kind;               /* 'f', 'i', 'u', 'S' (bytes) or 'U' (UCS-4) */
    uint32_t item_bytes;
    uint32_t n_dims;         /* 1 or 2 */
    uint64_t shape[2];       /* [1] is 1 for one dimension */
    const uint8_t *data;     /* shape[0] * shape[1] items, row-major, little-endian; points into the file's bytes, any alignment */
};

/* bytes: the whole file, which outlives *out; file: its name for messages. Everything is checked against n_bytes. PN_INVALID: no .npy file, or one that is not read
 * here (big-endian, column-major, objects, more than two dimensions): the line says how to write another. */
enum pn_result pn_npy_read(const void *bytes, size_t n_bytes, const char *file, struct pn_npy *out, struct pn_error *);

/* Item i as a number of float32 (kinds f of 2, 4, 8 bytes) or as text: integers in decimal, strings in UTF-8 without their padding. */
float pn_npy_float(const struct pn_npy *, uint64_t i);
/* Returns the length; text has room for n; 0 also for what does not fit or is no Unicode. */
size_t pn_npy_text(const struct pn_npy *, uint64_t i, char *text, size_t n);
uint64_t pn_npy_u64(const struct pn_npy *, uint64_t i); /* kind u of 8 bytes */

#endif
