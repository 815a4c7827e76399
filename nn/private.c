/* A step whose units' gradients (a unit: an example, or a user's examples) are clipped one by one: forward; backward to the inputs alone, which leaves each block its output's gradient; from those and
 * the inputs the norm of each unit's gradient; then what was left is scaled, unit by unit, and the gradients of parameters and rows are taken of it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "nn/net.h"

bool pn_net_separable(const struct pn_net *net) { return net->n_state == 0 && net->job->embedding_l2 <= 0 && net->job->model != PN_MODEL_SASREC && net->job->loss == PN_LOSS_BCE; }

static void scale_value(struct pn_value *v, const struct pn_pass *s, const float *factors) {
    for (size_t u = 0; u < pn_pass_units(s); u++) {
        const size_t begin = pn_pass_row(s, v->tokens, u), end = pn_pass_row(s, v->tokens, u + 1);
        if (factors[u] < 1)
            for (size_t i = begin * v->width; i < end * v->width; i++) v->g[i] *= factors[u];
    }
}

enum pn_result pn_net_step_clipped(struct pn_net *net, const struct pn_batch *b, const float *const rows[PN_MAX_TABLES], const float *p, uint64_t seed, float clip, float spread,
                                   float *const row_gradients[PN_MAX_TABLES], float *dp, float *scores, float *norms, double *loss) {
    struct pn_pass s = {.batch = b, .rows = rows, .p = p, .dp = dp, .row_gradients = row_gradients, .n = b->n_examples, .training = true, .whole = true, .seed = seed, .part = PN_PART_INPUTS};
    if (!pn_net_separable(net)) return PN_INVALID;
    enum pn_result r = pn_net_run(net, &s, true);
    if (r != PN_OK) return r;
    const size_t n_units = pn_pass_units(&s);
    const bool each = spread > 0 && b->unit_begin != NULL; /* else a unit is one example, whose norm is the sum of norms */
    struct pn_batch by_example = *b;
    by_example.unit_begin = NULL;
    struct pn_pass one = s;
    one.batch = &by_example;
    double *squares = calloc(n_units + 1, sizeof *squares), *single = each ? calloc(s.n + 1, sizeof *single) : NULL;
    float *factors = malloc((n_units + 1) * sizeof *factors);
    if (squares == NULL || factors == NULL || (each && single == NULL)) {
        r = PN_NO_MEMORY;
        goto out;
    }
    pn_net_clear(net, &s);
    *loss = pn_net_losses(net, &s, scores);
    for (size_t h = 0; h <= net->job->n_heads; h++) { /* the loss's gradients are of the mean */
        struct pn_value *v = &net->values[h == 0 ? net->logit : net->heads[h - 1]];
        for (size_t e = 0; e < s.n; e++) v->g[e] *= (float)s.n;
    }
    for (size_t i = net->n_blocks; i-- > 0;) {
        net->blocks[i].kind->backward(net, &net->blocks[i], &s);
        if (net->blocks[i].kind->norms != NULL) net->blocks[i].kind->norms(net, &net->blocks[i], &s, squares);
        if (each && net->blocks[i].kind->norms != NULL) net->blocks[i].kind->norms(net, &net->blocks[i], &one, single);
    }
    if (!pn_norms_rows(net, &s, squares) || (each && !pn_norms_rows(net, &one, single))) {
        r = PN_NO_MEMORY;
        goto out;
    }
    for (size_t u = 0; u < n_units; u++) {
        const double norm = sqrt(squares[u]);
        /* A gradient that is no number, or past all bounds, adds nothing: it must not pass unclipped. */
        double reach = norm / (double)clip, sum = 0;
        for (size_t e = each ? b->unit_begin[u] : 0; each && e < b->unit_begin[u + 1]; e++) sum += sqrt(single[e]);
        if (each) reach = fmax(reach, sum / (double)(spread * clip));
        factors[u] = !isfinite(norm) || !isfinite(sum) ? 0 : reach > 1 ? (float)(1 / reach) : 1;
        if (norms != NULL) norms[u] = (float)norm;
    }
    s.part = PN_PART_PARAMETERS;
    for (size_t i = net->n_blocks; i-- > 0;) {
        struct pn_block *block = &net->blocks[i];
        if (block->kind->norms == NULL && block->kind->touch == NULL) continue;
        scale_value(&net->values[block->out[0]], &s, factors);
        if (block->out[1] != 0) scale_value(&net->values[block->out[1]], &s, factors);
        block->kind->backward(net, block, &s);
    }
out:
    free(squares);
    free(single);
    free(factors);
    return r;
}
