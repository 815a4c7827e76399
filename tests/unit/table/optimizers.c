/* The optimizers against a float64 reference, through the table; first values. */
#include "ps/table/optimizer.h"
#include "tests/unit/table/util.h"

enum { MAX_DIM = 260, STEPS = 60 };

/* The textbook, in float64. state: a, b as the kind needs. */
struct reference { double w[MAX_DIM], a[MAX_DIM], b[MAX_DIM]; };

static void reference_start(struct reference *r, const struct pn_optimizer_spec *o, uint32_t dim) {
    for (uint32_t i = 0; i < dim; i++) {
        r->a[i] = r->b[i] = 0;
        if (o->kind == PN_ADAGRAD || o->kind == PN_ROWWISE_ADAGRAD) r->a[i] = (double)o->initial_accumulator;
        if (o->kind == PN_FTRL && r->w[i] != 0)
            r->a[i] = -r->w[i] * ((double)o->ftrl_beta / (double)o->lr + (double)o->l2) - copysign((double)o->l1, r->w[i]);
    }
}
static void reference_step(struct reference *r, const struct pn_optimizer_spec *o, uint32_t dim, const float *gradient, int step) {
    const double lr = (double)o->lr, l1 = (double)o->l1, l2 = (double)o->l2, epsilon = (double)o->epsilon;
    const double beta1 = (double)o->beta1, beta2 = (double)o->beta2;
    double mean = 0;
    for (uint32_t i = 0; i < dim; i++) {
        double g = (double)gradient[i] + l2 * r->w[i];
        mean += g * g / dim;
    }
    for (uint32_t i = 0; i < dim; i++) {
        double g = (double)gradient[i] + (o->kind == PN_FTRL || o->kind == PN_ADAMW ? 0 : l2 * r->w[i]);
        switch (o->kind) {
            case PN_SGD: r->w[i] -= lr * g; break;
            case PN_ADAGRAD:
                r->a[i] += g * g;
                r->w[i] -= lr * g / (sqrt(r->a[i]) + epsilon);
                break;
            case PN_ROWWISE_ADAGRAD:
                r->a[i] += mean;
                r->w[i] -= lr * g / (sqrt(r->a[i]) + epsilon);
                break;
            case PN_MOMENTUM:
                r->a[i] = (double)o->momentum * r->a[i] + g;
                r->w[i] -= lr * (o->nesterov ? g + (double)o->momentum * r->a[i] : r->a[i]);
                break;
            case PN_ADAMW: r->w[i] -= lr * l2 * r->w[i]; /* fall through */
            case PN_ADAM:
                r->a[i] = beta1 * r->a[i] + (1 - beta1) * g;
                r->b[i] = beta2 * r->b[i] + (1 - beta2) * g * g;
                r->w[i] -= lr * r->a[i] / (1 - pow(beta1, step)) / (sqrt(r->b[i] / (1 - pow(beta2, step))) + epsilon);
                break;
            case PN_FTRL: {
                double sigma = (sqrt(r->b[i] + g * g) - sqrt(r->b[i])) / lr;
                r->a[i] += g - sigma * r->w[i];
                r->b[i] += g * g;
                r->w[i] = fabs(r->a[i]) <= l1 ? 0
                                              : -(r->a[i] - copysign(l1, r->a[i])) / (((double)o->ftrl_beta + sqrt(r->b[i])) / lr + l2);
                break;
            }
        }
    }
}

START_TEST(every_optimizer_follows_the_float64_reference) {
    static const uint32_t dims[] = {1, 2, 3, 7, 8, 9, 16, 17, 31, 33, 64, 256};
    for (size_t d = 0; d < sizeof(dims) / sizeof(dims[0]); d++) {
        struct pn_table_spec spec = spec_of((enum pn_optimizer)_i, dims[d]); /* its number in `optimizers` */
        struct pn_table *t = pn_table_open(&spec);
        const uint64_t key = 77;
        float row[MAX_DIM], gradient[MAX_DIM];
        struct reference r;
        ck_assert_uint_eq(pn_table_pull(t, &key, 1, row), 1);
        for (uint32_t i = 0; i < dims[d]; i++) r.w[i] = (double)row[i];
        reference_start(&r, &spec.optimizer, dims[d]);
        struct pn_rng rng = {dims[d]};
        for (int step = 1; step <= STEPS; step++) {
            for (uint32_t i = 0; i < dims[d]; i++) gradient[i] = (float)(pn_rng_uniform(&rng) * 2 - 1);
            OK(pn_table_push(t, &key, gradient, 1, (uint64_t)step, NULL));
            reference_step(&r, &spec.optimizer, dims[d], gradient, step);
            ck_assert_uint_eq(pn_table_pull(t, &key, 1, row), 0);
            for (uint32_t i = 0; i < dims[d]; i++)
                ck_assert_msg(fabs((double)row[i] - r.w[i]) < 2e-5 * (1 + fabs(r.w[i])), "optimizer %d dim %u step %d element %u: %g, not %g", _i,
                              dims[d], step, i, (double)row[i], r.w[i]);
        }
        pn_table_close(t);
    }
} END_TEST

