/* A client process of an external job (sim --clients): drives client/member as a careful program would drive libpinion. It pushes the oracle's
 * steps, a function of (producer, step), some ahead, now and then takes the newest back and asks for checkpoints, and behind a fence goes on
 * where it is told; at the end it finishes. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "client/member/keyed.h"
#include "client/member/member.h"
#include "tests/sim/sim.h"
#include "worker/audit.h"

enum { OPEN = 24 };

struct slot {
    struct pn_member_request request; /* first */
    struct client *client;
    uint64_t keys[PN_AUDIT_RAW], step; /* step: that it must get */
    float rows[PN_AUDIT_RAW * PN_AUDIT_DIM];
    struct pn_keyed batch;
    bool busy;
};

struct client {
    struct pn_env *env;
    struct sim_client_options options;
    struct pn_member *member;
    struct pn_timer timer;
    struct slot slots[OPEN];
    uint64_t asked;                   /* newest step that was asked for; while `open` */
    bool open, finishing, finished;
};

static void done(struct pn_member_request *r) {
    struct slot *s = (struct slot *)r;
    struct client *c = s->client;
    s->busy = false;
    if (r->op != PN_MEMBER_CHECKPOINT) pn_keyed_free(&s->batch);
    if (r->op == PN_MEMBER_FINISH) c->finishing = false;
    if (r->result == PN_OK && r->op == PN_MEMBER_FINISH) c->finished = true;
    if (r->result == PN_OK && (r->op == PN_MEMBER_PUSH || r->op == PN_MEMBER_FINISH)) assert(r->step == s->step && "steps are given in the order of the calls");
    if (r->result == PN_FENCED) c->open = false;
    assert(r->result == PN_OK || r->result == PN_FENCED || r->result == PN_REFUSED);
}

static struct slot *ask(struct client *c, enum pn_member_op op, uint64_t step) {
    struct slot *s = NULL;
    for (int i = 0; i < OPEN && s == NULL; i++)
        if (!c->slots[i].busy) s = &c->slots[i];
    if (s == NULL) return NULL;
    *s = (struct slot){.client = c, .step = step, .busy = true, .request = {.op = op, .done = done}};
    if (op == PN_MEMBER_PUSH || op == PN_MEMBER_PULL) {
        struct pn_member_view v;
        pn_member_look(c->member, &v);
        pn_audit_keys(v.producer, step, c->options.n_keys, s->keys);
        for (size_t i = 0; i < PN_AUDIT_RAW && op == PN_MEMBER_PUSH; i++) {
            float row[PN_AUDIT_DIM] = {0};
            pn_audit_add(v.producer, step, row);
            for (size_t d = 0; d < PN_AUDIT_DIM; d++) s->rows[i * PN_AUDIT_DIM + d] = -row[d];
        }
        pn_keyed_open(&s->batch, s->keys, PN_AUDIT_RAW, s->rows, PN_AUDIT_DIM);
        if (op == PN_MEMBER_PUSH) pn_keyed_sum(&s->batch, NULL);
        s->request.parts[s->request.n_parts++] = pn_keyed_client_part(&s->batch, 0);
    }
    pn_member_start(c->member, &s->request);
    return s;
}

static int n_open(const struct client *c, enum pn_member_op op) {
    int n = 0;
    for (int i = 0; i < OPEN; i++) n += c->slots[i].busy && c->slots[i].request.op == op;
    return n;
}

static bool any_open(const struct client *c) {
    for (int i = 0; i < OPEN; i++)
        if (c->slots[i].busy && c->slots[i].request.op != PN_MEMBER_PULL) return true;
    return false;
}

static void act(struct pn_timer *t) {
    struct client *c = t->owner;
    pn_timer_start(c->env, t, 3 + c->env->ops->random(c->env) % 5);
    if (c->member == NULL) { /* somebody has to tell us the job first */
        struct pn_member_options o = {.takes_producer = true};
        if (c->options.job_id[0] == '\0') return;
        snprintf(o.name, sizeof o.name, "%s", c->options.name);
        snprintf(o.coordinator, sizeof o.coordinator, "%s", c->options.coordinator);
        snprintf(o.job, sizeof o.job, "%s", c->options.job_id);
        c->member = pn_member_open(c->env, &o, c->options.changed, c);
        assert(c->member != NULL);
        pn_member_core.start(c->member);
        return;
    }
    struct pn_member_view v;
    pn_member_look(c->member, &v);
    if (v.state == PN_MEMBER_ENDED) return;
    if (v.state == PN_MEMBER_MOVED) {
        c->open = c->finished = false;
        if (!any_open(c)) pn_member_resume(c->member);
        return;
    }
    if (v.state != PN_MEMBER_OPEN || c->finished) return;
    if (!c->open) {
        c->open = true;
        c->asked = v.started;
        assert(v.n_waiting == 0);
    }
    const uint64_t chance = c->env->ops->random(c->env);
    for (int i = 0; i < 3 && c->asked < c->options.n_steps; i++) {
        struct slot *s = ask(c, PN_MEMBER_PUSH, c->asked + 1);
        if (s == NULL) break;
        if (!s->busy && s->request.result != PN_OK) return; /* refused at once: the state says why */
        c->asked++;
        if (chance % 16 != 0 || !s->busy) continue;
        if (pn_member_take_back(c->member, &s->request)) c->asked--; /* no effect: the step is free again */
        s->busy = false;
        pn_keyed_free(&s->batch);
        break;
    }
    /* Few of them, and pushes go on meanwhile: in sync jobs others may need these before a checkpoint can be cut or a pull answered. */
    if (chance % 32 == 1 && n_open(c, PN_MEMBER_CHECKPOINT) == 0) ask(c, PN_MEMBER_CHECKPOINT, 0);
    if (chance % 8 == 2 && n_open(c, PN_MEMBER_PULL) < 4) ask(c, PN_MEMBER_PULL, c->asked + 1);
    if (c->asked >= c->options.n_steps && n_open(c, PN_MEMBER_PUSH) == 0 && !c->finishing) {
        c->finishing = true;
        if (ask(c, PN_MEMBER_FINISH, c->asked + 1) == NULL) c->finishing = false;
    }
}

static void nothing(void *owner) { (void)owner; }

void *sim_client_open(struct pn_env *env, const struct sim_client_options *options) {
    struct client *c = calloc(1, sizeof *c);
    if (c == NULL) return NULL;
    c->env = env;
    c->options = *options;
    c->options.changed = nothing;
    c->timer = (struct pn_timer){.fire = act, .owner = c};
    return c;
}

static void start(void *core) { act(&((struct client *)core)->timer); }
static void message(void *core, pn_peer from, struct pn_msg *m) {
    struct client *c = core;
    if (c->member != NULL) pn_member_core.message(c->member, from, m);
}
const struct pn_core_ops sim_client_core = {.start = start, .message = message};
