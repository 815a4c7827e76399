/* What the table's tests share. */
#ifndef PN_TESTS_TABLE_UTIL_H
#define PN_TESTS_TABLE_UTIL_H
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "ps/table/table.h"

/* A record as a scan gives it (docs/formats.md). */
struct record { uint64_t key; uint32_t frequency, last_step; float values[]; };

#define OK(call) ck_assert_int_eq((call), PN_OK)

static const struct pn_optimizer_spec optimizers[] = {
    {.kind = PN_SGD, .lr = 0.1f, .l2 = 0.01f},
    {.kind = PN_ADAGRAD, .lr = 0.05f, .epsilon = 1e-10f, .initial_accumulator = 0.1f, .l2 = 0.001f},
    {.kind = PN_ROWWISE_ADAGRAD, .lr = 0.05f, .epsilon = 1e-10f, .initial_accumulator = 0.01f, .l2 = 0.001f},
    {.kind = PN_ADAM, .lr = 0.01f, .epsilon = 1e-8f, .beta1 = 0.9f, .beta2 = 0.999f, .l2 = 0.001f},
    {.kind = PN_FTRL, .lr = 0.1f, .ftrl_beta = 1.0f, .l1 = 0.05f, .l2 = 0.2f},
    {.kind = PN_MOMENTUM, .lr = 0.02f, .momentum = 0.9f, .l2 = 0.01f},
    {.kind = PN_ADAMW, .lr = 0.01f, .epsilon = 1e-8f, .beta1 = 0.9f, .beta2 = 0.999f, .l2 = 0.05f},
    {.kind = PN_MOMENTUM, .lr = 0.02f, .momentum = 0.9f, .nesterov = true},
};
enum { N_OPTIMIZERS = sizeof(optimizers) / sizeof(optimizers[0]) };

static inline struct pn_table_spec spec_of(enum pn_optimizer kind, uint32_t dim) {
    struct pn_table_spec spec = {.name = "t", .dim = dim, .optimizer = optimizers[kind], .init = PN_INIT_NORMAL, .init_scale = 0.1f,
                                 .init_seed = 42, .track = true};
    return spec;
}
/* The whole snapshot as one malloc'ed block; scanned in pieces of `piece`. */
static inline uint8_t *scan_all(struct pn_table *t, size_t piece, size_t *n) {
    size_t size = pn_table_record_bytes(t), room = pn_table_rows(t) + 1;
    uint8_t *out = malloc((room + piece) * size);
    *n = 0;
    for (size_t got; (got = pn_table_scan(t, out + *n * size, piece)) > 0;) {
        *n += got;
        ck_assert_uint_lt(*n, room);
    }
    return out;
}
static inline int run_suite(TCase *c) {
    Suite *s = suite_create("table");
    tcase_set_timeout(c, 120);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
#endif
