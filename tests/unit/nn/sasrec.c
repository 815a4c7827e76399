/* SASRec: both losses against finite differences, and the places that it ranks at against a plain count. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/hash.h"
#include "nn/model.h"

#define ROWS 3
enum { MOST_ROWS = 300, MOST_CELL = 140 };
static const char *const names[] = {"history", "target", "negatives", "seen"};
static const char *const train[4][ROWS] = {{"1|2|3", "4", "2|5"}, {"2|3|4", "5", "5|6"}, {"7|8|6|1|7|9", "8|9", "7|3|3|1"}, {"", "", ""}};
static const char *const all[4][ROWS] = {{"1|2|3", "", "2|5"}, {"4", "5", "6"}, {"1|2|3|4|5|6|7|8|9", "", ""}, {"1|2|3", "", "2|5"}};
static const char *const own[4][ROWS] = {{"1|2|3", "4", "2|5"}, {"4", "5", "6"}, {"7|8|9", "6|7", "1|3|4|8"}, {"1|2|3", "4", "2|5"}};

struct world { struct pn_job job; struct pn_features *features; struct pn_net *net; struct pn_batch batch; size_t n_parameters, padded, n_cells; float *p, *dp, *rows, *drows, scores[MOST_ROWS]; };

static void open_world(struct world *w, const char *loss, size_t n_rows, const char *const cells[4][n_rows]) {
    static char joined[4 * MOST_ROWS * MOST_CELL];
    static uint32_t offset[4 * MOST_ROWS], length[4 * MOST_ROWS];
    static float labels[MOST_ROWS];
    char text[2000];
    size_t n = 0;
    struct pn_error err = {""};
    snprintf(text, sizeof text,
             "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data: {train: {format: sasrec, uri: /x, part: train, history: 4}}\n  features:\n"
             "    - {name: history, type: sequence, maxLength: 4, hash: {share: i}}\n    - {name: target, type: sequence, maxLength: 4, hash: {share: i}}\n"
             "    - {name: negatives, type: sequence, maxLength: 99, hash: {share: i}}\n    - {name: seen, type: sequence, maxLength: 99, hash: {share: i}}\n"
             "  model: {name: sasrec, embeddingDim: 4, sequence: {fields: [history], target: target, negatives: negatives, seen: seen, loss: %s, blocks: 1, heads: 2, dropout: 0.2}}\n", loss);
    ck_assert_msg(pn_job_parse(&w->job, text, strlen(text), "t", NULL, NULL, &err) == PN_OK, "%s", err.text);
    for (size_t c = 0; c < 4; c++)
        for (size_t i = 0; i < n_rows; i++) {
            labels[i] = 1;
            offset[c * n_rows + i] = (uint32_t)n;
            length[c * n_rows + i] = (uint32_t)strlen(cells[c][i]);
            n += (size_t)snprintf(joined + n, sizeof joined - n, "%s", cells[c][i]);
        }
    const struct pn_raw raw = {n_rows, 4, names, joined, offset, length, labels, NULL, labels};
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
    open_world(&w, _i == 0 ? "bce" : "softmax", ROWS, train);
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
        open_world(&w, "bce", ROWS, wide ? all : own);
        const float *in[PN_MAX_TABLES] = {w.rows};
        ck_assert_int_eq(pn_net_forward(w.net, &w.batch, in, w.p, w.scores), PN_OK);
        const struct pn_place *p = pn_net_places(w.net);
        ck_assert_uint_eq(p[0].n_candidates, wide ? 5 : 3);
        ck_assert_uint_eq(p[2].n_candidates, wide ? 6 : 4);
        ck_assert(wide ? p[0].loss == -1 && p[2].loss == -1 : p[0].loss > 0 && p[2].loss > 0); /* over everybody's candidates it is not measured */
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
        open_world(&w, "bce", ROWS, k ? two : one);
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

