/* Squared norms of the gradients of single units (an example, or a user's examples), from the inputs and the output gradients that one backward pass of the whole batch
 * leaves behind.
 *
 * The idea (Goodfellow 2015): the gradient of x W for one example is the outer product of x and g, whose squared norm is |x|^2 |g|^2. Over the rows t of a unit (the
 * tokens of an example, the examples of a user, the tokens of all of a user's examples) it is the sum of outer products, and its squared norm the sum over t, u of
 * (x_t . x_u)(g_t . g_u) (Li et al. 2022). With m rows that is m^2 / 2 pairs of products; where the sum itself has fewer cells than that, it is made, a strip at a time. */
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

/* The same where rows may cancel: of a sum whose terms' squares are a million times its own, float32 would leave the first digits, and more than the clip could pass. */
static double exact(const float *restrict x, const float *restrict y, size_t n) {
    double sum[8] = {0};
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (size_t k = 0; k < 8; k++) sum[k] += (double)x[i + k] * (double)y[i + k];
    double total = 0;
    for (size_t k = 0; k < 8; k++) total += sum[k];
    for (; i < n; i++) total += (double)x[i] * (double)y[i];
    return total;
}

/* The squared norm of the sum over m rows of the outer product of x_t (and, with `bias`, a 1 behind it) and g_t, where g_t may be by element times z_t (NULL: it is not). */
static double outer(const float *x, size_t from, bool bias, const float *g, const float *z, size_t width, size_t m) {
    enum { STRIP = 64 };
    float strip[STRIP], scaled[STRIP];
    double (*const product)(const float *restrict, const float *restrict, size_t) = m > 1 ? exact : dot;
    double sum = 0;
    if (m * (from + width) / 2 <= from * width || m <= 1) {
        for (size_t t = 0; t < m; t++)
            for (size_t u = 0; u <= t; u++) {
                double gg = 0;
                if (z == NULL) gg = product(g + t * width, g + u * width, width);
                else
                    for (size_t d = 0; d < width; d++)
                        gg += (double)g[t * width + d] * (double)z[t * width + d] * (double)g[u * width + d] * (double)z[u * width + d];
                const double both = (product(x + t * from, x + u * from, from) + (bias ? 1 : 0)) * gg;
                sum += t == u ? both : 2 * both;
            }
        return sum;
    }
    for (size_t first = 0; first < width; first += STRIP) {
        const size_t n = width - first < STRIP ? width - first : STRIP;
        for (size_t i = 0; i < from + bias; i++) {
            memset(strip, 0, sizeof strip);
            for (size_t t = 0; t < m; t++) {
                const float *row = g + t * width + first, factor = i < from ? x[t * from + i] : 1;
                if (z != NULL)
                    for (size_t d = 0; d < n; d++) scaled[d] = row[d] * z[t * width + first + d];
                const float *const by = z != NULL ? scaled : row;
                for (size_t d = 0; d < n; d++) strip[d] += factor * by[d];
            }
            sum += dot(strip, strip, n);
        }
    }
    return sum;
}

void pn_norms_bias(const struct pn_net *net, const struct pn_block *b, const struct pn_pass *s, double *squares) {
    for (size_t u = 0; u < pn_pass_units(s); u++) {
        double sum = 0;
        for (size_t e = pn_pass_example(s, u); e < pn_pass_example(s, u + 1); e++) sum += (double)GOUT[e];
        squares[u] += sum * sum;
    }
}

void pn_norms_linear(const struct pn_net *net, const struct pn_block *b, const struct pn_pass *s, double *squares) {
    for (size_t u = 0; u < pn_pass_units(s); u++) {
        const size_t first = pn_pass_row(s, b->tokens, u), m = pn_pass_row(s, b->tokens, u + 1) - first;
        squares[u] += outer(X(0) + first * b->from, b->from, b->biased, GOUT + first * b->width, NULL, b->width, m);
    }
}

void pn_norms_weight(const struct pn_net *net, const struct pn_block *b, const struct pn_pass *s, double *squares) {
    for (size_t u = 0; u < pn_pass_units(s); u++) {
        const size_t first = pn_pass_example(s, u);
        squares[u] += outer(X(0) + first * b->from, b->from, false, GOUT + first, NULL, 1, pn_pass_example(s, u + 1) - first);
    }
}

