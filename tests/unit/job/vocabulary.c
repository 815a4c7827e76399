/* bucketize: {quantiles} and vocabulary in the job file. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "job/job.h"

#define HEAD "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data: {train: {format: csv, uri: /x, label: y}}\n  features:\n"
#define TAIL "  model: {name: lr}\n"

static enum pn_result parse(struct pn_job *job, const char *text, char **report) {
    struct pn_error err = {""};
    *report = NULL;
    return pn_job_parse(job, text, strlen(text), "job.yaml", "/base", report, &err);
}

START_TEST(quantiles_and_vocabularies_printed_and_read_again_are_the_same) {
    static struct pn_job j, again;
    char *report;
    ck_assert_msg(parse(&j, HEAD "    - {name: n, type: numeric, clip: [0, 9], transform: [log1p], bucketize: {quantiles: 20, rows: 5000}}\n"
                                 "    - {name: item, type: categorical, vocabulary: {minCount: 5, maxSize: 1000, rows: 77, oov: 3}}\n"
                                 "    - {name: past, type: multi, hash: {share: item}, vocabulary: {of: item}}\n"
                                 "    - {name: city, type: categorical, vocabulary: {values: [Bern, \"a \\\"b\\\" \\\\c\", 12]}}\n"
                                 "    - {name: tags, type: multi, vocabulary: {file: tags.txt, oov: 2}}\n"
                                 "    - {name: all, type: categorical, vocabulary: {}}\n"
                                 "    - {name: both, type: cross, of: [n, city]}\n" TAIL, &report) == PN_OK, "%s", report != NULL ? report : "");
    char *text = pn_job_text(&j);
    ck_assert_msg(parse(&again, text, &report) == PN_OK, "%s\n%s", report != NULL ? report : "", text);
    char *twice = pn_job_text(&again);
    ck_assert_str_eq(text, twice);
    const struct pn_field *f = again.fields;
    ck_assert(f[0].quantiles == 20 && f[0].quantile_rows == 5000 && f[0].n_boundaries == 0 && pn_field_keyed(&f[0]));
    ck_assert(f[1].vocabulary.kind == PN_VOCABULARY_COUNTED && f[1].vocabulary.min_count == 5 && f[1].vocabulary.max_size == 1000 && f[1].vocabulary.rows == 77 && f[1].vocabulary.oov == 3);
    ck_assert(f[2].vocabulary.kind == PN_VOCABULARY_OF && f[2].vocabulary.of == 1 && f[2].vocabulary.oov == 3);
    ck_assert_str_eq(f[3].vocabulary.values, "Bern\na \"b\" \\c\n12\n");
    ck_assert(f[4].vocabulary.kind == PN_VOCABULARY_FILE && f[4].vocabulary.oov == 2);
    ck_assert_str_eq(f[4].vocabulary.path, "/base/tags.txt");
    ck_assert(f[5].vocabulary.kind == PN_VOCABULARY_COUNTED && f[5].vocabulary.min_count == 1 && f[5].vocabulary.rows == 0 && f[5].vocabulary.oov == 1);
    ck_assert(pn_field_files(&f[1]) && pn_field_files(&f[4]) && !pn_field_files(&f[2]) && !pn_field_files(&f[3]) && pn_job_prepares(&again));
    free(text);
    free(twice);
    pn_job_free(&j);
    pn_job_free(&again);
} END_TEST

START_TEST(what_makes_no_sense_is_said) {
    static const struct { const char *feature, *says; } bad[] = {
        {"{name: n, type: numeric, bucketize: {quantiles: 1}}", "quantiles"},
        {"{name: n, type: numeric, bucketize: {quantiles: 1001}}", "quantiles"},
        {"{name: n, type: numeric, bucketize: {rows: 5}}", "bucketize needs quantiles"},
        {"{name: n, type: numeric, bucketize: 20}", "or {quantiles: N}"},
        {"{name: n, type: numeric, transform: [standardize], bucketize: {quantiles: 4}}", "not by standardize"},
        {"{name: n, type: numeric, criteoLog: true, bucketize: {quantiles: 4}}", "criteoLog stands alone"},
        {"{name: n, type: numeric, vocabulary: {}}", "vocabulary has no meaning for a numeric feature"},
        {"{name: c, type: categorical, vocabulary: {minCount: 0}}", "minCount"},
        {"{name: c, type: categorical, vocabulary: {oov: 0}}", "oov"},
        {"{name: c, type: categorical, vocabulary: {maxSize: 16777217}}", "maxSize"},
        {"{name: c, type: categorical, vocabulary: {mincount: 2}}", "minCount"},
        {"{name: c, type: categorical, vocabulary: {values: [a, b, a]}}", "\"a\" stands twice"},
        {"{name: c, type: categorical, vocabulary: {values: []}}", "a list of 1 to"},
        {"{name: c, type: categorical, vocabulary: {values: [\"\"]}}", "empty or too long"},
        {"{name: c, type: categorical, vocabulary: {values: [\"a\\nb\"]}}", "no line break"},
        {"{name: c, type: categorical, vocabulary: {values: [a], file: /v}}", "one source"},
        {"{name: c, type: categorical, vocabulary: {file: /v, minCount: 2}}", "minCount is for a vocabulary that is counted"},
        {"{name: c, type: categorical, buckets: 10, vocabulary: {}}", "buckets do not go together"},
        {"{name: c, type: categorical, vocabulary: {of: nobody}}", "no earlier feature of that name"},
        {"{name: c, type: categorical, vocabulary: {of: first}}", "must share their keys"},
        {"{name: c, type: categorical, hash: {share: first}, vocabulary: {of: first, oov: 2}}", "has oov: 1; here it is 2"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        static struct pn_job j;
        char text[1000], *report;
        snprintf(text, sizeof text, HEAD "    - {name: first, type: categorical, vocabulary: {}}\n    - %s\n" TAIL, bad[i].feature);
        ck_assert_int_eq(parse(&j, text, &report), PN_INVALID);
        ck_assert_msg(report != NULL && strstr(report, bad[i].says) != NULL, "%zu: %s", i, report != NULL ? report : "");
        free(report);
    }
} END_TEST

START_TEST(a_private_job_counts_nothing_without_noise) {
    static const struct { const char *feature, *says; } bad[] = {
        {"{name: c, type: categorical, vocabulary: {minCount: 2}}", "the vocabulary of feature \"c\""}, {"{name: n, type: numeric, bucketize: {quantiles: 4}}", "the quantiles of feature \"n\""}};
    for (size_t i = 0; i < 2; i++) {
        static struct pn_job j;
        char text[1000], *report;
        snprintf(text, sizeof text, HEAD "    - %s\n" TAIL "  training: {dataShards: 1, batchSize: 10}\n  privacy: {rows: 1000, epsilon: 1, delta: 1e-5, dataset: d, selection: dense}\n", bad[i].feature);
        ck_assert_int_eq(parse(&j, text, &report), PN_INVALID);
        ck_assert_msg(report != NULL && strstr(report, bad[i].says) != NULL, "%s", report != NULL ? report : "");
        free(report);
    }
} END_TEST

int main(void) {
    Suite *s = suite_create("vocabulary");
    TCase *t = tcase_create("job");
    tcase_add_test(t, quantiles_and_vocabularies_printed_and_read_again_are_the_same);
    tcase_add_test(t, what_makes_no_sense_is_said);
    tcase_add_test(t, a_private_job_counts_nothing_without_noise);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    const int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed > 0;
}
