/* Early stopping: after each epoch of all producers training waits at a gate while one worker measures validation through the servers.
 *
 *   OPEN      producers train epochs < gate_epochs. All of them wait (or have finished): to EVALUATE
 *   EVALUATE  the rows stand still. A better figure: to SAVE; a worse one: one epoch more, or the end
 *   SAVE      a checkpoint of the very rows that were measured; it is the best one, and is kept
 *
 * The end: patience epochs without progress, or all epochs done. If the best is not what the servers hold, the whole job goes back to its checkpoint
 * (a new generation without producers), and that is evaluated on test and published.
 *
 * Level-triggered like the rest: if a node is lost on the way, its producers come back to the gate, and the epoch is measured again (gate_try). */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "coordinator/internal.h"

bool pn_gate_asks(const struct pn_job_run *j) { return j->phase == PN_TRAIN && j->gate == PN_GATE_EVALUATE; }

/* Every producer has done all that the newest plan lets it do, on every shard, and every shard is up. A report from before a shard came back says nothing of the pushes that
 * this shard has to be sent again: only one that knows the shard's new term counts. In sync and ssp a producer that has fewer steps an epoch than another may take the steps
 * that the other waits for: gate_step rises. */
static bool all_wait(struct pn_coordinator *c, struct pn_job_run *j) {
    uint64_t highest = j->gate_step;
    bool all = true;
    for (uint32_t s = 0; s < j->n_shards; s++)
        if (j->seats[s].open_term != j->seats[s].term) return false;
    for (uint32_t p = 0; p < j->n_producers; p++) {
        const struct pn_work_unit *u = &j->units[p];
        const struct pn_checkpoint *k = pn_job_committed(j);
        if (k != NULL && k->finished[p]) continue;
        struct pn_node *n = pn_node_find(c, u->owner);
        if (n == NULL || n->beat == NULL || pn_node_job(n, j) == NULL || !pn_node_knows_plan(c, n) || n->revision <= j->open_revision || n->incarnation != u->owner_incarnation) return false;
        if (u->started > highest && !u->finished) highest = u->started;
        all = all && (u->waiting || u->finished) && u->started == u->clock;
    }
    if (j->job.consistency != PN_ASYNC && highest > j->gate_step) {
        j->gate_step = highest;
        return false;
    }
    return all;
}

/* A number that changes when a producer or a shard begins another life. */
static uint64_t lives(const struct pn_job_run *j) {
    uint64_t sum = 0;
    for (uint32_t p = 0; p < j->n_producers; p++) sum += j->units[p].incarnation;
    for (uint32_t s = 0; s < j->n_shards; s++) sum += j->seats[s].term;
    return sum;
}

static void remember(struct pn_coordinator *c, struct pn_job_run *j, const struct pn_metric *m) {
    struct json_object *e = json_object_new_object();
    const uint64_t now = pn_now_ms(c->env);
    const size_t n = j->history != NULL ? pn_json_length(j->history) : 0;
    if (n > 0 && pn_json_u64(pn_json_at(j->history, n - 1), "epoch", 0) == j->gate_epochs) json_object_array_del_idx(j->history, n - 1, 1); /* measured again */
    j->train_ms += now - j->began_ms;
    j->began_ms = now;
    pn_json_add_u64(e, "epoch", j->gate_epochs);
    pn_metric_write(e, "", m);
    pn_json_add_double(e, "seconds", (double)j->train_ms / 1000);
    if (j->history == NULL) j->history = json_object_new_array();
    json_object_array_add(j->history, e);
}

static void stop(struct pn_coordinator *c, struct pn_job_run *j) {
    struct pn_checkpoint *best = j->checkpoints;
    while (best != NULL && (best->bad || best->epoch != j->best_checkpoint)) best = best->next;
    char figures[400], by[24];
    pn_metric_say(&j->best, figures, sizeof figures);
    pn_job_stop_by(&j->job, by);
    pn_log(c->env, PN_INFO, "job %s: training is over after epoch %" PRIu64 "; the best by %s was epoch %" PRIu64 ", validation %s", j->id, j->gate_epochs, by, j->best_epoch, figures);
    j->stopped = j->dirty = true;
    if (j->misses > 0 && best != NULL) { /* the servers hold a worse epoch */
        pn_cut_abandon(c, j, "the job goes back to its best epoch");
        for (struct pn_checkpoint *k = j->checkpoints; k != best; k = k->next) k->bad = k->dirty = true;
        j->n_shards = 0;
        if (!pn_job_begin(c, j)) {
            j->state = PN_PENDING; /* until a server and a worker are there */
            return;
        }
    }
    pn_job_after_training(c, j);
}

