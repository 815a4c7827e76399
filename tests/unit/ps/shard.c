/* The shard's answers: once only, whole or not at all, whatever comes. */
#include <math.h>
#include "tests/unit/ps/util.h"

static const uint64_t keys[] = {1, 2, 3, 50, 99};

START_TEST(a_push_sent_again_is_acknowledged_but_applied_once) {
    struct fake *f = fake_open();
    struct pn_shard *s = open_shard(f, audit_job("async"), 2, 0, ALL);
    for (int i = 0; i < 3; i++) {
        count_push(f, s, 0, 1, keys, 5);
        EXPECT_ACK(f, 1);
    }
    count_push(f, s, 1, 1, keys, 5); /* the same step of another producer is another push */
    EXPECT_ACK(f, 1001);
    for (size_t i = 0; i < 5; i++) ck_assert(first_value(s, 0, keys[i]) == 2.0f);
    ck_assert_uint_eq(s->counters.duplicates, 2);
    pn_shard_close(s);
    fake_close(f);
} END_TEST

START_TEST(pushes_in_any_order_within_64_steps_are_each_applied_once) {
    struct fake *f = fake_open();
    struct pn_shard *s = open_shard(f, audit_job("async"), 1, 0, ALL), *in_order = open_shard(f, audit_job("async"), 1, 0, ALL);
    struct pn_rng rng = {3};
    bool seen[400] = {false};
    uint64_t done = 0;
    while (done < 300) {
        uint64_t step = done + 1 + pn_rng_next(&rng) % PN_WINDOW_STEPS;
        count_push(f, s, 0, step, keys, 5);
        if (!seen[step]) count_push(f, in_order, 0, step, keys, 5);
        seen[step] = true;
        while (seen[done + 1]) done++;
        fake_drop_sent(f);
    }
    for (size_t i = 0; i < 5; i++) ck_assert(first_value(s, 0, keys[i]) == first_value(in_order, 0, keys[i]));
    ck_assert_mem_eq(s->audit, in_order->audit, sizeof s->audit); /* order does not show in the audit hash */
    ck_assert_uint_gt(s->counters.duplicates, 0);
    pn_shard_close(s);
    pn_shard_close(in_order);
    fake_close(f);
} END_TEST

START_TEST(another_term_or_job_is_refused_without_effect) {
    struct fake *f = fake_open();
    struct pn_shard *s = open_shard(f, audit_job("async"), 1, 0, ALL);
    float g[8] = {-1};
    struct ask a = PUSH(0, 1);
    a.n_parts = 1;
    a.parts[0].count = 1;
    a.parts[0].dim = 8;
    a.parts[0].keys = keys;
    a.parts[0].values = g;
    a.term = TERM - 1;
    ask(f, s, &a);
    EXPECT_REFUSAL(f, PN_STALE_TERM);
    a.term = TERM + 1;
    ask(f, s, &a);
    EXPECT_REFUSAL(f, PN_STALE_TERM);
    a.term = TERM;
    a.job = "other";
    ask(f, s, &a);
    EXPECT_REFUSAL(f, PN_STALE_TERM);
    ck_assert_uint_eq(pn_table_rows(s->tables[0]), 0);
    a.job = "j";
    ask(f, s, &a);
    EXPECT_ACK(f, 1);
    pn_shard_close(s);
    fake_close(f);
} END_TEST

