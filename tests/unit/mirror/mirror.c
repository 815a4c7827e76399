/* A worker's copy of all rows, beside two shards: what it has, what it asks for, and what comes over the wire. */
#include "ps/mirror/mirror.h"
#include "tests/unit/ps/util.h"

enum { SHARDS = 2, HALF = PN_SLOTS / 2, FROM = 100, KEYS = 400 };

static const char *private_job(const char *mode, const char *codec, const char *storage, int dim) {
    static char text[1200];
    snprintf(text, sizeof text,
             "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data:\n    train: {format: csv, uri: /nowhere/a.csv, label: y}\n"
             "  features:\n    - {name: a, type: categorical, buckets: 200, table: a}\n    - {name: b, type: categorical, buckets: 50000, table: b}\n"
             "  tables: {defaults: {storage: %s, optimizer: {name: adagrad, lr: 0.1}, init: {normal: 0.3}}}\n  model: {name: fm, embeddingDim: %d}\n"
             "  training: {batchSize: 8, dataShards: 2, codec: %s, consistency: {mode: %s}}\n"
             "  privacy: {rows: 4000, epsilon: 50, noiseMultiplier: 5, delta: 1.0e-5, selection: dense, dataset: d}\n",
             storage, dim, codec, mode);
    return text;
}

struct world {
    struct fake *f;
    struct pn_job job;
    struct pn_shard *shards[SHARDS];
    uint64_t terms[SHARDS], step;
    struct pn_mirror *mirror;
    size_t asked, answered, rows, bodies; /* CHANGES sent, CHANGED come back, rows in them; bytes behind the headers of what was asked */
    bool deaf[SHARDS];
    int done;
    enum pn_result result;
};

static void open_life(struct world *w, int i, const char *text) {
    struct pn_error err = {""};
    ck_assert_msg(pn_shard_open(&w->shards[i], &w->f->env, &fake_tiers, text, "j", w->terms[i], 1, 2, i == 0 ? 0 : HALF, i == 0 ? HALF - 1 : ALL, &err) == PN_OK, "%s", err.text);
}

static void map(struct world *w) {
    static struct pn_shard_map m;
    memset(&m, 0, sizeof m);
    m.n_shards = SHARDS;
    for (int i = 0; i < SHARDS; i++) {
        snprintf(m.shards[i].address, sizeof m.shards[i].address, "shard-%d", i);
        m.shards[i].term = w->terms[i];
    }
    for (uint32_t slot = HALF; slot < PN_SLOTS; slot++) m.owner[slot] = 1;
    pn_mirror_map(w->mirror, &m);
}

static struct world open_world(const char *text) {
    struct world w = {.f = fake_open(), .terms = {TERM, TERM + 1}};
    struct pn_error err = {""};
    ck_assert_msg(pn_job_parse(&w.job, text, strlen(text), "job", NULL, NULL, &err) == PN_OK, "%s", err.text);
    return w;
}
static void begin(struct world *w, const char *text) {
    struct pn_error err = {""};
    for (int i = 0; i < SHARDS; i++) open_life(w, i, text);
    ck_assert_msg(pn_mirror_open(&w->mirror, &w->f->env, &w->job, "j", &err) == PN_OK, "%s", err.text);
    map(w);
}
static void end(struct world *w) {
    fake_run(w->f);
    pn_mirror_close(w->mirror);
    for (int i = 0; i < SHARDS; i++) pn_shard_close(w->shards[i]);
    pn_job_free(&w->job);
    fake_close(w->f);
}

/* Carries every message to where it goes, until none is left. Shard i hears of FROM + i, and the mirror of peer i + 1. */
static void carry(struct world *w) {
    pn_peer to = 0;
    for (struct pn_msg *m; (m = fake_take(w->f, &to)) != NULL;) {
        struct pn_frame frame;
        ck_assert_int_eq(pn_frame_open(&frame, m->data, m->n_bytes, NULL), PN_OK);
        if (to < FROM) {
            if (frame.kind == PN_CHANGES) w->asked++, w->bodies += frame.body_bytes;
            if (!w->deaf[to - 1]) pn_shard_message(w->shards[to - 1], FROM + to - 1, m, &frame);
        } else if (frame.kind != PN_ACK) {
            uint64_t counts[4];
            size_t n = 0;
            if (frame.kind == PN_CHANGED && pn_frame_u64s(&frame, "counts", counts, 4, &n)) w->answered++;
            for (size_t i = 0; i < n; i++) w->rows += counts[i];
            pn_mirror_message(w->mirror, to - FROM + 1, &frame);
        }
        pn_frame_close(&frame);
        pn_msg_unref(m);
    }
}

