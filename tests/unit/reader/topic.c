/* Rows out of a topic: whatever comes when, step k of a producer is the same rows in every life of it, and all of them together each message once. */
#include "common/ledger.h"
#include "tests/unit/fake_env.h"
#include "worker/reader/reader.h"

enum { PARTITIONS = 8, MESSAGES = 400 };
/* A topic in memory. Messages from `visible` on have not come yet; those before `low` were removed. */
struct memory {
    struct pn_topic topic;
    uint32_t n_partitions;
    struct { uint64_t offset[MESSAGES]; char text[MESSAGES][48]; size_t n, visible, at; uint64_t begun_at, low; bool begun; } p[PARTITIONS];
    bool unreachable, unknown;
    size_t n_open;
};
static struct memory M;

static enum pn_result m_partitions(struct pn_topic *t, uint32_t *n, struct pn_error *err) {
    (void)t;
    if (M.unreachable) return pn_fail(err, PN_BUSY, "nobody answers");
    if (M.unknown) return pn_fail(err, PN_NOT_FOUND, "no such topic");
    *n = M.n_partitions;
    return PN_OK;
}
static enum pn_result m_range(struct pn_topic *t, uint32_t p, uint64_t *first, uint64_t *end, struct pn_error *err) {
    (void)t;
    if (M.unreachable) return pn_fail(err, PN_BUSY, "nobody answers");
    *first = M.p[p].low;
    *end = M.p[p].visible > 0 ? M.p[p].offset[M.p[p].visible - 1] + 1 : M.p[p].low;
    return PN_OK;
}
static enum pn_result m_begin(struct pn_topic *t, uint32_t p, uint64_t offset, struct pn_error *err) {
    (void)t;
    (void)err;
    ck_assert(!M.p[p].begun);
    M.p[p].begun = true;
    M.p[p].begun_at = offset;
    M.p[p].at = 0;
    while (M.p[p].at < M.p[p].n && M.p[p].offset[M.p[p].at] < offset) M.p[p].at++;
    if (M.p[p].at > 0) M.p[p].at--; /* brokers give whole batches, which may begin earlier */
    return PN_OK;
}
static enum pn_topic_state m_take(struct pn_topic *t, uint32_t p, struct pn_message *m, struct pn_error *err) {
    (void)t;
    if (M.unreachable) return PN_TOPIC_NOTHING;
    if (M.p[p].begun_at < M.p[p].low) {
        pn_fail(err, PN_INVALID, "offset %llu is gone", (unsigned long long)M.p[p].begun_at);
        return PN_TOPIC_FAILED;
    }
    if (M.p[p].at >= M.p[p].visible) {
        uint64_t first;
        m_range(t, p, &first, &m->offset, NULL);
        return PN_TOPIC_END;
    }
    const char *text = M.p[p].text[M.p[p].at];
    *m = (struct pn_message){M.p[p].offset[M.p[p].at++], text[0] != '\0' ? text : NULL, strlen(text)};
    return PN_TOPIC_MESSAGE;
}
static uint64_t m_end(struct pn_topic *t, uint32_t p) {
    uint64_t first, end = 0;
    return M.p[p].begun && m_range(t, p, &first, &end, NULL) == PN_OK ? end : 0;
}
static bool m_trouble(struct pn_topic *t, struct pn_error *line) { (void)t; pn_fail(line, PN_BUSY, "nobody answers"); return M.unreachable; }
static void m_close(struct pn_topic *t) { (void)t; M.n_open--; }
static const struct pn_topic_ops ops = {m_close, m_partitions, m_range, m_begin, m_take, m_end, m_trouble};
static struct pn_topic *m_open(const struct pn_kafka_spec *spec, struct pn_error *err) {
    (void)spec;
    (void)err;
    M.topic.ops = &ops;
    M.n_open++;
    for (size_t p = 0; p < PARTITIONS; p++) M.p[p].begun = false;
    return &M.topic;
}
static void put(uint32_t p, uint64_t offset, const char *text) {
    ck_assert_uint_lt(M.p[p].n, MESSAGES);
    M.p[p].offset[M.p[p].n] = offset;
    snprintf(M.p[p].text[M.p[p].n++], sizeof M.p[0].text[0], "%s", text);
    M.p[p].visible = M.p[p].n;
}

