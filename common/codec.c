#include "common/codec.h"
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include "common/half.h"

#define BLOCK 256u

size_t pn_codec_row_bytes(enum pn_codec c, size_t dim) { return c == PN_CODEC_FLOAT32 ? 4 * dim : c == PN_CODEC_INT8 ? 4 + dim : 2 * dim; }

static void encode_int8(const float *row, size_t dim, signed char *out) {
    float most = 0;
    bool finite = true;
    for (size_t i = 0; i < dim; i++) {
        most = fmaxf(most, fabsf(row[i]));
        finite = finite && fabsf(row[i]) <= FLT_MAX;
    }
    if (!finite) { /* the whole row says so */
        const float nan = NAN;
        memcpy(out, &nan, 4);
        memset(out + 4, 0, dim);
        return;
    }
    const float scale = most / 127, inverse = scale > 0 ? 1 / scale : 0;
    memcpy(out, &scale, 4);
    for (size_t i = 0; i < dim; i++) {
        float q = row[i] * inverse;
        out[4 + i] = (signed char)(q < 0 ? q - 0.5f : q + 0.5f);
    }
}

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
/* Sixteen at once; returns how many were done. What is no finite number passes the clipping as it is. */
__attribute__((target("avx512f"))) static size_t narrow16(const float *x, unsigned char *out, size_t n) {
    const __m512 most = _mm512_set1_ps(65504.0f), least = _mm512_set1_ps(-65504.0f), end = _mm512_set1_ps(FLT_MAX);
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        __m512 v = _mm512_loadu_ps(x + i);
        __mmask16 finite = _mm512_cmp_ps_mask(_mm512_abs_ps(v), end, _CMP_LE_OQ);
        v = _mm512_mask_max_ps(v, finite, _mm512_min_ps(v, most), least);
        _mm256_storeu_si256((__m256i_u *)(void *)(out + 2 * i), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
    }
    return i;
}
__attribute__((target("avx512f"))) static size_t widen16(const unsigned char *in, float *x, size_t n) {
    size_t i = 0;
    for (; i + 16 <= n; i += 16) _mm512_storeu_ps(x + i, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i_u *)(const void *)(in + 2 * i))));
    return i;
}
static bool wide(void) {
    static signed char known;
    if (known == 0) known = __builtin_cpu_supports("avx512f") ? 1 : -1;
    return known > 0;
}
#else
static size_t narrow16(const float *x, unsigned char *out, size_t n) { (void)x; (void)out; (void)n; return 0; }
static size_t widen16(const unsigned char *in, float *x, size_t n) { (void)in; (void)x; (void)n; return 0; }
static bool wide(void) { return false; }
#endif

void pn_codec_encode(enum pn_codec c, const float *rows, size_t n, size_t dim, void *out) {
    const size_t total = n * dim;
    unsigned char *to = out;
    switch (c) {
    case PN_CODEC_FLOAT16: {
        float clipped[BLOCK];
        uint16_t halves[BLOCK];
        for (size_t at = wide() ? narrow16(rows, to, total) : 0; at < total; at += BLOCK) {
            const size_t count = total - at < BLOCK ? total - at : BLOCK;
            for (size_t i = 0; i < count; i++) {
                float x = rows[at + i];
                x = x > 65504.0f && x <= FLT_MAX ? 65504.0f : x; /* what is no finite number stays none: the receiver must see it */
                clipped[i] = x < -65504.0f && x >= -FLT_MAX ? -65504.0f : x;
            }
            pn_halves_from_floats(clipped, halves, count);
            memcpy(to + 2 * at, halves, 2 * count);
        }
        break;
    }
    case PN_CODEC_BFLOAT16: {
        uint16_t b[BLOCK];
        for (size_t at = 0; at < total; at += BLOCK) {
            const size_t count = total - at < BLOCK ? total - at : BLOCK;
            pn_bfloats_from_floats(rows + at, b, count);
            memcpy(to + 2 * at, b, 2 * count);
        }
        break;
    }
    case PN_CODEC_INT8:
        for (size_t i = 0; i < n; i++) encode_int8(rows + i * dim, dim, (signed char *)to + i * (4 + dim));
        break;
    default: memcpy(out, rows, 4 * total);
    }
}

void pn_codec_decode(enum pn_codec c, const void *in, size_t n, size_t dim, float *rows) {
    const size_t total = n * dim;
    const unsigned char *from = in;
    uint16_t b[BLOCK];
    switch (c) {
    case PN_CODEC_FLOAT16:
    case PN_CODEC_BFLOAT16:
        for (size_t at = c == PN_CODEC_FLOAT16 && wide() ? widen16(from, rows, total) : 0; at < total; at += BLOCK) {
            const size_t count = total - at < BLOCK ? total - at : BLOCK;
            memcpy(b, from + 2 * at, 2 * count);
            if (c == PN_CODEC_FLOAT16) pn_floats_from_halves(b, rows + at, count);
            else pn_floats_from_bfloats(b, rows + at, count);
        }
        break;
    case PN_CODEC_INT8:
        for (size_t i = 0; i < n; i++) {
            float scale;
            const signed char *q = (const signed char *)from + i * (4 + dim) + 4;
            memcpy(&scale, q - 4, 4);
            for (size_t d = 0; d < dim; d++) rows[i * dim + d] = scale * (float)q[d];
        }
        break;
    default: memcpy(rows, in, 4 * total);
    }
}
