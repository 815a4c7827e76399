#include "privacy/canary.h"
#include <math.h>

/* log of P[B = k]: r trials of probability q, of which both logarithms are given (1 - q rounds away). */
static double log_binomial(uint64_t r, uint64_t k, double log_q, double log_not_q) {
    const double n = (double)r, i = (double)k;
    return lgamma(n + 1) - lgamma(i + 1) - lgamma(n - i + 1) + i * log_q + (n - i) * log_not_q;
}

double pn_canary_chance(uint64_t m, uint64_t r, uint64_t v, double epsilon, double delta) {
    const double log_q = -log1p(exp(-epsilon)), log_not_q = log_q - epsilon;
    double tail = 0, below = 0, steepest = 0;
    for (uint64_t k = v; k <= r; k++) tail += exp(log_binomial(r, k, log_q, log_not_q));
    for (uint64_t i = 1; i <= v && delta > 0; i++) {
        below += exp(log_binomial(r, v - i, log_q, log_not_q)); /* P[v - i <= B < v] */
        steepest = fmax(steepest, below / (double)i);
    }
    return fmin(1, tail + 2 * (double)m * delta * steepest);
}

double pn_canary_epsilon(uint64_t m, uint64_t r, uint64_t v, double delta, double chance) {
    double low = 0, high = PN_CANARY_MOST;
    if (r == 0 || pn_canary_chance(m, r, v, 0, delta) >= chance) return 0;
    for (int i = 0; i < 50; i++) { /* what is returned was refuted itself: never rounded up */
        const double middle = (low + high) / 2;
        if (pn_canary_chance(m, r, v, middle, delta) < chance) low = middle;
        else high = middle;
    }
    return low;
}
