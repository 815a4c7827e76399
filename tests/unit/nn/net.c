#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/hash.h"
#include "nn/blocks.h"
#include "tests/unit/nn/small.h"

/* Every parameter and every row's cell: the analytic gradient against the difference of the mean loss. model: name and options. */
static void check_gradients(const char *model) {
    static struct pn_job job;
    struct raw r;
    struct pn_error err;
    make_raw(&r);
    make_job(&job, model);
    struct pn_features *f;
    struct pn_batch b;
    struct pn_net *net;
    uint64_t n_bad = 0;
    ck_assert_int_eq(pn_features_open(&f, &job, names, 3, &err), PN_OK);
    ck_assert(pn_features_need_statistics(f));
    pn_features_observe(f, &r.raw);
    pn_features_freeze(f);
    ck_assert_int_eq(pn_features_batch(f, &r.raw, &b, &n_bad), PN_OK);
    ck_assert_uint_eq(n_bad, 1); /* "oops" */
    ck_assert_int_eq(pn_net_open(&net, &job, 1, &err), PN_OK);
    const size_t n_parameters = pn_net_parameters(net), dim = job.tables[0].dim, n_cells = b.n_unique[0] * dim;
    const size_t padded = (n_parameters + PN_DENSE_ROW - 1) / PN_DENSE_ROW * PN_DENSE_ROW;
    float *p = calloc(padded, sizeof *p), *dp = calloc(padded, sizeof *dp), *rows = calloc(n_cells, sizeof *rows), *drows = calloc(n_cells, sizeof *drows),
          scores[ROWS];
    pn_net_init(net, 3, p);
    struct pn_rng g = {21}; /* with these numbers no unit of a hidden layer is so near its kink that the differences step over it */
    for (size_t i = 0; i < n_parameters; i++) p[i] += (float)(0.3 * pn_rng_normal(&g));
    for (size_t i = 0; i < n_cells; i++) rows[i] = (float)(0.5 * pn_rng_normal(&g));
    const float *in[PN_MAX_TABLES] = {rows};
    float *out[PN_MAX_TABLES] = {drows};
    double loss, up, down;
    ck_assert_int_eq(pn_net_step(net, &b, in, p, 1, out, dp, scores, &loss), PN_OK);
    float *cells_of[2] = {p, rows}, *gradients[2] = {dp, drows};
    size_t counts[2] = {n_parameters, n_cells}, checked = 0;
    for (int k = 0; k < 2; k++) {
        float *saved = malloc((counts[k] + 1) * sizeof *saved), *spare = calloc(n_cells + padded, sizeof *spare);
        memcpy(saved, gradients[k], counts[k] * sizeof *saved);
        float *other[PN_MAX_TABLES] = {spare};
        for (size_t i = 0; i < counts[k]; i++, checked++) {
            if (k == 0 && pn_net_row_key(net, i / PN_DENSE_ROW) & PN_STATE_KEY) break; /* state has no gradient */
            const float x = cells_of[k][i], h = 2e-3f;
            cells_of[k][i] = x + h;
            pn_net_step(net, &b, in, p, 1, other, spare + n_cells, scores, &up);
            cells_of[k][i] = x - h;
            pn_net_step(net, &b, in, p, 1, other, spare + n_cells, scores, &down);
            cells_of[k][i] = x;
            double numeric = (up - down) / (2 * (double)h) / ROWS;
            ck_assert_msg(fabs(numeric - (double)saved[i]) < 2e-3 + 0.02 * fabs(numeric), "%s, %s %zu: analytic %g, numeric %g", model, k ? "cell" : "parameter", i,
                          (double)saved[i], numeric);
        }
        free(saved);
        free(spare);
    }
    ck_assert_uint_gt(checked, 10);
    float again[ROWS];
    double twice;
    pn_net_step(net, &b, in, p, 1, out, dp, again, &twice);
    ck_assert(twice == loss); /* the same input, the same bits */
    free(p);
    free(dp);
    free(rows);
    free(drows);
    pn_net_close(net);
    pn_batch_free(&b);
    pn_features_close(f);
    pn_job_free(&job);
}

