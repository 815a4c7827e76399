/* Rows stored as float16, bfloat16 and int8: what is lost, and what is not. */
#include <stdio.h>
#include "tests/unit/table/util.h"

/* The largest error of one rounding, relative to the row's largest value: half a unit up or down, a whole one when drawn. */
static const double units[PN_CODECS] = {0, 0x1p-10, 0x1p-7, 1.0 / 127};

static struct pn_table *table_of(enum pn_codec storage, enum pn_optimizer kind, uint32_t dim, enum pn_init init, float scale) {
    struct pn_table_spec spec = spec_of(kind, dim);
    spec.storage = storage;
    spec.init = init;
    spec.init_scale = scale;
    return pn_table_open(&spec);
}

START_TEST(a_missing_row_and_the_row_made_of_it_are_the_same) {
    for (enum pn_codec c = PN_CODEC_FLOAT32; c < PN_CODECS; c++) {
        struct pn_table *t = table_of(c, PN_SGD, 7, PN_INIT_NORMAL, 1);
        uint64_t keys[200];
        static float before[200 * 7], after[200 * 7];
        for (uint64_t i = 0; i < 200; i++) keys[i] = i * 977;
        ck_assert_uint_eq(pn_table_pull(t, keys, 200, before), 200);
        OK(pn_table_seed(t, keys, before, 200)); /* values that the storage has: nothing is rounded */
        ck_assert_uint_eq(pn_table_pull(t, keys, 200, after), 0);
        ck_assert_mem_eq(before, after, sizeof before);
        pn_table_close(t);
    }
} END_TEST

START_TEST(each_optimizer_stays_near_the_float32_table) {
    enum { N = 64, DIM = 9, STEPS = 40 };
    const enum pn_optimizer kind = (enum pn_optimizer)_i;
    for (enum pn_codec c = PN_CODEC_FLOAT16; c < PN_CODECS; c++) {
        struct pn_table *exact = table_of(PN_CODEC_FLOAT32, kind, DIM, PN_INIT_NORMAL, 0.5f), *t = table_of(c, kind, DIM, PN_INIT_NORMAL, 0.5f);
        uint64_t keys[N];
        static float g[N * DIM], a[N * DIM], b[N * DIM];
        struct pn_rng rng = {3};
        for (uint64_t i = 0; i < N; i++) keys[i] = i + 1;
        for (uint64_t step = 1; step <= STEPS; step++) {
            for (size_t i = 0; i < N * DIM; i++) g[i] = (float)(pn_rng_uniform(&rng) * 2 - 1);
            OK(pn_table_push(exact, keys, g, N, step, NULL));
            OK(pn_table_push(t, keys, g, N, step, NULL));
        }
        pn_table_pull(exact, keys, N, a);
        pn_table_pull(t, keys, N, b);
        for (size_t i = 0; i < N; i++) {
            double most = 0.5;
            for (size_t d = 0; d < DIM; d++) most = fmax(most, fabs((double)a[i * DIM + d]));
            for (size_t d = 0; d < DIM; d++) /* forty roundings, each a unit at most; their sum goes like a random walk */
                ck_assert_msg(fabs((double)a[i * DIM + d] - (double)b[i * DIM + d]) < 2 * most * units[c] * sqrt(STEPS) + 1e-3, "%s optimizer %d: %g, not %g",
                              pn_codec_names[c], _i, (double)b[i * DIM + d], (double)a[i * DIM + d]);
        }
        pn_table_close(exact);
        pn_table_close(t);
    }
} END_TEST

/* Steps of a hundredth of a unit: rounding to nearest would never move. */
START_TEST(steps_below_a_unit_arrive_in_expectation) {
    enum { N = 4000, DIM = 4, STEPS = 100 };
    for (enum pn_codec c = PN_CODEC_FLOAT16; c < PN_CODECS; c++) {
        struct pn_table_spec spec = {.name = "t", .dim = DIM, .storage = c, .optimizer = {.kind = PN_SGD, .lr = 1}, .init = PN_INIT_CONSTANT, .init_scale = 1, .init_seed = 8};
        struct pn_table *t = pn_table_open(&spec);
        static uint64_t keys[N];
        static float g[N * DIM], rows[N * DIM];
        const double unit = c == PN_CODEC_FLOAT16 ? 0x1p-11 : c == PN_CODEC_BFLOAT16 ? 0x1p-8 : 1.0 / 127, step_size = unit / 100; /* below 1 the units are half of those above */
        for (uint64_t i = 0; i < N; i++) keys[i] = i;
        for (size_t i = 0; i < N * DIM; i++) g[i] = i % DIM == 0 ? 0 : (float)step_size; /* element 0 stays 1: int8's scale with it */
        for (uint64_t step = 1; step <= STEPS; step++) OK(pn_table_push(t, keys, g, N, step, NULL));
        pn_table_pull(t, keys, N, rows);
        double sum = 0;
        for (size_t i = 0; i < N * DIM; i++) {
            if (i % DIM == 0) ck_assert(fabsf(rows[i] - 1) < 1e-6f);
            else sum += (double)rows[i];
        }
        const double n = N * (DIM - 1), moved = 1 - sum / n, want = step_size * STEPS, sigma = unit * sqrt(STEPS * 0.01 / n); /* a step is a draw of p = .01 */
        ck_assert_msg(fabs(moved - want) < 5 * sigma + 1e-7, "%s: moved by %g, not %g +- %g", pn_codec_names[c], moved, want, sigma);
        pn_table_close(t);
    }
} END_TEST

