#include "common/codec.h"
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include "common/half.h"

#define BLOCK 256u
#define LEAST 1e-30f /* int8: a row without a larger number is zeros, for the inverse of its scale would not be finite */

const char *const pn_codec_names[PN_CODECS + 1] = {"float32", "float16", "bfloat16", "int8", NULL};

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
    const float scale = most >= LEAST ? most / 127 : 0, inverse = scale > 0 ? 1 / scale : 0;
    memcpy(out, &scale, 4);
    for (size_t i = 0; i < dim; i++) {
        float q = row[i] * inverse;
        out[4 + i] = (signed char)(q < 0 ? q - 0.5f : q + 0.5f);
    }
}

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#include <immintrin.h>
#include <stdatomic.h>
/* Sixteen or eight at once; they return how many were done. What is no finite number passes the clipping as it is. */
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
__attribute__((target("avx2,f16c"))) static size_t narrow8(const float *x, unsigned char *out, size_t n) {
    const __m256 most = _mm256_set1_ps(65504.0f), least = _mm256_set1_ps(-65504.0f), end = _mm256_set1_ps(FLT_MAX), sign = _mm256_set1_ps(-0.0f);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256 v = _mm256_loadu_ps(x + i), finite = _mm256_cmp_ps(_mm256_andnot_ps(sign, v), end, _CMP_LE_OQ);
        const __m256 clipped = _mm256_blendv_ps(v, _mm256_max_ps(_mm256_min_ps(v, most), least), finite);
        _mm_storeu_si128((__m128i_u *)(void *)(out + 2 * i), _mm256_cvtps_ph(clipped, _MM_FROUND_TO_NEAREST_INT));
    }
    return i;
}
__attribute__((target("avx2,f16c"))) static size_t widen8(const unsigned char *in, float *x, size_t n) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(x + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i_u *)(const void *)(in + 2 * i))));
    return i;
}
/* How many float16 numbers this machine takes at once. Asked once: in a virtual machine every CPUID costs microseconds. */
static unsigned width(void) {
    static _Atomic unsigned known;
    unsigned w = atomic_load_explicit(&known, memory_order_relaxed);
    if (w == 0) {
        unsigned a, b, c, d;
        const bool f16c = __builtin_cpu_supports("avx2") && __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) != 0;
        w = __builtin_cpu_supports("avx512f") ? 16 : f16c ? 8 : 1;
        atomic_store_explicit(&known, w, memory_order_relaxed);
    }
    return w;
}
static size_t narrow(const float *x, unsigned char *out, size_t n) { return width() == 16 ? narrow16(x, out, n) : width() == 8 ? narrow8(x, out, n) : 0; }
static size_t widen(const unsigned char *in, float *x, size_t n) { return width() == 16 ? widen16(in, x, n) : width() == 8 ? widen8(in, x, n) : 0; }

/* Rows of whole eights, wherever they lie: each is read once, where it is, and written once. */
__attribute__((target("avx2,f16c"))) static void narrow_rows8(const float *const *rows, size_t n, size_t dim, unsigned char *out) {
    for (size_t i = 0; i < n; i++)
        if (rows[i] != NULL) narrow8(rows[i], out + i * 2 * dim, dim);
}
#else
static unsigned width(void) { return 1; }
static size_t narrow(const float *x, unsigned char *out, size_t n) { (void)x; (void)out; (void)n; return 0; }
static size_t widen(const unsigned char *in, float *x, size_t n) { (void)in; (void)x; (void)n; return 0; }
static void narrow_rows8(const float *const *rows, size_t n, size_t dim, unsigned char *out) { (void)rows; (void)n; (void)dim; (void)out; }
#endif

