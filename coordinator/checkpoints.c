/* The cut: drain, flip, write, manifest, commit (docs/architecture.md, "The cut"). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/mutant.h"
#include "coordinator/internal.h"

#define DRAIN_MS 10000u
#define WRITE_MS 600000u
#define PAUSE_AFTER_FAILURE_MS 300u

/* ---- removing files in the background ---- */
struct remover { struct pn_env *env; struct pn_io io; char dir[480], path[600]; struct json_object *files; size_t i; bool all; };

static void removed(struct pn_io *io) {
    struct remover *r = io->owner;
    if (r->all) {
        json_object_put(r->files);
        free(r);
        return;
    }
    struct json_object *f = pn_json_at(r->files, r->i++);
    if (f != NULL) snprintf(r->path, sizeof r->path, "%s/%s", r->dir, pn_json_str(f, "name", "?"));
    else snprintf(r->path, sizeof r->path, "%s", r->dir);
    r->all = f == NULL;
    r->io = (struct pn_io){.op = PN_IO_REMOVE, .path = r->path, .done = removed, .owner = r};
    pn_io_start(r->env, &r->io);
}

void pn_remove_files(struct pn_env *env, const char *dir, struct json_object *files) {
    struct remover *r = calloc(1, sizeof *r);
    if (r == NULL) return;
    r->env = env;
    r->files = files != NULL ? json_object_get(files) : json_object_new_array();
    snprintf(r->dir, sizeof r->dir, "%s", dir);
    snprintf(r->path, sizeof r->path, "%s/manifest.json", dir);
    r->io = (struct pn_io){.op = PN_IO_REMOVE, .path = r->path, .done = removed, .owner = r};
    pn_io_start(env, &r->io);
}

/* ---- the manifest's file: outlives the cut if that is abandoned ---- */
struct manifest_save { struct pn_save save; struct pn_coordinator *c; char job_id[32]; uint64_t epoch; char *text; };

/* Whoever asked for a checkpoint hears of the one that is durable now. */
static void tell(struct pn_job_run *j) {
    j->cut_untold = false;
    pn_answer_all(&j->cut_askers, 200, "epoch", j->checkpoints->epoch, NULL);
}

static void commit(struct pn_coordinator *c, struct pn_job_run *j) {
    struct pn_checkpoint *k = calloc(1, sizeof *k);
    if (k == NULL) {
        pn_cut_abandon(c, j, "no memory");
        return;
    }
    k->epoch = j->cut.epoch;
    memcpy(k->steps, j->cut.steps, sizeof k->steps);
    memcpy(k->finished, j->cut.finished, sizeof k->finished);
    snprintf(k->dir, sizeof k->dir, "%s", j->cut.dir);
    k->ledgers = pn_ledgers_at(j, k->steps);
    k->files = j->cut.files;
    j->cut.files = NULL;
    for (size_t i = 0; i < pn_json_length(k->files); i++) {
        k->bytes += pn_json_u64(pn_json_at(k->files, i), "bytes", 0);
        k->rows += pn_json_u64(pn_json_at(k->files, i), "rows", 0);
    }
    k->committed_ms = c->env->ops->wall_ms(c->env);
    k->forgot = pn_forget_number(c, j); /* a later request would have ended the cut */
    k->dirty = true; /* the flush behind this event is the commit point */
    k->next = j->checkpoints;
    j->checkpoints = k;
    j->cut.phase = PN_NO_CUT;
    j->cut_wanted = false;
    j->commit_revision = c->revision;
    j->last_checkpoint_ms = pn_now_ms(c->env);
    c->n_checkpoints++;
    j->cut_untold = true;
    if (!pn_records_flush(c)) return; /* tried again with every event; until then nobody is told */
    tell(j);
    pn_log(c->env, PN_INFO, "job %s: checkpoint %" PRIu64 " committed, %" PRIu64 " rows, %" PRIu64 " bytes", j->id, k->epoch, k->rows, k->bytes);
}

static void manifest_saved(struct pn_save *s) {
    struct manifest_save *m = s->owner;
    struct pn_coordinator *c = m->c;
    struct pn_job_run *j = pn_job_find(c, m->job_id);
    if (j != NULL && j->cut.phase == PN_MANIFEST && j->cut.epoch == m->epoch) {
        if (s->result < 0) pn_cut_abandon(c, j, strerror((int)-s->result));
        else commit(c, j);
    }
    free(m->text);
    free(m);
    pn_reconcile(c);
}