/* Each element alone must give the bits it gives inside a wide row: no result depends on the vector width. */
START_TEST(a_row_of_one_has_the_bits_of_the_same_element_in_a_wide_row) {
    const enum pn_optimizer kind = (enum pn_optimizer)_i;
    if (kind == PN_ROWWISE_ADAGRAD) return; /* its elements share a state */
    enum { DIM = 37 };
    const struct pn_optimizer_spec *o = &optimizers[kind];
    float wide[3 * DIM + 1], *state = wide + DIM, gradient[DIM], one[DIM][4];
    struct pn_rng rng = {9};
    for (int i = 0; i < DIM; i++) wide[i] = one[i][0] = (float)pn_rng_uniform(&rng);
    pn_optimizer_start(o, DIM, wide, state);
    for (int i = 0; i < DIM; i++) pn_optimizer_start(o, 1, one[i], one[i] + 1);
    for (int step = 0; step < 20; step++) {
        for (int i = 0; i < DIM; i++) gradient[i] = (float)(pn_rng_uniform(&rng) - 0.5);
        pn_optimizer_step(o, DIM, wide, gradient);
        for (int i = 0; i < DIM; i++) pn_optimizer_step(o, 1, one[i], &gradient[i]);
        for (int i = 0; i < DIM; i++) ck_assert_mem_eq(&wide[i], one[i], sizeof(float));
    }
} END_TEST

START_TEST(ftrl_with_a_large_l1_makes_exact_zeros_and_keeps_first_values_until_a_gradient_speaks) {
    struct pn_optimizer_spec o = optimizers[PN_FTRL];
    float w[6] = {0.25f, -0.125f}, nothing[2] = {0, 0}, noise[2] = {0.001f, -0.001f};
    pn_optimizer_start(&o, 2, w, w + 2);
    pn_optimizer_step(&o, 2, w, nothing);
    ck_assert_float_eq_tol(w[0], 0.25f, 1e-6f);
    ck_assert_float_eq_tol(w[1], -0.125f, 1e-6f);
    o.l1 = 10;
    float zero[6] = {0};
    pn_optimizer_start(&o, 2, zero, zero + 2);
    for (int i = 0; i < 100; i++) pn_optimizer_step(&o, 2, zero, noise);
    ck_assert(zero[0] == 0 && zero[1] == 0);
} END_TEST

START_TEST(adam_counts_the_steps_of_a_row_not_of_the_table) {
    struct pn_table_spec spec = spec_of(PN_ADAM, 1);
    spec.init = PN_INIT_ZERO;
    struct pn_table *t = pn_table_open(&spec);
    const uint64_t often = 1, late = 2;
    float g = 1, row;
    for (uint64_t s = 1; s <= 100; s++) OK(pn_table_push(t, &often, &g, 1, s, NULL));
    OK(pn_table_push(t, &late, &g, 1, 101, NULL));
    pn_table_pull(t, &late, 1, &row);
    /* A first step of Adam is lr whatever the gradient; l2 adds nothing at zero. */
    ck_assert_float_eq_tol(row, -0.01f, 1e-6f);
    pn_table_close(t);
} END_TEST

START_TEST(lazy_decay_catches_up_with_the_steps_a_row_was_away) {
    struct pn_table_spec spec = {.name = "t", .dim = 1, .optimizer = {.kind = PN_SGD, .lr = 0.1f, .l2 = 0.01f, .decay_cap = 20, .decay_pace = 2},
                                 .init = PN_INIT_CONSTANT, .init_scale = 1, .track = true};
    struct pn_table *t = pn_table_open(&spec);
    const uint64_t key = 5;
    const float nothing = 0;
    double w = 1;
    float row;
    /* away for 1, 1, 4, 9 and 100 steps, two pushes each; at most 20 count */
    static const struct { uint64_t step; double pushes; } visits[] = {{10, 1}, {11, 2}, {12, 2}, {16, 8}, {25, 18}, {125, 20}, {125, 1}, {124, 1}};
    for (size_t i = 0; i < sizeof visits / sizeof *visits; i++) {
        OK(pn_table_push(t, &key, &nothing, 1, visits[i].step, NULL));
        w -= 0.1 * 0.01 * visits[i].pushes * w;
        pn_table_pull(t, &key, 1, &row);
        ck_assert_msg(fabs((double)row - w) < 1e-6, "visit %zu: %g, not %g", i, (double)row, w);
    }
    pn_table_close(t);
} END_TEST

