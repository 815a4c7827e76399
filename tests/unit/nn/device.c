/* What stands beside a device's kernels on the host: the inverse index, and which models are refused. tests/parity has the steps themselves. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/hash.h"
#include "nn/device.h"

START_TEST(an_inverse_names_every_entry_once_in_order_and_rows_of_several_chunks_first) {
    struct pn_rng rng = {9};
    for (int round = 0; round < 200; round++) {
        const size_t n = pn_rng_next(&rng) % 700, n_rows = 1 + pn_rng_next(&rng) % (round % 3 == 0 ? 3 : 300);
        uint32_t *rows = calloc(n + 1, 4), *id = calloc(n + 1, 4), *order = calloc(n + 1, 4), *begin = calloc(n + 2, 4), *row = calloc(n + 1, 4), *wide = calloc(n / PN_CHUNK + 2, 4),
                 *scratch = calloc(n_rows + 1, 4), counts[2], *many = calloc(n_rows, 4);
        uint8_t *seen = calloc(n + 1, 1);
        size_t there = 0, entries = 0;
        for (size_t i = 0; i < n; i++) {
            rows[i] = pn_rng_next(&rng) % 5 == 0 ? UINT32_MAX : (uint32_t)(pn_rng_next(&rng) % n_rows);
            id[i] = 100 + (uint32_t)i;
            if (rows[i] == UINT32_MAX) continue;
            there++;
            many[rows[i]]++;
        }
        pn_inverse_build(rows, id, n, n_rows, order, begin, row, wide, counts, scratch);
        for (uint32_t c = 0; c < counts[0]; c++) {
            ck_assert(begin[c] < begin[c + 1] && begin[c + 1] - begin[c] <= PN_CHUNK);
            ck_assert_int_eq(c < wide[counts[1]], many[row[c]] > PN_CHUNK);
            for (uint32_t at = begin[c]; at < begin[c + 1]; at++, entries++) {
                const uint32_t i = order[at] - 100;
                ck_assert(i < n && !seen[i] && rows[i] == row[c]);
                ck_assert(at == begin[c] || order[at - 1] < order[at]);
                seen[i] = 1;
            }
        }
        ck_assert_uint_eq(entries, there);
        for (uint32_t w = 0; w < counts[1]; w++)
            for (uint32_t c = wide[w]; c < wide[w + 1]; c++) ck_assert(row[c] == row[wide[w]] && wide[w + 1] - wide[w] == (many[row[c]] + PN_CHUNK - 1) / PN_CHUNK);
        void *all[] = {rows, id, order, begin, row, wide, scratch, many, seen};
        for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
    }
} END_TEST

START_TEST(a_model_that_a_device_cannot_compute_is_refused_with_what_to_do) {
    static struct pn_job job;
    struct pn_error err = {""};
    struct pn_device *d;
    static const struct { const char *rest, *words; } wrong[] = {
        {"    - {name: s, type: sequence, maxLength: 5, hash: {share: i}}\n  model: {name: deepfm, embeddingDim: 4, hidden: [4], sequence: {fields: [s], blocks: 1, heads: 1, width: 256}}\n",
         "heads wider than 128"},
        {"    - {name: w, type: multi, weighted: true}\n  model: {name: lr}\n", "feature \"w\" is weighted"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char text[1000];
        snprintf(text, sizeof text,
                 "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data: {train: {format: csv, uri: /x, label: y}}\n  features:\n    - {name: u, type: categorical}\n%s", wrong[i].rest);
        ck_assert_msg(pn_job_parse(&job, text, strlen(text), "t", NULL, NULL, &err) == PN_OK, "%s", err.text);
        ck_assert_int_eq(pn_device_open(&d, &pn_backend_cpu, 0, &job, 0, &err), PN_REFUSED);
        ck_assert_msg(strstr(err.text, wrong[i].words) != NULL && strstr(err.text, "device: cpu") != NULL, "%s", err.text);
        pn_job_free(&job);
    }
} END_TEST

int main(void) {
    Suite *s = suite_create("device");
    TCase *c = tcase_create("device");
    tcase_add_test(c, an_inverse_names_every_entry_once_in_order_and_rows_of_several_chunks_first);
    tcase_add_test(c, a_model_that_a_device_cannot_compute_is_refused_with_what_to_do);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    const int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed > 0;
}
