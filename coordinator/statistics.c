/* What a job's statistics are to the coordinator: a file of the job that its record names. And what is left over in that folder when the job has ended: parts of files whose writer was killed,
 * and files of another pass than the one whose result was taken. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "coordinator/internal.h"
#include "snapshot/artifacts.h"

#define TEXT_BYTES (64u << 10) /* of a job that prepares nothing: two numbers a feature */

void pn_job_folder(const struct pn_coordinator *c, const struct pn_job_run *j, char dir[480]) { snprintf(dir, 480, "%s/jobs/%s/vocabularies", c->options.dir, j->id); }

void pn_statistics_take(struct pn_coordinator *c, struct pn_job_run *j, const struct pn_node *n, struct json_object *model) {
    struct json_object *s = pn_json_get(model, "statistics");
    struct pn_artifact file;
    if (j->model != NULL) return; /* what the transforms counted must not change when a worker comes back */
    if (pn_job_prepares(&j->job) ? pn_artifact_read(s, &file) : s != NULL && json_object_is_type(s, json_type_string) && json_object_get_string_len(s) <= (int)TEXT_BYTES) {
        j->model = json_object_get(model);
        j->dirty = true;
    } else if (!j->told_unsound) {
        j->told_unsound = true;
        pn_log(c->env, PN_WARN, "job %s: what %s says of its statistics is not sound and is not taken", j->id, n->name);
    }
}

/* ---- leftovers ---- */
struct pn_tidying {
    struct pn_coordinator *c;
    char job[32], dir[480], path[560];
    struct pn_artifact *keep;
    size_t n_keep, i_name;
    char **names;
    struct pn_load load;
    struct pn_io io;
    bool closed;
};

static void free_tidying(struct pn_tidying *t) {
    free(t->keep);
    free(t->names);
    free(t->load.data);
    free(t);
}

void pn_tidying_close(struct pn_coordinator *c) {
    if (c->tidying != NULL) c->tidying->closed = true; /* something will call back; freed then */
    c->tidying = NULL;
}

/* In each callback first. NULL: t is gone. A job that runs again is left alone. */
static struct pn_job_run *of(struct pn_tidying *t) {
    struct pn_job_run *j = t->closed ? NULL : pn_job_find(t->c, t->job);
    if (j != NULL && pn_job_ended(j)) return j;
    if (j != NULL) j->tidied = false;
    if (!t->closed) t->c->tidying = NULL;
    free_tidying(t);
    return NULL;
}

static void done(struct pn_tidying *t) {
    t->c->tidying = NULL;
    pn_reconcile(t->c); /* the next one */
    free_tidying(t);
}

static void start(struct pn_tidying *t, enum pn_io_op op, const char *path, void (*then)(struct pn_io *)) {
    t->io = (struct pn_io){.op = op, .path = path, .done = then, .owner = t};
    pn_io_start(t->c->env, &t->io);
}

static void remove_next(struct pn_tidying *t);

static void removed(struct pn_io *io) {
    struct pn_tidying *t = io->owner;
    if (of(t) != NULL) remove_next(t);
}

static void remove_next(struct pn_tidying *t) {
    for (const char *name; t->names != NULL && (name = t->names[t->i_name]) != NULL;) {
        t->i_name++;
        size_t i = 0;
        while (i < t->n_keep && strcmp(t->keep[i].name, name) != 0) i++;
        if (i < t->n_keep) continue;
        snprintf(t->path, sizeof t->path, "%s/%.79s", t->dir, name);
        start(t, PN_IO_REMOVE, t->path, removed);
        return;
    }
    done(t);
}

static void listed(struct pn_io *io) {
    struct pn_tidying *t = io->owner;
    t->names = io->result >= 0 ? io->names : NULL; /* no folder: nothing is left over */
    if (of(t) != NULL) remove_next(t);
}

/* What cannot be read for sure keeps everything. */
static void look(struct pn_tidying *t, const char *text, const struct pn_artifact *file) {
    if (text != NULL && pn_artifacts_read(text, &t->keep, &t->n_keep, NULL) != PN_OK) {
        done(t);
        return;
    }
    if (file != NULL) {
        struct pn_artifact *grown = realloc(t->keep, (t->n_keep + 1) * sizeof *grown);
        if (grown == NULL) {
            done(t);
            return;
        }
        t->keep = grown;
        t->keep[t->n_keep++] = *file;
    }
    start(t, PN_IO_LIST, t->dir, listed);
}

static void text_loaded(struct pn_load *l) {
    struct pn_tidying *t = l->owner;
    struct pn_artifact file;
    const struct pn_job_run *j = of(t);
    if (j == NULL) return;
    if (l->result < 0 || !pn_artifact_read(pn_json_get(j->model, "statistics"), &file) || pn_artifact_verify(&file, l->data, l->n_bytes, NULL) != PN_OK) done(t);
    else look(t, l->data, &file);
}

void pn_statistics_tidy(struct pn_coordinator *c) {
    struct pn_job_run *j = c->tidying == NULL ? c->jobs : NULL;
    struct pn_artifact file;
    for (; j != NULL; j = j->next) {
        if (!pn_job_ended(j) || j->dirty || j->tidied) continue;
        if (pn_job_prepares(&j->job)) break;
        j->tidied = true;
    }
    struct pn_tidying *t = j != NULL ? calloc(1, sizeof *t) : NULL;
    if (t == NULL) return;
    j->tidied = true;
    t->c = c;
    snprintf(t->job, sizeof t->job, "%s", j->id);
    pn_job_folder(c, j, t->dir);
    c->tidying = t;
    struct json_object *s = pn_json_get(j->model, "statistics");
    if (!pn_artifact_read(s, &file)) {
        look(t, j->model != NULL ? pn_json_str(j->model, "statistics", "{}") : NULL, NULL);
        return;
    }
    snprintf(t->path, sizeof t->path, "%s/%s", t->dir, file.name);
    t->load.done = text_loaded;
    t->load.owner = t;
    pn_load_start(&t->load, c->env, t->path, PN_ARTIFACT_BYTES);
}