static void write_manifest(struct pn_coordinator *c, struct pn_job_run *j) {
    struct json_object *o = json_object_new_object(), *steps = json_object_new_array(), *finished = json_object_new_array();
    pn_json_add_u64(o, "format", 1);
    pn_json_add_str(o, "job", j->id);
    pn_json_add_u64(o, "epoch", j->cut.epoch);
    pn_json_add_u64(o, "generation", j->generation);
    for (uint32_t p = 0; p < j->n_producers; p++) {
        json_object_array_add(steps, json_object_new_uint64(j->cut.steps[p]));
        json_object_array_add(finished, json_object_new_boolean(j->cut.finished[p]));
    }
    pn_json_add(o, "steps", steps);
    pn_json_add(o, "finished", finished);
    pn_json_add(o, "files", json_object_get(j->cut.files));
    if (j->ledgers != NULL) pn_json_add(o, "ledgers", pn_ledgers_at(j, j->cut.steps));
    if (j->model != NULL) pn_json_add(o, "model", json_object_get(j->model));
    pn_json_add_str(o, "job_text", j->text);
    struct manifest_save *m = calloc(1, sizeof *m);
    if (m == NULL) {
        json_object_put(o);
        pn_cut_abandon(c, j, "no memory");
        return;
    }
    m->c = c;
    m->epoch = j->cut.epoch;
    snprintf(m->job_id, sizeof m->job_id, "%s", j->id);
    m->text = strdup(pn_json_text(o));
    json_object_put(o);
    m->save.done = manifest_saved;
    m->save.owner = m;
    char path[520];
    snprintf(path, sizeof path, "%s/manifest.json", j->cut.dir);
    j->cut.phase = PN_MANIFEST;
    pn_save_start(&m->save, c->env, path, m->text, strlen(m->text));
}

/* ---- steps ---- */

void pn_cut_abandon(struct pn_coordinator *c, struct pn_job_run *j, const char *why) {
    if (j->cut.phase == PN_NO_CUT) return;
    pn_log(c->env, PN_WARN, "job %s: checkpoint %" PRIu64 " abandoned: %s; training goes on", j->id, j->cut.epoch, why);
    c->n_checkpoint_failures++;
    struct json_object *names = json_object_new_array(); /* whatever is there of it */
    for (uint32_t s = 0; s < j->n_shards; s++) {
        struct json_object *f = json_object_new_object();
        char name[80];
        snprintf(name, sizeof name, "%s.ps", j->seats[s].node);
        pn_json_add_str(f, "name", name);
        json_object_array_add(names, f);
    }
    if (j->cut.phase > PN_DRAIN) pn_remove_files(c->env, j->cut.dir, names);
    json_object_put(names);
    if (j->cut.files != NULL) json_object_put(j->cut.files);
    j->cut = (struct pn_cut){.phase = PN_NO_CUT};
    j->last_checkpoint_ms = pn_now_ms(c->env); /* not at once again, unless somebody wants it */
    char text[160];
    snprintf(text, sizeof text, "the checkpoint was abandoned: %s", why);
    pn_answer_all(&j->cut_askers, 503, NULL, 0, text);
}

static bool start(struct pn_coordinator *c, struct pn_job_run *j) {
    for (uint32_t s = 0; s < j->n_shards; s++)
        if (j->seats[s].open_term != j->seats[s].term || !pn_node_alive(c, pn_node_find(c, j->seats[s].node))) return false;
    if (!pn_forget_settled(c, j)) return false;
    j->cut = (struct pn_cut){.phase = PN_DRAIN, .epoch = j->next_epoch++, .since_ms = pn_now_ms(c->env)};
    snprintf(j->cut.dir, sizeof j->cut.dir, "%s/jobs/%s/checkpoints/%" PRIu64, c->options.dir, j->id, j->cut.epoch);
    j->dirty = true; /* the number is never used again */
    return true;
}

/* True when every live producer has stopped; then cut.steps is complete. */
static bool drained(struct pn_coordinator *c, struct pn_job_run *j) {
    const struct pn_checkpoint *k = pn_job_committed(j);
    if (j->job.privacy.secure) { /* between two rounds nothing is on its way, and none begins under a cut */
        for (uint32_t p = 0; p < j->n_producers; p++) {
            j->cut.steps[p] = j->units[p].clock;
            j->cut.finished[p] = j->units[p].finished;
        }
        return pn_secure_idle(j);
    }
    uint64_t highest = j->cut.upto;
    bool all = true;
    for (uint32_t p = 0; p < j->n_producers; p++) {
        struct pn_work_unit *u = &j->units[p];
        if (k != NULL && k->finished[p]) {
            j->cut.steps[p] = k->steps[p];
            j->cut.finished[p] = true;
            continue;
        }
        if (u->owner[0] == '\0') { /* external, nobody's: who takes it goes on behind the last checkpoint, and what was applied since is recognised */
            j->cut.steps[p] = k != NULL ? k->steps[p] : 0;
            j->cut.finished[p] = false;
            continue;
        }
        struct pn_node *n = pn_node_find(c, u->owner);
        struct json_object *cut = n != NULL && n->beat != NULL && pn_node_job(n, j) != NULL ? pn_json_get(n->beat, "cut") : NULL;
        /* The report must answer this very cut, and all that this plan says: terms of shards among it. */
        if (cut == NULL || !pn_node_knows_plan(c, n) || pn_json_u64(cut, "epoch", 0) != j->cut.epoch || pn_json_u64(cut, "upto", 0) != j->cut.upto || n->incarnation != u->owner_incarnation) {
            all = false;
            continue;
        }
        if (u->started > highest && !u->finished) highest = u->started;
        if (!pn_json_bool(cut, "drained", false) || u->started != u->clock) all = false;
        j->cut.steps[p] = u->clock;
        j->cut.finished[p] = u->finished;
    }
    if (j->job.consistency != PN_ASYNC && highest > j->cut.upto) { /* nobody may wait for one that stopped earlier */
        j->cut.upto = highest;
        return false;
    }
    return all;
}

