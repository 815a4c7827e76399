/* Plans and beats of a worker. What it runs is in producer.c and evaluate.c. */
#include "worker/worker.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/json.h"
#include "worker/audit.h"
#include "worker/internal.h"
#include "worker/secure.h"
#include "secure/plan.h"

struct pn_worker {
    struct pn_env *env;
    struct pn_worker_options options;
    pn_peer coordinator;
    uint64_t incarnation, epoch, revision, beat_ms;
    struct pn_timer beat;
    struct json_object *plan;      /* the last one taken: it is worked towards for ever */
    struct pn_run *run;
    struct pn_statistics *counting;
    struct pn_vocabulary_run *reading;
    bool seeded, changing, applying;
    uint64_t cut_epoch, cut_upto;  /* 0: none */
    uint64_t samples_before, rate_ns;
    double rate;
    char public_key[65];           /* hex, of the identity */
};

const char *const pn_stage_names[PN_STAGES] = {"read", "features", "pull", "compute", "push", "copy_in", "kernels", "all_reduce", "copy_out"};

static void apply_plan(struct pn_worker *w);

/* ---- the run of a job ---- */

void pn_run_fail(struct pn_run *run, enum pn_result code, const char *text) {
    if (run->failed) return;
    run->failed = true;
    run->code = code;
    pn_fail(&run->error, code, "%s", text);
    pn_log(run->env, PN_ERROR, "job %s: %s", run->job_id, run->error.text);
    run->changed(run->owner);
}

void pn_run_hide_row(struct pn_run *run, enum pn_result r, struct pn_error *why) {
    const struct pn_worker *w = run->owner;
    if (r != PN_INVALID || run->job.privacy.rows == 0) return;
    pn_log(run->env, PN_ERROR, "job %s: %s", run->job_id, why->text);
    pn_fail(why, r, "the training data cannot be read as the job says; what is wrong and where is in the log of %s, and nowhere else, as the job is private", w->options.name);
}

void pn_run_unref(struct pn_run *run) {
    if (--run->refs > 0) return;
    pn_mirror_close(run->mirror); /* a computation may have read it until now */
    free(run->statistics);
    free(run->offered);
    pn_vocabularies_close(&run->vocabularies);
    if (run->model != NULL) json_object_put(run->model);
    pn_job_free(&run->job);
    free(run);
}

static void close_run(struct pn_worker *w) {
    struct pn_run *run = w->run;
    if (run == NULL) return;
    pn_statistics_close(w->counting);
    w->counting = NULL;
    pn_vocabularies_stop(w->reading);
    w->reading = NULL;
    while (run->producers != NULL) pn_producer_close(run->producers);
    pn_holder_close(run->holder);
    run->holder = NULL;
    pn_evaluation_close(run->validation);
    pn_evaluation_close(run->evaluation);
    run->validation = run->evaluation = NULL;
    pn_client_close(run->client);
    run->client = NULL;
    w->run = NULL;
    w->seeded = false;
    w->cut_epoch = w->cut_upto = 0;
    pn_run_unref(run);
}

/* ---- beats ---- */

static void add_result(struct json_object *o, const struct pn_evaluation_result *r) {
    pn_json_add_str(o, "task", r->task);
    pn_json_add_u64(o, "epoch", r->epoch);
    pn_json_add_str(o, "state", !r->done ? "running" : r->code == PN_OK ? "done" : "failed");
    if (r->done && r->code == PN_OK) {
        const struct { const char *name; double value; } figures[] = {{"auc", r->auc}, {"logloss", r->logloss}, {"ne", r->ne}, {"calibration", r->calibration}, {"ece", r->ece}, {"gauc", r->gauc},
            {"head1_auc", r->head_auc[0]}, {"head2_auc", r->head_auc[1]}, {"head3_auc", r->head_auc[2]},
            {"hr", r->hr}, {"ndcg", r->ndcg}, {"recall", r->recall}, {"mrr", r->mrr}};
        for (size_t i = 0; i < sizeof figures / sizeof *figures; i++)
            if (isfinite(figures[i].value)) pn_json_add_double(o, figures[i].name, figures[i].value); /* what is not there was not measured */
        pn_json_add_u64(o, "rows", r->rows);
    } else if (r->done) {
        pn_json_add_str(o, "error", r->error.text);
    }
}

