#include "ps/publish.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/file.h"
#include "ps/checkpoint.h"
#include "snapshot/snapshot.h"

struct pn_publish {
    struct pn_env *env;
    void (*changed)(void *);
    void *owner;                     /* NULL: abandoned */
    bool abandoned;
    uint64_t version;
    int storage;
    char dir[400], checkpoint_dir[400], path[520];
    struct json_object *names, *written;
    size_t i_file;
    enum { WRITING, WRITTEN, FAILED } state;
    char error[300];
    struct pn_load load;
    struct pn_work work;
    struct pn_save save;
    struct pn_io mkdir;
    /* one file's conversion, on a work thread */
    struct pn_segment_writer *segment;
    enum pn_result result;
    struct pn_error why;
    void *image, *dense;
    size_t image_bytes, dense_bytes, dense_room;
    uint64_t n_dense, rows;
    uint32_t dense_dim;
    char digest[65];
};

static void next_file(struct pn_publish *p);

static void free_publish(struct pn_publish *p) {
    free(p->load.data);
    free(p->image);
    free(p->dense);
    if (p->segment != NULL) pn_segment_abandon(p->segment);
    json_object_put(p->names);
    json_object_put(p->written);
    free(p);
}

/* Every callback begins so: true when nobody wants the rest. */
static bool gone(struct pn_publish *p) {
    if (!p->abandoned) return false;
    free_publish(p);
    return true;
}

static void fail(struct pn_publish *p, const char *what, const char *why) {
    p->state = FAILED;
    snprintf(p->error, sizeof p->error, "%s: %s", what, why);
    pn_log(p->env, PN_WARN, "version %llu is not published: %s", (unsigned long long)p->version, p->error);
    p->changed(p->owner);
}

/* ---- on the work thread ---- */
static enum pn_result add_dense(struct pn_publish *p, uint64_t key, const float *row, uint32_t dim) {
    size_t entry = 8 + dim * 4;
    if (p->dense_bytes + entry > p->dense_room) {
        size_t room = (p->dense_room + entry) * 2;
        void *grown = realloc(p->dense, room);
        if (grown == NULL) return PN_NO_MEMORY;
        p->dense = grown;
        p->dense_room = room;
    }
    memcpy((uint8_t *)p->dense + p->dense_bytes, &key, 8);
    memcpy((uint8_t *)p->dense + p->dense_bytes + 8, row, dim * 4);
    p->dense_bytes += entry;
    p->dense_dim = dim;
    p->n_dense++;
    return PN_OK;
}

static enum pn_result take(void *ctx, const struct pn_checkpoint_head *h, const struct pn_block *b, const void *payload) {
    struct pn_publish *p = ctx;
    if (b->type != PN_BLOCK_RECORDS) return PN_OK;
    const size_t record = h->record_bytes[b->i_table], n = b->n_bytes / record, dim = h->dim[b->i_table];
    const enum pn_codec storage = h->storage[b->i_table];
    float *decoded = storage != PN_CODEC_FLOAT32 ? malloc(dim * sizeof *decoded) : NULL;
    enum pn_result e = storage != PN_CODEC_FLOAT32 && decoded == NULL ? PN_NO_MEMORY : PN_OK;
    for (size_t i = 0; i < n && e == PN_OK; i++) {
        const uint8_t *r = (const uint8_t *)payload + i * record;
        uint64_t key;
        memcpy(&key, r, 8);
        const float *row = decoded != NULL ? decoded : (const float *)(const void *)(r + 16);
        if (decoded != NULL) pn_codec_decode(storage, r + 16, 1, dim, decoded);
        e = h->explicit_rows[b->i_table] ? add_dense(p, key, row, (uint32_t)dim) : pn_segment_add(p->segment, b->i_table, (uint32_t)dim, &key, row, 1);
        p->rows += e == PN_OK && !h->explicit_rows[b->i_table];
    }
    free(decoded);
    return e;
}

static void convert(struct pn_work *w) {
    struct pn_publish *p = w->owner;
    struct pn_checkpoint_head head;
    p->n_dense = p->rows = 0;
    p->dense_bytes = 0;
    p->segment = pn_segment_start(p->storage);
    p->result = p->segment == NULL ? PN_NO_MEMORY : pn_checkpoint_read(p->load.data, p->load.n_bytes, NULL, &head, take, p, &p->why);
    if (p->result != PN_OK) return;
    struct pn_segment_writer *s = p->segment;
    p->segment = NULL;
    p->result = pn_segment_finish(s, &p->image, &p->image_bytes, p->digest);
}

/* ---- on the core's thread ---- */
static void dense_saved(struct pn_save *s) {
    struct pn_publish *p = s->owner;
    if (gone(p)) return;
    if (s->result < 0) {
        fail(p, s->path, strerror((int)-s->result));
        return;
    }
    struct json_object *f = json_object_new_object();
    char name[32];
    snprintf(name, sizeof name, "%s.seg", strrchr(p->path, '/') + 1);
    name[strlen(name) - strlen(".dense.seg")] = '\0'; /* NNN.dense -> NNN */
    strcat(name, ".seg");
    pn_json_add_str(f, "name", name);
    pn_json_add_u64(f, "bytes", p->image_bytes);
    pn_json_add_str(f, "digest", p->digest);
    pn_json_add_u64(f, "rows", p->rows);
    json_object_array_add(p->written, f);
    free(p->image);
    free(p->dense);
    free(p->load.data);
    p->image = p->dense = NULL;
    p->load.data = NULL;
    p->dense_room = 0;
    p->i_file++;
    next_file(p);
}