START_TEST(what_does_not_fit_the_job_is_refused_as_a_whole) {
    struct fake *f = fake_open();
    struct pn_shard *s = open_shard(f, audit_job("async"), 2, 0, 511);
    uint64_t mine[3], other = 0, n = 0;
    for (uint64_t k = 1; n < 3; k++)
        if (pn_slot_of(k) <= 511) mine[n++] = k;
        else other = k;
    qsort(mine, 3, sizeof *mine, by_mix);
    float g[3 * 8] = {0};
    for (int wrong = 0; wrong < 10; wrong++) {
        struct ask a = PUSH(0, 1);
        uint64_t list[3] = {mine[0], mine[1], mine[2]};
        a.n_parts = 1;
        a.parts[0].count = 3;
        a.parts[0].dim = 8;
        a.parts[0].keys = list;
        a.parts[0].values = g;
        switch (wrong) {
        case 0: a.producer = 2; break;
        case 1: a.step = 0; break;
        case 2: a.parts[0].table = 1; break;
        case 3: list[2] = list[1]; break;                              /* the same key twice */
        case 4: list[0] = mine[2]; break;                              /* not rising */
        case 5: list[2] = other; break; /* not this shard's */
        case 6: a.parts[0].dim = 7; break;                             /* fewer values than rows need */
        case 7: a.incarnation = 1ull << 32; break;
        case 8: a.n_parts = 2; a.parts[1] = a.parts[0]; break;         /* a table twice */
        case 9: a.producer = UINT64_MAX; break;
        }
        ask(f, s, &a);
        EXPECT_REFUSAL(f, PN_INVALID);
        ck_assert_uint_eq(pn_table_rows(s->tables[0]), 0);
    }
    for (size_t i = 0; i < 2 * PN_SLOTS; i++) ck_assert_uint_eq(s->windows[i].highest, 0);
    pn_shard_close(s);
    fake_close(f);
} END_TEST

/* Counts that no frame can hold, on all kinds: the length of arrays is checked before they are read. */
START_TEST(counts_beyond_the_frame_are_refused) {
    struct fake *f = fake_open();
    struct pn_shard *s = open_shard(f, audit_job("async"), 1, 0, ALL);
    static const uint64_t counts[] = {1, 3, 1ull << 32, UINT64_MAX / 8, UINT64_MAX};
    for (int kind = PN_PULL; kind <= PN_SEED; kind++) {
        if (kind == PN_ROWS) continue;
        for (size_t i = 0; i < 5; i++) {
            struct pn_writer w;
            uint8_t *body;
            uint64_t table = 0;
            pn_write_start(&w, (enum pn_kind)kind, TERM, 1);
            pn_write_str(&w, "job", "j");
            pn_write_u64s(&w, "tables", &table, 1);
            pn_write_u64s(&w, "counts", &counts[i], 1);
            struct pn_msg *m = pn_write_finish(&w, &f->env, i == 0 ? 0 : 8, &body);
            memset(body, 0, i == 0 ? 0 : 8);
            pn_msg_seal(m);
            deliver(s, PEER, m);
            EXPECT_REFUSAL(f, PN_INVALID);
        }
    }
    pn_shard_close(s);
    fake_close(f);
} END_TEST

START_TEST(a_gradient_that_is_not_finite_refuses_the_whole_push) {
    struct fake *f = fake_open();
    struct pn_shard *s = open_shard(f, audit_job("async"), 1, 0, ALL);
    const float poison[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < 3; i++) {
        float g[16] = {0};
        g[13] = poison[i];
        struct ask a = PUSH(0, 1);
        a.n_parts = 1;
        a.parts[0].count = 2;
        a.parts[0].dim = 8;
        a.parts[0].keys = keys;
        a.parts[0].values = g;
        ask(f, s, &a);
        EXPECT_REFUSAL(f, PN_INVALID);
    }
    ck_assert_uint_eq(s->counters.poison, 3);
    ck_assert_uint_eq(pn_table_rows(s->tables[0]), 0);
    count_push(f, s, 0, 1, keys, 2); /* its step was not used up */
    EXPECT_ACK(f, 1);
    ck_assert(first_value(s, 0, 2) == 1.0f);
    pn_shard_close(s);
    fake_close(f);
} END_TEST

