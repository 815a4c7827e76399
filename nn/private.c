/* A step whose units' gradients (a unit: an example, or a user's examples) are clipped one by one: forward; backward to the inputs alone, which leaves each block its output's gradient; from those and
 * the inputs the norm of each unit's gradient; then what was left is scaled, unit by unit, and the gradients of parameters and rows are taken of it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "common/hash.h"
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

/* Some units of a batch: a batch of their own, where its rows are among the other's, and their values and room for gradients in its order. */
struct part { struct pn_batch batch; uint32_t *at[PN_MAX_TABLES]; float *rows[PN_MAX_TABLES], *gradients[PN_MAX_TABLES]; };
static void free_part(struct part *x) {
    pn_batch_free(&x->batch);
    for (size_t t = 0; t < PN_MAX_TABLES; t++) {
        free(x->at[t]);
        free(x->rows[t]);
        free(x->gradients[t]);
    }
}
/* Each of n keys among many, all of them there, both in the order of common/unique.h: by steps that double, as a part may be small beside its batch. */
static void find_rows(const uint64_t *many, size_t n_many, const uint64_t *keys, size_t n, uint32_t *at) {
    size_t low = 0;
    for (size_t k = 0; k < n; k++) {
        const uint64_t wanted = pn_mix64(keys[k]);
        size_t step = 1, high = low;
        while (high < n_many && pn_mix64(many[high]) < wanted) {
            low = high + 1;
            high += step;
            step *= 2;
        }
        if (high > n_many) high = n_many;
        while (low < high) {
            const size_t middle = (low + high) / 2;
            if (pn_mix64(many[middle]) < wanted) low = middle + 1;
            else high = middle;
        }
        at[k] = (uint32_t)low;
    }
}
/* Units [first, end) that are not left_out (NULL: none is). */
static enum pn_result take_part(struct part *out, const struct pn_net *net, const struct pn_batch *b, const float *const rows[PN_MAX_TABLES], size_t first, size_t end, const bool *left_out) {
    const struct pn_job *job = net->job;
    const size_t most = pn_batch_unit(b, end) - pn_batch_unit(b, first);
    const struct pn_batch **from = malloc((most + 1) * sizeof *from);
    uint32_t *example = malloc((most + 1) * sizeof *example), *begin = b->unit_begin != NULL ? malloc((end - first + 1) * sizeof *begin) : NULL;
    size_t n = 0, units = 0, sparse[PN_MAX_FIELDS];
    enum pn_result r = from != NULL && example != NULL && (b->unit_begin == NULL || begin != NULL) ? PN_OK : PN_NO_MEMORY;
    for (size_t u = first; r == PN_OK && u < end; u++) {
        if (left_out != NULL && left_out[u]) continue;
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
        const size_t dim = job->tables[t].dim, n_rows = out->batch.n_unique[t];
        out->at[t] = malloc((n_rows + 1) * sizeof **out->at);
        out->rows[t] = malloc((n_rows * dim + 1) * sizeof **out->rows);
        out->gradients[t] = malloc((n_rows * dim + 1) * sizeof **out->gradients);
        if (out->at[t] == NULL || out->rows[t] == NULL || out->gradients[t] == NULL) {
            free_part(out);
            return PN_NO_MEMORY;
        }
        find_rows(b->unique[t], b->n_unique[t], out->batch.unique[t], n_rows, out->at[t]);
        for (size_t k = 0; k < n_rows; k++) memcpy(out->rows[t] + k * dim, rows[t] + out->at[t][k] * dim, dim * sizeof(float));
        if (b->idle[t] == NULL) continue;
        if ((out->batch.idle[t] = malloc(n_rows + 1)) == NULL) {
            free_part(out);
            return PN_NO_MEMORY;
        }
        for (size_t k = 0; k < n_rows; k++) out->batch.idle[t][k] = b->idle[t][out->at[t][k]];
    }
    return PN_OK;
}

