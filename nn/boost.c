/* Training of a forest by XGBoost's C library (Chen and Guestrin 2016), on one thread; its trees are then taken over into our own form, so that nobody who ranks needs it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xgboost/c_api.h>
#include "nn/forest.h"

struct seat { uint64_t key; uint32_t row; };

static int by_key(const void *a, const void *b) {
    const struct seat *x = a, *y = b;
    return x->key != y->key ? (x->key < y->key ? -1 : 1) : (x->row > y->row) - (x->row < y->row);
}

/* Counts one field, and fills its two columns of x as leaves will be looked up for the same row when it is learned from. Values with fewer than min_count rows are as one never seen. */
static bool count(struct pn_forest *f, size_t c, uint32_t min_count, const struct pn_forest_rows *rows, const uint32_t *folds, struct seat *seats, float *x) {
    const size_t width = f->n_numbers + 2 * f->n_categories;
    struct pn_category *k = &f->categories[c];
    size_t kept = 0;
    for (size_t i = 0; i < rows->n; i++) seats[i] = (struct seat){rows->keys[i * f->n_categories + c], (uint32_t)i};
    qsort(seats, rows->n, sizeof *seats, by_key);
    for (int pass = 0; pass < 2; pass++) {
        if (pass == 1) {
            k->keys = calloc(kept + 1, sizeof *k->keys);
            k->rows = calloc(kept * f->n_folds + 1, sizeof *k->rows);
            k->positives = calloc(kept * f->n_folds + 1, sizeof *k->positives);
            if (k->keys == NULL || k->rows == NULL || k->positives == NULL) return false;
        }
        for (size_t from = 0, to; from < rows->n; from = to) {
            for (to = from; to < rows->n && seats[to].key == seats[from].key;) to++;
            const bool known = to - from >= min_count;
            if (pass == 0) {
                kept += known;
                continue;
            }
            uint32_t *n = known ? k->rows + k->n * f->n_folds : NULL, *positives = known ? k->positives + k->n * f->n_folds : NULL;
            for (size_t i = from; known && i < to; i++) {
                n[folds[seats[i].row]]++;
                positives[folds[seats[i].row]] += rows->labels[seats[i].row] > 0.5f;
            }
            for (size_t i = from; i < to; i++) pn_forest_encode(f, n, positives, folds[seats[i].row], x + seats[i].row * width + f->n_numbers + 2 * c);
            if (known) k->keys[k->n++] = seats[from].key;
        }
    }
    return true;
}

/* One of XGBoost's trees behind the nodes that are there. Its children have higher numbers than their parent. */
static bool take_tree(struct pn_forest *f, struct json_object *tree, size_t *room) {
    struct json_object *left = pn_json_get(tree, "left_children"), *right = pn_json_get(tree, "right_children"), *feature = pn_json_get(tree, "split_indices"),
                       *condition = pn_json_get(tree, "split_conditions"), *nan_left = pn_json_get(tree, "default_left");
    const size_t n = pn_json_length(left);
    if (n == 0 || pn_json_length(right) != n || pn_json_length(feature) != n || pn_json_length(condition) != n || pn_json_length(nan_left) != n) return false;
    while (f->n_nodes + n > *room) {
        struct pn_tree_node *grown = realloc(f->nodes, (*room * 2 + 1024) * sizeof *grown);
        if (grown == NULL) return false;
        f->nodes = grown;
        *room = *room * 2 + 1024;
    }
    for (size_t i = 0; i < n; i++) {
        const int64_t l = json_object_get_int64(pn_json_at(left, i)), r = json_object_get_int64(pn_json_at(right, i));
        const bool leaf = l < 0;
        if (!leaf && (l <= (int64_t)i || r <= (int64_t)i || l >= (int64_t)n || r >= (int64_t)n)) return false;
        f->nodes[f->n_nodes + i] = (struct pn_tree_node){.feature = leaf ? -1 : json_object_get_int(pn_json_at(feature, i)), .left = leaf ? 0 : (uint32_t)l, .right = leaf ? 0 : (uint32_t)r,
            .threshold = leaf ? 0 : (float)json_object_get_double(pn_json_at(condition, i)), .nan_left = !leaf && json_object_get_int(pn_json_at(nan_left, i)) != 0};
    }
    f->n_nodes += n;
    f->roots[++f->n_trees] = (uint32_t)f->n_nodes;
    return true;
}

