#include <math.h>
#include <string.h>
#include "nn/blocks.h"

void pn_batch_norm_forward(const float *in, size_t n, size_t width, const float *scale, const float *shift, const float *running, bool training, bool relu, float *own,
                           float *normal, float *out) {
    float *mean = own, *variance = own + width, *inverse = own + 2 * width;
    if (training) {
        memset(own, 0, 2 * width * sizeof *own);
        for (size_t e = 0; e < n; e++)
            for (size_t d = 0; d < width; d++) mean[d] += in[e * width + d];
        for (size_t d = 0; d < width; d++) mean[d] /= (float)n;
        for (size_t e = 0; e < n; e++)
            for (size_t d = 0; d < width; d++) variance[d] += (in[e * width + d] - mean[d]) * (in[e * width + d] - mean[d]);
        for (size_t d = 0; d < width; d++) variance[d] /= (float)n;
    } else {
        memcpy(own, running, 2 * width * sizeof *own);
    }
    for (size_t d = 0; d < width; d++) inverse[d] = 1.0f / sqrtf((variance[d] > 0 ? variance[d] : 0) + 1e-5f);
    for (size_t e = 0; e < n; e++)
        for (size_t d = 0; d < width; d++) {
            const size_t i = e * width + d;
            normal[i] = (in[i] - mean[d]) * inverse[d];
            const float y = normal[i] * scale[d] + shift[d];
            out[i] = relu && y < 0 ? 0 : y;
        }
}

/* din = scale * inverse * (g - mean(g) - normal * mean(g * normal)), the means over the batch: which are the gradients of shift and scale over n. */
void pn_batch_norm_backward(const float *out, const float *own, const float *normal, size_t n, size_t width, const float *scale, const float *running, bool relu, float *g,
                            float *dscale, float *dshift, float *drunning, float *din) {
    const float *inverse = own + 2 * width, share = 0.05f, unbiased = n > 1 ? (float)n / (float)(n - 1) : 1;
    memset(dscale, 0, width * sizeof *dscale);
    memset(dshift, 0, width * sizeof *dshift);
    for (size_t e = 0; e < n; e++)
        for (size_t d = 0; d < width; d++) {
            const size_t i = e * width + d;
            if (relu && !(out[i] > 0)) g[i] = 0;
            dshift[d] += g[i];
            dscale[d] += g[i] * normal[i];
        }
    for (size_t e = 0; e < n; e++)
        for (size_t d = 0; d < width; d++) {
            const size_t i = e * width + d;
            din[i] += scale[d] * inverse[d] * (g[i] - (dshift[d] + normal[i] * dscale[d]) / (float)n);
        }
    for (size_t d = 0; d < width; d++) {
        drunning[d] = share * (running[d] - own[d]);
        drunning[width + d] = share * (running[width + d] - own[width + d] * unbiased);
    }
}