void pn_norms_norm(const struct pn_net *net, const struct pn_block *b, const struct pn_pass *s, double *squares) {
    const float *normal = b->kept[1];
    for (size_t u = 0; u < pn_pass_units(s); u++) {
        const size_t first = pn_pass_row(s, b->tokens, u), end = pn_pass_row(s, b->tokens, u + 1);
        for (size_t d = 0; d < b->width; d++) {
            double shift = 0, scale = 0;
            for (size_t t = first; t < end; t++) {
                shift += (double)GOUT[t * b->width + d];
                scale += (double)GOUT[t * b->width + d] * (double)normal[t * b->width + d];
            }
            squares[u] += shift * shift + scale * scale;
        }
    }
}

/* out = x0 * (x W + b) + x: the gradient of x W + b is g * x0, by element. */
void pn_norms_cross(const struct pn_net *net, const struct pn_block *b, const struct pn_pass *s, double *squares) {
    for (size_t u = 0; u < pn_pass_units(s); u++) {
        const size_t first = pn_pass_example(s, u), at = first * b->width;
        squares[u] += outer(X(1) + at, b->width, true, GOUT + at, X(0) + at, b->width, pn_pass_example(s, u + 1) - first);
    }
}

/* Tokens in one place, counted from the end, share a vector: no example has two, but a user's examples do. */
void pn_norms_positions(const struct pn_net *net, const struct pn_block *b, const struct pn_pass *s, double *squares) {
    for (size_t u = 0; u < pn_pass_units(s); u++)
        for (size_t e = pn_pass_example(s, u); e < pn_pass_example(s, u + 1); e++)
            for (size_t other = pn_pass_example(s, u); other <= e; other++) {
                const size_t m = s->begin[e + 1] - s->begin[e], n = s->begin[other + 1] - s->begin[other];
                const float *ends[2] = {GOUT + (s->begin[e + 1] - s->begin[0]) * b->width, GOUT + (s->begin[other + 1] - s->begin[0]) * b->width};
                double sum = 0;
                for (size_t left = 1; left <= m && left <= n; left++) sum += exact(ends[0] - left * b->width, ends[1] - left * b->width, b->width);
                squares[u] += other == e ? sum : 2 * sum;
            }
}

/* The most keys that a unit has. */
static size_t most_keys(const struct pn_pass *s) {
    const struct pn_batch *batch = s->batch;
    size_t most = 0;
    for (size_t u = 0; u < pn_pass_units(s); u++) {
        size_t n = 0;
        for (size_t f = 0; f < batch->n_sparse; f++) n += batch->begin[f * batch->n_examples + pn_pass_example(s, u + 1)] - batch->begin[f * batch->n_examples + pn_pass_example(s, u)];
        if (n > most) most = n;
    }
    return most;
}

/* Touches of one row are chained: latest[position] is the last of them, before[i] the one before touch i. */
struct chain { uint32_t unit, touch; };
#define END UINT32_MAX

bool pn_norms_rows(const struct pn_net *net, const struct pn_pass *s, double *squares) {
    const struct pn_batch *batch = s->batch;
    const size_t most = most_keys(s) + 1;
    size_t n_rows = 0, first[PN_MAX_TABLES];
    for (uint32_t t = 0; t < net->job->i_dense_table; t++) {
        first[t] = n_rows;
        n_rows += batch->n_unique[t];
    }
    struct pn_touch *list = malloc(most * sizeof *list);
    uint32_t *before = malloc(most * sizeof *before);
    struct chain *latest = malloc((n_rows + 1) * sizeof *latest);
    const bool ok = list != NULL && before != NULL && latest != NULL;
    for (size_t i = 0; ok && i < n_rows; i++) latest[i].unit = END;
    for (size_t u = 0; ok && u < pn_pass_units(s); u++) {
        size_t n = 0;
        for (size_t e = pn_pass_example(s, u); e < pn_pass_example(s, u + 1); e++)
            for (size_t i = 0; i < net->n_blocks; i++)
                if (net->blocks[i].kind->touch != NULL) n += net->blocks[i].kind->touch(net, &net->blocks[i], s, e, list + n);
        for (uint32_t i = 0; i < n; i++) {
            const struct pn_touch *x = &list[i];
            struct chain *c = &latest[first[x->table] + x->position];
            if (pn_batch_idle(batch, x->table, x->position)) continue;
            squares[u] += (double)x->scale * (double)x->scale * ((double)x->linear * (double)x->linear + exact(x->g, x->g, net->k));
            before[i] = c->unit == u ? c->touch : END;
            for (uint32_t j = before[i]; j != END; j = before[j])
                squares[u] += 2 * (double)x->scale * (double)list[j].scale * ((double)x->linear * (double)list[j].linear + exact(x->g, list[j].g, net->k));
            *c = (struct chain){(uint32_t)u, i};
        }
    }
    free(list);
    free(before);
    free(latest);
    return ok;
}
