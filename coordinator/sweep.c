/* Removes every folder of a job's checkpoints and of its model's versions that no record names, for forget.c: originals of copies, versions taken away, what abandoned attempts left. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "coordinator/internal.h"

#define RETRY_MS 2000u

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

static void free_sweep(struct pn_sweep *s) {
    json_object_put(s->roots);
    free(s->names);
    free(s->inner);
    free(s);
}

static bool is_last(const char *dir, const char *name) {
    const char *slash = strrchr(dir, '/');
    return slash != NULL && strcmp(slash + 1, name) == 0;
}

/* Does a record, or what is under way, name this folder? By its last part alone: the same place may have been written in another way in an earlier life. */
static bool named(const struct pn_sweep *s, const char *name) {
    const struct pn_coordinator *c = s->c;
    const struct pn_job_run *j = pn_job_find(s->c, s->job);
    if (s->i_root == 0) {
        if (j == NULL || (j->cut.phase != PN_NO_CUT && is_last(j->cut.dir, name)) || pn_scrubbing_writes(c, j, name)) return true;
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

bool pn_forget_files(struct pn_coordinator *c, struct pn_forget *f, struct pn_job_run *j) {
    struct pn_sweep *s = c->sweep;
    if (s != NULL && !s->over) return false;
    if (s != NULL) {
        const bool done = !s->failed && s->number == f->number;
        if (s->failed) c->sweep_retry_ms = pn_now_ms(c->env) + RETRY_MS;
        free_sweep(s);
        c->sweep = NULL;
        if (done) return true;
    }
    pn_forget_say(f, "removes files that no record names");
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

void pn_sweep_close(struct pn_coordinator *c) {
    if (c->sweep == NULL) return;
    c->sweep->closed = true;
    if (c->sweep->over) free_sweep(c->sweep);
    c->sweep = NULL;
}
