/* Products of matrices through cuBLASLt, with bias and relu as its epilogue. The algorithm is the heuristic's first for the shape, kept: the same shape takes the same one,
 * and with a workspace of its own each product has one order of sums.
 *
 * cuBLASLt is column-major: a row-major C = A B is its C' = B' A', so the two operands change places. TF32 is a mode of the product. For bfloat16 and float16 both operands
 * are rounded into scratch first, sums and C stay float32; a gradient that becomes float16 is multiplied by 2^12 (losses are means, so gradients are small) and alpha by
 * 2^-12: loss scaling, product by product, without anything to unscale; what is still too large becomes the largest finite number. */
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdlib.h>
#include "nn/cuda/runtime.cuh"

enum { PLANS = 256, WORKSPACE = 32 << 20 };
static const float GRADIENT_SCALE = 4096;

struct plan {
    struct pn_gemm key;
    bool used;
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algorithm;
};
struct pn_gemm_state {
    cublasLtHandle_t handle;
    void *workspace;
    struct plan plans[PLANS];
    size_t n_plans, next;
};

bool pn_gemm_open(struct pn_ctx *c) {
    c->gemm = (struct pn_gemm_state *)calloc(1, sizeof *c->gemm);
    if (c->gemm == NULL) return false;
    return cublasLtCreate(&c->gemm->handle) == CUBLAS_STATUS_SUCCESS && cudaMalloc(&c->gemm->workspace, WORKSPACE) == cudaSuccess;
}
static void drop(struct plan *p) {
    if (p->operation != NULL) cublasLtMatmulDescDestroy(p->operation);
    if (p->a != NULL) cublasLtMatrixLayoutDestroy(p->a);
    if (p->b != NULL) cublasLtMatrixLayoutDestroy(p->b);
    if (p->c != NULL) cublasLtMatrixLayoutDestroy(p->c);
    *p = plan{};
}
void pn_gemm_close(struct pn_ctx *c) {
    if (c->gemm == NULL) return;
    for (size_t i = 0; i < c->gemm->n_plans; i++) drop(&c->gemm->plans[i]);
    if (c->gemm->handle != NULL) cublasLtDestroy(c->gemm->handle);
    if (c->gemm->workspace != NULL) cudaFree(c->gemm->workspace);
    free(c->gemm);
    c->gemm = NULL;
}

static bool same(const struct pn_gemm *a, const struct pn_gemm *b) {
    return a->trans_a == b->trans_a && a->trans_b == b->trans_b && a->m == b->m && a->n == b->n && a->k == b->k && a->lda == b->lda && a->ldb == b->ldb && a->ldc == b->ldc &&
           (a->bias == NULL) == (b->bias == NULL) && a->relu == b->relu && (a->beta != 0) == (b->beta != 0);
}

