/* A replica in a world of memory: files, a queue of work, one coordinator, requests whose answers are kept. */
#ifndef PN_TESTS_SERVING_WORLD_H
#define PN_TESTS_SERVING_WORLD_H
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/json.h"
#include "nn/model.h"
#include "serving/serving.h"
#include "snapshot/snapshot.h"

enum { MAX_WORKS = 64, MAX_FILES = 64, COORDINATOR = 5 };
struct world {
    struct pn_env env;
    uint64_t now_ns, revision;
    struct pn_timer *timer;
    struct pn_work *works[MAX_WORKS];
    size_t n_works;
    struct world_file { char path[100]; void *data; size_t n; } files[MAX_FILES];
    size_t n_files;
    int n_mapped;
    struct json_object *beat;    /* the last one sent */
    struct pn_serving *core;
    int n_errors;                /* logged */
};

static struct world *world_of(struct pn_env *e) { return (struct world *)e; }
static uint64_t w_now(struct pn_env *e) { return world_of(e)->now_ns += 1000; }
static uint64_t w_wall(struct pn_env *e) { return 1700000000000u + world_of(e)->now_ns / 1000000; }
static uint64_t w_random(struct pn_env *e) { (void)e; return 12345; }
static void w_timer_start(struct pn_env *e, struct pn_timer *t, uint64_t ms) { t->active = true; t->due_ns = world_of(e)->now_ns + ms * 1000000; world_of(e)->timer = t; }
static void w_timer_stop(struct pn_env *e, struct pn_timer *t) { (void)e; t->active = false; }
static pn_peer w_connect(struct pn_env *e, const char *address) { (void)e; (void)address; return COORDINATOR; }
static void w_free(struct pn_msg *m) { free(m); }
static struct pn_msg *w_message(struct pn_env *e, size_t n) {
    (void)e;
    struct pn_msg *m = calloc(1, sizeof *m + n + 8);
    m->data = (uint8_t *)(m + 1);
    m->n_bytes = n;
    m->refs = 1;
    m->free = w_free;
    return m;
}
static void w_send(struct pn_env *e, pn_peer to, struct pn_msg *m) {
    struct pn_frame f;
    ck_assert_uint_eq(to, COORDINATOR);
    ck_assert_int_eq(pn_frame_open(&f, m->data, m->n_bytes, NULL), PN_OK);
    ck_assert_int_eq(f.kind, PN_BEAT);
    if (world_of(e)->beat != NULL) json_object_put(world_of(e)->beat);
    world_of(e)->beat = pn_control_read(&f, NULL);
    ck_assert_ptr_nonnull(world_of(e)->beat);
    pn_frame_close(&f);
    pn_msg_unref(m);
}
static void w_work(struct pn_env *e, struct pn_work *w) {
    ck_assert_uint_lt(world_of(e)->n_works, MAX_WORKS);
    world_of(e)->works[world_of(e)->n_works++] = w;
}
static enum pn_result w_map(struct pn_env *e, const char *path, const void **data, size_t *n) {
    struct world *w = world_of(e);
    for (size_t i = 0; i < w->n_files; i++)
        if (strcmp(w->files[i].path, path) == 0) {
            *data = w->files[i].data;
            *n = w->files[i].n;
            w->n_mapped++;
            return PN_OK;
        }
    return PN_NOT_FOUND;
}
static void w_unmap(struct pn_env *e, const void *data, size_t n) { (void)data; (void)n; world_of(e)->n_mapped--; }
static void w_log(struct pn_env *e, enum pn_log_level level, const char *line) { (void)line; world_of(e)->n_errors += level == PN_ERROR; }
static const struct pn_env_ops world_ops = {.now_ns = w_now, .wall_ms = w_wall, .random = w_random, .timer_start = w_timer_start, .timer_stop = w_timer_stop,
    .connect = w_connect, .message = w_message, .send = w_send, .work = w_work, .map = w_map, .unmap = w_unmap, .log = w_log};

