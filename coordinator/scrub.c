/* Copies of checkpoints without some rows, for forget.c: a server writes the files anew into another folder, then one transaction makes the checkpoint's record point there.
 * Windows and clocks are the same, so that a job which goes back to it goes on as if nothing had happened. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "coordinator/internal.h"

#define SCRUB_MS 600000u
#define RETRY_MS 2000u

/* A checkpoint's copy under way. */
struct pn_scrubbing {
    struct pn_coordinator *c;
    uint64_t task, number, epoch, since_ms;
    char job[32], from[480], to[480], path[520];
    struct json_object *parts;       /* [{name, digest, node}] in the record's order */
    struct json_object *files;       /* of the copy */
    uint64_t removed;
    bool closed, saving;
    char *text;
    struct pn_save save;
};

static void free_scrubbing(struct pn_scrubbing *s) {
    json_object_put(s->parts);
    if (s->files != NULL) json_object_put(s->files);
    free(s->text);
    free(s);
}

void pn_scrubbing_drop(struct pn_coordinator *c) {
    struct pn_scrubbing *s = c->scrubbing;
    if (s == NULL) return;
    c->scrubbing = NULL;
    s->closed = true;
    if (!s->saving) free_scrubbing(s);
}

bool pn_scrubbing_writes(const struct pn_coordinator *c, const struct pn_job_run *j, const char *folder) {
    const char *slash = c->scrubbing != NULL && strcmp(c->scrubbing->job, j->id) == 0 ? strrchr(c->scrubbing->to, '/') : NULL;
    return slash != NULL && strcmp(slash + 1, folder) == 0;
}

bool pn_forget_copies(const struct pn_coordinator *c, const struct pn_job_run *j, uint64_t epoch) {
    return c->scrubbing != NULL && c->scrubbing->epoch == epoch && strcmp(c->scrubbing->job, j->id) == 0;
}

struct json_object *pn_forget_scrub_plan(struct pn_coordinator *c, const struct pn_node *n) {
    const struct pn_scrubbing *s = c->scrubbing;
    if (s == NULL || s->saving) return NULL;
    struct json_object *files = json_object_new_array();
    for (size_t i = 0; i < pn_json_length(s->parts); i++)
        if (strcmp(pn_json_str(pn_json_at(s->parts, i), "node", ""), n->name) == 0) json_object_array_add(files, json_object_get(pn_json_at(s->parts, i)));
    if (pn_json_length(files) == 0) {
        json_object_put(files);
        return NULL;
    }
    struct json_object *o = json_object_new_object();
    pn_json_add_u64(o, "task", s->task);
    pn_json_add_str(o, "from", s->from);
    pn_json_add_str(o, "to", s->to);
    pn_json_add(o, "files", files);
    pn_json_add(o, "keys", pn_forget_keys(c, s->job));
    return o;
}

static struct pn_checkpoint *checkpoint_of(struct pn_job_run *j, uint64_t epoch) {
    struct pn_checkpoint *k = j != NULL ? j->checkpoints : NULL;
    while (k != NULL && k->epoch != epoch) k = k->next;
    return k;
}

/* The copy is whole: the record points at it. The original stays until the end: a server may be reading it. */
static void swap(struct pn_coordinator *c, struct pn_scrubbing *s) {
    struct pn_checkpoint *k = checkpoint_of(pn_job_find(c, s->job), s->epoch);
    if (k == NULL || k->dirty || strcmp(k->dir, s->from) != 0) return;
    snprintf(k->dir, sizeof k->dir, "%s", s->to);
    json_object_put(k->files);
    k->files = json_object_get(s->files);
    k->bytes = k->rows = 0;
    for (size_t i = 0; i < pn_json_length(k->files); i++) {
        k->bytes += pn_json_u64(pn_json_at(k->files, i), "bytes", 0);
        k->rows += pn_json_u64(pn_json_at(k->files, i), "rows", 0);
    }
    k->forgot = s->number;
    k->dirty = true;
    for (struct pn_forget *f = c->forgets; f != NULL; f = f->next)
        if (f->number == s->number) {
            f->checkpoint_rows += s->removed;
            f->n_checkpoints += s->removed > 0;
            f->dirty = true;
        }
    pn_records_flush(c); /* if it fails, with the next event: until then the record counts for nobody */
    pn_log(c->env, PN_INFO, "job %s: checkpoint %" PRIu64 " is now without %" PRIu64 " rows that were to be forgotten", s->job, s->epoch, s->removed);
}

static void manifest_saved(struct pn_save *save) {
    struct pn_scrubbing *s = save->owner;
    struct pn_coordinator *c = s->c;
    s->saving = false;
    if (s->closed) {
        free_scrubbing(s);
        return;
    }
    if (save->result >= 0) swap(c, s);
    else c->forget_retry_ms = pn_now_ms(c->env) + RETRY_MS;
    pn_scrubbing_drop(c);
    pn_reconcile(c);
}

static void write_manifest(struct pn_coordinator *c, struct pn_job_run *j, const struct pn_checkpoint *k) {
    struct pn_scrubbing *s = c->scrubbing;
    struct json_object *o = json_object_new_object(), *steps = json_object_new_array(), *finished = json_object_new_array();
    pn_json_add_u64(o, "format", 1);
    pn_json_add_str(o, "job", j->id);
    pn_json_add_u64(o, "epoch", k->epoch);
    pn_json_add_u64(o, "generation", j->generation);
    for (uint32_t p = 0; p < j->n_producers; p++) {
        json_object_array_add(steps, json_object_new_uint64(k->steps[p]));
        json_object_array_add(finished, json_object_new_boolean(k->finished[p]));
    }
    pn_json_add(o, "steps", steps);
    pn_json_add(o, "finished", finished);
    pn_json_add(o, "files", json_object_get(s->files));
    pn_json_add_u64(o, "forgot", s->number);
    if (j->model != NULL) pn_json_add(o, "model", json_object_get(j->model));
    pn_json_add_str(o, "job_text", j->text);
    s->text = strdup(pn_json_text(o));
    json_object_put(o);
    if (s->text == NULL) {
        pn_scrubbing_drop(c);
        return;
    }
    snprintf(s->path, sizeof s->path, "%s/manifest.json", s->to);
    s->saving = true;
    s->save.done = manifest_saved;
    s->save.owner = s;
    pn_save_start(&s->save, c->env, s->path, s->text, strlen(s->text));
}

