/* A large push goes in in slices: what others see between them, and what nobody may see. */
#include "ps/checkpoint.h"
#include "tests/unit/ps/util.h"

enum { OTHER = 8, N = 40 };
static const uint64_t keys[N] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40};

static struct pn_shard *sliced(struct fake *f, const char *job) {
    struct pn_shard *s = open_shard(f, job, 2, 0, ALL);
    s->slice = 8;
    return s;
}
/* The loop's next turn. */
static void turn(struct fake *f, struct pn_shard *s) {
    ck_assert(s->turn.active);
    fake_timer_stop(&f->env, &s->turn);
    s->turn.fire(&s->turn);
}
static void pull(struct fake *f, struct pn_shard *s, pn_peer from, uint64_t request, const uint64_t *key) {
    struct ask a = {.kind = PN_PULL, .term = TERM, .request = request, .producer = UINT32_MAX, .job = "j", .n_parts = 1};
    a.parts[0].count = 1;
    a.parts[0].keys = key;
    deliver(s, from, written(f, &a));
}
static int n_in(const struct pn_shard *s, float value) {
    int n = 0;
    for (size_t i = 0; i < N; i++) n += first_value(s, 0, keys[i]) == value;
    return n;
}

START_TEST(pulls_of_others_are_answered_between_the_slices_of_a_push) {
    struct fake *f = fake_open();
    struct pn_shard *s = sliced(f, audit_job("async"));
    count_push(f, s, 0, 1, keys, N);
    ck_assert_uint_eq(f->n_sent, 0);
    ck_assert_int_gt(n_in(s, 1), 0);
    ck_assert_int_lt(n_in(s, 1), N);
    pull(f, s, OTHER, 500, keys);
    struct answer got = answered(f);
    ck_assert_int_eq(got.kind, PN_ROWS);
    ck_assert_uint_eq(got.request, 500);
    int turns = 0;
    while (f->n_sent == 0) {
        turn(f, s);
        turns++;
    }
    ck_assert_int_gt(turns, 3);
    EXPECT_ACK(f, 1);
    ck_assert_int_eq(n_in(s, 1), N);
    ck_assert(!s->turn.active);
    pn_shard_close(s);
    fake_close(f);
} END_TEST

START_TEST(what_else_comes_waits_in_line_and_keeps_its_order) {
    struct fake *f = fake_open();
    struct pn_shard *s = sliced(f, audit_job("async"));
    count_push(f, s, 0, 1, keys, N);
    count_push(f, s, 1, 1, keys, 2);     /* all from PEER */
    count_push(f, s, 0, 1, keys, N);     /* sent again while it goes in */
    pull(f, s, PEER, 600, &keys[N - 1]); /* its sender sees what it sent before */
    pull(f, s, OTHER, 601, keys);
    struct answer got = answered(f);
    ck_assert_uint_eq(got.request, 601);
    fake_advance(f, 0);
    EXPECT_ACK(f, 1);
    EXPECT_ACK(f, 1001);
    EXPECT_ACK(f, 1);
    got = answered(f);
    ck_assert_int_eq(got.kind, PN_ROWS);
    ck_assert_uint_eq(got.request, 600);
    ck_assert(got.values[0] == 1.0f);
    ck_assert_uint_eq(f->n_sent, 0);
    ck_assert_int_eq(n_in(s, 1), N - 2);
    ck_assert_int_eq(n_in(s, 2), 2);
    ck_assert_uint_eq(s->counters.duplicates, 1);
    pn_shard_close(s);
    fake_close(f);
} END_TEST

static void on_written(void *owner, int64_t result, uint64_t n_bytes, const char *digest, uint64_t rows) {
    (void)n_bytes;
    (void)digest;
    ck_assert_int_eq(result, 0);
    *(uint64_t *)owner = rows;
}

START_TEST(a_checkpoint_holds_a_push_whole_or_not_at_all) {
    struct fake *f = fake_open();
    const char *const job = _i ? tiered_job("async") : audit_job("async");
    struct pn_shard *s = sliced(f, job), *back = open_shard(f, job, 2, 0, ALL);
    count_push(f, s, 0, 1, keys, N);
    count_push(f, s, 1, 1, keys, N); /* in line: not in the cut */
    uint64_t rows = 0;
    ck_assert_ptr_nonnull(pn_checkpoint_write(s, "/c/1", "ps-0", 1, on_written, &rows));
    EXPECT_ACK(f, 1);
    turn(f, s); /* the second one's rows change under the writer */
    fake_run(f);
    ck_assert_uint_eq(rows, N);
    struct pn_error err = {""};
    const struct fake_file *file = fake_file(f, "/c/1/ps-0.ps", false);
    ck_assert_msg(pn_checkpoint_restore(back, file->data, file->n_bytes, NULL, &err) == PN_OK, "%s", err.text);
    ck_assert_int_eq(n_in(back, 1), N);
    count_push(f, back, 0, 1, keys, N);
    ck_assert_int_eq(n_in(back, 1), N); /* it was recognised */
    fake_run(f);
    pn_shard_close(s);                  /* in the middle of the second one */
    pn_shard_close(back);
    fake_drop_sent(f);
    fake_close(f);
} END_TEST

