/* SASRec's losses over plain arrays (nn/sasrec.c says what they are): what nn/cpu/tokens.c computes, and a device with the same layout. */
#ifndef PN_NN_TOKENS_H
#define PN_NN_TOKENS_H

#include <stddef.h>
#include <stdint.h>

#define PN_TOKEN_CHUNK 1024u /* the most tokens whose logits over shared rows are held at once */

#ifdef __cplusplus
extern "C" {
#endif

/* n_tokens vectors of k floats against rows of k floats; UINT32_MAX: no row. */
struct pn_tokens_view {
    size_t n_tokens, k;
    /* log loss: token t's rows are row[begin[t] .. begin[t + 1]), the one of label 1 first, the others of label 0; token[i]: whose entry i is */
    const uint32_t *begin, *row, *token;
    /* softmax: the row of each token, and those (each once) that it is held against, but for itself */
    const uint32_t *target, *at;
    size_t n_at;
};
/* share times the sum of losses; adds share times their gradients to dx and drows. */
double pn_token_bce(const struct pn_tokens_view *, const float *x, const float *rows, double share, float *dx, float *drows);
/* side, dside: n_at * k; logits: PN_TOKEN_CHUNK * n_at. */
double pn_token_softmax(const struct pn_tokens_view *, const float *x, const float *rows, double share, float *side, float *dside, float *logits, float *dx, float *drows);
/* Sigmoid of each example's last token times its target; 0.5 where there is none. begin: of examples, n + 1, as in pn_pass. */
void pn_token_scores(const float *x, const float *rows, const uint32_t *target, const uint32_t *begin, size_t n, size_t k, float *scores);

#ifdef __cplusplus
}
#endif
#endif
