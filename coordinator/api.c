/* The REST interface. Everything that changes something answers when it is durable. */
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "coordinator/internal.h"

void pn_answer_json(struct pn_http_request *r, int status, struct json_object *o) {
    const char *text = pn_json_text(o);
    r->answer(r, status, "application/json", NULL, text, strlen(text));
    json_object_put(o);
}

void pn_answer_error(struct pn_http_request *r, int status, const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    struct json_object *o = json_object_new_object();
    pn_json_add_str(o, "error", text);
    pn_answer_json(r, status, o);
}

void pn_answer_all(struct pn_asker **list, int status, const char *key, uint64_t value, const char *error) {
    while (*list != NULL) {
        struct pn_asker *a = *list;
        *list = a->next;
        if (error != NULL) pn_answer_error(a->request, status, "%s", error);
        else {
            struct json_object *o = json_object_new_object();
            pn_json_add_u64(o, key, value);
            pn_answer_json(a->request, status, o);
        }
        free(a);
    }
}

static struct json_object *describe(struct pn_coordinator *c, const struct pn_job_run *j) {
    static const char *const phases[] = {"training", "final checkpoint", "validation", "test", "publication", "ended"};
    struct json_object *o = json_object_new_object(), *checkpoints = json_object_new_array();
    uint64_t samples = 0, rows = 0, epoch = UINT64_MAX, steps = 0;
    double loss = 0, mean_rate = 0, progress = 0;
    for (uint32_t p = 0; p < j->n_producers; p++) {
        const struct pn_work_unit *u = &j->units[p];
        if (u->seconds > 0) mean_rate += (double)u->samples / u->seconds;
        progress += u->finished ? j->job.epochs : (double)u->epoch + u->fraction;
        samples += u->samples;
        rows += u->loss_rows;
        loss += u->loss_sum;
        steps += u->clock;
        if (!u->finished && u->epoch < epoch) epoch = u->epoch;
    }
    pn_json_add_str(o, "id", j->id);
    pn_json_add_str(o, "name", j->job.name);
    pn_json_add_str(o, "state", pn_job_state_name(c, j));
    pn_json_add_str(o, "phase", j->state == PN_PENDING ? "waiting" : phases[j->phase]);
    pn_json_add_str(o, "reason", j->reason);
    pn_json_add_u64(o, "generation", j->generation);
    pn_json_add_u64(o, "restarts", j->restarts);
    pn_json_add_u64(o, "producers", j->n_producers);
    pn_json_add_u64(o, "samples", samples);
    pn_json_add_u64(o, "steps", steps);
    pn_json_add_double(o, "samples_per_s", j->samples_per_s);
    pn_json_add_double(o, "samples_per_s_mean", mean_rate); /* over the whole of training */
    if (j->n_producers > 0 && j->job.epochs > 0) pn_json_add_double(o, "progress", fmin(1, progress / j->n_producers / j->job.epochs));
    if (rows > 0) pn_json_add_double(o, "loss", loss / (double)rows);
    uint64_t lag;
    if (pn_ledgers_lag(j, &lag)) pn_json_add_u64(o, "lag", lag);
    pn_json_add_u64(o, "epoch", epoch == UINT64_MAX ? j->job.epochs : epoch);
    pn_json_add_u64(o, "epochs", j->job.epochs);
    if (j->job.patience > 0) {
        char by[24];
        pn_job_stop_by(&j->job, by);
        pn_json_add_str(o, "stop_by", by);
    }
    if (pn_job_rank_k(&j->job) > 0) pn_json_add_u64(o, "rank_k", pn_job_rank_k(&j->job)); /* of hr, ndcg and recall */
    const struct pn_metric *v = j->validation.known ? &j->validation : &j->epoch_validation;
    if (v->known) pn_metric_write(o, "validation_", v);
    if (j->test.known) {
        pn_metric_write(o, "test_", &j->test);
        pn_json_add_u64(o, "test_rows", j->test.rows);
    }
    if (j->best.known) {
        pn_json_add_u64(o, "best_epoch", j->best_epoch);
        pn_metric_write(o, "best_", &j->best);
        pn_json_add_u64(o, "best_checkpoint", j->best_checkpoint);
    }
    if (j->history != NULL) pn_json_add(o, "history", json_object_get(j->history));
    for (const struct pn_checkpoint *k = j->checkpoints; k != NULL; k = k->next) {
        if (k->dirty && !k->bad) continue; /* not durable: not there */
        struct json_object *e = json_object_new_object();
        pn_json_add_u64(e, "epoch", k->epoch);
        pn_json_add_u64(e, "committed_ms", k->committed_ms);
        pn_json_add_u64(e, "bytes", k->bytes);
        pn_json_add_u64(e, "rows", k->rows);
        pn_json_add_bool(e, "bad", k->bad);
        pn_json_add_str(e, "dir", k->dir);
        json_object_array_add(checkpoints, e);
    }
    pn_json_add(o, "checkpoints", checkpoints);
    pn_json_add_str(o, "model", j->job.publish_model[0] ? j->job.publish_model : j->job.name);
    pn_json_add_u64(o, "version", j->version);
    return o;
}

