/* Where a reader of users and items goes on, and whose a batch is: for every format of them, packing and shuffle, the batches of any producer behind any position are those that one reader
 * of everything gives, and in these each row is once. (csv, jsonl, libfm, criteo, parquet and topics: batches.c, lists.c, libfm.c, parsed.c, topic.c.) */
#include "tests/unit/reader/env.h"

enum { USERS = 60, ITEMS = 40, RATINGS = 200, MOST = 1500, WIDTH = 300, BATCH = 7 };
enum { NCF, NCF_LIST, LIGHTGCN, SASREC, S3REC, MOVIELENS_U1, MOVIELENS_TIME, N_SETS };
static const char *const endings[] = {"", ".gz", ".zst"};
struct rows { size_t n, n_batches, end[MOST]; char text[MOST][WIDTH]; }; /* end: of each batch */

static unsigned n_of(unsigned user) { return 4 + user % 5; }
static unsigned item_of(unsigned user, unsigned i) { return 1 + (user * 11 + i * 7) % ITEMS; } /* a user's n_of items are different ones */
static unsigned rater_of(unsigned i) { return 1 + i % USERS; }
static unsigned rated_of(unsigned i) { return 1 + (i / USERS * 13 + i) % ITEMS; }

static void put(struct fake_env *f, int packing, const char *path, const char *text) {
    char name[100];
    snprintf(name, sizeof name, "%s%s", path, endings[packing]);
    if (packing == 0) fake_put_text(f, name, text);
    else if (packing == 1) fake_put_gz(f, name, text, strlen(text));
    else fake_put_zst(f, name, text, strlen(text));
}

static void put_movielens(struct fake_env *f, int packing) {
    static char users[4000], items[8000], ratings[20000], test[4000];
    char *u = users, *m = items, *r = ratings, *t = test;
    for (unsigned i = 1; i <= USERS; i++) u += sprintf(u, "%u|24|M|technician|85711\n", i);
    for (unsigned i = 1; i <= ITEMS; i++) m += sprintf(m, "%u|T|01-Jan-1995|||0|1|0|0|1|0|0|0|0|0|0|0|0|0|0|0|0|0|0\n", i);
    for (unsigned i = 0; i < RATINGS; i++) {
        const char *at = r;
        r += sprintf(r, "%u\t%u\t%u\t%u\n", rater_of(i), rated_of(i), 1 + i % 5, 100000 + i * 7919 % RATINGS * 1000);
        if (i % 5 == 0) t += sprintf(t, "%s", at);
    }
    put(f, packing, "/d/u.user", users);
    put(f, packing, "/d/u.item", items);
    put(f, packing, "/d/u.data", ratings);
    put(f, packing, "/d/u1.test", test);
}

/* A line a user, or one of its items: as the format has it. */
static void put_pairs(struct fake_env *f, int set, int packing) {
    static char text[20000];
    char *at = text;
    for (unsigned u = 1; u <= USERS; u++) {
        if (set == NCF_LIST) at += sprintf(at, "(%u,%u)", u, item_of(u, 0));
        else if (set == LIGHTGCN || set == S3REC) at += sprintf(at, "%u", u);
        for (unsigned i = set == NCF_LIST; i < n_of(u); i++)
            if (set == NCF || set == SASREC) at += sprintf(at, set == NCF ? "%u\t%u\t5\n" : "%u %u\n", u, item_of(u, i));
            else at += sprintf(at, set == NCF_LIST ? "\t%u" : " %u", item_of(u, i));
        if (set == NCF_LIST || set == LIGHTGCN || set == S3REC) at += sprintf(at, "\n");
    }
    put(f, packing, "/d/a", text);
}

static struct pn_data data(int set) {
    static const enum pn_format formats[N_SETS] = {PN_FORMAT_NCF, PN_FORMAT_NCF, PN_FORMAT_LIGHTGCN, PN_FORMAT_SASREC, PN_FORMAT_S3REC, PN_FORMAT_MOVIELENS, PN_FORMAT_MOVIELENS};
    struct pn_data d = data_of(formats[set], set >= MOVIELENS_U1 ? "/d" : "/d/a");
    d.part = set == NCF_LIST || set == LIGHTGCN ? PN_PART_ALL : PN_PART_TRAIN;
    d.history = set == SASREC || set == S3REC ? 5 : set == MOVIELENS_TIME ? 3 : 0;
    d.negatives.per_positive = set == NCF ? 3 : set == SASREC ? 2 : 0;
    if (set == NCF) {
        snprintf(d.negatives.seen[d.negatives.n_seen++], sizeof d.negatives.seen[0], "%s", d.path);
        d.hold_out = 1;
    }
    if (set >= MOVIELENS_U1) snprintf(d.split, sizeof d.split, set == MOVIELENS_U1 ? "u1" : "time");
    return d;
}

/* How many rows it has. */
static size_t n_rows(int set) {
    size_t pairs = 0;
    for (unsigned u = 1; u <= USERS; u++) pairs += n_of(u);
    switch (set) {
        case NCF: return (pairs - USERS) * 4; /* one of each user is held out */
        case NCF_LIST: case LIGHTGCN: return pairs;
        case SASREC: case S3REC: return USERS;
        default: return RATINGS * 4 / 5;
    }
}