/* One life of a producer; the ledger outlives it. */
struct life {
    struct fake *f;
    struct pn_reader *r;
    struct pn_data data;
    struct pn_ledger *ledger;
    bool hold;                          /* proposals are not written down */
    bool came;
    enum pn_result result;
    const struct pn_raw *raw;
    struct pn_error err;
};
static void proposes(void *owner) {
    struct life *l = owner;
    bool changed;
    if (l->hold) return;
    struct json_object *o = pn_reader_proposal(l->r);
    ck_assert_ptr_nonnull(o);
    struct pn_error err = {""};
    ck_assert_msg(pn_ledger_take(l->ledger, o, &changed, &err) == PN_OK, "%s", err.text);
    json_object_put(o);
    o = pn_ledger_write(l->ledger);
    pn_reader_deal(l->r, o);
    json_object_put(o);
}
static struct pn_data jsonl(void) {
    struct pn_data d = {.present = true, .format = PN_FORMAT_JSONL, .threshold = 0.5, .label = "y", .columns = "id"};
    snprintf(d.kafka.brokers, sizeof d.kafka.brokers, "here:1");
    snprintf(d.kafka.topic, sizeof d.kafka.topic, "clicks");
    return d;
}
static void begin(struct life *l, struct pn_data data, struct pn_ledger *ledger, uint32_t producer, uint32_t n, uint32_t batch, uint64_t skip) {
    *l = (struct life){.f = fake_open(), .data = data, .ledger = ledger};
    l->r = pn_reader_open(&l->f->env, &l->data, &(struct pn_reader_options){.producer = producer, .n_producers = n, .batch_size = batch, .skip_batches = skip, .topic = m_open, .proposes = proposes, .owner = l});
    ck_assert_ptr_nonnull(l->r);
    struct json_object *o = pn_ledger_write(ledger);
    pn_reader_deal(l->r, o);
    json_object_put(o);
}
static void end(struct life *l) {
    pn_reader_close(l->r);
    fake_run(l->f);
    ck_assert_uint_eq(M.n_open, 0);
    fake_close(l->f);
}
static void on_batch(void *owner, enum pn_result r, const struct pn_raw *raw, const struct pn_error *err) {
    struct life *l = owner;
    l->came = true;
    l->result = r;
    l->raw = raw;
    if (err != NULL) l->err = *err;
}
/* The next batch, for up to so many ms. False: nothing came. */
static bool next_in(struct life *l, uint64_t ms) {
    if (l->came || l->raw == NULL) pn_reader_next(l->r, on_batch, l);
    l->came = false;
    for (uint64_t i = 0; i <= ms && !l->came; i++) {
        fake_run(l->f);
        if (!l->came) fake_advance(l->f, 1);
    }
    return l->came;
}
static const char *cell(const struct pn_raw *raw, size_t row, size_t column) {
    static char text[64];
    snprintf(text, sizeof text, "%.*s", (int)raw->length[column * raw->n_rows + row], raw->text + raw->offset[column * raw->n_rows + row]);
    return text;
}

