/* Clipping by unit (an example, or a user's examples), against the naive way: each example by itself through pn_net_step, a unit's gradients added up and scaled, and the sum. */
#include <math.h>
#include <stdlib.h>
#include "common/hash.h"
#include "nn/net.h"
#include "tests/unit/nn/small.h"

static void value_of(uint64_t key, float *row, size_t dim) { /* a row is a function of its key */
    struct pn_rng g = {pn_mix64(key)};
    for (size_t d = 0; d < dim; d++) row[d] = (float)(0.5 * pn_rng_normal(&g));
}

struct side { struct pn_batch b; float *rows, *drows, *dp; };
static void open_side(struct side *s, struct pn_features *f, const struct pn_raw *raw, size_t dim, size_t padded) {
    uint64_t n_bad = 0;
    ck_assert_int_eq(pn_features_batch(f, raw, &s->b, &n_bad), PN_OK);
    s->rows = calloc(s->b.n_unique[0] * dim + 1, sizeof(float));
    s->drows = calloc(s->b.n_unique[0] * dim + 1, sizeof(float));
    s->dp = calloc(padded, sizeof(float));
    for (size_t i = 0; i < s->b.n_unique[0]; i++) value_of(s->b.unique[0][i], s->rows + i * dim, dim);
}
static void close_side(struct side *s) {
    pn_batch_free(&s->b);
    free(s->rows);
    free(s->drows);
    free(s->dp);
}

/* A model over the small batch, its parameters moved away from where they begin. */
struct setup { struct pn_job job; struct raw r; struct pn_features *f; struct pn_net *net; size_t n_parameters, dim, padded; float *p; };
static void open_setup(struct setup *x, const char *model) {
    struct pn_error err;
    struct pn_rng g = {5};
    make_raw(&x->r);
    make_job(&x->job, model);
    ck_assert_int_eq(pn_features_open(&x->f, &x->job, names, 3, &err), PN_OK);
    pn_features_observe(x->f, &x->r.raw);
    pn_features_freeze(x->f);
    ck_assert_int_eq(pn_net_open(&x->net, &x->job, 1, &err), PN_OK);
    ck_assert(pn_net_separable(x->net));
    x->n_parameters = pn_net_parameters(x->net);
    x->dim = x->job.tables[0].dim;
    x->padded = (x->n_parameters + PN_DENSE_ROW - 1) / PN_DENSE_ROW * PN_DENSE_ROW;
    x->p = calloc(x->padded, sizeof *x->p);
    pn_net_init(x->net, 3, x->p);
    for (size_t i = 0; i < x->n_parameters; i++) x->p[i] += (float)(0.3 * pn_rng_normal(&g));
}
static void close_setup(struct setup *x) {
    free(x->p);
    pn_net_close(x->net);
    pn_features_close(x->f);
    pn_job_free(&x->job);
}

/* Rows that are never sent: half of them, or none. */
static bool some_idle;
static bool is_idle(uint64_t key) { return some_idle && pn_mix64(key) % 2 == 0; }
static void mark_idle(struct pn_batch *b) {
    if (!some_idle) return;
    b->idle[0] = malloc(b->n_unique[0] + 1);
    for (size_t i = 0; i < b->n_unique[0]; i++) b->idle[0][i] = is_idle(b->unique[0][i]);
}