static struct json_object *model_of(const struct pn_run *run) {
    struct json_object *model = json_object_new_object(), *blocks = json_object_new_array();
    pn_json_add(model, "statistics", run->file.name[0] != '\0' ? pn_artifact_write(&run->file) : json_object_new_string(run->statistics != NULL ? run->statistics : "{}"));
    pn_json_add_u64(model, "parameters", run->n_parameters);
    struct pn_net *net = NULL;
    struct pn_error err;
    if (run->job.model != PN_MODEL_AUDIT && pn_net_open(&net, &run->job, run->n_dense_inputs, &err) == PN_OK) {
        const char *name;
        size_t offset, shape[2];
        for (size_t i = 0; pn_net_block(net, i, &name, &offset, shape); i++) {
            struct json_object *b = json_object_new_object(), *s = json_object_new_array();
            pn_json_add_str(b, "name", name);
            pn_json_add_u64(b, "offset", offset);
            json_object_array_add(s, json_object_new_uint64(shape[0]));
            json_object_array_add(s, json_object_new_uint64(shape[1]));
            pn_json_add(b, "shape", s);
            json_object_array_add(blocks, b);
        }
        pn_net_close(net);
    }
    pn_json_add(model, "blocks", blocks);
    return model;
}

static void send_beat(struct pn_worker *w) {
    struct json_object *o = json_object_new_object(), *plan = json_object_new_array();
    pn_json_add_str(o, "role", "worker");
    pn_json_add_str(o, "name", w->options.name);
    pn_json_add_u64(o, "incarnation", w->incarnation);
    pn_json_add_str(o, "address", "");
    pn_json_add_str(o, "http", w->options.http);
    if (w->options.has_identity) pn_json_add_str(o, "identity", w->public_key);
    json_object_array_add(plan, json_object_new_uint64(w->epoch));
    json_object_array_add(plan, json_object_new_uint64(w->revision));
    pn_json_add(o, "plan", plan);
    struct pn_run *run = w->run;
    struct json_object *job = NULL, *cut = NULL, *validation = NULL, *evaluation = NULL, *model = NULL;
    if (run != NULL) {
        job = json_object_new_object();
        pn_json_add_str(job, "id", run->job_id);
        pn_json_add_u64(job, "generation", run->generation);
        pn_json_add_str(job, "state", run->failed ? "failed" : w->seeded ? "running" : "starting");
        if (run->failed) {
            pn_json_add_str(job, "code", pn_result_name(run->code));
            pn_json_add_str(job, "error", run->error.text);
        }
        if (run->holder != NULL) pn_json_add(job, "secure", pn_holder_state(run->holder));
        struct json_object *list = json_object_new_array();
        bool drained = w->cut_epoch != 0;
        uint64_t samples = 0;
        for (struct pn_producer *p = run->producers; p != NULL; p = pn_producer_next(p)) {
            struct pn_producer_state s;
            pn_producer_look(p, &s);
            if (s.fenced) continue;
            struct json_object *e = json_object_new_object();
            pn_json_add_u64(e, "producer", s.producer);
            pn_json_add_u64(e, "incarnation", s.incarnation);
            pn_json_add_u64(e, "started", s.started);
            pn_json_add_u64(e, "clock", s.clock);
            pn_json_add_bool(e, "finished", s.finished && s.clock >= s.started);
            pn_json_add_u64(e, "samples", s.samples);
            pn_json_add_double(e, "loss_sum", s.loss_sum);
            pn_json_add_u64(e, "loss_rows", s.loss_rows);
            pn_json_add_u64(e, "epoch", s.epoch);
            pn_json_add_double(e, "fraction", s.fraction);
            pn_json_add_double(e, "seconds", s.seconds);
            pn_json_add_bool(e, "ring_full", s.ring_full);
            pn_json_add_bool(e, "waiting", s.waiting);
            if (s.lag != UINT64_MAX) pn_json_add_u64(e, "lag", s.lag);
            if (run->job.stream.window > 0) pn_json_add(e, "windows", pn_producer_windows(p));
            struct json_object *deal = pn_producer_proposal(p);
            if (deal != NULL) pn_json_add(e, "deal", deal);
            json_object_array_add(list, e);
            samples += s.samples;
            drained = drained && s.started == s.clock && (s.clock >= w->cut_upto || s.finished);
        }
        pn_json_add(o, "producers", list);
        if (w->cut_epoch != 0) {
            cut = json_object_new_object();
            pn_json_add_u64(cut, "epoch", w->cut_epoch);
            pn_json_add_u64(cut, "upto", w->cut_upto);
            pn_json_add_bool(cut, "drained", drained);
        }
        if (run->validation != NULL && pn_evaluation_look(run->validation)->done) add_result(validation = json_object_new_object(), pn_evaluation_look(run->validation));
        if (run->evaluation != NULL) add_result(evaluation = json_object_new_object(), pn_evaluation_look(run->evaluation));
        if ((w->seeded || run->offered != NULL) && run->model == NULL) run->model = model_of(run);
        if (run->model != NULL) model = json_object_get(run->model);
        struct json_object *times = json_object_new_object();
        for (int i = 0; i < PN_STAGES; i++)
            if (i < PN_STAGE_COPY_IN || run->stage_seconds[i] > 0) pn_json_add_double(times, pn_stage_names[i], run->stage_seconds[i]);
        pn_json_add(o, "stages", times);
        if (run->rows_wanted > 0) {
            struct json_object *rows = json_object_new_object();
            pn_json_add_u64(rows, "wanted", run->rows_wanted);
            pn_json_add_u64(rows, "pulled", run->rows_pulled);
            pn_json_add_u64(rows, "held", pn_run_rows_held(run));
            pn_json_add_u64(rows, "evicted", run->rows_evicted);
            pn_json_add(o, "hot_rows", rows);
        }
        uint64_t now = pn_now_ns(w->env);
        if (now - w->rate_ns > 1000000000u) {
            w->rate = samples >= w->samples_before ? (double)(samples - w->samples_before) / ((double)(now - w->rate_ns) / 1e9) : 0;
            w->samples_before = samples;
            w->rate_ns = now;
        }
        pn_json_add_double(o, "samples_per_s", w->rate);
    }
    pn_json_add(o, "job", job);
    pn_json_add(o, "cut", cut);
    pn_json_add(o, "validation", validation);
    pn_json_add(o, "evaluation", evaluation);
    pn_json_add(o, "model", model);
    struct pn_msg *m = pn_control_write(w->env, PN_BEAT, w->epoch, w->revision, o);
    if (m != NULL) pn_send(w->env, w->coordinator, m);
    json_object_put(o);
}

