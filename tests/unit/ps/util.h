/* What the server's tests share: jobs, requests as a client writes them, answers. */
#ifndef PN_TESTS_PS_UTIL_H
#define PN_TESTS_PS_UTIL_H
#include "ps/shard.h"
#include "tests/unit/fake_env.h"
#include "tests/unit/fake_tier.h"

enum { PEER = 7, TERM = 5, ALL = PN_SLOTS - 1 };

/* One table "audit" of 8 floats under plain SGD with rate 1: a gradient of -1 adds 1. */
static inline const char *audit_job(const char *mode) {
    static char text[600];
    snprintf(text, sizeof text,
             "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data:\n    train: {format: audit, rows: 3200}\n  model: {name: audit}\n"
             "  audit: {keys: 100}\n  training: {batchSize: 32, consistency: {mode: %s%s}}\n",
             mode, strcmp(mode, "ssp") == 0 ? ", staleness: 2" : "");
    return text;
}
/* The same with a second tier and memory for one row a slot. */
static inline const char *tiered_job(const char *mode) {
    static char text[600];
    char *at = strstr(strcpy(text, audit_job(mode)), "{keys: 100}");
    memmove(at + 25, at + 11, strlen(at + 11) + 1);
    memcpy(at, "{keys: 100, memory: 1024}", 25);
    return text;
}
/* Logistic regression: table 0 of 1 float (Adagrad), and the dense table 1 of 256 floats, whose rows exist by SEED only. */
static const char lr_job[] =
    "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data:\n    train: {format: csv, uri: /nowhere/a.csv, label: y}\n"
    "  features:\n    - {name: f, type: categorical, table: f}\n  model: {name: lr}\n  training: {batchSize: 32}\n";

static inline struct pn_shard *open_shard(struct fake *f, const char *job, uint32_t n_producers, uint32_t first, uint32_t last) {
    struct pn_shard *s = NULL;
    struct pn_error err = {""};
    enum pn_result r = pn_shard_open(&s, &f->env, &fake_tiers, job, "j", TERM, 1, n_producers, first, last, &err);
    ck_assert_msg(r == PN_OK, "%s", err.text);
    return s;
}

struct ask {
    enum pn_kind kind;
    uint64_t term, request, producer, incarnation, step, clock, last;
    const char *job;
    size_t n_parts;
    struct { uint64_t table, count; size_t dim; const uint64_t *keys; const float *values; } parts[4];
};
#define PUSH(p, s) {.kind = PN_PUSH, .term = TERM, .request = (p) * 1000u + (s), .producer = (p), .step = (s), .job = "j"}

static inline struct pn_msg *written(struct fake *f, const struct ask *a) {
    struct pn_writer w;
    uint64_t tables[4], counts[4];
    size_t bytes = 0;
    pn_write_start(&w, a->kind, a->term, a->request);
    pn_write_str(&w, "job", a->job);
    pn_write_u64(&w, "producer", a->producer);
    pn_write_u64(&w, "incarnation", a->incarnation);
    pn_write_u64(&w, "step", a->step);
    pn_write_u64(&w, "clock", a->clock);
    pn_write_u64(&w, "last", a->last);
    for (size_t i = 0; i < a->n_parts; i++) {
        tables[i] = a->parts[i].table;
        counts[i] = a->parts[i].count;
        bytes += counts[i] * 8 + (a->parts[i].values != NULL ? pn_pad8(counts[i] * a->parts[i].dim * 4) : 0);
    }
    pn_write_u64s(&w, "tables", tables, a->n_parts);
    pn_write_u64s(&w, "counts", counts, a->n_parts);
    uint8_t *body;
    struct pn_msg *m = pn_write_finish(&w, &f->env, bytes, &body);
    memset(body, 0, bytes);
    for (size_t i = 0; i < a->n_parts; i++) {
        memcpy(body, a->parts[i].keys, counts[i] * 8);
        body += counts[i] * 8;
        if (a->parts[i].values == NULL) continue;
        memcpy(body, a->parts[i].values, counts[i] * a->parts[i].dim * 4);
        body += pn_pad8(counts[i] * a->parts[i].dim * 4);
    }
    pn_msg_seal(m);
    return m;
}
/* Hands the shard a message as the server's core does. */
static inline void deliver(struct pn_shard *s, pn_peer from, struct pn_msg *m) {
    struct pn_frame frame;
    ck_assert_int_eq(pn_frame_open(&frame, m->data, m->n_bytes, NULL), PN_OK);
    pn_shard_message(s, from, m, &frame);
    pn_frame_close(&frame);
    pn_msg_unref(m);
}
static inline void ask(struct fake *f, struct pn_shard *s, const struct ask *a) { deliver(s, PEER, written(f, a)); }

/* What came back, oldest first. */
struct answer { bool came; enum pn_kind kind; uint64_t request; enum pn_result code; float values[512]; };
static inline struct answer answered(struct fake *f) {
    struct answer a = {0};
    struct pn_msg *m = fake_take(f, NULL);
    if (m == NULL) return a;
    struct pn_frame frame;
    ck_assert_int_eq(pn_frame_open(&frame, m->data, m->n_bytes, NULL), PN_OK);
    char code[40] = "ok";
    pn_frame_str(&frame, "code", code, sizeof code);
    a = (struct answer){.came = true, .kind = frame.kind, .request = frame.request, .code = frame.kind == PN_REFUSAL ? pn_result_from_name(code) : PN_OK};
    if (frame.kind == PN_ROWS) memcpy(a.values, frame.body, frame.body_bytes < sizeof a.values ? frame.body_bytes : sizeof a.values);
    pn_frame_close(&frame);
    pn_msg_unref(m);
    return a;
}
#define EXPECT_ACK(f, id) do { struct answer got_ = answered(f); ck_assert_int_eq(got_.kind, PN_ACK); ck_assert_uint_eq(got_.request, (id)); } while (0)
#define EXPECT_REFUSAL(f, result) do { struct answer got_ = answered(f); ck_assert_int_eq(got_.kind, PN_REFUSAL); ck_assert_int_eq(got_.code, (result)); } while (0)

static inline float first_value(const struct pn_shard *s, uint32_t table, uint64_t key) {
    float row[256];
    pn_table_pull(s->tables[table], &key, 1, row);
    return row[0];
}
static inline int by_mix(const void *a, const void *b) {
    uint64_t x = pn_mix64(*(const uint64_t *)a), y = pn_mix64(*(const uint64_t *)b);
    return (x > y) - (x < y);
}
/* Pushes -1 to each key of the audit table: its rows count their pushes. */
static inline void count_push(struct fake *f, struct pn_shard *s, uint64_t producer, uint64_t step, const uint64_t *keys, size_t n) {
    float g[64 * 8];
    uint64_t sorted[64];
    for (size_t i = 0; i < n * 8; i++) g[i] = -1.0f;
    memcpy(sorted, keys, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, by_mix); /* the order of the wire */
    struct ask a = PUSH(producer, step);
    a.n_parts = 1;
    a.parts[0].count = n;
    a.parts[0].dim = 8;
    a.parts[0].keys = sorted;
    a.parts[0].values = g;
    ask(f, s, &a);
}
#endif
