/* Pairs of users and items: ncf and lightgcn, what is held out, and negatives by every rule. */
#include "tests/unit/reader/env.h"

enum { USERS = 30, ITEMS = 50, PER = 4, MOST = 20000 };
static bool has(unsigned user, unsigned item) { return (item * 7 + user * 3) % 11 < 2; }

static void put_pairs(struct fake_env *f) {
    static char ncf[MOST], lightgcn[MOST];
    size_t n = 0, m = 0;
    for (unsigned u = 0; u < USERS; u++) {
        m += (size_t)snprintf(lightgcn + m, sizeof lightgcn - m, "%u", u);
        for (unsigned i = 0; i < ITEMS; i++) {
            if (!has(u, i)) continue;
            n += (size_t)snprintf(ncf + n, sizeof ncf - n, "%u\t%u\t5\t978824351\n", u, i);
            m += (size_t)snprintf(lightgcn + m, sizeof lightgcn - m, " %u", i);
        }
        m += (size_t)snprintf(lightgcn + m, sizeof lightgcn - m, "\n");
    }
    fake_init(f, 3);
    fake_put_zst(f, "/ncf.zst", ncf, n);
    fake_put_gz(f, "/lightgcn.gz", lightgcn, m);
}

static struct pn_data pairs(enum pn_format format, const char *path) {
    struct pn_data d = data_of(format, path);
    snprintf(d.negatives.seen[0], sizeof d.negatives.seen[0], "%s", path);
    return d;
}

static struct pn_data held(bool out) {
    struct pn_data d = pairs(PN_FORMAT_NCF, "/ncf");
    d.part = out ? PN_PART_HELD : PN_PART_TRAIN;
    d.hold_out = 1;
    d.hold_out_seed = 6;
    d.negatives.n_seen = 1;
    return d;
}

struct rows { size_t n, n_batches, batch[MOST]; unsigned user[MOST], item[MOST]; float label[MOST], log_q[MOST]; };

static void take_all(struct fake_env *f, struct pn_reader *r, struct rows *all) {
    all->n = all->n_batches = 0;
    for (;; all->n_batches++) {
        struct answer a = next(f, r);
        if (a.result == PN_NOT_FOUND) return;
        ck_assert_msg(a.result == PN_OK, "%s", a.err.text);
        for (size_t i = 0; i < a.raw->n_rows; i++, all->n++) {
            ck_assert(all->n < MOST);
            all->user[all->n] = (unsigned)atoi(value(a.raw, i, "user"));
            all->item[all->n] = (unsigned)atoi(value(a.raw, i, "item"));
            all->label[all->n] = a.raw->labels[i];
            all->log_q[all->n] = a.raw->log_q != NULL ? a.raw->log_q[i] : 0;
            all->batch[all->n] = all->n_batches;
        }
    }
}

static struct rows *read_all(struct fake_env *f, const struct pn_data *d, uint32_t epoch, uint64_t shuffle, uint32_t producer, uint32_t n_producers) {
    struct rows *all = calloc(1, sizeof *all);
    struct pn_reader *r = pn_reader_open(&f->env, d, &(struct pn_reader_options){.producer = producer, .n_producers = n_producers, .batch_size = 23, .epoch = epoch,
                                                                               .shuffle_buffer = shuffle, .shuffle_seed = 4});
    take_all(f, r, all);
    close_reader(f, r);
    return all;
}

static bool same(const struct rows *a, const struct rows *b) {
    return a->n == b->n && memcmp(a->user, b->user, a->n * sizeof *a->user) == 0 && memcmp(a->item, b->item, a->n * sizeof *a->item) == 0 &&
           memcmp(a->label, b->label, a->n * sizeof *a->label) == 0;
}

