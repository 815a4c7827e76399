/* training.device and training.precision: read, printed and read again the same; mistakes named. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "job/job.h"

static enum pn_result parse(struct pn_job *job, const char *training, struct pn_error *err) {
    char text[600];
    snprintf(text, sizeof text,
             "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data: {train: {format: csv, uri: /x, label: y}}\n  features: [{name: u, type: categorical}]\n"
             "  model: {name: lr}\n  training: {%s}\n", training);
    return pn_job_parse(job, text, strlen(text), "t", NULL, NULL, err);
}

START_TEST(a_device_and_a_precision_are_read_printed_and_read_again) {
    static const struct { const char *text; enum pn_device_kind kind; uint32_t number; enum pn_precision precision; } cases[] = {
        {"epochs: 1", PN_DEVICE_AUTO, 0, PN_FLOAT32}, {"device: auto, precision: tf32", PN_DEVICE_AUTO, 0, PN_TF32}, {"device: cpu", PN_DEVICE_CPU, 0, PN_FLOAT32},
        {"device: cuda, precision: bfloat16", PN_DEVICE_CUDA, 0, PN_BFLOAT16}, {"device: \"cuda:7\", precision: float16", PN_DEVICE_CUDA, 7, PN_FLOAT16}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        static struct pn_job job, again;
        struct pn_error err = {""};
        ck_assert_msg(parse(&job, cases[i].text, &err) == PN_OK, "%s", err.text);
        ck_assert(job.device == cases[i].kind && job.device_number == cases[i].number && job.precision == cases[i].precision);
        char *text = pn_job_text(&job);
        ck_assert_msg(pn_job_parse(&again, text, strlen(text), "t", NULL, NULL, &err) == PN_OK, "%s in %s", err.text, text);
        ck_assert(again.device == cases[i].kind && again.device_number == cases[i].number && again.precision == cases[i].precision);
        free(text);
        pn_job_free(&job);
        pn_job_free(&again);
    }
} END_TEST

START_TEST(impossible_devices_are_named) {
    static const char *const wrong[][2] = {{"device: gpu", "device \"gpu\" is unknown; allowed: auto, cpu, cuda:N"}, {"device: \"cuda:x\"", "device \"cuda:x\" is unknown"},
                                           {"device: \"cuda:64\"", "cuda:0 to cuda:63"}, {"device: \"cuda:1x\"", "cuda:0 to cuda:63"}, {"precision: int8", "int8"},
                                           {"device: cpu, precision: tf32", "on a GPU only"}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        static struct pn_job job;
        struct pn_error err = {""};
        ck_assert_int_eq(parse(&job, wrong[i][0], &err), PN_INVALID);
        ck_assert_msg(strstr(err.text, wrong[i][1]) != NULL, "%s: %s", wrong[i][0], err.text);
    }
} END_TEST

START_TEST(a_device_cache_is_read_printed_and_read_again) {
    static struct pn_job job, again;
    struct pn_error err = {""};
    ck_assert_msg(parse(&job, "deviceCache: {rows: 5000, staleness: 4}, consistency: {mode: ssp, staleness: 3}", &err) == PN_OK, "%s", err.text);
    ck_assert(job.cache_rows == 5000 && job.cache_staleness == 4 && job.staleness == 3);
    char *text = pn_job_text(&job);
    ck_assert_msg(pn_job_parse(&again, text, strlen(text), "t", NULL, NULL, &err) == PN_OK, "%s in %s", err.text, text);
    ck_assert(again.cache_rows == 5000 && again.cache_staleness == 4);
    free(text);
    pn_job_free(&job);
    pn_job_free(&again);
    ck_assert_int_eq(parse(&job, "deviceCache: {rows: 5000, staleness: 0}, consistency: {mode: sync}", &err), PN_OK); /* every row is pulled each step: the bits of a job without */
    ck_assert(job.cache_rows == 5000 && job.cache_staleness == 0);
    pn_job_free(&job);
} END_TEST

START_TEST(impossible_device_caches_are_named) {
    static const char *const wrong[][2] = {{"deviceCache: {rows: 5000}", "deviceCache needs rows (of each table) and staleness (steps)"}, {"deviceCache: {rows: 0, staleness: 1}", "rows"},
                                           {"deviceCache: {rows: 9, staleness: 1, bytes: 3}", "bytes"}, {"device: cpu, deviceCache: {rows: 9, staleness: 1}", "on a GPU only"},
                                           {"deviceCache: {rows: 9, staleness: 1}, consistency: {mode: sync}", "deviceCache.staleness: 0, or consistency.mode async or ssp"}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        static struct pn_job job;
        struct pn_error err = {""};
        ck_assert_int_eq(parse(&job, wrong[i][0], &err), PN_INVALID);
        ck_assert_msg(strstr(err.text, wrong[i][1]) != NULL, "%s: %s", wrong[i][0], err.text);
    }
} END_TEST

int main(void) {
    Suite *s = suite_create("device");
    TCase *c = tcase_create("device");
    tcase_add_test(c, a_device_and_a_precision_are_read_printed_and_read_again);
    tcase_add_test(c, impossible_devices_are_named);
    tcase_add_test(c, a_device_cache_is_read_printed_and_read_again);
    tcase_add_test(c, impossible_device_caches_are_named);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    const int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed > 0;
}
