/* What every node should be: built from what is durable, sent when it changed. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "coordinator/internal.h"

static struct json_object *restore_of(const struct pn_job_run *j) {
    const struct pn_checkpoint *k = pn_job_committed(j);
    if (k == NULL) return NULL;
    struct json_object *o = json_object_new_object();
    pn_json_add_str(o, "dir", k->dir);
    pn_json_add_u64(o, "epoch", k->epoch);
    pn_json_add(o, "files", json_object_get(k->files));
    return o;
}

uint32_t pn_plan_first_slot(const struct pn_job_run *j, uint32_t s) { return (uint32_t)((uint64_t)1024 * s / j->n_shards); }

static void plan_ps(struct pn_coordinator *c, struct pn_node *n, struct json_object *plan) {
    struct pn_job_run *j = pn_job_on_servers(c);
    struct json_object *job = NULL, *cut = NULL;
    for (uint32_t s = 0; j != NULL && s < j->n_shards; s++) {
        const struct pn_shard_seat *seat = &j->seats[s];
        if (strcmp(seat->node, n->name) != 0 || seat->incarnation != n->incarnation) continue;
        char owner[32];
        snprintf(owner, sizeof owner, "%u-%u", pn_plan_first_slot(j, s), pn_plan_first_slot(j, s + 1) - 1);
        job = json_object_new_object();
        pn_json_add_str(job, "id", j->id);
        pn_json_add_u64(job, "generation", j->generation);
        pn_json_add_u64(job, "term", seat->term);
        pn_json_add_str(job, "text", j->text);
        pn_json_add_u64(job, "n_producers", j->n_producers);
        pn_json_add_u64(job, "shard", s);
        pn_json_add_u64(job, "n_shards", j->n_shards);
        pn_json_add_str(job, "owner", owner);
        /* An open shard does not look at this again; while it stays the same text, a new checkpoint sends no new plan for nothing. */
        pn_json_add(job, "restore", seat->open_term == seat->term ? NULL : restore_of(j));
        pn_json_add(job, "forget", pn_forget_plan(c, j));
        if (j->job.privacy.secure) pn_json_add(job, "secure", pn_secure_plan(j));
        if (j->cut.phase >= PN_FLIP) {
            cut = json_object_new_object();
            pn_json_add_u64(cut, "epoch", j->cut.epoch);
            pn_json_add_str(cut, "dir", j->cut.dir);
        }
    }
    pn_json_add(plan, "job", job);
    pn_json_add(plan, "cut", cut);
    pn_json_add(plan, "snapshot", pn_publication_plan(c, n));
    pn_json_add(plan, "scrub", pn_forget_scrub_plan(c, n));
}

/* What a client is told of the job that it came for, whatever its state. */
static struct json_object *external_of(struct pn_coordinator *c, const struct pn_node *n) {
    struct json_object *o = json_object_new_object();
    const struct pn_job_run *j = pn_job_find(c, n->serves);
    const bool fits = j != NULL && pn_job_may_have(j, n);
    pn_json_add_str(o, "state", j == NULL ? "UNKNOWN" : fits ? pn_job_state_name(c, j) : "NOT_EXTERNAL");
    pn_json_add_str(o, "reason", j != NULL ? j->reason : "");
    return o;
}

