#include "ps/scrub.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/file.h"
#include "ps/checkpoint.h"

/* ---- the copy ---- */

static enum pn_result look(void *ctx, const struct pn_checkpoint_head *h, const struct pn_block *b, const void *payload) {
    (void)ctx, (void)h, (void)b, (void)payload;
    return PN_OK;
}

static bool named(uint32_t table, uint64_t key, const uint32_t *tables, const uint64_t *keys, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (keys[i] == key && tables[i] == table) return true;
    return false;
}

/* A block at *at of out: head, payload, padding. */
static void put_block(uint8_t *out, size_t *at, uint32_t type, uint32_t i_table, const void *payload, size_t n) {
    struct pn_block b = {.type = type, .i_table = i_table, .n_bytes = n};
    memmove(out + *at + sizeof b, payload, n);
    pn_block_seal(&b, out + *at + sizeof b);
    memcpy(out + *at, &b, sizeof b);
    *at += sizeof b + pn_pad8(n);
}

enum pn_result pn_scrub_image(const void *image, size_t n_bytes, const char *digest, const uint32_t *tables, const uint64_t *keys, size_t n, void **out, size_t *out_bytes, char *hex,
                              uint64_t *rows, uint64_t *removed, struct pn_error *err) {
    struct pn_checkpoint_head head;
    *rows = *removed = 0;
    enum pn_result r = pn_checkpoint_read(image, n_bytes, digest, &head, look, NULL, err); /* every block is whole from here on */
    if (r != PN_OK) return r;
    uint8_t *to = malloc(n_bytes + 1), *kept = malloc(PN_BLOCK_MAX_BYTES);
    if (to == NULL || kept == NULL) {
        free(to);
        free(kept);
        return pn_fail(err, PN_NO_MEMORY, "no memory for a copy of %zu bytes", n_bytes);
    }
    size_t at = 0;
    uint64_t n_blocks = 0;
    for (size_t from = 0; from < n_bytes;) {
        struct pn_block b;
        memcpy(&b, (const uint8_t *)image + from, sizeof b);
        const uint8_t *payload = (const uint8_t *)image + from + sizeof b;
        from += sizeof b + pn_pad8(b.n_bytes);
        if (b.type == PN_BLOCK_END) {
            const uint64_t end[2] = {*rows, n_blocks};
            put_block(to, &at, b.type, b.i_table, end, sizeof end);
            continue;
        }
        size_t bytes = b.n_bytes;
        if (b.type == PN_BLOCK_RECORDS) {
            const size_t record = head.record_bytes[b.i_table];
            bytes = 0;
            for (size_t i = 0; i < b.n_bytes; i += record) {
                uint64_t key;
                memcpy(&key, payload + i, sizeof key);
                if (named(b.i_table, key, tables, keys, n)) {
                    ++*removed;
                    continue;
                }
                memcpy(kept + bytes, payload + i, record);
                bytes += record;
            }
            *rows += bytes / record;
            if (bytes == 0 && b.n_bytes > 0) continue;
            payload = kept;
        }
        put_block(to, &at, b.type, b.i_table, payload, bytes);
        n_blocks++;
    }
    free(kept);
    struct pn_digest d;
    pn_digest_start(&d);
    pn_digest_add(&d, to, at);
    pn_digest_hex(&d, hex);
    *out = to;
    *out_bytes = at;
    return PN_OK;
}

/* ---- files ---- */

struct pn_scrub {
    struct pn_env *env;
    void (*changed)(void *);
    void *owner;
    bool abandoned;
    uint64_t task;
    char from[480], to[480], path[560];
    struct json_object *files, *written;
    size_t i_file, n_keys;
    uint32_t *tables;
    uint64_t *keys;
    enum { WRITING, WRITTEN, FAILED } state;
    enum pn_result code;
    char error[300];
    struct pn_load load;
    struct pn_work work;
    struct pn_save save;
    struct pn_io mkdir;
    /* one file's copy, on a work thread */
    enum pn_result result;
    struct pn_error why;
    void *image;
    size_t n_image;
    uint64_t rows, removed;
    char digest[65];
};

static void free_scrub(struct pn_scrub *p) {
    free(p->load.data);
    free(p->image);
    free(p->tables);
    free(p->keys);
    json_object_put(p->files);
    json_object_put(p->written);
    free(p);
}

/* Every callback begins so: true when nobody wants the rest. */
static bool gone(struct pn_scrub *p) {
    if (!p->abandoned) return false;
    free_scrub(p);
    return true;
}

static void fail(struct pn_scrub *p, enum pn_result code, const char *what, const char *why) {
    p->state = FAILED;
    p->code = code;
    snprintf(p->error, sizeof p->error, "%s: %s", what, why);
    pn_log(p->env, PN_WARN, "rows are not taken out of a checkpoint: %s", p->error);
    p->changed(p->owner);
}

static const char *name_of(const struct pn_scrub *p) { return pn_json_str(pn_json_at(p->files, p->i_file), "name", "?"); }
static void next_file(struct pn_scrub *p);