START_TEST(steps_are_the_same_rows_in_every_life_and_together_each_message_once) {
    struct pn_rng rng = {(uint64_t)_i + 1};
    memset(&M, 0, sizeof M);
    M.n_partitions = 5;
    size_t total = 0;
    for (uint32_t p = 0; p < 5; p++) {
        uint64_t offset = pn_rng_next(&rng) % 50;
        M.p[p].low = offset;
        for (size_t i = 0, n = 20 + pn_rng_next(&rng) % 200; i < n; i++, offset += 1 + (pn_rng_next(&rng) % 7 == 0)) { /* gaps, as transactions leave them */
            char text[48];
            const bool null = pn_rng_next(&rng) % 9 == 0;
            snprintf(text, sizeof text, "{\"id\": \"%u-%zu\", \"y\": %d}", p, i, (int)(i % 2));
            put(p, offset, null ? "" : text);
            total += !null;
        }
        M.p[p].visible = 0;
    }
    enum { MOST = 400, BATCH = 7 };
    static char seen[2][MOST][48];      /* the first id of each step, from its first life */
    static unsigned char count[5][MESSAGES];
    uint64_t highest[2] = {0, 0};
    memset(seen, 0, sizeof seen);
    memset(count, 0, sizeof count);
    for (uint32_t producer = 0; producer < 2; producer++) {
        struct pn_ledger ledger = {0};
        uint64_t committed = 0;
        for (size_t p = 0; p < 5; p++) M.p[p].visible = 0;
        for (bool over = false; !over;) {
            struct life l;
            struct pn_data d = jsonl();
            d.kafka.end = PN_END_IDLE;
            d.kafka.idle_ms = 60000;
            begin(&l, d, &ledger, producer, 2, BATCH, committed);
            for (uint64_t step = committed + 1, stop = committed + 3 + pn_rng_next(&rng) % 20; step <= stop && !over;) {
                for (size_t p = 0; p < 5; p++) {
                    M.p[p].visible += pn_rng_next(&rng) % 12;
                    if (M.p[p].visible > M.p[p].n) M.p[p].visible = M.p[p].n;
                }
                if (!next_in(&l, 30 + pn_rng_next(&rng) % 9000)) {
                    l.raw = (void *)1; /* still asked for */
                    continue;
                }
                if (l.result == PN_NOT_FOUND) {
                    over = true;
                    break;
                }
                ck_assert_msg(l.result == PN_OK, "%s", l.err.text);
                const bool again = step <= highest[producer];
                if (!again) {
                    highest[producer] = step;
                    snprintf(seen[producer][step], sizeof seen[0][0], "%s", cell(l.raw, 0, 0));
                    for (size_t r = 0; r < l.raw->n_rows; r++) {
                        unsigned p, i;
                        ck_assert_int_eq(sscanf(cell(l.raw, r, 0), "%u-%u", &p, &i), 2);
                        ck_assert_uint_eq(p % 2, producer);
                        ck_assert_uint_eq(count[p][i]++, 0);
                    }
                } else ck_assert_str_eq(seen[producer][step], cell(l.raw, 0, 0));
                if (l.raw->n_rows < BATCH) over = true;
                if (pn_rng_next(&rng) % 4 == 0) { /* a checkpoint */
                    committed = step;
                    if (pn_rng_next(&rng) % 2 == 0) pn_ledger_trim(&ledger, committed * BATCH);
                    else { /* and a job that goes back to it: what was dealt behind it is dealt anew */
                        struct json_object *o = pn_ledger_write_at(&ledger, committed * BATCH);
                        struct pn_ledger copy = {0};
                        ck_assert_int_eq(pn_ledger_read(&copy, o, NULL), PN_OK);
                        json_object_put(o);
                        ck_assert_uint_le(copy.rows, committed * BATCH);
                        pn_ledger_free(&copy);
                    }
                }
                step++;
            }
            end(&l);
        }
        ck_assert(ledger.closed);
        pn_ledger_free(&ledger);
    }
    size_t found = 0;
    for (size_t p = 0; p < 5; p++)
        for (size_t i = 0; i < MESSAGES; i++) found += count[p][i];
    ck_assert_uint_eq(found, total);
} END_TEST

