/* A secure job's vectors: which word is what, how much noise is in a sum, and what a plan may say. */
#include <check.h>
#include <math.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/hash.h"
#include "privacy/accountant.h"
#include "privacy/discrete.h"
#include "secure/noise.h"
#include "secure/plan.h"

static struct pn_job job;
static void read_job(const char *privacy) {
    char text[2000];
    struct pn_error err = {""};
    snprintf(text, sizeof text, "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data: {train: {format: csv, uri: /x, label: y}}\n"
             "  features: [{name: u, type: categorical, buckets: 300}, {name: v, type: numeric, bucketize: [1, 2, 3]}]\n  model: {name: fm, embeddingDim: 4}\n"
             "  training: {batchSize: 100, dataShards: 5, consistency: {mode: sync}}\n"
             "  privacy: {%s: 100000, epsilon: 4, delta: 1.0e-6, dataset: d, aggregation: secure, minWorkers: 3, maxDropout: 0.2, %s}\n", strstr(privacy, "unit: user") != NULL ? "users" : "rows", privacy);
    ck_assert_msg(pn_job_parse(&job, text, strlen(text), "t", NULL, NULL, &err) == PN_OK, "%s", err.text);
}

START_TEST(every_declared_row_has_one_place_at_the_server_of_its_slot) {
    read_job("threshold: 9");
    struct pn_secure_rows rows;
    struct pn_error err = {""};
    const uint32_t slots[] = {0, 300, 700};
    ck_assert_msg(pn_secure_rows_open(&rows, &job, 700, &err) == PN_OK, "%s", err.text);
    size_t n_rows = 0;
    uint8_t seen[1024] = {0};
    for (size_t t = 0; t < rows.n_tables; t++) {
        for (size_t i = 0; i < rows.n[t]; i++) {
            ck_assert(i == 0 || pn_mix64(rows.keys[t][i - 1]) < pn_mix64(rows.keys[t][i]));
            ck_assert(pn_secure_row(&rows, t, rows.keys[t][i]) == i);
            if (rows.bucket[t] != NULL) ck_assert(seen[rows.bucket[t][i]]++ == 0); /* as many buckets as rows: each its own */
        }
        if (rows.bucket[t] != NULL) n_rows += rows.n[t];
    }
    ck_assert_uint_eq(n_rows, 300 + 5);
    ck_assert_uint_eq(rows.n[job.i_dense_table], 3);
    ck_assert(pn_secure_row(&rows, 0, 12345) == SIZE_MAX);
    for (size_t i = 0; i < job.n_fields; i++) /* the keys are those that features make */
        for (uint64_t k = 0; k < pn_field_domain(&job.fields[i]); k++) ck_assert(pn_secure_row(&rows, job.fields[i].i_table, pn_field_domain_key(&job.fields[i], k)) != SIZE_MAX);
    struct pn_secure_layout l;
    uint8_t passed[64] = {0};
    for (uint32_t b = 0; b < 305; b += 3) passed[b / 8] |= (uint8_t)(1u << b % 8);
    for (int part = 0; part < 2; part++) {
        ck_assert_int_eq(pn_secure_layout_update(&l, &rows, slots, 3, part ? passed : NULL, &err), PN_OK);
        for (uint32_t s = 0; s < 3; s++) {
            uint64_t words = 0;
            for (size_t t = 0; t < rows.n_tables; t++) {
                ck_assert_uint_eq(pn_secure_layout_offset(&l, &rows, t, s), words);
                for (size_t i = l.begin[t][s]; i < l.begin[t][s + 1]; i++) {
                    const uint32_t row = l.row[t][i], slot = pn_slot_of(rows.keys[t][row]);
                    ck_assert(slot >= slots[s] && (s == 2 || slot < slots[s + 1]));
                    ck_assert(!part || rows.bucket[t] == NULL || rows.bucket[t][row] % 3 == 0);
                    words += rows.dim[t];
                }
            }
            ck_assert(l.first[s] % 16 == 0 && l.first[s + 1] - l.first[s] >= words && l.first[s + 1] - l.first[s] < words + 17);
        }
        size_t in = 0;
        for (size_t t = 0; t < rows.n_tables; t++) in += rows.bucket[t] != NULL ? l.begin[t][3] : 0;
        ck_assert_uint_eq(in, part ? 102 : 305);
        ck_assert_uint_eq(l.begin[job.i_dense_table][3], 3);
        pn_secure_layout_close(&l);
    }
    pn_secure_layout_counts(&l, 305, 3);
    ck_assert(l.first[3] >= 305 && l.first[1] % 16 == 0 && l.first[2] > l.first[1]);
    pn_secure_rows_close(&rows);
    pn_job_free(&job);
} END_TEST