static inline void world_init(struct world *w) {
    memset(w, 0, sizeof *w);
    w->env.ops = &world_ops;
    struct pn_serving_options o = {.name = "serving-0", .http = "http://x", .coordinator = "tcp://y"};
    w->core = pn_serving_open(&w->env, &o);
    pn_serving_core.start(w->core);
}
static inline void world_work(struct world *w) { /* all that waits, and what comes of it */
    while (w->n_works > 0) {
        struct pn_work *x = w->works[0];
        memmove(w->works, w->works + 1, --w->n_works * sizeof *w->works);
        x->run(x);
        x->done(x);
    }
}
static inline void world_tick(struct world *w, uint64_t ms) {
    w->now_ns += ms * 1000000;
    if (w->timer != NULL && w->timer->active) {
        w->timer->active = false;
        w->timer->fire(w->timer);
    }
}
static inline void world_free(struct world *w) {
    pn_serving_close(w->core);
    world_work(w);
    ck_assert_int_eq(w->n_mapped, 0);
    if (w->beat != NULL) json_object_put(w->beat);
    for (size_t i = 0; i < w->n_files; i++) free(w->files[i].data);
}
static inline void world_plan_json(struct world *w, const char *text) {
    struct json_object *o = pn_json_parse(text, strlen(text), NULL);
    ck_assert_ptr_nonnull(o);
    struct pn_msg *m = pn_control_write(&w->env, PN_PLAN, 1, ++w->revision, o);
    pn_serving_core.message(w->core, COORDINATOR, m);
    pn_msg_unref(m);
    json_object_put(o);
}
/* As the coordinator has it: the one before is kept for a rollback. */
static inline void world_plan(struct world *w, uint64_t version, uint64_t publication) {
    char text[300];
    snprintf(text, sizeof text, "{\"lease_ms\":1000,\"beat_ms\":100,\"models\":[{\"name\":\"m\",\"publication\":%llu,\"active\":%llu,\"dir\":\"/m/%llu\",\"keep\":[%llu,%llu]}]}",
             (unsigned long long)publication, (unsigned long long)version, (unsigned long long)version, (unsigned long long)version, (unsigned long long)version - 1);
    world_plan_json(w, text);
}

/* ---- requests ---- */
struct reply { struct pn_http_request r; int n_answers, status; char type[64], header[80]; uint8_t *body; size_t n; };
static void on_reply(struct pn_http_request *r, int status, const char *type, const char *extra, const void *body, size_t n) {
    struct reply *a = (struct reply *)r;
    a->n_answers++;
    a->status = status;
    snprintf(a->type, sizeof a->type, "%s", type);
    snprintf(a->header, sizeof a->header, "%s", extra != NULL ? extra : "");
    free(a->body);
    a->body = malloc(n + 1);
    memcpy(a->body, body, n);
    a->body[n] = '\0';
    a->n = n;
}
static inline struct reply *send_request(struct world *w, const char *method, const char *path, const char *header_length, const void *body, size_t n) {
    struct reply *a = calloc(1, sizeof *a);
    a->r = (struct pn_http_request){.method = method, .path = path, .query = "", .inference_header_length = header_length, .body = body, .body_bytes = n, .answer = on_reply};
    pn_serving_http(w->core, &a->r);
    return a;
}
static inline struct reply *ask(struct world *w, const char *method, const char *path, const char *body) {
    struct reply *a = send_request(w, method, path, NULL, body, strlen(body));
    world_work(w);
    ck_assert_int_eq(a->n_answers, 1);
    return a;
}
static inline void drop(struct reply *a) {
    free(a->body);
    free(a);
}
static inline struct json_object *json_of(const struct reply *a) {
    struct pn_error err = {""};
    struct json_object *o = pn_json_parse((const char *)a->body, a->n, &err);
    ck_assert_msg(o != NULL, "%s: %.*s", err.text, (int)a->n, a->body);
    return o;
}

/* ---- a model ---- */
static const char world_job[] =
    "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n"
    "  data: {train: {format: csv, uri: /x.csv, label: y}}\n"
    "  features:\n    - {name: user, type: categorical}\n    - {name: item, type: categorical}\n"
    "    - {name: genres, type: multi, pooling: mean}\n    - {name: price, type: numeric, transform: [standardize], mean: 2, std: 3}\n"
    "    - {name: pair, type: cross, of: [user, item]}\n"
    "  model: {name: deepfm, embeddingDim: 4, hidden: [8, 4]}\n  training: {batchSize: 8, seed: 1}\n";
enum { N_COLUMNS = 4 };
static const char *const world_columns[N_COLUMNS] = {"user", "item", "genres", "price"};

