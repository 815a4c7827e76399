/* A forest in memory and as text: its rows' leaves. */
#include "nn/forest.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/hash.h"

#define SMOOTHING 20.0 /* rows of the prior that stand beside a value's own */

uint32_t pn_forest_fold(const float *numbers, size_t n_numbers, const uint64_t *keys, size_t n_categories) {
    uint64_t h = 1;
    for (size_t i = 0; i < n_numbers; i++) {
        uint32_t bits = 0; /* of all NaN */
        if (!isnan(numbers[i])) memcpy(&bits, &numbers[i], sizeof bits);
        h = pn_mix64(h ^ bits) + i;
    }
    return (uint32_t)(pn_hash(keys, n_categories * sizeof *keys, h) % PN_FOREST_FOLDS);
}

void pn_forest_encode(const struct pn_forest *f, const uint32_t *rows, const uint32_t *positives, uint32_t fold, float out[2]) {
    double all = 0, seen = 0, of = 0;
    for (uint32_t k = 0; rows != NULL && k < f->n_folds; k++) {
        all += rows[k];
        if (k == fold && f->n_folds > 1) continue;
        seen += rows[k];
        of += positives[k];
    }
    out[0] = (float)((of + SMOOTHING * f->prior) / (seen + SMOOTHING));
    out[1] = (float)log1p(all);
}

void pn_forest_close(struct pn_forest *f) {
    if (f == NULL) return;
    for (size_t c = 0; f->categories != NULL && c < f->n_categories; c++) {
        free(f->categories[c].keys);
        free(f->categories[c].rows);
        free(f->categories[c].positives);
    }
    free(f->categories);
    free(f->nodes);
    free(f->roots);
    free(f);
}

void pn_forest_seal(struct pn_forest *f) {
    uint64_t h = pn_hash(f->roots, (f->n_trees + 1) * sizeof *f->roots, pn_hash(&f->prior, sizeof f->prior, 1));
    for (size_t i = 0; i < f->n_nodes; i++) {
        const struct pn_tree_node *n = &f->nodes[i];
        uint32_t words[5] = {(uint32_t)n->feature, n->left, n->right, n->nan_left, 0};
        memcpy(&words[4], &n->threshold, 4);
        h = pn_hash(words, sizeof words, h);
    }
    for (size_t c = 0; c < f->n_categories; c++) {
        const struct pn_category *k = &f->categories[c];
        h = pn_hash(k->keys, k->n * sizeof *k->keys, h);
        h = pn_hash(k->rows, k->n * f->n_folds * sizeof *k->rows, h);
        h = pn_hash(k->positives, k->n * f->n_folds * sizeof *k->positives, h);
    }
    f->version = h;
}

void pn_forest_leaves(const struct pn_forest *f, float *x, const uint64_t *keys, uint32_t fold, uint32_t *leaves) {
    for (size_t c = 0; c < f->n_categories; c++) {
        const struct pn_category *k = &f->categories[c];
        size_t low = 0, high = k->n;
        while (low < high) {
            const size_t middle = (low + high) / 2;
            if (k->keys[middle] < keys[c]) low = middle + 1;
            else high = middle;
        }
        const bool there = low < k->n && k->keys[low] == keys[c];
        pn_forest_encode(f, there ? k->rows + low * f->n_folds : NULL, there ? k->positives + low * f->n_folds : NULL, fold, x + f->n_numbers + 2 * c);
    }
    for (size_t t = 0; t < f->n_trees; t++) {
        const struct pn_tree_node *root = f->nodes + f->roots[t];
        uint32_t at = 0;
        while (root[at].feature >= 0) {
            const float v = x[root[at].feature];
            at = (isnan(v) ? root[at].nan_left : v < root[at].threshold) ? root[at].left : root[at].right;
        }
        leaves[t] = at;
    }
}

/* ---- text: roots, nodes as five numbers each, categories as lists: a key, the number of its folds that have rows, and of each its
 * number, rows and positive ones ---- */
