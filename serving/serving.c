/* Plans, beats and versions. A version is mapped here, verified and warmed up on a work thread, and then becomes current by one
 * pointer. What cannot be loaded is reported and tried again later; the version that was current goes on. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "serving/internal.h"

#define RETRY_MS 1000u
#define RETRY_MAX_MS 60000u

/* One load under way. `model` is NULL when nobody wants it any more. */
struct pn_loading {
    struct pn_serving *serving;
    struct pn_model_state *model;
    uint64_t version;
    struct pn_work work;
    struct pn_served *served;
    enum pn_result result;
    struct pn_error err;
};

static void changed(struct pn_serving *s);

/* ---- versions ---- */

void pn_served_unref(struct pn_served *v) {
    if (v == NULL || --v->refs > 0) return;
    while (v->idle != NULL) {
        struct pn_ranker *r = v->idle;
        v->idle = r->next;
        pn_ranker_close(r);
    }
    pn_scorer_close(&v->scorer);
    pn_snapshot_close(v->snapshot);
    free(v);
}

struct pn_served *pn_served_of(struct pn_model_state *m, uint64_t version) {
    for (struct pn_served *v = m->versions; v != NULL; v = v->next)
        if (v->version == version) return v;
    return NULL;
}

struct pn_model_state *pn_model_of(struct pn_serving *s, const char *name) {
    for (struct pn_model_state *m = s->models; m != NULL; m = m->next)
        if (strcmp(m->name, name) == 0) return m;
    return NULL;
}

/* The plan wants it loaded: the active version and those that a rollback would go to. */
static bool kept(const struct pn_model_state *m, const struct pn_served *v) {
    for (size_t i = 0; i < m->n_keep; i++)
        if (m->keep[i] == v->version && m->planned) return true;
    return false;
}

/* Lets go of versions that nothing names any more; requests that use one still hold it. */
static void trim(struct pn_model_state *m) {
    for (struct pn_served **at = &m->versions; *at != NULL;) {
        struct pn_served *v = *at;
        if (v == m->active || kept(m, v)) {
            at = &v->next;
        } else {
            *at = v->next;
            v->next = NULL;
            pn_served_unref(v);
        }
    }
}

static void activate(struct pn_serving *s, struct pn_model_state *m, struct pn_served *v) {
    if (m->active != v) {
        pn_log(s->env, PN_INFO, "model %s: version %" PRIu64 " is active%s", m->name, v->version, m->active != NULL && kept(m, m->active) ? ", the one before stays loaded" : "");
        m->active = v;
        m->n_swaps++;
    }
    m->applied = m->publication;
    m->failed_version = 0;
    m->n_failures = 0;
    trim(m);
    changed(s);
}

/* Pure: on a work thread. */
static void verify(struct pn_work *w) {
    struct pn_loading *l = w->owner;
    struct pn_served *v = l->served;
    struct pn_error why = {""};
    l->result = pn_snapshot_verify(v->snapshot, &l->err);
    if (l->result != PN_OK) return;
    enum pn_result r = pn_scorer_open(&v->scorer, v->snapshot, &why);
    if (r == PN_REFUSED) return; /* held, as every published version is, but not for ranking */
    if (r == PN_OK) r = pn_ranker_open(&v->idle, &v->scorer, &why);
    if (r == PN_OK) r = pn_ranker_warm_up(v->idle, &v->scorer, &why);
    v->can_rank = r == PN_OK;
    if (r != PN_OK) l->result = pn_fail(&l->err, r, "version %" PRIu64 " cannot rank: %s", v->version, why.text);
}

static void failed(struct pn_serving *s, struct pn_model_state *m, uint64_t version, const struct pn_error *err) {
    bool news = m->failed_version != version || strcmp(m->failed_error, err->text) != 0;
    snprintf(m->failed_error, sizeof m->failed_error, "%s", err->text);
    m->failed_version = version;
    uint64_t wait = m->n_failures < 6 ? (uint64_t)RETRY_MS << m->n_failures : RETRY_MAX_MS;
    m->n_failures++;
    m->retry_ms = pn_now_ms(s->env) + wait;
    if (news) {
        if (m->active != NULL)
            pn_log(s->env, PN_ERROR, "model %s: version %" PRIu64 " is refused, version %" PRIu64 " goes on: %s", m->name, version, m->active->version, err->text);
        else pn_log(s->env, PN_ERROR, "model %s: version %" PRIu64 " is refused, and none was active: %s", m->name, version, err->text);
        changed(s);
    }
}

static void work_towards(struct pn_serving *s, struct pn_model_state *m);

static void verified(struct pn_work *w) {
    struct pn_loading *l = w->owner;
    struct pn_serving *s = l->serving;
    struct pn_model_state *m = l->model;
    if (m != NULL) {
        m->loading = NULL;
        if (l->result == PN_OK) {
            l->served->next = m->versions;
            m->versions = l->served;
            l->served = NULL;
            if (m->wanted == l->version) activate(s, m, m->versions);
            else trim(m);
        } else if (m->wanted == l->version) {
            failed(s, m, l->version, &l->err);
        }
    }
    pn_served_unref(l->served);
    free(l);
    if (m != NULL) work_towards(s, m);
    pn_serving_release(s);
}