static void start_scrubbing(struct pn_coordinator *c, struct pn_forget *f, struct pn_job_run *j, const struct pn_checkpoint *k) {
    struct pn_node *n = NULL;
    bool any = false;
    for (n = c->nodes; n != NULL; n = n->next) any = any || (n->role == PN_ROLE_PS && pn_node_alive(c, n));
    if (!any) {
        pn_forget_say(f, "waits for a server that can write checkpoint files");
        return;
    }
    struct pn_scrubbing *s = calloc(1, sizeof *s);
    if (s == NULL) return;
    *s = (struct pn_scrubbing){.c = c, .task = c->epoch << 24 | ++c->scrub_sequence, .number = pn_forget_number(c, j), .epoch = k->epoch, .since_ms = pn_now_ms(c->env), .parts = json_object_new_array()};
    snprintf(s->job, sizeof s->job, "%s", j->id);
    snprintf(s->from, sizeof s->from, "%s", k->dir);
    snprintf(s->to, sizeof s->to, "%s/jobs/%s/checkpoints/%" PRIu64 "-%" PRIu64, c->options.dir, j->id, k->epoch, s->task);
    n = NULL;
    for (size_t i = 0; i < pn_json_length(k->files); i++) { /* dealt to the live servers in turn */
        do n = n == NULL || n->next == NULL ? c->nodes : n->next;
        while (n->role != PN_ROLE_PS || !pn_node_alive(c, n));
        struct json_object *e = json_object_new_object();
        pn_json_add_str(e, "name", pn_json_str(pn_json_at(k->files, i), "name", "?"));
        pn_json_add_str(e, "digest", pn_json_str(pn_json_at(k->files, i), "digest", ""));
        pn_json_add_str(e, "node", n->name);
        json_object_array_add(s->parts, e);
    }
    c->scrubbing = s;
}

/* What the servers say of the copy. */
static void look_at_scrubbing(struct pn_coordinator *c, struct pn_forget *f, struct pn_job_run *j, struct pn_checkpoint *k) {
    struct pn_scrubbing *s = c->scrubbing;
    if (s->saving) return;
    pn_forget_say(f, "waits for a copy of checkpoint folder %s without the rows", s->from);
    struct json_object *files = json_object_new_array();
    uint64_t removed = 0;
    bool lost = pn_now_ms(c->env) - s->since_ms > SCRUB_MS;
    for (size_t i = 0; i < pn_json_length(s->parts); i++) {
        struct json_object *part = pn_json_at(s->parts, i);
        struct pn_node *n = pn_node_find(c, pn_json_str(part, "node", ""));
        lost = lost || !pn_node_alive(c, n);
        struct json_object *state = n != NULL && n->beat != NULL ? pn_json_get(n->beat, "scrub") : NULL;
        if (state == NULL || pn_json_u64(state, "task", 0) != s->task) continue;
        if (strcmp(pn_json_str(state, "state", ""), "failed") == 0) {
            pn_log(c->env, PN_WARN, "job %s: rows could not be taken out of checkpoint %" PRIu64 ": %s", j->id, s->epoch, pn_json_str(state, "error", "?"));
            if (strcmp(pn_json_str(state, "code", ""), "corrupt") == 0) k->bad = k->dirty = true; /* nobody can go back to it; it is removed */
            lost = true;
        }
        if (strcmp(pn_json_str(state, "state", ""), "written") != 0) continue;
        struct json_object *list = pn_json_get(state, "files");
        for (size_t e = 0; e < pn_json_length(list); e++)
            if (strcmp(pn_json_str(pn_json_at(list, e), "name", ""), pn_json_str(part, "name", "")) == 0) {
                removed += pn_json_u64(pn_json_at(list, e), "removed", 0);
                json_object_array_add(files, json_object_get(pn_json_at(list, e)));
                break;
            }
    }
    if (!lost && pn_json_length(files) == pn_json_length(s->parts)) {
        s->files = files;
        s->removed = removed;
        write_manifest(c, j, k);
        return;
    }
    json_object_put(files);
    if (!lost) return;
    pn_scrubbing_drop(c);
    c->forget_retry_ms = pn_now_ms(c->env) + RETRY_MS;
}

bool pn_forget_checkpoints(struct pn_coordinator *c, struct pn_forget *f, struct pn_job_run *j) {
    for (struct pn_checkpoint *k = j->checkpoints; k != NULL; k = k->next) {
        if (k->forgot >= f->number && !k->dirty) continue;
        if (k->dirty) return false; /* the store fails */
        if (k->bad) {
            if (!pn_publication_uses(c, j, k->epoch)) pn_records_forget(c, j, k);
            return false; /* one an event */
        }
        if (c->scrubbing != NULL && (c->scrubbing->epoch != k->epoch || strcmp(c->scrubbing->job, j->id) != 0)) pn_scrubbing_drop(c);
        if (c->scrubbing != NULL) look_at_scrubbing(c, f, j, k);
        else if (pn_now_ms(c->env) >= c->forget_retry_ms) start_scrubbing(c, f, j, k);
        return false;
    }
    return true;
}
