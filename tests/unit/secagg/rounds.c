/* Whole rounds: what comes out, and what is said to those who do not keep to the protocol. */
#include <check.h>
#include <math.h>
#include "tests/unit/secagg/world.h"
#include "tests/unit/fake_env.h"

static void runs(struct world *w) {
    struct pn_error err = {""};
    ck_assert_msg(w_start(w, &err) == PN_OK, "%s", err.text);
    w_run(w);
    ck_assert(w->over);
}
static void says(const struct world *w, const char *text) { ck_assert_msg(strstr(w->warned, text) != NULL, "nobody said \"%s\" but:\n%s", text, w->warned); }

START_TEST(the_sum_is_that_of_all_workers_bit_for_bit_on_any_number_of_servers) {
    for (uint32_t servers = 1; servers <= 4; servers++)
        for (unsigned wb = 4; wb <= 8; wb += 4) {
            struct world *w = w_open(servers, 6, servers, 101, wb);
            runs(w);
            ck_assert_msg(w->result == PN_OK, "%s", w->line);
            ck_assert_uint_eq(w->n_survivors, 6);
            ck_assert(w_sum_is_right(w));
            w_close(w);
        }
} END_TEST

START_TEST(one_may_drop_at_each_phase_and_the_sum_is_that_of_the_others) {
    static const int at[] = {PN_AGG_ROUND, PN_AGG_LIST, PN_AGG_DELIVER, -1, PN_AGG_SURVIVORS, PN_AGG_PROOF};
    for (size_t p = 0; p < sizeof at / sizeof *at; p++) {
        struct world *w = w_open(p, 10, 2, 64, 4);
        w->dies_at[3] = at[p];
        runs(w);
        ck_assert_msg(w->result == PN_OK, "phase %zu: %s", p, w->line);
        ck_assert_uint_eq(w->survivors[3], p >= 4); /* who dies later has sent its segments: it is in the sum */
        ck_assert(w_sum_is_right(w));
        w_close(w);
    }
} END_TEST

START_TEST(above_the_limit_nothing_is_released_and_the_line_says_so) {
    static const int at[] = {PN_AGG_ROUND, PN_AGG_LIST, PN_AGG_DELIVER, -1};
    for (size_t p = 0; p < sizeof at / sizeof *at; p++) {
        struct world *w = w_open(p, 10, 2, 64, 4);
        w->dies_at[3] = w->dies_at[7] = at[p];
        runs(w);
        ck_assert_int_eq(w->result, PN_REFUSED);
        ck_assert_ptr_nonnull(strstr(w->line, "nothing is released"));
        ck_assert(!w_any_released(w));
        w_close(w);
    }
} END_TEST

START_TEST(when_too_few_reveal_nothing_is_released) {
    struct world *w = w_open(1, 10, 2, 64, 4);
    for (int i = 0; i < 6; i++) w->dies_at[i] = PN_AGG_PROOF;
    runs(w);
    ck_assert_int_eq(w->result, PN_REFUSED);
    ck_assert_ptr_nonnull(strstr(w->line, "good shares of worker"));
    ck_assert(!w_any_released(w));
    w_close(w);
} END_TEST

START_TEST(loss_repetition_and_reordering_cost_only_time) {
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct world *w = w_open(seed, 7, 3, 80, 4);
        w->terms.phase_ms = 60000;
        w->loss_permille = 200;
        w->repeat_permille = 200;
        w->delay_ms = 80;
        runs(w);
        ck_assert_msg(w->result == PN_OK && w->n_survivors == 7, "%s", w->line);
        ck_assert(w_sum_is_right(w));
        w_close(w);
    }
} END_TEST