START_TEST(gradients_of_lr_are_those_of_finite_differences) { check_gradients("lr"); } END_TEST
START_TEST(gradients_of_fm_are_those_of_finite_differences) { check_gradients("fm"); } END_TEST
START_TEST(gradients_of_wide_and_deep_are_those_of_finite_differences) { check_gradients("wide_deep, hidden: [5, 4]"); } END_TEST
START_TEST(gradients_of_deepfm_are_those_of_finite_differences) { check_gradients("deepfm, hidden: [5, 4]"); } END_TEST
START_TEST(gradients_of_dcn_v2_are_those_of_finite_differences) {
    check_gradients("dcn_v2, hidden: [5], cross: 1");
    check_gradients("dcn_v2, hidden: [5, 4], cross: 3");
    check_gradients("dcn_v2, hidden: [4], cross: 2, structure: stacked");
} END_TEST
START_TEST(gradients_of_dlrm_are_those_of_finite_differences) {
    check_gradients("dlrm, bottom: [4], hidden: [6]");
    check_gradients("dlrm, bottom: [4], hidden: [5, 4], interaction: cat");
    check_gradients("dlrm, hidden: [5], interaction: both");
} END_TEST
START_TEST(gradients_go_through_dropout_and_norms) { /* the mask is a function of the step's seed: it stays while a cell is moved */
    check_gradients("deepfm, hidden: [6, 5], dropout: 0.3, embeddingDropout: 0.2");
    check_gradients("fm, embeddingL2: 0.7");
    check_gradients("wide_deep, hidden: [7, 5], norm: layer");
    check_gradients("dlrm, hidden: [6], norm: batch");
    check_gradients("deepfm, hidden: [7, 5], norm: batch, dropout: 0.2");
    check_gradients("dcn_v2, hidden: [6], norm: layer, dropout: 0.3, embeddingDropout: 0.3");
} END_TEST

START_TEST(gradients_of_further_labels_and_of_a_teacher) {
    check_gradients("dcn_v2, hidden: [4], cross: 1, heads: [{name: high, threshold: 5, weight: 0.5}, {name: positive, column: n, weight: 2}]");
    check_gradients("deepfm, hidden: [4], heads: [{name: high, threshold: 5}]");
    check_gradients("dlrm, hidden: [4], interaction: both, distill: {column: n, weight: 0.7, temperature: 2.5}");
} END_TEST
START_TEST(gradients_of_weighted_values_are_those_of_finite_differences) {
    further = WEIGHTED;
    check_gradients("lr");
    check_gradients("fm");
    check_gradients("wide_deep, hidden: [6, 4], norm: layer");
    further = "";
} END_TEST