static void fill(uint32_t p, size_t from, size_t n) {
    for (size_t i = from; i < from + n; i++) {
        char text[48];
        snprintf(text, sizeof text, "{\"id\": \"%u-%zu\", \"y\": 1}", p, i);
        put(p, i, text);
    }
}

START_TEST(no_row_is_given_before_the_ledger_holds_it) {
    memset(&M, 0, sizeof M);
    M.n_partitions = 1;
    fill(0, 0, 50);
    struct pn_ledger ledger = {0};
    struct life l;
    begin(&l, jsonl(), &ledger, 0, 1, 10, 0);
    l.hold = true;
    ck_assert(!next_in(&l, 2000));
    l.hold = false;
    proposes(&l); /* where it begins */
    l.raw = (void *)1;
    l.hold = true;
    ck_assert(!next_in(&l, 2000));
    ck_assert_uint_eq(ledger.n_extents, 1);
    l.hold = false;
    proposes(&l);
    ck_assert(next_in(&l, 100));
    ck_assert_int_eq(l.result, PN_OK);
    ck_assert_uint_eq(l.raw->n_rows, 10);
    end(&l);
    /* a life behind the checkpoint of step 3 fetches from its extent on, not from the log's beginning */
    struct pn_ledger at = {0};
    pn_ledger_add(&at, &(struct pn_extent){0, 0, 0, 0, PN_NO_BOUND}, NULL);
    pn_ledger_add(&at, &(struct pn_extent){0, 0, 20, 20, PN_NO_BOUND}, NULL);
    pn_ledger_add(&at, &(struct pn_extent){0, 20, 50, 30, PN_NO_BOUND}, NULL);
    begin(&l, jsonl(), &at, 0, 1, 10, 3);
    ck_assert(next_in(&l, 100));
    ck_assert_str_eq(cell(l.raw, 0, 0), "0-30");
    ck_assert_uint_eq(M.p[0].begun_at, 20);
    end(&l);
    pn_ledger_free(&at);
    pn_ledger_free(&ledger);
} END_TEST

START_TEST(latest_begins_behind_what_is_there_and_a_partition_that_comes_later_is_read_whole) {
    memset(&M, 0, sizeof M);
    M.n_partitions = 1;
    fill(0, 0, 30);
    struct pn_ledger ledger = {0};
    struct pn_data d = jsonl();
    d.kafka.start = PN_START_LATEST;
    struct life l;
    begin(&l, d, &ledger, 0, 1, 10, 0);
    ck_assert(!next_in(&l, 500));
    l.raw = (void *)1;
    fill(0, 30, 10);
    ck_assert(next_in(&l, 500));
    ck_assert_str_eq(cell(l.raw, 0, 0), "0-30");
    M.n_partitions = 2;
    fill(1, 0, 10);
    ck_assert(next_in(&l, 15000));
    ck_assert_str_eq(cell(l.raw, 0, 0), "1-0");
    M.n_partitions = 1;                /* one that was read is gone */
    ck_assert(next_in(&l, 15000));
    ck_assert_int_eq(l.result, PN_INVALID);
    ck_assert_ptr_nonnull(strstr(l.err.text, "partition 1, which this job has read, is gone"));
    end(&l);
    pn_ledger_free(&ledger);
} END_TEST

START_TEST(end_latest_stops_at_what_was_there_also_in_a_later_life) {
    memset(&M, 0, sizeof M);
    M.n_partitions = 1;
    fill(0, 0, 25);
    struct pn_ledger ledger = {0};
    struct pn_data d = jsonl();
    d.kafka.end = PN_END_LATEST;
    struct life l;
    begin(&l, d, &ledger, 0, 1, 10, 0);
    ck_assert(next_in(&l, 500));
    end(&l);
    fill(0, 25, 100);
    begin(&l, d, &ledger, 0, 1, 10, 1);
    ck_assert(next_in(&l, 500));
    ck_assert_str_eq(cell(l.raw, 0, 0), "0-10");
    ck_assert(next_in(&l, 500));
    ck_assert_uint_eq(l.raw->n_rows, 5);
    ck_assert(next_in(&l, 500));
    ck_assert_int_eq(l.result, PN_NOT_FOUND);
    end(&l);
    pn_ledger_free(&ledger);
} END_TEST

