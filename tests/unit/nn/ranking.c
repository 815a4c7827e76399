/* Models of two vectors and losses over groups: each against finite differences. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/hash.h"
#include "nn/blocks.h"

#define ROWS 9
static const char *const names[] = {"user", "item"};
/* Three groups: a positive row and two behind it. Items come twice, also as positive rows. */
static const char *const cells[2][ROWS] = {{"1", "1", "1", "2", "2", "2", "1", "1", "1"}, {"7", "8", "9", "8", "7", "6", "5", "9", "6"}};
static const float labels[ROWS] = {1, 0, 0, 1, 0, 0, 1, 0, 0}, log_q[ROWS] = {-1, -2, -3, -1.5f, -1, -2, -4, -3, -2};

static void make_raw(char *text, uint32_t *offset, uint32_t *length, struct pn_raw *raw) {
    for (size_t i = 0; i < 2 * ROWS; i++) {
        text[i] = cells[i / ROWS][i % ROWS][0];
        offset[i] = (uint32_t)i;
        length[i] = 1;
    }
    *raw = (struct pn_raw){ROWS, 2, names, text, offset, length, labels, log_q, NULL};
}

/* Every parameter and every row's cell: the gradient of the mean loss against its difference. */
static void check_gradients(const char *model, const char *loss) {
    static struct pn_job job;
    char text[1000], cell_text[2 * ROWS];
    uint32_t offset[2 * ROWS], length[2 * ROWS];
    struct pn_raw raw;
    struct pn_error err = {""};
    struct pn_features *f;
    struct pn_batch b;
    struct pn_net *net;
    uint64_t n_bad = 0;
    snprintf(text, sizeof text,
             "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data: {train: {format: ncf, uri: /x%s}}\n  features:\n"
             "    - {name: user, type: categorical, table: users}\n    - {name: item, type: categorical, table: items}\n  model: {name: %s}\n  training: {loss: {name: %s}}\n",
             strstr(loss, "in-batch") != NULL ? "" : ", negatives: {perPositive: 2}", model, loss);
    ck_assert_msg(pn_job_parse(&job, text, strlen(text), "t", NULL, NULL, &err) == PN_OK, "%s", err.text);
    make_raw(cell_text, offset, length, &raw);
    ck_assert_int_eq(pn_features_open(&f, &job, names, 2, &err), PN_OK);
    ck_assert_int_eq(pn_features_batch(f, &raw, &b, &n_bad), PN_OK);
    ck_assert_int_eq(pn_net_open(&net, &job, 0, &err), PN_OK);
    const size_t n_parameters = pn_net_parameters(net), padded = (n_parameters + PN_DENSE_ROW) / PN_DENSE_ROW * PN_DENSE_ROW;
    size_t counts[3] = {n_parameters, b.n_unique[0] * job.tables[0].dim, b.n_unique[1] * job.tables[1].dim};
    float *x[3], *g[3], *spare[3], scores[ROWS];
    struct pn_rng rng = {5};
    for (int k = 0; k < 3; k++) {
        const size_t n = k == 0 ? padded : counts[k];
        x[k] = calloc(n, sizeof(float));
        g[k] = calloc(n, sizeof(float));
        spare[k] = calloc(n, sizeof(float));
    }
    pn_net_init(net, 3, x[0]);
    for (int k = 0; k < 3; k++)
        for (size_t i = 0; i < counts[k]; i++) x[k][i] += (float)(0.5 * pn_rng_normal(&rng));
    const float *in[PN_MAX_TABLES] = {x[1], x[2]};
    float *out[PN_MAX_TABLES] = {g[1], g[2]}, *other[PN_MAX_TABLES] = {spare[1], spare[2]};
    double mean, up, down, largest = 0;
    ck_assert_int_eq(pn_net_step(net, &b, in, x[0], 1, out, g[0], scores, &mean), PN_OK);
    ck_assert(isfinite(mean) && mean > 0);
    for (int k = 0; k < 3; k++)
        for (size_t i = 0; i < counts[k]; i++) {
            const float was = x[k][i], h = 2e-3f;
            x[k][i] = was + h;
            pn_net_step(net, &b, in, x[0], 1, other, spare[0], scores, &up);
            x[k][i] = was - h;
            pn_net_step(net, &b, in, x[0], 1, other, spare[0], scores, &down);
            x[k][i] = was;
            const double numeric = (up - down) / (2 * (double)h) / ROWS, analytic = (double)g[k][i];
            largest = fmax(largest, fabs(analytic));
            ck_assert_msg(fabs(numeric - analytic) < 2e-3 + 0.02 * fabs(numeric), "%s, %s, part %d cell %zu: analytic %g, numeric %g", model, loss, k, i, analytic, numeric);
        }
    ck_assert(largest > 0.01); /* there was something to compare */
    for (int k = 0; k < 3; k++) {
        free(x[k]);
        free(g[k]);
        free(spare[k]);
    }
    pn_net_close(net);
    pn_batch_free(&b);
    pn_features_close(f);
    pn_job_free(&job);
}

