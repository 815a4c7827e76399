#include <check.h>
#include <stdlib.h>
#include <string.h>
#include "common/hash.h"
#include "common/ledger.h"

static struct pn_extent extent(uint32_t p, uint64_t first, uint64_t end, uint64_t rows) { return (struct pn_extent){p, first, end, rows, PN_NO_BOUND}; }

START_TEST(an_extent_begins_where_its_partition_ended) {
    struct pn_ledger l = {0};
    struct pn_error err = {""};
    struct pn_position at;
    ck_assert_int_eq(pn_ledger_add(&l, &(struct pn_extent){3, 10, 10, 0, 100}, &err), PN_OK);
    ck_assert_int_eq(pn_ledger_add(&l, &(struct pn_extent){3, 10, 20, 9, 0}, &err), PN_OK);
    ck_assert(pn_ledger_position(&l, 3, &at) && at.offset == 20 && at.bound == 100);
    ck_assert(!pn_ledger_position(&l, 4, &at));
    const struct pn_extent wrong[] = {extent(3, 10, 30, 5), extent(3, 21, 30, 5), extent(3, 20, 30, 11), extent(3, 20, 19, 0), extent(3, 20, 101, 1), extent(4, 0, 5, 5)};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) ck_assert_msg(pn_ledger_add(&l, &wrong[i], &err) == PN_INVALID, "%zu", i);
    ck_assert_uint_eq(pn_ledger_rows(&l), 9);
    l.closed = true;
    ck_assert_int_eq(pn_ledger_add(&l, &(struct pn_extent){3, 20, 21, 1, 0}, &err), PN_INVALID);
    pn_ledger_free(&l);
} END_TEST

START_TEST(a_proposal_that_is_repeated_counts_once_and_one_from_before_counts_nothing) {
    struct pn_ledger reader = {0}, l = {0};
    bool changed = false;
    const struct pn_extent first[] = {extent(0, 5, 5, 0), extent(0, 5, 10, 5)}, second[] = {extent(0, 10, 12, 2)};
    struct json_object *a = pn_ledger_proposal(&reader, first, 2, false);
    ck_assert(pn_ledger_take(&l, a, &changed, NULL) == PN_OK && changed);
    ck_assert(pn_ledger_take(&l, a, &changed, NULL) == PN_OK && !changed);
    ck_assert_uint_eq(l.n_extents, 2);
    struct json_object *b = pn_ledger_proposal(&l, second, 1, true);
    ck_assert(pn_ledger_take(&reader, b, &changed, NULL) == PN_INVALID && !changed); /* it lacks the first */
    ck_assert(pn_ledger_take(&l, b, &changed, NULL) == PN_OK && changed && l.closed);
    ck_assert(pn_ledger_take(&l, b, &changed, NULL) == PN_OK && !changed);
    ck_assert(pn_ledger_take(&l, NULL, &changed, NULL) == PN_INVALID);
    json_object_put(a);
    json_object_put(b);
    pn_ledger_free(&l);
} END_TEST

START_TEST(a_trimmed_and_a_written_ledger_say_the_same_rows) {
    struct pn_rng rng = {(uint64_t)_i};
    struct pn_ledger l = {0};
    uint64_t offset[3] = {7, 0, 1ull << 40};
    for (uint32_t p = 0; p < 3; p++) {
        const struct pn_extent e = extent(p, offset[p], offset[p], 0);
        ck_assert_int_eq(pn_ledger_add(&l, &e, NULL), PN_OK);
    }
    for (int i = 0; i < 100; i++) {
        const uint32_t p = (uint32_t)(pn_rng_next(&rng) % 3);
        const uint64_t n = pn_rng_next(&rng) % 20, rows = n > 0 ? pn_rng_next(&rng) % n : 0;
        const struct pn_extent e = extent(p, offset[p], offset[p] + n, rows);
        ck_assert_int_eq(pn_ledger_add(&l, &e, NULL), PN_OK);
        offset[p] += n;
    }
    const uint64_t all = pn_ledger_rows(&l), at = pn_rng_next(&rng) % (all + 1);
    struct json_object *whole = pn_ledger_write(&l), *part = pn_ledger_write_at(&l, at);
    struct pn_ledger copy = {0}, position = {0};
    ck_assert_int_eq(pn_ledger_read(&copy, whole, NULL), PN_OK);
    ck_assert_int_eq(pn_ledger_read(&position, part, NULL), PN_OK);
    pn_ledger_trim(&copy, at);
    ck_assert_uint_eq(pn_ledger_rows(&copy), all);
    ck_assert(copy.rows <= at && (copy.n_extents == 0 || copy.rows + copy.extents[0].rows > at));
    ck_assert(position.rows == copy.rows && position.at == copy.at && pn_ledger_rows(&position) >= at);
    for (size_t i = 0; i < position.n_extents; i++) ck_assert(position.extents[i].first == copy.extents[i].first && position.extents[i].rows == copy.extents[i].rows);
    for (uint32_t p = 0; p < 3; p++) {
        struct pn_position was;
        ck_assert(pn_ledger_position(&copy, p, &was) && was.offset == offset[p]);
        ck_assert(pn_ledger_position(&position, p, &was) && was.offset <= offset[p]);
    }
    json_object_put(whole);
    json_object_put(part);
    pn_ledger_free(&l);
    pn_ledger_free(&copy);
    pn_ledger_free(&position);
} END_TEST

START_TEST(what_is_no_ledger_is_refused) {
    static const char *const bad[] = {"{}", "[]", "{\"extents\": [[0, 1]]}", "{\"extents\": [[0, -1, 0, 0]]}", "{\"extents\": [[0, 0, 5, 5]]}", "{\"extents\": [[\"x\", 0, 0, 0]]}",
                                      "{\"extents\": [[5000000000, 0, 0, 0]]}", "{\"extents\": [], \"positions\": [[1]]}", "{\"extents\": [[0, 0, 0, 0], [0, 1, 2, 1]]}"};
    struct pn_ledger l = {0};
    struct json_object *o = pn_json_parse(bad[_i], strlen(bad[_i]), NULL);
    ck_assert_ptr_nonnull(o);
    ck_assert_int_eq(pn_ledger_read(&l, o, NULL), PN_INVALID);
    json_object_put(o);
} END_TEST

int main(void) {
    Suite *s = suite_create("ledger");
    TCase *t = tcase_create("ledger");
    tcase_add_test(t, an_extent_begins_where_its_partition_ended);
    tcase_add_test(t, a_proposal_that_is_repeated_counts_once_and_one_from_before_counts_nothing);
    tcase_add_loop_test(t, a_trimmed_and_a_written_ledger_say_the_same_rows, 1, 50);
    tcase_add_loop_test(t, what_is_no_ledger_is_refused, 0, 9);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