/* All but the weighted field have rows of zeros. */
START_TEST(a_weighted_list_is_the_sum_of_its_rows_times_their_weights) {
    static const float wanted[] = {0.5f, 1, 1, 1, -2, 1, 1, 0, 3, 1, 1, 1};
    static struct pn_job job;
    struct raw r;
    struct pn_error err;
    struct pn_features *f;
    struct pn_batch b, again;
    struct pn_net *net;
    uint64_t n_bad = 0, x, y;
    float scores[ROWS];
    further = WEIGHTED;
    make_raw(&r);
    make_job(&job, "lr");
    further = "";
    ck_assert_int_eq(pn_features_open(&f, &job, names, 3, &err), PN_OK);
    pn_features_freeze(f);
    ck_assert_int_eq(pn_features_batch(f, &r.raw, &b, &n_bad), PN_OK);
    ck_assert(pn_field_value_key(&job.fields[6], "x", 1, &x) && pn_field_value_key(&job.fields[6], "y", 1, &y));
    const uint32_t *begin = b.begin + 5 * ROWS; /* the sixth keyed field */
    ck_assert_uint_eq(begin[ROWS] - begin[0], sizeof wanted / sizeof *wanted);
    ck_assert_mem_eq(b.weights + begin[0], wanted, sizeof wanted);
    for (uint32_t i = 0; i < begin[0]; i++) ck_assert(b.weights[i] == 1);
    ck_assert(b.keys[begin[0]] == x && b.keys[begin[0] + 1] == y && b.keys[begin[2]] == x && b.keys[begin[2] + 1] == y);
    ck_assert_int_eq(pn_net_open(&net, &job, 1, &err), PN_OK);
    float *p = calloc(PN_DENSE_ROW, sizeof *p), *rows = calloc(b.n_unique[0], sizeof *rows), sum[ROWS] = {0};
    struct pn_rng g = {5};
    for (uint32_t i = begin[0]; i < begin[ROWS]; i++)
        if (rows[b.position[i]] == 0) rows[b.position[i]] = (float)pn_rng_normal(&g);
    for (size_t e = 0; e < ROWS; e++)
        for (uint32_t i = begin[e]; i < begin[e + 1]; i++) sum[e] += wanted[i - begin[0]] * rows[b.position[i]];
    const float *in[PN_MAX_TABLES] = {rows};
    ck_assert_int_eq(pn_net_forward(net, &b, in, p, scores), PN_OK);
    for (size_t e = 0; e < ROWS; e++) ck_assert_msg(fabsf(pn_net_logits(net)[e] - 1.5f * sum[e]) < 1e-5f, "row %zu: %g, %g", e, (double)pn_net_logits(net)[e], (double)(1.5f * sum[e]));
    /* and they go along with their examples */
    size_t sparse[PN_MAX_FIELDS];
    pn_batch_fields(&job, sparse);
    ck_assert_int_eq(pn_batch_gather(&again, &job, sparse, (const struct pn_batch *const[]){&b, &b}, (uint32_t[]){4, 2}, 2), PN_OK);
    ck_assert_uint_eq(again.begin[12] - again.begin[10], 5);
    ck_assert_mem_eq(again.weights + again.begin[10], ((const float[]){3, 1, -2, 1, 1}), 5 * sizeof(float));
    pn_batch_free(&again);
    pn_batch_free(&b);
    pn_net_close(net);
    free(p);
    free(rows);
    pn_features_close(f);
    pn_job_free(&job);
} END_TEST

START_TEST(a_value_whose_weight_is_no_number_is_left_out_and_counted) {
    static const char *const columns[] = {"g"};
    static const char text[] = "a:|b:one|c:1e39|:2|d:0|e:f:-1.5"; /* an empty weight, a word, no float, no value; nothing wrong, but of weight 0; the last ':' counts */
    static struct pn_job job;
    struct pn_error err = {""};
    struct pn_features *f;
    struct pn_batch b;
    uint64_t n_bad = 0, key;
    const char *job_text = "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data: {train: {format: csv, uri: /x, label: y}}\n  features:\n"
                           "    - {name: g, type: multi, weighted: true}\n  model: {name: lr}\n";
    ck_assert_msg(pn_job_parse(&job, job_text, strlen(job_text), "t", NULL, NULL, &err) == PN_OK, "%s", err.text);
    ck_assert_int_eq(pn_features_open(&f, &job, columns, 1, &err), PN_OK);
    ck_assert_int_eq(pn_features_batch(f, &(struct pn_raw){1, 1, columns, text, (uint32_t[]){0}, (uint32_t[]){sizeof text - 1}, NULL, NULL, NULL}, &b, &n_bad), PN_OK);
    ck_assert(pn_field_value_key(&job.fields[0], "e:f", 3, &key));
    ck_assert(b.n_keys == 1 && b.keys[0] == key && b.weights[0] == -1.5f);
    ck_assert_uint_eq(n_bad, 4);
    pn_batch_free(&b);
    pn_features_close(f);
    pn_job_free(&job);
} END_TEST