START_TEST(both_formats_have_the_same_pairs_in_the_same_order) {
    struct fake_env f;
    put_pairs(&f);
    const struct pn_data one = pairs(PN_FORMAT_NCF, "/ncf"), other = pairs(PN_FORMAT_LIGHTGCN, "/lightgcn");
    for (uint64_t shuffle = 0; shuffle <= 100; shuffle += 50) {
        struct rows *a = read_all(&f, &one, 0, shuffle, 0, 1), *b = read_all(&f, &other, 0, shuffle, 0, 1);
        size_t n = 0, moved = 0;
        for (unsigned u = 0; u < USERS; u++)
            for (unsigned i = 0; i < ITEMS; i++) n += has(u, i);
        ck_assert_uint_eq(a->n, n);
        ck_assert(same(a, b));
        for (size_t i = 0; i < a->n; i++) {
            ck_assert(has(a->user[i], a->item[i]) && a->label[i] == 1);
            moved += i > 0 && a->user[i] < a->user[i - 1];
        }
        ck_assert((moved > 0) == (shuffle > 0));
        free(a);
        free(b);
    }
    fake_free(&f);
} END_TEST

START_TEST(a_list_of_negatives_stands_behind_its_positive_row_without_the_row_itself) {
    struct fake_env f;
    fake_init(&f, 1);
    fake_put_text(&f, "/a", "(3,7)\t1\t7\t2\n(4,8)\t5\n");
    struct pn_data d = pairs(PN_FORMAT_NCF, "/a");
    struct rows *a = read_all(&f, &d, 0, 0, 0, 1);
    const unsigned users[] = {3, 3, 3, 4, 4}, items[] = {7, 1, 2, 8, 5};
    ck_assert_uint_eq(a->n, 5);
    for (size_t i = 0; i < 5; i++) ck_assert(a->user[i] == users[i] && a->item[i] == items[i] && a->label[i] == (float)(i % 3 == 0));
    free(a);
    fake_free(&f);
} END_TEST

START_TEST(one_pair_of_each_user_is_held_out_by_seed_and_the_others_are_trained_on) {
    struct fake_env f;
    put_pairs(&f);
    struct pn_data train = held(false), out = held(true), all = pairs(PN_FORMAT_NCF, "/ncf");
    struct rows *a = read_all(&f, &train, 0, 0, 0, 1), *b = read_all(&f, &out, 0, 0, 0, 1), *c = read_all(&f, &all, 0, 0, 0, 1);
    ck_assert_uint_eq(b->n, USERS);
    ck_assert_uint_eq(a->n + b->n, c->n);
    for (size_t i = 0; i < b->n; i++) {
        ck_assert_uint_eq(b->user[i], i);
        for (size_t k = 0; k < a->n; k++) ck_assert(a->user[k] != b->user[i] || a->item[k] != b->item[i]);
    }
    out.hold_out_seed = 7;
    struct rows *other = read_all(&f, &out, 0, 0, 0, 1);
    ck_assert(other->n == b->n && !same(other, b));
    out.hold_out = 100; /* more than anybody has: all are kept in train */
    struct rows *none = read_all(&f, &out, 0, 0, 0, 1);
    ck_assert_uint_eq(none->n, 0);
    free(a), free(b), free(c), free(other), free(none);
    fake_free(&f);
} END_TEST

