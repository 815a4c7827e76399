/* When a worker's hot rows are forgotten, and what a step pulls beside them. */
#include <check.h>
#include <string.h>
#include "worker/hot.h"

START_TEST(any_change_of_a_shards_term_ends_the_life_of_rows_and_the_same_map_does_not) {
    struct pn_hot_life l = {0};
    static struct pn_shard_map map = {.n_shards = 2, .shards = {{"tcp://a:1", 4}, {"tcp://b:1", 5}}};
    pn_hot_map(&l, &map);
    const uint64_t first = l.life;
    pn_hot_map(&l, &map);
    ck_assert_uint_eq(l.life, first);
    map.shards[1].term = 6; /* it came back from a checkpoint */
    pn_hot_map(&l, &map);
    ck_assert(l.life > first);
    const uint64_t second = l.life;
    strcpy(map.shards[0].address, "tcp://c:1"); /* a place is no loss */
    pn_hot_map(&l, &map);
    ck_assert_uint_eq(l.life, second);
    map.n_shards = 1;
    pn_hot_map(&l, &map);
    ck_assert(l.life > second);
} END_TEST

START_TEST(only_tables_with_missing_rows_are_pulled_and_rows_go_to_their_places) {
    static struct pn_job job = {.n_tables = 4, .i_dense_table = 3};
    uint32_t places[] = {1, 4};
    uint64_t keys[] = {70, 30};
    float rows_[3][8], *rows[PN_MAX_TABLES] = {rows_[0], rows_[1], rows_[2]};
    const struct pn_hot_step s = {.places = {NULL, places, NULL}, .keys = {NULL, keys, NULL}, .n = {0, 2, 0}};
    struct pn_client_part parts[PN_MAX_TABLES];
    ck_assert_uint_eq(pn_hot_parts(&s, &job, rows, parts), 1);
    ck_assert(parts[0].i_table == 1 && parts[0].n_keys == 2 && parts[0].keys == keys && parts[0].places == places && parts[0].rows == rows_[1]);
} END_TEST

int main(void) {
    Suite *s = suite_create("hot rows");
    TCase *c = tcase_create("hot rows");
    tcase_add_test(c, any_change_of_a_shards_term_ends_the_life_of_rows_and_the_same_map_does_not);
    tcase_add_test(c, only_tables_with_missing_rows_are_pulled_and_rows_go_to_their_places);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    const int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed > 0;
}
