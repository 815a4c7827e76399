/* What the coordinator must not forget, as JSON records: "meta/counters", "job/ID", "checkpoint/ID/EPOCH", "model/NAME", "forget/NUMBER". */
#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "coordinator/internal.h"

static const struct { const char *name; size_t offset; } figures[] = {
    {"auc", offsetof(struct pn_metric, auc)}, {"logloss", offsetof(struct pn_metric, logloss)}, {"ne", offsetof(struct pn_metric, ne)},
    {"calibration", offsetof(struct pn_metric, calibration)}, {"ece", offsetof(struct pn_metric, ece)}, {"gauc", offsetof(struct pn_metric, gauc)},
    {"head1_auc", offsetof(struct pn_metric, head_auc[0])}, {"head2_auc", offsetof(struct pn_metric, head_auc[1])}, {"head3_auc", offsetof(struct pn_metric, head_auc[2])},
    {"hr", offsetof(struct pn_metric, hr)}, {"ndcg", offsetof(struct pn_metric, ndcg)}, {"recall", offsetof(struct pn_metric, recall)}, {"mrr", offsetof(struct pn_metric, mrr)}};

enum { N_FIGURES = sizeof figures / sizeof *figures };

static double figure(const struct pn_metric *m, size_t i) { return *(const double *)(const void *)((const char *)m + figures[i].offset); }

/* Until 0 was no longer written for what had not been measured, records and workers said it of log loss, and with it of AUC and heads: a log loss that was measured is above 0. */
static void drop_zeros(struct pn_metric *m) {
    if (m->logloss != 0) return;
    m->logloss = NAN;
    if (m->auc != 0) return; /* SASRec over all items has one */
    m->auc = NAN;
    for (size_t h = 0; h < PN_MAX_HEADS; h++) m->head_auc[h] = NAN;
}

struct pn_metric pn_metric_read(struct json_object *e) {
    struct pn_metric m = {.known = true, .rows = pn_json_u64(e, "rows", 0), .epoch = pn_json_u64(e, "epoch", 0)};
    for (size_t i = 0; i < N_FIGURES; i++) *(double *)(void *)((char *)&m + figures[i].offset) = pn_json_double(e, figures[i].name, NAN);
    drop_zeros(&m);
    return m;
}

void pn_metric_write(struct json_object *o, const char *prefix, const struct pn_metric *m) {
    for (size_t i = 0; i < N_FIGURES; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s%s", prefix, figures[i].name);
        if (isfinite(figure(m, i))) pn_json_add_double(o, name, figure(m, i));
    }
}

void pn_metric_say(const struct pn_metric *m, char *text, size_t room) {
    size_t n = 0;
    text[0] = '\0';
    for (size_t i = 0; i < N_FIGURES && n < room; i++)
        if (isfinite(figure(m, i))) n += (size_t)snprintf(text + n, room - n, "%s%s %.5f", n > 0 ? ", " : "", figures[i].name, figure(m, i));
}

size_t pn_metric_gauges(const struct pn_metric *m, const char *job, char *out, size_t room) {
    size_t n = 0;
    for (size_t i = 0; i < N_FIGURES; i++) {
        const char *name = figures[i].name;
        char line[300];
        const size_t k = (size_t)snprintf(line, sizeof line, "# HELP pinion_job_%s Validation: %s.\n# TYPE pinion_job_%s gauge\npinion_job_%s{job=\"%s\"} %.9g\n", name, name, name, name, job, figure(m, i));
        if (!isfinite(figure(m, i)) || k >= sizeof line || n + k >= room) continue;
        memcpy(out + n, line, k + 1);
        n += k;
    }
    return n;
}

static void add_metric(struct json_object *o, const char *name, const struct pn_metric *m) {
    if (!m->known) return;
    struct json_object *e = json_object_new_object();
    pn_metric_write(e, "", m);
    pn_json_add_u64(e, "rows", m->rows);
    if (m->epoch > 0) pn_json_add_u64(e, "epoch", m->epoch);
    pn_json_add(o, name, e);
}