static enum pn_result boost(struct pn_forest *f, const struct pn_forest_spec *s, uint64_t seed, const struct pn_forest_rows *rows, const float *x, struct pn_error *err) {
    DMatrixHandle matrix = NULL;
    BoosterHandle booster = NULL;
    const char *buffer = NULL, *text = NULL;
    bst_ulong n_bytes = 0;
    char value[40];
    enum pn_result r = PN_OK;
    int bad = XGDMatrixCreateFromMat(x, rows->n, f->n_numbers + 2 * f->n_categories, NAN, &matrix);
    if (!bad) bad = XGDMatrixSetFloatInfo(matrix, "label", rows->labels, rows->n);
    if (!bad) bad = XGBoosterCreate(&matrix, 1, &booster);
    const struct { const char *name; double value; } numbers[] = {{"eta", (double)s->rate}, {"max_depth", s->depth}, {"min_child_weight", (double)s->min_weight}, {"lambda", (double)s->l2},
        {"subsample", (double)s->row_share}, {"colsample_bytree", (double)s->column_share}, {"nthread", 1}, {"verbosity", 0}, {"seed", (double)(seed & 0x7fffffff)}};
    for (size_t i = 0; !bad && i < sizeof numbers / sizeof *numbers; i++) {
        snprintf(value, sizeof value, "%.9g", numbers[i].value);
        bad = XGBoosterSetParam(booster, numbers[i].name, value);
    }
    if (!bad) bad = XGBoosterSetParam(booster, "objective", "binary:logistic");
    if (!bad) bad = XGBoosterSetParam(booster, "tree_method", "hist");
    for (uint32_t t = 0; !bad && t < s->trees; t++) bad = XGBoosterUpdateOneIter(booster, (int)t, matrix);
    if (!bad) bad = XGBoosterSaveModelToBuffer(booster, "{\"raw_format\": \"json\", \"format\": \"json\"}" /* 1.6 calls it format */, &n_bytes, &buffer);
    if (bad) {
        text = XGBGetLastError();
        r = pn_fail(err, PN_INVALID, "the trees cannot be trained: %.200s", text != NULL ? text : "?");
    } else {
        struct json_object *o = pn_json_parse(buffer, n_bytes, err);
        struct json_object *trees = pn_json_get(pn_json_get(pn_json_get(pn_json_get(o, "learner"), "gradient_booster"), "model"), "trees");
        size_t room = 0;
        const size_t n = pn_json_length(trees);
        bool ok = n == s->trees;
        for (size_t t = 0; ok && t < n; t++) ok = take_tree(f, pn_json_at(trees, t), &room);
        if (!ok) r = pn_fail(err, PN_INVALID, "what XGBoost made has not the form of %u trees", s->trees);
        if (o != NULL) json_object_put(o);
    }
    if (booster != NULL) XGBoosterFree(booster);
    if (matrix != NULL) XGDMatrixFree(matrix);
    return r;
}

enum pn_result pn_forest_train(struct pn_forest **out, const struct pn_forest_spec *s, uint64_t seed, size_t n_numbers, size_t n_categories, const struct pn_forest_rows *rows,
                               struct pn_error *err) {
    const size_t width = n_numbers + 2 * n_categories;
    struct pn_forest *f = calloc(1, sizeof *f);
    float *x = calloc(rows->n * width + 1, sizeof *x);
    struct seat *seats = calloc(rows->n + 1, sizeof *seats);
    uint32_t *folds = calloc(rows->n + 1, sizeof *folds);
    enum pn_result r = PN_NO_MEMORY;
    *out = NULL;
    if (f == NULL || x == NULL || seats == NULL || folds == NULL) goto out;
    *f = (struct pn_forest){.n_folds = PN_FOREST_FOLDS, .n_numbers = n_numbers, .n_categories = n_categories};
    f->roots = calloc(s->trees + 1, sizeof *f->roots);
    f->categories = calloc(n_categories + 1, sizeof *f->categories);
    if (f->roots == NULL || f->categories == NULL) goto out;
    double positives = 0;
    for (size_t i = 0; i < rows->n; i++) {
        positives += rows->labels[i] > 0.5f;
        memcpy(x + i * width, rows->numbers + i * n_numbers, n_numbers * sizeof *x);
        folds[i] = pn_forest_fold(rows->numbers + i * n_numbers, n_numbers, rows->keys + i * n_categories, n_categories);
    }
    if (!(positives > 0 && positives < (double)rows->n)) {
        r = pn_fail(err, PN_INVALID, "the trees need rows of both labels; the first %zu rows of train have one only", rows->n);
        goto out;
    }
    f->prior = positives / (double)rows->n;
    for (size_t c = 0; c < n_categories; c++)
        if (!count(f, c, s->min_count, rows, folds, seats, x)) goto out;
    r = boost(f, s, seed, rows, x, err);
    if (r == PN_OK) {
        pn_forest_seal(f);
        *out = f;
        f = NULL;
    }
out:
    if (r == PN_NO_MEMORY) pn_fail(err, r, "no memory to train trees");
    pn_forest_close(f);
    free(x);
    free(seats);
    free(folds);
    return r;
}