static void check_clipping(const char *model, float share, float spread, const uint32_t *unit_begin, size_t n_units) {
    static struct setup x;
    open_setup(&x, model);
    struct pn_net *const net = x.net;
    const size_t n_parameters = x.n_parameters, dim = x.dim, padded = x.padded;
    const float *const p = x.p;
    float scores[ROWS], norms[ROWS], naive_norms[ROWS];
    struct side all, one[ROWS];
    double loss, single, *sum = calloc(padded, sizeof *sum), most = 0, unit_reach[ROWS] = {0}; /* unit_reach: the norms of a unit's examples, added up */
    open_side(&all, x.f, &x.r.raw, dim, padded);
    const size_t n_cells = all.b.n_unique[0] * dim;
    double *row_sum = calloc(n_cells, sizeof *row_sum), *unit_sum = calloc(n_units * padded, sizeof *unit_sum), *unit_rows = calloc(n_units * n_cells, sizeof *unit_rows);
    size_t u = 0;
    for (size_t e = 0; e < ROWS; e++) {
        uint32_t offset[3], length[3];
        for (size_t c = 0; c < 3; c++) {
            offset[c] = x.r.offset[c * ROWS + e];
            length[c] = x.r.length[c * ROWS + e];
        }
        const struct pn_raw raw = {1, 3, names, x.r.text, offset, length, labels + e, NULL, values + e};
        open_side(&one[e], x.f, &raw, dim, padded);
        const float *in[PN_MAX_TABLES] = {one[e].rows};
        float *out[PN_MAX_TABLES] = {one[e].drows};
        ck_assert_int_eq(pn_net_step(net, &one[e].b, in, p, 1, out, one[e].dp, scores, &single), PN_OK);
        while (e >= unit_begin[u + 1]) u++;
        double own = 0;
        for (size_t i = 0; i < n_parameters; i++) own += (double)one[e].dp[i] * (double)one[e].dp[i];
        for (size_t i = 0; i < one[e].b.n_unique[0] * dim; i++)
            if (!is_idle(one[e].b.unique[0][i / dim])) own += (double)one[e].drows[i] * (double)one[e].drows[i];
        unit_reach[u] += sqrt(own);
        for (size_t i = 0; i < n_parameters; i++) unit_sum[u * padded + i] += (double)one[e].dp[i];
        for (size_t i = 0; i < one[e].b.n_unique[0]; i++)
            for (size_t at = 0; at < all.b.n_unique[0]; at++)
                if (all.b.unique[0][at] == one[e].b.unique[0][i])
                    for (size_t d = 0; d < dim; d++) unit_rows[u * n_cells + at * dim + d] += (double)one[e].drows[i * dim + d];
    }
    for (u = 0; u < n_units; u++) {
        double squares = 0;
        for (size_t i = 0; i < n_parameters; i++) squares += unit_sum[u * padded + i] * unit_sum[u * padded + i];
        for (size_t i = 0; i < n_cells; i++)
            if (!is_idle(all.b.unique[0][i / dim])) squares += unit_rows[u * n_cells + i] * unit_rows[u * n_cells + i];
        naive_norms[u] = (float)sqrt(squares);
        if (sqrt(squares) > most) most = sqrt(squares);
    }
    const float clip = (float)most * share; /* some are clipped, some are not */
    size_t n_clipped = 0, n_spread = 0;
    for (u = 0; u < n_units; u++) {
        double factor = naive_norms[u] > clip ? (double)clip / (double)naive_norms[u] : 1;
        if (spread > 0 && n_units < ROWS && unit_reach[u] * factor > (double)(spread * clip)) {
            factor = (double)(spread * clip) / unit_reach[u];
            n_spread++;
        }
        n_clipped += factor < 1;
        for (size_t i = 0; i < n_parameters; i++) sum[i] += factor * unit_sum[u * padded + i];
        for (size_t i = 0; i < n_cells; i++) row_sum[i] += factor * unit_rows[u * n_cells + i];
    }
    ck_assert_uint_gt(n_clipped, 0);
    if (spread > 0 && n_units < ROWS) ck_assert_uint_gt(n_spread, 0);
    if (share > 0.1f && n_units == ROWS) ck_assert_uint_lt(n_clipped, ROWS);
    if (n_units < ROWS) { /* users; else no word of units at all: each example is one */
        all.b.n_units = n_units;
        all.b.unit_begin = malloc((n_units + 1) * sizeof *all.b.unit_begin);
        memcpy(all.b.unit_begin, unit_begin, (n_units + 1) * sizeof *unit_begin);
    }

    mark_idle(&all.b);
    const float *in[PN_MAX_TABLES] = {all.rows};
    float *out[PN_MAX_TABLES] = {all.drows};
    ck_assert_int_eq(pn_net_step_clipped(net, &all.b, in, p, 1, clip, spread, out, all.dp, scores, norms, &loss), PN_OK);
    for (u = 0; u < n_units; u++)
        ck_assert_msg(fabsf(norms[u] - naive_norms[u]) < 1e-5f * (float)most, "%s, unit %zu of %zu: norm %g, naive %g", model, u, n_units, (double)norms[u], (double)naive_norms[u]);
    for (size_t i = 0; i < n_parameters; i++)
        ck_assert_msg(fabs((double)all.dp[i] - sum[i]) < 1e-5 * most, "%s, parameter %zu: %g, naive %g", model, i, (double)all.dp[i], sum[i]);
    for (size_t i = 0; i < all.b.n_unique[0] * dim; i++)
        ck_assert_msg(fabs((double)all.drows[i] - row_sum[i]) < 1e-5 * most, "%s, cell %zu: %g, naive %g", model, i, (double)all.drows[i], row_sum[i]);
    for (size_t e = 0; e < ROWS; e++) close_side(&one[e]);
    close_side(&all);
    free(sum);
    free(row_sum);
    free(unit_sum);
    free(unit_rows);
    close_setup(&x);
}

