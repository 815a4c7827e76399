/* Half precision: by F16C where the machine has it, else by hand; both give the same bits (tests/unit/common/half.c). */
#include <stdbool.h>
#include <string.h>
#include "common/half.h"
#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#include <stdatomic.h>
#endif

uint16_t pn_half_from_float(float x) {
    uint32_t b;
    memcpy(&b, &x, 4);
    uint32_t sign = b >> 16 & 0x8000u, magnitude = b & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | (magnitude >> 13 & 0x3ffu)); /* NaN, made quiet */
    if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u);                              /* rounds beyond 65504 */
    if (magnitude >= 0x38800000u) {                                                              /* normal */
        uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
        return (uint16_t)(sign | ((rounded - 0x38000000u) >> 13));
    }
    if (magnitude < 0x33000000u) return (uint16_t)sign;                                          /* below half the least */
    uint32_t shift = 126u - (magnitude >> 23), mantissa = (magnitude & 0x7fffffu) | 0x800000u;    /* subnormal: 14 to 24 */
    uint32_t kept = mantissa >> shift, rest = mantissa & ((1u << shift) - 1u), half = 1u << (shift - 1);
    return (uint16_t)(sign | (kept + (rest > half || (rest == half && (kept & 1u)))));
}

float pn_float_from_half(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = h >> 10 & 31u, mantissa = h & 0x3ffu, b;
    if (exponent == 31) {
        b = sign | 0x7f800000u | mantissa << 13 | (mantissa != 0 ? 0x400000u : 0);
    } else if (exponent > 0) {
        b = sign | (exponent + 112u) << 23 | mantissa << 13;
    } else {
        float f = (float)mantissa * 0x1p-24f; /* exact */
        memcpy(&b, &f, 4);
        b |= sign;
    }
    float x;
    memcpy(&x, &b, 4);
    return x;
}

#if defined(__x86_64__)
/* Asked once: in a virtual machine every CPUID costs microseconds. */
static bool has_f16c(void) {
    static _Atomic signed char known; /* 0: not asked yet; all who ask find the same */
    signed char answer = atomic_load_explicit(&known, memory_order_relaxed);
    if (answer == 0) {
        unsigned a, b, c, d;
        answer = __builtin_cpu_supports("avx2") && __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) != 0 ? 1 : -1;
        atomic_store_explicit(&known, answer, memory_order_relaxed);
    }
    return answer > 0;
}

__attribute__((target("avx,f16c"))) static size_t narrow8(const float *x, uint16_t *h, size_t n) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i_u *)(void *)(h + i), _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
    return i;
}
__attribute__((target("avx,f16c"))) static size_t widen8(const uint16_t *h, float *x, size_t n) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(x + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i_u *)(const void *)(h + i))));
    return i;
}
#else
static bool has_f16c(void) { return false; }
static size_t narrow8(const float *x, uint16_t *h, size_t n) { (void)x; (void)h; (void)n; return 0; }
static size_t widen8(const uint16_t *h, float *x, size_t n) { (void)x; (void)h; (void)n; return 0; }
#endif

void pn_halves_from_floats(const float *x, uint16_t *h, size_t n) {
    for (size_t i = has_f16c() ? narrow8(x, h, n) : 0; i < n; i++) h[i] = pn_half_from_float(x[i]);
}
void pn_floats_from_halves(const uint16_t *h, float *x, size_t n) {
    for (size_t i = n >= 8 && has_f16c() ? widen8(h, x, n) : 0; i < n; i++) x[i] = pn_float_from_half(h[i]);
}

/* bfloat16 is the upper half of a float32. */
uint16_t pn_bfloat_from_float(float x) {
    uint32_t b;
    memcpy(&b, &x, 4);
    if ((b & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(b >> 16 | 0x40u); /* NaN, made quiet */
    return (uint16_t)((b + 0x7fffu + (b >> 16 & 1u)) >> 16);
}
float pn_float_from_bfloat(uint16_t h) {
    uint32_t b = (uint32_t)h << 16;
    float x;
    memcpy(&x, &b, 4);
    return x;
}
void pn_bfloats_from_floats(const float *x, uint16_t *b, size_t n) {
    for (size_t i = 0; i < n; i++) b[i] = pn_bfloat_from_float(x[i]);
}
void pn_floats_from_bfloats(const uint16_t *b, float *x, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] = pn_float_from_bfloat(b[i]);
}
