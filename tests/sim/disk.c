/* The disk of the simulated cluster. A file is what is visible now and what is on the platter: a write is visible at once and
 * lasts after fsync; a name (create, rename, remove) lasts after fsync of its folder. Losing power takes some of what was not
 * synced, and may tear it at a sector. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "tests/sim/sim.h"

#define SECTOR 512u

struct content { uint8_t *data; size_t n_bytes; };
struct inode {
    struct content now, synced;
    int writer;               /* node of the last unsynced write, -1: clean */
    bool ever_synced;
};
struct name {
    char path[520];
    struct inode *now, *synced; /* NULL: no such file */
    int changer;              /* node of the last unsynced change of the name, -1 */
    bool folder;
    struct name *next;        /* sorted by path */
};
struct busy { char path[520]; uint64_t until_ns; };
struct sim_disk {
    struct name *names;
    struct busy busy[64];
    size_t i_busy;
};

struct sim_disk *sim_disk_open(void) { return calloc(1, sizeof(struct sim_disk)); }

void sim_disk_close(struct sim_disk *d) {
    while (d->names != NULL) { /* inodes stay: they may be shared by two names; the process of the seed ends soon */
        struct name *n = d->names;
        d->names = n->next;
        free(n);
    }
    free(d);
}

static struct name *find(struct sim_disk *d, const char *path, bool make) {
    struct name **at = &d->names;
    while (*at != NULL && strcmp((*at)->path, path) < 0) at = &(*at)->next;
    if (*at != NULL && strcmp((*at)->path, path) == 0) return *at;
    if (!make) return NULL;
    struct name *n = calloc(1, sizeof *n);
    assert(n != NULL);
    snprintf(n->path, sizeof n->path, "%s", path);
    n->changer = -1;
    n->next = *at;
    *at = n;
    return n;
}

static void set(struct content *c, const uint8_t *data, size_t n_bytes) {
    uint8_t *copy = malloc(n_bytes + 1);
    assert(copy != NULL);
    if (n_bytes > 0) memcpy(copy, data, n_bytes);
    free(c->data);
    c->data = copy;
    c->n_bytes = n_bytes;
}

void sim_disk_start(struct sim *s, struct sim_node *n, struct pn_io *io) {
    uint64_t at = s->now_ns + 20000 + sim_draw(s, MS / 2);
    if (s->faults_on && sim_chance(s, s->faults.slow)) at += sim_draw(s, 50 * MS);
    /* Requests on one path complete in the order given. */
    struct sim_disk *d = s->disk;
    struct busy *b = NULL;
    for (size_t i = 0; i < 64 && b == NULL; i++)
        if (strcmp(d->busy[i].path, io->path) == 0) b = &d->busy[i];
    if (b == NULL) {
        b = &d->busy[d->i_busy++ % 64];
        snprintf(b->path, sizeof b->path, "%s", io->path);
        b->until_ns = 0;
    }
    if (at <= b->until_ns) at = b->until_ns + 1000;
    b->until_ns = at;
    sim_finish_io(s, n, io, at);
}

static bool in_folder(const char *path, const char *folder, size_t n) {
    return strncmp(path, folder, n) == 0 && path[n] == '/' && strchr(path + n + 1, '/') == NULL;
}

static int64_t list(struct sim_disk *d, const char *folder, char ***out) {
    size_t n = strlen(folder), count = 0, bytes = 0;
    for (struct name *f = d->names; f != NULL; f = f->next)
        if ((f->now != NULL || f->folder) && in_folder(f->path, folder, n)) {
            count++;
            bytes += strlen(f->path + n + 1) + 1;
        }
    char **names = malloc((count + 1) * sizeof *names + bytes);
    assert(names != NULL);
    char *text = (char *)(names + count + 1);
    size_t i = 0;
    for (struct name *f = d->names; f != NULL; f = f->next)
        if ((f->now != NULL || f->folder) && in_folder(f->path, folder, n)) {
            names[i++] = text;
            size_t length = strlen(f->path + n + 1) + 1;
            memcpy(text, f->path + n + 1, length);
            text += length;
        }
    names[i] = NULL;
    *out = names;
    return (int64_t)count;
}

