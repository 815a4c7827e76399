/* A cluster around one real coordinator core: a virtual clock, files and a store in memory, and nodes that do what their plan says.
 * Each plan that is sent is checked on its way: what it shows must stand in the store already. */
#ifndef PN_TESTS_COORDINATOR_FAKE_H
#define PN_TESTS_COORDINATOR_FAKE_H
#include <check.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/json.h"
#include "coordinator/coordinator.h"

enum { MAX_NODES = 12, MAX_RECORDS = 96, MAX_FILES = 96, MAX_IOS = 64, MAX_CALLS = 8 };
enum role { PS, WORKER, SERVING };

struct record { char kind[24], id[96]; char *json; };
struct records { struct record all[MAX_RECORDS]; size_t n; };

struct node {
    enum role role;
    char name[32];
    pn_peer peer;                       /* another for each life */
    uint64_t incarnation, epoch, revision;
    bool up;
    struct json_object *plan;
    /* what a test may set */
    bool hold_flip, hold_write, fail_write, no_file, fail_snapshot, hold_snapshot;
    bool loses_idle_plans;              /* plans without a snapshot do not arrive */
    const char *open_code;              /* opening fails with this */
    uint64_t open_fails_from;           /* ... when it restores this epoch; 0: always */
    const char *job_error;              /* a worker's run fails with this */
    bool hold_drain, ring_full, hold_evaluation, fail_evaluation;
    uint64_t steps;                     /* a worker's producers end here */
    uint64_t per_epoch;                 /* steps an epoch, producer 0 one more: for jobs with early stopping */
    uint64_t deals;                     /* rows that a worker of a job that reads a topic proposes with each beat; under a cut it reads nothing */
    const char *validation;             /* JSON that a worker's beats say of its last epoch; NULL: none */
    const char *serves;                 /* a client: the job that it came for */
    const char *statistics;             /* JSON that a worker's beats say of them; NULL: a text */
    bool leaving;
    /* ps */
    char job[32];
    const char *failed_code;
    uint64_t generation, term, cut, restored, version, forgot, scrub;
    bool hold_forget, corrupt_scrub;
    bool open, flipped;
    /* worker */
    struct { uint64_t incarnation, clock; } units[64];
    uint64_t terms;                     /* of the shards, added up, as the last beat knew them */
    unsigned rash;                      /* gates to be measured though a shard was new, to which pushes may have to be sent again */
};

struct call { struct pn_http_request r; bool answered; int status; struct json_object *body; char method[8], path[128], text[4096]; };

struct world {
    struct pn_env env;                  /* first */
    struct pn_store store;
    uint64_t now_ns, random;
    struct pn_timer *timer;
    struct pn_io *ios[MAX_IOS];
    size_t n_ios;
    struct { char path[600]; char *data; size_t n; } files[MAX_FILES];
    size_t n_files;
    int io_error;                       /* every write fails with this errno */
    struct records durable, pending;
    bool in_transaction, store_full, scan_fails;
    unsigned fail_commit, n_commits;           /* the n-th commit from now fails; 0: none */
    const char *scan_fails_kind;        /* once */
    struct pn_coordinator *core;
    struct node nodes[MAX_NODES];
    size_t n_nodes;
    struct call calls[MAX_CALLS];
    size_t n_calls;
    uint64_t n_plans;
    const double *aucs;                 /* of validation, by epoch from 1; NULL: .79 */
    bool lists;                         /* what evaluations measure is no AUC and log loss, but NDCG */
    uint64_t plan_epoch;                /* of the last plan sent */
};
static struct world *W;

