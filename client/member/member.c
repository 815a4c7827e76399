/* Three places for a request: in line (pushes, in order), out (pulls and pushes at the servers), and waiting for a commit (checkpoint, finish). */
#include "client/member/member.h"
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A push that is out. It outlives its request when that is given up: the servers' answer still counts. */
struct pn_member_flight {
    struct pn_member_flight *next;
    struct pn_member *member;
    struct pn_member_request *request; /* NULL: given up */
};

struct pn_member {
    struct pn_env *env;
    struct pn_member_options options;
    pn_peer coordinator;
    uint64_t incarnation, epoch, revision, beat_ms;
    bool heard;                    /* any plan came */
    struct pn_timer beat;
    struct json_object *plan;
    void (*changed)(void *owner);
    void *owner;
    bool changing;                 /* a beat is due at once */
    /* the job: its text never changes, its run does with each generation */
    struct pn_job job;
    bool job_known;
    struct pn_client *client;
    uint64_t generation;
    bool mapped;
    bool ended, succeeded;
    char why[480];
    uint64_t cut_epoch, cut_upto;
    /* the producer */
    bool has_producer, finished, moved, last_out;
    uint32_t producer, incarnation_of, n_producers;
    uint64_t first_step, started, committed, limit;
    uint32_t lost_producer, lost_incarnation; /* the one that was taken away: an old plan may still show it */
    struct pn_member_flight *flights;
    size_t n_flights;
    struct pn_member_request *line, *out, *commits; /* out: pulls only; each in order of arrival */
};

static void advance(struct pn_member *m);
static void apply_plan(struct pn_member *m);

/* ---- lists ---- */
static void append(struct pn_member_request **list, struct pn_member_request *r) {
    while (*list != NULL) list = &(*list)->next;
    r->next = NULL;
    *list = r;
}

static bool take(struct pn_member_request **list, const struct pn_member_request *r) {
    for (; *list != NULL; list = &(*list)->next)
        if (*list == r) {
            *list = r->next;
            return true;
        }
    return false;
}

static void finish(struct pn_member_request *r, enum pn_result result, const char *why) {
    r->stage = PN_REQUEST_IDLE;
    r->flight = NULL;
    r->result = result;
    r->error.text[0] = '\0';
    if (result != PN_OK) pn_fail(&r->error, result, "%s", why);
    r->done(r);
}

static void fail_all(struct pn_member_request **list, enum pn_result result, const char *why) {
    while (*list != NULL) {
        struct pn_member_request *r = *list;
        *list = r->next;
        finish(r, result, why);
    }
}

/* ---- beats ---- */
/* In sync jobs a push waits for the others' pushes of that step, so that steps up to `upto` must still come. Elsewhere only pulls wait for others,
 * and pulls are nothing to a cut; to ask for more steps would be to wait for a user who may have none. */
static uint64_t last_of_cut(const struct pn_member *m) { return m->job.consistency == PN_SYNC ? m->cut_upto : 0; }

static bool drained(const struct pn_member *m) {
    if (m->cut_epoch == 0) return false;
    if (!m->has_producer) return true;
    const uint64_t clock = pn_client_clock(m->client, m->producer);
    return m->started == clock && (clock >= last_of_cut(m) || m->finished);
}

/* A checkpoint is wanted for the same reason for which a worker wants one: pushes that no checkpoint holds yet. */
static bool wants_cut(const struct pn_member *m) { return m->commits != NULL || pn_client_ring_full(m->client, m->producer); }

