#include "nn/cpu/gemm.h"
#include <cblas.h>
#undef I /* complex.h's, through cblas.h */
#include <oneapi/dnnl/dnnl.h>

/* Of OpenMP, whose header clang lacks; libdnnl brings the library. The width is each thread's own, and a product in two threads would take the core of another producer. */
void omp_set_num_threads(int n);

/* Below, the call costs more than the better kernel saves, and vectors are no matrices. */
#define LEAST_SIDE 16u
#define LEAST_PRODUCTS (1u << 20)

void pn_gemm(bool across_a, bool across_b, size_t m, size_t n, size_t k, const float *a, const float *b, bool add, float *c) {
    const size_t lda = across_a ? m : k, ldb = across_b ? k : n;
    if (m >= LEAST_SIDE && n >= LEAST_SIDE && k >= LEAST_SIDE && m * n * k >= LEAST_PRODUCTS) {
        omp_set_num_threads(1);
        if (dnnl_sgemm(across_a ? 'T' : 'N', across_b ? 'T' : 'N', (dnnl_dim_t)m, (dnnl_dim_t)n, (dnnl_dim_t)k, 1, a, (dnnl_dim_t)lda, b, (dnnl_dim_t)ldb, add, c, (dnnl_dim_t)n) == dnnl_success) return;
    }
    cblas_sgemm(CblasRowMajor, across_a ? CblasTrans : CblasNoTrans, across_b ? CblasTrans : CblasNoTrans, (int)m, (int)n, (int)k, 1, a, (int)lda, b, (int)ldb, add, c, (int)n);
}
