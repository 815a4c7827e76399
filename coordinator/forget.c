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
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "coordinator/internal.h"

#define SCRUB_MS 600000u
#define RETRY_MS 2000u
#define MAX_KEYS 4096u

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

/* Files that no record names. */
struct pn_sweep {
    struct pn_coordinator *c;
    uint64_t number;
    char job[32];
    bool closed, over, failed;
    struct json_object *roots;       /* the job's checkpoints, then its model's versions */
    size_t i_root, i_name, i_inner;
    char **names, **inner;
    char root[480], folder[600], path[720];
    struct pn_io io;
};

static void say(struct pn_forget *f, const char *format, const char *a, const char *b) {
    char text[sizeof f->note];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(text, sizeof text, format, a, b);
#pragma GCC diagnostic pop
    memcpy(f->note, text, sizeof text); /* not durable: it is said again after a restart */
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

static void free_scrubbing(struct pn_scrubbing *s) {
    json_object_put(s->parts);
    if (s->files != NULL) json_object_put(s->files);
    free(s->text);
    free(s);
}

static void drop_scrubbing(struct pn_coordinator *c) {
    struct pn_scrubbing *s = c->scrubbing;
    if (s == NULL) return;
    c->scrubbing = NULL;
    s->closed = true;
    if (!s->saving) free_scrubbing(s);
}

static void free_sweep(struct pn_sweep *s) {
    json_object_put(s->roots);
    free(s->names);
    free(s->inner);
    free(s);
}

void pn_forgets_free(struct pn_coordinator *c) {
    drop_scrubbing(c);
    if (c->sweep != NULL) {
        c->sweep->closed = true;
        if (c->sweep->over) free_sweep(c->sweep);
        c->sweep = NULL;
    }
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

static struct json_object *keys_of(const struct pn_coordinator *c, const char *job) {
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
    pn_json_add(o, "keys", keys_of(c, j->id));
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
    pn_json_add(o, "keys", keys_of(c, s->job));
    return o;
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
            say(f, "waits for server %s%s", seat->node, "");
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

/* ---- checkpoints ---- */

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
    drop_scrubbing(c);
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
        drop_scrubbing(c);
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
        say(f, "waits for a server that can write checkpoint files%s%s", "", "");
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
    say(f, "waits for a copy of checkpoint folder %s without the rows%s", s->from, "");
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
    drop_scrubbing(c);
    c->forget_retry_ms = pn_now_ms(c->env) + RETRY_MS;
}

static bool checkpoints(struct pn_coordinator *c, struct pn_forget *f, struct pn_job_run *j) {
    for (struct pn_checkpoint *k = j->checkpoints; k != NULL; k = k->next) {
        if (k->forgot >= f->number && !k->dirty) continue;
        if (k->dirty) return false; /* the store fails */
        if (k->bad) {
            if (!pn_publication_uses(c, j, k->epoch)) pn_records_forget(c, j, k);
            return false; /* one an event */
        }
        if (c->scrubbing != NULL && (c->scrubbing->epoch != k->epoch || strcmp(c->scrubbing->job, j->id) != 0)) drop_scrubbing(c);
        if (c->scrubbing != NULL) look_at_scrubbing(c, f, j, k);
        else if (pn_now_ms(c->env) >= c->forget_retry_ms) start_scrubbing(c, f, j, k);
        return false;
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
                say(f, "waits for a new version of model %s%s", m->name, "");
                if (c->publication != NULL || pn_now_ms(c->env) < c->forget_retry_ms) return false;
                c->forget_retry_ms = pn_now_ms(c->env) + RETRY_MS;
                if (!pn_publication_start(c, j, true, NULL, &err)) say(f, "model %s cannot be published anew, and its active version has the row: %s", m->name, err.text);
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
                say(f, "waits for replica %s to let go of an older version of model %s", n->name, m->name);
                return false;
            }
        }
    }
    return true;
}

/* ---- files ---- */

static bool is_last(const char *dir, const char *name) {
    const char *slash = strrchr(dir, '/');
    return slash != NULL && strcmp(slash + 1, name) == 0;
}

/* Does a record, or what is under way, name this folder? By its last part alone: the same place may have been written in another way in an earlier life. */
static bool named(const struct pn_sweep *s, const char *name) {
    const struct pn_coordinator *c = s->c;
    const struct pn_job_run *j = pn_job_find(s->c, s->job);
    if (s->i_root == 0) {
        if (j == NULL || (j->cut.phase != PN_NO_CUT && is_last(j->cut.dir, name)) || (c->scrubbing != NULL && strcmp(c->scrubbing->job, s->job) == 0 && is_last(c->scrubbing->to, name))) return true;
        for (const struct pn_checkpoint *k = j->checkpoints; k != NULL; k = k->next)
            if (is_last(k->dir, name)) return true;
        return false;
    }
    const char *model = strrchr(s->root, '/') + 1;
    for (const struct pn_model_entry *m = c->models; m != NULL; m = m->next)
        for (const struct pn_version *v = strcmp(m->name, model) == 0 ? m->versions : NULL; v != NULL; v = v->next)
            if (is_last(v->dir, name)) return true;
    return pn_publication_writes(c, model, name);
}