START_TEST(first_values_are_functions_of_seed_key_and_element) {
    struct pn_table_spec spec = spec_of(PN_SGD, 8);
    float a[8], b[8], c[4];
    pn_init_row(&spec, 5, a);
    pn_init_row(&spec, 5, b);
    ck_assert_mem_eq(a, b, sizeof(a));
    spec.dim = 4;
    pn_init_row(&spec, 5, c);
    ck_assert_mem_eq(a, c, sizeof(c)); /* independent of dim */
    spec.dim = 8;
    pn_init_row(&spec, 6, b);
    ck_assert(memcmp(a, b, sizeof(a)) != 0);
    spec.init_seed++;
    pn_init_row(&spec, 5, b);
    ck_assert(memcmp(a, b, sizeof(a)) != 0);
    spec.init = PN_INIT_CONSTANT;
    spec.init_scale = 0.75f;
    pn_init_row(&spec, 5, b);
    for (int i = 0; i < 8; i++) ck_assert(b[i] == 0.75f);
    spec.init = PN_INIT_ZERO;
    pn_init_row(&spec, 5, b);
    for (int i = 0; i < 8; i++) ck_assert(b[i] == 0);
} END_TEST

static int rising(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Kolmogorov-Smirnov: the largest distance of the empirical distribution from the named one. */
START_TEST(uniform_and_normal_first_values_have_their_distributions) {
    enum { KEYS = 20000, DIM = 10, N = KEYS * DIM };
    float *values = malloc(N * sizeof(float));
    for (int kind = 0; kind < 2; kind++) {
        struct pn_table_spec spec = {.dim = DIM, .init = kind ? PN_INIT_NORMAL : PN_INIT_UNIFORM, .init_scale = 0.5f, .init_seed = 7};
        for (uint64_t k = 0; k < KEYS; k++) pn_init_row(&spec, k, values + k * DIM);
        qsort(values, N, sizeof(float), rising);
        if (kind == 0) ck_assert(values[0] > -0.5f && values[N - 1] < 0.5f);
        double distance = 0;
        for (int i = 0; i < N; i++) {
            double x = (double)values[i] / 0.5, p = kind ? 0.5 * erfc(-x / sqrt(2)) : (x + 1) / 2;
            distance = fmax(distance, fabs(p - (i + 0.5) / N));
        }
        ck_assert_msg(distance < 1.95 / sqrt(N), "distance %g", distance);
    }
    free(values);
} END_TEST

START_TEST(a_schedule_rises_falls_and_stays_at_its_floor) {
    struct pn_optimizer_spec o = {.warmup = 10, .lr_steps = 100, .lr_floor = 0.1f};
    ck_assert_float_eq_tol(pn_optimizer_pace(&o, 0), 0, 1e-6f);
    ck_assert_float_eq_tol(pn_optimizer_pace(&o, 5), 0.5f, 1e-6f);
    ck_assert_float_eq_tol(pn_optimizer_pace(&o, 10), 1, 1e-6f);
    ck_assert_float_eq_tol(pn_optimizer_pace(&o, 60), 0.55f, 1e-6f);
    ck_assert_float_eq_tol(pn_optimizer_pace(&o, 110), 0.1f, 1e-6f);
    ck_assert_float_eq_tol(pn_optimizer_pace(&o, 1u << 30), 0.1f, 1e-6f);
    o.shape = PN_COSINE;
    for (uint64_t s = 10; s <= 110; s += 5) {
        const double want = 0.1 + 0.9 * (1 + cos(3.14159265358979 * (double)(s - 10) / 100)) / 2;
        ck_assert_float_eq_tol(pn_optimizer_pace(&o, s), (float)want, 1e-5f);
    }
    o.shape = PN_EXPONENTIAL;
    for (uint64_t s = 10; s <= 110; s += 5)
        ck_assert_float_eq_tol(pn_optimizer_pace(&o, s), (float)pow((double)o.lr_floor, (double)(s - 10) / 100), 1e-6f);
    o.lr_floor = 1e-6f;
    ck_assert_float_eq_tol(pn_optimizer_pace(&o, 1u << 30) * 1e6f, 1, 1e-5f);
    ck_assert(pn_optimizer_pace(&o, 10) == 1);
    o = (struct pn_optimizer_spec){.lr = 1};
    ck_assert(pn_optimizer_pace(&o, 7) == 1);
} END_TEST

int main(void) {
    TCase *c = tcase_create("optimizers");
    tcase_add_test(c, a_schedule_rises_falls_and_stays_at_its_floor);
    tcase_add_loop_test(c, every_optimizer_follows_the_float64_reference, 0, N_OPTIMIZERS);
    tcase_add_loop_test(c, a_row_of_one_has_the_bits_of_the_same_element_in_a_wide_row, 0, N_OPTIMIZERS);
    tcase_add_test(c, ftrl_with_a_large_l1_makes_exact_zeros_and_keeps_first_values_until_a_gradient_speaks);
    tcase_add_test(c, adam_counts_the_steps_of_a_row_not_of_the_table);
    tcase_add_test(c, lazy_decay_catches_up_with_the_steps_a_row_was_away);
    tcase_add_test(c, first_values_are_functions_of_seed_key_and_element);
    tcase_add_test(c, uniform_and_normal_first_values_have_their_distributions);
    return run_suite(c);
}