START_TEST(records_come_back_as_they_were_and_the_same_pushes_give_the_same_bits) {
    enum { N = 300, DIM = 5 };
    for (enum pn_codec c = PN_CODEC_FLOAT16; c < PN_CODECS; c++) {
        struct pn_table *tables[3];
        uint64_t keys[N];
        static float g[N * DIM], rows[3][N * DIM];
        for (uint64_t i = 0; i < N; i++) keys[i] = i * 31;
        for (int k = 0; k < 3; k++) tables[k] = table_of(c, PN_ADAM, DIM, PN_INIT_UNIFORM, 1);
        for (uint64_t step = 1; step <= 5; step++) {
            struct pn_rng rng = {step};
            for (size_t i = 0; i < N * DIM; i++) g[i] = (float)pn_rng_uniform(&rng);
            for (int k = 0; k < 2; k++) OK(pn_table_push(tables[k], keys, g, N, step, NULL));
        }
        size_t n;
        ck_assert(pn_table_cut(tables[0]));
        uint8_t *records = scan_all(tables[0], 77, &n);
        ck_assert_uint_eq(n, N);
        OK(pn_table_restore(tables[2], records, n));
        for (int k = 0; k < 3; k++) ck_assert_uint_eq(pn_table_pull(tables[k], keys, N, rows[k]), 0);
        ck_assert_mem_eq(rows[0], rows[1], sizeof rows[0]);
        ck_assert_mem_eq(rows[0], rows[2], sizeof rows[0]);
        OK(pn_table_push(tables[1], keys, g, N, 6, NULL));
        OK(pn_table_push(tables[2], keys, g, N, 6, NULL)); /* state and what is drawn go on, too */
        for (int k = 1; k < 3; k++) pn_table_pull(tables[k], keys, N, rows[k]);
        ck_assert_mem_eq(rows[1], rows[2], sizeof rows[0]);
        free(records);
        for (int k = 0; k < 3; k++) pn_table_close(tables[k]);
    }
} END_TEST

START_TEST(a_pull_gives_any_codec_and_its_own_storage_untouched) {
    enum { N = 50, MOST = 16 };
    static const uint32_t dims[2] = {6, MOST}; /* with and without whole eights */
    for (int k = 0; k < 2 * (int)PN_CODECS; k++) {
        const enum pn_codec c = (enum pn_codec)(k / 2);
        const uint32_t dim = dims[k % 2];
        struct pn_table *t = table_of(c, PN_SGD, dim, PN_INIT_NORMAL, 1);
        uint64_t keys[N];
        static float g[N * MOST], floats[N * MOST], decoded[N * MOST];
        static uint8_t wire[N * MOST * 4], again[N * MOST * 4];
        for (uint64_t i = 0; i < N; i++) keys[i] = i;
        for (size_t i = 0; i < N * dim; i++) g[i] = 0.125f;
        OK(pn_table_push(t, keys, g, N / 2, 1, NULL)); /* the other half is missing */
        ck_assert_uint_eq(pn_table_pull(t, keys, N, floats), N / 2);
        for (enum pn_codec to = PN_CODEC_FLOAT32; to < PN_CODECS; to++) {
            ck_assert_uint_eq(pn_table_pull_as(t, to, keys, N, wire), N / 2);
            pn_codec_encode(to, floats, N, dim, again);
            if (to != PN_CODEC_INT8 || c != PN_CODEC_INT8) ck_assert_mem_eq(wire, again, N * pn_codec_row_bytes(to, dim));
            if (to == c) {
                pn_codec_decode(to, wire, N, dim, decoded);
                ck_assert_mem_eq(decoded, floats, N * dim * sizeof *decoded);
            }
        }
        pn_table_close(t);
    }
} END_TEST

int main(void) {
    TCase *c = tcase_create("storage");
    tcase_add_test(c, a_missing_row_and_the_row_made_of_it_are_the_same);
    tcase_add_loop_test(c, each_optimizer_stays_near_the_float32_table, 0, N_OPTIMIZERS);
    tcase_add_test(c, steps_below_a_unit_arrive_in_expectation);
    tcase_add_test(c, records_come_back_as_they_were_and_the_same_pushes_give_the_same_bits);
    tcase_add_test(c, a_pull_gives_any_codec_and_its_own_storage_untouched);
    return run_suite(c);
}