/* A unit with a number so large that its gradient is none: the step is as if it were not there, to the last bit, and all of it are numbers. */
static void check_broken(const char *model, float value, const uint32_t *unit_begin, size_t n_units) {
    static struct setup x;
    open_setup(&x, model);
    const size_t dim = x.dim, padded = x.padded;
    float scores[ROWS], norms[ROWS];
    struct side all, rest = {.rows = NULL};
    open_side(&all, x.f, &x.r.raw, dim, padded);
    const size_t broken = n_units / 2, first = unit_begin[broken], end = unit_begin[broken + 1];
    const struct pn_batch *from[ROWS];
    uint32_t example[ROWS];
    size_t n = 0, sparse[PN_MAX_FIELDS];
    for (uint32_t e = 0; e < ROWS; e++)
        if (e < first || e >= end) {
            from[n] = &all.b;
            example[n++] = e;
        }
    pn_batch_fields(&x.job, sparse);
    ck_assert_int_eq(pn_batch_gather(&rest.b, &x.job, sparse, from, example, n), PN_OK);
    for (size_t k = 0; k < 2; k++) {
        struct pn_batch *b = k == 0 ? &all.b : &rest.b;
        if (n_units == ROWS) continue;
        b->n_units = n_units - k;
        b->unit_begin = malloc((n_units + 1) * sizeof *b->unit_begin);
        for (size_t u = 0; u + k <= n_units; u++) b->unit_begin[u] = k == 0 || u <= broken ? unit_begin[u] : unit_begin[u + 1] - (uint32_t)(end - first);
    }
    all.b.dense[(end - 1) * all.b.n_dense] = value;
    rest.rows = calloc(rest.b.n_unique[0] * dim + 1, sizeof(float));
    rest.drows = calloc(rest.b.n_unique[0] * dim + 1, sizeof(float));
    rest.dp = calloc(padded, sizeof(float));
    for (size_t i = 0; i < rest.b.n_unique[0]; i++) value_of(rest.b.unique[0][i], rest.rows + i * dim, dim);
    double loss;
    for (int k = 0; k < 2; k++) {
        struct side *s = k == 0 ? &all : &rest;
        const float *in[PN_MAX_TABLES] = {s->rows};
        float *out[PN_MAX_TABLES] = {s->drows};
        ck_assert_int_eq(pn_net_step_clipped(x.net, &s->b, in, x.p, 1, .5f, 0, out, s->dp, scores, norms, &loss), PN_OK);
        if (k == 0) ck_assert_msg(!isfinite(norms[broken]), "%s with %g is no broken unit", model, (double)value);
    }
    for (size_t i = 0; i < x.n_parameters; i++) ck_assert_msg(all.dp[i] == rest.dp[i], "%s, parameter %zu: %g, without the unit %g", model, i, (double)all.dp[i], (double)rest.dp[i]);
    for (size_t i = 0, k = 0; i < all.b.n_unique[0]; i++) {
        const bool left = k < rest.b.n_unique[0] && rest.b.unique[0][k] == all.b.unique[0][i];
        for (size_t d = 0; d < dim; d++) ck_assert(all.drows[i * dim + d] == (left ? rest.drows[k * dim + d] : 0));
        k += left;
    }
    close_side(&all);
    close_side(&rest);
    close_setup(&x);
}
/* More units than are summed in float32 at once: the sums, norms, scores and loss are those of the units one by one, and the sums within the roundoff that noise is made for. */
static void check_pieces(const char *model, size_t k) {
    enum { UNITS = 2048 + 100 };
    static struct setup x;
    static const struct pn_batch *from[2 * UNITS];
    static uint32_t example[2 * UNITS];
    open_setup(&x, model);
    struct side one, all = {.rows = NULL};
    open_side(&one, x.f, &x.r.raw, x.dim, x.padded);
    size_t sparse[PN_MAX_FIELDS];
    const size_t n = k * UNITS, n_cells = one.b.n_unique[0] * x.dim;
    for (size_t i = 0; i < n; i++) {
        from[i] = &one.b;
        example[i] = (uint32_t)(i / k * 3 + i % k) % ROWS;
    }
    pn_batch_fields(&x.job, sparse);
    ck_assert_int_eq(pn_batch_gather(&all.b, &x.job, sparse, from, example, n), PN_OK);
    ck_assert_uint_eq(all.b.n_unique[0], one.b.n_unique[0]);
    if (k > 1) {
        all.b.n_units = UNITS;
        all.b.unit_begin = malloc((UNITS + 1) * sizeof *all.b.unit_begin);
        for (size_t u = 0; u <= UNITS; u++) all.b.unit_begin[u] = (uint32_t)(k * u);
    }
    mark_idle(&all.b);
    all.rows = one.rows;
    all.drows = calloc(n_cells, sizeof(float));
    all.dp = calloc(x.padded, sizeof(float));
    const float clip = 0.7f, spread = k > 1 ? 1.2f : 0, *in[PN_MAX_TABLES] = {all.rows};
    float *out[PN_MAX_TABLES] = {all.drows}, *scores = malloc(n * sizeof *scores), *norms = malloc(UNITS * sizeof *norms);
    double loss, losses = 0, error = 0, *row_sum = calloc(n_cells, sizeof *row_sum), *sum = calloc(x.padded, sizeof *sum);
    ck_assert_int_eq(pn_net_step_clipped(x.net, &all.b, in, x.p, 1, clip, spread, out, all.dp, scores, norms, &loss), PN_OK);
    for (size_t u = 0; u < UNITS; u++) {
        struct pn_batch b;
        float score[2], norm, *drows = calloc(n_cells, sizeof *drows), *rows = calloc(n_cells, sizeof *rows), *dp = calloc(x.padded, sizeof *dp);
        double own;
        ck_assert_int_eq(pn_batch_gather(&b, &x.job, sparse, from + k * u, example + k * u, k), PN_OK);
        if (k > 1) {
            b.n_units = 1;
            b.unit_begin = calloc(2, sizeof *b.unit_begin);
            b.unit_begin[1] = (uint32_t)k;
        }
        mark_idle(&b);
        for (size_t i = 0; i < b.n_unique[0]; i++) value_of(b.unique[0][i], rows + i * x.dim, x.dim);
        const float *in_one[PN_MAX_TABLES] = {rows};
        float *out_one[PN_MAX_TABLES] = {drows};
        ck_assert_int_eq(pn_net_step_clipped(x.net, &b, in_one, x.p, 1, clip, spread, out_one, dp, score, &norm, &own), PN_OK);
        ck_assert_float_eq_tol(norm, norms[u], 1e-5f * norm);
        for (size_t e = 0; e < k; e++) ck_assert_float_eq_tol(score[e], scores[k * u + e], 1e-5f);
        for (size_t i = 0; i < x.padded; i++) sum[i] += (double)dp[i];
        for (size_t i = 0, at = 0; i < b.n_unique[0]; i++) {
            while (all.b.unique[0][at] != b.unique[0][i]) at++;
            for (size_t d = 0; d < x.dim; d++) row_sum[at * x.dim + d] += (double)drows[i * x.dim + d];
        }
        losses += own;
        pn_batch_free(&b);
        free(drows);
        free(rows);
        free(dp);
    }
    for (size_t i = 0; i < x.padded; i++) error += ((double)all.dp[i] - sum[i]) * ((double)all.dp[i] - sum[i]);
    for (size_t i = 0; i < n_cells; i++) error += ((double)all.drows[i] - row_sum[i]) * ((double)all.drows[i] - row_sum[i]);
    ck_assert_msg(sqrt(error) <= (double)clip * pn_job_roundoff(UNITS, (uint32_t)k, true), "%s: sums differ by %g of the clip", model, sqrt(error) / (double)clip);
    ck_assert_double_eq_tol(loss, losses, 1e-5 * losses);
    all.rows = NULL;
    close_side(&all);
    close_side(&one);
    free(scores);
    free(norms);
    free(row_sum);
    free(sum);
    close_setup(&x);
}
START_TEST(many_units_are_summed_in_pieces_as_one_by_one) {
    for (size_t k = 1; k <= 2; k++) {
        check_pieces("deepfm, hidden: [5, 4], norm: layer", k);
        check_pieces("lr", k);
    }
} END_TEST

