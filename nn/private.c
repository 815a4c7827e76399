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

/* broken[u]: unit u's gradient is no number; then neither are the sums. */
static enum pn_result step_clipped(struct pn_net *net, const struct pn_batch *b, const float *const rows[PN_MAX_TABLES], const float *p, uint64_t seed, float clip, float spread,
                                   float *const row_gradients[PN_MAX_TABLES], float *dp, float *scores, float *norms, double *loss, bool *broken) {
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
        double reach = norm / (double)clip, sum = 0;
        for (size_t e = each ? b->unit_begin[u] : 0; each && e < b->unit_begin[u + 1]; e++) sum += sqrt(single[e]);
        if (each) reach = fmax(reach, sum / (double)(spread * clip));
        broken[u] = !isfinite(norm) || !isfinite(sum);
        factors[u] = broken[u] ? 0 : reach > 1 ? (float)(1 / reach) : 1;
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

/* The batch without its broken units: *out, and rows and room for gradients in its order. */
struct rest { struct pn_batch batch; float *rows[PN_MAX_TABLES], *gradients[PN_MAX_TABLES]; };
static void free_rest(struct rest *x) {
    pn_batch_free(&x->batch);
    for (size_t t = 0; t < PN_MAX_TABLES; t++) {
        free(x->rows[t]);
        free(x->gradients[t]);
    }
}
/* The rows of table t that are left, from b's order into the rest's, or back. */
static void copy_rows(const struct pn_batch *b, const struct pn_batch *rest, size_t t, size_t dim, const float *from, float *to, bool back) {
    for (size_t i = 0, k = 0; k < rest->n_unique[t]; i++) {
        if (b->unique[t][i] != rest->unique[t][k]) continue;
        memcpy(to + (back ? i : k) * dim, from + (back ? k : i) * dim, dim * sizeof *to);
        k++;
    }
}
static enum pn_result leave_out(struct rest *out, const struct pn_net *net, const struct pn_batch *b, const float *const rows[PN_MAX_TABLES], const bool *broken) {
    const struct pn_job *job = net->job;
    const struct pn_batch **from = malloc((b->n_examples + 1) * sizeof *from);
    uint32_t *example = malloc((b->n_examples + 1) * sizeof *example), *begin = b->unit_begin != NULL ? malloc((b->n_units + 1) * sizeof *begin) : NULL;
    size_t n = 0, units = 0, sparse[PN_MAX_FIELDS];
    enum pn_result r = from != NULL && example != NULL && (b->unit_begin == NULL || begin != NULL) ? PN_OK : PN_NO_MEMORY;
    for (size_t u = 0; r == PN_OK && u < pn_batch_units(b); u++) {
        if (broken[u]) continue;
        if (begin != NULL) begin[units++] = (uint32_t)n;
        for (size_t e = pn_batch_unit(b, u); e < pn_batch_unit(b, u + 1); e++) {
            from[n] = b;
            example[n++] = (uint32_t)e;
        }
    }
    if (begin != NULL) begin[units] = (uint32_t)n;
    memset(out, 0, sizeof *out);
    pn_batch_fields(job, sparse);
    if (r == PN_OK) r = pn_batch_gather(&out->batch, job, sparse, from, example, n);
    free(from);
    free(example);
    if (r != PN_OK) {
        free(begin);
        return r;
    }
    out->batch.unit_begin = begin;
    out->batch.n_units = units;
    for (uint32_t t = 0; t < job->i_dense_table; t++) {
        const size_t cells = out->batch.n_unique[t] * job->tables[t].dim + 1;
        out->rows[t] = malloc(cells * sizeof(float));
        out->gradients[t] = malloc(cells * sizeof(float));
        if (out->rows[t] == NULL || out->gradients[t] == NULL) {
            free_rest(out);
            return PN_NO_MEMORY;
        }
        copy_rows(b, &out->batch, t, job->tables[t].dim, rows[t], out->rows[t], false);
    }
    return PN_OK;
}

/* The step of those that are not broken; scores lose their places, and of a private step nobody looks at them. */
static enum pn_result step_without(struct pn_net *net, const struct pn_batch *b, const float *const rows[PN_MAX_TABLES], const float *p, uint64_t seed, float clip, float spread,
                                   float *const row_gradients[PN_MAX_TABLES], float *dp, float *scores, double *loss, const bool *broken) {
    const uint32_t dense = net->job->i_dense_table;
    const float *in[PN_MAX_TABLES] = {NULL};
    struct rest rest;
    enum pn_result r = leave_out(&rest, net, b, rows, broken);
    if (r != PN_OK) return r;
    for (uint32_t t = 0; t < dense; t++) in[t] = rest.rows[t];
    in[dense] = rows[dense];
    r = pn_net_step_clipped(net, &rest.batch, in, p, seed, clip, spread, rest.gradients, dp, scores, NULL, loss); /* fewer units each time */
    for (uint32_t t = 0; r == PN_OK && t < dense; t++) {
        memset(row_gradients[t], 0, b->n_unique[t] * net->job->tables[t].dim * sizeof(float));
        copy_rows(b, &rest.batch, t, net->job->tables[t].dim, rest.gradients[t], row_gradients[t], true);
    }
    for (size_t e = rest.batch.n_examples; e < b->n_examples; e++) scores[e] = 0;
    free_rest(&rest);
    return r;
}

/* A unit whose gradient is no number would make none of the sums one, whatever it is scaled by (0 times infinity), and its presence plain to see: the step is made again without it, as if it
 * had not been drawn. Whether a unit is such a one is of itself alone. */
enum pn_result pn_net_step_clipped(struct pn_net *net, const struct pn_batch *b, const float *const rows[PN_MAX_TABLES], const float *p, uint64_t seed, float clip, float spread,
                                   float *const row_gradients[PN_MAX_TABLES], float *dp, float *scores, float *norms, double *loss) {
    bool *broken = calloc(pn_batch_units(b) + 1, sizeof *broken), any = false;
    if (broken == NULL) return PN_NO_MEMORY;
    enum pn_result r = step_clipped(net, b, rows, p, seed, clip, spread, row_gradients, dp, scores, norms, loss, broken);
    for (size_t u = 0; r == PN_OK && u < pn_batch_units(b); u++) any = any || broken[u];
    if (any) r = step_without(net, b, rows, p, seed, clip, spread, row_gradients, dp, scores, loss, broken);
    free(broken);
    return r;
}
