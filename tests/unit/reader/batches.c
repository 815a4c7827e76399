/* Which rows are in which batch of which producer; the real data sets. */
#include "tests/unit/reader/env.h"

enum { ROWS = 1237 };

static char *csv_of(size_t n_rows, size_t *n) {
    char *out = malloc(16 * n_rows + 100), *p = out + sprintf(out, "i,click\n");
    for (size_t i = 0; i < n_rows; i++) p += sprintf(p, "%zu,%zu\n", i, i % 2);
    *n = (size_t)(p - out);
    return out;
}
/* Reads to the end: the row numbers in order, and the size of each batch. */
static size_t read_all(uint64_t env_seed, const struct pn_data *data, const struct pn_reader_options *o, uint32_t *rows, size_t *sizes, size_t *n_batches) {
    struct fake_env f;
    fake_init(&f, env_seed);
    size_t n, count = 0;
    char *csv = csv_of(ROWS, &n);
    fake_put_zst(&f, "/r.csv.zst", csv, n);
    free(csv);
    struct pn_reader *r = pn_reader_open(&f.env, data, o);
    struct answer a;
    *n_batches = 0;
    while ((a = next(&f, r)).result == PN_OK) {
        sizes[(*n_batches)++] = a.raw->n_rows;
        for (size_t i = 0; i < a.raw->n_rows; i++) {
            rows[count] = (uint32_t)atoi(value(a.raw, i, "i"));
            ck_assert(a.raw->labels[i] == (float)(rows[count] % 2));
            count++;
        }
    }
    ck_assert_msg(a.result == PN_NOT_FOUND, "%s", a.err.text);
    close_reader(&f, r);
    fake_free(&f);
    return count;
}
static uint32_t one[ROWS], all[ROWS], got[ROWS];
static size_t one_sizes[ROWS], sizes[ROWS];

START_TEST(without_a_shuffle_rows_come_in_the_order_of_the_file_and_only_the_range_asked_for) {
    struct pn_data d = data_of(PN_FORMAT_CSV, "/r.csv");
    struct pn_reader_options o = whole(100);
    size_t n_batches;
    ck_assert_uint_eq(read_all(1, &d, &o, all, sizes, &n_batches), ROWS);
    ck_assert_uint_eq(n_batches, 13);
    ck_assert_uint_eq(sizes[0], 100);
    ck_assert_uint_eq(sizes[12], 37);
    for (uint32_t i = 0; i < ROWS; i++) ck_assert_uint_eq(all[i], i);
    d.first_row = 50;
    d.n_rows = 120;
    ck_assert_uint_eq(read_all(1, &d, &o, all, sizes, &n_batches), 120);
    for (uint32_t i = 0; i < 120; i++) ck_assert_uint_eq(all[i], 50 + i);
    d.first_row = ROWS;
    d.n_rows = 0;
    ck_assert_uint_eq(read_all(1, &d, &o, all, sizes, &n_batches), 0);
} END_TEST

/* For any number of producers: producer p's batch k is batch k * n + p of the one stream, whatever the world's timing. */
START_TEST(batches_are_dealt_round_robin_from_one_stream) {
    struct pn_rng rng = {(uint64_t)_i};
    struct pn_data d = data_of(PN_FORMAT_CSV, "/r.csv");
    struct pn_reader_options o = whole(1 + (uint32_t)(pn_rng_next(&rng) % 90));
    o.shuffle_buffer = (uint64_t[]){0, 1, 64, 5000}[_i % 4];
    o.shuffle_seed = pn_rng_next(&rng);
    size_t n_all, n_batches;
    ck_assert_uint_eq(read_all(1, &d, &o, one, one_sizes, &n_all), ROWS);
    uint8_t seen[ROWS] = {0};
    for (size_t i = 0; i < ROWS; i++) ck_assert_int_eq(seen[one[i]]++, 0);
    o.n_producers = 1 + (uint32_t)(pn_rng_next(&rng) % 5);
    size_t total = 0;
    for (o.producer = 0; o.producer < o.n_producers; o.producer++) {
        size_t n = read_all(pn_rng_next(&rng), &d, &o, got, sizes, &n_batches), at = 0;
        total += n;
        for (size_t k = 0; k < n_batches; at += sizes[k++]) {
            size_t b = k * o.n_producers + o.producer;
            ck_assert_uint_lt(b, n_all);
            ck_assert_uint_eq(sizes[k], one_sizes[b]);
            ck_assert_mem_eq(got + at, one + b * o.batch_size, sizes[k] * sizeof(uint32_t));
        }
        /* Going on behind any batch gives what would have come. */
        o.skip_batches = pn_rng_next(&rng) % (n_batches + 2);
        uint64_t skipped = o.skip_batches < n_batches ? o.skip_batches * o.batch_size : n;
        size_t n_rest = read_all(3, &d, &o, all, sizes, &n_batches);
        ck_assert_uint_eq(n_rest, n - skipped);
        ck_assert_mem_eq(all, got + skipped, n_rest * sizeof(uint32_t));
        o.skip_batches = 0;
    }
    ck_assert_uint_eq(total, ROWS);
} END_TEST