/* After each epoch of producer 0, its owner validates while training goes on (with early stopping the coordinator asks instead, and training waits). */
static void validate(struct pn_worker *w) {
    struct pn_run *run = w->run;
    if (run == NULL || run->failed || !run->job.evaluate_every_epoch || run->job.patience > 0 || !run->job.validation.present || run->job.model == PN_MODEL_AUDIT) return;
    if (run->validation != NULL && !pn_evaluation_look(run->validation)->done) return;
    for (struct pn_producer *p = run->producers; p != NULL; p = pn_producer_next(p)) {
        struct pn_producer_state s;
        pn_producer_look(p, &s);
        if (s.producer != 0 || s.finished || s.epoch == 0) continue;
        if (run->validation != NULL && pn_evaluation_look(run->validation)->epoch >= s.epoch) continue;
        pn_evaluation_close(run->validation);
        run->validation = pn_evaluation_open(run, &run->job.validation, "validation", s.epoch);
    }
}

static void beat_again(struct pn_timer *t) {
    struct pn_worker *w = t->owner;
    validate(w);
    if (w->run != NULL)
        for (struct pn_producer *p = w->run->producers; p != NULL; p = pn_producer_next(p)) pn_producer_poke(p);
    w->changing = false;
    send_beat(w);
    pn_timer_start(w->env, &w->beat, w->beat_ms);
}