/* Raw rows: values[row][column]. */
struct table_of_text { struct pn_raw raw; char *text; uint32_t *offset, *length; };
static inline struct table_of_text raw_of(size_t n, const char *(*value)(size_t row, size_t column, char *buffer)) {
    struct table_of_text t = {.text = malloc(n * N_COLUMNS * 64), .offset = malloc(n * N_COLUMNS * 4), .length = malloc(n * N_COLUMNS * 4)};
    uint32_t at = 0;
    for (size_t c = 0; c < N_COLUMNS; c++)
        for (size_t r = 0; r < n; r++) {
            char buffer[64];
            const char *v = value(r, c, buffer);
            t.offset[c * n + r] = at;
            t.length[c * n + r] = (uint32_t)strlen(v);
            memcpy(t.text + at, v, strlen(v));
            at += (uint32_t)strlen(v);
        }
    t.raw = (struct pn_raw){.n_rows = n, .n_columns = N_COLUMNS, .names = world_columns, .text = t.text, .offset = t.offset, .length = t.length};
    return t;
}
static inline void free_raw(struct table_of_text *t) {
    free(t->text);
    free(t->offset);
    free(t->length);
}
static inline void true_row(uint64_t version, uint32_t table, uint64_t key, uint32_t dim, float *row) {
    struct pn_rng rng = {pn_mix64(key ^ version * 77) + table};
    for (uint32_t d = 0; d < dim; d++) row[d] = (float)(pn_rng_uniform(&rng) - 0.5);
}
/* What the net says about these rows with exact parameters; keys that were never published read as zeros. */
struct truth { struct pn_job job; struct pn_features *features; struct pn_net *net; float *parameters; };
static inline void truth_open(struct truth *t, uint64_t version) {
    struct pn_error err = {""};
    memset(t, 0, sizeof *t);
    ck_assert_msg(pn_job_parse(&t->job, world_job, sizeof world_job - 1, "job", NULL, NULL, &err) == PN_OK, "%s", err.text);
    ck_assert_msg(pn_features_open(&t->features, &t->job, world_columns, N_COLUMNS, &err) == PN_OK, "%s", err.text);
    ck_assert_msg(pn_net_open(&t->net, &t->job, 1, &err) == PN_OK, "%s", err.text);
    t->parameters = calloc(pn_net_parameters(t->net) + PN_DENSE_ROW, sizeof(float));
    pn_net_init(t->net, version, t->parameters);
}
static inline void truth_close(struct truth *t) {
    pn_net_close(t->net);
    pn_features_close(t->features);
    pn_job_free(&t->job);
    free(t->parameters);
}
static bool published(uint64_t key) { return key % 8 != 0; } /* some keys were never trained */
static inline void truth_scores(struct truth *t, uint64_t version, const struct pn_raw *raw, float *scores) {
    struct pn_batch b = {0};
    uint64_t n_bad = 0;
    const float *rows[PN_MAX_TABLES] = {0};
    float *mine[PN_MAX_TABLES] = {0};
    ck_assert_int_eq(pn_features_batch(t->features, raw, &b, &n_bad), PN_OK);
    for (uint32_t i = 0; i < t->job.i_dense_table; i++) {
        uint32_t dim = t->job.tables[i].dim;
        rows[i] = mine[i] = calloc(b.n_unique[i] * dim + 1, sizeof(float));
        for (size_t k = 0; k < b.n_unique[i]; k++)
            if (published(b.unique[i][k])) true_row(version, i, b.unique[i][k], dim, mine[i] + k * dim);
    }
    ck_assert_int_eq(pn_net_forward(t->net, &b, rows, t->parameters, scores), PN_OK);
    for (uint32_t i = 0; i < PN_MAX_TABLES; i++) free(mine[i]);
    pn_batch_free(&b);
}

/* Candidate r: user 7, item r, its genres, its price. */
static inline const char *candidate(size_t r, size_t c, char *buffer) {
    static const char *const genres[] = {"Comedy|Drama", "Drama", "", "Horror|Comedy|War", "Nobody's genre"};
    if (c == 0) return "7";
    if (c == 2) return genres[r % 5];
    snprintf(buffer, 64, c == 1 ? "%zu" : "%zu.5", r);
    return buffer;
}

