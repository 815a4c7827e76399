/* What all kernels stand on: the context, launches, sums that have one order. With PN_EMULATED the same sources are plain C++ and run on the host
 * (tests/parity/emulated.h): there a thread is a fiber, barriers and shuffles are real, and threads between two barriers run in any order. So
 *   dynamic shared memory only (PN_SHARED), launches by PN_LAUNCH, and loops over elements by each(). */
#ifndef PN_NN_CUDA_RUNTIME_CUH
#define PN_NN_CUDA_RUNTIME_CUH

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#ifdef PN_EMULATED
#include "tests/parity/emulated.h"
#define PN_BACKEND_NAME "emulated"
#else
#include <cuda_runtime.h>
#define PN_BACKEND_NAME "cuda"
#define PN_SHARED(type, name)                                     \
    extern __shared__ __align__(16) unsigned char pn_shared_raw[]; \
    type *name = (type *)pn_shared_raw
#define PN_LAUNCH(kernel, grid, block, shared, stream, ...) kernel<<<grid, block, shared, stream>>>(__VA_ARGS__)
#endif
#include "nn/backend.h"

#define PN_FULL 0xffffffffu
#define PN_OLD_SCRATCH 48

struct pn_gemm_state; /* gemm.cu */

struct pn_ctx {
    int device;
    enum pn_precision precision;
    cudaStream_t streams[PN_STREAMS];
    cudaEvent_t events[PN_EVENTS];
    void *scratch, *old[PN_OLD_SCRATCH]; /* old ones stay: a captured graph may name them */
    size_t n_scratch, n_old;
    struct pn_gemm_state *gemm;
    char failed[300]; /* the first failure; "" */
};

/* Keeps the first failure of a context. */
static inline void pn_check(struct pn_ctx *c, cudaError_t e, const char *what) {
    if (e != cudaSuccess && c->failed[0] == '\0') snprintf(c->failed, sizeof c->failed, "%s: %s", what, cudaGetErrorString(e));
}
void pn_broken(struct pn_ctx *, const char *what);
void *pn_scratch(struct pn_ctx *, size_t n_bytes); /* NULL: no memory (then pn_broken has been told). One operation's use at a time */

static inline cudaStream_t pn_compute(const struct pn_ctx *c) { return c->streams[PN_STREAM_COMPUTE]; }
static inline void pn_launched(struct pn_ctx *c, const char *what) { pn_check(c, cudaGetLastError(), what); }
static inline unsigned pn_blocks(size_t n, size_t a_block) {
    const size_t b = (n + a_block - 1) / a_block;
    return (unsigned)(b < 1 ? 1 : b > 0x7fffffff ? 0x7fffffff : b);
}

__host__ __device__ static inline uint64_t pn_mix(uint64_t x) { /* common/hash.h's pn_mix64, also on the device */
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

/* f(i) for i < n, any order. */
template <class F> __global__ void pn_each_kernel(size_t n, F f) {
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x) f(i);
}
template <class F> static void pn_each(struct pn_ctx *c, size_t n, F f, const char *what) {
    if (n == 0) return;
    const unsigned blocks = pn_blocks(n, 256);
    PN_LAUNCH(pn_each_kernel<F>, blocks < 65536 ? blocks : 65536, 256, 0, pn_compute(c), n, f);
    pn_launched(c, what);
}

/* Lanes that share a row of `width` floats: the power of two from 1 to 32 that is at least width, or 32. */
__host__ __device__ static inline unsigned pn_lanes(size_t width) {
    unsigned g = 1;
    while (g < 32 && g < width) g *= 2;
    return g;
}
template <class T> __device__ static inline T pn_sum_lanes(T x, unsigned lanes) { /* the sum in every lane of the group */
    for (unsigned o = lanes / 2; o > 0; o /= 2) x += __shfl_xor_sync(PN_FULL, x, o, lanes);
    return x;
}

/* The sum, or the greatest, of what a block's threads have, in every thread: a tree in part, a double for each of a power of two threads, which is free again behind it. */
__device__ static inline double pn_sum_block(double x, double *part) {
    part[threadIdx.x] = x;
    __syncthreads();
    for (unsigned o = blockDim.x / 2; o > 0; o /= 2) {
        if (threadIdx.x < o) part[threadIdx.x] += part[threadIdx.x + o];
        __syncthreads();
    }
    x = part[0];
    __syncthreads();
    return x;
}
__device__ static inline float pn_most_block(float x, double *part) {
    part[threadIdx.x] = (double)x;
    __syncthreads();
    for (unsigned o = blockDim.x / 2; o > 0; o /= 2) {
        if (threadIdx.x < o && part[threadIdx.x + o] > part[threadIdx.x]) part[threadIdx.x] = part[threadIdx.x + o];
        __syncthreads();
    }
    x = (float)part[0];
    __syncthreads();
    return x;
}