START_TEST(a_shuffle_depends_on_seed_and_epoch_and_on_nothing_else) {
    struct pn_data d = data_of(PN_FORMAT_CSV, "/r.csv");
    struct pn_reader_options o = whole(64);
    o.shuffle_buffer = 4000;
    size_t n;
    read_all(1, &d, &o, one, sizes, &n);
    read_all(2, &d, &o, got, sizes, &n);
    ck_assert_mem_eq(one, got, sizeof(one));
    o.batch_size = 10;
    read_all(2, &d, &o, got, sizes, &n);
    ck_assert_mem_eq(one, got, sizeof(one));
    o.epoch = 1;
    read_all(2, &d, &o, got, sizes, &n);
    ck_assert(memcmp(one, got, sizeof(one)) != 0);
    o.epoch = 0;
    o.shuffle_seed = 1;
    read_all(2, &d, &o, got, sizes, &n);
    ck_assert(memcmp(one, got, sizeof(one)) != 0);
    /* It does mix: rows move by about a third of the file on average. */
    double moved = 0;
    for (uint32_t i = 0; i < ROWS; i++) moved += got[i] > i ? got[i] - i : i - got[i];
    moved /= (double)ROWS * ROWS;
    ck_assert(moved > 0.28 && moved < 0.38);
} END_TEST

/* ---- real data, where it is ---- */

static const char *real_folder(void) {
    static char found[64];
    for (const char *const *p = (const char *const[]){"../shared/data", "../../shared/data", NULL}; *p; p++) {
        char probe[128];
        snprintf(probe, sizeof(probe), "%s/ml-100k/README.md", *p);
        FILE *f = fopen(probe, "r");
        if (!f) continue;
        fclose(f);
        snprintf(found, sizeof(found), "%s", *p);
        return found;
    }
    printf("skipped: no data sets at ../shared/data\n");
    return NULL;
}
static size_t count_real(const char *folder, const char *const *files, struct pn_data *d, double *positive) {
    struct fake_env f;
    fake_init(&f, 1);
    for (; *files; files++) {
        char path[300];
        snprintf(path, sizeof(path), "%s/%s", folder, *files);
        if (!fake_put_real(&f, path)) {
            printf("skipped: no %s\n", path);
            fake_free(&f);
            return 0;
        }
    }
    struct pn_reader_options o = whole(1024);
    o.shuffle_buffer = 10000;
    struct pn_reader *r = pn_reader_open(&f.env, d, &o);
    struct answer a;
    size_t n = 0;
    *positive = 0;
    while ((a = next(&f, r)).result == PN_OK) {
        n += a.raw->n_rows;
        for (size_t i = 0; i < a.raw->n_rows; i++) *positive += (double)a.raw->labels[i];
    }
    ck_assert_msg(a.result == PN_NOT_FOUND, "%s", a.err.text);
    close_reader(&f, r);
    fake_free(&f);
    return n;
}

