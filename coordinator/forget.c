/* Forgetting (docs/privacy.md, "Forgetting"): the rows of some keys go from servers, kept checkpoints and published versions of a job, and stay away.
 *
 * A request is a record, durable before it is acknowledged, and is never removed: it is the list of what servers keep out of a job for good, and the audit trail. What
 * is still to be done is not remembered but seen: a server says the newest request that its shard knows, a checkpoint's and a version's record the newest one that they
 * were made behind. So a coordinator that died at any point finds what is left by looking, and doing it twice does no harm.
 *   servers       the job's whole list comes with every plan; a shard takes the rows out before its next cut, and leaves them out of what it restores
 *   checkpoints   a server writes a copy of the files without the rows into a new folder; one transaction makes the record point there. Windows and clocks are the same,
 *                 so I1 holds as if nothing had happened. Ones that are marked bad are removed
 *   versions      of the active one a new version is published from such a checkpoint; all older ones go, records and files
 *   files         at the end every folder of checkpoints and versions that no record names is removed: the originals, and what abandoned attempts left */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "coordinator/internal.h"

#define RETRY_MS 2000u
#define MAX_KEYS 4096u

/* Not durable: it is said again after a restart. */
void pn_forget_say(struct pn_forget *f, const char *format, ...) {
    va_list list;
    va_start(list, format);
    vsnprintf(f->note, sizeof f->note, format, list);
    va_end(list);
}

/* ---- records ---- */

struct json_object *pn_forget_write(const struct pn_forget *f) {
    struct json_object *o = json_object_new_object();
    pn_json_add_u64(o, "number", f->number);
    pn_json_add_str(o, "job", f->job);
    pn_json_add_str(o, "field", f->field);
    pn_json_add_str(o, "who", f->who);
    pn_json_add(o, "keys", json_object_get(f->keys));
    pn_json_add_u64(o, "asked_ms", f->asked_ms);
    pn_json_add_u64(o, "done_ms", f->done_ms);
    pn_json_add_bool(o, "done", f->done);
    pn_json_add_bool(o, "again", f->again);
    pn_json_add_u64(o, "server_rows", f->server_rows);
    pn_json_add_u64(o, "checkpoint_rows", f->checkpoint_rows);
    pn_json_add_u64(o, "checkpoints", f->n_checkpoints);
    pn_json_add_u64(o, "versions", f->n_versions);
    return o;
}

static void append(struct pn_coordinator *c, struct pn_forget *f) {
    struct pn_forget **at = &c->forgets;
    while (*at != NULL) at = &(*at)->next;
    *at = f;
}

bool pn_forget_load(struct pn_coordinator *c, struct json_object *o) {
    struct pn_forget *f = calloc(1, sizeof *f);
    struct json_object *keys = pn_json_get(o, "keys");
    if (f == NULL || keys == NULL) {
        free(f);
        return false;
    }
    f->number = pn_json_u64(o, "number", 0);
    snprintf(f->job, sizeof f->job, "%s", pn_json_str(o, "job", ""));
    snprintf(f->field, sizeof f->field, "%s", pn_json_str(o, "field", ""));
    snprintf(f->who, sizeof f->who, "%s", pn_json_str(o, "who", ""));
    f->keys = json_object_get(keys);
    f->asked_ms = pn_json_u64(o, "asked_ms", 0);
    f->done_ms = pn_json_u64(o, "done_ms", 0);
    f->done = pn_json_bool(o, "done", false);
    f->again = pn_json_bool(o, "again", false);
    f->server_rows = pn_json_u64(o, "server_rows", 0);
    f->checkpoint_rows = pn_json_u64(o, "checkpoint_rows", 0);
    f->n_checkpoints = pn_json_u64(o, "checkpoints", 0);
    f->n_versions = pn_json_u64(o, "versions", 0);
    append(c, f);
    return true;
}

void pn_forgets_free(struct pn_coordinator *c) {
    pn_scrubbing_drop(c);
    pn_sweep_close(c);
    while (c->forgets != NULL) {
        struct pn_forget *f = c->forgets;
        c->forgets = f->next;
        json_object_put(f->keys);
        free(f);
    }
}

/* ---- what others ask ---- */

uint64_t pn_forget_number(const struct pn_coordinator *c, const struct pn_job_run *j) {
    uint64_t number = 0;
    for (const struct pn_forget *f = c->forgets; f != NULL; f = f->next)
        if (strcmp(f->job, j->id) == 0 && !f->again) number = f->number; /* they rise */
    return number;
}

struct json_object *pn_forget_keys(const struct pn_coordinator *c, const char *job) {
    struct json_object *all = json_object_new_array();
    for (const struct pn_forget *f = c->forgets; f != NULL; f = f->next)
        for (size_t i = 0; strcmp(f->job, job) == 0 && !f->again && i < pn_json_length(f->keys); i++) json_object_array_add(all, json_object_get(pn_json_at(f->keys, i)));
    return all;
}