/* ---- store ---- */
static inline void records_free(struct records *r) {
    for (size_t i = 0; i < r->n; i++) free(r->all[i].json);
    r->n = 0;
}
static inline void records_copy(struct records *to, const struct records *from) {
    records_free(to);
    for (size_t i = 0; i < from->n; i++) {
        to->all[i] = from->all[i];
        to->all[i].json = strdup(from->all[i].json);
    }
    to->n = from->n;
}
static inline enum pn_result fake_scan(struct pn_store *s, const char *kind, void (*visit)(void *, const char *, const char *), void *ctx, struct pn_error *err) {
    (void)s;
    if (W->scan_fails) return pn_fail(err, PN_IO, "the test says so");
    if (W->scan_fails_kind != NULL && strcmp(W->scan_fails_kind, kind) == 0) {
        W->scan_fails_kind = NULL;
        return pn_fail(err, PN_IO, "the test says so, once");
    }
    for (size_t i = 0; i < W->durable.n; i++)
        if (strcmp(W->durable.all[i].kind, kind) == 0) visit(ctx, W->durable.all[i].id, W->durable.all[i].json);
    return PN_OK;
}
static inline enum pn_result fake_begin(struct pn_store *s, struct pn_error *err) {
    (void)s;
    ck_assert(!W->in_transaction);
    if (W->store_full) return pn_fail(err, PN_FULL, "the disk is full");
    records_copy(&W->pending, &W->durable);
    W->in_transaction = true;
    return PN_OK;
}
static inline enum pn_result fake_change(const char *kind, const char *id, const char *json) {
    ck_assert(W->in_transaction);
    struct records *r = &W->pending;
    size_t i = 0;
    while (i < r->n && (strcmp(r->all[i].kind, kind) < 0 || (strcmp(r->all[i].kind, kind) == 0 && strcmp(r->all[i].id, id) < 0))) i++;
    bool there = i < r->n && strcmp(r->all[i].kind, kind) == 0 && strcmp(r->all[i].id, id) == 0;
    if (there) free(r->all[i].json);
    if (json == NULL) {
        if (there) memmove(&r->all[i], &r->all[i + 1], (--r->n - i) * sizeof *r->all);
        return PN_OK;
    }
    if (!there) {
        ck_assert_uint_lt(r->n, MAX_RECORDS);
        memmove(&r->all[i + 1], &r->all[i], (r->n++ - i) * sizeof *r->all);
    }
    snprintf(r->all[i].kind, sizeof r->all[i].kind, "%s", kind);
    snprintf(r->all[i].id, sizeof r->all[i].id, "%s", id);
    r->all[i].json = strdup(json);
    return PN_OK;
}
static inline enum pn_result fake_put(struct pn_store *s, const char *kind, const char *id, const char *json, struct pn_error *err) {
    (void)s;
    (void)err;
    return fake_change(kind, id, json);
}
static inline enum pn_result fake_remove(struct pn_store *s, const char *kind, const char *id, struct pn_error *err) {
    (void)s;
    (void)err;
    return fake_change(kind, id, NULL);
}
static inline enum pn_result fake_commit(struct pn_store *s, struct pn_error *err) {
    (void)s;
    ck_assert(W->in_transaction);
    W->in_transaction = false;
    if (W->store_full || (W->fail_commit > 0 && --W->fail_commit == 0)) return pn_fail(err, PN_FULL, "the disk is full");
    records_copy(&W->durable, &W->pending);
    W->n_commits++;
    return PN_OK;
}
static const struct pn_store_ops fake_store_ops = {fake_scan, fake_begin, fake_put, fake_remove, fake_commit};

/* A durable record, parsed; json_object_put it. NULL: not there. */
static inline struct json_object *durable(const char *kind, const char *id) {
    for (size_t i = 0; i < W->durable.n; i++)
        if (strcmp(W->durable.all[i].kind, kind) == 0 && strcmp(W->durable.all[i].id, id) == 0)
            return pn_json_parse(W->durable.all[i].json, strlen(W->durable.all[i].json), NULL);
    return NULL;
}
static inline size_t durable_count(const char *kind) {
    size_t n = 0;
    for (size_t i = 0; i < W->durable.n; i++) n += strcmp(W->durable.all[i].kind, kind) == 0;
    return n;
}