static void done(void *owner, enum pn_result r) {
    struct world *w = owner;
    w->done++;
    w->result = r;
}
static void refresh(struct world *w) {
    const int before = w->done;
    pn_mirror_refresh(w->mirror, 0, done, w);
    carry(w);
    ck_assert_int_eq(w->done, before + 1);
    ck_assert_int_eq(w->result, PN_OK);
}

/* Pushes to n rows of a table from the field's domain, from `first` on, and each of the two shards gets its own. */
static void push_from(struct world *w, uint64_t producer, uint64_t step, uint32_t table, uint64_t first, size_t n) {
    uint64_t *keys = malloc(n * sizeof *keys);
    const size_t dim = w->job.tables[table].dim;
    for (size_t i = 0; i < n; i++) keys[i] = pn_field_domain_key(&w->job.fields[table], (first + i) % pn_field_domain(&w->job.fields[table]));
    qsort(keys, n, sizeof *keys, by_mix);
    float *g = malloc(n * dim * sizeof *g);
    for (size_t i = 0; i < n * dim; i++) g[i] = (float)(int64_t)(pn_mix64(step * 1000003 + i) % 200) / 100 - 1;
    for (int s = 0; s < SHARDS; s++) {
        size_t at = 0, end = n;
        while (s == 1 && at < n && pn_slot_of(keys[at]) < HALF) at++;
        while (s == 0 && end > 0 && pn_slot_of(keys[end - 1]) >= HALF) end--;
        struct ask a = PUSH(producer, step);
        a.term = w->terms[s];
        a.n_parts = 1;
        a.parts[0].table = table;
        a.parts[0].count = end - at;
        a.parts[0].dim = dim;
        a.parts[0].keys = keys + at;
        a.parts[0].values = g + at * dim;
        deliver(w->shards[s], FROM + (pn_peer)s, written(w->f, &a));
        pn_shard_settle(w->shards[s]); /* a large push would go in in slices */
    }
    free(keys);
    free(g);
}
static void push(struct world *w, uint32_t table, uint64_t first, size_t n) { push_from(w, 0, ++w->step, table, first, n); }

/* KEYS rows of each table, pushed or not: the copy has the bits that a pull would bring. */
static void same_as_a_pull(const struct world *w) {
    for (uint32_t t = 0; t < 2; t++) {
        const size_t dim = w->job.tables[t].dim, bytes = pn_codec_row_bytes(w->job.codec, dim);
        float *copy = malloc(KEYS * dim * sizeof *copy), pulled[dim];
        uint8_t wire[bytes];
        uint64_t keys[KEYS];
        for (uint64_t i = 0; i < KEYS; i++) keys[i] = pn_field_domain_key(&w->job.fields[t], i % pn_field_domain(&w->job.fields[t]));
        pn_mirror_rows(w->mirror, t, keys, KEYS, copy);
        for (size_t i = 0; i < KEYS; i++) {
            pn_table_pull_as(w->shards[pn_slot_of(keys[i]) >= HALF]->tables[t], w->job.codec, &keys[i], 1, wire);
            pn_codec_decode(w->job.codec, wire, 1, dim, pulled);
            ck_assert_mem_eq(copy + i * dim, pulled, dim * sizeof *pulled);
        }
        free(copy);
    }
}

START_TEST(the_copy_has_the_bits_that_a_pull_would_bring_for_rows_that_were_pushed_and_others) {
    static const char *const kinds[][2] = {{"float32", "float32"}, {"float16", "float32"}, {"float32", "float16"}, {"int8", "int8"}, {"bfloat16", "int8"}, {"int8", "float32"}};
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        const char *text = private_job("async", kinds[k][1], kinds[k][0], 5);
        struct world w = open_world(text);
        begin(&w, text);
        refresh(&w);
        ck_assert_uint_eq(w.rows, 0); /* nothing was pushed yet */
        same_as_a_pull(&w);
        for (uint64_t round = 0; round < 6; round++) {
            push(&w, 0, round * 31, 20);
            push(&w, 1, round * 17, 40);
            if (round % 2 == 0) push(&w, 1, round * 17 + 20, 40); /* some rows twice between two transfers */
            refresh(&w);
            same_as_a_pull(&w);
        }
        end(&w);
    }
} END_TEST