/* ---- places again, by a plain count ---- */
enum { ITEMS = 24, TIED = 6, PROBE = ITEMS + 1, K = 4, LIST = 40 }; /* items 1 .. ITEMS, of which the first TIED have three rows among them; PROBE is no candidate */
struct list { int at[LIST]; size_t n; };
/* What random rows hold: wide: the candidates of the first are everybody's, but for what a row has had; else each has its own, some of them twice. */
struct drawn { struct list list[4][MOST_ROWS]; char text[4][MOST_ROWS][MOST_CELL]; const char *cells[4 * MOST_ROWS]; };

static bool holds(const struct list *l, int item) {
    for (size_t i = 0; i < l->n; i++)
        if (l->at[i] == item) return true;
    return false;
}

static void draw_rows(struct drawn *d, struct pn_rng *g, size_t n_rows, bool wide) {
    memset(d, 0, sizeof *d);
    for (size_t e = 0; e < n_rows; e++) {
        const size_t counts[4] = {pn_rng_next(g) % 5, pn_rng_next(g) % 4, wide ? (e == 0 ? LIST : 0) : 1 + pn_rng_next(g) % 19, wide ? pn_rng_next(g) % 12 : 0};
        for (size_t c = 0; c < 4; c++)
            for (struct list *l = &d->list[c][e]; l->n < counts[c]; l->n++) {
                l->at[l->n] = 1 + (int)(pn_rng_next(g) % ITEMS);
                if (wide && c == 2 && l->at[l->n] % 5 == 0) l->at[l->n] = 1; /* one item in five is nobody's candidate, though it may be a target */
            }
        if (e == 0) d->list[3][e].at[d->list[3][e].n++] = PROBE;
        for (size_t c = 0; c < 4; c++) {
            const struct list *l = &d->list[c][e];
            d->cells[c * n_rows + e] = d->text[c][e];
            for (size_t i = 0, at = 0; i < l->n; i++) at += (size_t)snprintf(d->text[c][e] + at, MOST_CELL - at, "%s%d", i > 0 ? "|" : "", l->at[i]);
        }
    }
}

/* Where an item's row stands; NULL: nobody names it. */
static float *row_of(const struct world *w, const struct drawn *d, size_t n_rows, int item) {
    for (size_t c = 0; c < 4; c++)
        for (size_t e = 0; e < n_rows; e++)
            for (size_t i = 0; i < d->list[c][e].n; i++)
                if (d->list[c][e].at[i] == item) return w->rows + (size_t)w->batch.position[w->batch.begin[c * n_rows + e] + i] * K;
    return NULL;
}

/* The encoder's vectors of the last places: with a row of zeros and one 1 as everybody's target, the scores say one number of each. */
static void vectors_of(struct world *w, size_t n_rows, float *probe, float *v) {
    const float *in[PN_MAX_TABLES] = {w->rows};
    const uint32_t *begin = w->batch.begin + n_rows, there = (uint32_t)(probe - w->rows) / K;
    uint32_t *kept = malloc(w->batch.n_keys * sizeof *kept);
    memcpy(kept, w->batch.position, w->batch.n_keys * sizeof *kept);
    for (size_t e = 0; e < n_rows; e++)
        if (begin[e + 1] > begin[e]) w->batch.position[begin[e + 1] - 1] = there;
    for (size_t k = 0; k < K; k++) {
        for (size_t i = 0; i < K; i++) probe[i] = i == k;
        ck_assert_int_eq(pn_net_forward(w->net, &w->batch, in, w->p, w->scores), PN_OK);
        for (size_t e = 0; e < n_rows; e++) v[e * K + k] = logf(w->scores[e] / (1 - w->scores[e]));
    }
    memcpy(w->batch.position, kept, w->batch.n_keys * sizeof *kept);
    free(kept);
}

static double logit(const float *v, const float *row) {
    double sum = 0;
    for (size_t k = 0; k < K; k++) sum += (double)v[k] * (double)row[k];
    return sum;
}