START_TEST(a_unit_whose_gradient_is_no_number_is_as_if_it_were_not_there) {
    static const uint32_t each[ROWS + 1] = {0, 1, 2, 3, 4, 5, 6, 7}, users[] = {0, 3, 4, 7};
    for (int by_user = 0; by_user < 2; by_user++) {
        check_broken("dcn_v2, hidden: [5], cross: 2", 1e20f, by_user ? users : each, by_user ? 3 : ROWS);
        check_broken("deepfm, hidden: [5, 4], norm: layer", INFINITY, by_user ? users : each, by_user ? 3 : ROWS);
        check_broken("lr", INFINITY, by_user ? users : each, by_user ? 3 : ROWS);
        check_broken("dlrm, bottom: [4], hidden: [5, 4], interaction: both", NAN, by_user ? users : each, by_user ? 3 : ROWS);
    }
} END_TEST

static void check_both(const char *model) {
    static const uint32_t each[ROWS + 1] = {0, 1, 2, 3, 4, 5, 6, 7}, users[] = {0, 3, 4, 7}, everybody[] = {0, 7};
    check_clipping(model, 0.7f, 0, each, ROWS);
    check_clipping(model, 0.01f, 0, each, ROWS);
    check_clipping(model, 0.7f, 1.1f, each, ROWS); /* of one example there is no sum of norms to bound */
    check_clipping(model, 0.7f, 0, users, 3);
    check_clipping(model, 0.01f, 0, users, 3);
    check_clipping(model, 0.01f, 1.1f, users, 3);
    check_clipping(model, 0.7f, 0, everybody, 1); /* so many rows that the sum of outer products is made */
    check_clipping(model, 0.7f, 1.1f, everybody, 1);
}

