#include "nn/blocks.h"

void pn_cross_forward(const float *x0, const float *x, size_t n, size_t width, const float *w, const float *b, float *product, float *out) {
    pn_linear_forward(x, n, width, width, w, b, false, product);
    for (size_t i = 0; i < n * width; i++) out[i] = x0[i] * product[i] + x[i];
}

void pn_cross_backward(const float *x0, const float *x, const float *product, const float *g, size_t n, size_t width, const float *w, float *scratch, float *dw, float *db,
                       float *dx0, float *dx) {
    for (size_t i = 0; i < n * width; i++) scratch[i] = g[i] * x0[i]; /* of the product */
    if (dx != NULL) {
        for (size_t i = 0; i < n * width; i++) dx0[i] += g[i] * product[i];
        for (size_t i = 0; i < n * width; i++) dx[i] += g[i];
    }
    pn_linear_backward(x, NULL, n, width, width, w, false, scratch, dw, db, dx, true);
}
