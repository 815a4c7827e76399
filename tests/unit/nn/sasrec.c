/* SASRec: both losses against finite differences, and the places that it ranks at against a plain count. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/hash.h"
#include "nn/model.h"

#define ROWS 3
static const char *const names[] = {"history", "target", "negatives", "seen"};
static const char *const train[4][ROWS] = {{"1|2|3", "4", "2|5"}, {"2|3|4", "5", "5|6"}, {"7|8|6|1|7|9", "8|9", "7|3|3|1"}, {"", "", ""}};
static const char *const all[4][ROWS] = {{"1|2|3", "", "2|5"}, {"4", "5", "6"}, {"1|2|3|4|5|6|7|8|9", "", ""}, {"1|2|3", "", "2|5"}};
static const char *const own[4][ROWS] = {{"1|2|3", "4", "2|5"}, {"4", "5", "6"}, {"7|8|9", "6|7", "1|3|4|8"}, {"1|2|3", "4", "2|5"}};

struct world { struct pn_job job; struct pn_features *features; struct pn_net *net; struct pn_batch batch; size_t n_parameters, padded, n_cells; float *p, *dp, *rows, *drows, scores[ROWS]; };

static void open_world(struct world *w, const char *loss, const char *const cells[4][ROWS]) {
    char text[2000], joined[400];
    uint32_t offset[4 * ROWS], length[4 * ROWS];
    float labels[ROWS] = {1, 1, 1};
    size_t n = 0;
    struct pn_error err = {""};
    snprintf(text, sizeof text,
             "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data: {train: {format: sasrec, uri: /x, part: train, history: 4}}\n  features:\n"
             "    - {name: history, type: sequence, maxLength: 4, hash: {share: i}}\n    - {name: target, type: sequence, maxLength: 4, hash: {share: i}}\n"
             "    - {name: negatives, type: sequence, maxLength: 99, hash: {share: i}}\n    - {name: seen, type: sequence, maxLength: 99, hash: {share: i}}\n"
             "  model: {name: sasrec, embeddingDim: 4, sequence: {fields: [history], target: target, negatives: negatives, seen: seen, loss: %s, blocks: 1, heads: 2, dropout: 0.2}}\n", loss);
    ck_assert_msg(pn_job_parse(&w->job, text, strlen(text), "t", NULL, NULL, &err) == PN_OK, "%s", err.text);
    for (size_t c = 0; c < 4; c++)
        for (size_t i = 0; i < ROWS; i++) {
            offset[c * ROWS + i] = (uint32_t)n;
            length[c * ROWS + i] = (uint32_t)strlen(cells[c][i]);
            n += (size_t)snprintf(joined + n, sizeof joined - n, "%s", cells[c][i]);
        }
    const struct pn_raw raw = {ROWS, 4, names, joined, offset, length, labels, labels, NULL};
    uint64_t n_bad = 0;
    ck_assert_int_eq(pn_features_open(&w->features, &w->job, names, 4, &err), PN_OK);
    ck_assert_int_eq(pn_features_batch(w->features, &raw, &w->batch, &n_bad), PN_OK);
    ck_assert_int_eq(pn_net_open(&w->net, &w->job, 0, &err), PN_OK);
    w->n_parameters = pn_net_parameters(w->net);
    w->padded = (w->n_parameters + PN_DENSE_ROW - 1) / PN_DENSE_ROW * PN_DENSE_ROW;
    w->n_cells = w->batch.n_unique[0] * 4;
    w->p = calloc(w->padded, sizeof *w->p);
    w->dp = calloc(w->padded, sizeof *w->dp);
    w->rows = calloc(w->n_cells, sizeof *w->rows);
    w->drows = calloc(w->n_cells, sizeof *w->drows);
    pn_net_init(w->net, 3, w->p);
    struct pn_rng g = {5};
    for (size_t i = 0; i < w->n_parameters; i++) w->p[i] += (float)(0.2 * pn_rng_normal(&g));
    for (size_t i = 0; i < w->n_cells; i++) w->rows[i] = (float)(0.5 * pn_rng_normal(&g));
}
static void close_world(struct world *w) {
    free(w->p);
    free(w->dp);
    free(w->rows);
    free(w->drows);
    pn_net_close(w->net);
    pn_batch_free(&w->batch);
    pn_features_close(w->features);
    pn_job_free(&w->job);
}
static double step(struct world *w, float *drows, float *dp) {
    const float *in[PN_MAX_TABLES] = {w->rows};
    float *out[PN_MAX_TABLES] = {drows};
    double loss;
    ck_assert_int_eq(pn_net_step(w->net, &w->batch, in, w->p, 1, out, dp, w->scores, &loss), PN_OK);
    return loss / ROWS;
}

START_TEST(gradients_of_both_losses_are_those_of_finite_differences) {
    static struct world w;
    open_world(&w, _i == 0 ? "bce" : "softmax", train);
    step(&w, w.drows, w.dp);
    float *spare = calloc(w.n_cells + w.padded, sizeof *spare), *values[2] = {w.p, w.rows}, *gradients[2] = {w.dp, w.drows};
    const size_t counts[2] = {w.n_parameters, w.n_cells};
    for (int k = 0; k < 2; k++)
        for (size_t i = 0; i < counts[k]; i++) {
            const float x = values[k][i], h = 2e-3f;
            values[k][i] = x + h;
            const double up = step(&w, spare, spare + w.n_cells);
            values[k][i] = x - h;
            const double down = step(&w, spare, spare + w.n_cells), numeric = (up - down) / (2 * (double)h);
            values[k][i] = x;
            ck_assert_msg(fabs(numeric - (double)gradients[k][i]) < 3e-3 + 0.02 * fabs(numeric), "%s %zu: analytic %g, numeric %g", k ? "cell" : "parameter", i, (double)gradients[k][i], numeric);
        }
    free(spare);
    close_world(&w);
} END_TEST

START_TEST(a_place_counts_what_stands_before_it_and_leaves_out_what_was_had) {
    static struct world w;
    for (int wide = 0; wide < 2; wide++) {
        open_world(&w, "bce", wide ? all : own);
        const float *in[PN_MAX_TABLES] = {w.rows};
        ck_assert_int_eq(pn_net_forward(w.net, &w.batch, in, w.p, w.scores), PN_OK);
        const struct pn_place *p = pn_net_places(w.net);
        ck_assert_uint_eq(p[0].n_candidates, wide ? 5 : 3);
        ck_assert_uint_eq(p[2].n_candidates, wide ? 6 : 4);
        if (wide) { /* no history: nothing to rank by */
            ck_assert_uint_eq(p[1].n_candidates, 0);
            ck_assert(w.scores[1] == 0.5f);
        }
        struct pn_place first[ROWS];
        memcpy(first, p, sizeof first);
        const uint32_t target = w.batch.position[w.batch.begin[ROWS]];
        memset(w.rows + (size_t)target * 4, 0, 4 * sizeof *w.rows);
        ck_assert_int_eq(pn_net_forward(w.net, &w.batch, in, w.p, w.scores), PN_OK);
        ck_assert(fabsf(w.scores[0] - 0.5f) < 1e-6f); /* a row of zeros has the logit 0 */
        ck_assert_uint_le(pn_net_places(w.net)[0].rank, first[0].n_candidates);
        close_world(&w);
    }
    /* the same candidates by either way: the same place */
    static const char *const one[4][ROWS] = {{"1|2", "", ""}, {"4", "", ""}, {"3|5|6|7", "", ""}, {"1|2", "", ""}}, *const two[4][ROWS] = {{"1|2", "3", ""}, {"4", "2", ""}, {"3|5|6|7", "5", ""}, {"1|2", "3", ""}};
    uint32_t rank[2];
    for (int k = 0; k < 2; k++) {
        open_world(&w, "bce", k ? two : one);
        for (size_t i = 0; i < w.batch.n_unique[0]; i++)
            for (size_t d = 0; d < 4; d++) w.rows[i * 4 + d] = (float)sin((double)(w.batch.unique[0][i] % 1000) * (double)(d + 1)); /* by key: the batches have other rows */
        const float *in[PN_MAX_TABLES] = {w.rows};
        ck_assert_int_eq(pn_net_forward(w.net, &w.batch, in, w.p, w.scores), PN_OK);
        rank[k] = pn_net_places(w.net)[0].rank;
        ck_assert_uint_eq(pn_net_places(w.net)[0].n_candidates, 4);
        close_world(&w);
    }
    ck_assert_uint_eq(rank[0], rank[1]);
} END_TEST

int main(void) {
    Suite *s = suite_create("sasrec");
    TCase *t = tcase_create("sasrec");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, gradients_of_both_losses_are_those_of_finite_differences, 0, 2);
    tcase_add_test(t, a_place_counts_what_stands_before_it_and_leaves_out_what_was_had);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_set_fork_status(r, CK_NOFORK);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