static void send_beat(struct pn_member *m, bool leaving) {
    struct json_object *o = json_object_new_object(), *plan = json_object_new_array(), *serves = json_object_new_object(), *job = NULL, *cut = NULL;
    pn_json_add_str(o, "role", "worker");
    pn_json_add_str(o, "name", m->options.name);
    pn_json_add_u64(o, "incarnation", m->incarnation);
    pn_json_add_str(o, "address", "");
    pn_json_add_str(o, "http", "");
    pn_json_add_str(serves, "job", m->options.job);
    pn_json_add_u64(serves, "producers", m->options.takes_producer);
    pn_json_add(o, "serves", serves);
    if (leaving) pn_json_add_bool(o, "leaving", true);
    json_object_array_add(plan, json_object_new_uint64(m->epoch));
    json_object_array_add(plan, json_object_new_uint64(m->revision));
    pn_json_add(o, "plan", plan);
    if (m->client != NULL) {
        struct json_object *list = json_object_new_array();
        job = json_object_new_object();
        pn_json_add_str(job, "id", m->options.job);
        pn_json_add_u64(job, "generation", m->generation);
        pn_json_add_str(job, "state", m->mapped ? "running" : "starting");
        if (m->has_producer) {
            struct json_object *e = json_object_new_object();
            const uint64_t clock = pn_client_clock(m->client, m->producer);
            pn_json_add_u64(e, "producer", m->producer);
            pn_json_add_u64(e, "incarnation", m->incarnation_of);
            pn_json_add_u64(e, "started", m->started);
            pn_json_add_u64(e, "clock", clock);
            pn_json_add_bool(e, "finished", m->finished && clock >= m->started);
            pn_json_add_bool(e, "ring_full", wants_cut(m));
            json_object_array_add(list, e);
        }
        pn_json_add(o, "producers", list);
        if (m->cut_epoch != 0) {
            cut = json_object_new_object();
            pn_json_add_u64(cut, "epoch", m->cut_epoch);
            pn_json_add_u64(cut, "upto", m->cut_upto);
            pn_json_add_bool(cut, "drained", drained(m));
        }
    }
    pn_json_add(o, "job", job);
    pn_json_add(o, "cut", cut);
    struct pn_msg *msg = pn_control_write(m->env, PN_BEAT, m->epoch, m->revision, o);
    if (msg != NULL) pn_send(m->env, m->coordinator, msg);
    json_object_put(o);
}

static void beat_again(struct pn_timer *t) {
    struct pn_member *m = t->owner;
    advance(m);
    m->changing = false;
    send_beat(m, false);
    pn_timer_start(m->env, &m->beat, m->beat_ms);
    m->changed(m->owner);
}

/* Something worth a beat: soon, and one for all that happens in this event. */
static void beat_soon(struct pn_member *m) {
    if (m->changing) return;
    m->changing = true;
    pn_timer_start(m->env, &m->beat, 0);
}

/* ---- pulls: the client repeats them within a generation of the job, we ask again in the next ---- */
static void pulled(void *owner, enum pn_result result) {
    struct pn_member_request *r = owner;
    take(&r->member->out, r);
    finish(r, result, "a server refused the pull, or there is no memory for it");
}

static void send_pull(struct pn_member *m, struct pn_member_request *r) {
    const uint64_t clock = m->has_producer ? pn_client_clock(m->client, m->producer) : 0;
    pn_client_pull(m->client, m->has_producer ? m->producer : UINT32_MAX, clock, r->parts, r->n_parts, pulled, r);
}

/* ---- pushes ---- */
static void stop_producer(struct pn_member *m, const char *why) {
    if (m->has_producer) { /* first: whoever is told below may look at once */
        m->moved = true;
        m->lost_producer = m->producer;
        m->lost_incarnation = m->incarnation_of;
        snprintf(m->why, sizeof m->why, "%s", why);
    }
    while (m->flights != NULL) { /* the client drops them with their producer or with itself */
        struct pn_member_flight *f = m->flights;
        m->flights = f->next;
        if (m->client != NULL) pn_client_cancel(m->client, f);
        if (f->request != NULL) finish(f->request, PN_FENCED, why);
        free(f);
    }
    m->n_flights = 0;
    fail_all(&m->line, PN_FENCED, why);
    fail_all(&m->commits, PN_FENCED, why);
    if (m->client != NULL && m->has_producer) pn_client_producer_remove(m->client, m->producer);
    m->has_producer = m->finished = m->last_out = false;
}

