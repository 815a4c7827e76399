/* Several devices as one, where something fails: a group that cannot be made, and a device that stops while others wait for it. tests/parity/devices.c has the steps themselves. */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include "nn/device_inside.h"
#include "nn/devices.h"

static struct pn_job job;
static void open_job(void) {
    struct pn_error err = {""};
    const char *text = "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data: {train: {format: csv, uri: /x, label: y}}\n  features: [{name: u, type: categorical}]\n"
                       "  model: {name: deepfm, embeddingDim: 4, hidden: [4]}\n";
    ck_assert_msg(pn_job_parse(&job, text, strlen(text), "t", NULL, NULL, &err) == PN_OK, "%s", err.text);
}

static int n_opened, n_closed, n_left, n_broken, n_finished_before_leaving;
static struct pn_ctx *opened[4];
static enum pn_result open_(struct pn_ctx **c, size_t device, enum pn_precision precision, struct pn_error *err) {
    const enum pn_result r = pn_backend_cpu.open(c, device, precision, err);
    opened[n_opened++] = *c;
    return r;
}
static void close_(struct pn_ctx *c) {
    n_closed++;
    pn_backend_cpu.close(c);
}
static enum pn_result no_join(struct pn_group **g, struct pn_ctx *const *members, size_t n, struct pn_error *err) {
    (void)g, (void)members, (void)n;
    return pn_fail(err, PN_REFUSED, "nothing to sum by");
}
static enum pn_result finish(struct pn_ctx *c, struct pn_error *err) {
    n_finished_before_leaving += n_left == 0;
    return pn_backend_cpu.finish(c, err);
}
static void leave(struct pn_group *g, bool broken) {
    n_left++;
    n_broken += broken;
    pn_backend_cpu.leave(g, broken);
}
/* Of the second device nothing gets done; who waits for a sum with it waits for ever. */
static enum pn_result await(struct pn_ctx *c, size_t event, struct pn_error *err) {
    if (c == opened[1]) return pn_fail(err, PN_FAILED, "device cuda:1: has fallen off the bus");
    ck_assert_msg(event >= PN_EVENT_OWN, "somebody waits for what cannot come");
    return PN_OK;
}
static void reset(struct pn_backend *be) {
    *be = pn_backend_cpu;
    be->open = open_;
    be->close = close_;
    be->finish = finish;
    be->leave = leave;
    n_opened = n_closed = n_left = n_broken = n_finished_before_leaving = 0;
}

START_TEST(devices_that_have_nothing_to_sum_by_are_refused_and_closed) {
    struct pn_backend be;
    struct pn_devices *g = NULL;
    struct pn_error err = {""};
    reset(&be);
    be.join = no_join;
    open_job();
    ck_assert_int_eq(pn_devices_open(&g, &be, (const size_t[]){0, 1, 2}, 3, &job, 0, &err), PN_REFUSED);
    ck_assert_str_eq(err.text, "nothing to sum by");
    ck_assert(n_opened == 3 && n_closed == 3 && n_left == 0);
    ck_assert_int_eq(pn_devices_open(&g, &be, (const size_t[]){2}, 1, &job, 0, &err), PN_OK); /* one needs no sum */
    pn_devices_close(g);
    pn_job_free(&job);
} END_TEST

START_TEST(a_device_that_fails_is_seen_before_anybody_waits_for_its_sum) {
    struct pn_backend be;
    struct pn_devices *g = NULL;
    struct pn_error err = {""};
    float row[5] = {1, 2, 3, 4, 5}, gradient[5], p[2 * PN_DENSE_ROW] = {0}, dp[2 * PN_DENSE_ROW], scores[4], label[4] = {0, 1, 0, 1}, log_q[4] = {0};
    uint32_t begin[] = {0, 1, 2, 3, 4}, position[4] = {0};
    uint64_t key = 7;
    double loss;
    struct pn_batch b = {.n_examples = 4, .n_sparse = 1, .begin = begin, .n_keys = 4, .labels = label, .log_q = log_q, .unique = {&key}, .n_unique = {1}, .position = position};
    const float *rows[PN_MAX_TABLES] = {row};
    float *gradients[PN_MAX_TABLES] = {gradient};
    for (int fails = 0; fails < 3; fails++) { /* not; seen at the step's end; or when all is closed with the step still there */
        reset(&be);
        if (fails) be.await = await;
        open_job();
        ck_assert_msg(pn_devices_open(&g, &be, (const size_t[]){0, 1, 2}, 3, &job, 0, &err) == PN_OK, "%s", err.text);
        ck_assert_int_eq(pn_devices_begin(g, 0, &b, rows, p, 1, &err), PN_OK);
        const enum pn_result r = fails < 2 ? pn_devices_end(g, 0, &b, gradients, dp, scores, &loss, &err) : PN_OK;
        ck_assert_int_eq(r, fails == 1 ? PN_FAILED : PN_OK);
        if (fails == 1) ck_assert_str_eq(err.text, "device cuda:1: has fallen off the bus");
        pn_devices_close(g);
        ck_assert(n_left == 1 && n_broken == (fails > 0) && n_closed == 3 && n_finished_before_leaving == (fails ? 0 : 3));
        pn_job_free(&job);
    }
} END_TEST

int main(void) {
    Suite *s = suite_create("devices");
    TCase *c = tcase_create("devices");
    tcase_add_test(c, devices_that_have_nothing_to_sum_by_are_refused_and_closed);
    tcase_add_test(c, a_device_that_fails_is_seen_before_anybody_waits_for_its_sum);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    const int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed > 0;
}