/* ---- env ---- */
static inline uint64_t fake_now(struct pn_env *e) { (void)e; return W->now_ns; }
static inline uint64_t fake_wall(struct pn_env *e) { (void)e; return 1700000000000u + W->now_ns / 1000000u; }
static inline uint64_t fake_random(struct pn_env *e) { (void)e; return ++W->random; }
static inline void fake_timer_start(struct pn_env *e, struct pn_timer *t, uint64_t ms) {
    (void)e;
    t->active = true;
    t->due_ns = W->now_ns + ms * 1000000u;
    W->timer = t;
}
static inline void fake_timer_stop(struct pn_env *e, struct pn_timer *t) { (void)e; t->active = false; W->timer = NULL; }
static inline pn_peer fake_connect(struct pn_env *e, const char *a) { (void)e; (void)a; return 999; }
static inline void fake_free(struct pn_msg *m) { free(m->data); free(m); }
static inline struct pn_msg *fake_message(struct pn_env *e, size_t n) {
    (void)e;
    struct pn_msg *m = calloc(1, sizeof *m);
    *m = (struct pn_msg){.data = malloc(n), .n_bytes = n, .refs = 1, .free = fake_free};
    return m;
}
/* What a plan shows must be durable: epoch, terms, incarnations, the committed checkpoint. */
static inline void check_plan(const struct node *n, uint64_t epoch, struct json_object *plan) {
    struct json_object *counters = durable("meta", "counters"), *job = pn_json_get(plan, "job");
    ck_assert_uint_eq(epoch, pn_json_u64(counters, "epoch", 0));
    if (job != NULL) {
        struct json_object *record = durable("job", pn_json_str(job, "id", "?")), *units = pn_json_get(record, "producers"), *list = pn_json_get(job, "producers");
        ck_assert_ptr_nonnull(record);
        ck_assert_uint_eq(pn_json_u64(job, "generation", 0), pn_json_u64(record, "generation", 0));
        ck_assert_uint_le(pn_json_u64(job, "term", 0), pn_json_u64(counters, "term", 0));
        for (size_t i = 0; i < pn_json_length(list); i++) {
            struct json_object *e = pn_json_at(list, i);
            ck_assert_uint_eq(pn_json_u64(e, "incarnation", 0), pn_json_u64(pn_json_at(units, pn_json_u64(e, "producer", 99)), "incarnation", 0));
            struct json_object *ledger = pn_json_get(e, "ledger"); /* what it shows may be made into batches */
            if (ledger != NULL) ck_assert(json_object_equal(ledger, pn_json_at(pn_json_get(record, "ledgers"), pn_json_u64(e, "producer", 99))));
        }
        struct json_object *k = n->role == PS ? pn_json_get(job, "restore") : pn_json_get(job, "committed");
        if (k != NULL) {
            char id[64];
            snprintf(id, sizeof id, "%s/%012" PRIu64, pn_json_str(job, "id", "?"), pn_json_u64(k, "epoch", 0));
            struct json_object *c = durable("checkpoint", id);
            ck_assert_ptr_nonnull(c);
            ck_assert(!pn_json_bool(c, "bad", false));
            json_object_put(c);
        }
        json_object_put(record);
    }
    json_object_put(counters);
}
static inline void fake_send(struct pn_env *e, pn_peer to, struct pn_msg *m) {
    (void)e;
    struct pn_frame f;
    struct pn_error err = {""};
    ck_assert_int_eq(pn_frame_open(&f, m->data, m->n_bytes, &err), PN_OK);
    struct json_object *plan = pn_control_read(&f, &err);
    ck_assert_ptr_nonnull(plan);
    W->n_plans++;
    W->plan_epoch = f.term;
    for (size_t i = 0; i < W->n_nodes; i++) {
        struct node *n = &W->nodes[i];
        if (!n->up || n->peer != to) continue;
        check_plan(n, f.term, plan);
        if (f.term < n->epoch || (f.term == n->epoch && f.request < n->revision)) continue;
        if (n->loses_idle_plans && pn_json_get(plan, "snapshot") == NULL) continue;
        n->epoch = f.term;
        n->revision = f.request;
        if (n->plan != NULL) json_object_put(n->plan);
        n->plan = json_object_get(plan);
    }
    json_object_put(plan);
    pn_frame_close(&f);
    pn_msg_unref(m);
}
static inline void fake_io(struct pn_env *e, struct pn_io *io) {
    (void)e;
    ck_assert_uint_lt(W->n_ios, MAX_IOS);
    W->ios[W->n_ios++] = io;
}
static inline void fake_log(struct pn_env *e, enum pn_log_level level, const char *line) {
    (void)e;
    if (getenv("SHOW") != NULL) fprintf(stderr, "%8.3f %d %s\n", (double)W->now_ns / 1e9, (int)level, line);
}
static const struct pn_env_ops fake_ops = {.now_ns = fake_now, .wall_ms = fake_wall, .random = fake_random, .timer_start = fake_timer_start,
                                           .timer_stop = fake_timer_stop, .connect = fake_connect, .message = fake_message, .send = fake_send,
                                           .io = fake_io, .log = fake_log};