struct json_object *pn_forget_plan(const struct pn_coordinator *c, const struct pn_job_run *j) {
    const uint64_t number = pn_forget_number(c, j);
    if (number == 0) return NULL;
    struct json_object *o = json_object_new_object();
    pn_json_add_u64(o, "number", number);
    pn_json_add(o, "keys", pn_forget_keys(c, j->id));
    return o;
}

bool pn_forget_settled(struct pn_coordinator *c, const struct pn_job_run *j) {
    const uint64_t number = pn_forget_number(c, j);
    for (uint32_t s = 0; number > 0 && s < j->n_shards; s++) {
        struct pn_node *n = pn_node_find(c, j->seats[s].node);
        struct json_object *job = n != NULL && n->beat != NULL ? pn_node_job(n, j) : NULL;
        if (job == NULL || pn_json_u64(job, "term", 0) != j->seats[s].term || pn_json_u64(job, "forgot", 0) < number) return false;
    }
    return true;
}

/* ---- servers ---- */

static bool servers(struct pn_coordinator *c, struct pn_forget *f, struct pn_job_run *j) {
    if (pn_job_on_servers(c) != j) return true;
    uint64_t rows = 0;
    for (uint32_t s = 0; s < j->n_shards; s++) {
        const struct pn_shard_seat *seat = &j->seats[s];
        struct pn_node *n = pn_node_find(c, seat->node);
        const bool alive = pn_node_alive(c, n);
        if (j->state != PN_RUNNING && (!alive || n->incarnation != seat->incarnation)) continue; /* its memory has gone */
        struct json_object *job = alive && n->beat != NULL ? pn_node_job(n, j) : NULL;
        if (job == NULL || pn_json_u64(job, "forgot", 0) < f->number || (j->state == PN_RUNNING && seat->open_term != seat->term)) {
            pn_forget_say(f, "waits for server %s", seat->node);
            return false;
        }
        rows += pn_json_u64(job, "forgotten", 0);
    }
    if (f->server_rows == 0 && rows > 0) {
        f->server_rows = rows;
        f->dirty = true;
    }
    return true;
}

/* ---- versions ---- */

static bool versions(struct pn_coordinator *c, struct pn_forget *f, struct pn_job_run *j) {
    for (struct pn_model_entry *m = c->models; m != NULL; m = m->next)
        for (struct pn_version **at = &m->versions; *at != NULL;) {
            struct pn_version *v = *at;
            if (strcmp(v->job, j->id) != 0 || v->forgot >= f->number) {
                at = &v->next;
                continue;
            }
            if (v->version == m->active) {
                struct pn_error err = {""};
                pn_forget_say(f, "waits for a new version of model %s", m->name);
                if (c->publication != NULL || pn_now_ms(c->env) < c->forget_retry_ms) return false;
                c->forget_retry_ms = pn_now_ms(c->env) + RETRY_MS;
                if (!pn_publication_start(c, j, true, NULL, &err)) pn_forget_say(f, "model %s cannot be published anew, and its active version has the row: %s", m->name, err.text);
                return false;
            }
            pn_log(c->env, PN_INFO, "%s version %" PRIu64 " is removed: it has rows that are to be forgotten", m->name, v->version);
            *at = v->next;
            free(v);
            m->dirty = f->dirty = true;
            f->n_versions++;
        }
    for (struct pn_node *n = c->nodes; n != NULL; n = n->next) { /* no replica has one of them open any more */
        struct json_object *list = n->role == PN_ROLE_SERVING && pn_node_alive(c, n) && n->beat != NULL ? pn_json_get(n->beat, "models") : NULL;
        for (size_t i = 0; i < pn_json_length(list); i++) {
            struct json_object *loaded = pn_json_get(pn_json_at(list, i), "loaded");
            const struct pn_model_entry *m = pn_model_find(c, pn_json_str(pn_json_at(list, i), "name", ""), false);
            for (size_t e = 0; m != NULL && e < pn_json_length(loaded); e++) {
                const struct pn_version *v = m->versions;
                while (v != NULL && v->version != json_object_get_uint64(pn_json_at(loaded, e))) v = v->next;
                if (v != NULL) continue;
                pn_forget_say(f, "waits for replica %s to let go of an older version of model %s", n->name, m->name);
                return false;
            }
        }
    }
    return true;
}

void pn_forget_step(struct pn_coordinator *c) {
    struct pn_forget *f = c->forgets;
    while (f != NULL && f->done) f = f->next;
    if (f == NULL) return;
    struct pn_job_run *j = f->again ? NULL : pn_job_find(c, f->job); /* those before it are done */
    if (j != NULL && (!servers(c, f, j) || !pn_forget_checkpoints(c, f, j) || !versions(c, f, j))) return;
    if (!pn_records_flush(c)) return; /* before a file goes, no record names it */
    if (j != NULL && !pn_forget_files(c, f, j)) return;
    f->done = f->dirty = true;
    f->note[0] = '\0';
    f->done_ms = c->env->ops->wall_ms(c->env);
    pn_log(c->env, PN_INFO, "forgotten: request %" PRIu64 ", field %s of job %s: %" PRIu64 " rows in servers, %" PRIu64 " in %" PRIu64 " checkpoints, %" PRIu64 " versions removed", f->number,
           f->field, f->job, f->server_rows, f->checkpoint_rows, f->n_checkpoints, f->n_versions);
}