/* A row's cells; the negatives behind a line end: without perPositive they are all items in a batch's first row, and no part of the row. */
static void keep(struct rows *all, const struct pn_raw *raw, size_t row) {
    char *text = all->text[all->n++];
    int at = snprintf(text, WIDTH, "%d", (int)raw->labels[row]);
    size_t negatives = raw->n_columns;
    for (size_t c = 0; c < raw->n_columns; c++)
        if (strcmp(raw->names[c], "negatives") == 0) negatives = c;
        else at += snprintf(text + at, (size_t)(WIDTH - at), " %s", value(raw, row, raw->names[c]));
    if (negatives < raw->n_columns) at += snprintf(text + at, (size_t)(WIDTH - at), "\n%s", value(raw, row, "negatives"));
    ck_assert_int_lt(at, WIDTH);
}

static struct rows *read_all(int set, int packing, uint64_t shuffle, uint32_t producer, uint32_t n_producers, uint64_t skip) {
    struct rows *all = calloc(1, sizeof *all);
    struct fake_env f;
    fake_init(&f, 1 + skip);
    if (set >= MOVIELENS_U1) put_movielens(&f, packing);
    else put_pairs(&f, set, packing);
    const struct pn_data d = data(set);
    struct pn_reader *r = pn_reader_open(&f.env, &d, &(struct pn_reader_options){.producer = producer, .n_producers = n_producers, .batch_size = BATCH, .shuffle_buffer = shuffle, .shuffle_seed = 4,
                                                                               .skip_batches = skip});
    struct answer a;
    while ((a = next(&f, r)).result == PN_OK) {
        for (size_t i = 0; i < a.raw->n_rows; i++) {
            keep(all, a.raw, i);
            if (set == S3REC) ck_assert((*value(a.raw, i, "negatives") != '\0') == (i == 0)); /* all items, once a batch */
        }
        all->end[all->n_batches++] = all->n;
    }
    ck_assert_msg(a.result == PN_NOT_FOUND, "%s", a.err.text);
    close_reader(&f, r);
    fake_free(&f);
    return all;
}

static size_t row_length(const char *text) { return strcspn(text, "\n"); }
static int by_row(const void *a, const void *b) {
    const size_t n = row_length(a), m = row_length(b);
    const int order = memcmp(a, b, n < m ? n : m);
    return order != 0 ? order : (n > m) - (n < m);
}

/* Each row once, whatever the order. Rows that are drawn may come twice; in a list they are distinct. */
static void same_rows(const struct rows *a, const struct rows *b) {
    struct rows *x = malloc(sizeof *x), *y = malloc(sizeof *y);
    *x = *a;
    *y = *b;
    qsort(x->text, x->n, WIDTH, by_row);
    qsort(y->text, y->n, WIDTH, by_row);
    ck_assert_uint_eq(x->n, y->n);
    for (size_t i = 0; i < x->n; i++) {
        ck_assert(by_row(x->text[i], y->text[i]) == 0);
        ck_assert_msg(i == 0 || x->text[i][0] == '0' || by_row(x->text[i], x->text[i - 1]) != 0, "twice: %s", x->text[i]);
    }
    free(x);
    free(y);
}

/* Batch i of `part` is batch first + i * every of the whole, and there is no further one. */
static void same_batches(const struct rows *part, const struct rows *whole, size_t first, size_t every) {
    size_t n = 0;
    for (size_t b = first; b < whole->n_batches; b += every, n++) {
        const size_t from = b > 0 ? whole->end[b - 1] : 0, at = n > 0 && n <= part->n_batches ? part->end[n - 1] : 0;
        ck_assert_msg(n < part->n_batches && part->end[n] - at == whole->end[b] - from, "batch %zu from %zu, every %zu", n, first, every);
        for (size_t i = from; i < whole->end[b]; i++) ck_assert_str_eq(part->text[at + i - from], whole->text[i]);
    }
    ck_assert_uint_eq(n, part->n_batches);
}

START_TEST(what_is_behind_a_position_is_the_tail_of_the_whole_and_producers_share_it) {
    const int set = _i % N_SETS, packing = _i / N_SETS % 3;
    const uint64_t shuffle = _i / N_SETS / 3 * 50;
    struct rows *plain = read_all(set, 0, 0, 0, 1, 0), *whole = read_all(set, packing, shuffle, 0, 1, 0);
    ck_assert_uint_eq(plain->n, n_rows(set));
    ck_assert_uint_gt(whole->n_batches, 4);
    same_rows(plain, whole);
    ck_assert((memcmp(plain->text, whole->text, sizeof plain->text) == 0) == (shuffle == 0 || set == NCF_LIST)); /* lists come in the file's order */
    for (uint32_t n = 1; n <= (set == NCF_LIST ? 1 : 2); n++) /* ... and are one shard's */
        for (uint32_t p = 0; p < n; p++) {
            const uint64_t own = (whole->n_batches + n - 1 - p) / n, positions[] = {0, 1, own / 2, own - 1, own, own + 1};
            for (size_t i = 0; i < sizeof positions / sizeof *positions; i++) {
                struct rows *part = read_all(set, packing, shuffle, p, n, positions[i]);
                same_batches(part, whole, p + positions[i] * n, n);
                free(part);
            }
        }
    free(plain);
    free(whole);
} END_TEST

int main(void) {
    TCase *c = tcase_create("position");
    tcase_add_loop_test(c, what_is_behind_a_position_is_the_tail_of_the_whole_and_producers_share_it, 0, 2 * 3 * N_SETS);
    return run_suite(c);
}