START_TEST(sliced_and_whole_pushes_give_the_same_rows_windows_and_counts) {
    struct fake *f = fake_open();
    const char *const job = _i ? tiered_job("async") : audit_job("async");
    struct pn_shard *s = sliced(f, job), *whole = open_shard(f, job, 2, 0, ALL);
    struct pn_rng rng = {5};
    for (uint64_t step = 1; step <= 60; step++) {
        s->slice = 1 + pn_rng_next(&rng) % 20;
        const size_t first = pn_rng_next(&rng) % 20, n = 1 + pn_rng_next(&rng) % 20;
        count_push(f, s, step % 2, step, keys + first, n);
        if (step % 3 == 0) count_push(f, s, step % 2, step, keys + first, n);
        count_push(f, whole, step % 2, step, keys + first, n);
        fake_advance(f, 0);
        if (step % 5 == 0) fake_run(f);
        fake_drop_sent(f);
    }
    for (size_t i = 0; i < N; i++) ck_assert(first_value(s, 0, keys[i]) == first_value(whole, 0, keys[i]));
    ck_assert_mem_eq(s->windows, whole->windows, 2 * PN_SLOTS * sizeof *s->windows);
    ck_assert_mem_eq(s->audit, whole->audit, sizeof s->audit);
    ck_assert_uint_eq(s->counters.rows_pushed, whole->counters.rows_pushed);
    fake_run(f);
    pn_shard_close(s);
    pn_shard_close(whole);
    fake_close(f);
} END_TEST

START_TEST(dense_parameters_refuse_a_push_before_any_slice_of_it) {
    struct fake *f = fake_open();
    struct pn_shard *s = sliced(f, lr_job);
    uint64_t sorted[N];
    static const uint64_t dense = 0;
    static float values[N * 256];
    memcpy(sorted, keys, sizeof sorted);
    qsort(sorted, N, sizeof *sorted, by_mix);
    struct ask a = PUSH(0, 1);
    a.n_parts = 2;
    a.parts[0].count = N;
    a.parts[0].dim = 1;
    a.parts[0].keys = sorted;
    a.parts[0].values = values;
    a.parts[1].table = 1;
    a.parts[1].count = 1;
    a.parts[1].dim = 256;
    a.parts[1].keys = &dense;
    a.parts[1].values = values;
    ask(f, s, &a);
    EXPECT_REFUSAL(f, PN_NOT_SEEDED);
    ck_assert_uint_eq(pn_table_rows(s->tables[0]), 0);
    ck_assert(!s->turn.active && !s->broken);
    pn_shard_close(s);
    fake_close(f);
} END_TEST

static struct fake_tier *opened;
static enum pn_result open_and_tell(struct pn_tiers *ts, const char *name, size_t record_bytes, struct pn_tier **out, struct pn_error *err) {
    const enum pn_result r = fake_tiers_open(ts, name, record_bytes, out, err);
    opened = fake_tier_of(*out);
    return r;
}

START_TEST(a_failure_behind_the_first_slice_breaks_the_shard_and_forgets_the_line) {
    struct fake *f = fake_open();
    struct pn_shard *s = NULL;
    struct pn_error err = {""};
    struct pn_tiers tiers = {open_and_tell};
    ck_assert_int_eq(pn_shard_open(&s, &f->env, &tiers, tiered_job("async"), "j", TERM, 1, 2, 0, ALL, &err), PN_OK);
    for (uint64_t step = 1; pn_table_cold_rows(s->tables[0]) < 10; step++) { /* rows in the tier */
        uint64_t many[60];
        for (size_t i = 0; i < 60; i++) many[i] = 1000 * step + i;
        count_push(f, s, 0, step, many, 60);
        fake_advance(f, 0);
        fake_run(f);
    }
    fake_drop_sent(f);
    s->slice = 8;
    count_push(f, s, 1, 1, keys, N);
    count_push(f, s, 1, 2, keys, N);
    ck_assert(!s->broken);
    opened->fail_gets = 1;
    turn(f, s);
    EXPECT_REFUSAL(f, PN_IO);
    ck_assert(s->broken && !s->turn.active && s->line == NULL && s->open == NULL);
    ck_assert_uint_eq(f->n_sent, 0);
    uint64_t rows = 0;
    ck_assert_ptr_null(pn_checkpoint_write(s, "/c/1", "ps-0", 1, on_written, &rows));
    fake_run(f);
    pn_shard_close(s);
    fake_close(f);
} END_TEST

int main(void) {
    TCase *c = tcase_create("slices");
    tcase_add_test(c, pulls_of_others_are_answered_between_the_slices_of_a_push);
    tcase_add_test(c, what_else_comes_waits_in_line_and_keeps_its_order);
    tcase_add_loop_test(c, a_checkpoint_holds_a_push_whole_or_not_at_all, 0, 2);
    tcase_add_loop_test(c, sliced_and_whole_pushes_give_the_same_rows_windows_and_counts, 0, 2);
    tcase_add_test(c, dense_parameters_refuse_a_push_before_any_slice_of_it);
    tcase_add_test(c, a_failure_behind_the_first_slice_breaks_the_shard_and_forgets_the_line);
    return fake_suite("slices", c);
}