void pn_codec_encode(enum pn_codec c, const float *rows, size_t n, size_t dim, void *out) {
    const size_t total = n * dim;
    unsigned char *to = out;
    switch (c) {
    case PN_CODEC_FLOAT16: {
        float clipped[BLOCK];
        uint16_t halves[BLOCK];
        for (size_t at = narrow(rows, to, total); at < total; at += BLOCK) {
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

void pn_codec_encode_rows(enum pn_codec c, const float *const *rows, size_t n, size_t dim, void *out) {
    if (c == PN_CODEC_FLOAT16 && dim % 8 == 0 && width() > 1) {
        narrow_rows8(rows, n, dim, out);
        return;
    }
    const size_t bytes = pn_codec_row_bytes(c, dim);
    for (size_t i = 0; i < n; i++)
        if (rows[i] != NULL) pn_codec_encode(c, rows[i], 1, dim, (unsigned char *)out + i * bytes);
}

void pn_codec_decode(enum pn_codec c, const void *in, size_t n, size_t dim, float *rows) {
    const size_t total = n * dim;
    const unsigned char *from = in;
    uint16_t b[BLOCK];
    switch (c) {
    case PN_CODEC_FLOAT16:
    case PN_CODEC_BFLOAT16:
        for (size_t at = c == PN_CODEC_FLOAT16 ? widen(from, rows, total) : 0; at < total; at += BLOCK) {
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

/* ---- stochastic rounding ---- */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define MACHINES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define MACHINES
#endif

/* 32 random bits of element i (Wellons' lowbias32). */
static inline uint32_t bits_of(uint32_t seed, uint32_t i) {
    uint32_t x = seed + i * 0x9e3779b9u;
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}
static inline uint32_t bits_from(float x) {
    uint32_t b;
    memcpy(&b, &x, 4);
    return b;
}

/* A random number of the size of what is cut off is added below, then it is cut off: it carries with just that probability. */
MACHINES static void bfloat_row(const float *row, size_t dim, uint32_t seed, uint16_t *out) {
    for (size_t i = 0; i < dim; i++) {
        const uint32_t b = bits_from(row[i]), magnitude = b & 0x7fffffffu, up = magnitude + (bits_of(seed, (uint32_t)i) >> 16);
        const uint32_t kept = up < 0x7f800000u ? up : 0x7f7fffffu; /* a finite number stays one */
        out[i] = (uint16_t)((magnitude >= 0x7f800000u ? b | (uint32_t)(magnitude > 0x7f800000u) << 22 : (b & 0x80000000u) | kept) >> 16);
    }
}
MACHINES static void half_row(const float *row, size_t dim, uint32_t seed, uint16_t *out) {
    for (size_t i = 0; i < dim; i++) {
        const uint32_t b = bits_from(row[i]), magnitude = b & 0x7fffffffu, random = bits_of(seed, (uint32_t)i);
        const uint32_t normal = (magnitude + (random & 0x1fffu) - 0x38000000u) >> 13;
        /* below 2^-14 the steps are of 2^-24 each */
        float small;
        memcpy(&small, &magnitude, 4);
        const uint32_t subnormal = (uint32_t)(int32_t)(small < 0x1p-14f ? small * 0x1p24f + (float)(random >> 19) * 0x1p-13f : 0.0f);
        uint32_t h = magnitude < 0x38800000u ? subnormal : normal < 0x7bffu ? normal : 0x7bffu; /* at most 65504 */
        h = magnitude > 0x7f800000u ? 0x7e00u : magnitude == 0x7f800000u ? 0x7c00u : magnitude > 0x477fe000u ? 0x7bffu : h;
        out[i] = (uint16_t)((b >> 16 & 0x8000u) | h);
    }
}
MACHINES static void int8_row(const float *row, size_t dim, uint32_t seed, signed char *out) {
    float most = 0;
    uint32_t bad = 0;
    for (size_t i = 0; i < dim; i++) {
        const float x = fabsf(row[i]);
        bad |= (bits_from(row[i]) & 0x7f800000u) == 0x7f800000u;
        most = x > most ? x : most;
    }
    if (bad) {
        encode_int8(row, dim, out);
        return;
    }
    const float scale = most >= LEAST ? most / 127 : 0, inverse = scale > 0 ? 1 / scale : 0;
    memcpy(out, &scale, 4);
    for (size_t i = 0; i < dim; i++) {
        const float q = row[i] * inverse + 128.0f + (float)(bits_of(seed, (uint32_t)i) >> 16) * 0x1p-16f; /* exact; positive: cutting off is floor */
        const int32_t k = (int32_t)q - 128;
        out[4 + i] = (signed char)(k > 127 ? 127 : k);
    }
}

void pn_codec_encode_stochastic(enum pn_codec c, const float *rows, size_t n, size_t dim, const uint64_t *seeds, void *out) {
    const size_t bytes = pn_codec_row_bytes(c, dim);
    uint16_t b[BLOCK];
    for (size_t i = 0; i < n; i++) {
        unsigned char *to = (unsigned char *)out + i * bytes;
        const float *row = rows + i * dim;
        const uint32_t seed = (uint32_t)(seeds[i] ^ seeds[i] >> 32);
        if (c == PN_CODEC_FLOAT32) memcpy(to, row, bytes);
        else if (c == PN_CODEC_INT8) int8_row(row, dim, seed, (signed char *)to);
        else
            for (size_t at = 0; at < dim; at += BLOCK) {
                const size_t count = dim - at < BLOCK ? dim - at : BLOCK;
                if (c == PN_CODEC_FLOAT16) half_row(row + at, count, seed + (uint32_t)at * 0x9e3779b9u, b);
                else bfloat_row(row + at, count, seed + (uint32_t)at * 0x9e3779b9u, b);
                memcpy(to + 2 * at, b, 2 * count);
            }
    }
}