/* Something worth a beat: soon, and one for all that happens in this event. */
static void changed(void *owner) {
    struct pn_worker *w = owner;
    if (w->changing) return;
    w->changing = true;
    pn_timer_start(w->env, &w->beat, 0);
}

/* ---- starting a job ---- */

/* As a plan has them: the name of their file, or text (of jobs that prepare nothing, and of records from before there were files). */
static void take_statistics(struct pn_run *run, struct json_object *o) {
    struct pn_artifact file;
    if (run->statistics != NULL || run->given || o == NULL) return;
    if (json_object_is_type(o, json_type_string)) {
        run->statistics = strdup(json_object_get_string(o));
    } else if (!pn_artifact_read(o, &file)) {
        pn_run_fail(run, PN_INVALID, "a plan names no sound file for the statistics of the features");
    } else if (run->offered != NULL && strcmp(file.digest, run->file.digest) == 0) { /* its own: read by nobody else so far, and the same bytes */
        run->statistics = run->offered;
        run->offered = NULL;
    } else {
        run->file = file;
        run->given = true;
    }
}

static void open_run(struct pn_worker *w, struct json_object *job) {
    struct pn_run *run = calloc(1, sizeof *run);
    if (run == NULL) return;
    const char *text = pn_json_str(job, "text", "");
    *run = (struct pn_run){.refs = 1, .env = w->env, .changed = changed, .owner = w, .generation = pn_json_u64(job, "generation", 0),
                           .n_producers = (uint32_t)pn_json_u64(job, "n_producers", 1), .topic = w->options.topic, .parsed = w->options.parsed};
    snprintf(run->job_id, sizeof run->job_id, "%s", pn_json_str(job, "id", ""));
    w->run = run;
    w->samples_before = 0;
    struct pn_error err = {""};
    enum pn_result r = pn_job_parse(&run->job, text, strlen(text), "job", NULL, NULL, &err);
    if (r == PN_OK && (run->n_producers == 0 || run->n_producers > PN_MAX_PRODUCERS)) r = pn_fail(&err, PN_INVALID, "a plan with %u producers", run->n_producers);
    if (r != PN_OK) {
        pn_run_fail(run, r, err.text);
        return;
    }
    for (size_t i = 0; i < run->job.n_fields; i++) {
        const struct pn_field *f = &run->job.fields[i];
        run->n_dense_inputs += !pn_field_keyed(f);
    }
    if (run->job.model != PN_MODEL_AUDIT) {
        struct pn_net *net;
        r = pn_net_open(&net, &run->job, run->n_dense_inputs, &err);
        if (r != PN_OK) {
            pn_run_fail(run, r, err.text);
            return;
        }
        run->n_parameters = pn_net_parameters(net);
        run->n_dense_rows = (run->n_parameters + PN_DENSE_ROW - 1) / PN_DENSE_ROW;
        pn_net_close(net);
        r = pn_run_choose_device(run, w->options.gpu, &err);
        if (r != PN_OK) {
            pn_run_fail(run, r, err.text);
            return;
        }
    }
    run->client = pn_client_open(w->env, &run->job, run->job_id);
    if (run->client == NULL) pn_run_fail(run, PN_NO_MEMORY, "no memory for a client");
    else if (run->job.privacy.rows > 0 && pn_mirror_open(&run->mirror, w->env, &run->job, run->job_id, &err) != PN_OK) pn_run_fail(run, PN_INVALID, err.text);
    snprintf(run->dir, sizeof run->dir, "%s", pn_json_str(job, "dir", "."));
    take_statistics(run, pn_json_get(job, "statistics"));
    if (run->statistics != NULL || run->given || run->failed) return;
    if (run->job.model == PN_MODEL_AUDIT) run->statistics = strdup("{}");
    else if (run->job.train.kafka.brokers[0] != '\0') run->statistics = pn_statistics_given(&run->job);
}