START_TEST(negatives_are_none_of_the_users_train_items_and_stand_behind_their_row) {
    struct fake_env f;
    put_pairs(&f);
    struct pn_data d = held(false), out = held(true);
    struct rows *kept = read_all(&f, &out, 0, 0, 0, 1);
    d.negatives.per_positive = out.negatives.per_positive = PER;
    d.negatives.redraw = true;
    struct rows *a = read_all(&f, &d, 0, 60, 0, 1), *b = read_all(&f, &out, 0, 0, 0, 1), *later = read_all(&f, &d, 1, 60, 0, 1);
    size_t of_held = 0;
    ck_assert(a->n % (1 + PER) == 0 && a->n > 0);
    for (size_t i = 0; i < a->n; i++) {
        const size_t first = i - i % (1 + PER);
        ck_assert(a->label[i] == (float)(i == first) && a->user[i] == a->user[first] && a->batch[i] == a->batch[first]);
        ck_assert_float_eq_tol(a->log_q[i], -logf(ITEMS), 1e-6f);
        if (i == first) continue;
        const bool was_held = kept->item[a->user[i]] == a->item[i];
        of_held += was_held;
        ck_assert(was_held || !has(a->user[i], a->item[i]));
    }
    ck_assert_uint_gt(of_held, 0); /* what is held out is unknown to training */
    for (size_t i = 0; i < b->n; i++) ck_assert((b->label[i] == 1) == has(b->user[i], b->item[i]));
    ck_assert(!same(a, later));
    /* two producers together, and a reader that goes on with the next epoch */
    struct rows *one = read_all(&f, &d, 0, 60, 0, 2), *two = read_all(&f, &d, 0, 60, 1, 2);
    ck_assert_uint_eq(one->n + two->n, a->n);
    for (size_t i = 0, n[2] = {0}; i < a->n; i++) {
        const struct rows *from = a->batch[i] % 2 == 0 ? one : two;
        const size_t at = n[a->batch[i] % 2]++;
        ck_assert(from->user[at] == a->user[i] && from->item[at] == a->item[i]);
    }
    struct pn_reader *r = pn_reader_open(&f.env, &d, &(struct pn_reader_options){.n_producers = 1, .batch_size = 23, .shuffle_buffer = 60, .shuffle_seed = 4});
    ck_assert(!pn_reader_again(r, 1)); /* not at its end */
    take_all(&f, r, one);
    ck_assert(same(one, a) && pn_reader_again(r, 1));
    take_all(&f, r, one);
    ck_assert(same(one, later));
    close_reader(&f, r);
    free(kept), free(a), free(b), free(later), free(one), free(two);
    fake_free(&f);
} END_TEST

START_TEST(popular_items_are_drawn_in_proportion_to_their_rows_to_a_power) {
    static char text[MOST];
    struct fake_env f;
    size_t n = 0, drawn[4] = {0}, all = 0;
    for (unsigned u = 0; u < 90; u++) n += (size_t)snprintf(text + n, sizeof text - n, "%u %u\n", u, u < 64 ? 0u : u < 80 ? 1 : u < 89 ? 2 : 3);
    fake_init(&f, 1);
    fake_put_text(&f, "/a", text);
    struct pn_data d = pairs(PN_FORMAT_LIGHTGCN, "/a");
    d.negatives.n_seen = 1;
    d.negatives.per_positive = 200;
    d.negatives.power = 0.5;
    d.negatives.any = true; /* else a user's own would be missing */
    struct rows *a = read_all(&f, &d, 0, 0, 0, 1);
    for (size_t i = 0; i < a->n; i++)
        if (a->label[i] == 0) {
            drawn[a->item[i]]++;
            all++;
            const float share = (float[]){8, 4, 3, 1}[a->item[i]] / 16;
            ck_assert_float_eq_tol(a->log_q[i], logf(share), 1e-5f);
        }
    for (unsigned i = 0; i < 4; i++) {
        const double share = (double[]){8, 4, 3, 1}[i] / 16;
        ck_assert_double_eq_tol((double)drawn[i] / (double)all, share, 0.015);
    }
    d.negatives.power = 0;
    d.negatives.per_positive = 0; /* the softmax within a batch: an item's share of the rows */
    struct rows *b = read_all(&f, &d, 0, 0, 0, 1);
    for (size_t i = 0; i < b->n; i++) {
        const float share = (float[]){64, 16, 9, 1}[b->item[i]] / 90;
        ck_assert_float_eq_tol(b->log_q[i], logf(share), 1e-5f);
    }
    free(a), free(b);
    fake_free(&f);
} END_TEST

START_TEST(lists_begin_behind_a_position_once_and_the_next_epoch_has_them_all) {
    struct fake_env f;
    struct rows *a = calloc(1, sizeof *a);
    fake_init(&f, 1);
    fake_put_text(&f, "/a", "(3,7)\t1\t2\n(4,8)\t5\n(6,9)\t1\n");
    const struct pn_data d = pairs(PN_FORMAT_NCF, "/a");
    struct pn_reader *r = pn_reader_open(&f.env, &d, &(struct pn_reader_options){.n_producers = 1, .batch_size = 2, .skip_batches = 2});
    take_all(&f, r, a);
    ck_assert(a->n == 2 && a->user[0] == 6);
    ck_assert(pn_reader_again(r, 1));
    take_all(&f, r, a);
    ck_assert(a->n == 7 && a->n_batches == 3 && a->user[0] == 3);
    close_reader(&f, r);
    free(a);
    fake_free(&f);
} END_TEST

