/* The checkpoint file: one moment, whole or not at all, for any number of shards. */
#include "ps/checkpoint.h"
#include "tests/unit/ps/util.h"

enum { KEYS = 300 };
struct written_file { bool done; int64_t result; uint64_t n_bytes, rows; char digest[65]; };

static void on_written(void *owner, int64_t result, uint64_t n_bytes, const char *digest, uint64_t rows) {
    struct written_file *w = owner;
    ck_assert(!w->done);
    *w = (struct written_file){.done = true, .result = result, .n_bytes = n_bytes, .rows = rows};
    snprintf(w->digest, sizeof w->digest, "%s", digest);
}

/* Pushes of drawn keys; steps of each producer from `from` to `to`, some of the last 64 left out so that windows have holes. */
static void train(struct fake *f, struct pn_shard *s, uint64_t from, uint64_t to, bool holes) {
    for (uint64_t step = from; step <= to; step++)
        for (uint64_t p = 0; p < s->n_producers; p++) {
            if (holes && to - step < 40 && (step + p) % 3 == 0) continue;
            uint64_t keys[8], n = 0;
            for (uint64_t i = 0; i < 8; i++) {
                uint64_t key = i * (KEYS / 8) + pn_mix64(step * 64 + p * 8 + i) % (KEYS / 8);
                if (pn_shard_owns(s, key)) keys[n++] = key;
            }
            count_push(f, s, p, step, keys, n);
            fake_drop_sent(f);
        }
}
static struct written_file checkpoint(struct fake *f, struct pn_shard *s, const char *name) {
    struct written_file w = {0};
    ck_assert_ptr_nonnull(pn_checkpoint_write(s, "/c/7", name, 7, on_written, &w));
    fake_run(f);
    ck_assert(w.done);
    return w;
}
static void same(const struct pn_shard *a, const struct pn_shard *b) {
    for (uint64_t k = 0; k < KEYS; k++)
        if (pn_shard_owns(a, k) && pn_shard_owns(b, k)) ck_assert_msg(first_value(a, 0, k) == first_value(b, 0, k), "key %llu", (unsigned long long)k);
    for (uint32_t slot = 0; slot < PN_SLOTS; slot++) {
        if (slot < a->first_slot || slot > a->last_slot || slot < b->first_slot || slot > b->last_slot) continue;
        ck_assert_uint_eq(a->audit[slot], b->audit[slot]);
        for (uint32_t p = 0; p < a->n_producers; p++)
            ck_assert_mem_eq(&a->windows[p * PN_SLOTS + slot], &b->windows[p * PN_SLOTS + slot], sizeof(struct pn_window));
    }
    ck_assert_mem_eq(a->producers, b->producers, sizeof a->producers);
}
static enum pn_result restore(struct pn_shard *s, const struct fake_file *file, const char *digest, struct pn_error *err) {
    void *image = malloc(file->n_bytes + 8); /* a block of its own: reading past its end shows */
    memcpy(image, file->data, file->n_bytes);
    enum pn_result r = pn_checkpoint_restore(s, image, file->n_bytes, digest, err);
    free(image);
    return r;
}

START_TEST(a_restored_shard_is_the_shard_of_the_cut_whatever_was_pushed_while_writing) {
    struct fake *f = fake_open();
    const char *const job = _i ? tiered_job("async") : audit_job("async");
    struct pn_shard *s = open_shard(f, job, 3, 0, ALL), *twin = open_shard(f, job, 3, 0, ALL), *back = open_shard(f, job, 3, 0, ALL);
    for (uint64_t step = 1; step <= 100; step++) { /* rows go to the second tier in between */
        train(f, s, step, step, false);
        train(f, twin, step, step, false);
        if (step % 7 == 0) fake_run(f);
    }
    if (_i) ck_assert_uint_gt(pn_table_cold_rows(s->tables[0]), 10);
    if (_i) ck_assert_uint_gt(pn_table_counters(s->tables[0])->promoted, 20);
    struct written_file w = {0};
    ck_assert_ptr_nonnull(pn_checkpoint_write(s, "/c/7", "ps-0", 7, on_written, &w));
    for (uint64_t step = 101; fake_step(f); step++) train(f, s, step, step, false);
    ck_assert(w.done && w.result == 0);
    ck_assert_uint_eq(w.rows, pn_table_rows(twin->tables[0]));
    struct pn_error err = {""};
    const struct fake_file *file = fake_file(f, "/c/7/ps-0.ps", false);
    ck_assert_uint_eq(file->n_bytes, w.n_bytes);
    ck_assert_msg(restore(back, file, w.digest, &err) == PN_OK, "%s", err.text);
    same(back, twin);
    /* Everything once more: what was in the cut is recognised, to the last hole of the window. */
    train(f, back, 1, 100, false);
    same(back, twin);
    train(f, back, 37, 140, true);
    train(f, twin, 37, 140, true);
    same(back, twin);
    train(f, back, 37, 140, false);
    train(f, twin, 37, 140, false);
    same(back, twin);
    fake_run(f); /* what is on its way to a second tier */
    pn_shard_close(s);
    pn_shard_close(twin);
    pn_shard_close(back);
    fake_close(f);
} END_TEST