/* How many shards report `state` (or one behind it) for this cut; -1: one failed. */
static int count(struct pn_coordinator *c, struct pn_job_run *j, bool written) {
    int n = 0;
    for (uint32_t s = 0; s < j->n_shards; s++) {
        struct pn_node *node = pn_node_find(c, j->seats[s].node);
        struct json_object *cut = node != NULL && node->beat != NULL && pn_node_job(node, j) != NULL ? pn_json_get(node->beat, "cut") : NULL;
        if (cut == NULL || pn_json_u64(cut, "epoch", 0) != j->cut.epoch) continue;
        const char *state = pn_json_str(cut, "state", "");
        if (strcmp(state, "failed") == 0) return -1;
        if (strcmp(state, "written") == 0) { /* without name and digest nobody could restore from it */
            struct json_object *f = pn_json_get(cut, "file");
            char name[80];
            snprintf(name, sizeof name, "%s.ps", j->seats[s].node);
            if (strcmp(pn_json_str(f, "name", ""), name) != 0 || pn_json_str(f, "digest", "")[0] == '\0') return -1;
        }
        n += strcmp(state, "written") == 0 || !written;
    }
    return n;
}

static void collect(struct pn_coordinator *c, struct pn_job_run *j) {
    j->cut.files = json_object_new_array();
    for (uint32_t s = 0; s < j->n_shards; s++) {
        struct pn_node *n = pn_node_find(c, j->seats[s].node);
        struct json_object *f = pn_json_get(pn_json_get(n->beat, "cut"), "file");
#if PN_MUTANT == 4
        if (f == NULL) {
            char name[80];
            snprintf(name, sizeof name, "%s.ps", j->seats[s].node);
            f = json_object_new_object();
            pn_json_add_str(f, "name", name);
            json_object_array_add(j->cut.files, f);
            continue;
        }
#endif
        json_object_array_add(j->cut.files, json_object_get(f));
    }
}

static void thin_out(struct pn_coordinator *c, struct pn_job_run *j) {
    uint32_t good = 0;
    for (struct pn_checkpoint *k = j->checkpoints, *next; k != NULL; k = next) {
        next = k->next;
        if (k->dirty) return;
        if (!k->bad) good++;
        if (good > j->job.checkpoint_keep && k->epoch != j->best_checkpoint && !pn_publication_uses(c, j, k->epoch) && !pn_forget_copies(c, j, k->epoch)) {
            pn_records_forget(c, j, k);
            return; /* one an event */
        }
    }
}

void pn_cut_step(struct pn_coordinator *c, struct pn_job_run *j) {
    uint64_t now = pn_now_ms(c->env);
    if (j->cut.phase != PN_NO_CUT && now - j->cut.since_ms > (j->cut.phase == PN_DRAIN || j->cut.phase == PN_FLIP ? DRAIN_MS : WRITE_MS)) pn_cut_abandon(c, j, "it took too long");
    int n;
    switch (j->cut.phase) {
    case PN_NO_CUT: {
        bool due = j->job.checkpoint_every_ms > 0 && now - j->last_checkpoint_ms >= j->job.checkpoint_every_ms && j->phase == PN_TRAIN;
        const struct pn_checkpoint *k = j->checkpoints;
        if (k != NULL && k->dirty) return; /* the last one is not durable yet */
        if (k != NULL && j->cut_untold) tell(j);
        if (k != NULL && j->cut_askers == NULL && !due && !j->cut_wanted) thin_out(c, j);
        if (j->phase > PN_FINAL) {
            j->cut_wanted = false;
            if (k != NULL) pn_answer_all(&j->cut_askers, 200, "epoch", k->epoch, NULL); /* the final one is whole */
            return;
        }
        bool pause = c->n_checkpoint_failures > 0 && now - j->last_checkpoint_ms < PAUSE_AFTER_FAILURE_MS && j->cut_askers == NULL;
        if ((due || j->cut_wanted || j->cut_askers != NULL) && !pause) start(c, j);
        break;
    }
    case PN_DRAIN:
        if (drained(c, j)) {
            j->cut.phase = PN_FLIP;
            j->cut.since_ms = now;
        }
        break;
    case PN_FLIP:
        n = count(c, j, false);
        if (n < 0) pn_cut_abandon(c, j, "a server could not write");
        else if (n == (int)j->n_shards) {
            j->cut.phase = PN_WRITE;
            j->cut.since_ms = now;
        }
#if PN_MUTANT == 4 /* the manifest before the files */
        if (j->cut.phase == PN_WRITE) {
            collect(c, j);
            write_manifest(c, j);
        }
#endif
        break;
    case PN_WRITE:
        n = count(c, j, true);
        if (n < 0) pn_cut_abandon(c, j, "a server could not write its file");
        else if (n == (int)j->n_shards) {
            collect(c, j);
            write_manifest(c, j);
        }
        break;
    case PN_MANIFEST: break;
    }
}