static void counted(void *owner) {
    struct pn_worker *w = owner;
    struct pn_run *run = w->run;
    if (run == NULL || run->failed) return;
    changed(w); /* what a job prepares is used by nobody before it is durable */
    apply_plan(w);
}

static void vocabularies_there(void *owner) {
    struct pn_worker *w = owner;
    if (w->run != NULL && !w->run->failed) apply_plan(w);
}

/* Most jobs have none. */
static bool has_vocabularies(struct pn_run *run) {
    for (size_t i = 0; i < run->job.n_fields; i++)
        if (run->job.fields[i].vocabulary.kind != PN_VOCABULARY_NONE) return run->has_vocabularies;
    return true;
}

static void seed_done(void *owner, enum pn_result r) { (void)owner; (void)r; }

/* The first values of the dense parameters: the same from every worker. */
static void seed(struct pn_worker *w) {
    struct pn_run *run = w->run;
    if (run->job.model == PN_MODEL_AUDIT) return;
    struct pn_net *net;
    float *values = calloc(run->n_dense_rows * PN_DENSE_ROW, sizeof *values);
    uint64_t *keys = calloc(run->n_dense_rows, sizeof *keys);
    if (values != NULL && keys != NULL && pn_net_open(&net, &run->job, run->n_dense_inputs, NULL) == PN_OK) {
        struct pn_error err = {""};
        pn_net_init(net, run->job.seed, values);
        const enum pn_result r = pn_start_dense(run, net, values, &err);
        for (size_t i = 0; i < run->n_dense_rows; i++) keys[i] = pn_net_row_key(net, i);
        pn_net_close(net);
        struct pn_client_part part = {run->job.i_dense_table, run->n_dense_rows, keys, values, NULL};
        if (r != PN_OK) pn_run_fail(run, r, err.text);
        else pn_client_seed(run->client, &part, seed_done, w);
    } else {
        pn_run_fail(run, PN_NO_MEMORY, "no memory for the dense parameters");
    }
    free(values);
    free(keys);
}

/* ---- plans ---- */

static struct pn_producer *find(struct pn_run *run, uint64_t id) {
    for (struct pn_producer *p = run->producers; p != NULL; p = pn_producer_next(p)) {
        struct pn_producer_state s;
        pn_producer_look(p, &s);
        if (s.producer == id) return p;
    }
    return NULL;
}

static void take_producers(struct pn_worker *w, struct json_object *list) {
    struct pn_run *run = w->run;
    for (struct pn_producer *p = run->producers, *next; p != NULL; p = next) { /* what is no longer ours */
        struct pn_producer_state s;
        next = pn_producer_next(p);
        pn_producer_look(p, &s);
        bool ours = false;
        for (size_t i = 0; i < pn_json_length(list); i++)
            ours = ours || (pn_json_u64(pn_json_at(list, i), "producer", UINT64_MAX) == s.producer && pn_json_u64(pn_json_at(list, i), "incarnation", 0) == s.incarnation);
        if (!ours) pn_producer_close(p);
    }
    for (size_t i = 0; i < pn_json_length(list); i++) {
        struct json_object *e = pn_json_at(list, i);
        uint64_t id = pn_json_u64(e, "producer", UINT64_MAX), incarnation = pn_json_u64(e, "incarnation", 0), first = pn_json_u64(e, "first_step", 1);
        if (id >= run->n_producers || first == 0 || find(run, id) != NULL) continue;
        if (pn_producer_open(run, (uint32_t)id, (uint32_t)incarnation, first) == NULL) pn_run_fail(run, PN_NO_MEMORY, "no memory for a producer");
    }
    for (size_t i = 0; i < pn_json_length(list); i++) {
        struct json_object *e = pn_json_at(list, i), *ledger = pn_json_get(e, "ledger");
        struct pn_producer *p = ledger != NULL ? find(run, pn_json_u64(e, "producer", UINT64_MAX)) : NULL;
        if (p != NULL) pn_producer_ledger(p, ledger);
    }
}