static void load(struct pn_serving *s, struct pn_model_state *m) {
    struct pn_error err = {""};
    struct pn_loading *l = calloc(1, sizeof *l);
    struct pn_served *v = calloc(1, sizeof *v);
    enum pn_result r = l != NULL && v != NULL ? PN_OK : pn_fail(&err, PN_NO_MEMORY, "no memory to load a version");
    if (r == PN_OK) {
        v->refs = 1;
        v->version = m->wanted;
        r = pn_snapshot_map(&v->snapshot, s->env, m->dir, &err);
        if (r == PN_OK && (pn_snapshot_version(v->snapshot) != m->wanted || strcmp(pn_snapshot_model(v->snapshot), m->name) != 0))
            r = pn_fail(&err, PN_CORRUPT, "%s/manifest.json is of %s version %" PRIu64, m->dir, pn_snapshot_model(v->snapshot), pn_snapshot_version(v->snapshot));
    }
    if (r != PN_OK) {
        failed(s, m, m->wanted, &err);
        if (v != NULL) pn_served_unref(v);
        free(l);
        return;
    }
    *l = (struct pn_loading){.serving = s, .model = m, .version = m->wanted, .served = v, .work = {.run = verify, .done = verified, .owner = l}};
    m->loading = l;
    s->n_outstanding++;
    pn_work_start(s->env, &l->work);
}

static void work_towards(struct pn_serving *s, struct pn_model_state *m) {
    if (s->closed || !m->planned || m->wanted == 0 || m->loading != NULL) return;
    if (m->active != NULL && m->active->version == m->wanted) {
        m->failed_version = 0; /* what failed is not wanted any more */
        if (m->applied != m->publication) activate(s, m, m->active);
        else trim(m);
        return;
    }
    struct pn_served *v = pn_served_of(m, m->wanted);
    if (v != NULL) activate(s, m, v);
    else if (m->failed_version != m->wanted || pn_now_ms(s->env) >= m->retry_ms) load(s, m);
}

static void abandon_loading(struct pn_model_state *m) {
    if (m->loading == NULL) return;
    m->loading->model = NULL;
    m->loading = NULL;
}

/* ---- beats ---- */

static void send_beat(struct pn_serving *s) {
    struct json_object *o = json_object_new_object(), *plan = json_object_new_array(), *models = json_object_new_array();
    pn_json_add_str(o, "role", "serving");
    pn_json_add_str(o, "name", s->options.name);
    pn_json_add_u64(o, "incarnation", s->incarnation);
    pn_json_add_str(o, "address", "");
    pn_json_add_str(o, "http", s->options.http);
    json_object_array_add(plan, json_object_new_uint64(s->epoch));
    json_object_array_add(plan, json_object_new_uint64(s->revision));
    pn_json_add(o, "plan", plan);
    for (struct pn_model_state *m = s->models; m != NULL; m = m->next) {
        if (!m->planned) continue;
        struct json_object *e = json_object_new_object(), *loaded = json_object_new_array(), *fail = NULL;
        pn_json_add_str(e, "name", m->name);
        pn_json_add_u64(e, "active", m->active != NULL ? m->active->version : 0);
        pn_json_add_u64(e, "publication", m->applied);
        for (struct pn_served *v = m->versions; v != NULL; v = v->next) json_object_array_add(loaded, json_object_new_uint64(v->version));
        pn_json_add(e, "loaded", loaded);
        if (m->failed_version != 0) {
            fail = json_object_new_object();
            pn_json_add_u64(fail, "version", m->failed_version);
            pn_json_add_str(fail, "error", m->failed_error);
        }
        pn_json_add(e, "failed", fail);
        json_object_array_add(models, e);
    }
    pn_json_add(o, "models", models);
    struct pn_msg *message = pn_control_write(s->env, PN_BEAT, s->epoch, s->revision, o);
    if (message != NULL && s->coordinator != 0) pn_send(s->env, s->coordinator, message);
    else pn_msg_unref(message);
    json_object_put(o);
}

static void beat_again(struct pn_timer *t) {
    struct pn_serving *s = t->owner;
    s->changing = false;
    for (struct pn_model_state *m = s->models; m != NULL; m = m->next) work_towards(s, m);
    s->changing = false; /* what just changed is in this beat */
    send_beat(s);
    pn_timer_start(s->env, &s->beat, s->beat_ms);
}

/* Something worth a beat: soon, and one for all that happens in this event. */
static void changed(struct pn_serving *s) {
    if (s->changing || s->closed) return;
    s->changing = true;
    pn_timer_start(s->env, &s->beat, 0);
}

/* ---- plans ---- */

