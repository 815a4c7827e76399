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
    return n != NULL && n->beat != NULL && pn_now_ms(c->env) - n->seen_ms < c->options.lease_ms;
}

struct json_object *pn_node_job(const struct pn_node *n, const struct pn_job_run *j) {
    struct json_object *job = pn_json_get(n->beat, "job");
    bool same = strcmp(pn_json_str(job, "id", ""), j->id) == 0 && pn_json_u64(job, "generation", 0) == j->generation;
    return job != NULL && same ? job : NULL;
}

void pn_node_beat(struct pn_coordinator *c, pn_peer from, const struct pn_frame *f) {
    struct pn_error err;
    struct json_object *o = pn_control_read(f, &err);
    const char *role = pn_json_str(o, "role", ""), *name = pn_json_str(o, "name", "");
    uint64_t incarnation = pn_json_u64(o, "incarnation", 0);
    int which = strcmp(role, "ps") == 0 ? PN_ROLE_PS : strcmp(role, "worker") == 0 ? PN_ROLE_WORKER : strcmp(role, "serving") == 0 ? PN_ROLE_SERVING : -1;
    if (o == NULL || which < 0 || name[0] == '\0' || strlen(name) >= sizeof c->nodes->name || strpbrk(name, "/\"\\ ") != NULL || incarnation == 0) {
        if (o != NULL) json_object_put(o);
        return;
    }
    c->n_beats++;
    struct pn_node **at = &c->nodes;
    size_t count = 0;
    for (; *at != NULL && strcmp((*at)->name, name) < 0; at = &(*at)->next) count++;
    struct pn_node *n = *at;
    if (n == NULL || strcmp(n->name, name) != 0) {
        if (count >= PN_MAX_NODES || (n = calloc(1, sizeof *n)) == NULL) {
            json_object_put(o);
            return;
        }
        snprintf(n->name, sizeof n->name, "%s", name);
        n->next = *at;
        *at = n;
    }
    if (n->incarnation != incarnation) {
        /* A late beat of an earlier life of the name must not take the seat back: its connection is another and its process is gone. */
        if (n->incarnation != 0) pn_log(c->env, PN_INFO, "%s came back as another process", name);
        n->incarnation = incarnation;
        free(n->plan);
        n->plan = NULL;
        n->revision = 0;
    }
    n->role = (enum pn_role)which;
    n->seen_ms = pn_now_ms(c->env);
    n->peer = from;
    snprintf(n->address, sizeof n->address, "%s", pn_json_str(o, "address", ""));
    snprintf(n->http, sizeof n->http, "%s", pn_json_str(o, "http", ""));
    if (n->beat != NULL) json_object_put(n->beat);
    n->beat = o;
    pn_reconcile(c);
    struct json_object *plan = pn_json_get(n->beat, "plan");
    uint64_t epoch = json_object_get_uint64(pn_json_at(plan, 0)), revision = json_object_get_uint64(pn_json_at(plan, 1));
    if (n->plan != NULL && (epoch != c->epoch || revision != n->revision)) pn_plan_repeat(c, n);
}

void pn_nodes_free(struct pn_coordinator *c) {
    while (c->nodes != NULL) {
        struct pn_node *n = c->nodes;
        c->nodes = n->next;
        if (n->beat != NULL) json_object_put(n->beat);
        free(n->plan);
        free(n);
    }
}
