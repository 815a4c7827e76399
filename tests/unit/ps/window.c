/* The window against a plain list of what was seen. */
#include "ps/window.h"
#include "tests/unit/fake_env.h"

START_TEST(steps_at_most_64_apart_are_new_once_in_any_order) {
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct pn_rng rng = {seed};
        struct pn_window w = {0};
        bool seen[2000] = {false};
        uint64_t acknowledged = 0; /* all up to it */
        while (acknowledged < 1500) {
            uint64_t step = acknowledged + 1 + pn_rng_next(&rng) % PN_WINDOW_STEPS;
            enum pn_window_verdict expected = seen[step] ? PN_WINDOW_DUPLICATE : PN_WINDOW_NEW;
            ck_assert_int_eq(pn_window_look(&w, 0, step), expected);
            ck_assert_int_eq(pn_window_mark(&w, 0, step), expected);
            seen[step] = true;
            while (seen[acknowledged + 1]) acknowledged++;
            uint64_t old = 1 + pn_rng_next(&rng) % (acknowledged + 1); /* one from the past, or the very next */
            ck_assert_int_eq(pn_window_look(&w, 0, old), seen[old] ? PN_WINDOW_DUPLICATE : PN_WINDOW_NEW);
        }
    }
} END_TEST

START_TEST(a_step_older_than_the_window_counts_as_seen) {
    struct pn_window w = {0};
    ck_assert_int_eq(pn_window_mark(&w, 0, 100), PN_WINDOW_NEW);
    ck_assert_int_eq(pn_window_mark(&w, 0, 36), PN_WINDOW_DUPLICATE);
    ck_assert_int_eq(pn_window_mark(&w, 0, 37), PN_WINDOW_NEW);
    ck_assert_int_eq(pn_window_mark(&w, 0, 37), PN_WINDOW_DUPLICATE);
} END_TEST

START_TEST(a_lower_incarnation_is_fenced_and_changes_nothing) {
    struct pn_window w = {0}, before;
    pn_window_mark(&w, 3, 5);
    before = w;
    ck_assert_int_eq(pn_window_mark(&w, 2, 6), PN_WINDOW_FENCED);
    ck_assert_mem_eq(&w, &before, sizeof w);
} END_TEST

START_TEST(a_higher_incarnation_goes_on_with_what_was_seen) {
    struct pn_window w = {0};
    pn_window_mark(&w, 1, 5);
    ck_assert_int_eq(pn_window_mark(&w, 2, 5), PN_WINDOW_DUPLICATE);
    ck_assert_uint_eq(w.incarnation, 2);
    ck_assert_int_eq(pn_window_mark(&w, 2, 6), PN_WINDOW_NEW);
    ck_assert_int_eq(pn_window_mark(&w, 1, 7), PN_WINDOW_FENCED);
} END_TEST

START_TEST(a_jump_of_any_size_is_defined) {
    struct pn_window w = {0};
    ck_assert_int_eq(pn_window_mark(&w, 0, UINT64_MAX), PN_WINDOW_NEW);
    ck_assert_int_eq(pn_window_mark(&w, UINT32_MAX, UINT64_MAX), PN_WINDOW_DUPLICATE);
    ck_assert_int_eq(pn_window_mark(&w, UINT32_MAX, 1), PN_WINDOW_DUPLICATE);
    ck_assert_uint_eq(w.bits, 1);
} END_TEST

int main(void) {
    TCase *c = tcase_create("window");
    tcase_add_test(c, steps_at_most_64_apart_are_new_once_in_any_order);
    tcase_add_test(c, a_step_older_than_the_window_counts_as_seen);
    tcase_add_test(c, a_lower_incarnation_is_fenced_and_changes_nothing);
    tcase_add_test(c, a_higher_incarnation_goes_on_with_what_was_seen);
    tcase_add_test(c, a_jump_of_any_size_is_defined);
    return fake_suite("window", c);
}