static struct json_object *exact(double x) {
    char text[40];
    snprintf(text, sizeof text, "%.17g", x);
    return json_object_new_double_s(x, text);
}

struct json_object *pn_forest_write(const struct pn_forest *f) {
    struct json_object *o = json_object_new_object(), *roots = json_object_new_array(), *nodes = json_object_new_array(), *categories = json_object_new_array();
    for (size_t t = 0; t <= f->n_trees; t++) json_object_array_add(roots, json_object_new_uint64(f->roots[t]));
    for (size_t i = 0; i < f->n_nodes; i++) {
        const struct pn_tree_node *n = &f->nodes[i];
        json_object_array_add(nodes, json_object_new_int64(n->feature));
        if (n->feature < 0) continue;
        json_object_array_add(nodes, exact((double)n->threshold));
        json_object_array_add(nodes, json_object_new_uint64(n->left));
        json_object_array_add(nodes, json_object_new_uint64(n->right));
        json_object_array_add(nodes, json_object_new_uint64(n->nan_left));
    }
    for (size_t c = 0; c < f->n_categories; c++) {
        struct json_object *list = json_object_new_array();
        for (size_t i = 0; i < f->categories[c].n; i++) {
            json_object_array_add(list, json_object_new_uint64(f->categories[c].keys[i]));
            const uint32_t *rows = f->categories[c].rows + i * f->n_folds, *positives = f->categories[c].positives + i * f->n_folds;
            uint32_t n = 0;
            for (uint32_t k = 0; k < f->n_folds; k++) n += rows[k] > 0;
            if (f->n_folds > 1) json_object_array_add(list, json_object_new_uint64(n));
            for (uint32_t k = 0; k < f->n_folds; k++) {
                if (f->n_folds > 1 && rows[k] == 0) continue;
                if (f->n_folds > 1) json_object_array_add(list, json_object_new_uint64(k));
                json_object_array_add(list, json_object_new_uint64(rows[k]));
                json_object_array_add(list, json_object_new_uint64(positives[k]));
            }
        }
        json_object_array_add(categories, list);
    }
    pn_json_add(o, "prior", exact(f->prior));
    if (f->n_folds > 1) pn_json_add(o, "folds", json_object_new_uint64(f->n_folds));
    pn_json_add(o, "roots", roots);
    pn_json_add(o, "nodes", nodes);
    pn_json_add(o, "categories", categories);
    return o;
}

static bool read_nodes(struct pn_forest *f, struct json_object *list) {
    const size_t n = pn_json_length(list), n_columns = f->n_numbers + 2 * f->n_categories;
    if ((f->nodes = calloc(n + 1, sizeof *f->nodes)) == NULL) return false;
    for (size_t i = 0; i < n; f->n_nodes++) {
        struct pn_tree_node *k = &f->nodes[f->n_nodes];
        const int64_t feature = json_object_get_int64(pn_json_at(list, i));
        k->feature = feature < 0 ? -1 : (int32_t)feature;
        if (feature < 0) {
            i++;
            continue;
        }
        if ((uint64_t)feature >= n_columns || n - i < 5) return false;
        const uint64_t left = json_object_get_uint64(pn_json_at(list, i + 2)), right = json_object_get_uint64(pn_json_at(list, i + 3));
        if (left > UINT32_MAX || right > UINT32_MAX) return false;
        k->threshold = (float)json_object_get_double(pn_json_at(list, i + 1));
        k->left = (uint32_t)left;
        k->right = (uint32_t)right;
        k->nan_left = json_object_get_uint64(pn_json_at(list, i + 4)) != 0;
        i += 5;
    }
    return true;
}