/* ---- those who lie ---- */
static int liar_kind;
static uint32_t liar_bytes_off; /* from the end of the frame */
static bool change_one(struct world *w, uint32_t from, uint32_t to, struct pn_msg **m) {
    (void)to;
    if (from != w_worker(2) || (*m)->data[5] != liar_kind) return true;
    struct pn_msg *copy = w_message(&w->nodes[from].env, (*m)->n_bytes);
    memcpy(copy->data, (*m)->data, (*m)->n_bytes);
    copy->data[copy->n_bytes - liar_bytes_off] ^= 1;
    pn_msg_seal(copy);
    pn_msg_unref(*m);
    *m = copy;
    return true;
}
static bool only_liar_first(struct world *w, uint32_t from, uint32_t to, struct pn_msg **m) { /* worker 2's wrong shares arrive before the others' */
    if (from != w_worker(2) && from >= 1 && from <= w->terms.n && (*m)->data[5] == PN_AGG_REVEAL && pn_agg_coordinator_wrong_shares(w->coordinator, 2) == 0) return false;
    return change_one(w, from, to, m);
}
START_TEST(a_wrong_share_is_left_out_and_counts_against_the_one_who_showed_it) {
    struct world *w = w_open(6, 10, 2, 64, 4);
    liar_kind = PN_AGG_REVEAL;
    liar_bytes_off = 8;
    w->change = only_liar_first;
    runs(w);
    ck_assert_msg(w->result == PN_OK, "%s", w->line);
    ck_assert_uint_eq(pn_agg_coordinator_wrong_shares(w->coordinator, 2), 1);
    says(w, "worker 2 revealed a wrong share of worker ");
    ck_assert(w_sum_is_right(w));
    w_close(w);
} END_TEST

static bool replay_share(struct world *w, uint32_t from, uint32_t to, struct pn_msg **m) { /* worker 2 shows its share of its first neighbour for all */
    if (from != w_worker(2) || (*m)->data[5] != PN_AGG_REVEAL) {
        struct pn_msg *x = *m;
        return only_liar_first(w, from, to, &x); /* liar_kind is another: nothing is changed */
    }
    struct pn_frame f;
    struct pn_agg_message in;
    ck_assert_int_eq(pn_frame_open(&f, (*m)->data, (*m)->n_bytes, NULL), PN_OK);
    ck_assert_int_eq(pn_agg_read(&f, w->terms.n, &in, NULL), PN_OK);
    uint8_t records[PN_AGG_MAX_DEGREE * 32];
    for (uint32_t i = 0; i < in.count; i++) memcpy(records + 32 * i, in.records, 32);
    in.records = records;
    struct pn_msg *out = pn_agg_write(&w->nodes[from].env, w->terms.n, &in, NULL, NULL);
    pn_frame_close(&f);
    pn_msg_unref(*m);
    *m = out;
    return true;
}
START_TEST(a_share_replayed_for_another_is_wrong_and_a_message_replayed_changes_nothing) {
    struct world *w = w_open(7, 10, 2, 64, 4);
    liar_kind = 0;
    w->change = replay_share;
    w->repeat_permille = 1000; /* and all comes twice */
    runs(w);
    ck_assert_msg(w->result == PN_OK, "%s", w->line);
    ck_assert_uint_eq(pn_agg_coordinator_wrong_shares(w->coordinator, 2), 7); /* of 8 held, one is right */
    ck_assert(w_sum_is_right(w));
    w_close(w);
} END_TEST

static bool longer_vector(struct world *w, uint32_t from, uint32_t to, struct pn_msg **m) {
    (void)to;
    if (from != w_worker(2) || (*m)->data[5] != PN_AGG_MASKED) return true;
    struct pn_msg *copy = w_message(&w->nodes[from].env, (*m)->n_bytes + 64);
    memset(copy->data, 0, copy->n_bytes);
    memcpy(copy->data, (*m)->data, (*m)->n_bytes);
    pn_msg_seal(copy);
    pn_msg_unref(*m);
    *m = copy;
    return true;
}
START_TEST(a_vector_of_another_length_is_left_out_by_name) {
    struct world *w = w_open(8, 10, 2, 64, 4);
    w->change = longer_vector;
    runs(w);
    ck_assert_msg(w->result == PN_OK, "%s", w->line);
    says(w, "worker 2 sent 192 bytes where the segment has 128: left out");
    ck_assert_uint_eq(w->survivors[2], 0);
    ck_assert(w_sum_is_right(w));
    w_close(w);
} END_TEST

