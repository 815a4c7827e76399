/* The parts below a round: shares, masks, fixed point, degree and threshold, the reader of messages. */
#include <check.h>
#include <math.h>
#include <sodium.h>
#include "privacy/secagg/fixed.h"
#include "privacy/secagg/round.h"
#include "privacy/secagg/shamir.h"
#include "tests/unit/fake_env.h"

static void draw(struct pn_rng *r, void *out, size_t n) {
    for (size_t i = 0; i < n; i++) ((uint8_t *)out)[i] = (uint8_t)(pn_rng_next(r) >> 20);
}

START_TEST(any_t_shares_give_the_secret_back_and_one_that_is_wrong_does_not) {
    struct pn_rng r = {1};
    for (int round = 0; round < 300; round++) {
        const uint32_t t = 1 + (uint32_t)(pn_rng_next(&r) % 40), n = t + (uint32_t)(pn_rng_next(&r) % (256 - t));
        uint8_t secret[32], back[32], coefficients[40 * 32], shares[255][32], points[255], chosen[255][32];
        draw(&r, secret, 32);
        draw(&r, coefficients, sizeof coefficients);
        pn_shamir_split(secret, t, n, coefficients, shares);
        for (uint32_t i = 0; i < n; i++) points[i] = (uint8_t)(i + 1);
        for (uint32_t i = 0; i < t; i++) {
            const uint32_t j = i + (uint32_t)(pn_rng_next(&r) % (n - i));
            const uint8_t p = points[i];
            points[i] = points[j];
            points[j] = p;
            memcpy(chosen[i], shares[points[i] - 1], 32);
        }
        pn_shamir_join(t, points, (const uint8_t(*)[32])chosen, back);
        ck_assert_mem_eq(back, secret, 32);
        chosen[t - 1][5] ^= 4;
        pn_shamir_join(t, points, (const uint8_t(*)[32])chosen, back);
        ck_assert_mem_ne(back, secret, 32);
    }
} END_TEST

START_TEST(fewer_shares_than_t_fit_every_secret) { /* t - 1 shares and any guess of the secret lie on one polynomial: the bytes of a share are uniform */
    struct pn_rng r = {2};
    uint64_t counts[2][256] = {{0}};
    for (int round = 0; round < 40000; round++) {
        uint8_t secret[32] = {0}, coefficients[2 * 32], shares[3][32];
        memset(secret, round & 1 ? 0xff : 0, 32);
        draw(&r, coefficients, sizeof coefficients);
        pn_shamir_split(secret, 3, 3, coefficients, shares);
        counts[round & 1][shares[1][7]]++;
    }
    for (int s = 0; s < 2; s++) {
        double chi2 = 0;
        for (int i = 0; i < 256; i++) chi2 += ((double)counts[s][i] - 78.125) * ((double)counts[s][i] - 78.125) / 78.125;
        ck_assert_double_lt(chi2, 255 + 5 * sqrt(510));
    }
} END_TEST

START_TEST(a_mask_made_in_pieces_is_the_mask_made_at_once_and_takes_itself_away) {
    enum { N = 20000 };
    static uint32_t whole[N], pieces[N];
    static uint64_t wide[N], wide2[N];
    struct pn_mask m[2] = {{.sign = 1}, {.sign = -1}};
    memset(m[0].seed, 7, 32);
    memset(m[1].seed, 9, 32);
    pn_mask_add(whole, 4, 0, N, m, 2);
    pn_mask_add(pieces, 4, 0, 4016, m, 2);
    pn_mask_add(pieces + 4016, 4, 4016, 7984, m, 2);
    pn_mask_add(pieces + 12000, 4, 12000, N - 12000, m, 2);
    ck_assert_mem_eq(whole, pieces, sizeof whole);
    unsigned char stream[64];
    crypto_stream_chacha20(stream, 64, (const unsigned char[8]){0}, m[0].seed);
    pn_mask_add(whole, 4, 0, N, &m[1], 0);
    m[0].sign = -1;
    m[1].sign = 1;
    pn_mask_add(whole, 4, 0, N, m, 2);
    for (int i = 0; i < N; i++) ck_assert_uint_eq(whole[i], 0);
    pn_mask_add(wide, 8, 0, N, m, 2);
    pn_mask_add(wide2, 8, 0, 8, m, 2);
    pn_mask_add(wide2 + 8, 8, 8, N - 8, m, 2);
    ck_assert_mem_eq(wide, wide2, sizeof wide);
    ck_assert_uint_ne(wide[N - 1] >> 32, 0);
} END_TEST

