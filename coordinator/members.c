#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include "coordinator/internal.h"

struct pn_node *pn_node_find(struct pn_coordinator *c, const char *name) {
    for (struct pn_node *n = c->nodes; n != NULL; n = n->next)
        if (strcmp(n->name, name) == 0) return n;
    return NULL;
}

bool pn_node_alive(const struct pn_coordinator *c, const struct pn_node *n) {
    return n != NULL && n->beat != NULL && !n->left && c->clock_ms - n->seen_ms < c->options.lease_ms;
}

bool pn_node_knows_plan(const struct pn_coordinator *c, const struct pn_node *n) {
    struct json_object *plan = n->beat != NULL ? pn_json_get(n->beat, "plan") : NULL;
    return plan != NULL && n->plan != NULL && json_object_get_uint64(pn_json_at(plan, 0)) == c->epoch && json_object_get_uint64(pn_json_at(plan, 1)) == n->revision;
}

struct json_object *pn_node_job(const struct pn_node *n, const struct pn_job_run *j) {
    struct json_object *job = pn_json_get(n->beat, "job");
    bool same = strcmp(pn_json_str(job, "id", ""), j->id) == 0 && pn_json_u64(job, "generation", 0) == j->generation;
    return job != NULL && same ? job : NULL;
}

static bool past_life(const struct pn_node *n, uint64_t incarnation) {
    for (uint32_t i = 0; i < n->n_past && i < PN_PAST_LIVES; i++)
        if (n->past[i] == incarnation) return true;
    return false;
}

static void free_node(struct pn_node *n) {
    if (n->beat != NULL) json_object_put(n->beat);
    free(n->plan);
    free(n);
}

/* Room for one more node: the one dead for longest goes. False: all places are taken by the living. */
static bool make_room(struct pn_coordinator *c) {
    size_t count = 0;
    struct pn_node **oldest = NULL;
    for (struct pn_node **at = &c->nodes; *at != NULL; at = &(*at)->next) {
        count++;
        if (!pn_node_alive(c, *at) && (oldest == NULL || (*at)->seen_ms < (*oldest)->seen_ms)) oldest = at;
    }
    if (count < PN_MAX_NODES) return true;
    if (oldest == NULL) return false;
    struct pn_node *n = *oldest;
    *oldest = n->next;
    free_node(n);
    return true;
}

/* With keys a node can only speak of itself. A key's owner may be many (a program with several sessions): NAME, NAME.1, NAME.x ... */
static bool speaks_of_itself(struct pn_coordinator *c, const char *role, const char *name) {
    const char *sender_role, *sender;
    if (c->env->ops->sender == NULL || !c->env->ops->sender(c->env, &sender_role, &sender)) return true;
    const size_t n = strlen(sender);
    if (strcmp(role, sender_role) == 0 && strncmp(name, sender, n) == 0 && (name[n] == '\0' || name[n] == '.')) return true;
    const uint64_t now = pn_now_ms(c->env);
    const bool quiet = c->liar_ms != 0 && now - c->liar_ms < 10000;
    if (!quiet) pn_log(c->env, PN_WARN, "%s (%s) says that it is %.64s (%.16s); its key does not say so, and it is not heard", sender, sender_role, name, role);
    if (!quiet) c->liar_ms = now;
    return false;
}

void pn_node_beat(struct pn_coordinator *c, pn_peer from, const struct pn_frame *f) {
    struct pn_error err;
    struct json_object *o = pn_control_read(f, &err);
    const char *role = pn_json_str(o, "role", ""), *name = pn_json_str(o, "name", "");
    uint64_t incarnation = pn_json_u64(o, "incarnation", 0);
    int which = strcmp(role, "ps") == 0 ? PN_ROLE_PS : strcmp(role, "worker") == 0 ? PN_ROLE_WORKER : strcmp(role, "serving") == 0 ? PN_ROLE_SERVING : -1;
    if (o == NULL || which < 0 || name[0] == '\0' || strlen(name) >= sizeof c->nodes->name || strpbrk(name, "/\"\\ ") != NULL || incarnation == 0 || !speaks_of_itself(c, role, name)) {
        if (o != NULL) json_object_put(o);
        return;
    }
    c->n_beats++;
    struct pn_node *n = pn_node_find(c, name);
    if (n == NULL) {
        if (!make_room(c) || (n = calloc(1, sizeof *n)) == NULL) {
            json_object_put(o);
            return;
        }
        struct pn_node **at = &c->nodes;
        while (*at != NULL && strcmp((*at)->name, name) < 0) at = &(*at)->next;
        snprintf(n->name, sizeof n->name, "%s", name);
        n->next = *at;
        *at = n;
    }
    /* A late beat of an earlier life must not take the seat back: that process is gone. Unless the other one is silent: then we
     * had them the wrong way round, as a coordinator may that has just started. */
    if (n->incarnation != incarnation && past_life(n, incarnation) && pn_node_alive(c, n)) {
        json_object_put(o);
        return;
    }
    if (n->incarnation != incarnation) {
        if (n->incarnation != 0) {
            pn_log(c->env, PN_INFO, "%s came back as another process", name);
            if (!past_life(n, n->incarnation)) n->past[n->n_past++ % PN_PAST_LIVES] = n->incarnation;
        }
        n->incarnation = incarnation;
        free(n->plan);
        n->plan = NULL;
        n->revision = 0;
    }
    n->role = (enum pn_role)which;
    n->left = pn_json_bool(o, "leaving", false);
    snprintf(n->serves, sizeof n->serves, "%s", pn_json_str(pn_json_get(o, "serves"), "job", ""));
    n->takes = (uint32_t)pn_json_u64(pn_json_get(o, "serves"), "producers", 0);
    n->seen_ms = c->clock_ms;
    n->peer = from;
    snprintf(n->address, sizeof n->address, "%s", pn_json_str(o, "address", ""));
    snprintf(n->http, sizeof n->http, "%s", pn_json_str(o, "http", ""));
    if (n->beat != NULL) json_object_put(n->beat);
    n->beat = o;
    pn_reconcile(c);
    if (n->left) { /* what it had is given up by now */
        struct pn_node **at = &c->nodes;
        while (*at != n) at = &(*at)->next;
        *at = n->next;
        free_node(n);
        return;
    }
    if (n->plan != NULL && !pn_node_knows_plan(c, n)) pn_plan_repeat(c, n);
}

void pn_nodes_free(struct pn_coordinator *c) {
    while (c->nodes != NULL) {
        struct pn_node *n = c->nodes;
        c->nodes = n->next;
        free_node(n);
    }
}