static void get_status(struct pn_coordinator *c, struct pn_http_request *r) {
    static const char *const roles[] = {"ps", "worker", "serving"};
    struct json_object *o = json_object_new_object(), *nodes = json_object_new_array(), *jobs = json_object_new_array();
    pn_json_add_u64(o, "epoch", c->epoch);
    pn_json_add_bool(o, "store_failing", c->store_failing);
    for (struct pn_node *n = c->nodes; n != NULL; n = n->next) {
        struct json_object *e = json_object_new_object();
        pn_json_add_str(e, "name", n->name);
        pn_json_add_str(e, "role", roles[n->role]);
        pn_json_add_bool(e, "alive", pn_node_alive(c, n));
        pn_json_add_str(e, "address", n->address);
        pn_json_add_str(e, "http", n->http);
        pn_json_add_u64(e, "incarnation", n->incarnation);
        struct json_object *job = pn_json_get(n->beat, "job");
        if (n->role == PN_ROLE_PS && job != NULL) {
            pn_json_add_u64(e, "rows", pn_json_u64(job, "rows", 0));
            pn_json_add_u64(e, "bytes", pn_json_u64(job, "bytes", 0));
        }
        if (n->role == PN_ROLE_WORKER && pn_json_get(n->beat, "stages") != NULL) pn_json_add(e, "stages", json_object_get(pn_json_get(n->beat, "stages")));
        if (n->role == PN_ROLE_WORKER && pn_json_get(n->beat, "hot_rows") != NULL) pn_json_add(e, "hot_rows", json_object_get(pn_json_get(n->beat, "hot_rows")));
        if (n->role == PN_ROLE_SERVING && pn_json_get(n->beat, "models") != NULL) pn_json_add(e, "models", json_object_get(pn_json_get(n->beat, "models")));
        json_object_array_add(nodes, e);
    }
    for (struct pn_job_run *j = c->jobs; j != NULL; j = j->next) json_object_array_add(jobs, describe(c, j));
    pn_json_add(o, "nodes", nodes);
    pn_json_add(o, "jobs", jobs);
    pn_answer_json(r, 200, o);
}

/* A key that is known: the job is there, and the answer is given. */
static bool known(struct pn_coordinator *c, struct pn_http_request *r, const char *key) {
    for (struct pn_job_run *j = c->jobs; j != NULL; j = j->next)
        if (key[0] != '\0' && strcmp(j->key, key) == 0) { /* asked twice: it runs once */
            struct json_object *o = json_object_new_object();
            if (!pn_records_flush(c)) {
                json_object_put(o);
                pn_answer_error(r, 503, "the store fails; nothing new is accepted");
                return true;
            }
            pn_json_add_str(o, "id", j->id);
            pn_answer_json(r, 200, o);
            return true;
        }
    return false;
}

static void take_job(struct pn_coordinator *c, struct pn_http_request *r, struct pn_job_run *j);

static void post_job(struct pn_coordinator *c, struct pn_http_request *r, struct json_object *body) {
    const char *text = pn_json_str(body, "text", ""), *key = pn_json_str(body, "key", "");
    if (known(c, r, key)) return;
    struct pn_job_run *j = calloc(1, sizeof *j);
    struct pn_error err = {""};
    char *report = NULL;
    if (j == NULL || strlen(key) >= sizeof j->key) {
        free(j);
        pn_answer_error(r, 400, "key: at most 127 characters");
        return;
    }
    if (pn_job_parse(&j->job, text, strlen(text), pn_json_str(body, "file", "job.yaml"), pn_json_str(body, "base", NULL), &report, &err) != PN_OK) {
        struct json_object *o = json_object_new_object();
        pn_json_add_str(o, "error", err.text);
        pn_json_add_str(o, "report", report != NULL ? report : "");
        pn_answer_json(r, 400, o);
        free(report);
        free(j);
        return;
    }
    snprintf(j->key, sizeof j->key, "%s", key);
    pn_files_look_up(c, r, j, take_job);
}