START_TEST(a_push_before_the_seed_is_refused_whole_and_taken_after_it) {
    struct fake *f = fake_open();
    struct pn_shard *s = open_shard(f, lr_job, 1, 0, ALL);
    uint64_t feature = 42, dense = 0;
    float g = 1.0f, gradient[256], first[256], other[256];
    for (int i = 0; i < 256; i++) gradient[i] = 0, first[i] = 2.0f, other[i] = 3.0f;
    struct ask push = PUSH(0, 1), seed = {.kind = PN_SEED, .term = TERM, .request = 9, .job = "j", .n_parts = 1};
    push.n_parts = 2; /* the dense part last: nothing before it may stay */
    push.parts[0].count = push.parts[1].count = seed.parts[0].count = 1;
    push.parts[0].dim = 1;
    push.parts[1].dim = seed.parts[0].dim = 256;
    push.parts[1].table = seed.parts[0].table = 1;
    push.parts[0].keys = &feature;
    push.parts[1].keys = seed.parts[0].keys = &dense;
    push.parts[0].values = &g;
    push.parts[1].values = gradient;
    ask(f, s, &push);
    EXPECT_REFUSAL(f, PN_NOT_SEEDED);
    ck_assert_uint_eq(pn_table_rows(s->tables[0]), 0);
    seed.parts[0].values = first;
    ask(f, s, &seed);
    EXPECT_ACK(f, 9);
    seed.parts[0].values = other;
    ask(f, s, &seed);
    EXPECT_ACK(f, 9);
    ck_assert(first_value(s, 1, 0) == 2.0f); /* the first seed stays */
    ask(f, s, &push);
    EXPECT_ACK(f, 1);
    ck_assert_uint_eq(pn_table_rows(s->tables[0]), 1);
    pn_shard_close(s);
    fake_close(f);
} END_TEST

START_TEST(an_older_incarnation_is_fenced) {
    struct fake *f = fake_open();
    struct pn_shard *s = open_shard(f, audit_job("async"), 1, 0, ALL);
    struct ask a = PUSH(0, 1);
    a.incarnation = 2;
    ask(f, s, &a);
    EXPECT_ACK(f, 1);
    a.step = 2;
    a.incarnation = 1;
    ask(f, s, &a);
    EXPECT_REFUSAL(f, PN_FENCED);
    pn_shard_close(s);
    fake_close(f);
} END_TEST

START_TEST(a_pull_gives_rows_in_the_order_asked_and_makes_none) {
    struct fake *f = fake_open();
    struct pn_shard *s = open_shard(f, audit_job("async"), 1, 0, ALL);
    count_push(f, s, 0, 1, keys, 2);
    count_push(f, s, 0, 2, keys + 1, 1);
    fake_drop_sent(f);
    const uint64_t wanted[] = {2, 77, 1, 2};
    struct ask a = {.kind = PN_PULL, .term = TERM, .request = 4, .job = "j", .n_parts = 1};
    a.parts[0].count = 4;
    a.parts[0].dim = 8;
    a.parts[0].keys = wanted;
    ask(f, s, &a);
    struct answer got = answered(f);
    ck_assert_int_eq(got.kind, PN_ROWS);
    ck_assert(got.values[0] == 2 && got.values[8] == 0 && got.values[16] == 1 && got.values[24] == 2);
    ck_assert_uint_eq(pn_table_rows(s->tables[0]), 2);
    pn_shard_close(s);
    fake_close(f);
} END_TEST

/* Float sums depend on their order: whatever the arrival, producer 0 comes first. */
START_TEST(sync_gives_the_same_bits_in_every_order_of_arrival) {
    static const int orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    float rows[6][8];
    for (int o = 0; o < 6; o++) {
        struct fake *f = fake_open();
        struct pn_shard *s = open_shard(f, audit_job("sync"), 3, 0, ALL);
        for (uint64_t step = 1; step <= 5; step++)
            for (int i = 0; i < 3; i++) {
                uint64_t p = (uint64_t)orders[o][i], key = 1;
                float g[8];
                for (int d = 0; d < 8; d++) g[d] = (float)(p == 0 ? 1e8 : p == 1 ? -1e8 : 0.1) + (float)step * 0.37f;
                struct ask a = PUSH(p, step);
                a.n_parts = 1;
                a.parts[0].count = 1;
                a.parts[0].dim = 8;
                a.parts[0].keys = &key;
                a.parts[0].values = g;
                ck_assert_uint_eq(f->n_sent, 0); /* nobody is answered before all are there */
                ask(f, s, &a);
                ask(f, s, &a); /* and again, as an impatient client does */
                if (i == 2) fake_drop_sent(f);
            }
        ck_assert_uint_eq(s->sync_step, 5);
        uint64_t key = 1;
        pn_table_pull(s->tables[0], &key, 1, rows[o]);
        pn_shard_close(s);
        fake_close(f);
    }
    for (int o = 1; o < 6; o++) ck_assert_mem_eq(rows[o], rows[0], sizeof rows[0]);
} END_TEST

