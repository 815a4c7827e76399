#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "tests/sim/sim.h"

struct record { char kind[40], id[200]; char *json; struct record *next; }; /* sorted by (kind, id) */

struct sim_store {
    struct pn_store store; /* first */
    struct sim *sim;
    struct record *committed, *pending;
    bool open;
};

static void drop(struct record **list) {
    while (*list != NULL) {
        struct record *r = *list;
        *list = r->next;
        free(r->json);
        free(r);
    }
}

static struct record *copy(const struct record *list) {
    struct record *head = NULL, **at = &head;
    for (; list != NULL; list = list->next) {
        struct record *r = malloc(sizeof *r);
        assert(r != NULL);
        *r = *list;
        r->json = strdup(list->json);
        r->next = NULL;
        *at = r;
        at = &r->next;
    }
    return head;
}

static int order(const struct record *r, const char *kind, const char *id) {
    int c = strcmp(r->kind, kind);
    return c != 0 ? c : strcmp(r->id, id);
}

static enum pn_result scan(struct pn_store *p, const char *kind, void (*visit)(void *, const char *, const char *), void *ctx,
                           struct pn_error *err) {
    struct sim_store *s = (struct sim_store *)p;
    (void)err;
    for (struct record *r = s->open ? s->pending : s->committed; r != NULL; r = r->next)
        if (strcmp(r->kind, kind) == 0) visit(ctx, r->id, r->json);
    return PN_OK;
}

static enum pn_result begin(struct pn_store *p, struct pn_error *err) {
    struct sim_store *s = (struct sim_store *)p;
    assert(!s->open && "one transaction at a time");
    if (s->sim->disk_full && sim_chance(s->sim, 0.5)) return pn_fail(err, PN_FULL, "the disk is full");
    s->pending = copy(s->committed);
    s->open = true;
    return PN_OK;
}

static enum pn_result change(struct sim_store *s, const char *kind, const char *id, const char *json) {
    assert(s->open && "inside a transaction");
    struct record **at = &s->pending;
    while (*at != NULL && order(*at, kind, id) < 0) at = &(*at)->next;
    bool there = *at != NULL && order(*at, kind, id) == 0;
    if (there) {
        struct record *r = *at;
        *at = r->next;
        free(r->json);
        free(r);
    }
    if (json != NULL) {
        struct record *r = calloc(1, sizeof *r);
        assert(r != NULL);
        snprintf(r->kind, sizeof r->kind, "%s", kind);
        snprintf(r->id, sizeof r->id, "%s", id);
        r->json = strdup(json);
        r->next = *at;
        *at = r;
    }
    return PN_OK;
}

static enum pn_result put(struct pn_store *p, const char *kind, const char *id, const char *json, struct pn_error *err) {
    (void)err;
    return change((struct sim_store *)p, kind, id, json);
}
static enum pn_result remove_record(struct pn_store *p, const char *kind, const char *id, struct pn_error *err) {
    (void)err;
    return change((struct sim_store *)p, kind, id, NULL);
}

static enum pn_result commit(struct pn_store *p, struct pn_error *err) {
    struct sim_store *s = (struct sim_store *)p;
    assert(s->open);
    s->open = false;
    if (s->sim->disk_full) {
        drop(&s->pending);
        return pn_fail(err, PN_FULL, "the disk is full");
    }
    drop(&s->committed);
    s->committed = s->pending;
    s->pending = NULL;
    s->sim->counts.commits++;
    return PN_OK;
}

static const struct pn_store_ops ops = {scan, begin, put, remove_record, commit};

struct sim_store *sim_store_open(struct sim *sim) {
    struct sim_store *s = calloc(1, sizeof *s);
    assert(s != NULL);
    s->store.ops = &ops;
    s->sim = sim;
    return s;
}

struct pn_store *sim_store_connect(struct sim_store *s) {
    if (s->open) drop(&s->pending);
    s->open = false;
    return &s->store;
}

const char *sim_store_first(const struct sim_store *s, const char *kind) {
    for (const struct record *r = s->committed; r != NULL; r = r->next)
        if (strcmp(r->kind, kind) == 0) return r->json;
    return NULL;
}

void sim_store_close(struct sim_store *s) {
    drop(&s->committed);
    drop(&s->pending);
    free(s);
}
