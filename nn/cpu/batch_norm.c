#include <math.h>
#include <string.h>
#include "nn/blocks.h"

PN_MACHINES void pn_batch_norm_forward(const float *in, size_t n, size_t width, const float *scale, const float *shift, const float *running, bool training, bool relu, float *own,
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
    const float least = relu ? 0 : -INFINITY;
    for (size_t e = 0; e < n; e++) {
        const float *restrict x = in + e * width;
        float *restrict h = normal + e * width, *restrict y = out + e * width;
        for (size_t d = 0; d < width; d++) {
            h[d] = (x[d] - mean[d]) * inverse[d];
            const float v = h[d] * scale[d] + shift[d];
            y[d] = v < least ? least : v;
        }
    }
}

/* din = scale * inverse * (g - mean(g) - normal * mean(g * normal)), the means over the batch: which are the gradients of shift and scale over n. */
PN_MACHINES void pn_batch_norm_backward(const float *out, const float *own, const float *normal, size_t n, size_t width, const float *scale, const float *running, bool relu, float *g,
                            float *dscale, float *dshift, float *drunning, float *din, bool add) {
    const float *inverse = own + 2 * width, share = 0.05f, unbiased = n > 1 ? (float)n / (float)(n - 1) : 1;
    memset(dscale, 0, width * sizeof *dscale);
    memset(dshift, 0, width * sizeof *dshift);
    const float above = relu ? 0 : -INFINITY, share_of_one = 1.0f / (float)n;
    for (size_t e = 0; e < n; e++) {
        const float *restrict y = out + e * width, *restrict h = normal + e * width;
        float *restrict go = g + e * width, *restrict ds = dscale, *restrict db = dshift;
        for (size_t d = 0; d < width; d++) {
            const float v = y[d] > above ? go[d] : 0;
            go[d] = v;
            db[d] += v;
            ds[d] += v * h[d];
        }
    }
    for (size_t e = 0; e < n; e++) {
        const float *restrict h = normal + e * width, *restrict go = g + e * width;
        float *restrict gi = din + e * width;
        if (add)
            for (size_t d = 0; d < width; d++) gi[d] += scale[d] * inverse[d] * (go[d] - (dshift[d] + h[d] * dscale[d]) * share_of_one);
        else
            for (size_t d = 0; d < width; d++) gi[d] = scale[d] * inverse[d] * (go[d] - (dshift[d] + h[d] * dscale[d]) * share_of_one);
    }
    for (size_t d = 0; d < width; d++) {
        drunning[d] = share * (running[d] - own[d]);
        drunning[width + d] = share * (running[width + d] - own[width + d] * unbiased);
    }
}