static void get_metric(struct json_object *o, const char *name, struct pn_metric *m) {
    struct json_object *e = pn_json_get(o, name);
    if (e != NULL) *m = pn_metric_read(e);
}

/* ---- jobs ---- */
static struct json_object *write_job(const struct pn_job_run *j) {
    struct json_object *o = json_object_new_object(), *units = json_object_new_array(), *seats = json_object_new_array();
    pn_json_add_str(o, "key", j->key);
    pn_json_add_str(o, "text", j->text);
    pn_json_add_u64(o, "state", (uint64_t)j->state);
    pn_json_add_u64(o, "phase", (uint64_t)j->phase);
    pn_json_add_str(o, "reason", j->reason);
    pn_json_add_u64(o, "generation", j->generation);
    pn_json_add_u64(o, "next_epoch", j->next_epoch);
    pn_json_add_u64(o, "restarts", j->restarts);
    pn_json_add_u64(o, "n_producers", j->n_producers);
    pn_json_add_u64(o, "version", j->version);
    for (uint32_t p = 0; p < j->n_producers; p++) {
        struct json_object *u = json_object_new_object();
        pn_json_add_u64(u, "incarnation", j->units[p].incarnation);
        pn_json_add_str(u, "owner", j->units[p].owner);
        pn_json_add_u64(u, "owner_incarnation", j->units[p].owner_incarnation);
        pn_json_add_u64(u, "first_step", j->units[p].first_step);
        if (j->job.privacy.rows > 0) pn_json_add_u64(u, "charged", j->units[p].charged);
        if (j->job.privacy.rows > 0) pn_json_add_u64(u, "lives", j->units[p].lives);
        json_object_array_add(units, u);
    }
    for (uint32_t s = 0; s < j->n_shards; s++) {
        struct json_object *e = json_object_new_object();
        pn_json_add_str(e, "node", j->seats[s].node);
        pn_json_add_str(e, "address", j->seats[s].address);
        pn_json_add_u64(e, "term", j->seats[s].term);
        pn_json_add_u64(e, "incarnation", j->seats[s].incarnation);
        json_object_array_add(seats, e);
    }
    pn_secure_save(j, o);
    pn_json_add(o, "producers", units);
    pn_json_add(o, "shards", seats);
    add_metric(o, "epoch_validation", &j->epoch_validation);
    add_metric(o, "validation", &j->validation);
    add_metric(o, "test", &j->test);
    add_metric(o, "best", &j->best);
    pn_json_add_u64(o, "gate_epochs", j->gate_epochs);
    pn_json_add_u64(o, "best_epoch", j->best_epoch);
    pn_json_add_u64(o, "best_checkpoint", j->best_checkpoint);
    pn_json_add_u64(o, "misses", j->misses);
    pn_json_add_u64(o, "train_ms", j->train_ms);
    pn_json_add_bool(o, "stopped", j->stopped);
    if (j->history != NULL) pn_json_add(o, "history", json_object_get(j->history));
    pn_json_add(o, "curve", pn_curve_json(j));
    if (j->stream.history != NULL) pn_json_add(o, "stream", json_object_get(j->stream.history));
    if (j->model != NULL) pn_json_add(o, "model", json_object_get(j->model));
    if (j->ledgers != NULL) pn_json_add(o, "ledgers", pn_ledgers_write(j));
    return o;
}

struct loading { struct pn_coordinator *c; bool ok; };