START_TEST(movielens_100k_gives_80000_and_20000_ratings) {
    const char *folder = real_folder();
    if (!folder) return;
    static const char *const files[] = {"ml-100k/u.user.zst", "ml-100k/u.item.zst", "ml-100k/u.data.zst", "ml-100k/u1.test.zst", NULL};
    struct pn_data d = data_of(PN_FORMAT_MOVIELENS, "");
    snprintf(d.path, sizeof(d.path), "%s/ml-100k", folder);
    snprintf(d.split, sizeof(d.split), "u1");
    d.threshold = 4;
    double train, test, whole_set;
    d.part = PN_PART_TRAIN;
    size_t n = count_real(folder, files, &d, &train);
    if (n == 0) return;
    ck_assert_uint_eq(n, 80000);
    d.part = PN_PART_TEST;
    ck_assert_uint_eq(count_real(folder, files, &d, &test), 20000);
    d.part = PN_PART_ALL;
    ck_assert_uint_eq(count_real(folder, files, &d, &whole_set), 100000);
    ck_assert(whole_set == train + test);
    ck_assert(whole_set == 55375);
} END_TEST

START_TEST(the_criteo_sample_gives_80000_rows_of_which_17958_are_clicks) {
    const char *folder = real_folder();
    if (!folder) return;
    static const char *const files[] = {"criteo-sample/criteo_first80000_hashed.txt.zst", NULL};
    struct pn_data d = data_of(PN_FORMAT_CRITEO, "");
    snprintf(d.path, sizeof(d.path), "%s/criteo-sample/criteo_first80000_hashed.txt", folder);
    double clicks;
    size_t n = count_real(folder, files, &d, &clicks);
    if (n == 0) return;
    ck_assert_uint_eq(n, 80000);
    ck_assert(clicks == 17958);
} END_TEST

START_TEST(the_avazu_sample_is_read_by_its_header) {
    const char *folder = real_folder();
    if (!folder) return;
    static const char *const files[] = {"avazu-sample/train.csv.zst", NULL};
    struct pn_data d = data_of(PN_FORMAT_CSV, "");
    snprintf(d.path, sizeof(d.path), "%s/avazu-sample/train.csv", folder);
    double clicks;
    size_t n = count_real(folder, files, &d, &clicks);
    if (n == 0) return;
    ck_assert_uint_eq(n, 8087);
    ck_assert(clicks > 0 && clicks < 4000);
} END_TEST

/* One user's rows are one producer's, in batches of its own; every row is somebody's, in the order of the stream. */
START_TEST(rows_dealt_by_user_keep_a_users_together) {
    char csv[20000], *at = csv + sprintf(csv, "u,i,click\n");
    for (size_t i = 0; i < 500; i++) at += sprintf(at, "user%zu,%zu,%zu\n", i % 37, i, i % 2);
    uint32_t owner[37];
    memset(owner, 0xff, sizeof owner);
    size_t total = 0, most = 0;
    for (uint32_t p = 0; p < 3; p++) {
        struct fake_env f;
        fake_init(&f, 5 + p);
        fake_put_text(&f, "/u.csv", csv);
        struct pn_data d = data_of(PN_FORMAT_CSV, "/u.csv");
        struct pn_reader_options o = whole(64);
        o.producer = p;
        o.n_producers = 3;
        o.by_hash = true;
        o.user = "u";
        struct pn_reader *r = pn_reader_open(&f.env, &d, &o);
        struct answer a;
        size_t own = 0, batches = 0;
        long before = -1;
        while ((a = next(&f, r)).result == PN_OK) {
            batches++;
            for (size_t i = 0; i < a.raw->n_rows; i++) {
                const long row = atol(value(a.raw, i, "i"));
                ck_assert(row > before && a.raw->labels[i] == (float)(row % 2) && atol(value(a.raw, i, "u") + 4) == row % 37);
                before = row;
                ck_assert(owner[row % 37] == UINT32_MAX || owner[row % 37] == p);
                owner[row % 37] = p;
            }
            own += a.raw->n_rows;
        }
        ck_assert_msg(a.result == PN_NOT_FOUND, "%s", a.err.text);
        ck_assert_uint_eq(batches, (own + 63) / 64);
        total += own;
        if (own > most) most = own;
        close_reader(&f, r);
        fake_free(&f);
    }
    ck_assert_uint_eq(total, 500);
    ck_assert_uint_lt(most, 400);
} END_TEST