static bool make(struct pn_ctx *c, struct plan *p, const struct pn_gemm *g) {
    const enum pn_precision precision = c->precision;
    const cudaDataType_t type = precision == PN_BFLOAT16 ? CUDA_R_16BF : precision == PN_FLOAT16 ? CUDA_R_16F : CUDA_R_32F;
    const cublasComputeType_t compute = precision == PN_TF32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    const cublasOperation_t first = g->trans_b ? CUBLAS_OP_T : CUBLAS_OP_N, second = g->trans_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    if (g->bias != NULL) epilogue = g->relu ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_BIAS;
    else if (g->relu) epilogue = CUBLASLT_EPILOGUE_RELU;
    const size_t workspace = WORKSPACE;
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t found = {};
    int n = 0;
    bool ok = cublasLtMatmulDescCreate(&p->operation, compute, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS;
    ok = ok && cublasLtMatmulDescSetAttribute(p->operation, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first) == CUBLAS_STATUS_SUCCESS;
    ok = ok && cublasLtMatmulDescSetAttribute(p->operation, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof second) == CUBLAS_STATUS_SUCCESS;
    ok = ok && cublasLtMatmulDescSetAttribute(p->operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue) == CUBLAS_STATUS_SUCCESS;
    if (g->bias != NULL) ok = ok && cublasLtMatmulDescSetAttribute(p->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &g->bias, sizeof g->bias) == CUBLAS_STATUS_SUCCESS;
    /* as they lie in memory, columns first: B is n or k tall, A k or m */
    ok = ok && cublasLtMatrixLayoutCreate(&p->a, type, g->trans_b ? g->k : g->n, g->trans_b ? g->n : g->k, (int64_t)g->ldb) == CUBLAS_STATUS_SUCCESS;
    ok = ok && cublasLtMatrixLayoutCreate(&p->b, type, g->trans_a ? g->m : g->k, g->trans_a ? g->k : g->m, (int64_t)g->lda) == CUBLAS_STATUS_SUCCESS;
    ok = ok && cublasLtMatrixLayoutCreate(&p->c, CUDA_R_32F, g->n, g->m, (int64_t)g->ldc) == CUBLAS_STATUS_SUCCESS;
    ok = ok && cublasLtMatmulPreferenceCreate(&preference) == CUBLAS_STATUS_SUCCESS;
    ok = ok && cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace) == CUBLAS_STATUS_SUCCESS;
    /* Our rows may begin anywhere: a weight stands behind others in the flat vector. */
    const uint32_t aligned = 4;
    const cublasLtMatmulPreferenceAttributes_t where[] = {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                                                          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    const uint32_t rounded = precision == PN_BFLOAT16 || precision == PN_FLOAT16 ? 256 : aligned;
    for (int i = 0; i < 4; i++) ok = ok && cublasLtMatmulPreferenceSetAttribute(preference, where[i], i < 2 ? &rounded : &aligned, sizeof aligned) == CUBLAS_STATUS_SUCCESS;
    ok = ok && cublasLtMatmulAlgoGetHeuristic(c->gemm->handle, p->operation, p->a, p->b, p->c, p->c, preference, 1, &found, &n) == CUBLAS_STATUS_SUCCESS && n > 0;
    if (preference != NULL) cublasLtMatmulPreferenceDestroy(preference);
    p->algorithm = found.algo;
    p->key = *g;
    p->used = ok;
    return ok;
}
static struct plan *plan_of(struct pn_ctx *c, const struct pn_gemm *g) {
    struct pn_gemm_state *s = c->gemm;
    for (size_t i = 0; i < s->n_plans; i++)
        if (s->plans[i].used && same(&s->plans[i].key, g)) return &s->plans[i];
    struct plan *p = &s->plans[s->n_plans < PLANS ? s->n_plans++ : s->next++ % PLANS];
    drop(p);
    return make(c, p, g) ? p : NULL;
}

struct to_bfloat {
    const float *x;
    size_t step, width, padded;
    __nv_bfloat16 *y;
    __device__ void operator()(size_t i) const { y[i / width * padded + i % width] = __float2bfloat16(x[i / width * step + i % width]); }
};
struct to_half {
    const float *x;
    size_t step, width, padded;
    float scale;
    __half *y;
    __device__ void operator()(size_t i) const {
        const float v = x[i / width * step + i % width] * scale;
        y[i / width * padded + i % width] = __float2half_rn(v > 65504.0f ? 65504.0f : v < -65504.0f ? -65504.0f : v);
    }
};
static void round_into(struct pn_ctx *c, const float *x, size_t step, size_t rows, size_t width, size_t padded, float scale, void *y) {
    const struct to_bfloat b = {x, step, width, padded, (__nv_bfloat16 *)y};
    const struct to_half h = {x, step, width, padded, scale, (__half *)y};
    if (c->precision == PN_BFLOAT16) pn_each(c, rows * width, b, "to bfloat16");
    else pn_each(c, rows * width, h, "to float16");
}

void pn_multiply(struct pn_ctx *c, const struct pn_gemm *asked) {
    struct pn_gemm g = *asked;
    const void *a = g.a, *b = g.b;
    float alpha = g.alpha;
    if (g.m == 0 || g.n == 0) return;
    if (c->precision == PN_BFLOAT16 || c->precision == PN_FLOAT16) {
        const bool half = c->precision == PN_FLOAT16;
        const size_t rows_a = g.trans_a ? g.k : g.m, width_a = g.trans_a ? g.m : g.k, rows_b = g.trans_b ? g.n : g.k, width_b = g.trans_b ? g.k : g.n;
        const size_t padded_a = (width_a + 7) / 8 * 8, padded_b = (width_b + 7) / 8 * 8; /* rows of 16 bytes: what tensor cores load */
        const size_t bytes_a = (rows_a * padded_a * 2 + 255) / 256 * 256;
        char *rounded = (char *)pn_scratch(c, bytes_a + rows_b * padded_b * 2 + 256);
        if (rounded == NULL) return;
        round_into(c, g.a, g.lda, rows_a, width_a, padded_a, half && g.kind_a == PN_GRADIENT ? GRADIENT_SCALE : 1, rounded);
        round_into(c, g.b, g.ldb, rows_b, width_b, padded_b, half && g.kind_b == PN_GRADIENT ? GRADIENT_SCALE : 1, rounded + bytes_a);
        if (half && g.kind_a == PN_GRADIENT) alpha /= GRADIENT_SCALE;
        if (half && g.kind_b == PN_GRADIENT) alpha /= GRADIENT_SCALE;
        a = rounded;
        b = rounded + bytes_a;
        g.lda = padded_a;
        g.ldb = padded_b;
    }
    struct plan *p = plan_of(c, &g);
    if (p == NULL) {
        char what[120];
        snprintf(what, sizeof what, "cuBLASLt has no way to multiply %zu x %zu by %zu x %zu", g.m, g.k, g.k, g.n);
        pn_broken(c, what);
        return;
    }
    bool ok = true;
    if (g.bias != NULL) ok = cublasLtMatmulDescSetAttribute(p->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &g.bias, sizeof g.bias) == CUBLAS_STATUS_SUCCESS;
    ok = ok && cublasLtMatmul(c->gemm->handle, p->operation, &alpha, b, p->a, a, p->b, &g.beta, g.c, p->c, g.c, p->c, &p->algorithm, c->gemm->workspace, WORKSPACE, pn_compute(c)) ==
                   CUBLAS_STATUS_SUCCESS;
    if (!ok) pn_broken(c, "a product of matrices failed");
}