static void sweep_root(struct pn_sweep *s);
static void sweep_name(struct pn_sweep *s);
static void sweep_inner(struct pn_sweep *s);

static bool swept_away(struct pn_sweep *s) {
    if (!s->closed) return false;
    free_sweep(s);
    return true;
}

static void sweep_io(struct pn_sweep *s, enum pn_io_op op, const char *path, void (*done)(struct pn_io *)) {
    s->io = (struct pn_io){.op = op, .path = path, .done = done, .owner = s};
    pn_io_start(s->c->env, &s->io);
}

static void folder_removed(struct pn_io *io) {
    struct pn_sweep *s = io->owner;
    if (swept_away(s)) return;
    s->failed = s->failed || io->result < 0;
    sweep_name(s);
}

static void file_removed(struct pn_io *io) {
    struct pn_sweep *s = io->owner;
    if (swept_away(s)) return;
    s->failed = s->failed || io->result < 0;
    sweep_inner(s);
}

static void sweep_inner(struct pn_sweep *s) {
    const char *name = s->inner != NULL ? s->inner[s->i_inner] : NULL;
    if (name == NULL) {
        sweep_io(s, PN_IO_REMOVE, s->folder, folder_removed);
        return;
    }
    s->i_inner++;
    snprintf(s->path, sizeof s->path, "%s/%.110s", s->folder, name);
    sweep_io(s, PN_IO_REMOVE, s->path, file_removed);
}

static void folder_listed(struct pn_io *io) {
    struct pn_sweep *s = io->owner;
    if (io->result >= 0) s->inner = io->names;
    if (swept_away(s)) return;
    s->i_inner = 0;
    sweep_inner(s);
}

static void sweep_name(struct pn_sweep *s) {
    free(s->inner);
    s->inner = NULL;
    for (;;) {
        const char *name = s->names != NULL ? s->names[s->i_name] : NULL;
        if (name == NULL) {
            s->i_root++;
            sweep_root(s);
            return;
        }
        s->i_name++;
        snprintf(s->folder, sizeof s->folder, "%s/%.110s", s->root, name);
        if (!named(s, name)) break;
    }
    sweep_io(s, PN_IO_LIST, s->folder, folder_listed);
}

static void root_listed(struct pn_io *io) {
    struct pn_sweep *s = io->owner;
    if (io->result >= 0) s->names = io->names;
    if (swept_away(s)) return;
    s->failed = s->failed || (io->result < 0 && io->result != -ENOENT);
    s->i_name = 0;
    sweep_name(s);
}

static void sweep_root(struct pn_sweep *s) {
    free(s->names);
    s->names = NULL;
    struct json_object *root = pn_json_at(s->roots, s->i_root);
    if (root == NULL) {
        s->over = true;
        pn_reconcile(s->c);
        return;
    }
    snprintf(s->root, sizeof s->root, "%s", json_object_get_string(root));
    sweep_io(s, PN_IO_LIST, s->root, root_listed);
}

static bool files(struct pn_coordinator *c, struct pn_forget *f, struct pn_job_run *j) {
    struct pn_sweep *s = c->sweep;
    if (s != NULL && !s->over) return false;
    if (s != NULL) {
        const bool done = !s->failed && s->number == f->number;
        if (s->failed) c->sweep_retry_ms = pn_now_ms(c->env) + RETRY_MS;
        free_sweep(s);
        c->sweep = NULL;
        if (done) return true;
    }
    say(f, "removes files that no record names%s%s", "", "");
    if (c->publication != NULL || pn_now_ms(c->env) < c->sweep_retry_ms) return false; /* what it reads may be an original */
    for (uint32_t i = 0; j->state == PN_RUNNING && i < j->n_shards; i++)
        if (j->seats[i].open_term != j->seats[i].term) return false;
    if ((s = calloc(1, sizeof *s)) == NULL) return false;
    s->c = c;
    s->number = f->number;
    snprintf(s->job, sizeof s->job, "%s", j->id);
    s->roots = json_object_new_array();
    char path[480];
    snprintf(path, sizeof path, "%s/jobs/%s/checkpoints", c->options.dir, j->id);
    json_object_array_add(s->roots, json_object_new_string(path));
    const char *model = j->job.publish_model[0] ? j->job.publish_model : j->job.name;
    if (pn_model_find(c, model, false) != NULL) {
        snprintf(path, sizeof path, "%s/models/%s", c->options.dir, model);
        json_object_array_add(s->roots, json_object_new_string(path));
    }
    c->sweep = s;
    sweep_root(s); /* goes on from callbacks */
    return false;
}

void pn_forget_step(struct pn_coordinator *c) {
    struct pn_forget *f = c->forgets;
    while (f != NULL && f->done) f = f->next;
    if (f == NULL) return;
    struct pn_job_run *j = f->again ? NULL : pn_job_find(c, f->job); /* those before it are done */
    if (j != NULL && (!servers(c, f, j) || !checkpoints(c, f, j) || !versions(c, f, j))) return;
    if (!pn_records_flush(c)) return; /* before a file goes, no record names it */
    if (j != NULL && !files(c, f, j)) return;
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
    struct json_object *before = keys_of(c, j->id);
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