static void decide(struct pn_coordinator *c, struct pn_job_run *j) {
    j->dirty = true;
    if (pn_job_all_finished(j) || j->misses >= j->job.patience || j->gate_epochs >= j->job.epochs) {
        stop(c, j);
        return;
    }
    j->gate_epochs++;
    j->gate = PN_GATE_OPEN;
}

/* What the job wants to be high; a figure that was not measured is the lowest. */
static double figure(const struct pn_job_run *j, const struct pn_metric *m) {
    const double by[PN_METRIC_KINDS] = {m->auc, -m->logloss, m->hr, m->ndcg, m->recall, m->mrr, m->gauc, -m->ne}, v = by[j->job.stop_by];
    return isnan(v) ? -1e300 : v;
}

/* By a figure that is not there no epoch is better than another, and the first or the last would be called the best. That it is not there lies in the data, the same after each epoch. */
static bool is_measured(struct pn_coordinator *c, struct pn_job_run *j, const struct pn_metric *m) {
    static const char *const needs[PN_METRIC_KINDS] = {"rows of both labels", "rows, and of sasrec negatives that are kept", "a list with a positive row", "a list with a positive row", "a list with a positive row",
                                                       "a list with a positive row", "a group with rows of both labels", "rows of both labels"};
    char by[24], text[300];
    if (figure(j, m) > -1e300) return true;
    pn_job_stop_by(&j->job, by);
    snprintf(text, sizeof text, "earlyStopping: %s cannot be measured on the %" PRIu64 " rows of the validation data: it needs %s; give it such rows, or take another metric", by, m->rows, needs[j->job.stop_by]);
    pn_job_end(c, j, PN_JOB_FAILED, text);
    return false;
}

static void take(struct pn_coordinator *c, struct pn_job_run *j, const struct pn_metric *m) {
    const double gain = figure(j, m) - figure(j, &j->best);
    j->epoch_validation = *m;
    j->epoch_validation.epoch = j->gate_epochs;
    j->dirty = true;
    pn_curve_measured(j);
    remember(c, j, m);
    const bool again = j->best.known && j->best_epoch == j->gate_epochs; /* a node was lost before its checkpoint was committed */
    if (!j->best.known || again || gain >= j->job.min_delta) {
        j->best = *m;
        j->best_epoch = j->gate_epochs;
        j->best_checkpoint = 0;
        j->misses = 0;
        j->gate = PN_GATE_SAVE;
        j->cut_wanted = true;
    } else {
        j->misses++;
        decide(c, j);
    }
}

void pn_gate_step(struct pn_coordinator *c, struct pn_job_run *j) {
    if (j->gate != PN_GATE_OPEN && lives(j) != j->gate_lives) { /* what is being measured or saved may be half of the epoch */
        j->gate = PN_GATE_OPEN;
        j->cut_wanted = false;
    }
    switch (j->gate) {
    case PN_GATE_OPEN:
        if (j->cut.phase != PN_NO_CUT || !all_wait(c, j)) return; /* a checkpoint that is being written is of an earlier moment */
        j->gate = PN_GATE_EVALUATE;
        j->gate_try++;
        j->gate_lives = lives(j);
        pn_job_evaluator(c, j);
        return;
    case PN_GATE_EVALUATE: {
        struct pn_metric m;
        if (pn_job_evaluated(c, j, &m) && is_measured(c, j, &m)) take(c, j, &m);
        return;
    }
    case PN_GATE_SAVE: {
        const struct pn_checkpoint *k = pn_job_committed(j);
        if (k == NULL || k->epoch < j->best_checkpoint || j->cut_wanted || j->cut.phase != PN_NO_CUT) {
            j->cut_wanted = j->cut_wanted || j->cut.phase == PN_NO_CUT;
            return;
        }
        j->best_checkpoint = k->epoch;
        decide(c, j);
        return;
    }
    }
}