/* Sums of parts, in double. */
struct sums { double *rows[PN_MAX_TABLES], *p; size_t n_p; };
static void free_sums(struct sums *x) {
    for (size_t t = 0; t < PN_MAX_TABLES; t++) free(x->rows[t]);
    free(x->p);
}
static bool open_sums(struct sums *x, const struct pn_net *net, const struct pn_batch *b) {
    bool ok = true;
    memset(x, 0, sizeof *x);
    x->n_p = pn_net_padded(net);
    for (uint32_t t = 0; t < net->job->i_dense_table; t++) ok = (x->rows[t] = calloc(b->n_unique[t] * net->job->tables[t].dim + 1, sizeof **x->rows)) != NULL && ok;
    ok = (x->p = calloc(x->n_p + 1, sizeof *x->p)) != NULL && ok;
    if (!ok) free_sums(x);
    return ok;
}
static void add_part(struct sums *x, const struct pn_net *net, const struct part *part, const float *dp) {
    for (uint32_t t = 0; t < net->job->i_dense_table; t++) {
        const size_t dim = net->job->tables[t].dim;
        for (size_t k = 0; k < part->batch.n_unique[t]; k++)
            for (size_t d = 0; d < dim; d++) x->rows[t][part->at[t][k] * dim + d] += (double)part->gradients[t][k * dim + d];
    }
    for (size_t i = 0; i < x->n_p; i++) x->p[i] += (double)dp[i];
}
static void write_sums(const struct sums *x, const struct pn_net *net, const struct pn_batch *b, float *const row_gradients[PN_MAX_TABLES], float *dp) {
    for (uint32_t t = 0; t < net->job->i_dense_table; t++)
        for (size_t i = 0; i < b->n_unique[t] * net->job->tables[t].dim; i++) row_gradients[t][i] = (float)x->rows[t][i];
    for (size_t i = 0; i < x->n_p; i++) dp[i] = (float)x->p[i];
}

/* The step in pieces of so many units, without those left out; with these, scores lose their places, and of a private step nobody looks at them. */
static enum pn_result step_in_pieces(struct pn_net *net, const struct pn_batch *b, const float *const rows[PN_MAX_TABLES], const float *p, uint64_t seed, float clip, float spread,
                                     float *const row_gradients[PN_MAX_TABLES], float *dp, float *scores, float *norms, double *loss, size_t piece, const bool *left_out) {
    const uint32_t dense = net->job->i_dense_table;
    const size_t n_units = pn_batch_units(b);
    const float *in[PN_MAX_TABLES] = {NULL};
    struct sums sums;
    size_t n = 0;
    enum pn_result r = open_sums(&sums, net, b) ? PN_OK : PN_NO_MEMORY;
    if (r != PN_OK) return r;
    *loss = 0;
    for (size_t first = 0; r == PN_OK && first < n_units; first += piece) {
        struct part part;
        double own = 0;
        r = take_part(&part, net, b, rows, first, n_units - first < piece ? n_units : first + piece, left_out);
        if (r != PN_OK) break;
        for (uint32_t t = 0; t < dense; t++) in[t] = part.rows[t];
        in[dense] = rows[dense];
        r = pn_net_step_clipped(net, &part.batch, in, p, pn_mix64(seed + first), clip, spread, part.gradients, dp, scores + n, left_out == NULL && norms != NULL ? norms + first : NULL, &own);
        if (r == PN_OK) add_part(&sums, net, &part, dp);
        *loss += own;
        n += part.batch.n_examples;
        free_part(&part);
    }
    if (r == PN_OK) write_sums(&sums, net, b, row_gradients, dp);
    for (; n < b->n_examples; n++) scores[n] = 0;
    free_sums(&sums);
    return r;
}

/* In pieces, so that roundoff stays within what noise is made for (pn_job_roundoff). A unit whose gradient is no number would make none of the sums one, whatever it is scaled by (0 times infinity), and
 * its presence plain to see: the step is made again without it, as if it had not been drawn. Whether a unit is such a one is of itself alone. */
enum pn_result pn_net_step_clipped(struct pn_net *net, const struct pn_batch *b, const float *const rows[PN_MAX_TABLES], const float *p, uint64_t seed, float clip, float spread,
                                   float *const row_gradients[PN_MAX_TABLES], float *dp, float *scores, float *norms, double *loss) {
    const size_t n_units = pn_batch_units(b), piece = pn_job_piece(n_units);
    if (n_units > piece) return step_in_pieces(net, b, rows, p, seed, clip, spread, row_gradients, dp, scores, norms, loss, piece, NULL);
    bool *broken = calloc(n_units + 1, sizeof *broken), any = false;
    if (broken == NULL) return PN_NO_MEMORY;
    enum pn_result r = step_clipped(net, b, rows, p, seed, clip, spread, row_gradients, dp, scores, norms, loss, broken);
    for (size_t u = 0; r == PN_OK && u < n_units; u++) any = any || broken[u];
    if (any) r = step_in_pieces(net, b, rows, p, seed, clip, spread, row_gradients, dp, scores, NULL, loss, n_units, broken); /* fewer units each time */
    free(broken);
    return r;
}