static inline void put_file(struct world *w, struct json_object *list, uint64_t version, const char *name, const void *data, size_t n) {
    ck_assert_uint_lt(w->n_files, MAX_FILES);
    struct world_file *f = &w->files[w->n_files++];
    snprintf(f->path, sizeof f->path, "/m/%llu/%s", (unsigned long long)version, name);
    f->data = aligned_alloc(64, (n + 64) & ~(size_t)63);
    memcpy(f->data, data, n);
    f->n = n;
    if (list == NULL) return;
    struct json_object *o = json_object_new_object();
    struct pn_digest d;
    char hex[65];
    pn_digest_start(&d);
    pn_digest_add(&d, data, n);
    pn_digest_hex(&d, hex);
    pn_json_add_str(o, "name", name);
    pn_json_add_u64(o, "bytes", n);
    pn_json_add_str(o, "digest", hex);
    json_object_array_add(list, o);
}
static inline struct world_file *file_of(struct world *w, uint64_t version, const char *name) {
    char path[100];
    snprintf(path, sizeof path, "/m/%llu/%s", (unsigned long long)version, name);
    for (size_t i = 0; i < w->n_files; i++)
        if (strcmp(w->files[i].path, path) == 0) return &w->files[i];
    ck_abort_msg("no file %s", path);
    return NULL;
}
/* Publishes a version with the keys of the first n_candidates. */
static inline void publish(struct world *w, uint64_t version, int storage, size_t n_candidates) {
    static const char *const storages[] = {"float32", "float16", "int8"};
    struct truth t;
    truth_open(&t, version);
    struct table_of_text rows = raw_of(n_candidates, candidate);
    struct pn_batch b = {0};
    uint64_t n_bad;
    ck_assert_int_eq(pn_features_batch(t.features, &rows.raw, &b, &n_bad), PN_OK);
    struct json_object *list = json_object_new_array(), *m = json_object_new_object();
    void *image;
    size_t n;
    char hex[65];
    for (int half = 0; half < 2; half++) {
        struct pn_segment_writer *s = pn_segment_start(storage);
        for (uint32_t i = 0; i < t.job.i_dense_table; i++)
            for (size_t k = 0; k < b.n_unique[i]; k++) {
                uint64_t key = b.unique[i][k];
                float row[64];
                if (!published(key) || (pn_slot_of(key) < 500) == half) continue;
                true_row(version, i, key, t.job.tables[i].dim, row);
                ck_assert_int_eq(pn_segment_add(s, i, t.job.tables[i].dim, &key, row, 1), PN_OK);
            }
        ck_assert_int_eq(pn_segment_finish(s, &image, &n, hex), PN_OK);
        put_file(w, list, version, half ? "001.seg" : "000.seg", image, n);
        free(image);
    }
    const char *names[64];
    size_t offsets[64], shapes[64][2], n_blocks = 0;
    while (pn_net_block(t.net, n_blocks, &names[n_blocks], &offsets[n_blocks], shapes[n_blocks])) n_blocks++;
    ck_assert_int_eq(pn_safetensors_write(t.parameters, n_blocks, names, offsets, (const size_t(*)[2])shapes, &image, &n), PN_OK);
    put_file(w, list, version, "dense.safetensors", image, n);
    free(image);
    char *text = pn_job_text(&t.job), *statistics = pn_features_statistics(t.features);
    put_file(w, list, version, "job.yaml", text, strlen(text));
    put_file(w, list, version, "statistics.json", statistics, strlen(statistics));
    free(text);
    free(statistics);
    pn_json_add_u64(m, "format", 1);
    pn_json_add_str(m, "model", "m");
    pn_json_add_u64(m, "version", version);
    pn_json_add_str(m, "storage", storages[storage]);
    pn_json_add(m, "files", list);
    const char *manifest = pn_json_text(m);
    put_file(w, NULL, version, "manifest.json", manifest, strlen(manifest));
    json_object_put(m);
    pn_batch_free(&b);
    free_raw(&rows);
    truth_close(&t);
}

/* The infer body for candidates 0..n-1, the user given once. top_k 0: none. */
static inline char *infer_body(size_t n, size_t top_k) {
    char *text = malloc(400 + n * 80), *at = text, value[64];
    static const char *const types[] = {"INT64", "INT64", "BYTES", "FP32"};
    at += sprintf(at, "{\"id\":\"q\",");
    if (top_k > 0) at += sprintf(at, "\"parameters\":{\"top_k\":%zu},", top_k);
    at += sprintf(at, "\"inputs\":[");
    for (size_t c = 0; c < N_COLUMNS; c++) {
        size_t rows = c == 0 ? 1 : n;
        at += sprintf(at, "%s{\"name\":\"%s\",\"shape\":[%zu,1],\"datatype\":\"%s\",\"data\":[", c > 0 ? "," : "", world_columns[c], rows, types[c]);
        for (size_t r = 0; r < rows; r++) at += sprintf(at, c == 2 ? "%s\"%s\"" : "%s%s", r > 0 ? "," : "", candidate(r, c, value));
        at += sprintf(at, "]}");
    }
    sprintf(at, "]}");
    return text;
}
static inline struct json_object *output(struct json_object *o, const char *name) {
    struct json_object *all = pn_json_get(o, "outputs");
    for (size_t i = 0; i < pn_json_length(all); i++)
        if (strcmp(pn_json_str(pn_json_at(all, i), "name", ""), name) == 0) return pn_json_at(all, i);
    return NULL;
}
static inline uint64_t beat_number(const struct world *w, const char *key) { return pn_json_u64(pn_json_at(pn_json_get(w->beat, "models"), 0), key, 0); }

static inline int run_cases(const char *name, TCase *c) {
    Suite *s = suite_create(name);
    tcase_set_timeout(c, 120);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
#endif