/* The words of `n` holders added up, as servers add them, minus the plain sum: [words]. */
static double *noise_of(const struct pn_fixed *f, uint32_t n, size_t words) {
    uint64_t *sum = calloc(words, 8), *mine = calloc(words, 8);
    double *values = calloc(words, sizeof *values), *plain = calloc(words, sizeof *plain), *got = calloc(words, sizeof *got);
    struct pn_discrete *noise;
    struct pn_error err = {""};
    ck_assert_int_eq(pn_discrete_open(&noise, &err), PN_OK);
    for (uint32_t i = 0; i < n; i++) {
        struct pn_draws g;
        uint8_t seed[32];
        size_t clipped;
        randombytes_buf(seed, sizeof seed);
        pn_draws_open(&g, seed);
        for (size_t k = 0; k < words; k++) {
            values[k] = pn_draws_uniform(&g) * 20 - 7;
            plain[k] += values[k];
        }
        ck_assert_msg(pn_secure_words(f, &g, noise, values, words, mine, &clipped, &err) == PN_OK, "%s", err.text);
        ck_assert_uint_eq(clipped, 0);
        for (size_t k = 0; k < words; k++)
            if (f->word_bytes == 4) ((uint32_t *)sum)[k] += ((uint32_t *)mine)[k];
            else sum[k] += mine[k];
    }
    pn_fixed_decode(f, sum, words, got);
    for (size_t k = 0; k < words; k++) got[k] -= plain[k];
    pn_discrete_close(noise);
    free(values);
    free(sum);
    free(mine);
    free(plain);
    return got;
}

START_TEST(the_noise_of_the_fewest_honest_ones_is_what_the_accountant_counts_with) {
    static const struct { double multiplier, bound; uint64_t d; unsigned word_bytes; } cases[] = {{1, 1, 20000, 4}, {6, .25, 20000, 4}, {.3, 1, 100, 8}};
    for (size_t i = 0; i < 3; i++) {
        struct pn_fixed f;
        struct pn_error err = {""};
        const uint32_t n = 5, honest = 3;
        const double most = i == 2 ? 1e5 : 100;
        ck_assert_msg(pn_secure_fixed(&f, n, honest, cases[i].multiplier, cases[i].bound, 0, most, cases[i].d, &err) == PN_OK, "%s", err.text);
        ck_assert_uint_eq(f.word_bytes, cases[i].word_bytes);
        enum { WORDS = 20000 };
        double *noise = noise_of(&f, honest, WORDS), squares = 0, sum = 0;
        for (size_t k = 0; k < WORDS; k++) {
            squares += noise[k] * noise[k];
            sum += noise[k];
        }
        free(noise);
        /* In units of what one example can change: the rounded vector's, not only the real one's. */
        const double change = cases[i].bound * f.scale * (1 + 0x1p-10) + sqrt((double)cases[i].d), deviation = sqrt(squares / WORDS) * f.scale;
        ck_assert_msg(fabs(deviation / (cases[i].multiplier * change) - 1) < .02, "case %zu: %g", i, deviation / change);
        ck_assert(fabs(sum / WORDS) * f.scale < 5 * deviation / sqrt(WORDS));
    }
} END_TEST

START_TEST(with_hardly_any_noise_the_released_sum_is_the_plain_sum) {
    struct pn_fixed f;
    struct pn_error err = {""};
    ck_assert_msg(pn_secure_fixed(&f, 5, 3, 1e-4, 1, 0, 1e5, 1000, &err) == PN_OK, "%s", err.text);
    double *noise = noise_of(&f, 5, 1000);
    for (size_t k = 0; k < 1000; k++) ck_assert_double_lt(fabs(noise[k]), 6 * 1e-4 * sqrt(5.0 / 3) * 1.1); /* six deviations */
    free(noise);
} END_TEST

/* One example more moves each rounded word by less than one more than the real difference, with the same draws. */
START_TEST(one_example_changes_the_rounded_vector_by_no_more_than_is_counted_with) {
    enum { D = 500 };
    const struct pn_fixed f = {.range = 1000, .scale = 37.5, .word_bytes = 8};
    struct pn_rng r = {3};
    for (int again = 0; again < 200; again++) {
        double with[D], without[D];
        uint32_t draws[D];
        int64_t a[D], b[D];
        double real = 0, rounded = 0;
        for (int i = 0; i < D; i++) {
            without[i] = pn_rng_uniform(&r) * 100 - 50;
            with[i] = without[i] + (i % 3 == 0 ? pn_rng_normal(&r) * .1 : 0);
            draws[i] = (uint32_t)pn_rng_next(&r);
            real += pow(with[i] - without[i], 2);
        }
        ck_assert(pn_fixed_encode(&f, with, D, draws, a, NULL, NULL) == PN_OK && pn_fixed_encode(&f, without, D, draws, b, NULL, NULL) == PN_OK);
        for (int i = 0; i < D; i++) {
            ck_assert(fabs((double)(a[i] - b[i]) - (with[i] - without[i]) * f.scale) < 1);
            rounded += pow((double)(a[i] - b[i]), 2);
        }
        ck_assert(sqrt(rounded) <= sqrt(real) * f.scale + sqrt(D));
    }
} END_TEST

