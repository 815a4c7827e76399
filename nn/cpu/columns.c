/* Moves between values that lie side by side, and products by element: one pass each, as wide as the machine; the widths of small models compiled by themselves (linear.c says why). */
#include "nn/blocks.h"

#define PASS __attribute__((always_inline)) static inline void

PASS move(const float *restrict from, size_t from_step, size_t n, size_t width, bool add, float *restrict to, size_t to_step) {
    for (size_t i = 0; i < n; i++, from += from_step, to += to_step) {
        if (add)
            for (size_t d = 0; d < width; d++) to[d] += from[d];
        else
            for (size_t d = 0; d < width; d++) to[d] = from[d];
    }
}
PN_MACHINES void pn_columns(const float *from, size_t from_step, size_t n, size_t width, bool add, float *to, size_t to_step) {
    switch (width) {
    case 8: move(from, from_step, n, 8, add, to, to_step); return;
    case 16: move(from, from_step, n, 16, add, to, to_step); return;
    case 32: move(from, from_step, n, 32, add, to, to_step); return;
    case 64: move(from, from_step, n, 64, add, to, to_step); return;
    default: move(from, from_step, n, width, add, to, to_step); return;
    }
}

PASS product(const float *restrict pairs, size_t n, size_t k, float *restrict out) {
    for (size_t e = 0; e < n; e++, pairs += 2 * k, out += k)
        for (size_t d = 0; d < k; d++) out[d] = pairs[d] * pairs[k + d];
}
PN_MACHINES void pn_product_forward(const float *pairs, size_t n, size_t k, float *out) {
    if (k == 8) product(pairs, n, 8, out);
    else if (k == 32) product(pairs, n, 32, out);
    else product(pairs, n, k, out);
}

PASS product_back(const float *restrict pairs, const float *restrict g, size_t n, size_t k, bool add, float *restrict dpairs) {
    for (size_t e = 0; e < n; e++, pairs += 2 * k, dpairs += 2 * k, g += k)
        for (size_t d = 0; d < k; d++) {
            dpairs[d] = (add ? dpairs[d] : 0) + g[d] * pairs[k + d];
            dpairs[k + d] = (add ? dpairs[k + d] : 0) + g[d] * pairs[d];
        }
}
PN_MACHINES void pn_product_backward(const float *pairs, const float *g, size_t n, size_t k, bool add, float *dpairs) {
    if (k == 8) product_back(pairs, g, n, 8, add, dpairs);
    else if (k == 32) product_back(pairs, g, n, 32, add, dpairs);
    else product_back(pairs, g, n, k, add, dpairs);
}