START_TEST(a_changed_segment_or_key_is_left_out_by_name) {
    static const struct { int kind; uint32_t off; const char *text; } cases[] = {
        {PN_AGG_MASKED, 4, "worker 2's segment is not signed by its identity for this round: left out"},
        {PN_AGG_KEYS, 150, "the keys of worker 2 are not signed by its identity: left out"},
        {PN_AGG_SIGNED, 4, "worker 2's signature of the survivors is wrong: left out"}};
    for (size_t c = 0; c < 3; c++) {
        struct world *w = w_open(9 + c, 10, 2, 64, 4);
        liar_kind = cases[c].kind;
        liar_bytes_off = cases[c].off;
        w->change = change_one;
        runs(w);
        ck_assert_msg(w->result == PN_OK, "%s", w->line);
        says(w, cases[c].text);
        ck_assert(w_sum_is_right(w));
        w_close(w);
    }
} END_TEST

START_TEST(a_worker_whose_dealt_shares_are_unreadable_is_survived) {
    struct world *w = w_open(20, 10, 2, 64, 4);
    liar_kind = PN_AGG_SHARES;
    liar_bytes_off = 100; /* in the last sealed share */
    w->change = change_one;
    runs(w);
    ck_assert_msg(w->result == PN_OK, "%s", w->line);
    says(w, "the shares of worker 2 cannot be read");
    ck_assert(w_sum_is_right(w));
    w_close(w);
} END_TEST

/* ---- a coordinator that asks for both shares ---- */
static bool two_sets(struct world *w, uint32_t from, uint32_t to, struct pn_msg **m) { /* after PROOF, survivors without worker 5 are named to worker 1 */
    if (from != w_worker(1) || (*m)->data[5] != PN_AGG_REVEAL || to != 0) return true;
    struct pn_frame f;
    struct pn_agg_message in, out = {.kind = PN_AGG_SURVIVORS};
    uint8_t set[PN_AGG_MAX_WORKERS];
    ck_assert_int_eq(pn_frame_open(&f, (*m)->data, (*m)->n_bytes, NULL), PN_OK);
    ck_assert_int_eq(pn_agg_read(&f, w->terms.n, &in, NULL), PN_OK);
    memcpy(out.round, in.round, 32);
    memset(set, 1, sizeof set);
    set[5] = 0;
    out.set = set;
    struct pn_msg *msg = pn_agg_write(&w->nodes[0].env, w->terms.n, &out, NULL, NULL);
    pn_frame_close(&f);
    w->change = NULL;
    w_send(&w->nodes[0].env, w_worker(1) + 1, msg);
    return true;
}
START_TEST(a_coordinator_that_names_two_sets_of_survivors_is_refused_and_named) {
    struct world *w = w_open(30, 10, 1, 32, 4);
    w->change = two_sets;
    struct pn_error err;
    ck_assert_int_eq(w_start(w, &err), PN_OK);
    for (int i = 0; i < 2000 && w_step(w); i++) {}
    says(w, "the coordinator named two different sets of survivors, which asks for both shares of worker 5");
    w_close(w);
} END_TEST

static bool both_in_proof(struct world *w, uint32_t from, uint32_t to, struct pn_msg **m) {
    if (from != 0 || to != w_worker(1) || (*m)->data[5] != PN_AGG_PROOF) return true;
    struct pn_frame f;
    struct pn_agg_message in;
    uint8_t keys[PN_AGG_MAX_WORKERS] = {0};
    ck_assert_int_eq(pn_frame_open(&f, (*m)->data, (*m)->n_bytes, NULL), PN_OK);
    ck_assert_int_eq(pn_agg_read(&f, w->terms.n, &in, NULL), PN_OK);
    keys[5] = 1;
    in.set2 = keys;
    struct pn_msg *out = pn_agg_write(&w->nodes[0].env, w->terms.n, &in, NULL, NULL);
    pn_frame_close(&f);
    pn_msg_unref(*m);
    *m = out;
    return true;
}
static int reveals_of_1;
static bool both_and_watch(struct world *w, uint32_t from, uint32_t to, struct pn_msg **m) {
    reveals_of_1 += from == w_worker(1) && (*m)->data[5] == PN_AGG_REVEAL;
    return both_in_proof(w, from, to, m);
}
START_TEST(a_request_for_both_shares_of_one_worker_is_refused_and_reveals_nothing) {
    struct world *w = w_open(31, 10, 1, 32, 4);
    reveals_of_1 = 0;
    w->change = both_and_watch;
    runs(w);
    says(w, "the coordinator asks for both shares of worker 5");
    ck_assert_int_eq(reveals_of_1, 0);
    ck_assert_int_eq(w->result, PN_OK); /* the nine others are enough */
    ck_assert(w_sum_is_right(w));
    w_close(w);
} END_TEST