static void take_job(struct pn_coordinator *c, struct pn_http_request *r, struct pn_job_run *j) {
    struct pn_error err = {""};
    if (known(c, r, j->key)) { /* came twice while files were looked up */
        pn_job_free_run(j);
        return;
    }
    if (!pn_budget_admit(c, &j->job, &err)) {
        pn_answer_error(r, 409, "%s", err.text);
        pn_job_free_run(j);
        return;
    }
    j->text = pn_job_text(&j->job);
    snprintf(j->id, sizeof j->id, "job-%" PRIu64, ++c->job_sequence);
    j->next_epoch = 1;
    j->dirty = c->counters_dirty = true;
    struct pn_job_run **at = &c->jobs;
    while (*at != NULL) at = &(*at)->next;
    *at = j;
    if (j->text == NULL || !pn_records_flush(c)) {
        *at = NULL;
        c->job_sequence--;
        pn_job_free_run(j);
        pn_answer_error(r, 503, "the store fails, nothing new is accepted; see the coordinator's log");
        return;
    }
    struct json_object *o = json_object_new_object();
    pn_json_add_str(o, "id", j->id);
    pn_answer_json(r, 201, o);
    pn_reconcile(c);
}

static void post_checkpoint(struct pn_coordinator *c, struct pn_http_request *r, struct pn_job_run *j) {
    if (j->state != PN_RUNNING) {
        pn_answer_error(r, 409, "job %s is %s: a checkpoint is taken of a running job", j->id, pn_job_state_name(c, j));
        return;
    }
    struct pn_asker *a = calloc(1, sizeof *a);
    if (a == NULL) {
        pn_answer_error(r, 503, "no memory");
        return;
    }
    a->request = r;
    a->next = j->cut_askers;
    j->cut_askers = a;
    pn_reconcile(c);
}

static void post_restore(struct pn_coordinator *c, struct pn_http_request *r, struct pn_job_run *j, struct json_object *body) {
    uint64_t epoch = pn_json_u64(body, "epoch", 0);
    struct pn_checkpoint *k = pn_job_committed(j);
    while (k != NULL && epoch != 0 && (k->epoch != epoch || k->bad)) k = k->next;
    if (k == NULL) {
        pn_answer_error(r, 404, "job %s has no such good checkpoint", j->id);
        return;
    }
    if (pn_job_running(c) != NULL && pn_job_running(c) != j) {
        pn_answer_error(r, 409, "job %s is running; cancel it or wait", pn_job_running(c)->id);
        return;
    }
    pn_cut_abandon(c, j, "the job goes back to a checkpoint");
    for (struct pn_checkpoint *newer = j->checkpoints; newer != k; newer = newer->next) newer->bad = newer->dirty = true;
    j->state = PN_PENDING;
    j->phase = PN_TRAIN;
    j->restarts = 0;
    j->validation = j->test = (struct pn_metric){0};
    if (j->job.patience > 0) { /* its later epochs are of a life that is given up: they are trained and measured again */
        j->stopped = false;
        j->misses = 0;
        j->gate_epochs = 1; /* rises with every epoch whose validation is measured, also those that the checkpoint has already */
        if (j->best_checkpoint > k->epoch) j->best = (struct pn_metric){0};
    }
    j->dirty = true;
    if (!pn_records_flush(c)) {
        pn_answer_error(r, 503, "the store fails; it is tried again");
        return;
    }
    struct json_object *o = json_object_new_object();
    pn_json_add_u64(o, "epoch", k->epoch);
    pn_answer_json(r, 200, o);
    pn_reconcile(c);
}

static struct json_object *describe_models(struct pn_coordinator *c) {
    struct json_object *o = json_object_new_object(), *list = json_object_new_array();
    for (struct pn_model_entry *m = c->models; m != NULL; m = m->next) {
        struct json_object *e = json_object_new_object(), *versions = json_object_new_array();
        pn_json_add_str(e, "name", m->name);
        pn_json_add_u64(e, "active", m->active);
        pn_json_add_u64(e, "publication", m->publication);
        for (struct pn_version *v = m->versions; v != NULL; v = v->next) json_object_array_add(versions, pn_version_write(v));
        pn_json_add(e, "versions", versions);
        json_object_array_add(list, e);
    }
    pn_json_add(o, "models", list);
    return o;
}