/* A secure job: this process is one of its data holders, with one producer, or has no part in it. */
static void take_holder(struct pn_worker *w, struct json_object *job) {
    struct pn_run *run = w->run;
    struct json_object *list = pn_json_get(job, "producers");
    const uint64_t id = pn_json_u64(pn_json_at(list, 0), "producer", UINT64_MAX);
    if (run->holder != NULL && (pn_json_length(list) != 1 || id != pn_holder_producer(run->holder))) {
        pn_holder_close(run->holder);
        run->holder = NULL;
    }
    if (pn_json_length(list) != 1 || id >= run->n_producers || !w->options.has_identity) return;
    if (run->holder == NULL && (run->holder = pn_holder_open(run, (uint32_t)id, w->coordinator, w->options.identity)) == NULL) pn_run_fail(run, PN_NO_MEMORY, "no memory for a data holder's part");
    else if (run->holder != NULL) pn_holder_plan(run->holder, job);
}

static void take_cut(struct pn_worker *w, struct json_object *cut) {
    w->cut_epoch = pn_json_u64(cut, "epoch", 0);
    w->cut_upto = pn_json_u64(cut, "upto", 0);
    for (struct pn_producer *p = w->run->producers; p != NULL; p = pn_producer_next(p)) {
        struct pn_producer_state s;
        pn_producer_look(p, &s);
        pn_producer_limit(p, w->cut_epoch == 0 ? UINT64_MAX : s.started > w->cut_upto ? s.started : w->cut_upto);
    }
}

static void take_gate(struct pn_worker *w, struct json_object *gate) {
    for (struct pn_producer *p = w->run->producers; p != NULL; p = pn_producer_next(p))
        pn_producer_gate(p, gate != NULL ? pn_json_u64(gate, "epochs", 0) : UINT64_MAX, pn_json_u64(gate, "step", 0));
}

static void take_evaluation(struct pn_worker *w, struct json_object *e) {
    struct pn_run *run = w->run;
    const char *task = pn_json_str(e, "task", "");
    if (run->evaluation != NULL && strcmp(pn_evaluation_look(run->evaluation)->task, task) != 0) {
        pn_evaluation_close(run->evaluation);
        run->evaluation = NULL;
    }
    if (e == NULL || run->evaluation != NULL) return;
    bool test = strcmp(pn_json_str(e, "split", ""), "test") == 0;
    run->evaluation = pn_evaluation_open(run, test ? &run->job.test : &run->job.validation, task, 0);
    if (run->evaluation == NULL) pn_run_fail(run, PN_NO_MEMORY, "no memory for an evaluation");
}

/* Producer 0's owner is the one that prepares. */
static bool owns_first(struct json_object *job) {
    struct json_object *list = pn_json_get(job, "producers");
    for (size_t i = 0; i < pn_json_length(list); i++)
        if (pn_json_u64(pn_json_at(list, i), "producer", UINT64_MAX) == 0) return true;
    return false;
}

