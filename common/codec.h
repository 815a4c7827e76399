/* How rows travel: float32 as they are; float16 and bfloat16 at half the bytes; int8 with one float32 scale a row (the largest magnitude / 127) at a quarter.
 * float16 ends at 65504: larger numbers become that, so that a finite row stays finite. */
#ifndef PN_COMMON_CODEC_H
#define PN_COMMON_CODEC_H

#include <stddef.h>
#include <stdint.h>

enum pn_codec { PN_CODEC_FLOAT32, PN_CODEC_FLOAT16, PN_CODEC_BFLOAT16, PN_CODEC_INT8, PN_CODECS };
extern const char *const pn_codec_names[PN_CODECS + 1]; /* NULL at the end */
size_t pn_codec_row_bytes(enum pn_codec, size_t dim);
/* n rows of dim floats; out and in hold n * pn_codec_row_bytes, any alignment. Deterministic. */
void pn_codec_encode(enum pn_codec, const float *rows, size_t n, size_t dim, void *out);
/* The same for rows that lie apart. A row that is NULL: what out holds there stays. */
void pn_codec_encode_rows(enum pn_codec, const float *const *rows, size_t n, size_t dim, void *out);
/* The same as pn_codec_encode with stochastic rounding: up with the probability of the part that is cut off, so that its expectation is the number itself (Gupta et al. 2015)
 * and updates far below half a unit are not lost. seeds: one a row; the same seed and row give the same bytes on every machine. */
void pn_codec_encode_stochastic(enum pn_codec, const float *rows, size_t n, size_t dim, const uint64_t *seeds, void *out);
void pn_codec_decode(enum pn_codec, const void *in, size_t n, size_t dim, float *rows);

#endif