static int64_t apply(struct sim *s, struct sim_node *n, struct pn_io *io) {
    struct sim_disk *d = s->disk;
    struct name *f = find(d, io->path, io->op == PN_IO_CREATE || io->op == PN_IO_MKDIR);
    bool exists = f != NULL && f->now != NULL;
    if (s->disk_full && (io->op == PN_IO_CREATE || io->op == PN_IO_WRITE || io->op == PN_IO_MKDIR)) return -ENOSPC;
    if (s->faults_on && io->op != PN_IO_SYNC && strncmp(io->path, "/data/", 6) != 0 && sim_chance(s, s->faults.io_error)) { /* whoever keeps the data repeats what failed */
        s->counts.io_errors++;
        return -EIO;
    }
    switch (io->op) {
    case PN_IO_SIZE: return exists ? (int64_t)f->now->now.n_bytes : -ENOENT;
    case PN_IO_READ: {
        if (!exists) return -ENOENT;
        size_t size = f->now->now.n_bytes, take = io->offset >= size ? 0 : size - io->offset;
        if (take > io->n_bytes) take = io->n_bytes;
        if (take > 0) memcpy(io->buffer, f->now->now.data + io->offset, take);
        return (int64_t)take;
    }
    case PN_IO_CREATE: {
        if (exists && io->exclusive) return -EEXIST;
        struct inode *i = calloc(1, sizeof *i); /* a truncated file is as good as a new one */
        assert(i != NULL);
        set(&i->now, NULL, 0);
        set(&i->synced, NULL, 0);
        i->writer = -1;
        f->now = i;
        f->changer = n->index;
        return 0;
    }
    case PN_IO_WRITE: {
        if (!exists) return -ENOENT;
        struct inode *i = f->now;
        size_t end = io->offset + io->n_bytes;
        if (end > i->now.n_bytes) {
            i->now.data = realloc(i->now.data, end + 1);
            assert(i->now.data != NULL);
            if (io->offset > i->now.n_bytes) memset(i->now.data + i->now.n_bytes, 0, io->offset - i->now.n_bytes);
            i->now.n_bytes = end;
        }
        if (io->n_bytes > 0) memcpy(i->now.data + io->offset, io->buffer, io->n_bytes);
        i->writer = n->index;
        return (int64_t)io->n_bytes;
    }
    case PN_IO_SYNC:
        if (!exists) return -ENOENT;
        if (s->faults_on && sim_chance(s, s->faults.sync_error)) {
            s->counts.sync_errors++;
            return -EIO; /* and the pages count as clean: what was lost stays lost (writer stays set) */
        }
        set(&f->now->synced, f->now->now.data, f->now->now.n_bytes);
        f->now->writer = -1;
        return 0;
    case PN_IO_RENAME: {
        if (!exists) return -ENOENT;
        struct name *to = find(d, io->path2, true);
        to->now = f->now;
        f->now = NULL;
        to->changer = f->changer = n->index;
        return 0;
    }
    case PN_IO_SYNC_DIR: {
        size_t length = strlen(io->path);
        for (struct name *x = d->names; x != NULL; x = x->next)
            if (in_folder(x->path, io->path, length)) {
                x->synced = x->now;
                x->changer = -1;
            }
        return 0;
    }
    case PN_IO_REMOVE:
        if (exists) {
            f->now = NULL;
            f->changer = n->index;
        } else if (f != NULL && f->folder) {
            f->folder = false;
        }
        return 0;
    case PN_IO_MKDIR: f->folder = true; return 0;
    case PN_IO_LIST: return list(d, io->path, &io->names);
    }
    return -EINVAL;
}

void sim_disk_apply(struct sim *s, struct sim_node *n, struct pn_io *io) {
    s->counts.io++;
    io->result = apply(s, n, io);
    if (io->result == -ENOSPC) s->counts.disk_full++;
}

void sim_disk_power_cut(struct sim *s, struct sim_node *n) {
    for (struct name *f = s->disk->names; f != NULL; f = f->next) {
        if (f->changer == n->index) {
            if (sim_chance(s, 0.5)) { /* the name's change did not reach the platter */
                f->now = f->synced;
                s->counts.names_lost++;
            } else {
                f->synced = f->now;
            }
            f->changer = -1;
        }
    }
    for (struct name *f = s->disk->names; f != NULL; f = f->next) {
        struct inode *i = f->now;
        if (i == NULL || i->writer != n->index) continue;
        switch (sim_draw(s, 3)) {
        case 0: set(&i->now, i->synced.data, i->synced.n_bytes); break; /* nothing of it */
        case 1:                                                          /* a part, torn at a sector */
            if (i->now.n_bytes > 0) {
                size_t keep = sim_draw(s, i->now.n_bytes) / SECTOR * SECTOR;
                for (size_t b = keep; b < i->now.n_bytes; b++) i->now.data[b] = b < i->synced.n_bytes ? i->synced.data[b] : 0;
                s->counts.torn++;
            }
            break;
        default: break;                                                  /* all of it, by luck */
        }
        set(&i->synced, i->now.data, i->now.n_bytes);
        i->writer = -1;
    }
}

enum pn_result sim_disk_map(struct sim *s, const char *path, const void **data, size_t *n_bytes) {
    struct name *f = find(s->disk, path, false);
    if (f == NULL || f->now == NULL) return PN_NOT_FOUND;
    struct content copy = {0};
    set(&copy, f->now->now.data, f->now->now.n_bytes);
    *data = copy.data;
    *n_bytes = copy.n_bytes;
    return PN_OK;
}

void sim_disk_unmap(const void *data) { free((void *)(uintptr_t)data); }

char *sim_disk_lasting(struct sim_disk *d, const char *path, size_t *n_bytes) {
    const struct name *f = find(d, path, false);
    struct content copy = {0};
    if (f == NULL || f->synced == NULL) return NULL;
    set(&copy, f->synced->synced.data, f->synced->synced.n_bytes);
    *n_bytes = copy.n_bytes;
    copy.data[copy.n_bytes] = '\0';
    return (char *)copy.data;
}

size_t sim_disk_count(struct sim_disk *d, const char *folder) {
    char **names = NULL;
    const int64_t n = list(d, folder, &names);
    free(names);
    return (size_t)n;
}

void sim_disk_put(struct sim_disk *d, const char *path, const void *data, size_t n_bytes) {
    struct name *f = find(d, path, true);
    struct inode *i = calloc(1, sizeof *i);
    assert(i != NULL);
    set(&i->now, data, n_bytes);
    set(&i->synced, data, n_bytes);
    i->writer = -1;
    i->ever_synced = true;
    f->now = f->synced = i;
}