static void segment_saved(struct pn_save *s) {
    struct pn_publish *p = s->owner;
    if (gone(p)) return;
    if (s->result < 0) {
        fail(p, s->path, strerror((int)-s->result));
        return;
    }
    /* beside it: u64 n, u64 dim, then n times key and row */
    size_t n = 16 + p->dense_bytes;
    uint8_t *image = malloc(n);
    if (image == NULL) {
        fail(p, s->path, "no memory");
        return;
    }
    uint64_t dim = p->dense_dim;
    memcpy(image, &p->n_dense, 8);
    memcpy(image + 8, &dim, 8);
    if (p->dense_bytes > 0) memcpy(image + 16, p->dense, p->dense_bytes);
    free(p->dense);
    p->dense = image;
    p->dense_bytes = n;
    snprintf(strrchr(p->path, '.'), 8, ".dense");
    p->save.done = dense_saved;
    p->save.owner = p;
    pn_save_start(&p->save, p->env, p->path, p->dense, p->dense_bytes);
}

static void converted(struct pn_work *w) {
    struct pn_publish *p = w->owner;
    if (gone(p)) return;
    if (p->result != PN_OK) {
        fail(p, p->load.path, p->why.text[0] ? p->why.text : pn_result_name(p->result));
        return;
    }
    const char *number = pn_json_str(pn_json_at(p->names, p->i_file), "number", "000");
    snprintf(p->path, sizeof p->path, "%s/%s.seg", p->dir, number);
    p->save.done = segment_saved;
    p->save.owner = p;
    pn_save_start(&p->save, p->env, p->path, p->image, p->image_bytes);
}

static void loaded(struct pn_load *l) {
    struct pn_publish *p = l->owner;
    if (gone(p)) return;
    if (l->result < 0) {
        fail(p, l->path, strerror((int)-l->result));
        return;
    }
    p->work = (struct pn_work){.run = convert, .done = converted, .owner = p};
    pn_work_start(p->env, &p->work);
}

static void next_file(struct pn_publish *p) {
    struct json_object *f = pn_json_at(p->names, p->i_file);
    if (f == NULL) {
        p->state = WRITTEN;
        p->changed(p->owner);
        return;
    }
    snprintf(p->path, sizeof p->path, "%s/%s", p->checkpoint_dir, pn_json_str(f, "name", "?"));
    p->load.done = loaded;
    p->load.owner = p;
    pn_load_start(&p->load, p->env, p->path, SIZE_MAX / 2);
}

static void folder_made(struct pn_io *io) {
    struct pn_publish *p = io->owner;
    if (gone(p)) return;
    if (io->result < 0) fail(p, p->dir, strerror((int)-io->result));
    else next_file(p);
}

struct pn_publish *pn_publish_start(struct pn_env *env, struct json_object *plan, void (*changed)(void *), void *owner) {
    struct pn_publish *p = calloc(1, sizeof *p);
    if (p == NULL) return NULL;
    p->env = env;
    p->changed = changed;
    p->owner = owner;
    p->version = pn_json_u64(plan, "version", 0);
    const char *storage = pn_json_str(plan, "storage", "float32");
    p->storage = strcmp(storage, "int8") == 0 ? PN_STORE_INT8 : strcmp(storage, "float16") == 0 ? PN_STORE_FLOAT16 : PN_STORE_FLOAT32;
    snprintf(p->dir, sizeof p->dir, "%s", pn_json_str(plan, "dir", ""));
    snprintf(p->checkpoint_dir, sizeof p->checkpoint_dir, "%s", pn_json_str(plan, "checkpoint_dir", ""));
    p->names = json_object_get(pn_json_get(plan, "files"));
    p->written = json_object_new_array();
    p->mkdir = (struct pn_io){.op = PN_IO_MKDIR, .path = p->dir, .done = folder_made, .owner = p};
    pn_io_start(env, &p->mkdir);
    return p;
}

uint64_t pn_publish_version(const struct pn_publish *p) { return p->version; }

struct json_object *pn_publish_state(const struct pn_publish *p) {
    static const char *const states[] = {"writing", "written", "failed"};
    struct json_object *o = json_object_new_object();
    pn_json_add_u64(o, "version", p->version);
    pn_json_add_str(o, "state", states[p->state]);
    if (p->state == FAILED) pn_json_add_str(o, "error", p->error);
    pn_json_add(o, "files", json_object_get(p->written));
    return o;
}

void pn_publish_abandon(struct pn_publish *p) {
    p->abandoned = true;
    if (p->state != WRITING) free_publish(p); /* nothing is in flight any more */
}
