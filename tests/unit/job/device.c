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
    static const struct { const char *text; enum pn_device_kind kind; uint64_t devices; enum pn_precision precision; const char *printed; } cases[] = {
        {"epochs: 1", PN_DEVICE_AUTO, 0, PN_FLOAT32, "auto"}, {"device: auto, precision: tf32", PN_DEVICE_AUTO, 0, PN_TF32, "auto"}, {"device: cpu", PN_DEVICE_CPU, 0, PN_FLOAT32, "cpu"},
        {"device: cuda, precision: bfloat16", PN_DEVICE_CUDA, 1, PN_BFLOAT16, "cuda:0"}, {"device: \"cuda:7\", precision: float16", PN_DEVICE_CUDA, 1 << 7, PN_FLOAT16, "cuda:7"},
        {"device: \"cuda:0,1\"", PN_DEVICE_CUDA, 3, PN_FLOAT32, "cuda:0,1"}, {"device: \"cuda:63,2,0\"", PN_DEVICE_CUDA, 1ull << 63 | 5, PN_FLOAT32, "cuda:0,2,63"},
        {"device: \"cuda:all\"", PN_DEVICE_CUDA, PN_ALL_DEVICES, PN_FLOAT32, "cuda:all"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        static struct pn_job job, again;
        struct pn_error err = {""};
        ck_assert_msg(parse(&job, cases[i].text, &err) == PN_OK, "%s", err.text);
        ck_assert(job.device == cases[i].kind && job.devices == cases[i].devices && job.precision == cases[i].precision);
        char *text = pn_job_text(&job), device[PN_DEVICE_TEXT];
        ck_assert_str_eq(pn_job_device_text(&job, device), cases[i].printed);
        ck_assert(pn_job_several_devices(&job) == (strchr(cases[i].printed, ',') != NULL || strcmp(cases[i].printed, "cuda:all") == 0));
        ck_assert_msg(pn_job_parse(&again, text, strlen(text), "t", NULL, NULL, &err) == PN_OK, "%s in %s", err.text, text);
        ck_assert(again.device == cases[i].kind && again.devices == cases[i].devices && again.precision == cases[i].precision);
        free(text);
        pn_job_free(&job);
        pn_job_free(&again);
    }
} END_TEST

START_TEST(impossible_devices_are_named) {
    static const char *const wrong[][2] = {{"device: gpu", "device \"gpu\" is unknown; allowed: auto, cpu, cuda:N"}, {"device: \"cuda:x\"", "device \"cuda:x\" is unknown"},
                                           {"device: \"cuda:64\"", "cuda:0 to cuda:63"}, {"device: \"cuda:1x\"", "cuda:0 to cuda:63"}, {"precision: int8", "int8"},
                                           {"device: cpu, precision: tf32", "on a GPU only"}, {"device: \"cuda:\"", "device \"cuda:\" is unknown"}, {"device: \"cuda:0,\"", "several are cuda:0,1 or cuda:all"},
                                           {"device: \"cuda:0,,1\"", "several are cuda:0,1"}, {"device: \"cuda:0,64\"", "cuda:0 to cuda:63"}, {"device: \"cuda:0, 1\"", "several are cuda:0,1"},
                                           {"device: \"cuda:1,0,1\"", "has cuda:1 twice"}, {"device: \"cuda:any\"", "device \"cuda:any\" is unknown"}, {"device: \"cuda:alle\"", "is unknown"},
                                           {"device: \"cuda:18446744073709551616\"", "cuda:0 to cuda:63"}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        static struct pn_job job;
        struct pn_error err = {""};
        ck_assert_int_eq(parse(&job, wrong[i][0], &err), PN_INVALID);
        ck_assert_msg(strstr(err.text, wrong[i][1]) != NULL, "%s: %s", wrong[i][0], err.text);
    }
} END_TEST

START_TEST(what_several_devices_cannot_share_is_refused_with_the_reason) {
    static const struct { const char *features, *model, *data, *training, *line; } wrong[] = {
        {"{name: u, type: categorical}", "deepfm, embeddingDim: 4, hidden: [4], norm: batch", "format: csv, uri: /x, label: y", "epochs: 1", "batch norm takes its statistics of the whole batch"},
        {"{name: u, type: categorical}", "lr", "format: csv, uri: /x, label: y", "deviceCache: {rows: 10, staleness: 1}", "deviceCache keeps rows on one device"},
        {"{name: u, type: categorical, table: a}, {name: i, type: categorical, table: b}", "mf, embeddingDim: 4, bias: false", "format: ncf, uri: /x", "loss: {name: in-batch-softmax}",
         "in-batch-softmax holds each example against the whole batch"},
        {"{name: h, type: sequence, maxLength: 5, hash: {share: i}}, {name: t, type: sequence, maxLength: 5, hash: {share: i}}, {name: q, type: sequence, maxLength: 5, hash: {share: i}}",
         "sasrec, embeddingDim: 4, sequence: {fields: [h], target: t, negatives: q, loss: softmax, blocks: 1, heads: 1}", "format: sasrec, uri: /x, part: train, history: 5", "epochs: 1",
         "sequence.loss: softmax holds each example"}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        for (int k = 0; k < 4; k++) { /* with one device all of them go */
            static struct pn_job job;
            struct pn_error err = {""};
            char text[1500];
            const char *device = (const char *const[]){"cuda:1", "auto", "cuda:0,1", "cuda:all"}[k];
            snprintf(text, sizeof text, "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data: {train: {%s}}\n  features: [%s]\n  model: {name: %s}\n  training: {device: \"%s\", %s}\n",
                     wrong[i].data, wrong[i].features, wrong[i].model, device, wrong[i].training);
            const enum pn_result r = pn_job_parse(&job, text, strlen(text), "t", NULL, NULL, &err);
            if (k < 2) {
                ck_assert_msg(r == PN_OK, "%s: %s", text, err.text);
                pn_job_free(&job);
            } else ck_assert_msg(r == PN_INVALID && strstr(err.text, wrong[i].line) != NULL && strchr(err.text, '\n') == NULL, "%s: %s", text, err.text);
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
    tcase_add_test(c, what_several_devices_cannot_share_is_refused_with_the_reason);
    tcase_add_test(c, a_device_cache_is_read_printed_and_read_again);
    tcase_add_test(c, impossible_device_caches_are_named);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    const int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed > 0;
}
