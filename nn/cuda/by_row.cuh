/* Sums of what entries add to rows: f(entry, float of the row), in the order of the inverse. A group of lanes takes a chunk; rows of several chunks then get one warp a float. */
#ifndef PN_NN_CUDA_BY_ROW_CUH
#define PN_NN_CUDA_BY_ROW_CUH

#include "nn/cuda/runtime.cuh"

template <class F> __global__ void pn_chunks_kernel(struct pn_inverse v, size_t dim, unsigned lanes, F f, float *row_gradients) {
    const size_t groups = (size_t)gridDim.x * (blockDim.x / lanes), n = v.counts[0], several = v.wide_begin[v.counts[1]];
    for (size_t i = (size_t)blockIdx.x * (blockDim.x / lanes) + threadIdx.x / lanes; i < n; i += groups) {
        const uint32_t begin = v.chunk_begin[i], end = v.chunk_begin[i + 1];
        for (size_t d = threadIdx.x % lanes; d < dim; d += lanes) {
            float sum = 0;
            for (uint32_t at = begin; at < end; at++) sum += f(v.order[at], d);
            if (i < several) v.partial[i * dim + d] = sum;
            else row_gradients[(size_t)v.chunk_row[i] * dim + d] += sum;
        }
    }
}
static __global__ void pn_wide_rows_kernel(struct pn_inverse v, size_t dim, float *row_gradients) {
    const size_t n = v.counts[1], warps = (size_t)gridDim.x * (blockDim.x / 32);
    for (size_t i = (size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; i < n * dim; i += warps) {
        const size_t r = i / dim, d = i - r * dim;
        const uint32_t begin = v.wide_begin[r], end = v.wide_begin[r + 1];
        float sum = 0;
        for (uint32_t at = begin + threadIdx.x % 32; at < end; at += 32) sum += v.partial[at * dim + d];
        sum = pn_sum_lanes(sum, 32);
        if (threadIdx.x % 32 == 0) row_gradients[(size_t)v.chunk_row[begin] * dim + d] += sum;
    }
}

template <class F> static void pn_by_row(struct pn_ctx *c, const struct pn_inverse *v, size_t dim, F f, float *row_gradients, const char *what) {
    if (v->most_chunks == 0) return;
    const unsigned lanes = pn_lanes(dim), blocks = pn_blocks(v->most_chunks, 256 / lanes), wide = pn_blocks(v->most_wide * dim, 8);
    PN_LAUNCH(pn_chunks_kernel<F>, blocks < 1u << 20 ? blocks : 1u << 20, 256, 0, pn_compute(c), *v, dim, lanes, f, row_gradients);
    if (v->most_wide > 0) PN_LAUNCH(pn_wide_rows_kernel, wide < 1u << 16 ? wide : 1u << 16, 256, 0, pn_compute(c), *v, dim, row_gradients);
    pn_launched(c, what);
}
#endif