static void acknowledged(void *owner, enum pn_result result) {
    struct pn_member_flight *f = owner;
    struct pn_member *m = f->member;
    struct pn_member_request *r = f->request;
    struct pn_member_flight **at = &m->flights;
    while (*at != f) at = &(*at)->next;
    *at = f->next;
    m->n_flights--;
    free(f);
    if (result == PN_OK && m->last_out && m->n_flights == 0) m->finished = true;
    if (r != NULL && result == PN_OK && r->op == PN_MEMBER_FINISH) { /* the answer comes with the commit */
        r->flight = NULL;
        r->stage = PN_REQUEST_COMMITS;
        r->covers = r->step;
        append(&m->commits, r);
        beat_soon(m);
    } else if (r != NULL) {
        finish(r, result, result == PN_FENCED ? "a newer incarnation of this producer is at work" : "a server refused the push");
    }
    if (result != PN_OK) { /* steps behind it must not be applied without it */
        stop_producer(m, result == PN_FENCED ? "a newer incarnation of this producer is at work" : "a server refused an earlier push");
        if (result != PN_FENCED) m->incarnation = m->env->ops->random(m->env) | 1; /* a new life: the coordinator gives the producer anew */
        beat_soon(m);
        return;
    }
    if (m->n_flights == 0 && m->started >= m->limit) beat_soon(m); /* drained */
    advance(m);
}

static bool may_push(const struct pn_member *m) {
    const bool sync = m->job.consistency == PN_SYNC;
    if (!m->mapped || !m->has_producer || m->moved || m->last_out || m->started >= m->limit || m->n_flights >= (sync ? 1 : m->job.max_in_flight)) return false;
    if (sync && pn_client_clock(m->client, m->producer) != m->started) return false;
    /* A full ring waits for a checkpoint; but under a cut the steps that others wait for must go on, or it could never be taken. */
    return m->limit != UINT64_MAX || !pn_client_ring_full(m->client, m->producer);
}

/* False: not now. */
static bool send_push(struct pn_member *m, struct pn_member_request *r) {
    struct pn_member_flight *f = calloc(1, sizeof *f);
    if (f == NULL) return false;
    *f = (struct pn_member_flight){.next = m->flights, .member = m, .request = r};
    const bool last = r->op == PN_MEMBER_FINISH;
    enum pn_result result = pn_client_push(m->client, m->producer, m->started + 1, last, r->parts, r->n_parts, acknowledged, f);
    if (result != PN_OK) {
        free(f);
        if (result == PN_FENCED) stop_producer(m, "a newer incarnation of this producer is at work");
        return false;
    }
    m->line = r->next;
    r->step = ++m->started;
    r->flight = f;
    r->stage = PN_REQUEST_OUT;
    m->flights = f;
    m->n_flights++;
    m->last_out = last;
    return true;
}

static void take_commit(struct pn_member *m) {
    for (struct pn_member_request **at = &m->commits; *at != NULL;) {
        struct pn_member_request *r = *at;
        if (r->covers > m->committed) {
            at = &r->next;
            continue;
        }
        *at = r->next;
        finish(r, PN_OK, "");
        at = &m->commits; /* done() may have changed the list */
    }
}

static void advance(struct pn_member *m) {
    while (m->line != NULL) {
        struct pn_member_request *r = m->line;
        if (r->op == PN_MEMBER_CHECKPOINT && m->has_producer && !m->moved) {
            m->line = r->next;
            r->stage = PN_REQUEST_COMMITS;
            r->covers = m->started;
            append(&m->commits, r);
            beat_soon(m);
            continue;
        }
        if (m->last_out && r->op != PN_MEMBER_CHECKPOINT) { /* stood in line behind the last one */
            m->line = r->next;
            finish(r, PN_REFUSED, "this producer has finished");
            continue;
        }
        if (!may_push(m) || !send_push(m, r)) break;
    }
    if (m->ended) return;
    if (m->client != NULL && m->has_producer && pn_client_ring_full(m->client, m->producer) && m->line != NULL && m->cut_epoch == 0) beat_soon(m);
    take_commit(m);
}