/* ---- the API ---- */

static bool take_target(struct pn_coordinator *c, struct json_object *body, struct json_object *target, struct pn_forget *f, struct pn_error *err) {
    struct pn_job_run *j = pn_job_find(c, pn_json_str(target, "job", ""));
    struct json_object *keys = pn_json_get(target, "keys");
    const char *field = pn_json_str(body, "field", ""), *who = pn_json_str(body, "who", "");
    if (j == NULL) return pn_fail(err, PN_NOT_FOUND, "there is no job %s", pn_json_str(target, "job", "(none named)")) == PN_OK;
    if (field[0] == '\0' || strlen(field) >= sizeof f->field || strlen(who) >= sizeof f->who) return pn_fail(err, PN_INVALID, "field and who: 1 to 63 characters") == PN_OK;
    struct json_object *before = pn_forget_keys(c, j->id);
    const size_t n_before = pn_json_length(before);
    f->again = true;
    for (size_t i = 0; i < pn_json_length(keys); i++) {
        size_t k = 0;
        while (k < n_before && json_object_equal(pn_json_at(keys, i), pn_json_at(before, k)) == 0) k++;
        f->again = f->again && k < n_before;
    }
    json_object_put(before);
    if (pn_json_length(keys) == 0 || pn_json_length(keys) + n_before > MAX_KEYS) return pn_fail(err, PN_INVALID, "keys: 1 to %u of a job, all requests together", MAX_KEYS) == PN_OK;
    for (size_t i = 0; i < pn_json_length(keys); i++) {
        struct json_object *pair = pn_json_at(keys, i);
        const bool whole = pn_json_length(pair) == 2 && json_object_is_type(pn_json_at(pair, 0), json_type_int) && json_object_is_type(pn_json_at(pair, 1), json_type_int);
        if (!whole || json_object_get_uint64(pn_json_at(pair, 0)) >= j->job.i_dense_table) return pn_fail(err, PN_INVALID, "keys are pairs of a table's number and a key; job %s has %u such tables", j->id, j->job.i_dense_table) == PN_OK;
    }
    snprintf(f->job, sizeof f->job, "%s", j->id);
    snprintf(f->field, sizeof f->field, "%s", field);
    snprintf(f->who, sizeof f->who, "%s", who);
    f->keys = json_object_get(keys);
    f->asked_ms = c->env->ops->wall_ms(c->env);
    f->dirty = true;
    return true;
}

void pn_forget_post(struct pn_coordinator *c, struct pn_http_request *r, struct json_object *body) {
    struct json_object *targets = pn_json_get(body, "targets"), *numbers = json_object_new_array();
    struct pn_error err = {""};
    struct pn_forget **end = &c->forgets;
    uint64_t number = 0;
    for (; *end != NULL; end = &(*end)->next) number = (*end)->number;
    bool ok = pn_json_length(targets) > 0 || pn_fail(&err, PN_INVALID, "targets: a list of jobs with their keys is needed") == PN_OK;
    for (size_t i = 0; ok && i < pn_json_length(targets); i++) {
        struct pn_forget *f = calloc(1, sizeof *f);
        ok = f != NULL && take_target(c, body, pn_json_at(targets, i), f, &err);
        if (!ok) {
            free(f);
            break;
        }
        f->number = ++number;
        json_object_array_add(numbers, json_object_new_uint64(number));
        append(c, f);
    }
    const bool kept = ok && pn_records_flush(c);
    if (!kept) { /* all of it or nothing */
        while (*end != NULL) {
            struct pn_forget *f = *end;
            *end = f->next;
            json_object_put(f->keys);
            free(f);
        }
        json_object_put(numbers);
        pn_answer_error(r, ok ? 503 : 400, "%s", ok ? "the store fails, nothing new is accepted; see the coordinator's log" : err.text[0] != '\0' ? err.text : "no memory");
        return;
    }
    for (struct pn_forget *f = *end; f != NULL; f = f->next) {
        struct pn_job_run *j = pn_job_find(c, f->job);
        pn_cut_abandon(c, j, "rows are to be forgotten"); /* the next one is of shards without them */
        pn_log(c->env, PN_INFO, "request %" PRIu64 " of %s: field %s of job %s is to be forgotten (%zu keys)", f->number, f->who, f->field, f->job, pn_json_length(f->keys));
    }
    struct json_object *o = json_object_new_object();
    pn_json_add(o, "numbers", numbers);
    pn_answer_json(r, 202, o);
    pn_reconcile(c);
}

struct json_object *pn_forget_describe(const struct pn_coordinator *c) {
    struct json_object *o = json_object_new_object(), *list = json_object_new_array();
    for (const struct pn_forget *f = c->forgets; f != NULL; f = f->next) {
        struct json_object *e = pn_forget_write(f);
        pn_json_add_bool(e, "done", f->done && !f->dirty); /* what is shown as done is durable */
        pn_json_add_str(e, "note", f->done ? "" : f->note);
        json_object_array_add(list, e);
    }
    pn_json_add(o, "requests", list);
    return o;
}
