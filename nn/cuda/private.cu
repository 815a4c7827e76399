/* Squared norms of units' gradients of dense parameters, from what one backward pass leaves (nn/example_norms.c has the idea), and the scaling by them. Threads: units.cuh. */
#include "nn/cuda/units.cuh"

/* Of m rows by pairs where that is less work: a warp takes a pair, lanes over the floats; else the sum of outer products is made, a thread a cell. */
struct outer_of {
    const uint32_t *begin;
    const float *in, *g, *z;
    size_t from, width;
    bool biased;
    __device__ float gradient(size_t t, size_t d) const { return z != NULL ? g[t * width + d] * z[t * width + d] : g[t * width + d]; }
    __device__ double pairs(size_t first, size_t m, unsigned thread, unsigned threads) const {
        const unsigned lane = thread % 32;
        double sum = 0;
        size_t t = 0, u = thread / 32; /* u <= t; the warps take turns */
        for (;;) {
            while (u > t) {
                u -= t + 1;
                t++;
            }
            if (t >= m) return sum;
            double x = 0, y = 0;
            for (size_t d = lane; d < from; d += 32) x += (double)in[(first + t) * from + d] * (double)in[(first + u) * from + d];
            for (size_t d = lane; d < width; d += 32) y += (double)gradient(first + t, d) * (double)gradient(first + u, d);
            x = pn_sum_lanes(x, 32);
            y = pn_sum_lanes(y, 32);
            if (lane == 0) sum += (t == u ? 1 : 2) * (x + (biased ? 1 : 0)) * y;
            u += threads / 32;
        }
    }
    __device__ double cells(size_t first, size_t m, unsigned thread, unsigned threads) const {
        double sum = 0;
        for (size_t i = thread; i < (from + biased) * width; i += threads) {
            const size_t r = i / width, d = i - r * width;
            float cell = 0;
            for (size_t t = first; t < first + m; t++) cell += (r < from ? in[t * from + r] : 1) * gradient(t, d);
            sum += (double)cell * (double)cell;
        }
        return sum;
    }
    __device__ double operator()(size_t u, unsigned thread, unsigned threads) const {
        const size_t first = begin[u], m = begin[u + 1] - first;
        return m <= 1 || m * (from + width) / 2 <= (from + biased) * width ? pairs(first, m, thread, threads) : cells(first, m, thread, threads);
    }
};
static void outer_norms(struct pn_ctx *c, const struct pn_units *v, const float *in, size_t from, bool biased, const float *g, const float *z, size_t width, double *squares) {
    const struct outer_of f = {v->begin, in, g, z, from, width, biased};
    pn_by_unit(c, v->n, pn_much(v), f, squares, "norms of linear layers");
}

struct layer_of {
    const uint32_t *begin;
    const float *normal, *g;
    size_t width;
    __device__ double operator()(size_t u, unsigned thread, unsigned threads) const {
        double sum = 0;
        for (size_t d = thread; d < width; d += threads) {
            double shift = 0, scale = 0;
            for (size_t t = begin[u]; t < begin[u + 1]; t++) {
                shift += (double)g[t * width + d];
                scale += (double)g[t * width + d] * (double)normal[t * width + d];
            }
            sum += shift * shift + scale * scale;
        }
        return sum;
    }
};
static void layer_norms(struct pn_ctx *c, const struct pn_units *v, const float *normal, const float *g, size_t width, double *squares) {
    const struct layer_of f = {v->begin, normal, g, width};
    pn_by_unit(c, v->n, pn_much(v), f, squares, "norms of layer norm");
}

struct position_of { /* tokens in one place, counted from the end, share a vector */
    const uint32_t *examples, *begin;
    const float *g;
    size_t most, width;
    __device__ double operator()(size_t u, unsigned thread, unsigned threads) const {
        double sum = 0;
        for (size_t i = thread; i < most * width; i += threads) {
            const size_t left = i / width, d = i - left * width;
            double cell = 0;
            for (size_t e = examples[u]; e < examples[u + 1]; e++)
                if (begin[e + 1] - begin[e] > left) cell += (double)g[(begin[e + 1] - begin[0] - 1 - left) * width + d];
            sum += cell * cell;
        }
        return sum;
    }
};
static void position_norms(struct pn_ctx *c, const struct pn_units *v, const float *g, const uint32_t *begin, size_t most, size_t width, double *squares) {
    const struct position_of f = {v->begin, begin, g, most, width};
    pn_by_unit(c, v->n, most * width >= 256, f, squares, "norms of positions");
}

struct clip_unit {
    const double *squares;
    const uint32_t *unit;
    float most;
    size_t width;
    float *g;
    __device__ void operator()(size_t i) const {
        const double norm = sqrt(squares[unit[i / width]]);
        if (!isfinite(norm)) g[i] = 0; /* it must not pass unclipped */
        else if (norm > (double)most) g[i] *= (float)((double)most / norm);
    }
};
static void clip_units(struct pn_ctx *c, const double *squares, const uint32_t *unit, float most, size_t n, size_t width, float *g) {
    const struct clip_unit f = {squares, unit, most, width, g};
    pn_each(c, n * width, f, "clip units");
}

void pn_fill_private(struct pn_backend *t) {
    t->outer_norms = outer_norms;
    t->layer_norms = layer_norms;
    t->position_norms = position_norms;
    t->clip_units = clip_units;
}