START_TEST(fixed_point_clips_rounds_without_bias_and_refuses_what_is_no_number) {
    enum { N = 200000 };
    static double values[N];
    static uint32_t draws[N], words[N];
    static double back[N];
    struct pn_rng r = {3};
    const struct pn_fixed f = {.range = 1, .scale = 1000, .word_bytes = 4};
    struct pn_error err;
    size_t clipped;
    for (int i = 0; i < N; i++) {
        values[i] = -0.12345;
        draws[i] = (uint32_t)(pn_rng_next(&r) >> 32);
    }
    values[0] = 3;
    values[1] = -7;
    values[2] = 1;
    ck_assert_int_eq(pn_fixed_encode(&f, values, N, draws, words, &clipped, &err), PN_OK);
    ck_assert_uint_eq(clipped, 2);
    pn_fixed_decode(&f, words, N, back);
    ck_assert_double_eq(back[0], 1);
    ck_assert_double_eq(back[1], -1);
    double mean = 0;
    for (int i = 3; i < N; i++) {
        ck_assert(back[i] == -0.123 || back[i] == -0.124);
        mean += back[i] / (N - 3);
    }
    ck_assert_double_lt(fabs(mean + 0.12345), 5 * .0005 / sqrt(N));
    values[77] = NAN;
    ck_assert_int_eq(pn_fixed_encode(&f, values, N, draws, words, &clipped, &err), PN_INVALID);
    ck_assert_str_eq(err.text, "secure aggregation: value 77 of 200000 is no finite number");
    values[77] = INFINITY;
    ck_assert_int_eq(pn_fixed_encode(&f, values, N, draws, words, &clipped, &err), PN_INVALID);
} END_TEST

START_TEST(the_bit_budget_holds_to_the_last_bit) {
    struct pn_error err;
    struct pn_fixed f = {.range = 1, .scale = 21474836, .word_bytes = 4};
    ck_assert_int_eq(pn_fixed_check(&f, 100, &err), PN_OK);
    f.scale = 21474837;
    ck_assert_int_eq(pn_fixed_check(&f, 100, &err), PN_REFUSED);
    ck_assert_ptr_nonnull(strstr(err.text, "need more than 32 bits; a scale of at most 2.14748e+07 fits, or 64 bits"));
    f.word_bytes = 8;
    ck_assert_int_eq(pn_fixed_check(&f, 100, &err), PN_OK);
    f = (struct pn_fixed){.range = 1, .scale = 21474836, .noise_sd = 100, .word_bytes = 4};
    ck_assert_int_eq(pn_fixed_check(&f, 100, &err), PN_REFUSED);
} END_TEST

START_TEST(degree_and_threshold_leave_no_way_to_both_shares_and_grow_slowly) {
    struct pn_error err;
    uint32_t k, t, last = 0;
    for (uint32_t n = 10; n <= 1000; n += n < 100 ? 10 : 100) {
        const uint32_t corrupt = n / 5, dropped = n / 10;
        ck_assert_msg(pn_agg_params(n, corrupt, dropped, 40, 40, &k, &t, &err) == PN_OK, "n %u: %s", n, err.text);
        printf("figure secagg.degree n %u k %u t %u\n", n, k, t);
        ck_assert(k % 2 == 0 || k == n - 1);
        ck_assert_uint_ge(2 * t, k + 1);
        ck_assert_uint_le(t, k);
        ck_assert(n > 200 || k >= last);
        last = k;
    }
    ck_assert_uint_lt(k, 200); /* of 1,000 */
    ck_assert_int_eq(pn_agg_params(100, 45, 30, 40, 40, &k, &t, &err), PN_REFUSED);
    ck_assert_ptr_nonnull(strstr(err.text, "lower max_dropout or the colluding share"));
    ck_assert_int_eq(pn_agg_params(2, 0, 0, 40, 40, &k, &t, &err), PN_REFUSED);
} END_TEST

START_TEST(a_chosen_degree_keeps_its_promise_when_neighbours_are_drawn) { /* at 2^-6 the promise can be counted */
    struct pn_error err;
    struct pn_agg_graph g;
    struct pn_rng r = {9};
    uint32_t k, t, lost = 0;
    const uint32_t n = 200, dropped = 60;
    ck_assert_int_eq(pn_agg_params(n, 10, dropped, 6, 6, &k, &t, &err), PN_OK);
    ck_assert_uint_lt(k, n - 1);
    for (int round = 0; round < 4000; round++) {
        uint8_t seed[32];
        draw(&r, seed, 32);
        pn_agg_graph_draw(&g, n, k, seed);
        bool bad = false;
        for (uint32_t i = 0; i < n && !bad; i++) {
            uint32_t alive = 0;
            for (uint32_t p = 1; p <= k; p++) alive += pn_agg_neighbour(&g, i, p) >= dropped;
            bad = alive < t;
        }
        lost += bad;
    }
    printf("figure secagg.lost %.5f of rounds; promised at most %.5f (k %u t %u)\n", lost / 4000.0, exp2(-6), k, t);
    ck_assert_double_le(lost / 4000.0, exp2(-6) + 4 * sqrt(exp2(-6) / 4000));
} END_TEST