static void load_job(void *ctx, const char *id, const char *json) {
    struct loading *l = ctx;
    struct json_object *o = pn_json_parse(json, strlen(json), NULL);
    struct pn_job_run *j = calloc(1, sizeof *j);
    struct pn_error err;
    const char *text = pn_json_str(o, "text", "");
    if (o == NULL || j == NULL || pn_job_parse(&j->job, text, strlen(text), id, NULL, NULL, &err) != PN_OK) {
        l->ok = false;
        free(j);
        if (o != NULL) json_object_put(o);
        return;
    }
    snprintf(j->id, sizeof j->id, "%s", id);
    snprintf(j->key, sizeof j->key, "%s", pn_json_str(o, "key", ""));
    snprintf(j->reason, sizeof j->reason, "%s", pn_json_str(o, "reason", ""));
    j->text = strdup(text);
    j->state = (enum pn_job_state)pn_json_u64(o, "state", 0);
    j->phase = (enum pn_phase)pn_json_u64(o, "phase", 0);
    j->generation = pn_json_u64(o, "generation", 0);
    j->next_epoch = pn_json_u64(o, "next_epoch", 1);
    j->restarts = pn_json_u64(o, "restarts", 0);
    j->n_producers = (uint32_t)pn_json_u64(o, "n_producers", 0);
    j->version = pn_json_u64(o, "version", 0);
    struct json_object *units = pn_json_get(o, "producers"), *seats = pn_json_get(o, "shards");
    for (uint32_t p = 0; p < j->n_producers && p < PN_MAX_PRODUCERS; p++) {
        struct json_object *u = pn_json_at(units, p);
        j->units[p].incarnation = pn_json_u64(u, "incarnation", 0);
        j->units[p].owner_incarnation = pn_json_u64(u, "owner_incarnation", 0);
        j->units[p].first_step = pn_json_u64(u, "first_step", 1);
        j->units[p].charged = pn_json_u64(u, "charged", 0);
        j->units[p].lives = (uint32_t)pn_json_u64(u, "lives", 0);
        snprintf(j->units[p].owner, sizeof j->units[p].owner, "%s", pn_json_str(u, "owner", ""));
    }
    pn_secure_load(l->c, j, o);
    j->n_shards = (uint32_t)pn_json_length(seats);
    for (uint32_t s = 0; s < j->n_shards && s < 64; s++) {
        struct json_object *e = pn_json_at(seats, s);
        snprintf(j->seats[s].node, sizeof j->seats[s].node, "%s", pn_json_str(e, "node", ""));
        snprintf(j->seats[s].address, sizeof j->seats[s].address, "%s", pn_json_str(e, "address", ""));
        j->seats[s].term = pn_json_u64(e, "term", 0);
        j->seats[s].incarnation = pn_json_u64(e, "incarnation", 0);
    }
    get_metric(o, "epoch_validation", &j->epoch_validation);
    get_metric(o, "validation", &j->validation);
    get_metric(o, "test", &j->test);
    get_metric(o, "best", &j->best);
    j->gate_epochs = pn_json_u64(o, "gate_epochs", 1);
    j->best_epoch = pn_json_u64(o, "best_epoch", 0);
    j->best_checkpoint = pn_json_u64(o, "best_checkpoint", 0);
    j->misses = pn_json_u64(o, "misses", 0);
    j->train_ms = pn_json_u64(o, "train_ms", 0);
    j->stopped = pn_json_bool(o, "stopped", false);
    j->began_ms = pn_now_ms(l->c->env);
    pn_curve_load(j, pn_json_get(o, "curve"));
    pn_stream_load(j, pn_json_get(o, "stream"));
    if (pn_json_get(o, "history") != NULL) j->history = json_object_get(pn_json_get(o, "history"));
    l->ok = pn_ledgers_load(j, pn_json_get(o, "ledgers")) && l->ok;
    struct json_object *model = pn_json_get(o, "model");
    if (model != NULL) j->model = json_object_get(model);
    j->last_checkpoint_ms = pn_now_ms(l->c->env);
    struct pn_job_run **at = &l->c->jobs; /* job-2 before job-10 */
    while (*at != NULL && (strlen((*at)->id) < strlen(id) || (strlen((*at)->id) == strlen(id) && strcmp((*at)->id, id) < 0))) at = &(*at)->next;
    j->next = *at;
    *at = j;
    json_object_put(o);
}

