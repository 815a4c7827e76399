#include "privacy/discrete.h"
#include <assert.h>
#include <math.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { BUFFER = 8192 };
struct pn_discrete { uint8_t key[32]; uint64_t counter; size_t at; _Alignas(64) uint8_t bytes[BUFFER]; };

enum pn_result pn_discrete_open(struct pn_discrete **out, struct pn_error *err) {
    if (sodium_init() < 0) return pn_fail(err, PN_FAILED, "libsodium cannot be started: no noise, so nothing private may be released");
    struct pn_discrete *s = aligned_alloc(64, (sizeof *s + 63) / 64 * 64);
    if (s == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory for a source of noise");
    memset(s, 0, sizeof *s);
    randombytes_buf(s->key, sizeof s->key);
    s->at = BUFFER;
    *out = s;
    return PN_OK;
}
void pn_discrete_close(struct pn_discrete *s) {
    if (s != NULL) sodium_memzero(s, sizeof *s);
    free(s);
}

static void refill(struct pn_discrete *s) {
    uint8_t nonce[8];
    memcpy(nonce, &s->counter, 8);
    s->counter++;
    crypto_stream_chacha20(s->bytes, BUFFER, nonce, s->key);
    s->at = 0;
}
static inline uint64_t word(struct pn_discrete *s) {
    if (s->at == BUFFER) refill(s);
    uint64_t v;
    memcpy(&v, s->bytes + s->at, 8);
    s->at += 8;
    return v;
}

/* ---- exact: Canonne, Kamath, Steinke 2020 ---- */

/* Uniform below n, exactly. */
static uint64_t below(struct pn_discrete *s, uint64_t n) {
    const uint64_t limit = UINT64_MAX - UINT64_MAX % n;
    for (;;) {
        const uint64_t v = word(s);
        if (v < limit) return v % n;
    }
}
/* True with probability exp(-a / b), 0 <= a <= b (algorithm 1, first part). */
static bool exp_upto_1(struct pn_discrete *s, unsigned __int128 a, uint64_t b) {
    uint64_t k = 1;
    while (true) { /* with probability a / (b k): uniform below b k < a, as uniform below k is 0 and uniform below b < a */
        if (below(s, k) != 0 || below(s, b) >= a) break;
        k++;
    }
    return k & 1;
}
static bool exp_any(struct pn_discrete *s, unsigned __int128 a, uint64_t b) {
    for (; a > b; a -= b)
        if (!exp_upto_1(s, 1, 1)) return false;
    return exp_upto_1(s, a, b);
}
/* Discrete Laplace of scale t (algorithm 2 with s = 1). */
static int64_t laplace(struct pn_discrete *s, uint64_t t) {
    for (;;) {
        const uint64_t u = below(s, t);
        if (!exp_upto_1(s, u, t)) continue;
        uint64_t v = 0;
        while (exp_upto_1(s, 1, 1)) v++;
        const uint64_t x = u + t * v;
        const bool negative = word(s) & 1;
        if (negative && x == 0) continue;
        return negative ? -(int64_t)x : (int64_t)x;
    }
}
int64_t pn_discrete_exact(struct pn_discrete *s, uint32_t numerator, uint32_t denominator) {
    assert(numerator >= 1 && denominator >= 1 && denominator <= 1u << 20 && numerator <= (denominator == 1 ? 1u << 30 : 1u << 20));
    uint64_t t = (uint64_t)sqrt((double)numerator / denominator) + 1; /* floor(sigma) + 1, whatever the root was rounded to */
    while (t * t * denominator <= numerator) t++;
    while (t > 1 && (t - 1) * (t - 1) * denominator > numerator) t--;
    for (;;) { /* keep y with probability exp(-(|y| - sigma^2 / t)^2 / 2 sigma^2); with sigma^2 = p / q that is exp(-(|y| q t - p)^2 / (2 p q t^2)) */
        const int64_t y = laplace(s, t);
        const int64_t off = (y < 0 ? -y : y) * (int64_t)denominator * (int64_t)t - (int64_t)numerator;
        const unsigned __int128 a = (unsigned __int128)((__int128)off * off);
        const uint64_t b = 2u * (uint64_t)numerator * denominator * t * t; /* below 2^63: t <= 1,025 and p q <= 2^40, or t <= 2^15 + 1 and p <= 2^30 */
        if (exp_any(s, a, b)) return y;
    }
}

/* ---- tables ---- */
struct pn_discrete_table {
    size_t n, steps;      /* entries; a power of two of them */
    int32_t low;          /* the value of entry 0 */
    uint64_t *cumulative; /* entry i: P[x <= low + i] in 2^-63; padded with UINT64_MAX to 2^steps */
};

static enum pn_result table(struct pn_discrete_table **out, int32_t reach, long double (*log_p)(int32_t, long double), long double parameter, struct pn_error *err) {
    const size_t n = 2u * (size_t)reach + 1;
    struct pn_discrete_table *t = calloc(1, sizeof *t);
    long double *p = malloc(n * sizeof *p), sum = 0, top = 0;
    if (t != NULL) {
        t->n = n;
        t->low = -reach;
        while ((size_t)1 << t->steps < n) t->steps++;
        t->cumulative = malloc(sizeof *t->cumulative << t->steps);
    }
    if (t == NULL || p == NULL || t->cumulative == NULL) {
        free(p);
        pn_discrete_table_close(t);
        return pn_fail(err, PN_NO_MEMORY, "no memory for a table of noise");
    }
    for (int32_t x = reach; x >= 0; x--) { /* from the tail, so that the small ones are not lost */
        p[reach + x] = p[reach - x] = expl(log_p(x, parameter));
        sum += (x == 0 ? 1 : 2) * p[reach + x];
    }
    for (size_t i = 0; i < (size_t)1 << t->steps; i++) {
        if (i < n) top += p[i] / sum;
        t->cumulative[i] = i + 1 < n && top < 1 ? (uint64_t)(top * 0x1p63L) : i + 1 < n ? (uint64_t)1 << 63 : UINT64_MAX;
    }
    free(p);
    *out = t;
    return PN_OK;
}

static long double log_gaussian(int32_t x, long double sigma) { return -(long double)x * x / (2 * sigma * sigma); }
enum pn_result pn_discrete_table_gaussian(struct pn_discrete_table **out, double sigma, struct pn_error *err) {
    if (!(sigma >= .05 && sigma <= 65536)) return pn_fail(err, PN_INVALID, "noise of standard deviation %g in steps: a table has .05 to 65536 (choose another scale)", sigma);
    return table(out, (int32_t)ceil(9.5 * sigma) + 2, log_gaussian, sigma, err); /* 2 exp(-9.5^2 / 2) < 2^-64 */
}

/* log of exp(-2 mu) I_x(2 mu): the Bessel function's series, sum over k of mu^(2k + x) / (k! (k + x)!), whose terms are all positive, from its largest
 * term outwards. */
static long double log_skellam(int32_t x, long double mu) {
    const long double largest = (-x + sqrtl((long double)x * x + 4 * mu * mu)) / 2;
    const long double k0 = floorl(largest), base = (2 * k0 + x) * logl(mu) - lgammal(k0 + 1) - lgammal(k0 + x + 1);
    long double sum = 1, term = 1;
    for (long double k = k0 + 1; term > 1e-25L; k++) sum += term *= mu * mu / (k * (k + x));
    term = 1;
    for (long double k = k0; k > 0 && term > 1e-25L; k--) sum += term *= k * (k + x) / (mu * mu);
    return base + logl(sum) - 2 * mu;
}
enum pn_result pn_discrete_table_skellam(struct pn_discrete_table **out, double sigma, struct pn_error *err) {
    if (!(sigma >= .05 && sigma <= 4096)) return pn_fail(err, PN_INVALID, "Skellam noise of standard deviation %g in steps: a table has .05 to 4096 (choose another scale)", sigma);
    return table(out, (int32_t)ceil(10.5 * sigma) + 40, log_skellam, (long double)sigma * sigma / 2, err); /* its tails are those of a Poisson: heavier where sigma is small */
}
void pn_discrete_table_close(struct pn_discrete_table *t) {
    if (t != NULL) free(t->cumulative);
    free(t);
}
size_t pn_discrete_table_entries(const struct pn_discrete_table *t) { return t->n; }

/* Eight searches side by side: each step is a load and an addition, and none waits for another's. */
static void draw8(struct pn_discrete *s, const struct pn_discrete_table *t, int32_t out[8]) {
    uint64_t u[8];
    size_t at[8] = {0};
    for (int i = 0; i < 8; i++) u[i] = word(s) >> 1;
    for (size_t half = ((size_t)1 << t->steps) >> 1; half > 0; half >>= 1)
        for (int i = 0; i < 8; i++) at[i] += half & -(size_t)(t->cumulative[at[i] + half - 1] <= u[i]);
    for (int i = 0; i < 8; i++) out[i] = t->low + (int32_t)at[i];
}
void pn_discrete_table_draw(struct pn_discrete *s, const struct pn_discrete_table *t, int32_t *values, size_t n) {
    int32_t last[8];
    size_t i = 0;
    for (; i + 8 <= n; i += 8) draw8(s, t, values + i);
    if (i < n) {
        draw8(s, t, last);
        memcpy(values + i, last, (n - i) * sizeof *values);
    }
}
void pn_discrete_table_add(struct pn_discrete *s, const struct pn_discrete_table *t, void *words, unsigned word_bytes, size_t n) {
    int32_t v[8];
    for (size_t i = 0; i < n; i += 8) {
        draw8(s, t, v);
        for (size_t j = 0; j < 8 && i + j < n; j++) {
            if (word_bytes == 4) ((uint32_t *)words)[i + j] += (uint32_t)v[j];
            else ((uint64_t *)words)[i + j] += (uint64_t)(int64_t)v[j];
        }
    }
    sodium_memzero(v, sizeof v);
}

double pn_discrete_share(double sigma, uint32_t fewest) { return sigma / sqrt((double)fewest); }