/* Whatever the order, votes add up to the same: so that one unit more moves the buckets that it votes for, and no others. */
START_TEST(votes_add_up_exactly_and_have_at_most_the_clips_norm) {
    read_job("selection: fest, threshold: 9, voteClip: 1.7");
    double forward = 0, backward = 0;
    for (size_t m = 1; m <= 3000; m++) {
        const double v = pn_secure_vote(&job.privacy, m);
        ck_assert(v > 0 && v * sqrt((double)m) <= 1.7 && v * 0x1p24 == floor(v * 0x1p24));
        forward += v;
        backward += pn_secure_vote(&job.privacy, 3001 - m);
    }
    ck_assert(forward == backward && pn_secure_vote(&job.privacy, 1) == 1);
    struct pn_fixed all, batch;
    struct pn_error err = {""};
    ck_assert_int_eq(pn_secure_fixed_counts(&all, &job, &err), PN_OK); /* 100000 units of 5 holders vote, not the 100 of a batch */
    job.privacy.selection = PN_SELECT_ADAFEST;
    ck_assert_int_eq(pn_secure_fixed_counts(&batch, &job, &err), PN_OK);
    ck_assert(all.range >= 2 * 40064 && batch.range < 2 * 40064 && all.scale == batch.scale); /* the same noise in a count of one step and of all */
    pn_job_free(&job);
} END_TEST

/* More roundoff is allowed for where more examples are in a sum: the steps become coarser, and so the noise larger. */
START_TEST(a_users_examples_are_counted_with_in_the_roundoff) {
    double scale[3];
    static const char *const units[] = {"threshold: 9, noiseMultiplier: 2", "threshold: 9, noiseMultiplier: 2, unit: user, userField: u, examplesPerUser: 1", "threshold: 9, noiseMultiplier: 2, unit: user, userField: u, examplesPerUser: 64"};
    for (int i = 0; i < 3; i++) {
        struct pn_fixed f;
        struct pn_error err = {""};
        read_job(units[i]);
        ck_assert_int_eq(pn_secure_fixed_update(&f, &job, 4000, &err), PN_OK);
        scale[i] = f.scale;
        ck_assert_float_eq_tol(pn_job_spread(&job.privacy), i == 0 ? 0 : i == 1 ? 1 : 8, 1e-6f);
        pn_job_free(&job);
    }
    ck_assert(scale[0] == scale[1]);
    const double b = 100 * 40064. / 20000, roundoff = 2 * 0x1p-24 * (pow(b, 1.5) + b), of_64 = 2 * 0x1p-24 * (64 * pow(b, 1.5) + b); /* of twice the units that are expected at a holder, and 64 */
    ck_assert_double_eq_tol(scale[1] / scale[2], (1 + 0x1p-10 + of_64) / (1 + 0x1p-10 + roundoff), 1e-9);
} END_TEST

START_TEST(so_much_noise_that_nothing_is_left_of_an_example_is_refused) {
    struct pn_fixed f;
    struct pn_error err = {""};
    ck_assert(pn_secure_fixed(&f, 5, 3, 60, 1, 0, 100, 1u << 20, &err) == PN_REFUSED && strstr(err.text, "less noise") != NULL);
} END_TEST