static void plan_worker(struct pn_coordinator *c, struct pn_node *n, struct json_object *plan) {
    struct pn_job_run *j = pn_job_running(c);
    if (j != NULL && !pn_job_may_have(j, n)) j = NULL;
    struct json_object *job = NULL, *cut = NULL, *evaluate = NULL;
    if (j != NULL) {
        struct json_object *shards = json_object_new_array(), *slots = json_object_new_array(), *producers = json_object_new_array(), *committed = NULL;
        job = json_object_new_object();
        pn_json_add_str(job, "id", j->id);
        pn_json_add_u64(job, "generation", j->generation);
        pn_json_add_str(job, "text", j->text);
        pn_json_add_u64(job, "n_producers", j->n_producers);
        for (uint32_t s = 0; s < j->n_shards; s++) {
            struct json_object *e = json_object_new_object();
            pn_json_add_str(e, "address", j->seats[s].address);
            pn_json_add_u64(e, "term", j->seats[s].open_term);
            json_object_array_add(shards, e);
            json_object_array_add(slots, json_object_new_uint64(pn_plan_first_slot(j, s)));
        }
        const struct pn_checkpoint *k = pn_job_committed(j);
        for (uint32_t p = 0; p < j->n_producers; p++) {
            const struct pn_work_unit *u = &j->units[p];
            if (strcmp(u->owner, n->name) != 0 || u->owner_incarnation != n->incarnation) continue;
            struct json_object *e = json_object_new_object();
            pn_json_add_u64(e, "producer", p);
            pn_json_add_u64(e, "incarnation", u->incarnation);
            pn_json_add_u64(e, "first_step", u->first_step);
            if (j->ledgers != NULL) pn_json_add(e, "ledger", pn_ledger_write(&j->ledgers[p]));
            json_object_array_add(producers, e);
        }
        if (k != NULL) {
            struct json_object *steps = json_object_new_array();
            for (uint32_t p = 0; p < j->n_producers; p++) json_object_array_add(steps, json_object_new_uint64(k->steps[p]));
            committed = json_object_new_object();
            pn_json_add_u64(committed, "epoch", k->epoch);
            pn_json_add(committed, "steps", steps);
        }
        pn_json_add(job, "shards", shards);
        pn_json_add(job, "slots", slots);
        pn_json_add(job, "producers", producers);
        pn_json_add(job, "committed", committed);
        if (j->job.privacy.secure) pn_json_add(job, "secure", pn_secure_plan(j));
        struct json_object *statistics = pn_json_get(j->model, "statistics");
        if (pn_job_prepares(&j->job)) {
            char dir[480];
            pn_job_folder(c, j, dir);
            pn_json_add_str(job, "dir", dir);
        }
        pn_json_add(job, "statistics", statistics != NULL && !j->dirty ? json_object_get(statistics) : NULL);
        if (j->cut.phase == PN_DRAIN || j->cut.phase == PN_FLIP) {
            cut = json_object_new_object();
            pn_json_add_u64(cut, "epoch", j->cut.epoch);
            pn_json_add_u64(cut, "upto", j->cut.upto);
        }
        if (j->job.patience > 0 && !j->stopped) {
            struct json_object *gate = json_object_new_object();
            pn_json_add_u64(gate, "epochs", j->gate_epochs);
            pn_json_add_u64(gate, "step", j->gate_step);
            pn_json_add(job, "gate", gate);
        }
        if ((j->phase == PN_EVALUATE_VALIDATION || j->phase == PN_EVALUATE_TEST || pn_gate_asks(j)) && strcmp(j->evaluator, n->name) == 0) {
            char task[80];
            pn_job_task(j, task);
            evaluate = json_object_new_object();
            pn_json_add_str(evaluate, "task", task);
            pn_json_add_str(evaluate, "split", j->phase == PN_EVALUATE_TEST ? "test" : "validation");
        }
    }
    pn_json_add(plan, "job", job);
    pn_json_add(plan, "cut", cut);
    pn_json_add(plan, "evaluate", evaluate);
    if (n->serves[0] != '\0') pn_json_add(plan, "external", external_of(c, n));
}

static void plan_serving(struct pn_coordinator *c, struct json_object *plan) {
    struct json_object *models = json_object_new_array();
    for (struct pn_model_entry *m = c->models; m != NULL; m = m->next) {
        if (m->active == 0) continue;
        struct json_object *e = json_object_new_object(), *keep = json_object_new_array();
        pn_json_add_str(e, "name", m->name);
        pn_json_add_u64(e, "publication", m->publication);
        pn_json_add_u64(e, "active", m->active);
        for (struct pn_version *v = m->versions; v != NULL; v = v->next)
            if (v->version == m->active) {
                pn_json_add_str(e, "dir", v->dir);
                json_object_array_add(keep, json_object_new_uint64(v->version));
                if (v->next != NULL) json_object_array_add(keep, json_object_new_uint64(v->next->version)); /* where a rollback goes */
                if (v != m->versions) json_object_array_add(keep, json_object_new_uint64(m->versions->version)); /* and where one came from */
            }
        pn_json_add(e, "keep", keep);
        json_object_array_add(models, e);
    }
    pn_json_add(plan, "models", models);
}

static void send_plan(struct pn_coordinator *c, struct pn_node *n) {
    struct json_object *o = pn_json_parse(n->plan, strlen(n->plan), NULL);
    struct pn_msg *m = o == NULL ? NULL : pn_control_write(c->env, PN_PLAN, c->epoch, n->revision, o);
    if (m != NULL) pn_send(c->env, n->peer, m);
    if (o != NULL) json_object_put(o);
    c->n_plans++;
}

void pn_plan_repeat(struct pn_coordinator *c, struct pn_node *n) { send_plan(c, n); }

void pn_plans_send(struct pn_coordinator *c) {
    for (struct pn_node *n = c->nodes; n != NULL; n = n->next) {
        struct json_object *plan = json_object_new_object();
        pn_json_add_u64(plan, "lease_ms", c->options.lease_ms);
        pn_json_add_u64(plan, "beat_ms", c->options.beat_ms);
        if (n->role == PN_ROLE_PS) plan_ps(c, n, plan);
        else if (n->role == PN_ROLE_WORKER) plan_worker(c, n, plan);
        else plan_serving(c, plan);
        const char *text = pn_json_text(plan);
        if (n->plan == NULL || strcmp(n->plan, text) != 0) {
            char *copy = strdup(text);
            if (copy != NULL) {
                free(n->plan);
                n->plan = copy;
                n->revision = ++c->revision;
                send_plan(c, n);
            }
        }
        json_object_put(plan);
    }
}
