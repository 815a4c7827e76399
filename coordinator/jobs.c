/* The life of a job: seats for its shards, owners for its producers, phases to its end. Level-triggered: each step looks at what is
 * reported and does what is missing. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/mutant.h"
#include "coordinator/internal.h"

#define RETRY_MS 500u

struct pn_job_run *pn_job_find(struct pn_coordinator *c, const char *id) {
    for (struct pn_job_run *j = c->jobs; j != NULL; j = j->next)
        if (strcmp(j->id, id) == 0) return j;
    return NULL;
}

struct pn_job_run *pn_job_running(struct pn_coordinator *c) {
    for (struct pn_job_run *j = c->jobs; j != NULL; j = j->next)
        if (j->state == PN_RUNNING) return j;
    return NULL;
}

struct pn_job_run *pn_job_on_servers(struct pn_coordinator *c) {
    struct pn_job_run *running = pn_job_running(c);
    if (running != NULL) return running;
    struct pn_job_run *last = NULL;
    for (struct pn_job_run *j = c->jobs; j != NULL; j = j->next)
        if (j->state != PN_PENDING && j->n_shards > 0) last = j;
    return last;
}

struct pn_checkpoint *pn_job_committed(const struct pn_job_run *j) {
    for (struct pn_checkpoint *k = j->checkpoints; k != NULL; k = k->next)
        if (!k->bad && !(k->dirty)) return k; /* a record that is not durable does not count yet */
    return NULL;
}

bool pn_job_all_finished(const struct pn_job_run *j) {
    for (uint32_t p = 0; p < j->n_producers; p++)
        if (!j->units[p].finished) return false;
    return j->n_producers > 0;
}