START_TEST(rows_and_first_row_count_lists) {
    struct fake_env f;
    fake_init(&f, 1);
    fake_put_text(&f, "/a", "(3,7)\t1\t2\n(4,8)\t5\n(6,9)\t1\n(7,1)\t2\n");
    struct pn_data d = pairs(PN_FORMAT_NCF, "/a");
    d.first_row = 1;
    d.n_rows = 2;
    struct rows *a = read_all(&f, &d, 0, 0, 0, 1);
    const unsigned users[] = {4, 4, 6, 6}, items[] = {8, 5, 9, 1};
    ck_assert_uint_eq(a->n, 4);
    for (size_t i = 0; i < 4; i++) ck_assert(a->user[i] == users[i] && a->item[i] == items[i]);
    free(a);
    fake_free(&f);
} END_TEST

static const struct { const char *text, *found; uint32_t hold_out, per_positive; } bad[] = {
    {"1 x\n", "/a:1: \"x\" is no id: a decimal number below 134217728", 0, 0},
    {"1\t2\n1\n", "/a:2: expected a user and an item", 0, 0},
    {"(1 2)\t3\n", "/a:1: expected (user,item)", 0, 0},
    {"1 999999999999\n", "/a:1: \"999999999999\" is no id: a decimal number below 134217728", 0, 0},
    {"\n1\t2\n(1,3)\t4\n", "/a:3: a list of negatives, (user,item) item ..., in a file that began with plain pairs at line 2; put one of the two kinds into a file of its own", 0, 0},
    {"(1,2)\t4\n(1,3)\t4\n2 5\n", "/a:3: a plain pair, user item, in a file that began with lists of negatives at line 1; put one of the two kinds into a file of its own", 0, 0},
    {"(1,2)\t4\n", "/a:1: a line with a list of negatives, and holdOut: these go with plain pairs, user item, only; leave one of the two out", 1, 0},
    {"(1,2)\t4\n", "/a:1: a line with a list of negatives, and negatives to be drawn: these go with plain pairs, user item, only; leave one of the two out", 0, 3},
};

START_TEST(a_bad_line_is_named) {
    struct fake_env f;
    fake_init(&f, 1);
    fake_put_text(&f, "/a", bad[_i].text);
    struct pn_data d = pairs(PN_FORMAT_NCF, "/a");
    d.hold_out = bad[_i].hold_out;
    d.part = d.hold_out > 0 ? PN_PART_TRAIN : PN_PART_ALL;
    d.negatives.per_positive = bad[_i].per_positive;
    d.negatives.n_seen = d.hold_out > 0 || d.negatives.per_positive > 0;
    for (uint64_t skip = 0; skip < 2; skip++) { /* also if all that is good lies before the position */
        struct pn_reader *r = pn_reader_open(&f.env, &d, &(struct pn_reader_options){.n_producers = 1, .batch_size = 10, .skip_batches = skip});
        struct answer a = next(&f, r);
        ck_assert_int_eq(a.result, PN_INVALID);
        ck_assert_msg(strcmp(a.err.text, bad[_i].found) == 0, "%s", a.err.text);
        close_reader(&f, r);
    }
    fake_free(&f);
} END_TEST

int main(void) {
    TCase *c = tcase_create("pairs");
    tcase_add_test(c, both_formats_have_the_same_pairs_in_the_same_order);
    tcase_add_test(c, a_list_of_negatives_stands_behind_its_positive_row_without_the_row_itself);
    tcase_add_test(c, one_pair_of_each_user_is_held_out_by_seed_and_the_others_are_trained_on);
    tcase_add_test(c, negatives_are_none_of_the_users_train_items_and_stand_behind_their_row);
    tcase_add_test(c, popular_items_are_drawn_in_proportion_to_their_rows_to_a_power);
    tcase_add_test(c, lists_begin_behind_a_position_once_and_the_next_epoch_has_them_all);
    tcase_add_test(c, rows_and_first_row_count_lists);
    tcase_add_loop_test(c, a_bad_line_is_named, 0, sizeof(bad) / sizeof(bad[0]));
    return run_suite(c);
}