START_TEST(a_transfer_brings_each_row_once_that_was_pushed_since_the_one_before_and_asks_for_none_by_name) {
    const char *text = private_job("async", "float32", "float32", 5);
    struct world w = open_world(text);
    begin(&w, text);
    push(&w, 0, 0, 200);
    push(&w, 1, 0, 2000);
    refresh(&w);
    ck_assert_uint_eq(w.rows, 2200);
    push(&w, 1, 100, 30);
    push(&w, 1, 110, 30);
    refresh(&w);
    ck_assert_uint_eq(w.rows, 2200 + 40);
    refresh(&w);
    ck_assert_uint_eq(w.rows, 2200 + 40);
    same_as_a_pull(&w);
    ck_assert_uint_eq(w.asked, 6);
    ck_assert_uint_eq(w.bodies, 0);
    end(&w);
} END_TEST

START_TEST(who_is_further_behind_than_the_list_of_changes_goes_back_gets_all_rows_and_no_list_is_longer_than_the_table) {
    const char *text = private_job("async", "float32", "float32", 5);
    struct world w = open_world(text);
    begin(&w, text);
    push(&w, 1, 0, 3000);
    refresh(&w);
    for (int i = 0; i < 40; i++) push(&w, 1, 0, 1000);
    w.rows = 0;
    refresh(&w);
    ck_assert_uint_eq(w.rows, 3000);
    same_as_a_pull(&w);
    end(&w);
} END_TEST

START_TEST(many_rows_come_in_several_answers_and_what_is_pushed_between_them_comes_with_the_next_transfer) {
    const char *text = private_job("async", "float32", "float32", 200);
    struct world w = open_world(text);
    begin(&w, text);
    push(&w, 1, 0, 30000);
    pn_mirror_refresh(w.mirror, 0, done, &w);
    for (int half = 0; half < 2; half++) { /* the first answers, then a push, then the others */
        pn_peer to = 0;
        for (size_t n = w.f->n_sent; half == 0 && n > 0; n--) {
            struct pn_msg *m = fake_take(w.f, &to);
            struct pn_frame frame;
            ck_assert_int_eq(pn_frame_open(&frame, m->data, m->n_bytes, NULL), PN_OK);
            ck_assert(to < FROM || frame.kind == PN_ACK);
            if (to < FROM) pn_shard_message(w.shards[to - 1], FROM + to - 1, m, &frame);
            pn_frame_close(&frame);
            pn_msg_unref(m);
        }
        if (half == 0) push(&w, 1, 0, KEYS);
        else carry(&w);
    }
    ck_assert_int_eq(w.done, 1);
    ck_assert_uint_gt(w.answered, 2);
    refresh(&w);
    same_as_a_pull(&w);
    end(&w);
} END_TEST

START_TEST(a_shard_that_comes_back_without_its_last_rows_has_them_taken_out_of_the_copy) {
    const char *text = private_job("async", "float32", "float32", 5);
    struct world w = open_world(text);
    begin(&w, text);
    push(&w, 0, 0, 200);
    refresh(&w);
    pn_shard_close(w.shards[1]);
    w.deaf[1] = true;
    pn_mirror_refresh(w.mirror, 0, done, &w); /* it waits for the shard's new life */
    carry(&w);
    fake_advance(w.f, 700);
    carry(&w);
    ck_assert_int_eq(w.done, 1);
    w.terms[1] += 5;
    w.deaf[1] = false;
    open_life(&w, 1, text);
    map(&w);
    carry(&w);
    ck_assert_int_eq(w.done, 2);
    ck_assert_int_eq(w.result, PN_OK);
    same_as_a_pull(&w);
    end(&w);
} END_TEST

START_TEST(a_lost_ask_is_repeated_and_an_answer_of_an_earlier_life_is_not_taken) {
    const char *text = private_job("async", "float32", "float32", 5);
    struct world w = open_world(text);
    begin(&w, text);
    push(&w, 0, 0, 200);
    fake_drop_sent(w.f);
    pn_mirror_refresh(w.mirror, 0, done, &w);
    fake_drop_sent(w.f);
    fake_advance(w.f, 400);
    ck_assert_uint_eq(w.f->n_sent, SHARDS);
    for (int i = 0; i < SHARDS; i++) { /* answered, but the map moves on before the answer comes */
        pn_peer to = 0;
        struct pn_msg *m = fake_take(w.f, &to);
        deliver(w.shards[to - 1], FROM + to - 1, m);
    }
    w.terms[0] += 10;
    pn_shard_close(w.shards[0]);
    open_life(&w, 0, text);
    map(&w);
    carry(&w);
    ck_assert_int_eq(w.done, 1);
    same_as_a_pull(&w);
    end(&w);
} END_TEST

static void zero_and_one(struct world *w, uint64_t step, bool both) {
    push_from(w, 0, step, 0, 0, 10);
    if (both) push_from(w, 1, step, 0, 5, 10);
}

