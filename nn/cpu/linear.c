#include <cblas.h>
#include <string.h>
#include "nn/blocks.h"

void pn_linear_forward(const float *in, size_t n, size_t from, size_t width, const float *w, const float *b, bool relu, float *out) {
    for (size_t e = 0; e < n && b != NULL; e++) memcpy(out + e * width, b, width * sizeof *out);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)n, (int)width, (int)from, 1, in, (int)from, w, (int)width, b != NULL, out, (int)width);
    if (!relu) return;
    for (size_t i = 0; i < n * width; i++) out[i] = out[i] > 0 ? out[i] : 0;
}

void pn_linear_backward(const float *in, const float *out, size_t n, size_t from, size_t width, const float *w, bool relu, float *g, float *dw, float *db, float *din) {
    if (relu)
        for (size_t i = 0; i < n * width; i++) g[i] = out[i] > 0 ? g[i] : 0;
    if (dw != NULL) cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)from, (int)width, (int)n, 1, in, (int)from, g, (int)width, 1, dw, (int)width);
    for (size_t e = 0; e < n && db != NULL; e++)
        for (size_t d = 0; d < width; d++) db[d] += g[e * width + d];
    if (din != NULL) cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n, (int)from, (int)width, 1, g, (int)width, w, (int)width, 1, din, (int)from);
}
