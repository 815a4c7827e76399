/* Whole files in one request, built on env's single steps. Each is a small state machine owned by the caller;
 * it must live until done(). */
#ifndef PN_COMMON_FILE_H
#define PN_COMMON_FILE_H

#include "common/env.h"

/* Writes a file so that after a crash the old or the new content is there, never a part: CREATE path.tmp, WRITE,
 * SYNC, RENAME, SYNC_DIR. Any error abandons the attempt (path.tmp is removed) and leaves the old file. */
struct pn_save {
    void (*done)(struct pn_save *);
    void *owner;
    int64_t result;               /* out: 0 or a negative errno */
    /* kept by pn_save_start */
    struct pn_env *env;
    struct pn_io io;
    int step;
    char path[512], tmp[560], folder[512];
    const void *data;
    size_t n_bytes;
};
void pn_save_start(struct pn_save *, struct pn_env *, const char *path, const void *data, size_t n_bytes);
/* The same by way of path.ENDING: for a file that several processes may write at once, all with the same content. */
void pn_save_beside(struct pn_save *, struct pn_env *, const char *path, const char *ending, const void *data, size_t n_bytes);

/* Reads a whole file of at most max_bytes into one malloc block (data is NUL-terminated beyond n_bytes). */
struct pn_load {
    void (*done)(struct pn_load *);
    void *owner;
    int64_t result;               /* out: 0 or a negative errno (-EFBIG: larger than max_bytes) */
    char *data;                   /* out: owned by the receiver */
    size_t n_bytes;
    /* kept by pn_load_start */
    struct pn_env *env;
    struct pn_io io;
    int step;
    char path[512];
    size_t max_bytes;
};
void pn_load_start(struct pn_load *, struct pn_env *, const char *path, size_t max_bytes);

#endif