START_TEST(in_a_sync_job_a_shard_that_is_behind_is_waited_for_but_whom_it_waits_for_goes_first) {
    const char *text = private_job("sync", "float32", "float32", 5);
    struct world w = open_world(text);
    begin(&w, text);
    zero_and_one(&w, 1, true);
    carry(&w);
    pn_mirror_refresh(w.mirror, 2, done, &w); /* step 2 is not there yet */
    carry(&w);
    ck_assert_int_eq(w.done, 0);
    pn_mirror_refresh(w.mirror, 1, done, &w); /* the producer whose step 2 is missing asks for step 1 */
    carry(&w);
    ck_assert_int_eq(w.done, 1);
    zero_and_one(&w, 2, true);
    carry(&w);
    fake_advance(w.f, 400);
    carry(&w);
    ck_assert_int_eq(w.done, 2);
    same_as_a_pull(&w);
    end(&w);
} END_TEST

START_TEST(whoever_has_gone_is_not_called_and_a_refusal_reaches_who_waits) {
    const char *text = private_job("async", "float32", "float32", 5);
    struct world w = open_world(text), other = {0};
    begin(&w, text);
    pn_mirror_refresh(w.mirror, 0, done, &other);
    pn_mirror_refresh(w.mirror, 0, done, &w);
    pn_mirror_cancel(w.mirror, &other);
    carry(&w);
    ck_assert_int_eq(other.done, 0);
    ck_assert_int_eq(w.done, 1);
    pn_mirror_refresh(w.mirror, 0, done, &w);
    pn_peer to = 0;
    struct pn_msg *m = fake_take(w.f, &to);
    struct pn_frame frame;
    ck_assert_int_eq(pn_frame_open(&frame, m->data, m->n_bytes, NULL), PN_OK);
    pn_shard_refuse(&w.f->env, FROM + to - 1, w.terms[to - 1], frame.request, PN_INVALID, "no");
    pn_frame_close(&frame);
    pn_msg_unref(m);
    carry(&w);
    ck_assert_int_eq(w.done, 2);
    ck_assert_int_eq(w.result, PN_INVALID);
    end(&w);
} END_TEST

START_TEST(a_shard_refuses_asks_that_no_copy_makes) {
    const char *text = private_job("async", "float32", "float32", 5);
    struct world w = open_world(text);
    begin(&w, text);
    const struct { const char *since; uint64_t version; uint64_t slot; } wrong[] = {{"since", 99, 0}, {"since", 0, PN_SLOTS}, {"since", 0, HALF}, {"sinc", 0, 0}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct pn_writer x;
        uint8_t *body;
        pn_write_start(&x, PN_CHANGES, w.terms[0], 77);
        pn_write_str(&x, "job", "j");
        pn_write_u64(&x, wrong[i].since, wrong[i].version);
        pn_write_u64(&x, "slot", wrong[i].slot);
        struct pn_msg *m = pn_write_finish(&x, &w.f->env, 0, &body);
        pn_msg_seal(m);
        deliver(w.shards[0], FROM, m);
        EXPECT_REFUSAL(w.f, PN_INVALID);
    }
    end(&w);
    struct fake *f = fake_open();
    struct pn_shard *s = open_shard(f, lr_job, 1, 0, ALL); /* of a job that is not private */
    struct ask a = {.kind = PN_CHANGES, .term = TERM, .request = 5, .job = "j"};
    ask(f, s, &a);
    EXPECT_REFUSAL(f, PN_INVALID);
    pn_shard_close(s);
    fake_close(f);
} END_TEST

int main(void) {
    TCase *c = tcase_create("mirror");
    tcase_add_test(c, the_copy_has_the_bits_that_a_pull_would_bring_for_rows_that_were_pushed_and_others);
    tcase_add_test(c, a_transfer_brings_each_row_once_that_was_pushed_since_the_one_before_and_asks_for_none_by_name);
    tcase_add_test(c, who_is_further_behind_than_the_list_of_changes_goes_back_gets_all_rows_and_no_list_is_longer_than_the_table);
    tcase_add_test(c, many_rows_come_in_several_answers_and_what_is_pushed_between_them_comes_with_the_next_transfer);
    tcase_add_test(c, a_shard_that_comes_back_without_its_last_rows_has_them_taken_out_of_the_copy);
    tcase_add_test(c, a_lost_ask_is_repeated_and_an_answer_of_an_earlier_life_is_not_taken);
    tcase_add_test(c, in_a_sync_job_a_shard_that_is_behind_is_waited_for_but_whom_it_waits_for_goes_first);
    tcase_add_test(c, whoever_has_gone_is_not_called_and_a_refusal_reaches_who_waits);
    tcase_add_test(c, a_shard_refuses_asks_that_no_copy_makes);
    return fake_suite("mirror", c);
}
