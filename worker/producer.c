/* One data shard's pipeline. The idea: a batch is a function of (job, producer, step), so a step that is run again after a crash carries the same push id
 * and the same keys. Batches are prepared ahead (read, features); a step starts when its batch and the knowledge whether another follows are there
 * (the last push says that it is the last); several steps are in flight, computed and pushed in order.
 *
 * Everything runs on the core's thread but two pure computations. A closed producer frees itself when its last computation returned. */
#include <stdlib.h>
#include <string.h>
#include "worker/steps.h"

void pn_producer_stage(struct pn_run *run, enum pn_stage stage, uint64_t since_ns) {
    run->stage_seconds[stage] += (double)(pn_now_ns(run->env) - since_ns) / 1e9;
}

void pn_step_free(struct pn_step *s) {
    for (size_t t = 0; t < PN_MAX_TABLES; t++) {
        free(s->rows[t]);
        free(s->gradients[t]);
    }
    free(s->scores);
    free(s->segments);
    if (s->have_batch) pn_batch_free(&s->batch);
    pn_private_push_free(&s->push);
    pn_hot_free(&s->hot);
    pn_draws_close(&s->noise);
    free(s);
}

void pn_steps_append(struct pn_step **list, struct pn_step *s) {
    while (*list != NULL) list = &(*list)->next;
    s->next = NULL;
    *list = s;
}

static void free_producer(struct pn_producer *p) {
    while (p->prepared != NULL) {
        struct pn_step *s = p->prepared;
        p->prepared = s->next;
        pn_step_free(s);
    }
    while (p->running != NULL) {
        struct pn_step *s = p->running;
        p->running = s->next;
        pn_step_free(s);
    }
    if (p->preparing != NULL) pn_step_free(p->preparing);
    if (p->reader != NULL) pn_reader_close(p->reader);
    if (p->features != NULL) pn_features_close(p->features);
    if (p->devices != NULL) pn_devices_close(p->devices);
    free(p->bring);
    if (p->net != NULL) pn_net_close(p->net);
    free(p->dense_keys);
    pn_private_close(p->private);
    pn_windows_close(p->windows);
    if (p->ledger != NULL) json_object_put(p->ledger);
    pn_run_unref(p->run);
    free(p);
}

bool pn_producer_gone(struct pn_producer *p) {
    if (!p->closed) return false;
    if (!p->computing && !p->collecting && !p->in_features) free_producer(p);
    return true;
}

uint64_t pn_step_seed(const struct pn_step *s) { return s->owner->private != NULL ? s->secret_seed : pn_mix64(s->owner->run->job.seed ^ pn_mix64(s->step * PN_MAX_PRODUCERS + s->owner->id)); }

bool pn_producer_topic(const struct pn_producer *p) { return p->run->job.train.kafka.brokers[0] != '\0'; }

bool pn_producer_audits(const struct pn_producer *p) { return p->run->job.model == PN_MODEL_AUDIT; }

/* The next step is of an epoch that is not open yet. */
bool pn_producer_gated(const struct pn_producer *p) { return p->prepared != NULL && p->prepared->epoch >= p->gate_epochs && p->next_step > p->gate_step; }

void pn_producer_fail(struct pn_producer *p, enum pn_result r, const char *text) { pn_run_fail(p->run, r, text); }

/* ---- what happens next ---- */

static bool may_start(struct pn_producer *p) {
    const struct pn_job *job = &p->run->job;
    size_t most = job->consistency == PN_SYNC ? 1 : job->max_in_flight;
    if (p->finished || p->fenced || p->last_started || p->n_running >= most || p->next_step > p->limit || pn_producer_gated(p)) return false;
    /* sync: the rows must be those behind step next - 1 on every shard, also on one that is being brought up again */
    if (job->consistency == PN_SYNC && pn_client_clock(p->run->client, p->id) != p->next_step - 1) return false;
    /* A full ring waits for a checkpoint; but under a cut the steps that others wait for must go on, or it could never be taken. */
    return p->limit != UINT64_MAX || !pn_client_ring_full(p->run->client, p->id);
}

void pn_producer_advance(struct pn_producer *p) {
    if (p->run->failed || p->finished || p->fenced) return;
    for (;;) {
        pn_producer_prepare(p);
        if (p->run->failed || !may_start(p)) break;
        struct pn_step *s = p->prepared;
        bool capped = p->run->job.max_steps > 0 && p->next_step >= p->run->job.max_steps;
        if (s == NULL) {
            if (!p->all_read || (p->started >= p->first_step && !pn_producer_topic(p))) break;
            s = calloc(1, sizeof *s); /* a producer without a batch */
            if (s == NULL) break;
            s->owner = p;
            s->last = true;
        } else {
            /* Is it the last? The next read will tell. A topic may have nothing for hours: there the last push is always one without rows. */
            if (s->next == NULL && !p->all_read && !capped && !pn_producer_topic(p)) break;
            p->prepared = s->next;
            p->n_prepared--;
            s->last = capped || (p->prepared == NULL && p->all_read && !pn_producer_topic(p));
        }
        pn_step_start(p, s);
        if (p->run->failed) return;
    }
    pn_producer_compute(p);
    if (p->cached) pn_producer_look_next(p);
    pn_producer_push(p);
}

/* ---- life ---- */

