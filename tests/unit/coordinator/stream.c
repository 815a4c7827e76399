/* Windows of a stream: which beats they may come in, and when they are complete; the guard. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/progress.h"
#include "coordinator/internal.h"

static void no_log(struct pn_env *e, enum pn_log_level l, const char *line) { (void)e; (void)l; (void)line; }
static uint64_t no_time(struct pn_env *e) { (void)e; return 0; }
static const struct pn_env_ops ops = {.log = no_log, .now_ns = no_time};
static struct pn_env env = {&ops};
static struct pn_coordinator *C;
static struct pn_job_run *J;

static void open_job(uint32_t producers, double rate, double calibration) {
    C = calloc(1, sizeof *C);
    J = calloc(1, sizeof *J);
    C->env = &env;
    J->n_producers = producers;
    J->state = PN_RUNNING;
    J->job.stream = (struct pn_stream_spec){.window = 10, .guard_rate = rate, .guard_calibration = calibration, .guard_after = 3};
}
static void close_job(void) {
    pn_stream_free(J);
    free(J);
    free(C);
}

/* A window of n rows, `positives` of them 1, all scored `score`. */
static struct json_object *window(uint64_t index, bool last, int n, int positives, float score) {
    struct pn_progress *p = calloc(1, sizeof *p);
    struct json_object *o = json_object_new_object(), *segments = json_object_new_object();
    for (int i = 0; i < n; i++) pn_progress_add(p, score, i < positives);
    pn_json_add_u64(o, "window", index);
    pn_json_add_bool(o, "last", last);
    pn_json_add(o, "all", pn_progress_json(p));
    pn_json_add(segments, "s", pn_progress_json(p));
    pn_json_add(o, "segments", segments);
    free(p);
    return o;
}
/* A beat of a producer with these windows (taken). */
static void beat(uint32_t producer, struct json_object *a, struct json_object *b) {
    struct json_object *list = json_object_new_array();
    json_object_array_add(list, a);
    if (b != NULL) json_object_array_add(list, b);
    pn_stream_take(C, J, producer, list);
    pn_stream_step(C, J);
    json_object_put(list);
}
static size_t n_windows(void) { return pn_json_length(J->stream.history); }
static struct json_object *last_window(void) { return pn_json_at(J->stream.history, n_windows() - 1); }

START_TEST(a_window_is_complete_when_all_have_said_it_and_counts_once) {
    open_job(2, 0, 0);
    beat(0, window(0, false, 10, 4, 0.5f), NULL);
    ck_assert_uint_eq(n_windows(), 0);
    beat(0, window(0, false, 10, 4, 0.5f), window(1, false, 10, 4, 0.5f)); /* beats repeat */
    beat(1, window(0, false, 10, 2, 0.25f), NULL);
    ck_assert_uint_eq(n_windows(), 1);
    beat(1, window(0, false, 10, 2, 0.25f), NULL);
    ck_assert_uint_eq(n_windows(), 1);
    ck_assert_uint_eq(pn_json_u64(last_window(), "rows", 0), 20);
    ck_assert_double_eq_tol(pn_json_double(last_window(), "label_rate", 0), 0.3, 1e-12);
    ck_assert_double_eq_tol(pn_json_double(last_window(), "calibration", 0), 7.5 / 6, 1e-9);
    ck_assert_double_eq_tol(pn_json_double(last_window(), "auc", 0), (4 * 8 + 0.5 * (4 * 6 + 2 * 8)) / (6.0 * 14), 1e-12);
    ck_assert_uint_eq(pn_json_u64(pn_json_get(pn_json_get(last_window(), "segments"), "s"), "rows", 0), 20);
    close_job();
} END_TEST

START_TEST(a_window_that_a_lost_beat_took_does_not_hold_up_the_others) {
    open_job(2, 0, 0);
    beat(0, window(0, false, 10, 4, 0.5f), window(1, false, 10, 4, 0.5f));
    beat(1, window(1, false, 10, 4, 0.5f), NULL); /* its window 0 never came */
    ck_assert_uint_eq(n_windows(), 2);
    ck_assert_uint_eq(pn_json_u64(pn_json_at(J->stream.history, 0), "rows", 0), 10);
    ck_assert_uint_eq(pn_json_u64(last_window(), "samples", 0), 30);
    close_job();
} END_TEST

START_TEST(who_has_ended_is_not_waited_for) {
    open_job(2, 0, 0);
    beat(1, window(0, true, 3, 1, 0.5f), NULL);
    beat(0, window(0, false, 10, 4, 0.5f), window(1, true, 10, 4, 0.5f));
    ck_assert_uint_eq(n_windows(), 2);
    close_job();
} END_TEST

