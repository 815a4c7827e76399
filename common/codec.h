/* How rows travel: float32 as they are; float16 and bfloat16 at half the bytes; int8 with one float32 scale a row (the largest magnitude / 127) at a quarter.
 * float16 ends at 65504: larger numbers become that, so that a finite row stays finite. */
#ifndef PN_COMMON_CODEC_H
#define PN_COMMON_CODEC_H

#include <stddef.h>

enum pn_codec { PN_CODEC_FLOAT32, PN_CODEC_FLOAT16, PN_CODEC_BFLOAT16, PN_CODEC_INT8, PN_CODECS };
size_t pn_codec_row_bytes(enum pn_codec, size_t dim);
/* n rows of dim floats; out and in hold n * pn_codec_row_bytes, any alignment. Deterministic. */
void pn_codec_encode(enum pn_codec, const float *rows, size_t n, size_t dim, void *out);
void pn_codec_decode(enum pn_codec, const void *in, size_t n, size_t dim, float *rows);

#endif