START_TEST(gradients_of_pair_models_are_those_of_finite_differences) {
    check_gradients("mf, embeddingDim: 3", "bce");
    check_gradients("mf, embeddingDim: 3, bias: false", "bce");
    check_gradients("mf, embeddingDim: 3, embeddingL2: 0.5", "bce");
    check_gradients("mf, embeddingDim: 3, bias: false, similarity: cosine", "bce");
    check_gradients("gmf, embeddingDim: 4", "bce");
    check_gradients("mlp, embeddingDim: 3, hidden: [5, 4]", "bce");
    check_gradients("neumf, embeddingDim: 3, mlpDim: 4, hidden: [6, 5]", "bce");
    check_gradients("neumf, embeddingDim: 2, mlpDim: 3, hidden: [5], norm: layer, dropout: 0.2", "bce");
} END_TEST

START_TEST(gradients_of_losses_over_groups_are_those_of_finite_differences) {
    static const char *const losses[] = {"bpr", "hinge, margin: 2", "softmax", "softmax, temperature: 0.5, logQ: true"};
    for (size_t i = 0; i < sizeof losses / sizeof *losses; i++) {
        check_gradients("mf, embeddingDim: 3", losses[i]);
        check_gradients("neumf, embeddingDim: 3, mlpDim: 4, hidden: [5]", losses[i]);
    }
} END_TEST

START_TEST(gradients_of_the_softmax_within_a_batch_are_those_of_finite_differences) {
    check_gradients("mf, embeddingDim: 3, bias: false", "in-batch-softmax");
    check_gradients("mf, embeddingDim: 3, bias: false", "in-batch-softmax, temperature: 0.5, logQ: false");
    check_gradients("mf, embeddingDim: 3, bias: false, similarity: cosine, embeddingL2: 0.3", "in-batch-softmax, temperature: 0.5, logQ: false");
} END_TEST

START_TEST(a_group_is_a_positive_row_and_what_stands_behind_it) {
    /* a row before the first positive one is left out; a positive one alone has nothing to learn */
    const float z[] = {5, 1, 0, 2}, y[] = {0, 1, 0, 1};
    float g[4];
    ck_assert_double_eq_tol(pn_bpr(z, y, 4, g), log(1 + exp(-1)), 1e-9);
    ck_assert(g[0] == 0 && g[3] == 0 && g[1] < 0 && g[2] == -g[1]);
    ck_assert_double_eq_tol(pn_hinge(z, y, 4, 3, g), 2, 1e-6);
    ck_assert(g[1] == -1 && g[2] == 1);
    ck_assert_double_eq_tol(pn_sampled_softmax(z, y, NULL, 4, 1, g), log(1 + exp(-1)) / 2, 1e-6);
} END_TEST

START_TEST(log_q_lifts_what_is_seldom_drawn) {
    const float z[] = {0, 0, 0}, y[] = {1, 0, 0}, q[] = {-1, -1, -3};
    float g[3];
    pn_sampled_softmax(z, y, q, 3, 1, g);
    ck_assert_float_eq_tol(g[2] / g[1], expf(2), 1e-4f); /* it stands for e^2 as many */
} END_TEST