/* ---- files ---- */
static inline size_t file_at(const char *path) {
    for (size_t i = 0; i < W->n_files; i++)
        if (strcmp(W->files[i].path, path) == 0) return i;
    return SIZE_MAX;
}
static inline void file_remove(const char *path) {
    size_t i = file_at(path);
    if (i == SIZE_MAX) return;
    free(W->files[i].data);
    W->files[i] = W->files[--W->n_files];
}
static inline void file_write(const char *path, const void *data, size_t n) {
    file_remove(path);
    ck_assert_uint_lt(W->n_files, MAX_FILES);
    snprintf(W->files[W->n_files].path, sizeof W->files[0].path, "%s", path);
    W->files[W->n_files].data = malloc(n + 1);
    if (n > 0) memcpy(W->files[W->n_files].data, data, n);
    W->files[W->n_files++].n = n;
}
static inline bool file_exists(const char *path) { return file_at(path) != SIZE_MAX; }
static inline int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }
static inline void complete_io(struct pn_io *io) {
    size_t i = file_at(io->path);
    bool writes = io->op == PN_IO_CREATE || io->op == PN_IO_WRITE || io->op == PN_IO_SYNC || io->op == PN_IO_RENAME;
    io->result = 0;
    if (writes && W->io_error != 0) io->result = -W->io_error;
    else switch (io->op) {
        case PN_IO_CREATE: file_write(io->path, "", 0); break;
        case PN_IO_WRITE:
            ck_assert_uint_eq(io->offset, 0); /* whole files are written at once */
            file_write(io->path, io->buffer, io->n_bytes);
            io->result = (int64_t)io->n_bytes;
            break;
        case PN_IO_RENAME:
            ck_assert_uint_ne(i, SIZE_MAX);
            file_remove(io->path2);
            snprintf(W->files[file_at(io->path)].path, sizeof W->files[0].path, "%s", io->path2);
            break;
        case PN_IO_SIZE: io->result = i == SIZE_MAX ? -ENOENT : (int64_t)W->files[i].n; break;
        case PN_IO_READ:
            if (i == SIZE_MAX) io->result = -ENOENT;
            else {
                memcpy(io->buffer, W->files[i].data, W->files[i].n);
                io->result = (int64_t)W->files[i].n;
            }
            break;
        case PN_IO_REMOVE: file_remove(io->path); break;
        case PN_IO_LIST: { /* what stands right under it, each once */
            char **names = calloc(MAX_FILES + 1, sizeof *names + 80), *text = (char *)(names + MAX_FILES + 1);
            size_t count = 0, n = strlen(io->path);
            for (size_t f = 0; f < W->n_files; f++) {
                if (strncmp(W->files[f].path, io->path, n) != 0 || W->files[f].path[n] != '/') continue;
                char name[80];
                snprintf(name, sizeof name, "%.*s", (int)strcspn(W->files[f].path + n + 1, "/"), W->files[f].path + n + 1);
                size_t k = 0;
                while (k < count && strcmp(names[k], name) != 0) k++;
                if (k == count) names[count++] = strcpy(text + 80 * k, name);
            }
            qsort(names, count, sizeof *names, by_name);
            io->result = count > 0 ? 0 : -ENOENT;
            if (count > 0) io->names = names;
            else free(names); /* no such folder: there is nothing to own */
            break;
        }
        default: break;
        }
    io->done(io);
}

/* ---- nodes ---- */
static inline struct node *node(const char *name) {
    for (size_t i = 0; i < W->n_nodes; i++)
        if (strcmp(W->nodes[i].name, name) == 0) return &W->nodes[i];
    ck_abort_msg("no node %s", name);
    return NULL;
}
static inline struct node *boot(enum role role, const char *name) {
    struct node *n = NULL;
    for (size_t i = 0; i < W->n_nodes; i++)
        if (strcmp(W->nodes[i].name, name) == 0) n = &W->nodes[i];
    if (n == NULL) n = &W->nodes[W->n_nodes++];
    uint64_t steps = n->steps;
    if (n->plan != NULL) json_object_put(n->plan);
    *n = (struct node){.role = role, .up = true, .incarnation = ++W->random + 1000, .peer = 10 + ++W->random, .steps = steps ? steps : 1000000};
    snprintf(n->name, sizeof n->name, "%s", name);
    return n;
}
static inline void crash(const char *name) { node(name)->up = false; }

