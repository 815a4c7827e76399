#include <string.h>
#include "nn/blocks.h"
#include "nn/cpu/gemm.h"

/* One pass each over the activations, as wide as the machine. */
PN_MACHINES static void clip(float *restrict out, size_t n) {
    for (size_t i = 0; i < n; i++) out[i] = out[i] > 0 ? out[i] : 0;
}
PN_MACHINES static void clip_and_sum(const float *restrict out, size_t n, size_t width, bool relu, float *restrict g, float *restrict db) {
    for (size_t e = 0; e < n; e++, g += width) {
        for (size_t d = 0; relu && d < width; d++) g[d] = out[e * width + d] > 0 ? g[d] : 0; /* out may be NULL without relu */
        for (size_t d = 0; db != NULL && d < width; d++) db[d] += g[d];
    }
}

void pn_linear_forward(const float *in, size_t n, size_t from, size_t width, const float *w, const float *b, bool relu, float *out) {
    for (size_t e = 0; e < n && b != NULL; e++) memcpy(out + e * width, b, width * sizeof *out);
    pn_gemm(false, false, n, width, from, in, w, b != NULL, out);
    if (relu) clip(out, n * width);
}

void pn_linear_backward(const float *in, const float *out, size_t n, size_t from, size_t width, const float *w, bool relu, float *g, float *dw, float *db, float *din) {
    if (relu || db != NULL) clip_and_sum(out, n, width, relu, g, db);
    if (dw != NULL) pn_gemm(true, false, from, width, n, in, g, true, dw);
    if (din != NULL) pn_gemm(false, true, n, from, width, g, w, true, din);
}