START_TEST(each_unit_of_a_linear_model_is_clipped_by_its_own_norm) {
    check_both("lr");
    check_both("fm");
} END_TEST
START_TEST(rows_that_are_never_sent_are_no_part_of_a_norm) {
    some_idle = true;
    check_both("fm");
    check_both("deepfm, hidden: [5, 4], norm: layer");
    for (size_t k = 1; k <= 2; k++) check_pieces("lr", k);
    some_idle = false;
} END_TEST
START_TEST(a_weight_is_part_of_a_units_norm) {
    further = WEIGHTED;
    check_both("lr");
    check_both("deepfm, hidden: [5, 4]");
    further = "";
} END_TEST
START_TEST(each_unit_of_a_deep_model_is_clipped_by_its_own_norm) {
    check_both("wide_deep, hidden: [5, 4]");
    check_both("deepfm, hidden: [5, 4], norm: layer");
    check_both("dlrm, bottom: [4], hidden: [5, 4], interaction: both");
    check_both("dcn_v2, hidden: [5], cross: 2");
    check_both("dcn_v2, hidden: [4], cross: 2, structure: stacked");
} END_TEST
START_TEST(further_labels_and_a_teacher_are_part_of_an_examples_gradient) {
    check_both("dcn_v2, hidden: [4], cross: 1, heads: [{name: high, threshold: 5, weight: 0.5}, {name: positive, column: n, weight: 2}]");
    check_both("dlrm, hidden: [4], interaction: both, distill: {column: n, weight: 0.7, temperature: 2.5}");
} END_TEST
START_TEST(a_transformers_tokens_are_one_units_gradient) {
    check_both("dcn_v2, hidden: [4], cross: 1, sequence: {fields: [s, s2], candidate: u, blocks: 2, heads: 2, width: 4, feedForward: 3, recent: 2}");
    check_both("dcn_v2, hidden: [4], cross: 1, sequence: {fields: [s, s2], blocks: 1, heads: 2, width: 4, feedForward: 70, positions: true}"); /* wider than a strip */
    check_both("wide_deep, hidden: [4], sequence: {fields: [s, s2], blocks: 1, width: 6, heads: 1, recent: 1}");
} END_TEST
/* Two rows of one user, of which a thousandth is left: a millionth of the squares, of which rounding must not take a tenth, or more would pass than may. */
enum { WIDTH = 100 };
static float in[2 * WIDTH], out[2 * WIDTH];
static size_t touch_twice(const struct pn_net *net, const struct pn_block *b, const struct pn_pass *s, size_t e, struct pn_touch *list) {
    (void)net, (void)b, (void)s;
    list[0] = (struct pn_touch){.scale = 1, .g = out + e * WIDTH};
    return 1;
}
START_TEST(a_users_gradients_that_cancel_are_not_rounded_away) {
    static struct pn_net net;
    static struct pn_job job;
    static const struct pn_block_kind kind = {.touch = touch_twice};
    struct pn_rng g = {3};
    double cells = 0, row = 0, squares[3] = {0};
    for (size_t d = 0; d < WIDTH; d++) {
        in[d] = in[WIDTH + d] = (float)pn_rng_normal(&g);
        out[d] = (float)pn_rng_normal(&g);
        out[WIDTH + d] = -.999f * out[d];
    }
    for (size_t d = 0; d < WIDTH; d++) {
        const double left = (double)out[d] + (double)out[WIDTH + d];
        row += left * left;
        for (size_t i = 0; i < WIDTH; i++) cells += (double)in[i] * left * (double)in[i] * left;
    }
    job.i_dense_table = 1;
    net.job = &job;
    net.k = WIDTH;
    net.n_blocks = 1;
    net.values[1].x = in;
    net.values[2].g = out;
    net.blocks[0] = (struct pn_block){.kind = &kind, .in = {1}, .out = {2}, .from = WIDTH, .width = WIDTH};
    struct pn_batch b = {.n_examples = 2, .n_sparse = 1, .begin = (uint32_t[]){0, 1, 2}, .n_unique = {1}, .n_units = 1, .unit_begin = (uint32_t[]){0, 2}};
    const struct pn_pass s = {.batch = &b, .n = 2, .begin = b.begin, .n_tokens = 2};
    pn_norms_linear(&net, &net.blocks[0], &s, &squares[0]);
    ck_assert(pn_norms_rows(&net, &s, &squares[1]));
    pn_norms_positions(&net, &net.blocks[0], &s, &squares[2]);
    ck_assert_msg(fabs(squares[0] - cells) < 1e-6 * cells, "linear: %.9g, it is %.9g", squares[0], cells);
    ck_assert_msg(fabs(squares[1] - row) < 1e-6 * row, "rows: %.9g, it is %.9g", squares[1], row);
    ck_assert_msg(fabs(squares[2] - row) < 1e-6 * row, "positions: %.9g, it is %.9g", squares[2], row);
} END_TEST
START_TEST(a_model_that_mixes_examples_is_refused) {
    static struct pn_job job;
    struct pn_net *net;
    struct pn_error err;
    make_job(&job, "deepfm, hidden: [5, 4], norm: batch");
    ck_assert_int_eq(pn_net_open(&net, &job, 1, &err), PN_OK);
    ck_assert(!pn_net_separable(net));
    pn_net_close(net);
    pn_job_free(&job);
} END_TEST

int main(void) {
    Suite *s = suite_create("clipped");
    TCase *t = tcase_create("clipped");
    tcase_add_test(t, each_unit_of_a_linear_model_is_clipped_by_its_own_norm);
    tcase_add_test(t, rows_that_are_never_sent_are_no_part_of_a_norm);
    tcase_add_test(t, a_weight_is_part_of_a_units_norm);
    tcase_add_test(t, each_unit_of_a_deep_model_is_clipped_by_its_own_norm);
    tcase_add_test(t, further_labels_and_a_teacher_are_part_of_an_examples_gradient);
    tcase_add_test(t, a_transformers_tokens_are_one_units_gradient);
    tcase_add_test(t, a_unit_whose_gradient_is_no_number_is_as_if_it_were_not_there);
    tcase_add_test(t, many_units_are_summed_in_pieces_as_one_by_one);
    tcase_add_test(t, a_users_gradients_that_cancel_are_not_rounded_away);
    tcase_add_test(t, a_model_that_mixes_examples_is_refused);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