/* Of the loss of one example the gradient is (score - label) times [1, v] for the user's row, [1, u] for the item's, 1 for the bias. */
START_TEST(each_example_of_a_product_is_clipped_by_its_own_norm) {
    static struct pn_job job;
    const size_t k = 3, dim = k + 1;
    char text[1000], cell_text[2 * ROWS];
    uint32_t offset[2 * ROWS], length[2 * ROWS];
    struct pn_raw raw;
    struct pn_error err = {""};
    struct pn_features *f;
    struct pn_batch b;
    struct pn_net *net;
    uint64_t n_bad = 0;
    snprintf(text, sizeof text, "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data: {train: {format: ncf, uri: /x, negatives: {perPositive: 2}}}\n  features:\n"
             "    - {name: user, type: categorical, table: users}\n    - {name: item, type: categorical, table: items}\n  model: {name: mf, embeddingDim: 3}\n");
    ck_assert_msg(pn_job_parse(&job, text, strlen(text), "t", NULL, NULL, &err) == PN_OK, "%s", err.text);
    make_raw(cell_text, offset, length, &raw);
    ck_assert_int_eq(pn_features_open(&f, &job, names, 2, &err), PN_OK);
    ck_assert_int_eq(pn_features_batch(f, &raw, &b, &n_bad), PN_OK);
    ck_assert_int_eq(pn_net_open(&net, &job, 0, &err), PN_OK);
    ck_assert(pn_net_separable(net));
    float p[PN_DENSE_ROW] = {0.1f}, dp[PN_DENSE_ROW], x[2][ROWS * 4], g[2][ROWS * 4] = {{0}}, scores[ROWS], norms[ROWS];
    double loss, wanted[2][ROWS * 4] = {{0}};
    struct pn_rng rng = {5};
    for (size_t i = 0; i < 2 * ROWS * dim; i++) x[i / (ROWS * dim)][i % (ROWS * dim)] = (float)(0.7 * pn_rng_normal(&rng));
    const float *in[PN_MAX_TABLES] = {x[0], x[1]};
    float *out[PN_MAX_TABLES] = {g[0], g[1]}, clip = 0;
    ck_assert_int_eq(pn_net_step_clipped(net, &b, in, p, 1, 1e9f, 0, out, dp, scores, norms, &loss), PN_OK);
    for (size_t e = 0; e < ROWS; e++) clip = fmaxf(clip, 0.7f * norms[e]); /* some are clipped, some are not */
    ck_assert_int_eq(pn_net_step_clipped(net, &b, in, p, 1, clip, 0, out, dp, scores, norms, &loss), PN_OK);
    size_t n_clipped = 0;
    for (size_t e = 0; e < ROWS; e++) {
        const float *u = x[0] + b.position[e] * dim, *v = x[1] + b.position[ROWS + e] * dim;
        double squares = 3, d = (double)(scores[e] - labels[e]);
        for (size_t i = 1; i < dim; i++) squares += (double)(u[i] * u[i] + v[i] * v[i]);
        ck_assert_double_eq_tol((double)norms[e], fabs(d) * sqrt(squares), 1e-5);
        n_clipped += norms[e] > clip;
        if (norms[e] > clip) d *= (double)clip / (double)norms[e];
        for (size_t i = 0; i < dim; i++) {
            wanted[0][b.position[e] * dim + i] += d * (i == 0 ? 1 : (double)v[i]);
            wanted[1][b.position[ROWS + e] * dim + i] += d * (i == 0 ? 1 : (double)u[i]);
        }
    }
    ck_assert(n_clipped > 0 && n_clipped < ROWS);
    for (int t = 0; t < 2; t++)
        for (size_t i = 0; i < b.n_unique[t] * dim; i++) ck_assert_double_eq_tol((double)g[t][i], wanted[t][i], 1e-5);
    job.embedding_l2 = 0.1f; /* what all examples' rows add together is nobody's own */
    ck_assert(!pn_net_separable(net));
    pn_net_close(net);
    pn_batch_free(&b);
    pn_features_close(f);
    pn_job_free(&job);
} END_TEST

START_TEST(exponentials_in_vectors_are_those_of_the_library) {
    static float z[5001];
    double sum = 0;
    for (size_t i = 0; i < 5001; i++) z[i] = i == 7 ? -INFINITY : 3 - 0.02f * (float)i;
    ck_assert_float_eq(pn_greatest(z, 5001, -INFINITY), 3);
    ck_assert_float_eq(pn_greatest(z, 5001, 4), 4);
    const double got = pn_exp_sum(z, 5001, 3);
    for (size_t i = 0; i < 5001; i++) {
        const double x = (double)(3 - 0.02f * (float)i - 3), wanted = i == 7 || x < -87 ? 0 : exp(x);
        ck_assert_msg(fabs((double)z[i] - wanted) <= 3e-7 * wanted, "%zu: %g for %g", i, (double)z[i], wanted);
        sum += wanted;
    }
    ck_assert_double_eq_tol(got / sum, 1, 1e-6);
} END_TEST

int main(void) {
    Suite *s = suite_create("ranking");
    TCase *t = tcase_create("ranking");
    tcase_add_test(t, gradients_of_pair_models_are_those_of_finite_differences);
    tcase_add_test(t, gradients_of_losses_over_groups_are_those_of_finite_differences);
    tcase_add_test(t, gradients_of_the_softmax_within_a_batch_are_those_of_finite_differences);
    tcase_add_test(t, a_group_is_a_positive_row_and_what_stands_behind_it);
    tcase_add_test(t, log_q_lifts_what_is_seldom_drawn);
    tcase_add_test(t, each_example_of_a_product_is_clipped_by_its_own_norm);
    tcase_add_test(t, exponentials_in_vectors_are_those_of_the_library);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    const int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
