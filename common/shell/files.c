/* File operations on libuv's threads. Requests on one path run in the order given, one at a time; different paths in parallel. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "common/shell/internal.h"

struct job {
    uv_work_t work;
    struct pn_files *files;
    struct pn_io *io;
    struct job *next;   /* waits behind this one: the same path */
    struct job *others; /* list of the heads */
};
struct pn_files {
    struct pn_shell *shell;
    struct job *heads;  /* one a busy path */
};

static int64_t whole(int fd, struct pn_io *io, bool writing) {
    size_t done = 0;
    while (done < io->n_bytes) {
        ssize_t n = writing ? pwrite(fd, (const char *)io->buffer + done, io->n_bytes - done, (off_t)(io->offset + done))
                            : pread(fd, (char *)io->buffer + done, io->n_bytes - done, (off_t)(io->offset + done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -errno;
        if (n == 0) break;
        done += (size_t)n;
    }
    return writing && done < io->n_bytes ? -EIO : (int64_t)done;
}

static int64_t with_file(const char *path, int flags, struct pn_io *io, int64_t (*act)(int, struct pn_io *)) {
    int fd = open(path, flags | O_CLOEXEC, 0644);
    if (fd < 0) return -errno;
    int64_t r = act == NULL ? 0 : act(fd, io);
    if (close(fd) != 0 && r >= 0 && errno != EINTR) r = -errno;
    return r;
}

static int64_t do_read(int fd, struct pn_io *io) { return whole(fd, io, false); }
static int64_t do_write(int fd, struct pn_io *io) { return whole(fd, io, true); }
static int64_t do_sync(int fd, struct pn_io *io) { (void)io; return fsync(fd) == 0 ? 0 : -errno; }
static int64_t do_size(int fd, struct pn_io *io) {
    struct stat st;
    (void)io;
    if (fstat(fd, &st) != 0) return -errno;
    return S_ISDIR(st.st_mode) ? -EISDIR : (int64_t)st.st_size;
}

/* A new folder lasts only when its parent is on the disk. */
static int64_t make_folder(const char *path) {
    char parent[600];
    if (mkdir(path, 0755) != 0) return errno == EEXIST ? 0 : -errno;
    snprintf(parent, sizeof parent, "%s", path);
    char *slash = strrchr(parent, '/');
    if (slash == NULL) strcpy(parent, ".");
    else slash[slash == parent] = '\0';
    return with_file(parent, O_RDONLY | O_DIRECTORY, NULL, do_sync);
}

static int64_t make_folders(const char *path) {
    char part[600];
    if (strlen(path) >= sizeof part) return -ENAMETOOLONG;
    strcpy(part, path);
    for (char *c = part + 1; *c != '\0'; c++) {
        if (*c != '/') continue;
        *c = '\0';
        int64_t r = make_folder(part);
        if (r < 0) return r;
        *c = '/';
    }
    return make_folder(part);
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static int64_t list(struct pn_io *io) {
    DIR *d = opendir(io->path);
    if (d == NULL) return -errno;
    size_t n = 0, bytes = 0, room = 0;
    char *text = NULL;
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        size_t length = strlen(e->d_name) + 1;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        if (bytes + length > room) {
            char *grown = realloc(text, room = (bytes + length) * 2);
            if (grown == NULL) break;
            text = grown;
        }
        memcpy(text + bytes, e->d_name, length);
        bytes += length;
        n++;
    }
    closedir(d);
    io->names = malloc((n + 1) * sizeof *io->names + bytes + 1);
    if (io->names == NULL) {
        free(text);
        return -ENOMEM;
    }
    char *copy = (char *)(io->names + n + 1);
    if (bytes > 0) memcpy(copy, text, bytes);
    free(text);
    for (size_t i = 0; i < n; i++) {
        io->names[i] = copy;
        copy += strlen(copy) + 1;
    }
    io->names[n] = NULL;
    qsort(io->names, n, sizeof *io->names, by_name);
    return (int64_t)n;
}

static void run(uv_work_t *w) {
    struct pn_io *io = ((struct job *)w->data)->io;
    switch (io->op) {
    case PN_IO_READ: io->result = with_file(io->path, O_RDONLY, io, do_read); break;
    case PN_IO_SIZE: io->result = with_file(io->path, O_RDONLY, io, do_size); break;
    case PN_IO_CREATE: io->result = with_file(io->path, O_WRONLY | O_CREAT | (io->exclusive ? O_EXCL : O_TRUNC), io, NULL); break;
    case PN_IO_WRITE: io->result = with_file(io->path, O_WRONLY, io, do_write); break;
    case PN_IO_SYNC: io->result = with_file(io->path, O_RDWR, io, do_sync); break;
    case PN_IO_SYNC_DIR: io->result = with_file(io->path, O_RDONLY | O_DIRECTORY, io, do_sync); break;
    case PN_IO_RENAME: io->result = rename(io->path, io->path2) == 0 ? 0 : -errno; break;
    case PN_IO_REMOVE: io->result = remove(io->path) == 0 || errno == ENOENT ? 0 : -errno; break;
    case PN_IO_MKDIR: io->result = make_folders(io->path); break;
    case PN_IO_LIST: io->result = list(io); break;
    }
}

static void done(uv_work_t *w, int status) {
    struct job *j = w->data;
    struct pn_files *f = j->files;
    struct pn_io *io = j->io;
    struct job **at = &f->heads;
    while (*at != j) at = &(*at)->others;
    if (j->next != NULL) {
        j->next->others = j->others;
        *at = j->next;
        uv_queue_work(&f->shell->loop, &j->next->work, run, done);
    } else {
        *at = j->others;
    }
    free(j);
    if (status == 0) io->done(io);
    pn_transport_drain(f->shell->transport);
}

void pn_files_start(struct pn_files *f, struct pn_io *io) {
    struct job *j = calloc(1, sizeof *j);
    if (j == NULL) abort(); /* the request could never be answered */
    j->files = f;
    j->io = io;
    j->work.data = j;
    for (struct job *h = f->heads; h != NULL; h = h->others)
        if (strcmp(h->io->path, io->path) == 0) {
            while (h->next != NULL) h = h->next;
            h->next = j;
            return;
        }
    j->others = f->heads;
    f->heads = j;
    uv_queue_work(&f->shell->loop, &j->work, run, done);
}

struct pn_files *pn_files_open(struct pn_shell *s) {
    struct pn_files *f = calloc(1, sizeof *f);
    if (f != NULL) f->shell = s;
    return f;
}

void pn_files_close(struct pn_files *f) { free(f); }

enum pn_result pn_files_map(const char *path, const void **data, size_t *n_bytes) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0) return errno == ENOENT ? PN_NOT_FOUND : PN_IO;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return PN_IO;
    }
    *n_bytes = (size_t)st.st_size;
    *data = st.st_size == 0 ? "" : mmap(NULL, *n_bytes, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    return *data == MAP_FAILED ? PN_IO : PN_OK;
}

void pn_files_unmap(const void *data, size_t n_bytes) {
    if (n_bytes > 0) munmap((void *)(uintptr_t)data, n_bytes);
}