/* Does what the plan says, as far as the test lets it. */
static inline void obey_ps(struct node *n) {
    struct json_object *job = pn_json_get(n->plan, "job"), *cut = pn_json_get(n->plan, "cut");
    if (job == NULL) n->job[0] = '\0';
    else if (strcmp(n->job, pn_json_str(job, "id", "")) != 0 || n->term != pn_json_u64(job, "term", 0) || n->generation != pn_json_u64(job, "generation", 0)) {
        snprintf(n->job, sizeof n->job, "%s", pn_json_str(job, "id", ""));
        n->term = pn_json_u64(job, "term", 0);
        n->generation = pn_json_u64(job, "generation", 0);
        n->restored = pn_json_u64(pn_json_get(job, "restore"), "epoch", 0);
        n->open = n->open_code == NULL || (n->open_fails_from != 0 && n->open_fails_from != n->restored);
        n->failed_code = n->open_code;
        n->cut = n->forgot = 0;
    }
    if (n->open && !n->hold_forget && pn_json_get(job, "forget") != NULL) n->forgot = pn_json_u64(pn_json_get(job, "forget"), "number", 0);
    n->cut = n->open ? pn_json_u64(cut, "epoch", 0) : 0;
    struct json_object *s = pn_json_get(n->plan, "snapshot");
    if (s != NULL && n->version != pn_json_u64(s, "version", 0) && !n->hold_snapshot) {
        struct json_object *files = pn_json_get(s, "files");
        for (size_t i = 0; i < pn_json_length(files); i++) { /* NNN.dense with the parameters 0 and 1 of the model's two, split over the files */
            char path[600];
            struct { uint64_t n, dim, key; float row[2]; } dense = {i == 0 && strcmp(n->name, "ps-0") == 0, 2, 0, {1.5f, 2.5f}};
            snprintf(path, sizeof path, "%s/%s.dense", pn_json_str(s, "dir", ""), pn_json_str(pn_json_at(files, i), "number", ""));
            file_write(path, &dense, dense.n ? sizeof dense : 16);
        }
        n->version = pn_json_u64(s, "version", 0);
    }
    if (s == NULL) n->version = 0;
}
static inline struct json_object *ps_beat(struct node *n, struct json_object *o) {
    struct json_object *job = NULL, *cut = NULL, *snapshot = NULL;
    if (n->job[0] != '\0') {
        job = json_object_new_object();
        pn_json_add_str(job, "id", n->job);
        pn_json_add_u64(job, "generation", n->generation);
        pn_json_add_u64(job, "term", n->term);
        pn_json_add_str(job, "state", n->open ? "open" : "failed");
        if (!n->open) {
            pn_json_add_str(job, "code", n->failed_code);
            pn_json_add_str(job, "error", "checkpoint file: block 3 is damaged");
        }
        pn_json_add_u64(job, "rows", 7);
        pn_json_add_u64(job, "bytes", 700);
        pn_json_add_u64(job, "forgot", n->forgot);
        pn_json_add_u64(job, "forgotten", n->forgot > 0);
    }
    if (n->cut != 0 && !n->hold_flip) {
        cut = json_object_new_object();
        pn_json_add_u64(cut, "epoch", n->cut);
        pn_json_add_str(cut, "state", n->fail_write ? "failed" : n->hold_write ? "flipped" : "written");
        if (!n->fail_write && !n->hold_write && !n->no_file) {
            struct json_object *f = json_object_new_object();
            char name[80], path[600];
            snprintf(name, sizeof name, "%s.ps", n->name);
            pn_json_add_str(f, "name", name);
            pn_json_add_u64(f, "bytes", 100);
            pn_json_add_u64(f, "rows", 7);
            pn_json_add_str(f, "digest", "00");
            pn_json_add(cut, "file", f);
            snprintf(path, sizeof path, "%s/%s", pn_json_str(pn_json_get(n->plan, "cut"), "dir", ""), name);
            file_write(path, "rows", 4);
        }
    }
    struct json_object *s = pn_json_get(n->plan, "snapshot");
    if (s != NULL && n->version != 0) {
        struct json_object *files = json_object_new_array(), *wanted = pn_json_get(s, "files");
        snapshot = json_object_new_object();
        pn_json_add_u64(snapshot, "version", n->version);
        pn_json_add_str(snapshot, "state", n->fail_snapshot ? "failed" : "written");
        for (size_t i = 0; i < pn_json_length(wanted); i++) {
            struct json_object *f = json_object_new_object();
            char name[40];
            snprintf(name, sizeof name, "%s.seg", pn_json_str(pn_json_at(wanted, i), "number", ""));
            pn_json_add_str(f, "name", name);
            pn_json_add_u64(f, "bytes", 50);
            pn_json_add_str(f, "digest", "00");
            json_object_array_add(files, f);
        }
        pn_json_add(snapshot, "files", files);
    }
    struct json_object *copy = pn_json_get(n->plan, "scrub");
    if (copy != NULL) { /* one row of each file goes */
        struct json_object *e = json_object_new_object(), *files = json_object_new_array(), *wanted = pn_json_get(copy, "files");
        pn_json_add_u64(e, "task", pn_json_u64(copy, "task", 0));
        pn_json_add_str(e, "state", n->corrupt_scrub ? "failed" : "written");
        pn_json_add_str(e, "code", "corrupt");
        for (size_t i = 0; i < pn_json_length(wanted) && !n->corrupt_scrub; i++) {
            struct json_object *f = json_object_new_object();
            const char *name = pn_json_str(pn_json_at(wanted, i), "name", "?");
            char path[600];
            snprintf(path, sizeof path, "%s/%s", pn_json_str(copy, "from", ""), name);
            ck_assert_msg(file_exists(path), "%s is to be copied and is not there", path);
            snprintf(path, sizeof path, "%s/%s", pn_json_str(copy, "to", ""), name);
            if (n->scrub != pn_json_u64(copy, "task", 0)) file_write(path, "without", 7);
            pn_json_add_str(f, "name", name);
            pn_json_add_u64(f, "bytes", 90);
            pn_json_add_u64(f, "rows", 6);
            pn_json_add_u64(f, "removed", 1);
            pn_json_add_str(f, "digest", "11");
            json_object_array_add(files, f);
        }
        n->scrub = pn_json_u64(copy, "task", 0);
        pn_json_add(e, "files", files);
        pn_json_add(o, "scrub", e);
    }
    pn_json_add(o, "job", job);
    pn_json_add(o, "cut", cut);
    pn_json_add(o, "snapshot", snapshot);
    return o;
}
/* What a reader would propose behind this ledger: `rows` more of one partition, after it has said where that begins. */
static inline struct json_object *fake_deal(struct json_object *ledger, uint64_t partition, uint64_t rows) {
    struct json_object *extents = pn_json_get(ledger, "extents"), *positions = pn_json_get(ledger, "positions"), *o = json_object_new_object(), *list = json_object_new_array(), *e = json_object_new_array();
    const size_t n = pn_json_length(extents);
    const bool known = n > 0 || pn_json_length(positions) > 0;
    const uint64_t first = n > 0 ? json_object_get_uint64(pn_json_at(pn_json_at(extents, n - 1), 2)) : known ? json_object_get_uint64(pn_json_at(pn_json_at(positions, 0), 1)) : 100;
    const uint64_t v[4] = {partition, first, known ? first + rows + 1 : first, known ? rows : 0};
    for (size_t i = 0; i < 4; i++) json_object_array_add(e, json_object_new_uint64(v[i]));
    json_object_array_add(list, e);
    pn_json_add_u64(o, "at", pn_json_u64(ledger, "at", 0) + n);
    pn_json_add(o, "extents", list);
    return o;
}
static inline struct json_object *worker_beat(struct node *n, struct json_object *o) {
    struct json_object *plan = pn_json_get(n->plan, "job"), *job = NULL, *cut = NULL, *evaluation = NULL, *producers = json_object_new_array(), *model = NULL;
    if (plan != NULL) {
        struct json_object *list = pn_json_get(plan, "producers"), *c = pn_json_get(n->plan, "cut"), *e = pn_json_get(n->plan, "evaluate"), *shards = pn_json_get(plan, "shards");
        uint64_t upto = c == NULL ? UINT64_MAX : pn_json_u64(c, "upto", 0), terms = 0;
        bool drained = true;
        for (size_t i = 0; i < pn_json_length(shards); i++) {
            const uint64_t term = pn_json_u64(pn_json_at(shards, i), "term", 0);
            if (term == 0) upto = 0;
            terms += term;
        }
        n->rash += terms != n->terms && strstr(pn_json_str(e, "task", ""), "-gate-") != NULL;
        n->terms = terms;
        for (size_t i = 0; i < pn_json_length(list); i++) {
            struct json_object *p = pn_json_at(list, i), *r = json_object_new_object();
            uint64_t id = pn_json_u64(p, "producer", 0), incarnation = pn_json_u64(p, "incarnation", 0);
            if (n->units[id].incarnation != incarnation) {
                n->units[id].incarnation = incarnation;
                n->units[id].clock = pn_json_u64(p, "first_step", 1) - 1;
            }
            uint64_t *clock = &n->units[id].clock;
            struct json_object *gate = pn_json_get(plan, "gate");
            uint64_t open = UINT64_MAX;
            if (gate != NULL) {
                open = pn_json_u64(gate, "epochs", 0) * (n->per_epoch + (id == 0));
                if (pn_json_u64(gate, "step", 0) > open) open = pn_json_u64(gate, "step", 0);
            }
            if (*clock < n->steps && *clock < upto && *clock < open) *clock += 1;
            pn_json_add_bool(r, "waiting", *clock >= open && *clock < n->steps);
            bool stuck = c != NULL && n->hold_drain;
            pn_json_add_u64(r, "producer", id);
            pn_json_add_u64(r, "incarnation", incarnation);
            pn_json_add_u64(r, "started", *clock + (stuck ? 1 : 0));
            pn_json_add_u64(r, "clock", *clock);
            pn_json_add_bool(r, "finished", *clock >= n->steps);
            pn_json_add_u64(r, "samples", *clock * 32);
            pn_json_add_double(r, "loss_sum", (double)*clock);
            pn_json_add_u64(r, "loss_rows", *clock * 2);
            pn_json_add_bool(r, "ring_full", n->ring_full && c == NULL);
            if (n->deals > 0 && c == NULL) pn_json_add(r, "deal", fake_deal(pn_json_get(p, "ledger"), id, n->deals));
            json_object_array_add(producers, r);
            drained = drained && !stuck && (*clock >= upto || *clock >= n->steps || upto == 0);
        }
        job = json_object_new_object();
        pn_json_add_str(job, "id", pn_json_str(plan, "id", ""));
        pn_json_add_u64(job, "generation", pn_json_u64(plan, "generation", 0));
        pn_json_add_str(job, "state", n->job_error != NULL ? "failed" : "running");
        if (n->job_error != NULL) pn_json_add_str(job, "error", n->job_error);
        if (c != NULL) {
            cut = json_object_new_object();
            pn_json_add_u64(cut, "epoch", pn_json_u64(c, "epoch", 0));
            pn_json_add_u64(cut, "upto", pn_json_u64(c, "upto", 0));
            pn_json_add_bool(cut, "drained", drained);
        }
        if (e != NULL && !n->hold_evaluation) {
            evaluation = json_object_new_object();
            pn_json_add_str(evaluation, "task", pn_json_str(e, "task", ""));
            pn_json_add_str(evaluation, "state", n->fail_evaluation ? "failed" : "done");
            const char *gate = strstr(pn_json_str(e, "task", ""), "-gate-");
            const double validation = gate != NULL && W->aucs != NULL ? W->aucs[strtoul(gate + 6, NULL, 10) - 1] : 0.79;
            pn_json_add_double(evaluation, W->lists ? "ndcg" : "auc", strcmp(pn_json_str(e, "split", ""), "test") == 0 ? 0.81 : validation);
            if (!W->lists) pn_json_add_double(evaluation, "logloss", 0.5);
            for (int i = 0; i < 3; i++) pn_json_add_double(evaluation, (const char *const[]){"ne", "gauc", "mrr"}[i], validation);
            pn_json_add_u64(evaluation, "rows", 10);
        }
        model = pn_json_parse("{\"blocks\":[{\"name\":\"w\",\"offset\":0,\"shape\":[1,2]}],\"parameters\":2}", 65, NULL);
        ck_assert_ptr_nonnull(model);
        const char *said = n->statistics != NULL ? n->statistics : "\"{\\\"a\\\":1}\"";
        pn_json_add(model, "statistics", pn_json_parse(said, strlen(said), NULL));
    }
    pn_json_add(o, "job", job);
    pn_json_add(o, "producers", producers);
    pn_json_add(o, "cut", cut);
    pn_json_add(o, "evaluation", evaluation);
    if (n->validation != NULL) pn_json_add(o, "validation", pn_json_parse(n->validation, strlen(n->validation), NULL));
    pn_json_add(o, "model", model);
    return o;
}
/* Hands a beat with this JSON text to the core. */
static inline void deliver(pn_peer from, struct json_object *o) {
    struct pn_msg *m = pn_control_write(&W->env, PN_BEAT, 0, 0, o);
    pn_coordinator_core.message(W->core, from, m);
    pn_msg_unref(m);
}
static inline struct json_object *make_beat(struct node *n) {
    static const char *const roles[] = {"ps", "worker", "serving"};
    struct json_object *o = json_object_new_object(), *plan = json_object_new_array();
    char address[64];
    snprintf(address, sizeof address, "tcp://%s:%" PRIu64, n->name, n->peer);
    pn_json_add_str(o, "role", roles[n->role]);
    pn_json_add_str(o, "name", n->name);
    pn_json_add_u64(o, "incarnation", n->incarnation);
    pn_json_add_str(o, "address", address);
    pn_json_add_str(o, "http", "http://somewhere");
    json_object_array_add(plan, json_object_new_uint64(n->epoch));
    json_object_array_add(plan, json_object_new_uint64(n->revision));
    pn_json_add(o, "plan", plan);
    if (n->role == PS && n->plan != NULL) obey_ps(n);
    if (n->serves != NULL) {
        struct json_object *serves = json_object_new_object();
        pn_json_add_str(serves, "job", n->serves);
        pn_json_add_u64(serves, "producers", 1);
        pn_json_add(o, "serves", serves);
    }
    if (n->leaving) pn_json_add_bool(o, "leaving", true);
    return n->role == PS ? ps_beat(n, o) : n->role == WORKER ? worker_beat(n, o) : o;
}

