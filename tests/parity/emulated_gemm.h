/* In place of nn/cuda/gemm.cu: the same products by the CPU's library, rounded as that file rounds. */
#include <cblas.h>
#include <vector>
extern "C" {
#include "common/half.h"
}

struct pn_gemm_state { int nothing; };
bool pn_gemm_open(struct pn_ctx *) { return true; }
void pn_gemm_close(struct pn_ctx *) {}

static void product_now(enum pn_precision precision, struct pn_gemm g) {
    const size_t rows_a = g.trans_a ? g.k : g.m, width_a = g.trans_a ? g.m : g.k, rows_b = g.trans_b ? g.n : g.k, width_b = g.trans_b ? g.k : g.n;
    std::vector<float> a, b;
    const float *from[2] = {g.a, g.b};
    const size_t rows[2] = {rows_a, rows_b}, width[2] = {width_a, width_b}, step[2] = {g.lda, g.ldb};
    for (int s = 0; s < 2 && (precision == PN_BFLOAT16 || precision == PN_FLOAT16); s++) {
        std::vector<float> &to = s == 0 ? a : b;
        const float scale = (s == 0 ? g.kind_a : g.kind_b) == PN_GRADIENT && precision == PN_FLOAT16 ? 4096 : 1;
        for (size_t i = 0; i < rows[s]; i++)
            for (size_t d = 0; d < width[s]; d++) {
                float x = from[s][i * step[s] + d] * scale;
                x = precision == PN_BFLOAT16 ? pn_float_from_bfloat(pn_bfloat_from_float(x)) : pn_float_from_half(pn_half_from_float(fminf(fmaxf(x, -65504), 65504)));
                to.push_back(x);
            }
        g.alpha /= scale;
    }
    if (!a.empty() || !b.empty()) g.a = a.data(), g.b = b.data(), g.lda = width_a, g.ldb = width_b;
    if (g.m == 0 || g.n == 0) return;
    if (g.beta == 0)
        for (size_t i = 0; i < g.m; i++) memset(g.c + i * g.ldc, 0, g.n * sizeof(float));
    if (g.k > 0)
        cblas_sgemm(CblasRowMajor, g.trans_a ? CblasTrans : CblasNoTrans, g.trans_b ? CblasTrans : CblasNoTrans, (int)g.m, (int)g.n, (int)g.k, g.alpha, g.a, (int)g.lda, g.b,
                    (int)g.ldb, 1, g.c, (int)g.ldc);
    for (size_t i = 0; i < g.m; i++)
        for (size_t d = 0; d < g.n; d++) {
            float *x = g.c + i * g.ldc + d;
            if (g.bias != NULL) *x += g.bias[d];
            if (g.relu && !(*x > 0)) *x = 0;
        }
}
void pn_multiply(struct pn_ctx *c, const struct pn_gemm *g) {
    const struct pn_gemm copy = *g;
    const enum pn_precision precision = c->precision;
    emulated::block_state &b = emulated::now();
    if (b.capturing) b.captured->push_back([=] { product_now(precision, copy); });
    else product_now(precision, copy);
}
