#include "common/file.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/mutant.h"

/* ---- save ---- */

enum { CREATE, WRITE, SYNC, RENAME, SYNC_DIR, CLEAN_UP };

static void save_done(struct pn_io *io);

static void save_step(struct pn_save *s, int step) {
    s->step = step;
    struct pn_io *io = &s->io;
    *io = (struct pn_io){.done = save_done, .owner = s, .path = s->tmp};
    switch (step) {
    case CREATE: io->op = PN_IO_CREATE; break;
    case WRITE:
        io->op = PN_IO_WRITE;
        io->buffer = (void *)(uintptr_t)s->data; /* only read */
        io->n_bytes = s->n_bytes;
        break;
    case SYNC: io->op = PN_IO_SYNC; break;
    case RENAME:
        io->op = PN_IO_RENAME;
        io->path2 = s->path;
        break;
    case SYNC_DIR:
        io->op = PN_IO_SYNC_DIR;
        io->path = s->folder;
        break;
    case CLEAN_UP: io->op = PN_IO_REMOVE; break;
    }
    pn_io_start(s->env, io);
}

static void save_done(struct pn_io *io) {
    struct pn_save *s = io->owner;
    if (s->step == CLEAN_UP || (s->step == SYNC_DIR && io->result >= 0)) {
        s->done(s);
    } else if (io->result < 0) {
        s->result = io->result;
        if (s->step == SYNC_DIR) s->done(s); /* renamed already: the name may or may not last, the file is whole */
        else save_step(s, CLEAN_UP);
    } else {
#if PN_MUTANT == 3 /* rename without fsync */
        save_step(s, s->step == WRITE ? RENAME : s->step + 1);
#else
        save_step(s, s->step + 1);
#endif
    }
}

void pn_save_start(struct pn_save *s, struct pn_env *env, const char *path, const void *data, size_t n_bytes) { pn_save_beside(s, env, path, "tmp", data, n_bytes); }

void pn_save_beside(struct pn_save *s, struct pn_env *env, const char *path, const char *ending, const void *data, size_t n_bytes) {
    s->env = env;
    s->result = 0;
    s->data = data;
    s->n_bytes = n_bytes;
    snprintf(s->path, sizeof s->path, "%s", path);
    snprintf(s->tmp, sizeof s->tmp, "%s.%s", path, ending);
    snprintf(s->folder, sizeof s->folder, "%s", path);
    char *slash = strrchr(s->folder, '/');
    if (slash == NULL) snprintf(s->folder, sizeof s->folder, ".");
    else if (slash == s->folder) slash[1] = '\0';
    else *slash = '\0';
    save_step(s, CREATE);
}

/* ---- load ---- */

static void load_done(struct pn_io *io);

static void load_end(struct pn_load *l, int64_t result) {
    l->result = result;
    if (result < 0) {
        free(l->data);
        l->data = NULL;
        l->n_bytes = 0;
    }
    l->done(l);
}

static void load_done(struct pn_io *io) {
    struct pn_load *l = io->owner;
    if (io->result < 0) {
        load_end(l, io->result);
    } else if (io->op == PN_IO_SIZE) {
        if ((uint64_t)io->result > l->max_bytes) {
            load_end(l, -EFBIG);
            return;
        }
        l->n_bytes = (size_t)io->result;
        l->data = malloc(l->n_bytes + 1);
        if (l->data == NULL) {
            load_end(l, -ENOMEM);
            return;
        }
        *io = (struct pn_io){.op = PN_IO_READ, .path = l->path, .buffer = l->data, .n_bytes = l->n_bytes, .done = load_done, .owner = l};
        pn_io_start(l->env, io);
    } else {
        l->n_bytes = (size_t)io->result;
        l->data[l->n_bytes] = '\0';
        load_end(l, 0);
    }
}

void pn_load_start(struct pn_load *l, struct pn_env *env, const char *path, size_t max_bytes) {
    l->env = env;
    l->result = 0;
    l->data = NULL;
    l->n_bytes = 0;
    l->max_bytes = max_bytes;
    snprintf(l->path, sizeof l->path, "%s", path);
    l->io = (struct pn_io){.op = PN_IO_SIZE, .path = l->path, .done = load_done, .owner = l};
    pn_io_start(env, &l->io);
}