/* Dealt by a hash of the record: every row is somebody's, with about as many for each, and a row that is not there moves no other one. */
START_TEST(a_row_dealt_by_its_hash_goes_to_the_same_producer_whatever_is_beside_it) {
    uint32_t owner[2][500], n[3] = {0};
    memset(owner, 0xff, sizeof owner);
    for (size_t without = 0; without < 2; without++) {
        char csv[20000], *at = csv + sprintf(csv, "i,click\n");
        for (size_t i = 0; i < 500; i++)
            if (without == 0 || i != 7) at += sprintf(at, "%zu,%zu\n", i, i % 2);
        for (uint32_t p = 0; p < 3; p++) {
            struct fake_env f;
            fake_init(&f, 5 + p);
            fake_put_text(&f, "/r.csv", csv);
            struct pn_data d = data_of(PN_FORMAT_CSV, "/r.csv");
            struct pn_reader_options o = whole(64);
            o.producer = p;
            o.n_producers = 3;
            o.by_hash = true;
            struct pn_reader *r = pn_reader_open(&f.env, &d, &o);
            struct answer a;
            while ((a = next(&f, r)).result == PN_OK)
                for (size_t i = 0; i < a.raw->n_rows; i++) {
                    const long row = atol(value(a.raw, i, "i"));
                    ck_assert(owner[without][row] == UINT32_MAX);
                    owner[without][row] = p;
                    if (without == 0) n[p]++;
                }
            ck_assert_msg(a.result == PN_NOT_FOUND, "%s", a.err.text);
            close_reader(&f, r);
            fake_free(&f);
        }
    }
    for (uint32_t p = 0; p < 3; p++) ck_assert_msg(n[p] > 120 && n[p] < 215, "producer %u has %u of 500 rows", p, n[p]);
    for (size_t i = 0; i < 500; i++) ck_assert_uint_eq(owner[1][i], i == 7 ? UINT32_MAX : owner[0][i]);
} END_TEST

START_TEST(a_row_without_a_user_is_refused_with_its_line) {
    static const struct { const char *csv, *words; } cases[] = {{"u,i,click\na,1,0\n,2,1\n", "r.csv:3: column \"u\" (privacy.userField) is empty"}, {"v,i,click\na,1,0\n", "no column \"u\""}};
    for (size_t k = 0; k < 2; k++) {
        struct fake_env f;
        fake_init(&f, 1);
        fake_put_text(&f, "/r.csv", cases[k].csv);
        struct pn_data d = data_of(PN_FORMAT_CSV, "/r.csv");
        struct pn_reader_options o = whole(64);
        o.by_hash = true;
        o.user = "u";
        struct pn_reader *r = pn_reader_open(&f.env, &d, &o);
        const struct answer a = next(&f, r);
        ck_assert(a.result == PN_INVALID);
        ck_assert_msg(strstr(a.err.text, cases[k].words) != NULL, "\"%s\" does not say \"%s\"", a.err.text, cases[k].words);
        close_reader(&f, r);
        fake_free(&f);
    }
} END_TEST

int main(void) {
    TCase *c = tcase_create("batches");
    tcase_add_test(c, without_a_shuffle_rows_come_in_the_order_of_the_file_and_only_the_range_asked_for);
    tcase_add_loop_test(c, batches_are_dealt_round_robin_from_one_stream, 0, 24);
    tcase_add_test(c, a_shuffle_depends_on_seed_and_epoch_and_on_nothing_else);
    tcase_add_test(c, rows_dealt_by_user_keep_a_users_together);
    tcase_add_test(c, a_row_dealt_by_its_hash_goes_to_the_same_producer_whatever_is_beside_it);
    tcase_add_test(c, a_row_without_a_user_is_refused_with_its_line);
    tcase_add_test(c, movielens_100k_gives_80000_and_20000_ratings);
    tcase_add_test(c, the_criteo_sample_gives_80000_rows_of_which_17958_are_clicks);
    tcase_add_test(c, the_avazu_sample_is_read_by_its_header);
    return run_suite(c);
}
