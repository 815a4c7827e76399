/* Boosted trees' leaves as features. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/hash.h"
#include "nn/features_inside.h"
#include "nn/model.h"

#define ROWS 600
static const char *const names[] = {"a", "n"};
static char text[ROWS * 16];
static uint32_t offset[2 * ROWS], length[2 * ROWS];
static float labels[ROWS];

/* The label goes by the number and the value; some numbers are missing. */
static struct pn_raw make_raw(void) {
    struct pn_rng rng = {7};
    size_t n = 0;
    for (size_t c = 0; c < 2; c++)
        for (size_t i = 0; i < ROWS; i++) {
            const uint64_t v = pn_mix64(i) % 8;
            const int x = (int)(pn_mix64(i + 1000) % 50);
            const int k = c == 0 ? sprintf(text + n, "v%u", (unsigned)v) : x < 5 ? 0 : sprintf(text + n, "%d", x);
            offset[c * ROWS + i] = (uint32_t)n;
            length[c * ROWS + i] = (uint32_t)k;
            n += (size_t)k;
            labels[i] = pn_rng_uniform(&rng) < (v < 3 ? 0.8 : 0.2) * (x > 25 ? 1 : 0.4);
        }
    return (struct pn_raw){.n_rows = ROWS, .n_columns = 2, .names = names, .text = text, .offset = offset, .length = length, .labels = labels};
}

static void make_job(struct pn_job *job, int seed) {
    char yaml[700];
    struct pn_error err = {""};
    snprintf(yaml, sizeof yaml,
             "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data: {train: {format: csv, uri: /x, label: y}}\n  features:\n"
             "    - {name: a, type: categorical}\n    - {name: n, type: numeric, criteoLog: true}\n    - {name: leaves, type: leaves, table: leaves, trees: 10, depth: 3, minWeight: 2}\n"
             "  model: {name: gbdt+lr}\n  training: {seed: %d}\n", seed);
    ck_assert_msg(pn_job_parse(job, yaml, strlen(yaml), "t", NULL, NULL, &err) == PN_OK, "%s", err.text);
}

static struct pn_features *trained(const struct pn_job *job, const struct pn_raw *raw) {
    struct pn_features *f;
    struct pn_error err = {""};
    ck_assert_int_eq(pn_features_open(&f, job, names, 2, &err), PN_OK);
    ck_assert(pn_features_need_statistics(f));
    pn_features_observe(f, raw);
    ck_assert_msg(pn_features_train(f, &err) == PN_OK, "%s", err.text);
    pn_features_freeze(f);
    return f;
}

static struct pn_batch batch_of(struct pn_features *f, const struct pn_raw *raw) {
    struct pn_batch b;
    uint64_t n_bad = 0;
    ck_assert_int_eq(pn_features_batch(f, raw, &b, &n_bad), PN_OK);
    return b;
}

START_TEST(a_forest_read_from_its_text_gives_every_row_the_same_leaves) {
    static struct pn_job job;
    struct pn_raw raw = make_raw();
    struct pn_error err = {""};
    make_job(&job, 1);
    struct pn_features *f = trained(&job, &raw), *g, *again = trained(&job, &raw);
    char *statistics = pn_features_statistics(f), *twice = pn_features_statistics(again);
    ck_assert_str_eq(statistics, twice); /* the same rows and seed: the same forest */
    ck_assert_int_eq(pn_features_open(&g, &job, names, 2, &err), PN_OK);
    ck_assert_msg(pn_features_set_statistics(g, statistics, &err) == PN_OK, "%s", err.text);
    struct pn_batch x = batch_of(f, &raw), y = batch_of(g, &raw);
    ck_assert_uint_eq(x.n_keys, ROWS * 12); /* two values and ten leaves */
    ck_assert_uint_eq(y.n_keys, x.n_keys);
    ck_assert(memcmp(x.keys, y.keys, x.n_keys * sizeof *x.keys) == 0);
    ck_assert_uint_gt(x.n_unique[job.fields[2].i_table], 20); /* trees that split */
    pn_batch_free(&x);
    pn_batch_free(&y);
    pn_features_close(f);
    pn_features_close(g);
    pn_features_close(again);
    free(statistics);
    free(twice);
    pn_job_free(&job);
} END_TEST