START_TEST(the_lag_is_what_the_partitions_have_and_no_batch_had) {
    memset(&M, 0, sizeof M);
    M.n_partitions = 2;
    fill(0, 0, 25);
    fill(1, 0, 10);
    struct pn_ledger ledger = {0};
    struct life l;
    begin(&l, jsonl(), &ledger, 0, 1, 10, 0);
    ck_assert_uint_eq(pn_reader_lag(l.r), UINT64_MAX); /* nobody has looked yet */
    for (uint64_t left = 25; ; left -= 10) {
        ck_assert(next_in(&l, 100));
        ck_assert_uint_eq(pn_reader_lag(l.r), left);
        if (left == 5) break;
    }
    ck_assert(!next_in(&l, 100));      /* five rows are no batch */
    ck_assert_uint_eq(pn_reader_lag(l.r), 5);
    fill(1, 10, 100);
    l.raw = (void *)1;
    ck_assert(next_in(&l, 100));
    ck_assert_uint_eq(pn_reader_lag(l.r), 95);
    end(&l);
    pn_ledger_free(&ledger);
} END_TEST

START_TEST(silence_of_brokers_that_do_not_answer_is_no_end) {
    memset(&M, 0, sizeof M);
    M.n_partitions = 1;
    M.unreachable = true;
    struct pn_ledger ledger = {0};
    struct pn_data d = jsonl();
    d.kafka.end = PN_END_IDLE;
    d.kafka.idle_ms = 1000;
    struct life l;
    begin(&l, d, &ledger, 0, 1, 10, 0);
    ck_assert(!next_in(&l, 20000));
    M.unreachable = false;
    l.raw = (void *)1;
    fill(0, 0, 3);
    ck_assert(!next_in(&l, 800));
    M.unreachable = true;
    l.raw = (void *)1;
    ck_assert(!next_in(&l, 20000));
    M.unreachable = false;
    l.raw = (void *)1;
    ck_assert(next_in(&l, 12000));
    ck_assert_int_eq(l.result, PN_OK);
    ck_assert_uint_eq(l.raw->n_rows, 3);
    ck_assert(next_in(&l, 100));
    ck_assert_int_eq(l.result, PN_NOT_FOUND);
    end(&l);
    pn_ledger_free(&ledger);
} END_TEST

/* What a job would say when it fails. */
static void fails(struct pn_data d, struct pn_ledger *ledger, uint32_t n, const char *words) {
    struct life l;
    begin(&l, d, ledger, 0, n, 10, 0);
    for (size_t i = 0; i < 10 && (!l.came || l.result == PN_OK); i++) ck_assert_msg(next_in(&l, 1000), "nothing came for: %s", words);
    ck_assert_int_ne(l.result, PN_OK);
    ck_assert_msg(strstr(l.err.text, words) != NULL, "%s: %s instead of %s", pn_result_name(l.result), l.err.text, words);
    end(&l);
    pn_ledger_free(ledger);
}
START_TEST(what_cannot_go_on_is_said_in_one_line) {
    struct pn_ledger ledger = {0};
    struct pn_data d = jsonl();
    memset(&M, 0, sizeof M);
    M.n_partitions = 2;
    M.unknown = true;
    fails(d, &ledger, 1, "no such topic");
    M.unknown = false;
    fails(d, &ledger, 3, "topic \"clicks\" has 2 partitions for 3 data shards");
    fill(0, 0, 50);
    d.kafka.start = PN_START_OFFSETS;
    d.kafka.n_offsets = 1;
    d.kafka.offsets[0] = 51;
    fails(d, &ledger, 1, "start is at offset 51, but the log has 0 to 50");
    d = jsonl();
    /* retention removed what the ledger has next */
    pn_ledger_add(&ledger, &(struct pn_extent){0, 0, 0, 0, PN_NO_BOUND}, NULL);
    M.p[0].low = 10;
    fails(d, &ledger, 1, "offset 0 is gone");
    M.p[0].low = 0;
    /* compaction removed some of what was dealt */
    pn_ledger_add(&ledger, &(struct pn_extent){0, 0, 0, 0, PN_NO_BOUND}, NULL);
    pn_ledger_add(&ledger, &(struct pn_extent){0, 0, 20, 20, PN_NO_BOUND}, NULL);
    M.p[0].text[4][0] = '\0';
    fails(d, &ledger, 1, "offsets 0 to 20 held 20 messages when they were dealt to this job, and hold only 19 now");
    put(1, 7, "{\"id\": 1}");
    snprintf(M.p[0].text[5], sizeof M.p[0].text[5], "no json");
    fails(d, &ledger, 1, "topic clicks[0]:5: no JSON");
} END_TEST