START_TEST(sync_does_not_wait_for_a_producer_that_finished) {
    struct fake *f = fake_open();
    struct pn_shard *s = open_shard(f, audit_job("sync"), 2, 0, ALL);
    struct ask a = PUSH(0, 1);
    a.last = 1;
    ask(f, s, &a);
    count_push(f, s, 1, 1, keys, 1);
    EXPECT_ACK(f, 1);
    EXPECT_ACK(f, 1001);
    count_push(f, s, 1, 2, keys, 1);
    EXPECT_ACK(f, 1002);
    ask(f, s, &a); /* its last push once more */
    EXPECT_ACK(f, 1);
    pn_shard_close(s);
    fake_close(f);
} END_TEST

START_TEST(ssp_holds_a_pull_until_the_slowest_is_near_enough) {
    struct fake *f = fake_open();
    struct pn_shard *s = open_shard(f, audit_job("ssp"), 2, 0, ALL); /* staleness 2 */
    struct ask pull = {.kind = PN_PULL, .term = TERM, .job = "j", .n_parts = 1};
    pull.parts[0].count = 1;
    pull.parts[0].dim = 8;
    pull.parts[0].keys = keys;
    pull.request = 1;
    pull.clock = 2;
    ask(f, s, &pull);
    ck_assert_int_eq(answered(f).kind, PN_ROWS);
    pull.request = 2;
    pull.clock = 3;
    ask(f, s, &pull);
    ask(f, s, &pull); /* asked again while it waits: still one answer */
    ck_assert_uint_eq(f->n_sent, 0);
    struct ask push = PUSH(1, 2);
    push.clock = 1;
    ask(f, s, &push);
    EXPECT_ACK(f, 1002);
    struct answer got = answered(f);
    ck_assert_int_eq(got.kind, PN_ROWS);
    ck_assert_uint_eq(got.request, 2);
    ck_assert_uint_eq(f->n_sent, 0);
    pull.request = 3;
    pull.clock = 9;
    ask(f, s, &pull);
    ck_assert_uint_eq(f->n_sent, 0);
    push.step = 3;
    push.last = 1; /* finished: nobody waits for it any more */
    ask(f, s, &push);
    EXPECT_ACK(f, 1002);
    ck_assert_int_eq(answered(f).kind, PN_ROWS);
    pn_shard_close(s);
    fake_close(f);
} END_TEST

int main(void) {
    TCase *c = tcase_create("shard");
    tcase_add_test(c, a_push_sent_again_is_acknowledged_but_applied_once);
    tcase_add_test(c, pushes_in_any_order_within_64_steps_are_each_applied_once);
    tcase_add_test(c, another_term_or_job_is_refused_without_effect);
    tcase_add_test(c, what_does_not_fit_the_job_is_refused_as_a_whole);
    tcase_add_test(c, counts_beyond_the_frame_are_refused);
    tcase_add_test(c, a_gradient_that_is_not_finite_refuses_the_whole_push);
    tcase_add_test(c, a_push_before_the_seed_is_refused_whole_and_taken_after_it);
    tcase_add_test(c, an_older_incarnation_is_fenced);
    tcase_add_test(c, a_pull_gives_rows_in_the_order_asked_and_makes_none);
    tcase_add_test(c, sync_gives_the_same_bits_in_every_order_of_arrival);
    tcase_add_test(c, sync_does_not_wait_for_a_producer_that_finished);
    tcase_add_test(c, ssp_holds_a_pull_until_the_slowest_is_near_enough);
    return fake_suite("shard", c);
}