START_TEST(files_of_two_shards_restore_to_three_or_one) {
    struct fake *f = fake_open();
    struct pn_shard *all = open_shard(f, audit_job("async"), 2, 0, ALL);
    train(f, all, 1, 80, true);
    struct pn_shard *half[2] = {open_shard(f, audit_job("async"), 2, 0, 499), open_shard(f, audit_job("async"), 2, 500, ALL)};
    struct written_file w[2];
    for (int i = 0; i < 2; i++) {
        train(f, half[i], 1, 80, true);
        w[i] = checkpoint(f, half[i], i == 0 ? "ps-0" : "ps-1");
    }
    static const uint32_t bounds[4][2] = {{0, 300}, {301, 700}, {701, ALL}, {0, ALL}};
    uint64_t rows = 0;
    for (int i = 0; i < 4; i++) {
        struct pn_shard *s = open_shard(f, audit_job("async"), 2, bounds[i][0], bounds[i][1]);
        ck_assert_int_eq(restore(s, fake_file(f, "/c/7/ps-1.ps", false), w[1].digest, NULL), PN_OK); /* in any order */
        ck_assert_int_eq(restore(s, fake_file(f, "/c/7/ps-0.ps", false), w[0].digest, NULL), PN_OK);
        same(s, all);
        rows += pn_table_rows(s->tables[0]);
        pn_shard_close(s);
    }
    ck_assert_uint_eq(rows, 2 * pn_table_rows(all->tables[0]));
    pn_shard_close(half[0]);
    pn_shard_close(half[1]);
    pn_shard_close(all);
    fake_close(f);
} END_TEST

START_TEST(every_damaged_byte_and_every_cut_is_found_and_changes_nothing) {
    struct fake *f = fake_open();
    struct pn_shard *s = open_shard(f, audit_job("async"), 1, 0, 20);
    train(f, s, 1, 30, false);
    struct written_file w = checkpoint(f, s, "ps-0");
    struct fake_file *file = fake_file(f, "/c/7/ps-0.ps", false);
    struct pn_shard *back = open_shard(f, audit_job("async"), 1, 0, 20);
    for (size_t i = 0; i < file->n_bytes; i++) {
        file->data[i] ^= 0x10;
        ck_assert_int_eq(restore(back, file, w.digest, NULL), PN_CORRUPT);
        file->data[i] ^= 0x10;
    }
    const size_t n = file->n_bytes;
    for (size_t cut = 0; cut < n; cut += 1 + cut % 13) { /* without the digest: structure alone */
        file->n_bytes = cut;
        ck_assert_int_eq(restore(back, file, NULL, NULL), PN_CORRUPT);
    }
    file->n_bytes = n;
    ck_assert_uint_eq(pn_table_rows(back->tables[0]), 0);
    ck_assert_int_eq(restore(back, file, NULL, NULL), PN_OK);
    pn_shard_close(back);
    pn_shard_close(s);
    fake_close(f);
} END_TEST

START_TEST(a_file_of_another_schema_is_refused) {
    struct fake *f = fake_open();
    struct pn_shard *s = open_shard(f, audit_job("async"), 2, 0, ALL);
    train(f, s, 1, 3, false);
    struct written_file w = checkpoint(f, s, "ps-0");
    const struct fake_file *file = fake_file(f, "/c/7/ps-0.ps", false);
    struct pn_shard *other = open_shard(f, lr_job, 2, 0, ALL), *fewer = open_shard(f, audit_job("async"), 1, 0, ALL);
    ck_assert_int_eq(restore(other, file, w.digest, NULL), PN_CORRUPT);
    ck_assert_int_eq(restore(fewer, file, w.digest, NULL), PN_CORRUPT);
    pn_shard_close(other);
    pn_shard_close(fewer);
    pn_shard_close(s);
    fake_close(f);
} END_TEST

START_TEST(the_file_is_synced_before_its_name_and_the_folder_after) {
    struct fake *f = fake_open();
    struct pn_shard *s = open_shard(f, audit_job("async"), 1, 0, ALL);
    train(f, s, 1, 3, false);
    checkpoint(f, s, "ps-0");
    size_t n = f->n_steps;
    ck_assert_uint_ge(n, 5);
    ck_assert_int_eq(f->steps[n - 1].op, PN_IO_SYNC_DIR);
    ck_assert_int_eq(f->steps[n - 2].op, PN_IO_RENAME);
    ck_assert_int_eq(f->steps[n - 3].op, PN_IO_SYNC);
    ck_assert_str_eq(f->steps[n - 3].path, "/c/7/ps-0.ps.part");
    ck_assert_int_eq(f->steps[n - 4].op, PN_IO_WRITE);
    ck_assert(fake_file(f, "/c/7/ps-0.ps", false)->synced);
    pn_shard_close(s);
    fake_close(f);
} END_TEST