/* ---- restarts ---- */
START_TEST(a_restarted_coordinator_begins_another_round_and_nothing_of_the_first_is_released) {
    for (int steps = 5; steps < 200; steps += 13) {
        struct world *w = w_open(40 + (uint64_t)steps, 6, 2, 64, 4);
        struct pn_error err;
        ck_assert_int_eq(w_start(w, &err), PN_OK);
        for (int i = 0; i < steps && !w->over; i++) w_step(w);
        if (w_any_released(w) || w->over) {
            w_close(w);
            break;
        }
        struct pn_agg_coordinator *old = w->coordinator;
        const bool was = w->nodes[0].dead;
        w->nodes[0].dead = true; /* it says nothing as it goes */
        w->coordinator = NULL;
        pn_agg_coordinator_close(old);
        w->nodes[0].dead = was;
        w->over = false;
        /* the new one knows nothing: those who are in the old round do not answer, so its own round ends without a sum */
        ck_assert_int_eq(w_start_coordinator(w, &err), PN_OK);
        w_run(w);
        ck_assert_int_eq(w->result, PN_REFUSED);
        ck_assert(!w_any_released(w));
        w_close(w);
    }
} END_TEST

START_TEST(a_restarted_server_ends_the_round_and_a_restarted_worker_counts_as_dropped) {
    struct pn_error err;
    struct world *w = w_open(60, 10, 2, 64, 4);
    ck_assert_int_eq(w_start(w, &err), PN_OK);
    bool did = false;
    while (!w->over && w_step(w)) {
        if (!did && w->nodes[w_server(w, 1)].sent_bytes > 0) { /* it has a first segment */
            pn_agg_server_close(w->servers[1]);
            ck_assert_int_eq(w_start_server(w, 1, &err), PN_OK);
            did = true;
        }
    }
    ck_assert(did);
    ck_assert_int_ne(w->result, PN_OK);
    ck_assert(!w_any_released(w));
    w_close(w);

    w = w_open(61, 10, 2, 64, 4);
    ck_assert_int_eq(w_start(w, &err), PN_OK);
    did = false;
    while (!w->over && w_step(w))
        if (!did && w->nodes[w_worker(4)].sent_bytes > 500) { /* its shares are out */
            pn_agg_worker_close(w->workers[4]);
            w->workers[4] = NULL;
            ck_assert_int_eq(w_start_worker(w, 4, &err), PN_OK);
            did = true;
        }
    ck_assert(did);
    ck_assert_msg(w->result == PN_OK, "%s", w->line);
    ck_assert_uint_eq(w->survivors[4], 0);
    ck_assert(w_sum_is_right(w));
    w_close(w);
} END_TEST

START_TEST(a_cohort_of_one_or_below_min_workers_begins_no_round) {
    struct pn_error err;
    struct world *w = w_open(70, 1, 1, 16, 4);
    ck_assert_int_eq(w_start(w, &err), PN_REFUSED);
    ck_assert_str_eq(err.text, "secure aggregation of 1 workers: it takes 3 to 1024");
    w_close(w);
    w = w_open(71, 6, 1, 16, 4);
    w->terms.min_workers = 7;
    ck_assert_int_eq(w_start(w, &err), PN_REFUSED);
    ck_assert_str_eq(err.text, "6 workers are below min_workers 7: no round begins");
    w_close(w);
    w = w_open(72, 6, 1, 16, 4);
    w->terms.min_workers = 2;
    ck_assert_int_eq(w_start(w, &err), PN_REFUSED);
    ck_assert_ptr_nonnull(strstr(err.text, "min_workers 2: at least 3"));
    w_close(w);
    w = w_open(73, 6, 1, 16, 4);
    w->nodes[w_worker(2)].dead = true; /* not there from the beginning; 6 * .1 allows nobody to be missing */
    ck_assert_int_eq(w_start(w, &err), PN_REFUSED);
    ck_assert_ptr_nonnull(strstr(err.text, "5 of 6 workers are here, 6 are the fewest"));
    w_close(w);
} END_TEST