/* ---- checkpoints ---- */
static struct json_object *write_checkpoint(const struct pn_job_run *j, const struct pn_checkpoint *k) {
    struct json_object *o = json_object_new_object(), *steps = json_object_new_array(), *finished = json_object_new_array();
    pn_json_add_u64(o, "epoch", k->epoch);
    pn_json_add_u64(o, "bytes", k->bytes);
    pn_json_add_u64(o, "rows", k->rows);
    pn_json_add_u64(o, "committed_ms", k->committed_ms);
    pn_json_add_bool(o, "bad", k->bad);
    pn_json_add_u64(o, "forgot", k->forgot);
    pn_json_add_str(o, "dir", k->dir);
    pn_json_add(o, "files", json_object_get(k->files));
    for (uint32_t p = 0; p < j->n_producers; p++) {
        json_object_array_add(steps, json_object_new_uint64(k->steps[p]));
        json_object_array_add(finished, json_object_new_boolean(k->finished[p]));
    }
    pn_json_add(o, "steps", steps);
    pn_json_add(o, "finished", finished);
    if (k->ledgers != NULL) pn_json_add(o, "ledgers", json_object_get(k->ledgers));
    return o;
}

static void load_checkpoint(void *ctx, const char *id, const char *json) {
    struct loading *l = ctx;
    char job_id[32] = "";
    const char *slash = strchr(id, '/');
    if (slash == NULL || (size_t)(slash - id) >= sizeof job_id) return;
    memcpy(job_id, id, (size_t)(slash - id));
    struct pn_job_run *j = pn_job_find(l->c, job_id);
    struct json_object *o = pn_json_parse(json, strlen(json), NULL);
    struct pn_checkpoint *k = calloc(1, sizeof *k);
    if (j == NULL || o == NULL || k == NULL) {
        l->ok = l->ok && j == NULL; /* a record without its job is of no use */
        free(k);
        if (o != NULL) json_object_put(o);
        return;
    }
    k->epoch = pn_json_u64(o, "epoch", 0);
    k->bytes = pn_json_u64(o, "bytes", 0);
    k->rows = pn_json_u64(o, "rows", 0);
    k->committed_ms = pn_json_u64(o, "committed_ms", 0);
    k->bad = pn_json_bool(o, "bad", false);
    k->forgot = pn_json_u64(o, "forgot", 0);
    snprintf(k->dir, sizeof k->dir, "%s", pn_json_str(o, "dir", ""));
    k->files = json_object_get(pn_json_get(o, "files"));
    if (pn_json_get(o, "ledgers") != NULL) k->ledgers = json_object_get(pn_json_get(o, "ledgers"));
    for (uint32_t p = 0; p < j->n_producers; p++) {
        k->steps[p] = json_object_get_uint64(pn_json_at(pn_json_get(o, "steps"), p));
        k->finished[p] = json_object_get_boolean(pn_json_at(pn_json_get(o, "finished"), p));
    }
    struct pn_checkpoint **at = &j->checkpoints;
    while (*at != NULL && (*at)->epoch > k->epoch) at = &(*at)->next;
    k->next = *at;
    *at = k;
    json_object_put(o);
}

/* ---- models ---- */
struct json_object *pn_version_write(const struct pn_version *v) {
    struct json_object *o = json_object_new_object();
    pn_json_add_u64(o, "version", v->version);
    pn_json_add_u64(o, "checkpoint", v->checkpoint);
    pn_json_add_u64(o, "forgot", v->forgot);
    pn_json_add_str(o, "job", v->job);
    pn_json_add_str(o, "dir", v->dir);
    return o;
}

static struct json_object *write_model(const struct pn_model_entry *m) {
    struct json_object *o = json_object_new_object(), *versions = json_object_new_array();
    pn_json_add_u64(o, "next_version", m->next_version);
    pn_json_add_u64(o, "active", m->active);
    pn_json_add_u64(o, "publication", m->publication);
    for (const struct pn_version *v = m->versions; v != NULL; v = v->next) json_object_array_add(versions, pn_version_write(v));
    pn_json_add(o, "versions", versions);
    return o;
}

