/* Squared norms of the gradients of single examples, from the inputs and the output gradients that one backward pass of the whole batch leaves behind.
 *
 * The idea (Goodfellow 2015): the gradient of x W for one example is the outer product of x and g, whose squared norm is |x|^2 |g|^2. Over the tokens t of an
 * example it is the sum of outer products, and its squared norm the sum over t, u of (x_t . x_u)(g_t . g_u) (Li et al. 2022). */
#include <cblas.h>
#include <stdlib.h>
#include <string.h>
#include "nn/net.h"

#define X(i) net->values[b->in[i]].x
#define GOUT net->values[b->out[0]].g

static double dot(const float *restrict x, const float *restrict y, size_t n) {
    float sum[8] = {0}; /* eight sums side by side: a vector register, and less rounding than one long chain */
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (size_t k = 0; k < 8; k++) sum[k] += x[i + k] * y[i + k];
    double total = 0;
    for (size_t k = 0; k < 8; k++) total += (double)sum[k];
    for (; i < n; i++) total += (double)x[i] * (double)y[i];
    return total;
}

void pn_norms_bias(const struct pn_net *net, const struct pn_block *b, const struct pn_pass *s, double *squares) {
    for (size_t e = 0; e < s->n; e++) squares[e] += (double)GOUT[e] * (double)GOUT[e];
}

void pn_norms_linear(const struct pn_net *net, const struct pn_block *b, const struct pn_pass *s, double *squares) {
    const double bias = b->biased ? 1 : 0;
    for (size_t e = 0; e < s->n; e++) {
        if (!b->tokens) {
            const float *x = X(0) + e * b->from, *g = GOUT + e * b->width;
            squares[e] += (dot(x, x, b->from) + bias) * dot(g, g, b->width);
            continue;
        }
        const size_t first = s->begin[e] - s->begin[0], m = s->begin[e + 1] - s->begin[e];
        for (size_t t = 0; t < m; t++)
            for (size_t u = 0; u <= t; u++) {
                const double both = (dot(X(0) + (first + t) * b->from, X(0) + (first + u) * b->from, b->from) + bias) *
                                    dot(GOUT + (first + t) * b->width, GOUT + (first + u) * b->width, b->width);
                squares[e] += t == u ? both : 2 * both;
            }
    }
}

void pn_norms_weight(const struct pn_net *net, const struct pn_block *b, const struct pn_pass *s, double *squares) {
    for (size_t e = 0; e < s->n; e++) squares[e] += (double)GOUT[e] * (double)GOUT[e] * dot(X(0) + e * b->from, X(0) + e * b->from, b->from);
}

void pn_norms_norm(const struct pn_net *net, const struct pn_block *b, const struct pn_pass *s, double *squares) {
    const float *normal = b->kept[1];
    for (size_t e = 0; e < s->n; e++) {
        const size_t first = b->tokens ? s->begin[e] - s->begin[0] : e, m = b->tokens ? s->begin[e + 1] - s->begin[e] : 1;
        for (size_t d = 0; d < b->width; d++) {
            double shift = 0, scale = 0;
            for (size_t t = first; t < first + m; t++) {
                shift += (double)GOUT[t * b->width + d];
                scale += (double)GOUT[t * b->width + d] * (double)normal[t * b->width + d];
            }
            squares[e] += shift * shift + scale * scale;
        }
    }
}

/* out = x0 * (x W + b) + x: the gradient of x W + b is g * x0, by element. */
void pn_norms_cross(const struct pn_net *net, const struct pn_block *b, const struct pn_pass *s, double *squares) {
    for (size_t e = 0; e < s->n; e++) {
        const float *x0 = X(0) + e * b->width, *x = X(1) + e * b->width, *g = GOUT + e * b->width;
        double sum = 0;
        for (size_t d = 0; d < b->width; d++) sum += (double)g[d] * (double)x0[d] * (double)g[d] * (double)x0[d];
        squares[e] += (dot(x, x, b->width) + 1) * sum;
    }
}

/* No example has two tokens in one place. */
void pn_norms_positions(const struct pn_net *net, const struct pn_block *b, const struct pn_pass *s, double *squares) {
    for (size_t e = 0; e < s->n; e++)
        for (size_t t = s->begin[e] - s->begin[0]; t < s->begin[e + 1] - s->begin[0]; t++) squares[e] += dot(GOUT + t * b->width, GOUT + t * b->width, b->width);
}

/* The most keys that an example has. */
static size_t most_keys(const struct pn_batch *batch) {
    size_t most = 0;
    for (size_t e = 0; e < batch->n_examples; e++) {
        size_t n = 0;
        for (size_t f = 0; f < batch->n_sparse; f++) n += batch->begin[f * batch->n_examples + e + 1] - batch->begin[f * batch->n_examples + e];
        if (n > most) most = n;
    }
    return most;
}

/* Touches of one row are chained: latest[position] is the last of them, before[i] the one before touch i. */
struct chain { uint32_t example, touch; };
#define END UINT32_MAX

bool pn_norms_rows(const struct pn_net *net, const struct pn_pass *s, double *squares) {
    const struct pn_batch *batch = s->batch;
    const size_t most = most_keys(batch) + 1;
    size_t n_rows = 0, first[PN_MAX_TABLES];
    for (uint32_t t = 0; t < net->job->i_dense_table; t++) {
        first[t] = n_rows;
        n_rows += batch->n_unique[t];
    }
    struct pn_touch *list = malloc(most * sizeof *list);
    uint32_t *before = malloc(most * sizeof *before);
    struct chain *latest = malloc((n_rows + 1) * sizeof *latest);
    const bool ok = list != NULL && before != NULL && latest != NULL;
    for (size_t i = 0; ok && i < n_rows; i++) latest[i].example = END;
    for (size_t e = 0; ok && e < s->n; e++) {
        size_t n = 0;
        for (size_t i = 0; i < net->n_blocks; i++)
            if (net->blocks[i].kind->touch != NULL) n += net->blocks[i].kind->touch(net, &net->blocks[i], s, e, list + n);
        for (uint32_t i = 0; i < n; i++) {
            const struct pn_touch *x = &list[i];
            struct chain *c = &latest[first[x->table] + x->position];
            squares[e] += (double)x->scale * (double)x->scale * ((double)x->linear * (double)x->linear + dot(x->g, x->g, net->k));
            before[i] = c->example == e ? c->touch : END;
            for (uint32_t j = before[i]; j != END; j = before[j])
                squares[e] += 2 * (double)x->scale * (double)list[j].scale * ((double)x->linear * (double)list[j].linear + dot(x->g, list[j].g, net->k));
            *c = (struct chain){(uint32_t)e, i};
        }
    }
    free(list);
    free(before);
    free(latest);
    return ok;
}