/* Every row's place, score and, among candidates of its own, loss. */
START_TEST(places_are_those_of_a_plain_count_over_all_logits) {
    static struct world w;
    static struct drawn d;
    static float v[MOST_ROWS * K];
    const bool wide = _i % 2;
    const size_t n_rows = wide ? MOST_ROWS : 200; /* wide: more than are held at once */
    struct pn_rng g = {(uint64_t)_i};
    size_t n_placed = 0, n_tied = 0, n_outside = 0, n_had = 0;
    draw_rows(&d, &g, n_rows, wide);
    open_world(&w, "bce", n_rows, (const char *const(*)[n_rows])d.cells);
    for (int item = 1; item <= TIED; item++) { /* one number each, a power of two: its product is exact, in whatever order it is summed */
        float *row = row_of(&w, &d, n_rows, item);
        for (size_t k = 0; row != NULL && k < K; k++) row[k] = k == 0 ? (float)(1 << item % 3) : 0;
    }
    vectors_of(&w, n_rows, row_of(&w, &d, n_rows, PROBE), v);
    const float *in[PN_MAX_TABLES] = {w.rows};
    ck_assert_int_eq(pn_net_forward(w.net, &w.batch, in, w.p, w.scores), PN_OK);
    for (size_t e = 0; e < n_rows; e++) {
        const struct pn_place got = pn_net_places(w.net)[e];
        const struct list *targets = &d.list[1][e], *candidates = &d.list[2][wide ? 0 : e], *seen = &d.list[3][e];
        if (targets->n == 0 || d.list[0][e].n == 0) {
            ck_assert(got.rank == 0 && got.n_candidates == 0 && w.scores[e] == 0.5f);
            continue;
        }
        const int target = targets->at[targets->n - 1];
        const double z = logit(v + e * K, row_of(&w, &d, n_rows, target));
        uint32_t rank = 0, n = 0;
        double sum = 1;
        for (size_t i = 0; i < candidates->n; i++) {
            const int item = candidates->at[i];
            bool again = false;
            for (size_t j = 0; wide && j < i; j++) again = again || candidates->at[j] == item;
            n_had += wide && !again && item != target && holds(seen, item);
            if (again || item == target || (wide && holds(seen, item))) continue;
            const double other = logit(v + e * K, row_of(&w, &d, n_rows, item));
            n++;
            rank += other >= z;
            sum += exp(other - z);
            n_tied += other == z;
            ck_assert_msg(other == z || fabs(other - z) > 3e-6, "row %zu: items %d and %d are too near to be told apart", e, target, item);
        }
        ck_assert_msg(got.rank == rank && got.n_candidates == n, "row %zu: place %u of %u, wanted %u of %u", e, got.rank, got.n_candidates, rank, n);
        ck_assert_float_eq_tol(w.scores[e], (float)(1 / (1 + exp(-z))), 1e-5f);
        if (!wide) ck_assert_double_eq_tol((double)got.loss, log(sum), 1e-4);
        n_placed++;
        n_outside += !holds(candidates, target);
    }
    ck_assert(n_placed > n_rows / 3 && n_tied > 5 && n_outside > 5 && n_outside < n_placed - 5 && (n_had > 50) == wide); /* each case was there */
    close_world(&w);
} END_TEST