/* The n-th operation on files fails, for every n: an error once, no file under the final name unless it is whole, and the next cut works. */
START_TEST(any_failed_operation_abandons_the_file_and_not_the_training) {
    for (uint64_t n = 1;; n++) {
        struct fake *f = fake_open();
        struct pn_shard *s = open_shard(f, audit_job("async"), 1, 0, ALL);
        train(f, s, 1, 20, false);
        f->fail_io = n;
        struct written_file w = checkpoint(f, s, "ps-0");
        bool all_done = f->n_io_done < n;
        if (!all_done) {
            ck_assert_int_eq(w.result, -EIO);
            ck_assert_ptr_null(fake_file(f, "/c/7/ps-0.ps.part", false));
            for (size_t i = 0, syncs = 0; i < f->n_steps; i++) ck_assert_uint_le(syncs += f->steps[i].op == PN_IO_SYNC, 1); /* never a second fsync */
        }
        f->fail_io = 0;
        train(f, s, 21, 25, false);
        w = checkpoint(f, s, "ps-0");
        ck_assert_int_eq(w.result, 0);
        struct pn_shard *back = open_shard(f, audit_job("async"), 1, 0, ALL);
        ck_assert_int_eq(restore(back, fake_file(f, "/c/7/ps-0.ps", false), w.digest, NULL), PN_OK);
        same(back, s);
        pn_shard_close(back);
        pn_shard_close(s);
        fake_close(f);
        if (all_done) break;
    }
} END_TEST

/* Abandoned after each number of operations: no callback, no part left, and the shard can be closed at once or cut again. */
START_TEST(an_abandoned_cut_says_nothing_and_leaves_no_part) {
    for (int steps = 0; steps < 12; steps++) {
        struct fake *f = fake_open();
        struct pn_shard *s = open_shard(f, audit_job("async"), 1, 0, ALL);
        train(f, s, 1, 20, false);
        struct written_file w = {0};
        struct pn_checkpoint_writer *writer = pn_checkpoint_write(s, "/c/7", "ps-0", 7, on_written, &w);
        for (int i = 0; i < steps && !w.done; i++) fake_step(f);
        if (!w.done) {
            pn_checkpoint_abandon(writer);
            if (steps % 2 == 0) {
                struct written_file again = {0};
                ck_assert_ptr_nonnull(pn_checkpoint_write(s, "/c/8", "ps-0", 8, on_written, &again));
                fake_run(f);
                ck_assert(again.done && again.result == 0);
                pn_shard_close(s);
            } else {
                pn_shard_close(s);
                fake_run(f);
            }
            ck_assert(!w.done);
            ck_assert_ptr_null(fake_file(f, "/c/7/ps-0.ps.part", false));
        } else {
            pn_shard_close(s);
        }
        fake_close(f);
    }
} END_TEST

START_TEST(a_second_cut_waits_for_the_first_to_end) {
    struct fake *f = fake_open();
    struct pn_shard *s = open_shard(f, audit_job("async"), 1, 0, ALL);
    struct written_file w = {0}, second = {0};
    ck_assert_ptr_nonnull(pn_checkpoint_write(s, "/c/7", "ps-0", 7, on_written, &w));
    ck_assert_ptr_null(pn_checkpoint_write(s, "/c/8", "ps-0", 8, on_written, &second));
    fake_run(f);
    ck_assert(w.done && w.result == 0 && !second.done);
    pn_shard_close(s);
    fake_close(f);
} END_TEST

int main(void) {
    TCase *c = tcase_create("checkpoint");
    tcase_add_loop_test(c, a_restored_shard_is_the_shard_of_the_cut_whatever_was_pushed_while_writing, 0, 2);
    tcase_add_test(c, files_of_two_shards_restore_to_three_or_one);
    tcase_add_test(c, every_damaged_byte_and_every_cut_is_found_and_changes_nothing);
    tcase_add_test(c, a_file_of_another_schema_is_refused);
    tcase_add_test(c, the_file_is_synced_before_its_name_and_the_folder_after);
    tcase_add_test(c, any_failed_operation_abandons_the_file_and_not_the_training);
    tcase_add_test(c, an_abandoned_cut_says_nothing_and_leaves_no_part);
    tcase_add_test(c, a_second_cut_waits_for_the_first_to_end);
    return fake_suite("checkpoint", c);
}