/* ---- what a server sees ---- */
static uint64_t counts[256];
static uint64_t n_words_seen;
static double correlation;
static bool watch(struct world *w, uint32_t from, uint32_t to, struct pn_msg **m) {
    (void)to;
    if (from != w_worker(0) || (*m)->data[5] != PN_AGG_MASKED) return true;
    const size_t n = w->first[1];
    const uint32_t *y = (const uint32_t *)(const void *)((*m)->data + (*m)->n_bytes - n * 4), *x = (const uint32_t *)(const void *)w->words;
    for (size_t i = 0; i < n; i++) {
        for (int b = 0; b < 4; b++) counts[y[i] >> 8 * b & 255]++;
        correlation += ((double)y[i] - 2147483647.5) / 1239850262.0 * (double)(int32_t)x[i] / 577.6;
        n_words_seen++;
    }
    return true;
}
START_TEST(a_single_masked_update_is_uniform_and_says_nothing_of_the_values) {
    memset(counts, 0, sizeof counts);
    n_words_seen = 0;
    correlation = 0;
    struct world *w = w_open(80, 5, 1, 500000, 4);
    for (size_t i = 0; i < 5 * 500000; i++) ((uint32_t *)(void *)w->words)[i] = (uint32_t)((int64_t)(i % 1001) - 0); /* far from uniform */
    w->change = watch;
    runs(w);
    ck_assert_int_eq(w->result, PN_OK);
    ck_assert_uint_ge(n_words_seen, 500000);
    double chi2 = 0, mean = (double)n_words_seen * 4 / 256;
    for (int i = 0; i < 256; i++) chi2 += ((double)counts[i] - mean) * ((double)counts[i] - mean) / mean;
    printf("figure secagg.uniform.chi2 %.1f of 255 degrees, correlation with the values %.5f\n", chi2, correlation / (double)n_words_seen);
    ck_assert_double_lt(chi2, 255 + 5 * sqrt(2 * 255.0));
    ck_assert_double_gt(chi2, 255 - 5 * sqrt(2 * 255.0));
    ck_assert_double_lt(fabs(correlation) / sqrt((double)n_words_seen), 5);
    w_close(w);
} END_TEST

int main(void) {
    TCase *c = tcase_create("rounds");
    tcase_add_test(c, the_sum_is_that_of_all_workers_bit_for_bit_on_any_number_of_servers);
    tcase_add_test(c, one_may_drop_at_each_phase_and_the_sum_is_that_of_the_others);
    tcase_add_test(c, above_the_limit_nothing_is_released_and_the_line_says_so);
    tcase_add_test(c, when_too_few_reveal_nothing_is_released);
    tcase_add_test(c, loss_repetition_and_reordering_cost_only_time);
    tcase_add_test(c, a_wrong_share_is_left_out_and_counts_against_the_one_who_showed_it);
    tcase_add_test(c, a_share_replayed_for_another_is_wrong_and_a_message_replayed_changes_nothing);
    tcase_add_test(c, a_vector_of_another_length_is_left_out_by_name);
    tcase_add_test(c, a_changed_segment_or_key_is_left_out_by_name);
    tcase_add_test(c, a_worker_whose_dealt_shares_are_unreadable_is_survived);
    tcase_add_test(c, a_coordinator_that_names_two_sets_of_survivors_is_refused_and_named);
    tcase_add_test(c, a_request_for_both_shares_of_one_worker_is_refused_and_reveals_nothing);
    tcase_add_test(c, a_restarted_coordinator_begins_another_round_and_nothing_of_the_first_is_released);
    tcase_add_test(c, a_restarted_server_ends_the_round_and_a_restarted_worker_counts_as_dropped);
    tcase_add_test(c, a_cohort_of_one_or_below_min_workers_begins_no_round);
    tcase_add_test(c, a_single_masked_update_is_uniform_and_says_nothing_of_the_values);
    return fake_suite("secagg-rounds", c);
}