START_TEST(two_forests_share_no_leaf_key) {
    static struct pn_job jobs[2];
    struct pn_raw raw = make_raw();
    struct pn_batch b[2];
    struct pn_features *f[2];
    for (int i = 0; i < 2; i++) {
        make_job(&jobs[i], 1 + i);
        f[i] = trained(&jobs[i], &raw);
        b[i] = batch_of(f[i], &raw);
    }
    const uint32_t t = jobs[0].fields[2].i_table;
    for (size_t i = 0; i < b[0].n_unique[t]; i++)
        for (size_t k = 0; k < b[1].n_unique[t]; k++) ck_assert_uint_ne(b[0].unique[t][i], b[1].unique[t][k]);
    ck_assert(memcmp(b[0].keys, b[1].keys, ROWS * 2 * sizeof(uint64_t)) == 0); /* what is no leaf keeps its key */
    for (int i = 0; i < 2; i++) {
        pn_batch_free(&b[i]);
        pn_features_close(f[i]);
        pn_job_free(&jobs[i]);
    }
} END_TEST

#define FOLDED(CATEGORY) "{\"leaves\":{\"prior\":0.5,\"folds\":10,\"roots\":[0,1],\"nodes\":[-1],\"categories\":[[" CATEGORY "]]}}"
START_TEST(a_forest_that_is_not_sound_is_refused) {
    static struct pn_job job;
    struct pn_raw raw = make_raw();
    make_job(&job, 1);
    struct pn_features *f = trained(&job, &raw), *g;
    struct pn_error err = {""};
    char *statistics = pn_features_statistics(f);
    static const char *const bad[] = {"{}", "{\"leaves\":{\"prior\":0.5,\"roots\":[0,1],\"nodes\":[9,0.5,1,2,0],\"categories\":[[]]}}",
        "{\"leaves\":{\"prior\":0.5,\"roots\":[0,3],\"nodes\":[0,0.5,0,2,0,-1,-1],\"categories\":[[]]}}", "{\"leaves\":{\"prior\":0.5,\"roots\":[0,1],\"nodes\":[-1],\"categories\":[[5,1,2]]}}",
        FOLDED("5,1,2,1,2"), FOLDED("5,1,99,1,1"), FOLDED("5,2,0,1,1"), FOLDED("5,0,0,1,1"), FOLDED("5,1,0,1,1,5,1,0,1,1"), FOLDED("5,1"), "{\"leaves\":{\"prior\":0.5,\"folds\":9,\"roots\":[0,1],\"nodes\":[-1],\"categories\":[[]]}}"};
    ck_assert_int_eq(pn_features_open(&g, &job, names, 2, &err), PN_OK);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) ck_assert_int_eq(pn_features_set_statistics(g, bad[i], &err), PN_INVALID);
    ck_assert_int_eq(pn_features_set_statistics(g, "{\"leaves\":{\"prior\":0.5,\"roots\":[0,1],\"nodes\":[-1],\"categories\":[[]]}}", &err), PN_OK);
    ck_assert_int_eq(pn_features_set_statistics(g, FOLDED("5,1,0,1,1,6,2,3,1,1,9,2,0"), &err), PN_OK);
    ck_assert_int_eq(pn_features_set_statistics(g, "{\"leaves\":{\"prior\":0.5,\"roots\":[0,1],\"nodes\":[-1],\"categories\":[[5,2,1,6,1,1]]}}", &err), PN_OK); /* of before there were folds */
    free(statistics);
    pn_features_close(f);
    pn_features_close(g);
    pn_job_free(&job);
} END_TEST

/* The leaf keys of one row: the last ten of its twelve. */
static bool same_leaves(const struct pn_batch *a, const struct pn_batch *b, size_t row) {
    const size_t at = a->begin[2 * ROWS + row];
    return memcmp(a->keys + at, b->keys + at, 10 * sizeof *a->keys) == 0;
}