START_TEST(what_has_no_place_among_the_segments_is_in_other) {
    open_job(2, 0, 0);
    for (uint32_t p = 0; p < 2; p++) {
        struct json_object *o = window(0, false, 10, 4, 0.5f), *by = json_object_new_object(), *sums = pn_json_get(o, "all");
        for (int i = 0; i < 32; i++) {
            char name[16];
            snprintf(name, sizeof name, "p%u-%d", p, i);
            pn_json_add(by, name, json_object_get(sums));
        }
        pn_json_add(by, "(other)", json_object_get(sums));
        pn_json_add(o, "segments", by);
        beat(p, o, NULL);
    }
    struct json_object *by = pn_json_get(last_window(), "segments");
    ck_assert_int_eq(json_object_object_length(by), 33);
    ck_assert_uint_eq(pn_json_u64(pn_json_get(by, "p0-31"), "rows", 0), 10);
    ck_assert_uint_eq(pn_json_u64(pn_json_get(by, "(other)"), "rows", 0), 10 + 32 * 10 + 10);
    close_job();
} END_TEST

START_TEST(a_history_that_was_loaded_goes_on_behind_its_last_window) {
    open_job(1, 0, 0);
    beat(0, window(0, false, 10, 4, 0.5f), window(1, false, 10, 4, 0.5f));
    struct json_object *history = json_object_get(J->stream.history);
    close_job();
    open_job(1, 0, 0);
    pn_stream_load(J, history);
    json_object_put(history);
    pn_stream_again(J); /* the producers go back behind window 1 */
    beat(0, window(1, false, 6, 1, 0.5f), window(2, false, 10, 4, 0.5f));
    ck_assert_uint_eq(n_windows(), 3);
    ck_assert_uint_eq(pn_json_u64(last_window(), "window", 0), 2);
    ck_assert_uint_eq(pn_json_u64(last_window(), "samples", 0), 30);
    close_job();
} END_TEST

/* Windows of label rate .4 and calibration 1.25, then this one; what became of the job. */
static const struct { double rate, calibration; int n, positives; float score; int before; bool ends; } jumps[] = {
    {2, 0, 10, 1, 0.5f, 5, true},   {2, 0, 10, 9, 0.5f, 5, true},   {2, 0, 10, 3, 0.5f, 5, false}, {2, 0, 10, 0, 0.5f, 5, true},   {2, 0, 10, 1, 0.5f, 2, false},
    {2, 0, 4, 0, 0.5f, 5, false},   {0, 1.5, 10, 4, 0.9f, 5, true}, {0, 1.5, 10, 4, 0.2f, 5, true}, {0, 1.5, 10, 4, 0.6f, 5, false}, {0, 1.5, 10, 0, 0.5f, 5, true},
};
START_TEST(the_guard_ends_the_job_at_a_jump_and_not_before_it_has_a_measure) {
    open_job(1, jumps[_i].rate, jumps[_i].calibration);
    for (int i = 0; i < jumps[_i].before; i++) beat(0, window((uint64_t)i, false, 10, 4, 0.5f), NULL);
    ck_assert_int_eq(J->state, PN_RUNNING);
    beat(0, window((uint64_t)jumps[_i].before, false, jumps[_i].n, jumps[_i].positives, jumps[_i].score), NULL);
    ck_assert_int_eq(J->state, jumps[_i].ends ? PN_JOB_FAILED : PN_RUNNING);
    if (jumps[_i].ends) ck_assert_msg(strncmp(J->reason, "stream.guard: the ", 18) == 0, "%s", J->reason);
    close_job();
} END_TEST

START_TEST(metrics_show_the_newest_window_and_never_half_of_it) {
    static char text[4000];
    open_job(1, 0, 0);
    ck_assert_uint_eq(pn_stream_metrics(J, text, sizeof text), 0);
    strcpy(J->id, "job-1");
    beat(0, window(0, false, 10, 5, 0.5f), NULL);
    const size_t n = pn_stream_metrics(J, text, sizeof text);
    ck_assert_uint_eq(n, strlen(text));
    ck_assert(strstr(text, "pinion_stream_label_rate{job=\"job-1\",segment=\"\"} 0.5\n") != NULL && strstr(text, "pinion_stream_ne{job=\"job-1\",segment=\"s\"} 1\n") != NULL);
    for (size_t room = 0; room <= n; room++) ck_assert_uint_eq(pn_stream_metrics(J, text, room), 0);
    ck_assert_uint_eq(pn_stream_metrics(J, text, n + 1), n);
    close_job();
} END_TEST

int main(void) {
    Suite *s = suite_create("stream");
    TCase *t = tcase_create("stream");
    tcase_add_test(t, a_window_is_complete_when_all_have_said_it_and_counts_once);
    tcase_add_test(t, a_window_that_a_lost_beat_took_does_not_hold_up_the_others);
    tcase_add_test(t, who_has_ended_is_not_waited_for);
    tcase_add_test(t, what_has_no_place_among_the_segments_is_in_other);
    tcase_add_test(t, a_history_that_was_loaded_goes_on_behind_its_last_window);
    tcase_add_loop_test(t, the_guard_ends_the_job_at_a_jump_and_not_before_it_has_a_measure, 0, sizeof jumps / sizeof *jumps);
    tcase_add_test(t, metrics_show_the_newest_window_and_never_half_of_it);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