void pn_member_start(struct pn_member *m, struct pn_member_request *r) {
    r->member = m;
    r->flight = NULL;
    r->step = 0;
    if (m->ended) {
        finish(r, PN_REFUSED, m->why);
    } else if (r->op == PN_MEMBER_PULL) {
        r->stage = PN_REQUEST_OUT;
        append(&m->out, r);
        if (m->mapped) send_pull(m, r);
    } else if (!m->options.takes_producer) {
        finish(r, PN_INVALID, "this session only reads: it was opened without a producer");
    } else if (m->moved) {
        finish(r, PN_FENCED, m->why);
    } else if (m->last_out && r->op != PN_MEMBER_CHECKPOINT) {
        finish(r, PN_REFUSED, "this producer has finished");
    } else {
        r->stage = PN_REQUEST_LINE;
        append(&m->line, r);
        advance(m);
    }
}

bool pn_member_take_back(struct pn_member *m, struct pn_member_request *r) {
    bool without_effect = true;
    if (r->stage == PN_REQUEST_LINE) take(&m->line, r);
    else if (r->stage == PN_REQUEST_COMMITS) {
        take(&m->commits, r);
        without_effect = r->op == PN_MEMBER_CHECKPOINT;
    } else if (r->stage == PN_REQUEST_OUT && r->op == PN_MEMBER_PULL) {
        if (m->client != NULL) pn_client_cancel(m->client, r);
        take(&m->out, r);
    } else if (r->stage == PN_REQUEST_OUT) {
        r->flight->request = NULL;
        without_effect = false;
    }
    r->stage = PN_REQUEST_IDLE;
    advance(m);
    return without_effect;
}

void pn_member_resume(struct pn_member *m) {
    if (m->ended) return;
    m->moved = false;
    if (m->plan != NULL && m->client != NULL && !m->has_producer) apply_plan(m);
    advance(m);
    m->changed(m->owner);
}

/* ---- plans ---- */
static void end(struct pn_member *m, bool succeeded, const char *why) {
    const bool first = !m->ended;
    m->ended = true;
    m->succeeded = succeeded;
    if (first) snprintf(m->why, sizeof m->why, "%s", why);
    while (succeeded && m->commits != NULL) { /* the final checkpoint has all */
        struct pn_member_request *r = m->commits;
        m->commits = r->next;
        finish(r, PN_OK, "");
    }
    fail_all(&m->out, PN_REFUSED, m->why);
    while (m->flights != NULL) {
        struct pn_member_flight *f = m->flights;
        m->flights = f->next;
        if (m->client != NULL) pn_client_cancel(m->client, f);
        if (f->request != NULL) finish(f->request, PN_REFUSED, m->why);
        free(f);
    }
    m->n_flights = 0;
    fail_all(&m->line, PN_REFUSED, m->why);
    fail_all(&m->commits, PN_REFUSED, m->why);
}

static void close_run(struct pn_member *m, const char *why) {
    if (!m->ended) stop_producer(m, why);
    m->has_producer = false;
    pn_client_close(m->client); /* pulls that were out stay in our list */
    m->client = NULL;
    m->mapped = false;
    m->cut_epoch = m->cut_upto = 0;
    m->limit = UINT64_MAX;
}

static bool open_run(struct pn_member *m, struct json_object *job) {
    const char *text = pn_json_str(job, "text", "");
    struct pn_error err = {""};
    if (!m->job_known && pn_job_parse(&m->job, text, strlen(text), "job", NULL, NULL, &err) != PN_OK) {
        end(m, false, err.text);
        return false;
    }
    m->job_known = true;
    m->generation = pn_json_u64(job, "generation", 0);
    m->n_producers = (uint32_t)pn_json_u64(job, "n_producers", 0);
    m->client = pn_client_open(m->env, &m->job, m->options.job);
    return m->client != NULL; /* else again with the next beat */
}

