/* Metrics against figures worked out by hand; tests/system/metrics.py holds them against scikit-learn. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include "common/hash.h"
#include "nn/model.h"

#define NEAR(a, b) ck_assert_msg(fabs((a) - (b)) < 1e-6, "%s is %.9g, expected %.9g", #a, (double)(a), (double)(b))

static const float scores[] = {0.9f, 0.8f, 0.7f, 0.6f, 0.55f, 0.54f, 0.4f, 0.3f}, labels[] = {1, 0, 1, 0, 0, 0, 1, 0};
static const uint64_t groups[] = {1, 1, 1, 2, 2, 2, 2, 3};

START_TEST(group_auc_weighs_groups_by_rows_and_leaves_out_those_of_one_class) {
    /* group 1: pairs (.9 over .8), (.7 under .8): 1/2, 3 rows; group 2: .4 under all three: 0, 4 rows; group 3: one class */
    NEAR(pn_group_auc(scores, labels, groups, 8), (0.5 * 3 + 0.0 * 4) / 7);
    ck_assert(isnan(pn_group_auc(scores + 7, labels + 7, groups + 7, 1)));
    const uint64_t one[8] = {0};
    NEAR(pn_group_auc(scores, labels, one, 8), pn_auc(scores, labels, 8));
} END_TEST

START_TEST(lists_are_measured_at_their_first_k_places) {
    struct pn_ranking m = pn_rank_metrics(scores, labels, groups, 8, 2);
    ck_assert_uint_eq(m.n_groups, 2);
    NEAR(m.hit, 0.5);                                /* group 1 at place 1; group 2 at place 4 */
    NEAR(m.recall, 0.25);                            /* 1 of 2; 0 of 1 */
    NEAR(m.mrr, (1 + 0.25) / 2);
    NEAR(m.ndcg, 1 / (1 + 1 / log2(3)) / 2);         /* 1 of the best 1 + 1/log2 3; 0 */
    m = pn_rank_metrics(scores, labels, groups, 8, 10);
    NEAR(m.recall, 1);
    NEAR(m.ndcg, ((1 + 0.5) / (1 + 1 / log2(3)) + 1 / log2(5)) / 2);
    const float equal[] = {0.5f, 0.5f, 0.5f}, one[] = {1, 0, 0};
    const uint64_t g[] = {7, 7, 7};
    NEAR(pn_rank_metrics(equal, one, g, 3, 3).mrr, 1.0 / 3); /* ties stand against the positive */
} END_TEST

START_TEST(calibration_is_mean_score_over_mean_label_and_its_error_is_binned) {
    const float s[] = {0.1f, 0.2f, 0.8f, 0.9f}, y[] = {0, 1, 1, 1};
    NEAR(pn_calibration(s, y, 4), 0.5 / 0.75);
    NEAR(pn_calibration_error(s, y, 4, 2), (fabs(0.3 - 1) + fabs(1.7 - 2)) / 4);
    ck_assert(isnan(pn_calibration(s, (const float[]){0, 0, 0, 0}, 4)));
} END_TEST

START_TEST(normalised_entropy_of_the_mean_itself_is_one) {
    const float y[] = {0, 1, 0, 0, 0}, mean[] = {0.2f, 0.2f, 0.2f, 0.2f, 0.2f}, good[] = {0.1f, 0.9f, 0.1f, 0.1f, 0.1f};
    NEAR(pn_normalised_entropy(mean, y, 5), 1);
    ck_assert(pn_normalised_entropy(good, y, 5) < 0.25);
    ck_assert(isnan(pn_normalised_entropy(mean, mean + 5, 0)));
} END_TEST

/* A model that diverged: no figure of it may look good, and none may take for ever. */
START_TEST(what_is_no_number_comes_last) {
    const float none[] = {NAN, 0.2f, -NAN, 0.1f}, first[] = {1, 0, 1, 0}, numbers[] = {-INFINITY, 0.2f, -INFINITY, 0.1f};
    const uint64_t one[4] = {0};
    NEAR(pn_auc(none, first, 4), 0);
    NEAR(pn_group_auc(none, first, one, 4), 0);
    const struct pn_ranking m = pn_rank_metrics(none, first, one, 4, 2);
    ck_assert(m.hit == 0 && m.recall == 0 && m.ndcg == 0);
    NEAR(m.mrr, 1.0 / 3);
    NEAR(pn_auc(none, (const float[]){0, 0, 0, 1}, 4), 2.0 / 3);
    ck_assert(isnan(pn_log_loss(none, first, 4)) && isnan(pn_normalised_entropy(none, first, 4)) && isnan(pn_calibration(none, first, 4)) && isnan(pn_calibration_error(none, first, 4, 20)));
    /* many, mixed, in any order: as if they were the lowest there are */
    struct pn_rng g = {11};
    float s[500], low[500], y[500];
    uint64_t group[500];
    for (size_t i = 0; i < 500; i++) {
        const bool number = pn_rng_next(&g) % 3 > 0;
        low[i] = number ? (float)(pn_rng_next(&g) % 50) : -INFINITY;
        s[i] = number ? low[i] : NAN;
        y[i] = (float)(pn_rng_next(&g) % 2);
        group[i] = pn_rng_next(&g) % 40;
    }
    NEAR(pn_auc(s, y, 500), pn_auc(low, y, 500));
    NEAR(pn_group_auc(s, y, group, 500), pn_group_auc(low, y, group, 500));
    NEAR(pn_rank_metrics(s, y, group, 500, 5).ndcg, pn_rank_metrics(low, y, group, 500, 5).ndcg);
    NEAR(pn_auc(numbers, first, 4), 0);
    const float all[] = {NAN, NAN, NAN, NAN};
    NEAR(pn_auc(all, first, 4), 0.5);
} END_TEST

int main(void) {
    Suite *s = suite_create("nn");
    TCase *t = tcase_create("metrics");
    tcase_add_test(t, group_auc_weighs_groups_by_rows_and_leaves_out_those_of_one_class);
    tcase_add_test(t, lists_are_measured_at_their_first_k_places);
    tcase_add_test(t, calibration_is_mean_score_over_mean_label_and_its_error_is_binned);
    tcase_add_test(t, normalised_entropy_of_the_mean_itself_is_one);
    tcase_add_test(t, what_is_no_number_comes_last);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_set_fork_status(r, CK_NOFORK);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
