/* Squared norms of units' gradients: sums over what one unit has (nn/backend.h, pn_units and pn_touches).
 *
 * Threads. One or eight warps a unit, eight warps a block. f(unit, thread, threads) is a thread's share of the unit's sum; it may shuffle, as all lanes of a warp are of one unit.
 * Shares are added up lane by lane, then warp by warp: one thread adds to squares[unit].
 *
 * Rounding. Sums are in double, but for the cells of a linear layer, of which there are as many as products (private.cu): those are off by what rounding takes of their terms, as
 * the gradients are that go out. Products over pairs of rows cancel after they were squared: in float32 a norm could come out as half of what it is. */
#ifndef PN_NN_CUDA_UNITS_CUH
#define PN_NN_CUDA_UNITS_CUH

#include "nn/cuda/runtime.cuh"

template <class F> __global__ void pn_units_kernel(size_t n, unsigned warps, F f, double *squares) {
    PN_SHARED(double, part); /* one a warp */
    const unsigned warp = threadIdx.x / 32, first = warp / warps * warps; /* first: of the unit's warps */
    const size_t u = (size_t)blockIdx.x * (blockDim.x / 32 / warps) + warp / warps;
    double sum = u < n ? f(u, threadIdx.x - first * 32, warps * 32) : 0;
    sum = pn_sum_lanes(sum, 32);
    if (threadIdx.x % 32 == 0) part[warp] = sum;
    __syncthreads();
    if (u >= n || threadIdx.x != first * 32) return;
    for (unsigned w = 1; w < warps; w++) sum += part[first + w];
    squares[u] += sum;
}
/* much: a unit has work for more than a warp. */
template <class F> static void pn_by_unit(struct pn_ctx *c, size_t n, bool much, F f, double *squares, const char *what) {
    if (n == 0) return;
    const unsigned warps = much ? 8 : 1;
    PN_LAUNCH(pn_units_kernel<F>, pn_blocks(n, 8 / warps), 256, 8 * sizeof(double), pn_compute(c), n, warps, f, squares);
    pn_launched(c, what);
}
static inline bool pn_much(const struct pn_units *v) { return v->n_rows >= 4 * v->n; }

/* squares[i] = the squared norm of what group i adds to its row: lanes that share the row take a group, and walk its entries in their order. */
template <class F> __global__ void pn_touches_kernel(struct pn_touches t, size_t dim, unsigned lanes, F f) {
    const unsigned lane = threadIdx.x % lanes;
    const size_t n = t.unit_begin[t.n_units], step = (size_t)gridDim.x * (blockDim.x / lanes);
    for (size_t first = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) / 32 * (32 / lanes); first < n; first += step) { /* the same in all lanes of a warp, as they shuffle */
        const size_t i = first + threadIdx.x % 32 / lanes;
        double sum = 0;
        for (size_t d = lane; i < n && d < dim; d += lanes) {
            double cell = 0;
            for (uint32_t at = t.begin[i]; at < t.begin[i + 1]; at++) cell += (double)f(t.order[at], d);
            sum += cell * cell;
        }
        sum = pn_sum_lanes(sum, lanes);
        if (i < n && lane == 0) t.squares[i] = sum;
    }
}
struct pn_groups_of_unit {
    struct pn_touches t;
    __device__ double operator()(size_t u, unsigned thread, unsigned threads) const {
        double sum = 0;
        for (size_t i = t.unit_begin[u] + thread; i < t.unit_begin[u + 1]; i += threads) sum += t.squares[i];
        return sum;
    }
};
/* f(entry, float of the row). */
template <class F> static void pn_by_touch(struct pn_ctx *c, const struct pn_touches *t, size_t dim, F f, double *squares, const char *what) {
    if (t->n_units == 0 || t->most_groups == 0) return;
    const unsigned lanes = pn_lanes(dim), blocks = pn_blocks(t->most_groups, 256 / lanes);
    PN_LAUNCH(pn_touches_kernel<F>, blocks < 1u << 20 ? blocks : 1u << 20, 256, 0, pn_compute(c), *t, dim, lanes, f);
    const struct pn_groups_of_unit sums = {*t};
    pn_by_unit(c, t->n_units, false, sums, squares, what);
}
#endif
