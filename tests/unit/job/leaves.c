/* A feature of type leaves in the job file. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "job/job.h"

#define HEAD "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data: {train: {format: csv, uri: /x, label: y}}\n  features:\n"

static enum pn_result parse(struct pn_job *job, const char *text, char **report) {
    struct pn_error err = {""};
    *report = NULL;
    return pn_job_parse(job, text, strlen(text), "job.yaml", NULL, report, &err);
}

START_TEST(a_leaves_feature_printed_and_read_again_is_the_same) {
    static struct pn_job j, again;
    char *report;
    ck_assert_int_eq(parse(&j, HEAD "    - {name: n, type: numeric}\n    - {name: l, type: leaves, table: l, trees: 7, depth: 3, minCount: 4, rows: 500, rate: 0.125, l2: 2.5, minWeight: 1.5, "
                                    "rowShare: 0.75, columnShare: 0.25}\n  model: {name: gbdt+lr}\n", &report), PN_OK);
    char *text = pn_job_text(&j);
    ck_assert_int_eq(parse(&again, text, &report), PN_OK);
    char *twice = pn_job_text(&again);
    ck_assert_str_eq(text, twice);
    const struct pn_forest_spec *s = &again.forest;
    ck_assert(s->wanted && again.model == PN_MODEL_LR && again.fields[1].type == PN_FIELD_LEAVES);
    ck_assert(s->trees == 7 && s->depth == 3 && s->min_count == 4 && s->rows == 500);
    ck_assert(s->rate == 0.125f && s->l2 == 2.5f && s->min_weight == 1.5f && s->row_share == 0.75f && s->column_share == 0.25f);
    free(text);
    free(twice);
    pn_job_free(&j);
    pn_job_free(&again);
} END_TEST

START_TEST(what_a_leaves_feature_lacks_is_said) {
    static const struct { const char *text, *says; } bad[] = {
        {HEAD "    - {name: n, type: numeric}\n  model: {name: gbdt+lr}\n", "gbdt+lr needs a feature of type leaves"},
        {HEAD "    - {name: g, type: multi}\n    - {name: l, type: leaves}\n  model: {name: lr}\n", "leaves need a numeric or categorical feature"},
        {HEAD "    - {name: n, type: numeric}\n    - {name: l, type: leaves}\n    - {name: m, type: leaves}\n  model: {name: lr}\n", "one feature of type leaves"},
        {HEAD "    - {name: n, type: numeric, trees: 3}\n  model: {name: lr}\n", "trees has no meaning for a numeric feature"},
        {HEAD "    - {name: n, type: numeric}\n    - {name: l, type: leaves, depth: 11}\n  model: {name: lr}\n", "depth"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        static struct pn_job j;
        char *report;
        ck_assert_int_eq(parse(&j, bad[i].text, &report), PN_INVALID);
        ck_assert_msg(report != NULL && strstr(report, bad[i].says) != NULL, "%zu: %s", i, report != NULL ? report : "");
        free(report);
    }
} END_TEST

int main(void) {
    Suite *s = suite_create("leaves");
    TCase *t = tcase_create("job");
    tcase_add_test(t, a_leaves_feature_printed_and_read_again_is_the_same);
    tcase_add_test(t, what_a_leaves_feature_lacks_is_said);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    const int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed > 0;
}
