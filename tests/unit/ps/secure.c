/* A shard of a secure job: steps come as sums, once each, and in no other way. */
#include <check.h>
#include <stdlib.h>
#include "tests/unit/ps/util.h"

static const char secure_job[] =
    "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data: {train: {format: csv, uri: /nowhere/a.csv, label: y}}\n  features: [{name: f, type: categorical, table: f, buckets: 50}]\n"
    "  tables: {f: {optimizer: {name: sgd, lr: 1}, init: zero}}\n  model: {name: lr}\n  optimizer: {name: sgd, lr: 1}\n  training: {batchSize: 32, dataShards: 5, consistency: {mode: sync}}\n"
    "  privacy: {rows: 10000, epsilon: 8, delta: 1.0e-6, dataset: d, selection: dense, aggregation: secure, minWorkers: 3}\n";

static enum pn_result apply(struct pn_shard *s, uint64_t step, uint64_t key, float value) {
    static float weights[PN_DENSE_ROW];
    const uint64_t zero = 0;
    const struct pn_shard_sum parts[] = {{0, 1, &key, &value}, {1, 1, &zero, weights}};
    return pn_shard_apply_sum(s, step, step == 3, parts, 2);
}
static struct pn_shard *seeded(struct fake *f) {
    struct pn_shard *s = open_shard(f, secure_job, 5, 0, ALL);
    static float weights[PN_DENSE_ROW];
    const uint64_t zero = 0;
    ck_assert_int_eq(apply(s, 1, 9, -1), PN_NOT_SEEDED); /* and nothing was done */
    ck_assert(s->sync_step == 0 && first_value(s, 0, 9) == 0 && !s->broken);
    ck_assert_int_eq(pn_table_seed(s->tables[1], &zero, weights, 1), PN_OK);
    return s;
}

START_TEST(a_sum_is_applied_once_and_in_order) {
    struct fake *f = fake_open();
    struct pn_shard *s = seeded(f);
    ck_assert_int_eq(apply(s, 2, 9, -1), PN_INVALID);
    ck_assert_int_eq(apply(s, 1, 9, -1), PN_OK);
    ck_assert_int_eq(apply(s, 1, 9, -1), PN_EXISTS);
    ck_assert_int_eq(apply(s, 2, 9, -1), PN_OK);
    ck_assert(first_value(s, 0, 9) == 2 && s->sync_step == 2 && !s->producers[4].finished);
    ck_assert_int_eq(apply(s, 3, 9, -1), PN_OK);
    ck_assert(s->sync_step == 3 && s->producers[0].finished && s->producers[4].step == 3);
    pn_shard_close(s);
    fake_close(f);
} END_TEST

START_TEST(a_push_in_the_clear_is_refused_and_changes_nothing) {
    struct fake *f = fake_open();
    struct pn_shard *s = seeded(f);
    const uint64_t key = 9;
    const float value = -1;
    struct ask a = PUSH(0, 1);
    a.n_parts = 1;
    a.parts[0].count = a.parts[0].dim = 1;
    a.parts[0].keys = &key;
    a.parts[0].values = &value;
    ask(f, s, &a);
    EXPECT_REFUSAL(f, PN_INVALID);
    ck_assert(first_value(s, 0, 9) == 0 && s->sync_step == 0);
    pn_shard_close(s);
    fake_close(f);
} END_TEST

int main(void) {
    Suite *s = suite_create("ps-secure");
    TCase *c = tcase_create("secure");
    tcase_add_test(c, a_sum_is_applied_once_and_in_order);
    tcase_add_test(c, a_push_in_the_clear_is_refused_and_changes_nothing);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    const int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