START_TEST(a_vocabulary_counts_values_without_their_weights) {
    static struct pn_job job;
    struct raw r;
    struct pn_error err = {""};
    struct pn_features *f;
    size_t n = 0;
    char name[64];
    further = "    - {name: w, column: g, type: multi, weighted: true, vocabulary: {minCount: 1}}\n";
    make_raw(&r);
    make_job(&job, "lr");
    further = "";
    ck_assert_int_eq(pn_features_open(&f, &job, names, 3, &err), PN_OK);
    pn_features_observe(f, &r.raw);
    ck_assert_msg(pn_features_train(f, &err) == PN_OK, "%s", err.text);
    const char *text = pn_features_file(f, 6, &n, name);
    ck_assert_msg(n == 6 && memcmp(text, "x\nz\ny\n", 6) == 0, "%.*s", (int)n, text);
    pn_features_close(f);
    pn_job_free(&job);
} END_TEST

START_TEST(gradients_go_through_a_transformer_over_sequences) {
    check_gradients("dcn_v2, hidden: [4], cross: 1, sequence: {fields: [s, s2], candidate: u, blocks: 2, heads: 2, width: 4, feedForward: 3, recent: 2}");
    check_gradients("deepfm, hidden: [4], sequence: {fields: [s], blocks: 1, width: 3, dropout: 0.3, positions: false}");
    check_gradients("wide_deep, hidden: [4], sequence: {fields: [s, s2], blocks: 1, width: 6, heads: 1, recent: 1}");
} END_TEST

/* A small function against finite differences of its inputs: the blocks one by one, away from the models. */
struct probe { size_t n_in, n_out; void (*run)(const float *in, float *out); void (*back)(const float *in, const float *g, float *din); };
static void check_block(const struct probe *b) {
    float in[128], din[128] = {0}, g[64], up[64], down[64];
    struct pn_rng r = {b->n_in};
    for (size_t i = 0; i < b->n_in; i++) in[i] = (float)pn_rng_normal(&r);
    for (size_t i = 0; i < b->n_out; i++) g[i] = (float)pn_rng_normal(&r);
    b->back(in, g, din);
    for (size_t i = 0; i < b->n_in; i++) {
        const float x = in[i], h = 1e-2f;
        double numeric = 0;
        in[i] = x + h;
        b->run(in, up);
        in[i] = x - h;
        b->run(in, down);
        in[i] = x;
        for (size_t k = 0; k < b->n_out; k++) numeric += (double)g[k] * ((double)up[k] - (double)down[k]) / (2 * (double)h);
        ck_assert_msg(fabs(numeric - (double)din[i]) < 5e-3 * (1 + fabs(numeric)), "input %zu: analytic %g, numeric %g", i, (double)din[i], numeric);
    }
}

