/* All probabilities are of drawing without repetition (hypergeometric): a worker's k neighbours are k of the n - 1 others, uniformly. They are
 * computed as sums of terms in logarithms, exact up to rounding, with the union bound over the n workers. */
#include "privacy/secagg/params.h"
#include <assert.h>
#include <math.h>
#include <sodium.h>

static double log_choose(double n, double k) { return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1); }

/* P[more than x of k drawn are marked], `marked` of `all` being so. */
static double above(uint32_t all, uint32_t marked, uint32_t k, uint32_t x) {
    const uint32_t top = marked < k ? marked : k;
    double p = 0;
    for (uint32_t i = x + 1; i <= top; i++)
        if (k - i <= all - marked) p += exp(log_choose(marked, i) + log_choose(all - marked, k - i) - log_choose(all, k));
    return p;
}

/* P[the graph without the `gone` workers may fall apart]: some k / 2 places in a row are all gone (two such runs are needed; one is counted). */
static double apart(uint32_t n, uint32_t gone, uint32_t half) {
    if (gone < half) return 0;
    double log_p = log(n);
    for (uint32_t i = 0; i < half; i++) log_p += log(gone - i) - log(n - i);
    return exp(log_p);
}

enum pn_result pn_agg_params(uint32_t n, uint32_t corrupt, uint32_t dropped, unsigned security_bits, unsigned correctness_bits, uint32_t *k, uint32_t *t,
                             struct pn_error *err) {
    if (n < PN_AGG_MIN_WORKERS || n > PN_AGG_MAX_WORKERS)
        return pn_fail(err, PN_REFUSED, "secure aggregation of %u workers: it takes %u to %u", n, PN_AGG_MIN_WORKERS, PN_AGG_MAX_WORKERS);
    if (corrupt + 2 > n || dropped + 2 > n) return pn_fail(err, PN_REFUSED, "secure aggregation of %u workers: %u colluding and %u dropping out leave no sum to protect", n, corrupt, dropped);
    const double insecure = exp2(-(double)security_bits - 1) / n, incorrect = exp2(-(double)correctness_bits) / n; /* half for either way of learning */
    for (uint32_t degree = 2; degree <= PN_AGG_MAX_DEGREE; degree += 2) {
        const bool complete = degree >= n - 1;
        if (complete) degree = n - 1;
        uint32_t bad = corrupt < degree ? corrupt : degree; /* colluding neighbours that no worker has more of */
        while (bad > 0 && above(n - 1, corrupt, degree, bad - 1) <= insecure) bad--;
        uint32_t need = (degree + bad) / 2 + 1; /* even a lying coordinator gets only one share of each honest neighbour: 2t > k + bad */
        if (need < 2) need = 2;
        const bool kept = need <= degree && above(n - 1, dropped, degree, degree - need) <= incorrect;
        if (kept && (complete || apart(n, corrupt + dropped, degree / 2) <= insecure * n)) {
            *k = degree;
            *t = need;
            return PN_OK;
        }
        if (complete) break;
    }
    return pn_fail(err, PN_REFUSED,
                   "secure aggregation of %u workers cannot stand %u colluding and %u dropping out (no degree up to %u has 2t > k + colluding neighbours and "
                   "t <= surviving ones): lower max_dropout or the colluding share, or take more workers",
                   n, corrupt, dropped, PN_AGG_MAX_DEGREE);
}

void pn_agg_graph_draw(struct pn_agg_graph *g, uint32_t n, uint32_t k, const uint8_t seed[32]) {
    assert(n <= PN_AGG_MAX_WORKERS && k < n && (k % 2 == 0 || k == n - 1));
    g->n = n;
    g->k = k;
    uint64_t draws[PN_AGG_MAX_WORKERS];
    static const uint8_t nonce[8];
    crypto_stream_chacha20((unsigned char *)draws, n * sizeof *draws, nonce, seed);
    for (uint32_t i = 0; i < n; i++) g->at[i] = (uint16_t)i;
    for (uint32_t i = n; i > 1; i--) { /* 64 bits modulo at most 1,024: off by less than 2^-54 */
        const uint32_t j = (uint32_t)(draws[i - 1] % i);
        const uint16_t other = g->at[j];
        g->at[j] = g->at[i - 1];
        g->at[i - 1] = other;
    }
    for (uint32_t i = 0; i < n; i++) g->place[g->at[i]] = (uint16_t)i;
}

uint32_t pn_agg_point(const struct pn_agg_graph *g, uint32_t i, uint32_t j) {
    const uint32_t way = (g->place[j] + g->n - g->place[i]) % g->n; /* steps from i to j along the ring */
    if (g->k == g->n - 1) return way;
    const uint32_t half = g->k / 2;
    return way <= half ? way : g->n - way <= half ? half + g->n - way : 0;
}

uint32_t pn_agg_neighbour(const struct pn_agg_graph *g, uint32_t i, uint32_t point) {
    const uint32_t half = g->k / 2, way = g->k == g->n - 1 || point <= half ? point : g->n - (point - half);
    return g->at[(g->place[i] + way) % g->n];
}