static void take_producer(struct pn_member *m, struct json_object *list) {
    struct json_object *e = pn_json_at(list, 0);
    const uint64_t id = pn_json_u64(e, "producer", UINT64_MAX), incarnation = pn_json_u64(e, "incarnation", 0), first = pn_json_u64(e, "first_step", 1);
    const bool old = id == m->lost_producer && incarnation <= m->lost_incarnation, sound = e != NULL && id < m->n_producers && first > 0 && !old;
    if (m->has_producer && (!sound || id != m->producer || incarnation != m->incarnation_of))
        stop_producer(m, "the producer was taken from this client, which was silent for longer than its lease");
    if (!sound || m->has_producer || pn_client_producer(m->client, (uint32_t)id, (uint32_t)incarnation, first) != PN_OK) return;
    m->has_producer = true;
    m->producer = (uint32_t)id;
    m->incarnation_of = (uint32_t)incarnation;
    m->first_step = first;
    m->started = m->committed = first - 1;
}

static void take_external(struct pn_member *m, struct json_object *external) {
    const char *state = pn_json_str(external, "state", "");
    char why[480];
    if (strcmp(state, "UNKNOWN") == 0) snprintf(why, sizeof why, "there is no job %s", m->options.job);
    else if (strcmp(state, "NOT_EXTERNAL") == 0) snprintf(why, sizeof why, "job %s is not external: its workers train it (spec.data.external)", m->options.job);
    else if (strcmp(state, "SUCCEEDED") == 0 || strcmp(state, "FAILED") == 0 || strcmp(state, "CANCELLED") == 0)
        snprintf(why, sizeof why, "job %s has ended: %s%s%s", m->options.job, state, pn_json_str(external, "reason", "")[0] ? ", " : "", pn_json_str(external, "reason", ""));
    else return;
    end(m, strcmp(state, "SUCCEEDED") == 0, why);
}

static void apply_plan(struct pn_member *m) {
    struct json_object *job = pn_json_get(m->plan, "job");
    if (m->ended) return;
    take_external(m, pn_json_get(m->plan, "external"));
    if (m->client != NULL && (job == NULL || pn_json_u64(job, "generation", 0) != m->generation)) close_run(m, "the job went back to a checkpoint");
    if (m->ended || job == NULL || strcmp(pn_json_str(job, "id", ""), m->options.job) != 0) return;
    if (m->client == NULL && !open_run(m, job)) return;
    struct pn_shard_map map;
    if (!pn_shard_map_read(job, &map)) return;
    for (uint32_t s = 0; s < map.n_shards && !m->mapped; s++)
        if (map.shards[s].term == 0) return; /* not all are up yet */
    pn_client_map(m->client, &map);
    take_producer(m, pn_json_get(job, "producers"));
    if (!m->mapped) {
        m->mapped = true;
        for (struct pn_member_request *r = m->out, *next; r != NULL; r = next) {
            next = r->next;
            send_pull(m, r);
        }
    }
    struct json_object *steps = pn_json_get(pn_json_get(job, "committed"), "steps"), *cut = pn_json_get(m->plan, "cut");
    m->cut_epoch = pn_json_u64(cut, "epoch", 0);
    m->cut_upto = pn_json_u64(cut, "upto", 0);
    m->limit = m->cut_epoch == 0 ? UINT64_MAX : m->started > last_of_cut(m) ? m->started : last_of_cut(m);
    if (m->has_producer) {
        const uint64_t committed = json_object_get_uint64(pn_json_at(steps, m->producer));
        pn_client_committed(m->client, m->producer, committed);
        if (committed > m->committed) m->committed = committed;
    }
    advance(m);
}