START_TEST(a_row_without_candidates_has_no_place_and_takes_none_of_others) {
    static const char *const second[4][ROWS] = {{"1|2|3", "4", "2|5"}, {"4", "5", "6"}, {"7|8|9", "", "1|3|4|8"}, {"", "", ""}}, *const nobody[4][ROWS] = {{"1|2|3", "4", "2|5"}, {"4", "5", "6"}, {"", "", ""}, {"", "", ""}};
    static struct world w;
    for (int k = 0; k < 2; k++) {
        open_world(&w, "bce", ROWS, k == 0 ? second : nobody);
        const float *in[PN_MAX_TABLES] = {w.rows};
        ck_assert_int_eq(pn_net_forward(w.net, &w.batch, in, w.p, w.scores), PN_OK);
        const struct pn_place *p = pn_net_places(w.net);
        ck_assert_uint_eq(p[0].n_candidates, k == 0 ? 3 : 0);
        ck_assert_uint_eq(p[1].n_candidates, 0);
        ck_assert_uint_eq(p[2].n_candidates, k == 0 ? 4 : 0);
        ck_assert((p[0].loss > 0) == (k == 0) && p[1].rank == 0 && !isnan(p[1].loss));
        close_world(&w);
    }
} END_TEST

START_TEST(the_last_row_alone_is_ranked_as_those_before_it) {
    static const char *const two[4][2] = {{"1|2", "3"}, {"4", "2"}, {"3|5|5", "5"}, {"1|2", "3"}};
    static struct world w;
    struct pn_batch one;
    size_t sparse[PN_MAX_FIELDS];
    open_world(&w, "bce", 2, two);
    pn_batch_fields(&w.job, sparse);
    ck_assert_int_eq(pn_batch_gather(&one, &w.job, sparse, &(const struct pn_batch *){&w.batch}, (uint32_t[]){0}, 1), PN_OK);
    const struct pn_batch *const batches[] = {&w.batch, &one};
    const float *in[PN_MAX_TABLES] = {w.rows};
    for (int k = 0; k < 2; k++) {
        ck_assert_int_eq(pn_net_forward(w.net, batches[k], in, w.p, w.scores), PN_OK);
        const struct pn_place p = pn_net_places(w.net)[0];
        ck_assert_uint_eq(p.n_candidates, 3); /* its own, of which one comes twice */
        ck_assert(p.loss > 0);
    }
    pn_batch_free(&one);
    close_world(&w);
} END_TEST

START_TEST(the_place_of_what_is_no_number_is_the_last_and_is_told) {
    static struct world w;
    const float none = ((float[]){NAN, INFINITY, -INFINITY})[_i];
    for (int wide = 0; wide < 2; wide++)
        for (int whose = 0; whose < 2; whose++) { /* the target's row, or a candidate's (7, of the first and the last row) */
            open_world(&w, "bce", ROWS, wide ? all : own);
            const uint32_t *begin = w.batch.begin + (size_t)(whose + 1) * ROWS; /* fields: history, target, negatives */
            w.rows[(size_t)w.batch.position[begin[0]] * 4] = none;
            const float *in[PN_MAX_TABLES] = {w.rows};
            ck_assert_int_eq(pn_net_forward(w.net, &w.batch, in, w.p, w.scores), PN_OK);
            const struct pn_place *p = pn_net_places(w.net);
            ck_assert(isnan(p[0].loss));
            if (isnan(none) && whose == 0) ck_assert(isnan(w.scores[0]) && p[0].rank == p[0].n_candidates);
            else if (isnan(none)) ck_assert(p[0].rank >= 1);
            close_world(&w);
        }
} END_TEST

int main(void) {
    Suite *s = suite_create("sasrec");
    TCase *t = tcase_create("sasrec");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, gradients_of_both_losses_are_those_of_finite_differences, 0, 2);
    tcase_add_loop_test(t, places_are_those_of_a_plain_count_over_all_logits, 0, 8);
    tcase_add_test(t, a_place_counts_what_stands_before_it_and_leaves_out_what_was_had);
    tcase_add_test(t, a_row_without_candidates_has_no_place_and_takes_none_of_others);
    tcase_add_test(t, the_last_row_alone_is_ranked_as_those_before_it);
    tcase_add_loop_test(t, the_place_of_what_is_no_number_is_the_last_and_is_told, 0, 3);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_set_fork_status(r, CK_NOFORK);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