/* One block sums f(i), i < n, and thread 0 calls done(sum): threads stride, then a tree. 1024 threads. */
template <class F, class D> __global__ void pn_sum_kernel(size_t n, F f, D done) {
    PN_SHARED(double, part);
    double sum = 0;
    for (size_t i = threadIdx.x; i < n; i += blockDim.x) sum += f(i);
    sum = pn_sum_block(sum, part);
    if (threadIdx.x == 0) done(sum);
}
template <class F, class D> static void pn_sum(struct pn_ctx *c, size_t n, F f, D done, const char *what) {
    unsigned threads = 32;
    while (threads < 1024 && threads < n) threads *= 2;
    PN_LAUNCH((pn_sum_kernel<F, D>), 1, threads, threads * sizeof(double), pn_compute(c), n, f, done);
    pn_launched(c, what);
}

/* Column sums of two functions of (row, column) at once: first by pieces of rows (a block is 32 columns by 8 rows at a time), then over the pieces. */
struct pn_two { float a, b; };
template <class F> __global__ void pn_columns_kernel(size_t n, size_t width, size_t rows_a_piece, F f, struct pn_two *partial) {
    PN_SHARED(struct pn_two, part); /* 8 * 32 */
    const size_t d = (size_t)blockIdx.x * 32 + threadIdx.x, begin = (size_t)blockIdx.y * rows_a_piece, end = begin + rows_a_piece < n ? begin + rows_a_piece : n;
    struct pn_two sum = {0, 0};
    if (d < width)
        for (size_t e = begin + threadIdx.y; e < end; e += 8) {
            const struct pn_two v = f(e, d);
            sum.a += v.a;
            sum.b += v.b;
        }
    part[threadIdx.y * 32 + threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && d < width) {
        for (unsigned y = 1; y < 8; y++) {
            sum.a += part[y * 32 + threadIdx.x].a;
            sum.b += part[y * 32 + threadIdx.x].b;
        }
        partial[(size_t)blockIdx.y * width + d] = sum;
    }
}
template <class D> struct pn_columns_done {
    size_t pieces, width;
    const struct pn_two *partial;
    D done;
    __device__ void operator()(size_t d) const {
        struct pn_two sum = {0, 0};
        for (size_t p = 0; p < pieces; p++) {
            sum.a += partial[p * width + d].a;
            sum.b += partial[p * width + d].b;
        }
        done(d, sum);
    }
};
/* done(column, sums) on the device. Uses the scratch. */
template <class F, class D> static void pn_columns(struct pn_ctx *c, size_t n, size_t width, F f, D done, const char *what) {
    if (width == 0) return;
    size_t pieces = (n + 255) / 256;
    pieces = pieces < 1 ? 1 : pieces > 256 ? 256 : pieces;
    const size_t rows_a_piece = (n + pieces - 1) / pieces;
    struct pn_two *partial = (struct pn_two *)pn_scratch(c, pieces * width * sizeof *partial);
    if (partial == NULL) return;
    PN_LAUNCH(pn_columns_kernel<F>, dim3(pn_blocks(width, 32), (unsigned)pieces), dim3(32, 8), 256 * sizeof(struct pn_two), pn_compute(c), n, width, rows_a_piece, f, partial);
    pn_launched(c, what);
    struct pn_columns_done<D> last = {pieces, width, partial, done};
    pn_each(c, width, last, what);
}

/* ---- gemm.cu ---- */
enum pn_operand { PN_PLAIN, PN_GRADIENT }; /* a gradient is scaled up by a power of two before float16, and the product down again */
/* C[m * n] = alpha op(A)[m * k] op(B)[k * n] + beta C, row-major, rows lda, ldb, ldc apart; then, bias and relu (beta 0), + bias[n] and max(0, .). */
struct pn_gemm {
    bool trans_a, trans_b;
    size_t m, n, k, lda, ldb, ldc;
    float alpha, beta;
    const float *a, *b, *bias;
    float *c;
    bool relu;
    enum pn_operand kind_a, kind_b;
};
void pn_multiply(struct pn_ctx *, const struct pn_gemm *);
bool pn_gemm_open(struct pn_ctx *);
void pn_gemm_close(struct pn_ctx *);

/* The operations of each file, put into the table by backend.cu. */
void pn_fill_pool(struct pn_backend *);
void pn_fill_interact(struct pn_backend *);
void pn_fill_linear(struct pn_backend *);
void pn_fill_norm(struct pn_backend *);
void pn_fill_attention(struct pn_backend *);
void pn_fill_small(struct pn_backend *);
void pn_fill_sequence(struct pn_backend *);
void pn_fill_loss(struct pn_backend *);
void pn_fill_dense(struct pn_backend *);
void pn_fill_context(struct pn_backend *);
void pn_fill_group(struct pn_backend *);
void pn_fill_pair(struct pn_backend *);
void pn_fill_sasrec(struct pn_backend *);
void pn_fill_private(struct pn_backend *);

#endif
