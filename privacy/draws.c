#include "privacy/draws.h"
#include <math.h>
#include <sodium.h>
#include <string.h>

void pn_draws_open(struct pn_draws *g, const uint8_t seed[PN_DRAWS_KEY_BYTES]) {
    const int faster = sodium_init(); /* until then libsodium takes its plainest ChaCha20, to the same bits; where it fails, that stays */
    (void)faster;
    memcpy(g->key, seed, sizeof g->key);
    g->i_block = 0;
    g->used = PN_DRAWS_BLOCK;
}

void pn_draws_close(struct pn_draws *g) { sodium_memzero(g, sizeof *g); }

static void refill(struct pn_draws *g) {
    static const uint8_t nonce[crypto_stream_chacha20_NONCEBYTES] = {0};
    memset(g->bits, 0, sizeof g->bits);
    crypto_stream_chacha20_xor_ic(g->bits, g->bits, sizeof g->bits, nonce, g->i_block * (PN_DRAWS_BLOCK / 64), g->key);
    g->i_block++;
    g->used = 0;
}

uint64_t pn_draws_bits(struct pn_draws *g) {
    uint64_t x;
    if (g->used + sizeof x > PN_DRAWS_BLOCK) refill(g);
    memcpy(&x, g->bits + g->used, sizeof x);
    g->used += sizeof x;
    return x;
}

double pn_draws_uniform(struct pn_draws *g) { return ((double)(pn_draws_bits(g) >> 12) + 0.5) * 0x1p-52; }

uint64_t pn_draws_below(struct pn_draws *g, uint64_t n) {
    const uint64_t most = UINT64_MAX - UINT64_MAX % n; /* a multiple of n: what is above would favour the small ones */
    uint64_t x;
    do x = pn_draws_bits(g);
    while (x >= most);
    return x % n;
}

/* A block of bits into as many normal draws as it has 4 bytes: pairs of 32-bit numbers u, v give sqrt(-2 ln u) times the cosine and the sine of 2 pi v. ln, sine and
 * cosine are polynomials without a branch, so that the loop runs in vectors; their error is below 1e-6. */
enum { PAIRS = PN_DRAWS_BLOCK / 8 };
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
static void normal_block(const uint32_t *restrict bits, float *restrict out) {
    for (size_t i = 0; i < PAIRS; i++) {
        const float x = ((float)(int32_t)(bits[i] >> 1) + 0.5f) * 0x1p-31f; /* in (0, 1]; small ones are made again, finer, by far_out */
        /* ln x: x = 2^k m, m in [sqrt(1/2), sqrt(2)), by the series of artanh((m - 1) / (m + 1)) */
        uint32_t word;
        memcpy(&word, &x, sizeof word);
        const int32_t k = (int32_t)(word - 0x3f3504f3u) >> 23;
        const uint32_t mantissa = word - ((uint32_t)k << 23);
        float m;
        memcpy(&m, &mantissa, sizeof m);
        const float z = (m - 1) / (m + 1), z2 = z * z;
        const float ln = (float)k * 0.69314718f + 2 * z * (1 + z2 * (0.33333333f + z2 * (0.2f + z2 * (0.14285714f + z2 * 0.11111111f))));
        const float radius = sqrtf(-2 * ln);
        /* the angle as a quarter turn and what is left of it, in [-pi/4, pi/4] */
        const uint32_t v = bits[PAIRS + i] >> 8;
        const uint32_t quarter = (v + 0x200000u) >> 22;
        const float a = (float)((int32_t)v - (int32_t)(quarter << 22)) * (6.2831853f * 0x1p-24f), a2 = a * a;
        const float sine = a * (1 + a2 * (-0.16666667f + a2 * (0.0083333333f + a2 * -0.00019841270f)));
        const float cosine = 1 + a2 * (-0.5f + a2 * (0.041666667f + a2 * (-0.0013888889f + a2 * 0.000024801587f)));
        /* odd quarters change the two; the cosine is negative in quarters 1 and 2, the sine in 2 and 3 */
        const float c = quarter & 1 ? sine : cosine, s = quarter & 1 ? cosine : sine;
        out[i] = c * (radius * (float)(1 - (int32_t)((quarter + 1) & 2)));
        out[PAIRS + i] = s * (radius * (float)(1 - (int32_t)(quarter & 2)));
    }
}