/* ---- time ---- */
static inline void run_ms(uint64_t ms) {
    for (uint64_t t = 0; t < ms; t += 10) {
        W->now_ns += 10000000u;
        if (W->core != NULL && W->timer != NULL && W->timer->active && W->timer->due_ns <= W->now_ns) {
            W->timer->active = false;
            W->timer->fire(W->timer);
        }
        for (size_t n = W->n_ios; n > 0; n--) {
            struct pn_io *io = W->ios[0];
            memmove(W->ios, W->ios + 1, --W->n_ios * sizeof *W->ios);
            complete_io(io);
        }
        if (t % 50 == 0)
            for (size_t i = 0; i < W->n_nodes; i++) {
                struct node *n = &W->nodes[i];
                if (!n->up || W->core == NULL) continue;
                struct json_object *o = make_beat(n);
                deliver(n->peer, o);
                json_object_put(o);
            }
    }
}

/* ---- a person ---- */
static inline void fake_answer(struct pn_http_request *r, int status, const char *type, const char *extra, const void *body, size_t n) {
    struct call *c = (struct call *)r;
    (void)extra;
    ck_assert(!c->answered); /* once */
    c->answered = true;
    c->status = status;
    c->body = strcmp(type, "application/json") == 0 ? pn_json_parse(body, n, NULL) : json_object_new_string_len(body, (int)n);
}
static inline struct call *ask(const char *method, const char *path, const char *body) {
    struct call *c = &W->calls[W->n_calls++ % MAX_CALLS];
    if (c->body != NULL) json_object_put(c->body);
    *c = (struct call){.r = {.query = "", .answer = fake_answer}};
    snprintf(c->method, sizeof c->method, "%s", method);
    snprintf(c->path, sizeof c->path, "%s", path);
    snprintf(c->text, sizeof c->text, "%s", body);
    c->r.method = c->method;
    c->r.path = c->path;
    c->r.body = (const uint8_t *)c->text;
    c->r.body_bytes = strlen(c->text);
    pn_coordinator_http(W->core, &c->r);
    return c;
}
static inline struct json_object *job(const char *id) { /* good until eight calls later */
    char path[64];
    snprintf(path, sizeof path, "/api/v1/jobs/%s", id);
    struct call *c = ask("GET", path, "");
    ck_assert_int_eq(c->status, 200);
    return c->body;
}
static inline const char *state(const char *id) { return pn_json_str(job(id), "state", "?"); }
static inline size_t n_checkpoints(const char *id) { return pn_json_length(pn_json_get(job(id), "checkpoints")); }
static inline uint64_t newest(const char *id) { return pn_json_u64(pn_json_at(pn_json_get(job(id), "checkpoints"), 0), "epoch", 0); }

