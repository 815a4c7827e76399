/* The figures of a window against the exact metrics. (A test of common/, beside nn/metrics.c that it is held against.) */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "common/hash.h"
#include "common/progress.h"
#include "nn/model.h"

enum { N = 20000 };
static float scores[N], labels[N];

/* Scores around a logit of -1.5, labels drawn by them; `steps` > 0: only so many different scores, so that there are ties. */
static void draw(uint64_t seed, int steps) {
    struct pn_rng rng = {seed};
    for (size_t i = 0; i < N; i++) {
        double u = 0;
        for (int k = 0; k < 6; k++) u += (double)(pn_rng_next(&rng) >> 11) * 0x1p-53;
        double p = 1 / (1 + exp(-(u - 3) * 2 + 1.5));
        if (steps > 0) p = floor(p * steps) / steps;
        scores[i] = (float)p;
        labels[i] = (double)(pn_rng_next(&rng) >> 11) * 0x1p-53 < p ? 1 : 0;
    }
}

/* More than a double's sums may differ by, less than any mistake. */
static void near(double a, double b, double by) { ck_assert_msg(fabs(a - b) <= by, "%.12g and %.12g", a, b); }

START_TEST(the_figures_of_a_window_are_those_of_its_rows) {
    static const int steps[] = {0, 5, 1000};
    for (int s = 0; s < 3; s++) {
        struct pn_progress *p = calloc(1, sizeof *p);
        draw(7 + (uint64_t)s, steps[s]);
        double positives = 0;
        for (size_t i = 0; i < N; i++) {
            pn_progress_add(p, scores[i], labels[i]);
            positives += (double)labels[i];
        }
        const struct pn_progress_figures f = pn_progress_figures(p);
        double together = 0; /* pairs that fall into one bin: the bound of the header */
        for (size_t b = 0; b < PN_PROGRESS_BINS; b++) together += (double)p->by_bin[0][b] * p->by_bin[1][b];
        ck_assert_uint_eq(f.rows, N);
        near(f.label_rate, positives / N, 1e-12);
        near(f.logloss, pn_log_loss(scores, labels, N), 1e-9);
        near(f.ne, pn_normalised_entropy(scores, labels, N), 1e-9);
        near(f.calibration, pn_calibration(scores, labels, N), 1e-9);
        near(f.auc, pn_auc(scores, labels, N), 0.5 * together / (positives * (N - positives)) + 1e-12);
        near(f.auc, pn_auc(scores, labels, N), steps[s] == 5 ? 1e-12 : 2e-4); /* five scores: no bin holds two of them */
        free(p);
    }
} END_TEST

START_TEST(windows_of_several_workers_add_up_also_through_their_text) {
    struct pn_progress *all = calloc(1, sizeof *all), *part = calloc(3, sizeof *part), *sum = calloc(1, sizeof *sum), *merged = calloc(1, sizeof *merged);
    draw(99, 0);
    for (size_t i = 0; i < N; i++) {
        pn_progress_add(all, scores[i], labels[i]);
        pn_progress_add(&part[i % 3], scores[i], labels[i]);
    }
    for (size_t k = 0; k < 3; k++) {
        struct json_object *o = pn_progress_json(&part[k]);
        const char *text = pn_json_text(o);
        struct json_object *back = pn_json_parse(text, strlen(text), NULL);
        ck_assert(pn_progress_read(sum, back));
        json_object_put(back);
        json_object_put(o);
        pn_progress_merge(merged, &part[k]);
    }
    for (int k = 0; k < 2; k++) {
        const struct pn_progress_figures a = pn_progress_figures(all), b = pn_progress_figures(k == 0 ? sum : merged);
        ck_assert_uint_eq(a.rows, b.rows);
        ck_assert_double_eq(a.auc, b.auc);
        near(a.logloss, b.logloss, 1e-9);
        near(a.calibration, b.calibration, 1e-9);
    }
    free(all);
    free(part);
    free(sum);
    free(merged);
} END_TEST

START_TEST(one_class_alone_no_row_and_scores_at_the_ends_are_defined) {
    struct pn_progress *p = calloc(1, sizeof *p);
    ck_assert(isnan(pn_progress_figures(p).logloss));
    pn_progress_add(p, 0, 0);
    ck_assert(isnan(pn_progress_figures(p).auc) && isnan(pn_progress_figures(p).calibration));
    pn_progress_add(p, 1, 1);
    ck_assert_double_eq(pn_progress_figures(p).auc, 1);
    pn_progress_add(p, 1, 0);
    ck_assert_double_eq(pn_progress_figures(p).auc, 0.75);
    free(p);
} END_TEST

START_TEST(what_is_no_window_is_refused_as_a_whole) {
    static const char *const bad[] = {"{}", "{\"loss_sum\":1,\"score_sum\":1}", "{\"loss_sum\":1,\"score_sum\":1,\"bins\":\"0:1\"}", "{\"loss_sum\":1,\"score_sum\":1,\"bins\":\"0:1:1 800:1:1 \"}",
                                     "{\"loss_sum\":1,\"score_sum\":1,\"bins\":\"0:1:-1 \"}", "{\"loss_sum\":1,\"score_sum\":1,\"bins\":\"0:1:fffffffff \"}", "{\"loss_sum\":1,\"score_sum\":\"x\",\"bins\":\"\"}"};
    struct pn_progress *p = calloc(1, sizeof *p), *none = calloc(1, sizeof *none);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct json_object *o = pn_json_parse(bad[i], strlen(bad[i]), NULL);
        ck_assert(o != NULL && !pn_progress_read(p, o));
        json_object_put(o);
        ck_assert_int_eq(memcmp(p, none, sizeof *p), 0);
    }
    free(p);
    free(none);
} END_TEST

int main(void) {
    Suite *s = suite_create("progress");
    TCase *t = tcase_create("windows");
    tcase_add_test(t, the_figures_of_a_window_are_those_of_its_rows);
    tcase_add_test(t, windows_of_several_workers_add_up_also_through_their_text);
    tcase_add_test(t, one_class_alone_no_row_and_scores_at_the_ends_are_defined);
    tcase_add_test(t, what_is_no_window_is_refused_as_a_whole);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