struct pn_producer *pn_producer_open(struct pn_run *run, uint32_t id, uint32_t incarnation, uint64_t first_step) {
    struct pn_producer *p = calloc(1, sizeof *p);
    if (p == NULL) return NULL;
    p->run = run;
    run->refs++;
    p->id = id;
    p->incarnation = incarnation;
    p->first_step = p->next_step = first_step;
    p->started = first_step - 1;
    p->to_skip = first_step - 1;
    p->limit = p->gate_epochs = UINT64_MAX;
    const struct pn_job *job = &run->job;
    p->rows_an_epoch = job->train.n_rows * (1 + (pn_format_sequences(job->train.format) ? 0 : job->train.negatives.per_positive)) / run->n_producers; /* 0 rows: known at the first epoch's end */
    bool ok = pn_client_producer(run->client, id, incarnation, first_step) == PN_OK;
    if (job->model == PN_MODEL_AUDIT) {
        p->total_steps = job->train.n_rows / ((uint64_t)job->batch_size * run->n_producers);
        if (p->total_steps == 0) p->total_steps = 1;
        p->all_read = first_step > p->total_steps;
    } else {
        struct pn_error err;
        p->dense_keys = calloc(run->n_dense_rows, sizeof *p->dense_keys);
        ok = ok && p->dense_keys != NULL && pn_net_open(&p->net, job, run->n_dense_inputs, &err) == PN_OK;
        for (size_t i = 0; ok && i < run->n_dense_rows; i++) p->dense_keys[i] = pn_net_row_key(p->net, i);
        const bool private = pn_private_spec_of(job, run->n_producers, &p->private_spec);
        ok = ok && pn_run_devices(run, id, private ? &p->private_spec : NULL, &p->devices);
        if (ok && private) ok = (p->private = pn_private_open(job, &p->private_spec)) != NULL;
        if (ok && p->devices != NULL) ok = (p->bring = calloc(pn_devices_number(p->devices), sizeof *p->bring)) != NULL;
        p->cached = p->devices != NULL && job->cache_rows > 0;
    }
    if (ok && job->stream.window > 0) ok = (p->windows = pn_windows_open(job, run->n_producers)) != NULL;
    if (!ok) {
        free_producer(p);
        return NULL;
    }
    p->next = run->producers;
    run->producers = p;
    return p;
}

void pn_producer_close(struct pn_producer *p) {
    for (struct pn_producer **at = &p->run->producers; *at != NULL; at = &(*at)->next)
        if (*at == p) {
            *at = p->next;
            break;
        }
    if (p->reader != NULL && !p->in_features) { /* a computation may still read the reader's rows */
        pn_reader_close(p->reader);
        p->reader = NULL;
    }
    for (struct pn_step *s = p->running; s != NULL; s = s->next) {
        pn_client_cancel(p->run->client, s);
        if (p->run->mirror != NULL) pn_mirror_cancel(p->run->mirror, s);
    }
    pn_client_producer_remove(p->run->client, p->id);
    p->closed = true;
    pn_producer_gone(p);
}

void pn_producer_limit(struct pn_producer *p, uint64_t limit) {
    p->limit = limit;
    pn_producer_advance(p);
}

void pn_producer_gate(struct pn_producer *p, uint64_t epochs, uint64_t last_step) {
    p->gate_epochs = epochs;
    p->gate_step = last_step;
    pn_producer_advance(p);
}

void pn_producer_ledger(struct pn_producer *p, struct json_object *ledger) {
    if (p->ledger != NULL) json_object_put(p->ledger);
    p->ledger = json_object_get(ledger);
    if (p->reader != NULL) pn_reader_deal(p->reader, ledger);
}

struct json_object *pn_producer_proposal(const struct pn_producer *p) { return p->reader != NULL ? pn_reader_proposal(p->reader) : NULL; }

void pn_producer_poke(struct pn_producer *p) { pn_producer_advance(p); }

struct pn_producer *pn_producer_next(struct pn_producer *p) { return p->next; }

uint64_t pn_run_rows_held(const struct pn_run *run) {
    uint64_t n = 0;
    for (const struct pn_producer *p = run->producers; p != NULL; p = p->next) n += p->rows_held;
    return n;
}

struct json_object *pn_producer_windows(const struct pn_producer *p) { return p->windows != NULL ? pn_windows_json(p->windows) : NULL; }

/* A checkpoint makes it short again. */
static bool long_ledger(const struct pn_producer *p) { return pn_json_length(pn_json_get(p->ledger, "extents")) > 1000; }

void pn_producer_look(const struct pn_producer *p, struct pn_producer_state *out) {
    double seconds = p->last_ns > p->begin_ns ? (double)(p->last_ns - p->begin_ns) / 1e9 : 0;
    /* Of a private job it would be how many rows there are, of which nobody but the holder may know. */
    double fraction = p->rows_an_epoch > 0 && !p->all_read && p->private == NULL ? (double)p->rows_read / (double)p->rows_an_epoch : 0;
    *out = (struct pn_producer_state){.seconds = seconds, .fraction = fraction < 1 ? fraction : 1,
                                      .producer = p->id, .incarnation = p->incarnation, .started = p->started, .clock = pn_client_clock(p->run->client, p->id),
                                      .samples = p->samples, .loss_rows = p->loss_rows, .epoch = p->epoch, .loss_sum = p->loss_sum,
                                      .waiting = p->n_running == 0 && pn_producer_gated(p), .lag = p->reader != NULL ? pn_reader_lag(p->reader) : UINT64_MAX,
                                      .finished = p->finished, .fenced = p->fenced, .ring_full = pn_client_ring_full(p->run->client, p->id) || long_ledger(p)};
}