START_TEST(csv_and_tsv_messages_have_the_job_s_columns) {
    for (int tabs = 0; tabs < 2; tabs++) {
        memset(&M, 0, sizeof M);
        M.n_partitions = 1;
        put(0, 0, tabs ? "a\t1\tx,y\r\n" : "a,1,\"x,y\"\r\n");
        put(0, 1, tabs ? "b\t0\t" : "b,0,");
        struct pn_ledger ledger = {0};
        struct pn_data d = jsonl();
        d.format = PN_FORMAT_CSV;
        d.tabs = tabs;
        snprintf(d.columns, sizeof d.columns, "id,y,more");
        d.kafka.end = PN_END_LATEST;
        struct life l;
        begin(&l, d, &ledger, 0, 1, 10, 0);
        ck_assert(next_in(&l, 500));
        ck_assert_msg(l.result == PN_OK, "%s", l.err.text);
        ck_assert_uint_eq(l.raw->n_rows, 2);
        ck_assert_str_eq(l.raw->names[1], "more");
        ck_assert_str_eq(cell(l.raw, 0, 1), "x,y");
        ck_assert_str_eq(cell(l.raw, 1, 0), "b");
        ck_assert(l.raw->labels[0] == 1 && l.raw->labels[1] == 0);
        end(&l);
        pn_ledger_free(&ledger);
        put(0, 2, tabs ? "a\t1\tx\nb\t1\ty" : "a,1,x\nb,1,y");
        fails(d, &ledger, 1, "topic clicks[0]:2: the message holds more than one line");
        M.p[0].text[2][1] = '\0';
        fails(d, &ledger, 1, "topic clicks[0]:2: found 1 columns, expected 3");
        snprintf(M.p[0].text[2], sizeof M.p[0].text[2], "a,1,\"x");
        if (!tabs) fails(d, &ledger, 1, "topic clicks[0]:2: a quote is not closed");
    }
} END_TEST

int main(void) {
    TCase *c = tcase_create("topic");
    tcase_add_loop_test(c, steps_are_the_same_rows_in_every_life_and_together_each_message_once, 0, 40);
    tcase_add_test(c, no_row_is_given_before_the_ledger_holds_it);
    tcase_add_test(c, latest_begins_behind_what_is_there_and_a_partition_that_comes_later_is_read_whole);
    tcase_add_test(c, end_latest_stops_at_what_was_there_also_in_a_later_life);
    tcase_add_test(c, the_lag_is_what_the_partitions_have_and_no_batch_had);
    tcase_add_test(c, silence_of_brokers_that_do_not_answer_is_no_end);
    tcase_add_test(c, what_cannot_go_on_is_said_in_one_line);
    tcase_add_test(c, csv_and_tsv_messages_have_the_job_s_columns);
    return fake_suite("topic", c);
}