static void load_model(void *ctx, const char *id, const char *json) {
    struct loading *l = ctx;
    struct json_object *o = pn_json_parse(json, strlen(json), NULL);
    struct pn_model_entry *m = o == NULL ? NULL : pn_model_find(l->c, id, true);
    if (m == NULL) {
        l->ok = false;
        if (o != NULL) json_object_put(o);
        return;
    }
    m->next_version = pn_json_u64(o, "next_version", 1);
    m->active = pn_json_u64(o, "active", 0);
    m->publication = pn_json_u64(o, "publication", 0);
    m->dirty = false;
    struct pn_version **at = &m->versions;
    struct json_object *versions = pn_json_get(o, "versions");
    for (size_t i = 0; i < pn_json_length(versions); i++) {
        struct json_object *e = pn_json_at(versions, i);
        struct pn_version *v = calloc(1, sizeof *v);
        if (v == NULL) break;
        v->version = pn_json_u64(e, "version", 0);
        v->checkpoint = pn_json_u64(e, "checkpoint", 0);
        v->forgot = pn_json_u64(e, "forgot", 0);
        snprintf(v->job, sizeof v->job, "%s", pn_json_str(e, "job", ""));
        snprintf(v->dir, sizeof v->dir, "%s", pn_json_str(e, "dir", ""));
        *at = v;
        at = &v->next;
    }
    json_object_put(o);
}

static void load_forget(void *ctx, const char *id, const char *json) {
    struct loading *l = ctx;
    struct json_object *o = pn_json_parse(json, strlen(json), NULL);
    (void)id;
    l->ok = o != NULL && pn_forget_load(l->c, o) && l->ok;
    if (o != NULL) json_object_put(o);
}

/* ---- all ---- */
static void load_counters(void *ctx, const char *id, const char *json) {
    struct loading *l = ctx;
    struct json_object *o = pn_json_parse(json, strlen(json), NULL);
    (void)id;
    l->ok = o != NULL;
    l->c->epoch = pn_json_u64(o, "epoch", 0);
    l->c->term = pn_json_u64(o, "term", 0);
    l->c->job_sequence = pn_json_u64(o, "job_sequence", 0);
    if (o != NULL) json_object_put(o);
}

/* Half of the records is worse than none: a job without its checkpoints would begin from nothing. */
static void drop_all(struct pn_coordinator *c) {
    while (c->jobs != NULL) {
        struct pn_job_run *j = c->jobs;
        c->jobs = j->next;
        pn_job_free_run(j);
    }
    pn_models_free(c);
    pn_forgets_free(c);
}

static bool load(struct pn_coordinator *c, struct pn_error *err) {
    struct loading l = {c, true};
    const struct pn_store_ops *ops = c->store->ops;
    if (ops->scan(c->store, "meta", load_counters, &l, err) != PN_OK || ops->scan(c->store, "job", load_job, &l, err) != PN_OK ||
        ops->scan(c->store, "checkpoint", load_checkpoint, &l, err) != PN_OK || ops->scan(c->store, "model", load_model, &l, err) != PN_OK ||
        ops->scan(c->store, "forget", load_forget, &l, err) != PN_OK)
        return false;
    if (!l.ok) {
        pn_fail(err, PN_CORRUPT, "a record of the store cannot be read");
        return false;
    }
    for (struct pn_job_run *j = c->jobs; j != NULL; j = j->next) c->quiet = c->quiet || j->state == PN_RUNNING;
    c->epoch++; /* before anything else: plans of an earlier coordinator are older than ours */
    c->counters_dirty = true;
    if (pn_records_flush(c)) return true;
    c->epoch--;
    pn_fail(err, PN_IO, "the epoch cannot be written");
    return false;
}

bool pn_records_load(struct pn_coordinator *c, struct pn_error *err) {
    drop_all(c);
    if (load(c, err)) return true;
    drop_all(c);
    return false;
}

