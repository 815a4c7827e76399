/* A producer's part of a stream's windows. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/progress.h"
#include "worker/internal.h"

static struct pn_job *job(const char *segment) {
    static struct pn_job j;
    j.batch_size = 10;
    j.stream.window = 50;
    snprintf(j.stream.segment, sizeof j.stream.segment, "%s", segment);
    return &j;
}

/* One column `s` with these values. */
static struct pn_raw raw_of(const char *const *values, size_t n) {
    static const char *const names[] = {"s"};
    static char text[8000];
    static uint32_t offset[100], length[100];
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        offset[i] = (uint32_t)at;
        length[i] = (uint32_t)strlen(values[i]);
        memcpy(text + at, values[i], length[i]);
        at += length[i];
    }
    return (struct pn_raw){.n_rows = n, .n_columns = 1, .names = names, .text = text, .offset = offset, .length = length};
}
static const float scores[100] = {0.5f, 0.25f}, labels[100] = {1};

START_TEST(a_window_ends_with_its_last_step_and_beats_keep_the_newest_eight) {
    static const uint8_t none[10];
    struct pn_windows *w = pn_windows_open(job(""), 2); /* 50 rows are 3 steps of two producers with batches of 10 */
    for (uint64_t step = 1; step <= 30; step++) ck_assert(pn_windows_add(w, step, false, scores, labels, none, 10) == (step % 3 == 0));
    ck_assert(pn_windows_add(w, 31, true, scores, labels, none, 4));
    struct json_object *list = pn_windows_json(w);
    ck_assert_uint_eq(pn_json_length(list), 8);
    for (size_t i = 0; i < 8; i++) {
        struct pn_progress *p = calloc(1, sizeof *p);
        ck_assert_uint_eq(pn_json_u64(pn_json_at(list, i), "window", 99), i + 3);
        ck_assert(pn_json_bool(pn_json_at(list, i), "last", false) == (i == 7));
        ck_assert(pn_progress_read(p, pn_json_get(pn_json_at(list, i), "all")));
        ck_assert_uint_eq(p->rows, i == 7 ? 4 : 30);
        free(p);
    }
    json_object_put(list);
    pn_windows_close(w);
} END_TEST

START_TEST(any_bytes_as_a_segment_make_a_beat_that_can_be_read) {
    char longest[66] = "";
    memset(longest, 'a', 62);
    strcat(longest, "\xc3\xbc"); /* cut in the middle of a character */
    const char *values[] = {"Z\xc3\xbcrich", "Z\xfcrich", "\xff\xfe", "", "quote\"\\\n", longest, "\xe2\x82", "\xf0\x9f\x98\x80"};
    struct pn_windows *w = pn_windows_open(job("s"), 1);
    struct pn_error err = {""};
    struct pn_raw raw = raw_of(values, 8);
    uint8_t *segments = pn_windows_segments(w, &raw, &err);
    ck_assert_msg(segments != NULL, "%s", err.text);
    ck_assert(pn_windows_add(w, 1, true, scores, labels, segments, 8));
    struct json_object *list = pn_windows_json(w), *back;
    const char *text = pn_json_text(list);
    ck_assert_msg((back = pn_json_parse(text, strlen(text), &err)) != NULL, "%s", err.text);
    struct json_object *by = pn_json_get(pn_json_at(back, 0), "segments");
    ck_assert_int_eq(json_object_object_length(by), 7); /* two of them are "??" */
    ck_assert(pn_json_get(by, "Z\xc3\xbcrich") != NULL && pn_json_get(by, "Z?rich") != NULL && pn_json_get(by, "(missing)") != NULL && pn_json_get(by, "\xf0\x9f\x98\x80") != NULL);
    json_object_put(back);
    json_object_put(list);
    free(segments);
    pn_windows_close(w);
} END_TEST

START_TEST(beyond_32_values_go_together_and_a_missing_column_is_named) {
    char text[40][8];
    const char *values[40];
    for (int i = 0; i < 40; i++) {
        snprintf(text[i], sizeof text[i], "v%d", i);
        values[i] = text[i];
    }
    struct pn_windows *w = pn_windows_open(job("s"), 1);
    struct pn_error err = {""};
    struct pn_raw raw = raw_of(values, 40);
    uint8_t *segments = pn_windows_segments(w, &raw, &err);
    ck_assert(pn_windows_add(w, 1, true, scores, labels, segments, 40));
    struct json_object *list = pn_windows_json(w), *by = pn_json_get(pn_json_at(list, 0), "segments");
    struct pn_progress *p = calloc(1, sizeof *p);
    ck_assert_int_eq(json_object_object_length(by), 33);
    ck_assert(pn_progress_read(p, pn_json_get(by, "(other)")));
    ck_assert_uint_eq(p->rows, 8);
    free(p);
    free(segments);
    json_object_put(list);
    pn_windows_close(w);
    w = pn_windows_open(job("t"), 1);
    ck_assert(pn_windows_segments(w, &raw, &err) == NULL);
    ck_assert_str_eq(err.text, "stream.segment: the training data has no column \"t\"");
    pn_windows_close(w);
} END_TEST

int main(void) {
    Suite *s = suite_create("windows");
    TCase *t = tcase_create("windows");
    tcase_add_test(t, a_window_ends_with_its_last_step_and_beats_keep_the_newest_eight);
    tcase_add_test(t, any_bytes_as_a_segment_make_a_beat_that_can_be_read);
    tcase_add_test(t, beyond_32_values_go_together_and_a_missing_column_is_named);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