/* cross: in = x0 [2*3], x [2*3], W [9], b [3]; dot: in = [2 examples * 4 vectors * 3]; norm: in = [2*5], scale [5], shift [5]; fm: in = [2 * 3 * 4]. */
static void run_cross(const float *in, float *out) {
    float product[6];
    pn_cross_forward(in, in + 6, 2, 3, in + 12, in + 21, product, out);
}
static void back_cross(const float *in, const float *g, float *din) {
    float product[6], out[6], scratch[6];
    pn_cross_forward(in, in + 6, 2, 3, in + 12, in + 21, product, out);
    pn_cross_backward(in, in + 6, product, g, 2, 3, in + 12, scratch, din + 12, din + 21, din, din + 6);
}
static void run_dot(const float *in, float *out) { pn_dot_forward(in, 2, 4, 3, out); }
static void back_dot(const float *in, const float *g, float *din) { pn_dot_backward(in, g, 2, 4, 3, din); }
static void run_norm(const float *in, float *out) {
    float inverse[2], normal[10];
    pn_norm_forward(in, 2, 5, in + 10, in + 15, false, inverse, normal, out);
}
static void back_norm(const float *in, const float *g, float *din) {
    float inverse[2], normal[10], out[10], copy[10];
    pn_norm_forward(in, 2, 5, in + 10, in + 15, false, inverse, normal, out);
    memcpy(copy, g, sizeof copy);
    pn_norm_backward(out, inverse, normal, 2, 5, in + 10, false, copy, din + 10, din + 15, din);
}
static void run_fm(const float *in, float *out) {
    float sums[8];
    pn_fm_forward(in, 2, 3, 4, sums, out);
}
static void back_fm(const float *in, const float *g, float *din) {
    float sums[8], out[2];
    pn_fm_forward(in, 2, 3, 4, sums, out);
    pn_fm_backward(in, sums, g, 2, 3, 4, din);
}
static void run_linear(const float *in, float *out) { pn_linear_forward(in, 2, 3, 4, in + 6, in + 18, false, out); }
static void back_linear(const float *in, const float *g, float *din) {
    float copy[8];
    memcpy(copy, g, sizeof copy);
    pn_linear_backward(in, NULL, 2, 3, 4, in + 6, false, copy, din + 6, din + 18, din, true);
}
/* in: qkv of 5 tokens (examples of 2, 0 and 3) of width 4 with 2 heads. */
static const uint32_t attended[] = {7, 9, 9, 12};
static void run_attention(const float *in, float *out) {
    float weights[5 * 2 * 3];
    pn_attention_forward(in, attended, 3, 4, 2, 3, false, weights, out);
}
static void run_causal(const float *in, float *out) {
    float weights[5 * 2 * 3];
    pn_attention_forward(in, attended, 3, 4, 2, 3, true, weights, out);
}
static void back_attention(const float *in, const float *g, float *din) {
    float weights[5 * 2 * 3], out[20], scratch[9];
    pn_attention_forward(in, attended, 3, 4, 2, 3, false, weights, out);
    pn_attention_backward(in, weights, g, attended, 3, 4, 2, 3, false, scratch, din);
}
static void back_causal(const float *in, const float *g, float *din) {
    float weights[5 * 2 * 3], out[20], scratch[9];
    pn_attention_forward(in, attended, 3, 4, 2, 3, true, weights, out);
    pn_attention_backward(in, weights, g, attended, 3, 4, 2, 3, true, scratch, din);
}
START_TEST(causal_attention_sees_no_later_token) {
    float in[60], out[20], again[20];
    struct pn_rng r = {4};
    for (size_t i = 0; i < 60; i++) in[i] = (float)pn_rng_normal(&r);
    run_causal(in, out);
    for (size_t i = 48; i < 60; i++) in[i] += 1; /* the last token of the last example */
    run_causal(in, again);
    ck_assert_mem_eq(out, again, 16 * sizeof *out);
    ck_assert_mem_ne(out + 16, again + 16, 4 * sizeof *out);
} END_TEST
START_TEST(gradients_of_each_block_are_those_of_finite_differences) {
    static const struct probe blocks[] = {{24, 6, run_cross, back_cross}, {24, 12, run_dot, back_dot}, {20, 10, run_norm, back_norm}, {24, 2, run_fm, back_fm}, {22, 8, run_linear, back_linear},
                                          {60, 20, run_attention, back_attention}, {60, 20, run_causal, back_causal}};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) check_block(&blocks[i]);
} END_TEST

START_TEST(auc_is_the_share_of_ordered_pairs_with_ties_half) {
    struct pn_rng g = {11};
    for (int round = 0; round < 200; round++) {
        float s[60], y[60];
        size_t n = 2 + pn_rng_next(&g) % 58;
        double pairs = 0, right = 0;
        for (size_t i = 0; i < n; i++) {
            s[i] = (float)(pn_rng_next(&g) % 7);
            y[i] = (float)(pn_rng_next(&g) % 2);
        }
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < n; j++)
                if (y[i] > 0.5f && y[j] < 0.5f) {
                    pairs++;
                    right += s[i] > s[j] ? 1 : s[i] == s[j] ? 0.5 : 0;
                }
        double auc = pn_auc(s, y, n);
        ck_assert(pairs == 0 ? isnan(auc) : fabs(auc - right / pairs) < 1e-12);
    }
} END_TEST