static void take_model(struct pn_serving *s, struct json_object *e) {
    const char *name = pn_json_str(e, "name", ""), *dir = pn_json_str(e, "dir", "");
    uint64_t active = pn_json_u64(e, "active", 0);
    if (name[0] == '\0' || strlen(name) >= sizeof s->models->name || strlen(dir) >= sizeof s->models->dir || active == 0 || dir[0] == '\0') {
        pn_log(s->env, PN_WARN, "a plan names a model without name, version or folder: left out");
        return;
    }
    struct pn_model_state *m = pn_model_of(s, name);
    if (m == NULL) {
        m = s->n_models < PN_MAX_MODELS ? calloc(1, sizeof *m) : NULL;
        if (m == NULL) {
            pn_log(s->env, PN_WARN, "no room for model %s", name);
            return;
        }
        snprintf(m->name, sizeof m->name, "%s", name);
        m->next = s->models;
        s->models = m;
        s->n_models++;
    }
    m->planned = true;
    m->publication = pn_json_u64(e, "publication", 0);
    if (m->wanted != active || strcmp(m->dir, dir) != 0) {
        m->wanted = active;
        snprintf(m->dir, sizeof m->dir, "%s", dir);
        m->failed_version = m->n_failures = 0;
        abandon_loading(m);
    }
    struct json_object *keep = pn_json_get(e, "keep");
    m->n_keep = 0;
    for (size_t i = 0; i < pn_json_length(keep) && i < PN_MAX_KEEP; i++) m->keep[m->n_keep++] = json_object_get_uint64(pn_json_at(keep, i));
}

static void take_plan(struct pn_serving *s, struct json_object *plan) {
    struct json_object *models = pn_json_get(plan, "models");
    s->beat_ms = pn_json_u64(plan, "beat_ms", 100);
    if (s->beat_ms < 5 || s->beat_ms > 60000) s->beat_ms = 100;
    if (models == NULL || !json_object_is_type(models, json_type_array)) return; /* no word about models: nothing changes */
    s->planned = true;
    for (struct pn_model_state *m = s->models; m != NULL; m = m->next) m->planned = false;
    for (size_t i = 0; i < pn_json_length(models); i++) take_model(s, pn_json_at(models, i));
    for (struct pn_model_state *m = s->models; m != NULL; m = m->next) {
        if (m->planned) {
            work_towards(s, m);
            trim(m); /* a version may have been taken away */
        } else if (m->versions != NULL || m->loading != NULL) {
            pn_log(s->env, PN_INFO, "model %s is not served any more", m->name);
            abandon_loading(m);
            m->active = NULL;
            m->wanted = m->applied = m->failed_version = 0;
            trim(m);
        }
    }
}

static void message(void *core, pn_peer from, struct pn_msg *m) {
    struct pn_serving *s = core;
    struct pn_frame f;
    struct pn_error err;
    if (from != s->coordinator || pn_frame_open(&f, m->data, m->n_bytes, NULL) != PN_OK) return;
    bool old = f.term < s->epoch || (f.term == s->epoch && f.request < s->revision);
    struct json_object *plan = f.kind != PN_PLAN || old ? NULL : pn_control_read(&f, &err);
    if (plan != NULL) {
        bool repeated = f.term == s->epoch && f.request == s->revision;
        s->epoch = f.term;
        s->revision = f.request;
        if (!repeated) take_plan(s, plan);
        json_object_put(plan);
        changed(s);
    }
    pn_frame_close(&f);
}

/* ---- life ---- */

bool pn_serving_ready(const struct pn_serving *s, struct pn_error *why) {
    if (!s->planned) return pn_fail(why, PN_BUSY, "no plan from the coordinator yet") == PN_OK;
    for (const struct pn_model_state *m = s->models; m != NULL; m = m->next)
        if (m->planned && m->active == NULL)
            return pn_fail(why, PN_BUSY, "model %s: version %" PRIu64 " %s%s", m->name, m->wanted, m->failed_version != 0 ? "is refused: " : "is loading",
                           m->failed_version != 0 ? m->failed_error : "") == PN_OK;
    return true;
}

struct pn_serving *pn_serving_open(struct pn_env *env, const struct pn_serving_options *options) {
    struct pn_serving *s = calloc(1, sizeof *s);
    if (s == NULL) return NULL;
    s->env = env;
    s->options = *options;
    s->incarnation = env->ops->random(env) | 1;
    s->beat_ms = 100;
    s->beat = (struct pn_timer){.fire = beat_again, .owner = s};
    s->waiting_end = &s->waiting;
    s->coordinator = env->ops->connect(env, options->coordinator);
    return s;
}

static void free_serving(struct pn_serving *s) {
    while (s->models != NULL) {
        struct pn_model_state *m = s->models;
        s->models = m->next;
        m->planned = false;
        m->active = NULL;
        trim(m);
        free(m);
    }
    free(s);
}

void pn_serving_release(struct pn_serving *s) {
    s->n_outstanding--;
    if (s->closed && s->n_outstanding == 0) free_serving(s);
}

void pn_serving_close(struct pn_serving *s) {
    if (s == NULL) return;
    pn_timer_stop(s->env, &s->beat);
    s->closed = true;
    pn_infer_close(s);
    for (struct pn_model_state *m = s->models; m != NULL; m = m->next) abandon_loading(m);
    if (s->n_outstanding == 0) free_serving(s);
}

static void start(void *core) { beat_again(&((struct pn_serving *)core)->beat); }

const struct pn_core_ops pn_serving_core = {.start = start, .message = message};