static void message(void *core, pn_peer from, struct pn_msg *msg) {
    struct pn_member *m = core;
    struct pn_frame f;
    if (pn_frame_open(&f, msg->data, msg->n_bytes, NULL) != PN_OK) return;
    if (f.kind == PN_PLAN && from == m->coordinator) {
        const bool old = f.term < m->epoch || (f.term == m->epoch && f.request < m->revision);
        struct json_object *plan = old ? NULL : pn_control_read(&f, NULL);
        if (plan != NULL) {
            const bool repeated = m->heard && f.term == m->epoch && f.request == m->revision && m->client != NULL;
            m->heard = true;
            m->epoch = f.term;
            m->revision = f.request;
            if (m->plan != NULL) json_object_put(m->plan);
            m->plan = plan;
            m->beat_ms = pn_json_u64(plan, "beat_ms", 100);
            if (m->beat_ms < 5 || m->beat_ms > 60000) m->beat_ms = 100;
            if (!repeated) apply_plan(m);
            beat_soon(m);
        }
    } else if (m->client != NULL) {
        pn_client_message(m->client, from, msg, &f);
    }
    pn_frame_close(&f);
}

/* ---- life ---- */
struct pn_member *pn_member_open(struct pn_env *env, const struct pn_member_options *options, void (*changed)(void *), void *owner) {
    struct pn_member *m = calloc(1, sizeof *m);
    if (m == NULL) return NULL;
    m->env = env;
    m->options = *options;
    m->changed = changed;
    m->owner = owner;
    m->incarnation = env->ops->random(env) | 1;
    m->beat_ms = 100;
    m->limit = UINT64_MAX;
    m->beat = (struct pn_timer){.fire = beat_again, .owner = m};
    m->coordinator = env->ops->connect(env, options->coordinator);
    return m;
}

void pn_member_close(struct pn_member *m) {
    if (m == NULL) return;
    if (m->heard) send_beat(m, true);
    pn_timer_stop(m->env, &m->beat);
    pn_client_close(m->client);
    while (m->flights != NULL) {
        struct pn_member_flight *f = m->flights;
        m->flights = f->next;
        free(f);
    }
    if (m->plan != NULL) json_object_put(m->plan);
    if (m->job_known) pn_job_free(&m->job);
    free(m);
}

static void start(void *core) { beat_again(&((struct pn_member *)core)->beat); }

const struct pn_core_ops pn_member_core = {.start = start, .message = message};

const struct pn_job *pn_member_job(const struct pn_member *m) { return m->job_known ? &m->job : NULL; }

void pn_member_look(const struct pn_member *m, struct pn_member_view *v) {
    *v = (struct pn_member_view){.succeeded = m->succeeded, .generation = m->generation, .has_producer = m->has_producer, .finished = m->finished, .producer = m->producer,
                                 .incarnation = m->incarnation_of, .n_producers = m->n_producers, .first_step = m->first_step, .started = m->started, .committed = m->committed};
    if (m->client != NULL) v->counters = *pn_client_counters(m->client);
    v->clock = m->has_producer ? pn_client_clock(m->client, m->producer) : m->started;
    for (const struct pn_member_request *r = m->line; r != NULL; r = r->next) v->n_waiting++;
    struct json_object *external = pn_json_get(m->plan, "external");
    if (m->ended || m->moved) {
        v->state = m->ended ? PN_MEMBER_ENDED : PN_MEMBER_MOVED;
        snprintf(v->why, sizeof v->why, "%s", m->why);
    } else if (m->mapped && (m->has_producer || !m->options.takes_producer)) {
        v->state = PN_MEMBER_OPEN;
    } else {
        v->state = PN_MEMBER_WAITING;
        if (!m->heard) snprintf(v->why, sizeof v->why, "the coordinator at %s does not answer", m->options.coordinator);
        else if (m->client == NULL) snprintf(v->why, sizeof v->why, "job %s is %s", m->options.job, pn_json_str(external, "state", "not known yet"));
        else if (!m->mapped) snprintf(v->why, sizeof v->why, "the servers of job %s are not all up", m->options.job);
        else snprintf(v->why, sizeof v->why, "other clients have all %u producers of job %s (training.dataShards)", m->n_producers, m->options.job);
    }
}
