/* A world of a few files in memory for the reader: requests wait in a queue and complete in an order that a seed gives. */
#ifndef PN_TESTS_READER_ENV_H
#define PN_TESTS_READER_ENV_H
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>
#include "common/hash.h"
#include "worker/reader/reader.h"

enum { MAX_FILES = 16, MAX_WAITING = 8 };
struct fake_env {
    struct pn_env env;
    struct fake_file { char path[400]; char *data; size_t n; int error; uint64_t error_at; } files[MAX_FILES];
    size_t n_files;
    struct pn_io *ios[MAX_WAITING];
    struct pn_work *works[MAX_WAITING];
    size_t n_ios, n_works;
    struct pn_rng rng;
};

static void fake_io(struct pn_env *e, struct pn_io *io) {
    struct fake_env *f = (struct fake_env *)e;
    ck_assert_uint_lt(f->n_ios, MAX_WAITING);
    f->ios[f->n_ios++] = io;
}
static void fake_work(struct pn_env *e, struct pn_work *w) {
    struct fake_env *f = (struct fake_env *)e;
    ck_assert_uint_lt(f->n_works, MAX_WAITING);
    f->works[f->n_works++] = w;
}
static const struct pn_env_ops fake_ops = {.io = fake_io, .work = fake_work};

static inline void fake_init(struct fake_env *f, uint64_t seed) {
    memset(f, 0, sizeof(*f));
    f->env.ops = &fake_ops;
    f->rng.state = seed;
}
static inline void fake_free(struct fake_env *f) {
    ck_assert_uint_eq(f->n_ios + f->n_works, 0);
    for (size_t i = 0; i < f->n_files; i++) free(f->files[i].data);
    f->n_files = 0;
}
static inline struct fake_file *fake_put(struct fake_env *f, const char *path, const void *data, size_t n) {
    ck_assert_uint_lt(f->n_files, MAX_FILES);
    struct fake_file *file = &f->files[f->n_files++];
    snprintf(file->path, sizeof(file->path), "%s", path);
    file->data = malloc(n + 1);
    if (n) memcpy(file->data, data, n);
    file->n = n;
    return file;
}
static inline void fake_put_text(struct fake_env *f, const char *path, const char *text) { fake_put(f, path, text, strlen(text)); }
static inline struct fake_file *fake_put_zst(struct fake_env *f, const char *path, const void *data, size_t n) {
    size_t room = ZSTD_compressBound(n);
    void *packed = malloc(room);
    size_t m = ZSTD_compress(packed, room, data, n, 1);
    struct fake_file *file = fake_put(f, path, packed, m);
    free(packed);
    return file;
}
static inline size_t gzip(const void *data, size_t n, void *out, size_t room) {
    z_stream z = {0};
    deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
    z.next_in = (Bytef *)data;
    z.avail_in = (uInt)n;
    z.next_out = out;
    z.avail_out = (uInt)room;
    ck_assert_int_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateEnd(&z);
    return room - z.avail_out;
}
static inline struct fake_file *fake_put_gz(struct fake_env *f, const char *path, const void *data, size_t n) {
    void *packed = malloc(n + 1000);
    struct fake_file *file = fake_put(f, path, packed, gzip(data, n, packed, n + 1000));
    free(packed);
    return file;
}
/* A real file under the same path; false: it is not there. */
static inline bool fake_put_real(struct fake_env *f, const char *path) {
    FILE *in = fopen(path, "rb");
    if (!in) return false;
    fseek(in, 0, SEEK_END);
    size_t n = (size_t)ftell(in);
    rewind(in);
    char *data = malloc(n + 1);
    bool good = fread(data, 1, n, in) == n;
    fclose(in);
    if (good) fake_put(f, path, data, n);
    free(data);
    return good;
}

static void fake_complete(struct fake_env *f, struct pn_io *io) {
    if (io->op == PN_IO_LIST) {
        size_t n = strlen(io->path), count = 0;
        char **names = malloc((MAX_FILES + 1) * sizeof(char *));
        for (size_t i = 0; i < f->n_files; i++)
            if (strncmp(f->files[i].path, io->path, n) == 0 && f->files[i].path[n] == '/') names[count++] = f->files[i].path + n + 1;
        names[count] = NULL;
        io->names = names;
        io->result = 0;
        return;
    }
    ck_assert_int_eq(io->op, PN_IO_READ);
    io->result = -ENOENT;
    for (size_t i = 0; i < f->n_files; i++) {
        const struct fake_file *file = &f->files[i];
        if (strcmp(file->path, io->path) != 0) continue;
        if (file->error && io->offset + io->n_bytes > file->error_at) {
            io->result = -file->error;
            return;
        }
        size_t left = io->offset < file->n ? file->n - io->offset : 0, n = left < io->n_bytes ? left : io->n_bytes;
        memcpy(io->buffer, file->data + io->offset, n);
        io->result = (int64_t)n;
    }
}
/* One waiting request completes; false: none waits. */
static inline bool fake_step(struct fake_env *f) {
    size_t n = f->n_ios + f->n_works;
    if (n == 0) return false;
    size_t i = (size_t)(pn_rng_next(&f->rng) % n);
    if (i < f->n_ios) {
        struct pn_io *io = f->ios[i];
        f->ios[i] = f->ios[--f->n_ios];
        fake_complete(f, io);
        io->done(io);
    } else {
        struct pn_work *w = f->works[i - f->n_ios];
        f->works[i - f->n_ios] = f->works[--f->n_works];
        w->run(w);
        w->done(w);
    }
    return true;
}

struct answer { bool came; enum pn_result result; const struct pn_raw *raw; struct pn_error err; };
static inline void on_answer(void *owner, enum pn_result result, const struct pn_raw *raw, const struct pn_error *err) {
    struct answer *a = owner;
    ck_assert(!a->came);
    ck_assert((raw != NULL) == (result == PN_OK));
    *a = (struct answer){true, result, raw, {""}};
    if (err) a->err = *err;
}
static inline struct answer next(struct fake_env *f, struct pn_reader *r) {
    struct answer a = {0};
    pn_reader_next(r, on_answer, &a);
    ck_assert(!a.came); /* never from inside the call */
    while (!a.came) ck_assert(fake_step(f));
    return a;
}
static inline void close_reader(struct fake_env *f, struct pn_reader *r) {
    pn_reader_close(r);
    while (fake_step(f)) {}
}
static inline size_t column(const struct pn_raw *raw, const char *name) {
    for (size_t c = 0; c < raw->n_columns; c++)
        if (strcmp(raw->names[c], name) == 0) return c;
    ck_abort_msg("no column %s", name);
    return 0;
}
/* A value as a string of its own; good until sixteen calls later. */
static inline const char *value(const struct pn_raw *raw, size_t row, const char *name) {
    static char texts[16][600];
    static int i;
    size_t cell = column(raw, name) * raw->n_rows + row;
    char *text = texts[i++ % 16];
    snprintf(text, 600, "%.*s", (int)raw->length[cell], raw->text + raw->offset[cell]);
    return text;
}
static inline struct pn_data data_of(enum pn_format format, const char *path) {
    struct pn_data d = {.format = format, .label = "click", .threshold = 0.5, .present = true};
    snprintf(d.path, sizeof(d.path), "%s", path);
    return d;
}
static inline struct pn_reader_options whole(uint32_t batch_size) { return (struct pn_reader_options){.n_producers = 1, .batch_size = batch_size}; }

static inline int run_suite(TCase *c) {
    Suite *s = suite_create("reader");
    tcase_set_timeout(c, 120);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
#endif
