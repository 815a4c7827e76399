#ifndef PN_NN_GEMM_H
#define PN_NN_GEMM_H
#include <stdbool.h>
#include <stddef.h>

/* c = op(a) op(b) + (add ? c : 0), row-major floats without gaps: c is m x n, op(a) m x k (stored k x m when across_a), op(b) k x n (stored n x k when across_b).
 *
 * One thread, any thread; the calling thread's OpenMP width becomes 1. The same shape and numbers give the same bits on the same machine, wherever the arrays lie: which library
 * computes depends on the shape alone. oneDNN's and OpenBLAS's bits differ. No errors: oneDNN refuses only what the caller's shapes exclude, or when memory for its copies is out, and
 * then OpenBLAS computes. */
void pn_gemm(bool across_a, bool across_b, size_t m, size_t n, size_t k, const float *a, const float *b, bool add, float *c);

#endif