/* Each tree is a run of nodes whose children stand behind them: every walk ends. */
static bool sound(const struct pn_forest *f) {
    if (f->roots[0] != 0 || f->roots[f->n_trees] != f->n_nodes) return false;
    for (size_t t = 0; t < f->n_trees; t++) {
        if (f->roots[t] >= f->roots[t + 1] || f->roots[t + 1] > f->n_nodes) return false;
        const uint32_t n = f->roots[t + 1] - f->roots[t];
        for (uint32_t i = 0; i < n; i++) {
            const struct pn_tree_node *k = &f->nodes[f->roots[t] + i];
            if (k->feature >= 0 && (k->left <= i || k->right <= i || k->left >= n || k->right >= n)) return false;
        }
    }
    return true;
}

static uint64_t number(struct json_object *list, size_t i) { return json_object_get_uint64(pn_json_at(list, i)); }

static bool read_category(struct pn_category *k, struct json_object *list, size_t n_folds) {
    const size_t length = pn_json_length(list), room = length / (n_folds > 1 ? 5 : 3) + 1; /* an entry has so many numbers or more */
    k->keys = calloc(room, sizeof *k->keys);
    k->rows = calloc(room * n_folds, sizeof *k->rows);
    k->positives = calloc(room * n_folds, sizeof *k->positives);
    if (k->keys == NULL || k->rows == NULL || k->positives == NULL) return false;
    for (size_t at = 0; at < length; k->n++) {
        if (length - at < 3) return false;
        k->keys[k->n] = number(list, at++);
        if (k->n > 0 && k->keys[k->n] <= k->keys[k->n - 1]) return false;
        const uint64_t n = n_folds > 1 ? number(list, at++) : 1; /* without folds an entry is key, rows, positives */
        if (n == 0 || n > n_folds) return false;
        for (uint64_t j = 0; j < n; j++) {
            if (length - at < (n_folds > 1 ? 3u : 2u)) return false;
            const uint64_t fold = n_folds > 1 ? number(list, at++) : 0, rows = number(list, at), positives = number(list, at + 1);
            at += 2;
            if (fold >= n_folds || rows > UINT32_MAX || positives > rows) return false;
            k->rows[k->n * n_folds + fold] = (uint32_t)rows;
            k->positives[k->n * n_folds + fold] = (uint32_t)positives;
        }
    }
    return true;
}

struct pn_forest *pn_forest_read(struct json_object *o, size_t n_numbers, size_t n_categories, struct pn_error *err) {
    struct pn_forest *f = calloc(1, sizeof *f);
    struct json_object *roots = pn_json_get(o, "roots"), *categories = pn_json_get(o, "categories");
    const size_t n = pn_json_length(roots);
    const uint64_t folds = pn_json_u64(o, "folds", 1);
    bool ok = f != NULL && n >= 2 && n <= 100001 && pn_json_length(categories) == n_categories && (folds == 1 || folds == PN_FOREST_FOLDS);
    if (ok) {
        *f = (struct pn_forest){.n_folds = (uint32_t)folds, .n_numbers = n_numbers, .n_categories = n_categories, .n_trees = n - 1, .prior = pn_json_double(o, "prior", NAN)};
        f->roots = calloc(n, sizeof *f->roots);
        f->categories = calloc(n_categories + 1, sizeof *f->categories);
        ok = f->roots != NULL && f->categories != NULL && f->prior >= 0 && f->prior <= 1 && read_nodes(f, pn_json_get(o, "nodes"));
    }
    for (size_t t = 0; ok && t < n; t++) {
        const uint64_t at = json_object_get_uint64(pn_json_at(roots, t));
        ok = at <= UINT32_MAX;
        f->roots[t] = (uint32_t)at;
    }
    ok = ok && sound(f);
    for (size_t c = 0; ok && c < n_categories; c++) ok = read_category(&f->categories[c], pn_json_at(categories, c), f->n_folds);
    if (!ok) {
        pn_forest_close(f);
        pn_fail(err, PN_INVALID, "the forest among the statistics is missing or not sound");
        return NULL;
    }
    pn_forest_seal(f);
    return f;
}
