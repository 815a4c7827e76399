#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "coordinator/internal.h"

#define TICK_MS 50u
#define MOST_MS 150u /* between two looks, of what counts */

void pn_look(struct pn_coordinator *c) {
    const uint64_t now = pn_now_ms(c->env), gap = now - c->looked_ms;
    c->clock_ms += gap < MOST_MS ? gap : MOST_MS;
    c->looked_ms = now;
}

void pn_reconcile(struct pn_coordinator *c) {
    if (!c->ready || c->reconciling) return;
    c->reconciling = true;
    pn_look(c);
    /* Just started: first hear the nodes, for they may be in the middle of a job. */
    if (c->quiet && c->clock_ms - c->started_ms >= c->options.lease_ms) c->quiet = false;
    if (!c->quiet) {
        pn_jobs_step(c);
        pn_publication_step(c);
        pn_forget_step(c);
        if (pn_records_flush(c)) {
            pn_plans_send(c);
            pn_statistics_tidy(c);
        }
    }
    c->reconciling = false;
}

static void tick(struct pn_timer *t) {
    struct pn_coordinator *c = t->owner;
    pn_timer_start(c->env, t, TICK_MS);
    if (!c->ready) { /* the store did not answer at the start: again */
        struct pn_error err = {""};
        c->ready = pn_records_load(c, &err);
        if (!c->ready && !c->store_failing) pn_log(c->env, PN_ERROR, "the store cannot be used: %s", err.text);
        c->store_failing = !c->ready;
        pn_look(c);
        c->started_ms = c->clock_ms;
        if (c->ready) pn_log(c->env, PN_INFO, "coordinator up, epoch %" PRIu64, c->epoch);
    }
    pn_reconcile(c);
}

static void message(void *core, pn_peer from, struct pn_msg *m) {
    struct pn_coordinator *c = core;
    struct pn_frame f;
    pn_look(c);
    if (!c->ready || pn_frame_open(&f, m->data, m->n_bytes, NULL) != PN_OK) return;
    if (f.kind == PN_BEAT) pn_node_beat(c, from, &f);
    else if (f.kind >= 40 && f.kind <= 55) pn_secure_message(c, from, &f); /* privacy/secagg/round.h */
    pn_frame_close(&f);
}

struct pn_coordinator *pn_coordinator_open(struct pn_env *env, struct pn_store *store, const struct pn_coordinator_options *options) {
    struct pn_coordinator *c = calloc(1, sizeof *c);
    if (c == NULL) return NULL;
    c->env = env;
    c->store = store;
    c->options = *options;
    if (c->options.lease_ms == 0) c->options.lease_ms = 1500;
    if (c->options.beat_ms == 0) c->options.beat_ms = 100;
    c->tick = (struct pn_timer){.fire = tick, .owner = c};
    return c;
}

void pn_coordinator_close(struct pn_coordinator *c) {
    if (c == NULL) return;
    pn_timer_stop(c->env, &c->tick);
    pn_publication_close(c);
    pn_tidying_close(c);
    while (c->jobs != NULL) {
        struct pn_job_run *j = c->jobs;
        c->jobs = j->next;
        pn_answer_all(&j->cut_askers, 503, NULL, 0, "the coordinator stops");
        pn_job_free_run(j);
    }
    pn_forgets_free(c);
    pn_models_free(c);
    pn_nodes_free(c);
    free(c);
}

static void start(void *core) { tick(&((struct pn_coordinator *)core)->tick); }

const struct pn_core_ops pn_coordinator_core = {.start = start, .message = message};