#define AUDIT_HEAD "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: audit}\nspec:\n  data:\n    train: {format: audit, rows: 64000}\n"
#define AUDIT_TAIL "  model: {name: audit}\n  audit: {keys: 100}\n"
#define TRAINING(mode, shards) "  training: {batchSize: 32, seed: 1, dataShards: " #shards ", inFlight: 4, consistency: {mode: " mode ", ack: durable}}\n"
#define AUDIT AUDIT_HEAD AUDIT_TAIL TRAINING("async", 2)
static inline struct call *submit_text(const char *text, const char *key) {
    struct json_object *o = json_object_new_object();
    pn_json_add_str(o, "text", text);
    pn_json_add_str(o, "file", "job.yaml");
    pn_json_add_str(o, "base", "/data");
    pn_json_add_str(o, "key", key);
    struct call *c = ask("POST", "/api/v1/jobs", pn_json_text(o));
    json_object_put(o);
    return c;
}
static inline const char *submit(const char *text) {
    static char id[32];
    char key[32];
    snprintf(key, sizeof key, "key-%" PRIu64, ++W->random);
    struct call *c = submit_text(text, key);
    ck_assert_msg(c->status == 201, "%d %s", c->status, c->body ? pn_json_text(c->body) : "");
    snprintf(id, sizeof id, "%s", pn_json_str(c->body, "id", ""));
    return id;
}

