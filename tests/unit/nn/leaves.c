/* Our walk of a forest beside XGBoost's own. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <xgboost/c_api.h>
#include "common/hash.h"
#include "nn/forest.h"

#define ROWS 3000
#define COLUMNS 5
#define TREES 25

static float numbers[ROWS * COLUMNS], labels[ROWS];

/* Wholes and fractions, a fifth of them missing: values that lie on a threshold and rows without the value that a node asks for. */
static void make(void) {
    struct pn_rng rng = {11};
    for (size_t i = 0; i < ROWS; i++) {
        double z = 0;
        for (size_t c = 0; c < COLUMNS; c++) {
            const double v = c < 2 ? floor(pn_rng_uniform(&rng) * 7) - 3 : pn_rng_uniform(&rng) * 2 - 1;
            const bool missing = pn_rng_uniform(&rng) < 0.2;
            numbers[i * COLUMNS + c] = missing ? NAN : (float)v;
            z += missing ? 0.5 : c % 2 == 0 ? v : -v * v;
        }
        labels[i] = pn_rng_uniform(&rng) < 1 / (1 + exp(-z));
    }
}

START_TEST(every_row_falls_into_the_leaves_that_xgboost_says) {
    const struct pn_forest_spec spec = {.trees = TREES, .depth = 5, .min_count = 1, .rows = ROWS, .rate = 0.2f, .l2 = 1, .min_weight = 1, .row_share = 0.8f, .column_share = 0.6f};
    struct pn_forest_rows rows = {.n = ROWS, .numbers = numbers, .labels = labels};
    struct pn_forest *f;
    struct pn_error err = {""};
    make();
    ck_assert_msg(pn_forest_train(&f, &spec, 9, COLUMNS, 0, &rows, &err) == PN_OK, "%s", err.text);
    ck_assert_uint_eq(f->n_trees, TREES);

    /* the same forest by hand */
    static const char *const parameters[][2] = {{"eta", "0.2"}, {"max_depth", "5"}, {"min_child_weight", "1"}, {"lambda", "1"}, {"subsample", "0.8"}, {"colsample_bytree", "0.6"},
        {"nthread", "1"}, {"verbosity", "0"}, {"seed", "9"}, {"objective", "binary:logistic"}, {"tree_method", "hist"}};
    DMatrixHandle matrix;
    BoosterHandle booster;
    bst_ulong n = 0;
    const float *theirs = NULL;
    ck_assert_int_eq(XGDMatrixCreateFromMat(numbers, ROWS, COLUMNS, NAN, &matrix), 0);
    ck_assert_int_eq(XGDMatrixSetFloatInfo(matrix, "label", labels, ROWS), 0);
    ck_assert_int_eq(XGBoosterCreate(&matrix, 1, &booster), 0);
    for (size_t i = 0; i < sizeof parameters / sizeof *parameters; i++) ck_assert_int_eq(XGBoosterSetParam(booster, parameters[i][0], parameters[i][1]), 0);
    for (int t = 0; t < TREES; t++) ck_assert_int_eq(XGBoosterUpdateOneIter(booster, t, matrix), 0);
    ck_assert_int_eq(XGBoosterPredict(booster, matrix, 2 /* leaves */, 0, 0, &n, &theirs), 0);
    ck_assert_uint_eq(n, ROWS * TREES);

    size_t deep = 0;
    for (size_t i = 0; i < ROWS; i++) {
        uint32_t ours[TREES];
        float x[COLUMNS];
        for (size_t c = 0; c < COLUMNS; c++) x[c] = numbers[i * COLUMNS + c];
        pn_forest_leaves(f, x, NULL, PN_NO_FOLD, ours);
        for (size_t t = 0; t < TREES; t++) {
            ck_assert_msg(ours[t] == (uint32_t)theirs[i * TREES + t], "row %zu, tree %zu: %u, XGBoost %g", i, t, ours[t], (double)theirs[i * TREES + t]);
            deep += ours[t] > 6;
        }
    }
    ck_assert_uint_gt(deep, ROWS); /* trees that split more than twice */
    pn_forest_close(f);
    XGBoosterFree(booster);
    XGDMatrixFree(matrix);
} END_TEST

int main(void) {
    Suite *s = suite_create("leaves");
    TCase *t = tcase_create("walk");
    tcase_add_test(t, every_row_falls_into_the_leaves_that_xgboost_says);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    const int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed > 0;
}
