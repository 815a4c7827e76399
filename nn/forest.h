/* Boosted trees whose leaves are features (He et al. 2014): what features.c needs of them. A forest is a function of rows and seed; it is trained once in a job (boost.c), travels as
 * text among the statistics of the transforms, and each row then has one leaf of each tree as a key. Not for other folders. */
#ifndef PN_NN_FOREST_H
#define PN_NN_FOREST_H

#include "common/json.h"
#include "job/job.h"

/* feature < 0: a leaf with its value; else rows with x[feature] < threshold go left, others right, NaN as nan_left says. left and right stand behind their node. */
struct pn_tree_node { int32_t feature; uint32_t left, right; float threshold; bool nan_left; };
/* What was counted of one categorical field: keys that came at least min_count times, rising, with their rows and the positive ones among them, fold by fold. */
struct pn_category { uint64_t *keys; uint32_t *rows, *positives; /* both [n * n_folds] */ size_t n; };

/* Columns that trees see: n_numbers raw numbers (NaN: missing), and for each of n_categories fields two: the smoothed share of positive rows, log(1 + rows).
 * A row that the trees or the leaves' weights learn from must not find its own label in that share: it would be trusted more than it is worth on new rows. So rows are of
 * PN_FOREST_FOLDS folds, by what stands in them, and a row learned from has the share of the other folds. */
#define PN_FOREST_FOLDS 10u
#define PN_NO_FOLD UINT32_MAX /* a row that nothing learns from */
struct pn_forest {
    size_t n_numbers, n_categories, n_nodes, n_trees;
    uint32_t n_folds;                /* PN_FOREST_FOLDS; 1 in text of before there were folds, and then no row is left out */
    struct pn_tree_node *nodes;      /* tree after tree */
    uint32_t *roots;                 /* [n_trees + 1]: the first node of each */
    struct pn_category *categories;  /* [n_categories] */
    double prior;                    /* the share of positive rows */
    uint64_t version;                /* hash of all above: part of each leaf's key, so that another forest's leaves are other keys */
};

/* NULL: err says what is wrong; nothing in the text is trusted. */
struct pn_forest *pn_forest_read(struct json_object *, size_t n_numbers, size_t n_categories, struct pn_error *);
struct json_object *pn_forest_write(const struct pn_forest *);
void pn_forest_close(struct pn_forest *);
/* The fold of a row, by its n_numbers numbers and n_categories keys. */
uint32_t pn_forest_fold(const float *numbers, size_t n_numbers, const uint64_t *keys, size_t n_categories);
/* x: room for n_numbers + 2 n_categories floats, the numbers filled in. fold: the row's, if something learns from it, or PN_NO_FOLD. leaves: out, n_trees node numbers, from
 * each tree's root. */
void pn_forest_leaves(const struct pn_forest *, float *x, const uint64_t *keys, uint32_t fold, uint32_t *leaves);
void pn_forest_seal(struct pn_forest *); /* sets version */
/* The two columns of a value with the counts of one key (NULL: one never seen), fold by fold: the share without `fold`, the rows with it. */
void pn_forest_encode(const struct pn_forest *, const uint32_t *rows, const uint32_t *positives, uint32_t fold, float out[2]);

/* Rows gathered for training, row-major; grown by features.c. */
struct pn_forest_rows { size_t n, room; float *numbers, *labels; uint64_t *keys; };
/* XGBoost on one thread: the same rows, spec and seed give the same forest. Long: for a work thread. */
enum pn_result pn_forest_train(struct pn_forest **, const struct pn_forest_spec *, uint64_t seed, size_t n_numbers, size_t n_categories, const struct pn_forest_rows *,
                               struct pn_error *);

#endif
