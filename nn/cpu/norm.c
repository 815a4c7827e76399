#include <math.h>
#include "nn/blocks.h"

void pn_norm_forward(const float *in, size_t n, size_t width, const float *scale, const float *shift, bool relu, float *inverse, float *normal, float *out) {
    for (size_t e = 0; e < n; e++, in += width, normal += width, out += width) {
        float sum = 0, squares = 0;
        for (size_t d = 0; d < width; d++) sum += in[d];
        const float mean = sum / (float)width;
        for (size_t d = 0; d < width; d++) squares += (in[d] - mean) * (in[d] - mean);
        inverse[e] = 1.0f / sqrtf(squares / (float)width + 1e-5f);
        for (size_t d = 0; d < width; d++) {
            normal[d] = (in[d] - mean) * inverse[e];
            const float y = normal[d] * scale[d] + shift[d];
            out[d] = relu && y < 0 ? 0 : y;
        }
    }
}

/* With h = g * scale: din = inverse * (h - mean(h) - normal * mean(h * normal)). */
void pn_norm_backward(const float *out, const float *inverse, const float *normal, size_t n, size_t width, const float *scale, bool relu, float *g, float *dscale, float *dshift,
                      float *din) {
    for (size_t e = 0; e < n; e++, out += width, normal += width, g += width) {
        float sum = 0, along = 0;
        for (size_t d = 0; d < width; d++) {
            if (relu && !(out[d] > 0)) g[d] = 0;
            if (dshift != NULL) {
                dshift[d] += g[d];
                dscale[d] += g[d] * normal[d];
            }
            sum += g[d] * scale[d];
            along += g[d] * scale[d] * normal[d];
        }
        if (din == NULL) continue;
        sum /= (float)width;
        along /= (float)width;
        for (size_t d = 0; d < width; d++) din[d] += inverse[e] * (g[d] * scale[d] - sum - normal[d] * along);
        din += width;
    }
}
