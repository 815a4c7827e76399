#include "privacy/select.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

double pn_vote(size_t m, double clip) { return m == 0 || sqrt((double)m) <= clip ? 1 : clip / sqrt((double)m); }

uint64_t pn_select(struct pn_draws *g, const double *votes, size_t n, uint64_t n_untouched, double sigma, double clip, double threshold, bool *in) {
    enum { BLOCK = PN_DRAWS_BLOCK / 4 }; /* a block of bits: fewer would waste the rest of it */
    float noise[BLOCK];
    for (size_t at = 0; at < n; at += BLOCK) {
        const size_t count = n - at < BLOCK ? n - at : BLOCK;
        memset(noise, 0, sizeof noise);
        pn_draws_add_normal(g, noise, count, (float)(sigma * clip));
        for (size_t i = 0; i < count; i++) in[at + i] = votes[at + i] + (double)noise[i] >= threshold;
    }
    return pn_draws_binomial(g, n_untouched, pn_normal_tail(threshold / (sigma * clip)));
}

static int by_u64(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Floyd's sample without replacement (Bentley and Floyd 1987) of k out of the m = n - n_taken others, by a hash set; then the i-th other is counted past the taken ones. */
bool pn_draw_others(struct pn_draws *g, uint64_t n, const uint64_t *taken, size_t n_taken, size_t k, uint64_t *out) {
    const uint64_t m = n - n_taken;
    size_t room = 16, count = 0;
    while (room < 2 * k) room *= 2;
    uint64_t *set = calloc(room, sizeof *set); /* 1 + number; 0: free */
    if (set == NULL) return false;
    for (uint64_t j = m - k; j < m; j++) {
        uint64_t pick = pn_draws_below(g, j + 1);
        for (int again = 0; again < 2; again++) {
            size_t at = (size_t)((pick * 0x9e3779b97f4a7c15ull) >> 20) & (room - 1);
            while (set[at] != 0 && set[at] != pick + 1) at = (at + 1) & (room - 1);
            if (set[at] == 0) {
                set[at] = pick + 1;
                break;
            }
            pick = j; /* it is in already: j cannot be */
        }
        out[count++] = pick;
    }
    free(set);
    qsort(out, count, sizeof *out, by_u64);
    size_t t = 0;
    for (size_t i = 0; i < count; i++) {
        while (t < n_taken && taken[t] <= out[i] + t) t++;
        out[i] += t;
    }
    return true;
}