/* ---- the coordinator's lives ---- */
static inline void start_core(void) {
    static const struct pn_coordinator_options options = {.dir = "/c"};
    W->in_transaction = false;
    W->core = pn_coordinator_open(&W->env, &W->store, &options);
    ck_assert_ptr_nonnull(W->core);
    pn_coordinator_core.start(W->core);
}
/* Dies and comes back: memory and requests in flight are gone, store and files stay. */
static inline void restart_core(void) {
    while (W->n_ios > 0) { /* the real shell would drop them; here they end so that nothing leaks */
        struct pn_io *io = W->ios[0];
        memmove(W->ios, W->ios + 1, --W->n_ios * sizeof *W->ios);
        W->store_full = true; /* but decide nothing any more */
        io->result = -EIO;
        io->done(io);
        W->store_full = false;
    }
    pn_coordinator_close(W->core);
    W->core = NULL;
    W->timer = NULL;
    W->in_transaction = false;
    start_core();
}
static inline void world_open(void) {
    W = calloc(1, sizeof *W);
    W->env.ops = &fake_ops;
    W->store.ops = &fake_store_ops;
    W->now_ns = 1000000000u;
    start_core();
}
static inline void world_close(void) {
    W->store_full = false;
    for (int i = 0; i < 100 && W->n_ios > 0; i++) run_ms(10);
    while (W->n_ios > 0) {
        struct pn_io *io = W->ios[0];
        memmove(W->ios, W->ios + 1, --W->n_ios * sizeof *W->ios);
        complete_io(io);
    }
    pn_coordinator_close(W->core);
    for (size_t i = 0; i < W->n_nodes; i++)
        if (W->nodes[i].plan != NULL) json_object_put(W->nodes[i].plan);
    for (size_t i = 0; i < MAX_CALLS; i++)
        if (W->calls[i].body != NULL) json_object_put(W->calls[i].body);
    for (size_t i = 0; i < W->n_files; i++) free(W->files[i].data);
    records_free(&W->durable);
    records_free(&W->pending);
    free(W);
    W = NULL;
}
/* Two servers, two workers, everybody known. */
static inline void cluster(void) {
    world_open();
    boot(PS, "ps-0");
    boot(PS, "ps-1");
    boot(WORKER, "worker-0");
    boot(WORKER, "worker-1");
    run_ms(100);
}
static inline int run_tests(const char *name, TCase *c) {
    Suite *s = suite_create(name);
    tcase_set_timeout(c, 60);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
#endif
