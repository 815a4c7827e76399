#include "nn/blocks.h"
#include "nn/cpu/exp.h"

PN_MACHINES double pn_exp_sum(float *z, size_t n, float most) {
    enum { LANES = 16, BLOCK = 1024 };
    double sum = 0;
    for (size_t at = 0; at < n; at += BLOCK) { /* lanes of float are summed as doubles before they lose digits */
        const size_t m = n - at < BLOCK ? n - at : BLOCK;
        float lane[LANES] = {0}, *restrict x = z + at;
        for (size_t i = 0; i < m; i++) x[i] = pn_exp(x[i] - most);
        size_t i = 0;
        for (; i + LANES <= m; i += LANES)
            for (size_t j = 0; j < LANES; j++) lane[j] += x[i + j];
        for (; i < m; i++) lane[i % LANES] += x[i];
        for (size_t j = 0; j < LANES; j++) sum += (double)lane[j];
    }
    return sum;
}

PN_MACHINES float pn_greatest(const float *z, size_t n, float least) {
    enum { LANES = 16 };
    float lane[LANES];
    for (size_t j = 0; j < LANES; j++) lane[j] = least;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++) lane[j] = z[i + j] > lane[j] ? z[i + j] : lane[j];
    for (; i < n; i++) lane[0] = z[i] > lane[0] ? z[i] : lane[0];
    for (size_t j = 1; j < LANES; j++) lane[0] = lane[j] > lane[0] ? lane[j] : lane[0];
    return lane[0];
}