static void metrics(struct pn_coordinator *c, struct pn_http_request *r) {
    char text[32768]; /* 5 figures of up to 34 segments, 120 bytes each */
    unsigned alive[3] = {0}, dead[3] = {0};
    static const char *const roles[] = {"ps", "worker", "serving"};
    for (struct pn_node *n = c->nodes; n != NULL; n = n->next) (pn_node_alive(c, n) ? alive : dead)[n->role]++;
    int n = snprintf(text, sizeof text,
                     "# HELP pinion_coordinator_leader Whether this coordinator decides.\n# TYPE pinion_coordinator_leader gauge\npinion_coordinator_leader 1\n"
                     "# HELP pinion_coordinator_epoch Starts of a coordinator on this store.\n# TYPE pinion_coordinator_epoch gauge\npinion_coordinator_epoch %" PRIu64 "\n"
                     "# HELP pinion_coordinator_store_failing Whether the last transaction failed.\n# TYPE pinion_coordinator_store_failing gauge\n"
                     "pinion_coordinator_store_failing %d\n"
                     "# HELP pinion_checkpoints_total Checkpoints committed and abandoned.\n# TYPE pinion_checkpoints_total counter\n"
                     "pinion_checkpoints_total{result=\"committed\"} %" PRIu64 "\npinion_checkpoints_total{result=\"abandoned\"} %" PRIu64 "\n"
                     "# HELP pinion_coordinator_members Nodes known.\n# TYPE pinion_coordinator_members gauge\n",
                     c->epoch, c->store_failing, c->n_checkpoints, c->n_checkpoint_failures);
    for (int i = 0; i < 3; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "pinion_coordinator_members{role=\"%s\",state=\"alive\"} %u\npinion_coordinator_members{role=\"%s\",state=\"dead\"} %u\n",
                      roles[i], alive[i], roles[i], dead[i]);
    struct pn_job_run *j = pn_job_running(c);
    if (j != NULL) {
        uint64_t samples = 0;
        for (uint32_t p = 0; p < j->n_producers; p++) samples += j->units[p].samples;
        n += snprintf(text + n, sizeof text - (size_t)n,
                      "# HELP pinion_job_examples Examples of the running job's present producers.\n# TYPE pinion_job_examples gauge\npinion_job_examples{job=\"%s\"} %" PRIu64 "\n", j->id,
                      samples);
        if (j->epoch_validation.known) n += (int)pn_metric_gauges(&j->epoch_validation, j->id, text + n, sizeof text - (size_t)n);
        uint64_t lag;
        if (pn_ledgers_lag(j, &lag))
            n += snprintf(text + n, sizeof text - (size_t)n, "# HELP pinion_stream_lag Messages of the topic that no batch had yet.\n# TYPE pinion_stream_lag gauge\npinion_stream_lag{job=\"%s\"} %" PRIu64 "\n",
                          j->id, lag);
        n += (int)pn_stream_metrics(j, text + n, sizeof text - (size_t)n);
    }
    n += (int)pn_budget_metrics(c, text + n, sizeof text - (size_t)n);
    r->answer(r, 200, "text/plain; version=0.0.4", NULL, text, (size_t)n);
}

static void page(struct pn_http_request *r) {
    static const char html[] = "<!doctype html><meta charset=utf-8><title>Pinion</title><h1>Pinion coordinator</h1>"
                               "<p><a href=/api/v1/status>status</a> <a href=/api/v1/jobs>jobs</a> <a href=/api/v1/models>models</a> <a href=/metrics>metrics</a>";
    r->answer(r, 200, "text/html; charset=utf-8", NULL, html, sizeof html - 1);
}