static void saved(struct pn_save *s) {
    struct pn_scrub *p = s->owner;
    if (gone(p)) return;
    if (s->result < 0) {
        fail(p, PN_IO, s->path, strerror((int)-s->result));
        return;
    }
    struct json_object *f = json_object_new_object();
    pn_json_add_str(f, "name", name_of(p));
    pn_json_add_u64(f, "bytes", p->n_image);
    pn_json_add_str(f, "digest", p->digest);
    pn_json_add_u64(f, "rows", p->rows);
    pn_json_add_u64(f, "removed", p->removed);
    json_object_array_add(p->written, f);
    free(p->image);
    p->image = NULL;
    p->i_file++;
    next_file(p);
}

static void copy(struct pn_work *w) {
    struct pn_scrub *p = w->owner;
    p->result = pn_scrub_image(p->load.data, p->load.n_bytes, pn_json_str(pn_json_at(p->files, p->i_file), "digest", ""), p->tables, p->keys, p->n_keys, &p->image, &p->n_image, p->digest,
                               &p->rows, &p->removed, &p->why);
}

static void copied(struct pn_work *w) {
    struct pn_scrub *p = w->owner;
    if (gone(p)) return;
    free(p->load.data);
    p->load.data = NULL;
    if (p->result != PN_OK) {
        fail(p, p->result, p->load.path, p->why.text);
        return;
    }
    snprintf(p->path, sizeof p->path, "%s/%s", p->to, name_of(p));
    p->save.done = saved;
    p->save.owner = p;
    pn_save_start(&p->save, p->env, p->path, p->image, p->n_image);
}

static void loaded(struct pn_load *l) {
    struct pn_scrub *p = l->owner;
    if (gone(p)) return;
    if (l->result < 0) {
        fail(p, l->result == -ENOENT ? PN_CORRUPT : PN_IO, l->path, strerror((int)-l->result));
        return;
    }
    p->work = (struct pn_work){.run = copy, .done = copied, .owner = p};
    pn_work_start(p->env, &p->work);
}

static void next_file(struct pn_scrub *p) {
    if (pn_json_at(p->files, p->i_file) == NULL) {
        p->state = WRITTEN;
        p->changed(p->owner);
        return;
    }
    snprintf(p->path, sizeof p->path, "%s/%s", p->from, name_of(p));
    p->load.done = loaded;
    p->load.owner = p;
    pn_load_start(&p->load, p->env, p->path, SIZE_MAX / 2);
}

static void folder_made(struct pn_io *io) {
    struct pn_scrub *p = io->owner;
    if (gone(p)) return;
    if (io->result < 0) fail(p, PN_IO, p->to, strerror((int)-io->result));
    else next_file(p);
}

bool pn_scrub_keys(struct json_object *list, uint32_t **tables, uint64_t **keys, size_t *n) {
    *n = pn_json_length(list);
    *tables = malloc((*n + 1) * sizeof **tables);
    *keys = malloc((*n + 1) * sizeof **keys);
    for (size_t i = 0; *tables != NULL && *keys != NULL && i < *n; i++) {
        const uint64_t table = json_object_get_uint64(pn_json_at(pn_json_at(list, i), 0));
        (*tables)[i] = table < UINT32_MAX ? (uint32_t)table : UINT32_MAX;
        (*keys)[i] = json_object_get_uint64(pn_json_at(pn_json_at(list, i), 1));
    }
    return *tables != NULL && *keys != NULL;
}

struct pn_scrub *pn_scrub_start(struct pn_env *env, struct json_object *plan, void (*changed)(void *), void *owner) {
    struct pn_scrub *p = calloc(1, sizeof *p);
    if (p == NULL) return NULL;
    if (!pn_scrub_keys(pn_json_get(plan, "keys"), &p->tables, &p->keys, &p->n_keys)) {
        free_scrub(p);
        return NULL;
    }
    p->env = env;
    p->changed = changed;
    p->owner = owner;
    p->task = pn_json_u64(plan, "task", 0);
    snprintf(p->from, sizeof p->from, "%s", pn_json_str(plan, "from", ""));
    snprintf(p->to, sizeof p->to, "%s", pn_json_str(plan, "to", ""));
    p->files = json_object_get(pn_json_get(plan, "files"));
    p->written = json_object_new_array();
    p->mkdir = (struct pn_io){.op = PN_IO_MKDIR, .path = p->to, .done = folder_made, .owner = p};
    pn_io_start(env, &p->mkdir);
    return p;
}

uint64_t pn_scrub_task(const struct pn_scrub *p) { return p->task; }

struct json_object *pn_scrub_state(const struct pn_scrub *p) {
    static const char *const states[] = {"writing", "written", "failed"};
    struct json_object *o = json_object_new_object();
    pn_json_add_u64(o, "task", p->task);
    pn_json_add_str(o, "state", states[p->state]);
    if (p->state == FAILED) pn_json_add_str(o, "code", pn_result_name(p->code));
    if (p->state == FAILED) pn_json_add_str(o, "error", p->error);
    pn_json_add(o, "files", json_object_get(p->written));
    return o;
}

void pn_scrub_abandon(struct pn_scrub *p) {
    p->abandoned = true;
    if (p->state != WRITING) free_scrub(p); /* nothing is in flight any more */
}