/* By whole orders: what the shifted lattice's moments are, summed up here, and what the accountant takes them for. */
START_TEST(a_sampled_discrete_gaussian_is_as_far_as_the_accountant_says_at_whole_orders) {
    const double sigma = 5, q = .05;
    const int shift = 4;
    for (int alpha = 2; alpha <= 24; alpha += 11) {
        long double total = 0, one = 0, other = 0;
        for (int x = -400; x <= 400; x++) total += expl(-(long double)x * x / (2 * sigma * sigma));
        for (int x = -400; x <= 400; x++) {
            const long double p = expl(-(long double)x * x / (2 * sigma * sigma)) / total, s = expl(-(long double)(x - shift) * (x - shift) / (2 * sigma * sigma)) / total;
            const long double mix = (1 - q) * p + q * s;
            if (p > 0) one += powl(mix / p, alpha) * p;
            if (mix > 0 && p > 0) other += powl(p / mix, alpha) * mix;
        }
        const double said = pn_privacy_rdp(q, sigma / shift, alpha);
        ck_assert_double_lt(fabs((double)logl(one) / (alpha - 1) / said - 1), 1e-6);
        ck_assert_double_le((double)logl(other) / (alpha - 1), said * (1 + 1e-9));
    }
    double whole, any;
    const struct pn_privacy_event event = {.rate = .01, .noise = 1, .steps = 500};
    ck_assert(pn_privacy_epsilon_rdp_whole(&event, 1, 1e-6, &whole, NULL) == PN_OK && pn_privacy_epsilon_rdp(&event, 1, 1e-6, &any, NULL) == PN_OK);
    ck_assert(whole >= any && whole < 1.05 * any);
} END_TEST

START_TEST(a_plan_that_does_not_fit_the_job_is_not_taken) {
    for (int selection = 0; selection < 2; selection++) {
        read_job(selection == 0 ? "threshold: 9" : "threshold: 9, selection: fest");
        static const struct { const char *text; bool good; } cases[] = {
            {"{\"phase\":\"counts\",\"attempt\":1,\"step\":1,\"slots\":[0,512],\"holders\":[\"%s\",\"%s\",\"%s\",\"%s\",\"%s\"]}", true},
            {"{\"phase\":\"update\",\"attempt\":1,\"step\":1,\"slots\":[0,512],\"holders\":[\"%s\",\"%s\",\"%s\",\"%s\",\"%s\"]}", false}, /* of all rows, in a job that chooses them */
            {"{\"phase\":\"update\",\"attempt\":1,\"passed\":\"00\",\"slots\":[0,512],\"holders\":[\"%s\",\"%s\",\"%s\",\"%s\",\"%s\"]}", false},
            {"{\"phase\":\"counts\",\"attempt\":1,\"slots\":[0,512],\"holders\":[\"%s\",\"%s\",\"%s\",\"%s\"]}", false},
            {"{\"phase\":\"counts\",\"attempt\":1,\"slots\":[5,512],\"holders\":[\"%s\",\"%s\",\"%s\",\"%s\",\"%s\"]}", false},
            {"{\"phase\":\"counts\",\"attempt\":1,\"slots\":[],\"holders\":[\"%s\",\"%s\",\"%s\",\"%s\",\"%s\"]}", false},
            {"{\"phase\":\"sums\",\"attempt\":1,\"slots\":[0],\"holders\":[\"%s\",\"%s\",\"%s\",\"%s\",\"%s\"]}", false},
            {"{\"phase\":\"counts\",\"attempt\":1,\"slots\":[0],\"holders\":[\"%s\",\"%s\",7,\"%s\",\"%s\"]}", false},
        };
        char key[65], text[800];
        memset(key, 'a', 64);
        key[64] = '\0';
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            struct pn_secure_plan p;
            struct pn_error err;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
            snprintf(text, sizeof text, cases[i].text, key, key, key, key, key);
#pragma GCC diagnostic pop
            struct json_object *o = pn_json_parse(text, strlen(text), NULL);
            ck_assert(o != NULL);
            ck_assert_msg((pn_secure_plan_read(&p, o, &job, &err) == PN_OK) == cases[i].good, "case %zu", i);
            if (cases[i].good) pn_secure_plan_close(&p);
            json_object_put(o);
        }
        pn_job_free(&job);
    }
} END_TEST

int main(void) {
    if (sodium_init() < 0) return 1;
    Suite *s = suite_create("secure");
    TCase *c = tcase_create("sums");
    tcase_add_test(c, every_declared_row_has_one_place_at_the_server_of_its_slot);
    tcase_add_test(c, the_noise_of_the_fewest_honest_ones_is_what_the_accountant_counts_with);
    tcase_add_test(c, with_hardly_any_noise_the_released_sum_is_the_plain_sum);
    tcase_add_test(c, one_example_changes_the_rounded_vector_by_no_more_than_is_counted_with);
    tcase_add_test(c, votes_add_up_exactly_and_have_at_most_the_clips_norm);
    tcase_add_test(c, a_users_examples_are_counted_with_in_the_roundoff);
    tcase_add_test(c, so_much_noise_that_nothing_is_left_of_an_example_is_refused);
    tcase_add_test(c, a_sampled_discrete_gaussian_is_as_far_as_the_accountant_says_at_whole_orders);
    tcase_add_test(c, a_plan_that_does_not_fit_the_job_is_not_taken);
    tcase_set_timeout(c, 30);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    const int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