/* Labels drawn by a coin, a value for every two rows: nothing can be learned, but a row's own label would be a third of its value's share. */
START_TEST(a_row_learned_from_falls_where_its_own_label_does_not_say) {
    static struct pn_job job;
    struct pn_raw raw = make_raw();
    struct pn_rng rng = {11};
    make_job(&job, 1);
    job.forest.min_count = 1;
    size_t n = 0, before = 0, flipped[2] = {0, 0};
    static char pairs[ROWS * 8];
    static uint32_t at[2 * ROWS], size[2 * ROWS];
    for (size_t i = 0; i < ROWS; i++) {
        at[i] = (uint32_t)n;
        size[i] = (uint32_t)sprintf(pairs + n, "p%zu", i / 2);
        n += size[i];
    }
    for (size_t i = ROWS; i < 2 * ROWS; i++) {
        at[i] = (uint32_t)n;
        size[i] = (uint32_t)sprintf(pairs + n, "%zu", (i - ROWS) % 7);
        n += size[i];
    }
    for (size_t i = 0; i < ROWS; i++) before += (labels[i] = pn_rng_uniform(&rng) < 0.5) > 0.5f;
    raw.text = pairs;
    raw.offset = at;
    raw.length = size;
    struct pn_features *f = trained(&job, &raw);
    struct pn_batch served = batch_of(f, &raw);
    struct pn_batch learned;
    uint64_t n_bad = 0;
    ck_assert_int_eq(pn_features_learned(f, &raw, &learned, &n_bad), PN_OK);
    /* The same trees, a statistic in which one row's label is the other: the row itself falls as before when it is learned from, not when it is ranked. */
    char *text = pn_features_statistics(f);
    struct json_object *o = json_tokener_parse(text), *forest = pn_json_get(o, "leaves");
    for (size_t i = 0; i < ROWS; i++) {
        float x[3];
        uint64_t key;
        pn_features_tree_row(f, &raw, i, x, &key);
        const uint32_t fold = pn_forest_fold(x, 1, &key, 1);
        struct pn_forest *g = pn_forest_read(forest, 1, 1, NULL);
        struct pn_category *c = &g->categories[0];
        size_t k = 0;
        while (c->keys[k] != key) k++;
        ck_assert_uint_ge(c->rows[k * g->n_folds + fold], 1);
        uint32_t *positives = &c->positives[k * g->n_folds + fold], a[10], b[10], was = *positives;
        for (int learning = 0; learning < 2; learning++) {
            *positives = was;
            pn_forest_leaves(g, x, &key, learning ? fold : PN_NO_FOLD, a);
            *positives = labels[i] > 0.5f ? was - 1 : was + 1;
            pn_forest_leaves(g, x, &key, learning ? fold : PN_NO_FOLD, b);
            flipped[learning] += memcmp(a, b, sizeof a) != 0;
        }
        pn_forest_close(g);
    }
    ck_assert_uint_gt(before, ROWS / 3);
    ck_assert_uint_gt(flipped[0], ROWS / 10);
    ck_assert_uint_eq(flipped[1], 0);
    /* and batches are made so */
    size_t moved = 0;
    for (size_t i = 0; i < ROWS; i++) moved += !same_leaves(&served, &learned, i);
    ck_assert_uint_gt(moved, ROWS / 10);
    json_object_put(o);
    free(text);
    pn_batch_free(&served);
    pn_batch_free(&learned);
    pn_features_close(f);
    pn_job_free(&job);
} END_TEST

int main(void) {
    Suite *s = suite_create("forest");
    TCase *t = tcase_create("leaves");
    tcase_add_test(t, a_forest_read_from_its_text_gives_every_row_the_same_leaves);
    tcase_add_test(t, two_forests_share_no_leaf_key);
    tcase_add_test(t, a_row_learned_from_falls_where_its_own_label_does_not_say);
    tcase_add_test(t, a_forest_that_is_not_sound_is_refused);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    const int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed > 0;
}