START_TEST(neighbours_are_mutual_and_each_point_is_one_neighbour) {
    struct pn_agg_graph g;
    static const uint32_t cases[][2] = {{3, 2}, {10, 9}, {10, 8}, {11, 10}, {50, 12}, {200, 60}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        uint8_t seed[32] = {(uint8_t)c};
        const uint32_t n = cases[c][0], k = cases[c][1];
        pn_agg_graph_draw(&g, n, k, seed);
        for (uint32_t i = 0; i < n; i++) {
            uint32_t degree = 0;
            for (uint32_t j = 0; j < n; j++) {
                const uint32_t p = i == j ? 0 : pn_agg_point(&g, i, j);
                ck_assert_uint_le(p, k);
                degree += p != 0;
                if (p == 0) continue;
                ck_assert_uint_eq(pn_agg_neighbour(&g, i, p), j);
                ck_assert_uint_ne(pn_agg_point(&g, j, i), 0);
            }
            ck_assert_uint_eq(degree, k);
        }
    }
} END_TEST

START_TEST(a_message_whose_arrays_do_not_fit_its_kind_is_refused) {
    struct fake *f = fake_open();
    const uint32_t n = 10;
    uint8_t set[10] = {1, 1, 1}, records[160 * 10] = {0}, signature[64] = {0};
    uint32_t who[10] = {0, 2, 5};
    for (unsigned kind = PN_AGG_ROUND; kind <= PN_AGG_REFUSE; kind++) {
        struct pn_agg_message m = {.kind = (enum pn_agg_kind)kind, .from = 3, .set = set, .set2 = set, .who = who, .records = records, .signature = signature}, out;
        const bool one = kind == PN_AGG_ROUND || kind == PN_AGG_KEYS || kind == PN_AGG_RECEIVED;
        const bool many = kind == PN_AGG_LIST || kind == PN_AGG_SHARES || kind == PN_AGG_DELIVER || kind == PN_AGG_PROOF || kind == PN_AGG_REVEAL || kind == PN_AGG_UNMASK;
        m.count = one ? 1 : many ? 3 : 0;
        struct pn_msg *msg = pn_agg_write(&f->env, n, &m, NULL, NULL);
        struct pn_frame frame;
        ck_assert_int_eq(pn_frame_open(&frame, msg->data, msg->n_bytes, NULL), PN_OK);
        ck_assert_msg(pn_agg_read(&frame, n, &out, NULL) == PN_OK, "kind %u", kind);
        ck_assert_uint_eq(out.count, m.count);
        ck_assert_uint_eq(out.from, 3);
        if (kind != PN_AGG_MASKED) { /* its rest is words */
            struct pn_frame cut = frame;
            if (cut.body_bytes >= 8) {
                cut.body_bytes -= 8;
                ck_assert_int_eq(pn_agg_read(&cut, n, &out, NULL), PN_INVALID);
            }
            cut.body_bytes = frame.body_bytes + 8;
            ck_assert_int_eq(pn_agg_read(&cut, n, &out, NULL), PN_INVALID);
        }
        pn_frame_close(&frame);
        pn_msg_unref(msg);
    }
    who[1] = 0; /* not rising */
    struct pn_agg_message m = {.kind = PN_AGG_REVEAL, .who = who, .records = records, .count = 3}, out;
    struct pn_msg *msg = pn_agg_write(&f->env, n, &m, NULL, NULL);
    struct pn_frame frame;
    ck_assert_int_eq(pn_frame_open(&frame, msg->data, msg->n_bytes, NULL), PN_OK);
    ck_assert_int_eq(pn_agg_read(&frame, n, &out, NULL), PN_INVALID);
    pn_frame_close(&frame);
    pn_msg_unref(msg);
    fake_close(f);
} END_TEST

int main(void) {
    TCase *c = tcase_create("parts");
    tcase_add_test(c, any_t_shares_give_the_secret_back_and_one_that_is_wrong_does_not);
    tcase_add_test(c, fewer_shares_than_t_fit_every_secret);
    tcase_add_test(c, a_mask_made_in_pieces_is_the_mask_made_at_once_and_takes_itself_away);
    tcase_add_test(c, fixed_point_clips_rounds_without_bias_and_refuses_what_is_no_number);
    tcase_add_test(c, the_bit_budget_holds_to_the_last_bit);
    tcase_add_test(c, degree_and_threshold_leave_no_way_to_both_shares_and_grow_slowly);
    tcase_add_test(c, a_chosen_degree_keeps_its_promise_when_neighbours_are_drawn);
    tcase_add_test(c, neighbours_are_mutual_and_each_point_is_one_neighbour);
    tcase_add_test(c, a_message_whose_arrays_do_not_fit_its_kind_is_refused);
    return fake_suite("secagg-parts", c);
}
