/* Files that a library reads: whatever pieces it gives, they are the rows of a CSV file of the same text; its handles are closed, its errors are told. */
#include "tests/unit/reader/env.h"

enum { ROWS = 300 };
static char text[2][ROWS * 20];
static struct pn_rng cuts;
static int n_open, fails_at;

struct fake { struct pn_parsed parsed; const char *text; size_t at, n; int pieces; char piece[64]; };
static void fake_close(struct pn_parsed *p) {
    n_open--;
    free(p);
}
static enum pn_result fake_next(struct pn_parsed *p, const char **out, size_t *n, struct pn_error *err) {
    struct fake *f = (struct fake *)p;
    if (f->pieces++ == fails_at) return pn_fail(err, PN_INVALID, "a damaged page");
    *n = f->at == f->n ? 0 : 1 + (size_t)(pn_rng_next(&cuts) % sizeof f->piece);
    if (*n > f->n - f->at) *n = f->n - f->at;
    memcpy(f->piece, f->text + f->at, *n); /* valid until the next call, and no longer */
    f->at += *n;
    *out = f->piece;
    return PN_OK;
}
static enum pn_result fake_open(struct pn_parsed **out, const struct pn_data *d, const char *path, struct pn_error *err) {
    static const struct pn_parsed_ops ops = {fake_close, fake_next};
    ck_assert_str_eq(d->label, "click");
    if (strcmp(path, "/none") == 0) return pn_fail(err, PN_INVALID, "/none: no such file");
    struct fake *f = calloc(1, sizeof *f);
    f->parsed.ops = &ops;
    f->text = text[strcmp(path, "/b") == 0];
    f->n = strlen(f->text);
    *out = &f->parsed;
    n_open++;
    return PN_OK;
}

static void make_texts(void) {
    for (int k = 0; k < 2; k++) {
        size_t n = (size_t)sprintf(text[k], "u,click\n");
        for (int i = k * ROWS; i < (k + 1) * ROWS; i++) n += (size_t)sprintf(text[k] + n, i % 7 == 0 ? "\"a,\n%d\",%d\n" : "%d,%d\n", i, i % 2);
    }
}

/* All rows of one producer, one behind the other. */
static char *rows_of(enum pn_format format, uint32_t producer, uint64_t buffer, uint64_t skip) {
    struct fake_env f;
    fake_init(&f, 5);
    fake_put_text(&f, "/a", text[0]);
    fake_put_text(&f, "/b", text[1]);
    struct pn_data d = data_of(format, "/a");
    snprintf(d.more[0], sizeof d.more[0], "/b");
    d.n_more = 1;
    struct pn_reader *r = pn_reader_open(&f.env, &d, &(struct pn_reader_options){.producer = producer, .n_producers = 2, .batch_size = 17, .shuffle_buffer = buffer, .shuffle_seed = 3, .skip_batches = skip, .parsed = fake_open});
    char *all = calloc(1, 40 * ROWS);
    size_t n = 0;
    for (struct answer a; (a = next(&f, r)).result != PN_NOT_FOUND;) {
        ck_assert_msg(a.result == PN_OK, "%s", a.err.text);
        for (size_t i = 0; i < a.raw->n_rows; i++) n += (size_t)sprintf(all + n, "%s=%g;", value(a.raw, i, "u"), (double)a.raw->labels[i]);
    }
    close_reader(&f, r);
    fake_free(&f);
    ck_assert_int_eq(n_open, 0);
    return all;
}

START_TEST(pieces_are_the_rows_of_a_csv_file) {
    make_texts();
    fails_at = -1;
    for (uint32_t producer = 0; producer < 2; producer++)
        for (uint64_t buffer = 0; buffer < 200; buffer += 90)
            for (uint64_t skip = 0; skip < 10; skip += 4) {
                char *csv = rows_of(PN_FORMAT_CSV, producer, buffer, skip), *parsed = rows_of(PN_FORMAT_PARQUET, producer, buffer, skip);
                ck_assert_uint_gt(strlen(csv), 500);
                ck_assert_str_eq(csv, parsed);
                free(csv);
                free(parsed);
            }
} END_TEST

START_TEST(errors_and_early_closing_leave_nothing_open) {
    make_texts();
    for (int k = 0; k < 4; k++) { /* no file, a damaged one, nobody who reads it, closed in the middle */
        struct fake_env f;
        fake_init(&f, 5);
        struct pn_data d = data_of(PN_FORMAT_PARQUET, k == 0 ? "/none" : "/a");
        fails_at = k == 1 ? 20 : -1;
        struct pn_reader *r = pn_reader_open(&f.env, &d, &(struct pn_reader_options){.n_producers = 1, .batch_size = 10, .parsed = k == 2 ? NULL : fake_open});
        struct answer a = next(&f, r);
        for (int i = 0; i < 3 + 40 * (k == 1) && a.result == PN_OK; i++) a = next(&f, r);
        if (k < 3) ck_assert_int_eq(a.result, PN_INVALID);
        if (k < 3) ck_assert_msg(strstr(a.err.text, k == 0 ? "/none: no such file" : k == 1 ? "a damaged page" : "/a: nobody here reads Parquet") != NULL, "%s", a.err.text);
        else ck_assert_msg(a.result == PN_OK && n_open == 1, "%s", a.err.text);
        close_reader(&f, r);
        fake_free(&f);
        ck_assert_int_eq(n_open, 0);
    }
} END_TEST

int main(void) {
    TCase *c = tcase_create("parsed");
    tcase_add_test(c, pieces_are_the_rows_of_a_csv_file);
    tcase_add_test(c, errors_and_early_closing_leave_nothing_open);
    return run_suite(c);
}