/* Far out the steps of 31 bits would show, and the last of them would be the end of all draws, at 6.6 deviations: what lies beyond could be a sum with a certain unit only. So the pairs whose u is
 * below 2^-15 (a sixteenth of the blocks has one) get 52 more bits below theirs: the end is at 10.8 deviations, past 2^-84 of all draws. */
static void far_out(struct pn_draws *g, const uint32_t *bits, float *out) {
    for (size_t i = 0; i < PAIRS; i++) {
        if (bits[i] >> 17 != 0) continue;
        const double u = ((double)(bits[i] >> 1) + pn_draws_uniform(g)) * 0x1p-31, turn = 6.283185307179586 * 0x1p-24 * (double)(bits[PAIRS + i] >> 8), radius = sqrt(-2 * log(u));
        out[i] = (float)(radius * cos(turn));
        out[PAIRS + i] = (float)(radius * sin(turn));
    }
}

void pn_draws_add_normal(struct pn_draws *g, float *values, size_t n, float sigma) {
    float normal[2 * PAIRS];
    uint32_t bits[2 * PAIRS];
    for (size_t begin = 0; begin < n; begin += 2 * PAIRS) {
        const size_t count = n - begin < 2 * PAIRS ? n - begin : 2 * PAIRS;
        refill(g);
        memcpy(bits, g->bits, sizeof bits);
        g->used = PN_DRAWS_BLOCK; /* the whole block is spent */
        normal_block(bits, normal);
        far_out(g, bits, normal);
        for (size_t i = 0; i < count; i++) values[begin + i] += sigma * normal[i];
    }
    sodium_memzero(normal, sizeof normal);
    sodium_memzero(bits, sizeof bits);
}

double pn_draws_normal(struct pn_draws *g) { return sqrt(-2 * log(pn_draws_uniform(g))) * cos(6.283185307179586 * pn_draws_uniform(g)); }

double pn_normal_tail(double t) { return 0.5 * erfc(t * 0.7071067811865476); }

/* Above 0 by waiting times (Marsaglia 1964), which is quick far out; below, by trying. */
double pn_draws_normal_above(struct pn_draws *g, double t) {
    if (t <= 0.5) {
        double x;
        do x = pn_draws_normal(g);
        while (x <= t);
        return x;
    }
    for (;;) {
        const double x = sqrt(t * t - 2 * log(pn_draws_uniform(g)));
        if (pn_draws_uniform(g) * x < t) return x;
    }
}

/* The a-th smallest of n uniform draws: Beta(a, n + 1 - a), from two gamma draws (Marsaglia and Tsang 2000; shapes are at least 1 here). */
static double gamma_draw(struct pn_draws *g, double shape) {
    const double d = shape - 1.0 / 3, c = 1 / sqrt(9 * d);
    for (;;) {
        const double x = pn_draws_normal(g), v = (1 + c * x) * (1 + c * x) * (1 + c * x);
        if (v > 0 && log(pn_draws_uniform(g)) < 0.5 * x * x + d - d * v + d * log(v)) return d * v;
    }
}

uint64_t pn_draws_binomial(struct pn_draws *g, uint64_t n, double p) {
    uint64_t count = 0;
    if (!(p > 0) || n == 0) return 0;
    if (p >= 1) return n;
    if (p > 0.5) return n - pn_draws_binomial(g, n, 1 - p);
    while ((double)n * p > 30) { /* the middle one of n uniform draws halves the question: is it below p? */
        const uint64_t middle = n / 2 + 1;
        const double a = gamma_draw(g, (double)middle), b = gamma_draw(g, (double)(n + 1 - middle)), at = a / (a + b);
        if (at <= p) { /* the lower `middle` are below; what is left lies above it */
            count += middle;
            p = (p - at) / (1 - at);
            n -= middle;
        } else {
            p = p / at;
            n = middle - 1;
        }
        if (p >= 1) return count + n;
        if (!(p > 0)) return count;
    }
    const double ln = log1p(-p); /* trials until the next success: geometric */
    for (double at = 0;;) {
        at += floor(log(pn_draws_uniform(g)) / ln) + 1;
        if (at > (double)n) return count;
        count++;
    }
}