static void apply_plan(struct pn_worker *w) {
    struct json_object *job = pn_json_get(w->plan, "job");
    if (w->run != NULL && (job == NULL || strcmp(pn_json_str(job, "id", ""), w->run->job_id) != 0 || pn_json_u64(job, "generation", 0) != w->run->generation)) close_run(w);
    if (job == NULL) return;
    if (w->run == NULL) open_run(w, job);
    struct pn_run *run = w->run;
    if (run == NULL || run->failed) return;
    take_statistics(run, pn_json_get(job, "statistics"));
    if (run->failed) return;
    const bool known = run->statistics != NULL || run->given;
    if (!known && pn_job_prepares(&run->job) && !(owns_first(job) && run->offered == NULL)) return; /* one worker does it, the others wait */
    if (!known) {
        if (w->counting == NULL && (w->counting = pn_statistics_start(run, counted, w)) == NULL) pn_run_fail(run, PN_NO_MEMORY, "no memory for statistics");
        return;
    }
    if (run->statistics == NULL || !has_vocabularies(run)) {
        if (w->reading == NULL && (w->reading = pn_vocabularies_start(run, vocabularies_there, w)) == NULL) pn_run_fail(run, PN_NO_MEMORY, "no memory for vocabularies");
        return;
    }
    struct pn_shard_map map;
    if (!pn_shard_map_read(job, &map)) {
        pn_log(w->env, PN_WARN, "a plan without a sound shard map");
        return;
    }
    if (!w->seeded) {
        for (uint32_t s = 0; s < map.n_shards; s++)
            if (map.shards[s].term == 0) return; /* not all are up yet */
    }
    pn_client_map(run->client, &map);
    if (run->mirror != NULL) pn_mirror_map(run->mirror, &map);
    pn_hot_map(&run->hot, &map);
    if (!w->seeded) {
        w->seeded = true;
        seed(w);
    }
    if (run->job.privacy.secure) take_holder(w, job);
    else take_producers(w, pn_json_get(job, "producers"));
    struct json_object *steps = pn_json_get(pn_json_get(job, "committed"), "steps");
    for (size_t i = 0; i < pn_json_length(steps); i++) pn_client_committed(run->client, (uint32_t)i, json_object_get_uint64(pn_json_at(steps, i)));
    take_gate(w, pn_json_get(job, "gate"));
    take_cut(w, pn_json_get(w->plan, "cut"));
    take_evaluation(w, pn_json_get(w->plan, "evaluate"));
    for (struct pn_producer *p = run->producers; p != NULL; p = pn_producer_next(p)) pn_producer_poke(p);
}

static void message(void *core, pn_peer from, struct pn_msg *m) {
    struct pn_worker *w = core;
    struct pn_frame f;
    if (pn_frame_open(&f, m->data, m->n_bytes, NULL) != PN_OK) return;
    if (f.kind == PN_PLAN && from == w->coordinator) {
        struct pn_error err;
        bool old = f.term < w->epoch || (f.term == w->epoch && f.request < w->revision);
        struct json_object *plan = old ? NULL : pn_control_read(&f, &err);
        if (plan != NULL) {
            bool repeated = f.term == w->epoch && f.request == w->revision;
            w->epoch = f.term;
            w->revision = f.request;
            if (w->plan != NULL) json_object_put(w->plan);
            w->plan = plan;
            w->beat_ms = pn_json_u64(plan, "beat_ms", 100);
            if (w->beat_ms < 5 || w->beat_ms > 60000) w->beat_ms = 100;
            if (!repeated) apply_plan(w);
            changed(w);
        }
    } else if (f.kind >= 40 && f.kind <= 55) { /* privacy/secagg/round.h */
        if (w->run != NULL && w->run->holder != NULL) pn_holder_message(w->run->holder, from, &f);
    } else if (w->run != NULL && w->run->client != NULL) {
        if (w->run->mirror != NULL) pn_mirror_message(w->run->mirror, from, &f);
        pn_client_message(w->run->client, from, m, &f);
    }
    pn_frame_close(&f);
}

/* ---- life ---- */