const char *pn_job_state_name(const struct pn_coordinator *c, const struct pn_job_run *j) {
    static const char *const names[] = {"PENDING", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED"};
    if (j->state == PN_RUNNING)
        for (uint32_t s = 0; s < j->n_shards; s++) {
            const struct pn_shard_seat *seat = &j->seats[s];
            if (seat->open_term != seat->term && (seat->open_term != 0 || j->restarts > 0)) return "RESTARTING"; /* 0: it begins, nothing was lost */
        }
    (void)c;
    return names[j->state];
}

void pn_job_end(struct pn_coordinator *c, struct pn_job_run *j, enum pn_job_state state, const char *reason) {
    pn_cut_abandon(c, j, "the job ended");
    pn_secure_again(j);
    j->state = state;
    j->phase = PN_ENDED;
    snprintf(j->reason, sizeof j->reason, "%s", reason);
    j->dirty = true;
    pn_answer_all(&j->cut_askers, 409, NULL, 0, "the job ended");
    pn_log(c->env, state == PN_SUCCEEDED ? PN_INFO : PN_WARN, "job %s %s%s%s", j->id, pn_job_state_name(c, j), reason[0] ? ": " : "", reason);
}

void pn_job_free_run(struct pn_job_run *j) {
    while (j->checkpoints != NULL) {
        struct pn_checkpoint *k = j->checkpoints;
        j->checkpoints = k->next;
        json_object_put(k->files);
        if (k->ledgers != NULL) json_object_put(k->ledgers);
        free(k);
    }
    pn_ledgers_free(j);
    if (j->cut.files != NULL) json_object_put(j->cut.files);
    if (j->cut.manifest != NULL) json_object_put(j->cut.manifest);
    if (j->history != NULL) json_object_put(j->history);
    pn_curve_free(j);
    pn_stream_free(j);
    pn_secure_free(j);
    if (j->model != NULL) json_object_put(j->model);
    pn_job_free(&j->job);
    free(j->text);
    free(j);
}

/* ---- starting, and going back to a checkpoint ---- */

static void give_seat(struct pn_coordinator *c, struct pn_job_run *j, uint32_t s, const struct pn_node *n) {
    struct pn_shard_seat *seat = &j->seats[s];
    snprintf(seat->node, sizeof seat->node, "%s", n->name);
    snprintf(seat->address, sizeof seat->address, "%s", n->address);
    seat->term = ++c->term;
    seat->incarnation = n->incarnation;
    seat->retry_ms = 0;
    c->counters_dirty = j->dirty = true;
}

static bool external(const struct pn_job_run *j) { return j->job.model == PN_MODEL_EXTERNAL; }

/* Producers of an external job go to the clients that came for it, all others to plain workers. */
bool pn_job_may_have(const struct pn_job_run *j, const struct pn_node *n) {
    return n->role == PN_ROLE_WORKER && (external(j) ? strcmp(n->serves, j->id) == 0 : n->serves[0] == '\0');
}

static struct pn_node *live_worker(struct pn_coordinator *c, const struct pn_job_run *j) {
    struct pn_node *best = NULL;
    unsigned least = UINT32_MAX;
    for (struct pn_node *n = c->nodes; n != NULL; n = n->next) {
        if (!pn_job_may_have(j, n) || !pn_node_alive(c, n)) continue;
        unsigned load = 0;
        for (uint32_t p = 0; p < j->n_producers; p++) { /* a client's process takes as many as it said, once */
            const struct pn_work_unit *u = &j->units[p];
            load += strcmp(u->owner, n->name) == 0 && (external(j) ? u->owner_incarnation == n->incarnation : !u->finished);
        }
        if (external(j) && load >= n->takes) continue;
        if (load < least) {
            least = load;
            best = n;
        }
    }
    return best;
}

static void assign(struct pn_coordinator *c, struct pn_job_run *j, uint32_t p, const struct pn_node *n) {
    struct pn_work_unit *u = &j->units[p];
    const struct pn_checkpoint *k = pn_job_committed(j);
    snprintf(u->owner, sizeof u->owner, "%s", n->name);
    u->owner_incarnation = n->incarnation;
    u->incarnation++;
    u->first_step = (k != NULL ? k->steps[p] : 0) + 1;
    u->started = u->clock = u->first_step - 1;
    j->dirty = true;
#if PN_MUTANT != 21
    struct pn_error err = {""};
    if (!pn_budget_charge(c, j, p, &err)) {
        u->owner[0] = '\0';
        pn_job_end(c, j, PN_JOB_FAILED, err.text);
        return;
    }
#endif
    pn_log(c->env, PN_INFO, "job %s: producer %u goes to %s, incarnation %" PRIu64 ", from step %" PRIu64, j->id, p, n->name, u->incarnation, u->first_step);
}

/* Seats and owners anew, from the newest good checkpoint or from nothing. False while no server or no worker is there; an external job does not
 * wait for its clients, they find it by its being there. */
bool pn_job_begin(struct pn_coordinator *c, struct pn_job_run *j) {
    uint32_t n_ps = 0, n_workers = 0;
    for (struct pn_node *n = c->nodes; n != NULL; n = n->next)
        if (pn_node_alive(c, n)) {
            n_ps += n->role == PN_ROLE_PS && n_ps < 64;
            n_workers += pn_job_may_have(j, n);
        }
    if (n_ps == 0 || (n_workers == 0 && !external(j))) return false;
    if (j->job.privacy.secure && !pn_secure_seated(c, j)) return false;
    pn_secure_again(j);
    if (j->n_producers == 0) j->n_producers = j->job.n_producers > 0 ? j->job.n_producers : n_workers > PN_MAX_PRODUCERS ? PN_MAX_PRODUCERS : n_workers;
    const struct pn_checkpoint *k = pn_job_committed(j);
    j->generation++;
    j->state = PN_RUNNING;
    j->phase = PN_TRAIN;
    j->epoch_validation.epoch = 0; /* later ones than the checkpoint's are measured again */
    j->reason[0] = '\0';
    j->n_shards = n_ps;
    j->last_checkpoint_ms = pn_now_ms(c->env);
    uint32_t s = 0;
    for (struct pn_node *n = c->nodes; n != NULL && s < n_ps; n = n->next)
        if (n->role == PN_ROLE_PS && pn_node_alive(c, n)) {
            give_seat(c, j, s, n);
            j->seats[s++].open_term = 0;
        }
    for (uint32_t p = 0; p < j->n_producers; p++) {
        struct pn_work_unit *u = &j->units[p];
        uint64_t incarnation = u->incarnation;
        *u = (struct pn_work_unit){.incarnation = incarnation, .finished = k != NULL && k->finished[p], .charged = u->charged, .lives = u->lives};
#if PN_MUTANT == 22 /* a restore gives budget back: what was charged for steps that are run again */
        if (k != NULL && u->charged > k->steps[p]) u->charged = k->steps[p];
#endif
    }
    pn_stream_again(j);
    pn_ledgers_begin(c, j);
    if (j->state != PN_RUNNING) return true; /* its position in the topic is lost */
    if (j->began_ms == 0) j->began_ms = pn_now_ms(c->env);
    if (j->gate_epochs == 0) j->gate_epochs = 1;
    j->gate = PN_GATE_OPEN;
    j->gate_step = 0;
    for (uint32_t p = 0; p < j->n_producers; p++) {
        if (j->stopped) j->units[p].finished = true; /* nobody trains on */
        const struct pn_node *n = j->units[p].finished ? NULL : j->job.privacy.secure ? pn_secure_holder(c, j, p) : live_worker(c, j);
        if (n != NULL) assign(c, j, p, n);
        if (j->state != PN_RUNNING) return true; /* its privacy budget is spent */
    }
    pn_log(c->env, PN_INFO, "job %s generation %" PRIu64 " begins on %u servers, %u producers, from checkpoint %" PRIu64, j->id, j->generation, j->n_shards, j->n_producers,
           k != NULL ? k->epoch : 0);
    return true;
}

static void count_restart(struct pn_coordinator *c, struct pn_job_run *j, const char *who) {
    j->dirty = true;
    if (++j->restarts > j->job.max_restarts) {
        char text[200];
        snprintf(text, sizeof text, "more than %u restarts (failurePolicy.maxRestarts); the last was of %s", j->job.max_restarts, who);
        pn_job_end(c, j, PN_JOB_FAILED, text);
    }
}

void pn_job_again(struct pn_coordinator *c, struct pn_job_run *j, const char *who) {
    pn_log(c->env, PN_WARN, "job %s goes back to its newest checkpoint because of %s", j->id, who);
    pn_cut_abandon(c, j, "the job goes back to a checkpoint");
    j->n_shards = 0; /* begins anew in this event */
    count_restart(c, j, who);
    if (j->state == PN_RUNNING && !pn_job_begin(c, j)) j->state = PN_PENDING;
}

/* ---- shards ---- */
static void look_at_seat(struct pn_coordinator *c, struct pn_job_run *j, uint32_t s) {
    struct pn_shard_seat *seat = &j->seats[s];
    struct pn_node *n = pn_node_find(c, seat->node);
    if (!pn_node_alive(c, n)) return; /* its supervisor starts it again; the workers wait and keep what it needs */
    struct json_object *job = pn_json_get(n->beat, "job");
    if (n->incarnation != seat->incarnation) {
        pn_cut_abandon(c, j, "a server was lost");
        give_seat(c, j, s, n);
        pn_log(c->env, PN_WARN, "job %s: %s lost its memory; it goes on from the last checkpoint with term %" PRIu64, j->id, n->name, seat->term);
        count_restart(c, j, n->name);
        return;
    }
    job = pn_node_job(n, j);
    if (job == NULL || pn_json_u64(job, "term", 0) != seat->term) return; /* the plan is on its way */
    const char *state = pn_json_str(job, "state", "");
    if (strcmp(state, "open") == 0) {
        if (seat->open_term != seat->term) j->open_revision = c->revision;
        seat->open_term = seat->term;
        snprintf(seat->address, sizeof seat->address, "%s", n->address);
    } else if (strcmp(state, "failed") == 0) {
        const char *error = pn_json_str(job, "error", "");
        pn_cut_abandon(c, j, "a server failed");
        if (strcmp(pn_json_str(job, "code", ""), "corrupt") == 0) {
            struct pn_checkpoint *k = pn_job_committed(j);
            pn_log(c->env, PN_ERROR, "job %s: CHECKPOINT %" PRIu64 " IS DAMAGED (%s); going back to the one before", j->id, k != NULL ? k->epoch : 0, error);
            if (k != NULL) k->bad = k->dirty = true;
            j->n_shards = 0; /* begins anew in this event */
            count_restart(c, j, n->name);
            if (j->state == PN_RUNNING && !pn_job_begin(c, j)) j->state = PN_PENDING;
        } else if (strcmp(pn_json_str(job, "code", ""), "invalid") == 0) { /* the job's own fault: again would end the same way */
            char text[470];
            snprintf(text, sizeof text, "%s: %.440s", n->name, error);
            pn_job_end(c, j, PN_JOB_FAILED, text);
        } else if (seat->retry_ms == 0) {
            seat->retry_ms = pn_now_ms(c->env) + RETRY_MS;
        } else if (pn_now_ms(c->env) >= seat->retry_ms) {
            give_seat(c, j, s, n);
            count_restart(c, j, n->name);
        }
    }
}

/* ---- producers ---- */
/* A worker's beats go on saying its newest epoch, also when it is dead and another one is on its way there: only a later epoch is news. */
static void take_validation(struct pn_job_run *j, struct json_object *v) {
    const struct pn_metric m = pn_metric_read(v);
    if (j->epoch_validation.known && m.epoch <= j->epoch_validation.epoch) return;
    j->epoch_validation = m;
    pn_curve_measured(j);
}

static void take_reports(struct pn_coordinator *c, struct pn_job_run *j) {
    double rate = 0;
    for (struct pn_node *n = c->nodes; n != NULL; n = n->next) {
        struct json_object *job = n->role == PN_ROLE_WORKER && n->beat != NULL ? pn_node_job(n, j) : NULL;
        if (job == NULL) continue;
        if (pn_node_alive(c, n)) rate += pn_json_double(n->beat, "samples_per_s", 0);
        struct json_object *list = pn_json_get(n->beat, "producers"), *model = pn_json_get(n->beat, "model"), *v = pn_json_get(n->beat, "validation");
        for (size_t i = 0; i < pn_json_length(list); i++) {
            struct json_object *e = pn_json_at(list, i);
            uint64_t p = pn_json_u64(e, "producer", UINT64_MAX);
            if (p >= j->n_producers || strcmp(j->units[p].owner, n->name) != 0 || j->units[p].incarnation != pn_json_u64(e, "incarnation", 0)) continue;
            struct pn_work_unit *u = &j->units[p];
            u->started = pn_json_u64(e, "started", 0);
#if PN_MUTANT == 21 /* the budget is charged with a step when it is done: after the use of its noise */
            if (j->job.privacy.rows > 0 && pn_json_u64(e, "clock", 0) > u->clock) u->charged += pn_json_u64(e, "clock", 0) - u->clock, j->dirty = true;
#endif
            u->clock = pn_json_u64(e, "clock", 0);
            u->samples = pn_json_u64(e, "samples", 0);
            u->loss_rows = pn_json_u64(e, "loss_rows", 0);
            u->loss_sum = pn_json_double(e, "loss_sum", 0);
            u->epoch = pn_json_u64(e, "epoch", 0);
            u->seconds = pn_json_double(e, "seconds", 0);
            u->fraction = pn_json_double(e, "fraction", 0);
            u->lag = pn_json_u64(e, "lag", 0);
            u->lag_known = pn_json_get(e, "lag") != NULL;
            u->ring_full = pn_json_bool(e, "ring_full", false);
            u->waiting = pn_json_bool(e, "waiting", false);
            u->finished = pn_json_bool(e, "finished", false);
            pn_ledgers_take(c, j, (uint32_t)p, pn_json_get(e, "deal"));
            if (j->job.stream.window > 0) pn_stream_take(c, j, (uint32_t)p, pn_json_get(e, "windows"));
            /* Said before it could know of the last commit, it is no wish for another. A client that has finished waits for the checkpoint that says so. */
            if (u->ring_full && pn_node_knows_plan(c, n) && n->revision > j->commit_revision && (!u->finished || external(j))) j->cut_wanted = true;
        }
        if (model != NULL) pn_statistics_take(c, j, n, model);
        if (v != NULL && strcmp(pn_json_str(v, "state", ""), "done") == 0) take_validation(j, v);
        if (v != NULL && strcmp(pn_json_str(v, "state", ""), "failed") == 0 && pn_node_alive(c, n)) { /* it would not fare better at the end, hours later */
            pn_job_end(c, j, PN_JOB_FAILED, pn_json_str(v, "error", "the validation failed"));
            return;
        }
        if (strcmp(pn_json_str(job, "state", ""), "failed") == 0 && pn_node_alive(c, n)) {
            pn_job_end(c, j, PN_JOB_FAILED, pn_json_str(job, "error", "a worker failed"));
            return;
        }
    }
    j->samples_per_s = rate;
    pn_ledgers_trim(j);
    if (j->phase == PN_TRAIN && !external(j)) pn_curve_take(c, j);
    if (j->phase == PN_TRAIN && j->job.stream.window > 0) pn_stream_step(c, j);
}

/* Returns the incarnation of the worker that was lost, 0 if none was. */
static uint64_t look_at_unit(struct pn_coordinator *c, struct pn_job_run *j, uint32_t p) {
    struct pn_work_unit *u = &j->units[p];
    const struct pn_checkpoint *k = pn_job_committed(j);
    if (k != NULL && k->finished[p]) {
        u->finished = true;
        return 0;
    }
    if (j->job.privacy.secure) { /* a data holder's part is its own: nobody takes it over, and it is no restart of the job when it comes back */
        struct pn_node *holder = pn_secure_holder(c, j, p);
        if (holder != NULL && holder->incarnation != u->owner_incarnation) assign(c, j, p, holder);
        return 0;
    }
    struct pn_node *n = pn_node_find(c, u->owner);
    const bool here = pn_node_alive(c, n) && pn_job_may_have(j, n);
    if (here && n->incarnation == u->owner_incarnation) return 0;
    u->finished = false; /* what it pushed last is in no checkpoint: it may have to be pushed again */
    const bool owned = u->owner[0] != '\0';
    if (external(j)) { /* nobody's until a client comes; clients may come and go, that is no restart of the job */
        if (owned) {
            pn_log(c->env, PN_INFO, "job %s: producer %u is free, its client %s has gone", j->id, p, u->owner);
            pn_cut_abandon(c, j, "a client has gone");
            u->owner[0] = '\0';
            u->owner_incarnation = 0;
            j->dirty = true;
            if (j->phase == PN_FINAL) j->phase = PN_TRAIN;
        }
        struct pn_node *client = live_worker(c, j);
        if (client == NULL) return 0;
        pn_cut_abandon(c, j, "a client came");
        assign(c, j, p, client);
        return 0;
    }
    struct pn_node *next = here ? n : live_worker(c, j);
    if (next == NULL) return 0;
    uint64_t lost = u->owner_incarnation;
    pn_cut_abandon(c, j, "a worker was lost");
    if (j->phase == PN_FINAL) j->phase = PN_TRAIN;
    assign(c, j, p, next);
    return lost;
}

/* A worker's death is one restart, however many producers it had. */
static void look_at_units(struct pn_coordinator *c, struct pn_job_run *j) {
    uint64_t lost[PN_MAX_PRODUCERS];
    uint32_t n_lost = 0;
    char who[64];
    for (uint32_t p = 0; p < j->n_producers; p++) {
        snprintf(who, sizeof who, "%s", j->units[p].owner);
        uint64_t life = look_at_unit(c, j, p);
        uint32_t i = 0;
        while (i < n_lost && lost[i] != life) i++;
        if (life == 0 || i < n_lost) continue;
        lost[n_lost++] = life;
        count_restart(c, j, who);
        if (j->state != PN_RUNNING) return;
    }
}

/* ---- after training ---- */
void pn_job_task(const struct pn_job_run *j, char task[80]) {
    if (j->phase == PN_TRAIN) snprintf(task, 80, "%s-%" PRIu64 "-gate-%" PRIu64 "-%" PRIu64, j->id, j->generation, j->gate_epochs, j->gate_try);
    else snprintf(task, 80, "%s-%" PRIu64 "-%d", j->id, j->generation, (int)j->phase);
}

struct pn_node *pn_job_evaluator(struct pn_coordinator *c, struct pn_job_run *j) {
    struct pn_node *n = pn_node_find(c, j->evaluator);
    if (pn_node_alive(c, n)) return n;
    if ((n = live_worker(c, j)) != NULL) snprintf(j->evaluator, sizeof j->evaluator, "%s", n->name);
    return n;
}

static void next_phase(struct pn_coordinator *c, struct pn_job_run *j) {
    j->dirty = true;
    for (;;) {
        j->phase++;
        if (j->phase == PN_EVALUATE_VALIDATION && j->job.validation.present && j->job.model != PN_MODEL_AUDIT) return;
        if (j->phase == PN_EVALUATE_TEST && j->job.test.present && j->job.model != PN_MODEL_AUDIT) return;
        if (j->phase == PN_PUBLISH && j->job.publish) return; /* begun by the next step, behind one that is under way */
        if (j->phase >= PN_ENDED) {
            pn_job_end(c, j, PN_SUCCEEDED, "");
            return;
        }
    }
}

void pn_job_after_training(struct pn_coordinator *c, struct pn_job_run *j) {
    j->phase = PN_FINAL;
    next_phase(c, j);
}

bool pn_job_evaluated(struct pn_coordinator *c, struct pn_job_run *j, struct pn_metric *out) {
    struct pn_node *n = pn_job_evaluator(c, j);
    struct json_object *e = n != NULL && pn_node_job(n, j) != NULL ? pn_json_get(n->beat, "evaluation") : NULL;
    char task[80];
    pn_job_task(j, task);
    if (e == NULL || strcmp(pn_json_str(e, "task", ""), task) != 0) return false;
    const char *state = pn_json_str(e, "state", "");
    if (strcmp(state, "failed") == 0) pn_job_end(c, j, PN_JOB_FAILED, pn_json_str(e, "error", "the evaluation failed"));
    if (strcmp(state, "done") != 0) return false;
    *out = pn_metric_read(e);
    return true;
}

static void look_at_evaluation(struct pn_coordinator *c, struct pn_job_run *j) {
    if (pn_job_evaluated(c, j, j->phase == PN_EVALUATE_TEST ? &j->test : &j->validation)) next_phase(c, j);
}

void pn_jobs_step(struct pn_coordinator *c) {
    struct pn_job_run *j = pn_job_running(c);
    if (j == NULL) {
        for (j = c->jobs; j != NULL && j->state != PN_PENDING; j = j->next) {}
        if (j == NULL || !pn_job_begin(c, j)) return;
        j->dirty = true;
    }
    take_reports(c, j);
    for (uint32_t s = 0; s < j->n_shards && j->state == PN_RUNNING; s++) look_at_seat(c, j, s);
    if (j->state == PN_RUNNING && j->phase <= PN_FINAL && !j->stopped) look_at_units(c, j);
    if (j->state == PN_RUNNING && j->job.privacy.secure && j->phase <= PN_FINAL) pn_secure_step(c, j);
    if (j->state != PN_RUNNING) return;
    switch (j->phase) {
    case PN_TRAIN:
        if (j->stopped) pn_job_after_training(c, j);
        else if (j->job.patience > 0) pn_gate_step(c, j);
        else if (pn_job_all_finished(j)) {
            j->phase = PN_FINAL;
            j->dirty = true;
        }
        break;
    case PN_FINAL: {
        const struct pn_checkpoint *k = pn_job_committed(j);
        bool whole = k != NULL;
        for (uint32_t p = 0; p < j->n_producers && whole; p++) whole = k->finished[p];
        if (whole) next_phase(c, j);
        else j->cut_wanted = true;
        break;
    }
    case PN_EVALUATE_VALIDATION:
    case PN_EVALUATE_TEST: look_at_evaluation(c, j); break;
    case PN_PUBLISH: { /* a coordinator that came back begins the publication again: it ends the job in the version's own transaction */
        struct pn_error err = {""};
        if (c->publication == NULL && !pn_publication_start(c, j, false, NULL, &err)) pn_job_end(c, j, PN_SUCCEEDED, err.text);
        break;
    }
    case PN_ENDED: break;
    }
    if (j->state == PN_RUNNING) pn_cut_step(c, j);
}