bool pn_records_flush(struct pn_coordinator *c) {
    bool dirty = c->counters_dirty;
    for (struct pn_job_run *j = c->jobs; j != NULL; j = j->next) {
        dirty = dirty || j->dirty;
        for (struct pn_checkpoint *k = j->checkpoints; k != NULL; k = k->next) dirty = dirty || k->dirty;
    }
    for (struct pn_model_entry *m = c->models; m != NULL; m = m->next) dirty = dirty || m->dirty;
    for (struct pn_forget *f = c->forgets; f != NULL; f = f->next) dirty = dirty || f->dirty;
    if (!dirty) return true;
    const struct pn_store_ops *ops = c->store->ops;
    struct pn_error err = {""};
    bool ok = ops->begin(c->store, &err) == PN_OK;
    bool begun = ok;
    if (ok && c->counters_dirty) {
        struct json_object *o = json_object_new_object();
        pn_json_add_u64(o, "epoch", c->epoch);
        pn_json_add_u64(o, "term", c->term);
        pn_json_add_u64(o, "job_sequence", c->job_sequence);
        ok = ops->put(c->store, "meta", "counters", pn_json_text(o), &err) == PN_OK;
        json_object_put(o);
    }
    for (struct pn_job_run *j = c->jobs; j != NULL; j = j->next) {
        if (ok && j->dirty) {
            struct json_object *o = write_job(j);
            ok = ops->put(c->store, "job", j->id, pn_json_text(o), &err) == PN_OK;
            json_object_put(o);
        }
        for (struct pn_checkpoint *k = j->checkpoints; k != NULL; k = k->next) {
            if (!ok || !k->dirty) continue;
            char id[80];
            snprintf(id, sizeof id, "%s/%012" PRIu64, j->id, k->epoch);
            struct json_object *o = write_checkpoint(j, k);
            ok = ops->put(c->store, "checkpoint", id, pn_json_text(o), &err) == PN_OK;
            json_object_put(o);
        }
    }
    for (struct pn_model_entry *m = c->models; m != NULL; m = m->next) {
        if (!ok || !m->dirty) continue;
        struct json_object *o = write_model(m);
        ok = ops->put(c->store, "model", m->name, pn_json_text(o), &err) == PN_OK;
        json_object_put(o);
    }
    for (struct pn_forget *f = c->forgets; f != NULL; f = f->next) {
        if (!ok || !f->dirty) continue;
        char id[40];
        snprintf(id, sizeof id, "%012" PRIu64, f->number);
        struct json_object *o = pn_forget_write(f);
        ok = ops->put(c->store, "forget", id, pn_json_text(o), &err) == PN_OK;
        json_object_put(o);
    }
    if (begun) ok = ops->commit(c->store, &err) == PN_OK && ok;
    if (!ok) {
        if (!c->store_failing) pn_log(c->env, PN_ERROR, "nothing new can be decided, the store fails: %s; training goes on", err.text);
        c->store_failing = true;
        return false;
    }
    c->store_failing = c->counters_dirty = false;
    for (struct pn_job_run *j = c->jobs; j != NULL; j = j->next) {
        j->dirty = false;
        for (struct pn_checkpoint *k = j->checkpoints; k != NULL; k = k->next) k->dirty = false;
    }
    for (struct pn_model_entry *m = c->models; m != NULL; m = m->next) m->dirty = false;
    for (struct pn_forget *f = c->forgets; f != NULL; f = f->next) f->dirty = false;
    return true;
}

void pn_records_forget(struct pn_coordinator *c, struct pn_job_run *j, struct pn_checkpoint *k) {
    char id[80];
    struct pn_error err;
    const struct pn_store_ops *ops = c->store->ops;
    snprintf(id, sizeof id, "%s/%012" PRIu64, j->id, k->epoch);
    if (ops->begin(c->store, &err) != PN_OK) return; /* later */
    bool ok = ops->remove(c->store, "checkpoint", id, &err) == PN_OK;
    ok = ops->commit(c->store, &err) == PN_OK && ok;
    if (!ok) return;
    pn_remove_files(c->env, k->dir, k->files);
    struct pn_checkpoint **at = &j->checkpoints;
    while (*at != k) at = &(*at)->next;
    *at = k->next;
    json_object_put(k->files);
    if (k->ledgers != NULL) json_object_put(k->ledgers);
    free(k);
}