struct pn_worker *pn_worker_open(struct pn_env *env, const struct pn_worker_options *options) {
    struct pn_worker *w = calloc(1, sizeof *w);
    if (w == NULL) return NULL;
    w->env = env;
    w->options = *options;
    w->incarnation = env->ops->random(env) | 1;
    w->beat_ms = 100;
    w->beat = (struct pn_timer){.fire = beat_again, .owner = w};
    w->coordinator = env->ops->connect(env, options->coordinator);
    char *hex = options->has_identity ? pn_secure_hex(options->identity + 32, 32) : NULL;
    if (hex != NULL) memcpy(w->public_key, hex, sizeof w->public_key);
    w->options.has_identity = hex != NULL;
    free(hex);
    return w;
}

void pn_worker_close(struct pn_worker *w) {
    if (w == NULL) return;
    pn_timer_stop(w->env, &w->beat);
    close_run(w);
    if (w->plan != NULL) json_object_put(w->plan);
    free(w);
}

static void start(void *core) { beat_again(&((struct pn_worker *)core)->beat); }

const struct pn_core_ops pn_worker_core = {.start = start, .message = message};

void pn_worker_http(void *core, struct pn_http_request *r) {
    struct pn_worker *w = core;
    char text[4096];
    int n = 0;
    if (strcmp(r->path, "/health") == 0) {
        n = snprintf(text, sizeof text, "{\"ready\":true}");
        r->answer(r, 200, "application/json", NULL, text, (size_t)n);
        return;
    }
    if (strcmp(r->path, "/metrics") != 0) {
        n = snprintf(text, sizeof text, "{\"error\":\"no such page: /metrics and /health are here\"}");
        r->answer(r, 404, "application/json", NULL, text, (size_t)n);
        return;
    }
    uint64_t samples = 0, rows = 0;
    double loss = 0;
    for (struct pn_producer *p = w->run != NULL ? w->run->producers : NULL; p != NULL; p = pn_producer_next(p)) {
        struct pn_producer_state s;
        pn_producer_look(p, &s);
        samples += s.samples;
        rows += s.loss_rows;
        loss += s.loss_sum;
    }
    n = snprintf(text, sizeof text,
                 "# HELP pinion_worker_examples_total Examples trained on.\n# TYPE pinion_worker_examples_total counter\npinion_worker_examples_total %" PRIu64 "\n"
                 "# HELP pinion_job_loss Mean log loss before the update.\n# TYPE pinion_job_loss gauge\npinion_job_loss %.9g\n"
                 "# HELP pinion_worker_stage_seconds_total Time steps spent in a stage.\n# TYPE pinion_worker_stage_seconds_total counter\n",
                 samples, rows > 0 ? loss / (double)rows : 0.0);
    for (int i = 0; i < PN_STAGES && w->run != NULL; i++)
        if (i < PN_STAGE_COPY_IN || w->run->stage_seconds[i] > 0) n += snprintf(text + n, sizeof text - (size_t)n, "pinion_worker_stage_seconds_total{stage=\"%s\"} %.6f\n", pn_stage_names[i], w->run->stage_seconds[i]);
    if (w->run != NULL && w->run->rows_wanted > 0)
        n += snprintf(text + n, sizeof text - (size_t)n,
                      "# HELP pinion_worker_rows_wanted_total Rows that steps of jobs with a deviceCache read.\n# TYPE pinion_worker_rows_wanted_total counter\npinion_worker_rows_wanted_total %" PRIu64 "\n"
                      "# HELP pinion_worker_rows_pulled_total Those that were not on the device.\n# TYPE pinion_worker_rows_pulled_total counter\npinion_worker_rows_pulled_total %" PRIu64 "\n"
                      "# HELP pinion_worker_rows_held Rows in the caches of this worker's devices.\n# TYPE pinion_worker_rows_held gauge\npinion_worker_rows_held %" PRIu64 "\n",
                      w->run->rows_wanted, w->run->rows_pulled, pn_run_rows_held(w->run));
    r->answer(r, 200, "text/plain; version=0.0.4", NULL, text, (size_t)n);
}