START_TEST(features_are_the_same_each_time_and_missing_values_have_keys_of_their_own) {
    static struct pn_job job;
    struct raw r;
    struct pn_error err;
    struct pn_features *f, *g;
    struct pn_batch a, b;
    uint64_t n_bad = 0;
    make_raw(&r);
    make_job(&job, "deepfm");
    ck_assert_int_eq(pn_features_open(&f, &job, names, 3, &err), PN_OK);
    pn_features_observe(f, &r.raw);
    pn_features_freeze(f);
    char *statistics = pn_features_statistics(f);
    ck_assert_int_eq(pn_features_open(&g, &job, names, 3, &err), PN_OK);
    ck_assert_int_eq(pn_features_set_statistics(g, statistics, &err), PN_OK);
    pn_features_batch(f, &r.raw, &a, &n_bad);
    pn_features_batch(g, &r.raw, &b, &n_bad);
    ck_assert_uint_eq(a.n_keys, b.n_keys);
    ck_assert_mem_eq(a.keys, b.keys, a.n_keys * sizeof *a.keys);
    ck_assert_mem_eq(a.dense, b.dense, ROWS * sizeof *a.dense);
    for (size_t k = 0; k < a.n_keys; k++) ck_assert_uint_eq(a.unique[0][a.position[k]], a.keys[k]);
    for (size_t k = 1; k < a.n_unique[0]; k++) ck_assert_uint_gt(pn_mix64(a.unique[0][k]), pn_mix64(a.unique[0][k - 1]));
    ck_assert_uint_ne(a.keys[4], a.keys[0]); /* row 4 has no u */
    ck_assert_uint_eq(a.keys[0], a.keys[2]);
    struct pn_features *none;
    ck_assert_int_eq(pn_features_open(&none, &job, names, 2, &err), PN_INVALID);
    ck_assert_ptr_nonnull(strstr(err.text, "\"n\""));
    free(statistics);
    pn_batch_free(&a);
    pn_batch_free(&b);
    pn_features_close(f);
    pn_features_close(g);
    pn_job_free(&job);
} END_TEST

int main(void) {
    Suite *s = suite_create("nn");
    TCase *t = tcase_create("nn");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, gradients_of_lr_are_those_of_finite_differences);
    tcase_add_test(t, gradients_of_fm_are_those_of_finite_differences);
    tcase_add_test(t, gradients_of_wide_and_deep_are_those_of_finite_differences);
    tcase_add_test(t, gradients_of_deepfm_are_those_of_finite_differences);
    tcase_add_test(t, gradients_of_dcn_v2_are_those_of_finite_differences);
    tcase_add_test(t, gradients_of_dlrm_are_those_of_finite_differences);
    tcase_add_test(t, gradients_go_through_dropout_and_norms);
    tcase_add_test(t, gradients_of_further_labels_and_of_a_teacher);
    tcase_add_test(t, gradients_go_through_a_transformer_over_sequences);
    tcase_add_test(t, gradients_of_weighted_values_are_those_of_finite_differences);
    tcase_add_test(t, a_weighted_list_is_the_sum_of_its_rows_times_their_weights);
    tcase_add_test(t, a_value_whose_weight_is_no_number_is_left_out_and_counted);
    tcase_add_test(t, a_vocabulary_counts_values_without_their_weights);
    tcase_add_test(t, gradients_of_each_block_are_those_of_finite_differences);
    tcase_add_test(t, causal_attention_sees_no_later_token);
    tcase_add_test(t, auc_is_the_share_of_ordered_pairs_with_ties_half);
    tcase_add_test(t, features_are_the_same_each_time_and_missing_values_have_keys_of_their_own);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_set_fork_status(r, CK_NOFORK);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
