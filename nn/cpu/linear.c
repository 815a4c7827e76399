/* Products are gemm.h's; around each goes one pass over the activations, as wide as the machine. The widths that small towers have are compiled by themselves: with a width known, a row is a few
 * registers, and without it the loop's beginning and end cost more than its middle. */
#include <string.h>
#include "nn/blocks.h"
#include "nn/cpu/gemm.h"

#define PASS __attribute__((always_inline)) static inline void

PASS finish_rows(size_t n, size_t width, const float *restrict b, bool relu, float *restrict out) {
    for (size_t e = 0; e < n; e++, out += width) {
        for (size_t d = 0; b != NULL && d < width; d++) out[d] += b[d];
        for (size_t d = 0; relu && d < width; d++) out[d] = out[d] > 0 ? out[d] : 0;
    }
}
PN_MACHINES static void finish(size_t n, size_t width, const float *b, bool relu, float *out) {
    switch (width) {
    case 8: finish_rows(n, 8, b, relu, out); return;
    case 16: finish_rows(n, 16, b, relu, out); return;
    case 32: finish_rows(n, 32, b, relu, out); return;
    case 64: finish_rows(n, 64, b, relu, out); return;
    default: finish_rows(n, width, b, relu, out); return;
    }
}

PASS clip_and_sum_rows(const float *restrict out, size_t n, size_t width, bool relu, float *restrict g, float *restrict db) {
    for (size_t e = 0; e < n; e++, g += width) {
        for (size_t d = 0; relu && d < width; d++) g[d] = out[e * width + d] > 0 ? g[d] : 0; /* out may be NULL without relu */
        for (size_t d = 0; db != NULL && d < width; d++) db[d] += g[d];
    }
}
PN_MACHINES static void clip_and_sum(const float *out, size_t n, size_t width, bool relu, float *g, float *db) {
    switch (width) {
    case 8: clip_and_sum_rows(out, n, 8, relu, g, db); return;
    case 16: clip_and_sum_rows(out, n, 16, relu, g, db); return;
    case 32: clip_and_sum_rows(out, n, 32, relu, g, db); return;
    case 64: clip_and_sum_rows(out, n, 64, relu, g, db); return;
    default: clip_and_sum_rows(out, n, width, relu, g, db); return;
    }
}

/* One unit: a dot product an example, which a library for matrices takes longer to begin than to make. */
enum { LANES = 8 };
PN_MACHINES static void unit_forward(const float *restrict in, size_t n, size_t from, const float *restrict w, float *restrict out) {
    for (size_t e = 0; e < n; e++, in += from) {
        float lane[LANES] = {0};
        size_t d = 0;
        for (; d + LANES <= from; d += LANES)
            for (size_t j = 0; j < LANES; j++) lane[j] += in[d + j] * w[d + j];
        for (; d < from; d++) lane[d % LANES] += in[d] * w[d];
        out[e] = ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
    }
}
PN_MACHINES static void unit_backward(const float *restrict in, size_t n, size_t from, const float *restrict w, const float *restrict g, float *restrict dw, float *restrict din, bool add) {
    for (size_t e = 0; dw != NULL && e < n; e++)
        for (size_t d = 0; d < from; d++) dw[d] += g[e] * in[e * from + d];
    for (size_t e = 0; din != NULL && e < n; e++) {
        float *restrict to = din + e * from;
        if (add)
            for (size_t d = 0; d < from; d++) to[d] += g[e] * w[d];
        else
            for (size_t d = 0; d < from; d++) to[d] = g[e] * w[d];
    }
}

void pn_linear_forward(const float *in, size_t n, size_t from, size_t width, const float *w, const float *b, bool relu, float *out) {
    if (width == 1) unit_forward(in, n, from, w, out);
    else pn_gemm(false, false, n, width, from, in, w, false, out);
    if (b != NULL || relu) finish(n, width, b, relu, out);
}

void pn_linear_backward(const float *in, const float *out, size_t n, size_t from, size_t width, const float *w, bool relu, float *g, float *dw, float *db, float *din, bool add) {
    if (relu || db != NULL) clip_and_sum(out, n, width, relu, g, db);
    if (width == 1) {
        unit_backward(in, n, from, w, g, dw, din, add);
        return;
    }
    if (dw != NULL) pn_gemm(true, false, from, width, n, in, g, true, dw);
    if (din != NULL) pn_gemm(false, true, n, from, width, g, w, add, din);
}