static void on_job(struct pn_coordinator *c, struct pn_http_request *r, const char *rest, struct json_object *body) {
    char id[32] = "";
    size_t n = strcspn(rest, "/");
    if (n < sizeof id) memcpy(id, rest, n);
    const char *verb = rest[n] == '/' ? rest + n + 1 : "";
    struct pn_job_run *j = pn_job_find(c, id);
    struct pn_error err = {""};
    bool post = strcmp(r->method, "POST") == 0;
    if (j == NULL) pn_answer_error(r, 404, "there is no job %s", id);
    else if (!post && verb[0] == '\0') {
        struct json_object *o = describe(c, j);
        pn_json_add(o, "curve", pn_curve_json(j));
        if (j->stream.history != NULL) pn_json_add(o, "stream", json_object_get(j->stream.history));
        pn_answer_json(r, 200, o);
    } else if (!post && strcmp(verb, "text") == 0) {
        struct json_object *o = json_object_new_object();
        pn_json_add_str(o, "text", j->text);
        pn_answer_json(r, 200, o);
    } else if (post && strcmp(verb, "checkpoint") == 0) post_checkpoint(c, r, j);
    else if (post && strcmp(verb, "restore") == 0) post_restore(c, r, j, body);
    else if (post && strcmp(verb, "cancel") == 0) {
        if (j->state != PN_RUNNING && j->state != PN_PENDING) {
            pn_answer_error(r, 409, "job %s has ended: %s", j->id, pn_job_state_name(c, j));
            return;
        }
        pn_job_end(c, j, PN_CANCELLED, "cancelled by the operator");
        if (pn_records_flush(c)) pn_answer_json(r, 200, describe(c, j));
        else pn_answer_error(r, 503, "the store fails; it is tried again");
        pn_reconcile(c);
    } else if (post && strcmp(verb, "publish") == 0) {
        if (!pn_publication_start(c, j, pn_json_bool(body, "force", false), r, &err)) pn_answer_error(r, 409, "%s", err.text);
        pn_reconcile(c);
    } else pn_answer_error(r, 404, "no such action; allowed: POST checkpoint, publish, restore, cancel");
}

void pn_coordinator_http(void *core, struct pn_http_request *r) {
    struct pn_coordinator *c = core;
    bool post = strcmp(r->method, "POST") == 0;
    struct json_object *body = NULL;
    struct pn_error err = {""};
    if (!post && strcmp(r->method, "GET") != 0) {
        pn_answer_error(r, 405, "GET or POST");
        return;
    }
    if (!c->ready) {
        pn_answer_error(r, 503, "the store cannot be used; see the coordinator's log");
        return;
    }
    if (post && r->body_bytes > 0 && (body = pn_json_parse((const char *)r->body, r->body_bytes, &err)) == NULL) {
        pn_answer_error(r, 400, "%s", err.text);
        return;
    }
    const char *path = r->path;
    if (strcmp(path, "/") == 0) page(r);
    else if (strcmp(path, "/metrics") == 0) metrics(c, r);
    else if (strcmp(path, "/health") == 0) r->answer(r, 200, "application/json", NULL, "{\"ready\":true}", 14);
    else if (strcmp(path, "/api/v1/status") == 0) get_status(c, r);
    else if (strcmp(path, "/api/v1/jobs") == 0 && post) post_job(c, r, body);
    else if (strcmp(path, "/api/v1/jobs") == 0) {
        struct json_object *o = json_object_new_object(), *jobs = json_object_new_array();
        for (struct pn_job_run *j = c->jobs; j != NULL; j = j->next) json_object_array_add(jobs, describe(c, j));
        pn_json_add(o, "jobs", jobs);
        pn_answer_json(r, 200, o);
    } else if (strncmp(path, "/api/v1/jobs/", 13) == 0) on_job(c, r, path + 13, body);
    else if (strcmp(path, "/api/v1/privacy") == 0) pn_answer_json(r, 200, pn_budget_describe(c));
    else if (strcmp(path, "/api/v1/forget") == 0 && post) pn_forget_post(c, r, body);
    else if (strcmp(path, "/api/v1/forget") == 0) pn_answer_json(r, 200, pn_forget_describe(c));
    else if (strcmp(path, "/api/v1/models") == 0) pn_answer_json(r, 200, describe_models(c));
    else if (strncmp(path, "/api/v1/models/", 15) == 0 && post && strlen(path) > 24 && strcmp(path + strlen(path) - 9, "/rollback") == 0) {
        char name[64] = "";
        size_t n = strlen(path) - 24;
        if (n < sizeof name) memcpy(name, path + 15, n);
        struct pn_model_entry *m = pn_model_find(c, name, false);
        if (m == NULL) pn_answer_error(r, 404, "there is no model %s", name);
        else if (!pn_model_rollback(c, m, pn_json_u64(body, "version", 0), &err)) pn_answer_error(r, 409, "%s", err.text);
        else if (!pn_records_flush(c)) pn_answer_error(r, 503, "the store fails; it is tried again");
        else {
            struct json_object *o = json_object_new_object();
            pn_json_add_u64(o, "version", m->active);
            pn_json_add_u64(o, "publication", m->publication);
            pn_answer_json(r, 200, o);
            pn_reconcile(c);
        }
    } else pn_answer_error(r, 404, "no such page: %s", path);
    if (body != NULL) json_object_put(body);
}
