#include "ps/checkpoint.h"
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/json.h"
#include "common/mutant.h"

/* ---- writing ---- */

enum step { MKDIR, CREATE, COLD, WRITE, SYNC, RENAME, SYNC_DIR, REMOVE };

struct pn_checkpoint_writer {
    struct pn_shard *shard;          /* NULL: abandoned */
    struct pn_env *env;
    void (*done)(void *, int64_t, uint64_t, const char *, uint64_t);
    void *owner;
    char dir[480], path[560], part[568];
    struct pn_io io;
    enum step step;
    int64_t result;
    struct pn_digest digest;
    char hex[65];
    uint64_t offset, rows, n_blocks;
    /* what else belongs to the cut, copied when it was taken */
    char *head;
    struct pn_saved_window *windows;
    size_t n_windows, i_window;
    struct pn_shard_producer producers[PN_MAX_PRODUCERS];
    uint32_t n_producers;
    uint64_t audit[PN_SLOTS + 1];
    /* where the file stands */
    enum pn_block_type next;
    uint32_t i_table, n_tables;
    uint8_t *buffer;                 /* a head and a payload */
    /* the second tier's rows of a table, read on a work thread into the buffer */
    struct pn_cold_scan *cold;
    struct pn_work work;
    size_t n_cold, cold_record;
    bool cold_failed, cold_over;     /* over: of table i_table */
};

static void run_step(struct pn_checkpoint_writer *w, enum step step);

static void free_writer(struct pn_checkpoint_writer *w) {
    pn_cold_scan_end(w->cold);
    free(w->head);
    free(w->windows);
    free(w->buffer);
    free(w);
}

static char *head_text(const struct pn_shard *s, uint64_t epoch) {
    struct json_object *o = json_object_new_object(), *tables = json_object_new_array();
    pn_json_add_u64(o, "format", 1);
    pn_json_add_str(o, "job", s->job_id);
    pn_json_add_u64(o, "generation", s->generation);
    pn_json_add_u64(o, "epoch", epoch);
    pn_json_add_u64(o, "term", s->term);
    pn_json_add_u64(o, "n_producers", s->n_producers);
    pn_json_add_u64(o, "first_slot", s->first_slot);
    pn_json_add_u64(o, "last_slot", s->last_slot);
    for (size_t t = 0; t < s->job.n_tables; t++) {
        struct json_object *e = json_object_new_object();
        pn_json_add_str(e, "name", s->job.tables[t].name);
        pn_json_add_u64(e, "dim", s->job.tables[t].dim);
        pn_json_add_u64(e, "record_bytes", pn_table_record_bytes(s->tables[t]));
        pn_json_add_str(e, "storage", pn_codec_names[s->job.tables[t].storage]);
        pn_json_add_bool(e, "explicit", s->job.tables[t].explicit_rows);
        json_object_array_add(tables, e);
    }
    pn_json_add(o, "tables", tables);
    char *text = strdup(pn_json_text(o));
    json_object_put(o);
    return text;
}

#define COLD_NEXT SIZE_MAX
/* Fills the buffer with the next block; returns its padded size, 0 when the file is whole; COLD_NEXT: a block's rows are to be read from the tier first. */
void pn_block_seal(struct pn_block *b, uint8_t *payload) {
    b->crc_payload = pn_crc32c(0, payload, b->n_bytes);
    b->crc_head = pn_crc32c(0, b, 20);
    memset(payload + b->n_bytes, 0, pn_pad8(b->n_bytes) - b->n_bytes);
}

static size_t next_block(struct pn_checkpoint_writer *w) {
    struct pn_block *b = (struct pn_block *)(void *)w->buffer;
    uint8_t *payload = w->buffer + sizeof *b;
    size_t n = 0;
    *b = (struct pn_block){.type = (uint32_t)w->next};
    switch (w->next) {
    case PN_BLOCK_HEAD:
        n = strlen(w->head);
        memcpy(payload, w->head, n);
        w->next = PN_BLOCK_RECORDS;
        break;
    case PN_BLOCK_RECORDS:
        while (w->i_table < w->n_tables) {
            struct pn_table *t = w->shard->tables[w->i_table];
            size_t record = pn_table_record_bytes(t), got = pn_table_scan(t, payload, PN_BLOCK_MAX_BYTES / record);
            if (got == 0 && w->n_cold > 0) { /* they are in the buffer already */
                got = w->n_cold;
                w->n_cold = 0;
            }
            if (got > 0) {
                b->i_table = w->i_table;
                n = got * record;
                w->rows += got;
                break;
            }
            if (!w->cold_over && pn_table_cut_is_cold(t)) return COLD_NEXT;
            w->cold_over = false;
            w->i_table++;
        }
        if (n > 0) break;
        w->next = PN_BLOCK_COUNTS;
        w->i_table = 0;
        return next_block(w);
    case PN_BLOCK_COUNTS:
        for (; w->i_table < w->n_tables; w->i_table++) {
            uint32_t i_slot = 0;
            size_t n_bytes;
            const uint8_t *counts = pn_table_scan_counts(w->shard->tables[w->i_table], &i_slot, &n_bytes);
            if (counts == NULL) continue;
            const uint64_t slot = i_slot;
            memcpy(payload, &slot, 8);
            memcpy(payload + 8, counts, n_bytes);
            b->i_table = w->i_table;
            n = 8 + n_bytes;
            break;
        }
        if (n > 0) break;
        w->next = PN_BLOCK_WINDOWS;
        return next_block(w);
    case PN_BLOCK_WINDOWS: {
        size_t take = w->n_windows - w->i_window, most = PN_BLOCK_MAX_BYTES / sizeof *w->windows;
        if (take > most) take = most;
        if (take == 0) {
            w->next = PN_BLOCK_PRODUCERS;
            return next_block(w);
        }
        n = take * sizeof *w->windows;
        memcpy(payload, w->windows + w->i_window, n);
        w->i_window += take;
        break;
    }
    case PN_BLOCK_PRODUCERS:
        n = w->n_producers * sizeof *w->producers;
        memcpy(payload, w->producers, n);
        w->next = PN_BLOCK_AUDIT;
        break;
    case PN_BLOCK_AUDIT:
        n = sizeof w->audit;
        memcpy(payload, w->audit, n);
        w->next = PN_BLOCK_END;
        break;
    case PN_BLOCK_END: {
        if (w->i_table == UINT32_MAX) return 0; /* written already */
        uint64_t end[2] = {w->rows, w->n_blocks};
        n = sizeof end;
        memcpy(payload, end, n);
        w->i_table = UINT32_MAX;
        break;
    }
    }
    b->n_bytes = n;
    pn_block_seal(b, payload);
    w->n_blocks++;
    return sizeof *b + pn_pad8(n);
}

static void finish(struct pn_checkpoint_writer *w) {
    if (w->shard != NULL) {
        for (size_t t = 0; t < w->shard->job.n_tables; t++) pn_table_cut_abort(w->shard->tables[t]);
        w->done(w->owner, w->result, w->offset, w->hex, w->rows);
    }
    free_writer(w);
}

static void io_done(struct pn_io *io) {
    struct pn_checkpoint_writer *w = io->owner;
    if (w->step == REMOVE) {
        finish(w);
        return;
    }
    if (io->result < 0 || w->shard == NULL) {
        w->result = io->result < 0 ? io->result : -ECANCELED;
        if (w->step == MKDIR || w->step == SYNC_DIR) finish(w);
        else run_step(w, REMOVE);
        return;
    }
    switch (w->step) {
    case MKDIR: run_step(w, CREATE); break;
    case COLD:
    case CREATE: run_step(w, WRITE); break;
    case WRITE:
        w->offset += io->n_bytes;
        run_step(w, WRITE);
        break;
    case SYNC: run_step(w, RENAME); break;
    case RENAME: run_step(w, SYNC_DIR); break;
    case SYNC_DIR:
        w->result = 0;
        finish(w);
        break;
    case REMOVE: break;
    }
}

static void scan_cold(struct pn_work *work) {
    struct pn_checkpoint_writer *w = work->owner;
    uint8_t *records = w->buffer + sizeof(struct pn_block);
    w->n_cold = pn_cold_scan_next(w->cold, records, PN_BLOCK_MAX_BYTES / w->cold_record, &w->cold_failed);
}
static void cold_scanned(struct pn_work *work) {
    struct pn_checkpoint_writer *w = work->owner;
    if (w->cold_failed || w->shard == NULL) {
        w->result = w->cold_failed ? -EIO : -ECANCELED;
        run_step(w, REMOVE);
        return;
    }
    if (w->n_cold == 0) {
        pn_cold_scan_end(w->cold);
        w->cold = NULL;
        w->cold_over = true;
    } else {
        w->n_cold = pn_table_cold_keep(w->shard->tables[w->i_table], w->buffer + sizeof(struct pn_block), w->n_cold);
        if (w->n_cold == 0) { /* all of them were in memory */
            pn_work_start(w->env, &w->work);
            return;
        }
    }
    run_step(w, WRITE);
}
static void read_cold(struct pn_checkpoint_writer *w) {
    struct pn_table *t = w->shard->tables[w->i_table];
    if (w->cold == NULL) w->cold = pn_table_cold_scan(t);
    if (w->cold == NULL) {
        w->result = -ENOMEM;
        run_step(w, REMOVE);
        return;
    }
    w->cold_record = pn_table_record_bytes(t);
    w->work = (struct pn_work){.run = scan_cold, .done = cold_scanned, .owner = w};
    pn_work_start(w->env, &w->work);
}

static void run_step(struct pn_checkpoint_writer *w, enum step step) {
    size_t n = 0;
    if (step == WRITE) {
        n = next_block(w);
        if (n == COLD_NEXT) {
            w->step = COLD;
            read_cold(w);
            return;
        }
        if (n == 0) {
            pn_digest_hex(&w->digest, w->hex);
#if PN_MUTANT == 3 /* rename without fsync */
            step = RENAME;
#else
            step = SYNC;
#endif
        } else {
            pn_digest_add(&w->digest, w->buffer, n);
        }
    }
    w->step = step;
    w->io = (struct pn_io){.path = w->part, .done = io_done, .owner = w};
    switch (step) {
    case MKDIR:
        w->io.op = PN_IO_MKDIR;
        w->io.path = w->dir;
        break;
    case COLD:
    case CREATE: w->io.op = PN_IO_CREATE; break;
    case WRITE:
        w->io.op = PN_IO_WRITE;
        w->io.offset = w->offset;
        w->io.buffer = w->buffer;
        w->io.n_bytes = n;
        break;
    case SYNC: w->io.op = PN_IO_SYNC; break;
    case RENAME:
        w->io.op = PN_IO_RENAME;
        w->io.path2 = w->path;
        break;
    case SYNC_DIR:
        w->io.op = PN_IO_SYNC_DIR;
        w->io.path = w->dir;
        break;
    case REMOVE: w->io.op = PN_IO_REMOVE; break;
    }
    pn_io_start(w->env, &w->io);
}

struct pn_checkpoint_writer *pn_checkpoint_write(struct pn_shard *s, const char *dir, const char *name, uint64_t epoch,
                                                 void (*done)(void *, int64_t, uint64_t, const char *, uint64_t), void *owner) {
#if PN_MUTANT != 9 /* a cut in the middle of a push: some of its rows are in the file, and it is not marked */
    pn_shard_settle(s);
    if (s->broken) return NULL;
#endif
    struct pn_checkpoint_writer *w = calloc(1, sizeof *w);
    if (w == NULL) return NULL;
    w->shard = s;
    w->env = s->env;
    w->done = done;
    w->owner = owner;
    snprintf(w->dir, sizeof w->dir, "%s", dir);
    snprintf(w->path, sizeof w->path, "%s/%s.ps", dir, name);
    snprintf(w->part, sizeof w->part, "%s.part", w->path);
    w->head = head_text(s, epoch);
    w->buffer = malloc(sizeof(struct pn_block) + PN_BLOCK_MAX_BYTES + 8);
    size_t all = (size_t)s->n_producers * PN_SLOTS;
    for (size_t i = 0; i < all; i++) w->n_windows += s->windows[i].highest != 0;
    w->windows = malloc((w->n_windows + 1) * sizeof *w->windows);
    bool ok = w->head != NULL && w->buffer != NULL && w->windows != NULL && strlen(dir) < sizeof w->dir;
    size_t n = 0;
    for (size_t i = 0; ok && i < all; i++)
        if (s->windows[i].highest != 0) {
            w->windows[n] = (struct pn_saved_window){(uint32_t)(i / PN_SLOTS), (uint32_t)(i % PN_SLOTS), s->windows[i]};
#if PN_MUTANT == 8 /* only the last entry of the window is saved */
            w->windows[n].window.bits = 1;
#endif
            n++;
        }
#if PN_MUTANT == 1 /* the window is not saved */
    w->n_windows = 0;
#endif
    memcpy(w->producers, s->producers, sizeof w->producers);
    w->n_producers = s->n_producers;
    memcpy(w->audit, s->audit, sizeof s->audit);
    w->audit[PN_SLOTS] = s->sync_step;
    w->n_tables = (uint32_t)s->job.n_tables;
    w->next = PN_BLOCK_HEAD;
    pn_digest_start(&w->digest);
    size_t cut = 0;
    while (ok && cut < s->job.n_tables) {
        ok = pn_table_cut(s->tables[cut]);
        cut += ok;
    }
    if (!ok) {
        while (cut > 0) pn_table_cut_abort(s->tables[--cut]);
        free_writer(w);
        return NULL;
    }
    run_step(w, MKDIR);
    return w;
}

void pn_checkpoint_abandon(struct pn_checkpoint_writer *w) {
    if (w == NULL || w->shard == NULL) return;
    for (size_t t = 0; t < w->shard->job.n_tables; t++) pn_table_cut_abort(w->shard->tables[t]);
    w->shard = NULL;
}

/* ---- reading ---- */

static bool read_head(struct pn_checkpoint_head *h, const void *payload, size_t n, struct pn_error *err) {
    struct json_object *o = pn_json_parse(payload, n, err);
    memset(h, 0, sizeof *h);
    bool ok = o != NULL && pn_json_u64(o, "format", 0) == 1;
    struct json_object *tables = pn_json_get(o, "tables");
    uint64_t producers = pn_json_u64(o, "n_producers", 0), first = pn_json_u64(o, "first_slot", PN_SLOTS), last = pn_json_u64(o, "last_slot", PN_SLOTS);
    ok = ok && pn_json_length(tables) <= PN_MAX_TABLES && producers >= 1 && producers <= PN_MAX_PRODUCERS && first <= last && last < PN_SLOTS;
    if (ok) {
        snprintf(h->job_id, sizeof h->job_id, "%s", pn_json_str(o, "job", ""));
        h->epoch = pn_json_u64(o, "epoch", 0);
        h->n_producers = (uint32_t)producers;
        h->first_slot = (uint32_t)first;
        h->last_slot = (uint32_t)last;
        h->n_tables = (uint32_t)pn_json_length(tables);
        for (uint32_t t = 0; t < h->n_tables && ok; t++) {
            uint64_t bytes = pn_json_u64(pn_json_at(tables, t), "record_bytes", 0), dim = pn_json_u64(pn_json_at(tables, t), "dim", 0);
            const char *storage = pn_json_str(pn_json_at(tables, t), "storage", "float32");
            h->storage[t] = PN_CODECS;
            for (int c = 0; c < PN_CODECS; c++)
                if (strcmp(storage, pn_codec_names[c]) == 0) h->storage[t] = (enum pn_codec)c;
            ok = bytes >= 16 && bytes <= PN_BLOCK_MAX_BYTES && dim >= 1 && dim <= PN_BLOCK_MAX_BYTES && h->storage[t] != PN_CODECS &&
                 pn_codec_row_bytes(h->storage[t], dim) + 16 <= bytes;
            h->record_bytes[t] = (uint32_t)bytes;
            h->dim[t] = (uint32_t)dim;
            h->explicit_rows[t] = pn_json_bool(pn_json_at(tables, t), "explicit", false);
        }
    }
    if (o != NULL) json_object_put(o);
    return ok;
}

/* The next block at *at; NULL when it does not hold together. */
static const struct pn_block *block_at(const uint8_t *image, size_t n_bytes, size_t *at, const void **payload) {
    if (n_bytes - *at < sizeof(struct pn_block)) return NULL;
    const struct pn_block *b = (const struct pn_block *)(const void *)(image + *at);
    if (pn_crc32c(0, b, 20) != b->crc_head || b->n_bytes > PN_BLOCK_MAX_BYTES || pn_pad8(b->n_bytes) > n_bytes - *at - sizeof *b) return NULL;
    *payload = image + *at + sizeof *b;
    if (pn_crc32c(0, *payload, b->n_bytes) != b->crc_payload) return NULL;
    *at += sizeof *b + pn_pad8(b->n_bytes);
    return b;
}

static bool block_fits(const struct pn_checkpoint_head *h, const struct pn_block *b) {
    switch (b->type) {
    case PN_BLOCK_RECORDS: return b->i_table < h->n_tables && b->n_bytes % h->record_bytes[b->i_table] == 0;
    case PN_BLOCK_COUNTS: return b->i_table < h->n_tables && b->n_bytes > 8;
    case PN_BLOCK_WINDOWS: return b->n_bytes % sizeof(struct pn_saved_window) == 0;
    case PN_BLOCK_PRODUCERS: return b->n_bytes == h->n_producers * sizeof(struct pn_shard_producer);
    case PN_BLOCK_AUDIT: return b->n_bytes == (PN_SLOTS + 1) * sizeof(uint64_t);
    case PN_BLOCK_END: return b->n_bytes == 16;
    default: return false;
    }
}

enum pn_result pn_checkpoint_read(const void *image, size_t n_bytes, const char *digest, struct pn_checkpoint_head *head,
                                  enum pn_result (*visit)(void *, const struct pn_checkpoint_head *, const struct pn_block *, const void *), void *ctx,
                                  struct pn_error *err) {
    if (digest != NULL) {
        struct pn_digest d;
        char hex[65];
        pn_digest_start(&d);
        pn_digest_add(&d, image, n_bytes);
        pn_digest_hex(&d, hex);
        if (strcmp(hex, digest) != 0) return pn_fail(err, PN_CORRUPT, "its digest is %.16s..., the manifest says %.16s...", hex, digest);
    }
    for (int pass = 0; pass < 2; pass++) { /* first all is checked, then all is taken */
        uint64_t rows = 0, n_blocks = 0, end[2] = {0};
        bool ended = false;
        for (size_t at = 0; at < n_bytes; n_blocks++) {
            const void *payload;
            size_t begin = at;
            const struct pn_block *b = block_at(image, n_bytes, &at, &payload);
            if (b == NULL || ended) return pn_fail(err, PN_CORRUPT, "block %llu at byte %zu is damaged", (unsigned long long)n_blocks, begin);
            bool ok = n_blocks == 0 ? b->type == PN_BLOCK_HEAD && read_head(head, payload, b->n_bytes, NULL) : block_fits(head, b);
            if (!ok) return pn_fail(err, PN_CORRUPT, "block %llu at byte %zu does not fit its place", (unsigned long long)n_blocks, begin);
            if (b->type == PN_BLOCK_RECORDS) rows += b->n_bytes / head->record_bytes[b->i_table];
            if (b->type == PN_BLOCK_END) {
                memcpy(end, payload, sizeof end);
                ended = true;
                if (end[1] != n_blocks) return pn_fail(err, PN_CORRUPT, "%llu blocks are there, %llu were written", (unsigned long long)n_blocks, (unsigned long long)end[1]);
            }
            if (pass == 1 && b->type != PN_BLOCK_HEAD) {
                enum pn_result r = visit(ctx, head, b, payload);
                if (r != PN_OK) return pn_fail(err, r, "block %llu cannot be taken (%s)", (unsigned long long)n_blocks, pn_result_name(r));
            }
        }
        if (!ended || end[0] != rows) return pn_fail(err, PN_CORRUPT, "it is cut short: %llu rows and no end", (unsigned long long)rows);
    }
    return PN_OK;
}

static enum pn_result take(void *ctx, const struct pn_checkpoint_head *h, const struct pn_block *b, const void *payload) {
    struct pn_shard *s = ctx;
    if (b->type == PN_BLOCK_RECORDS) {
        if (b->i_table >= s->job.n_tables || h->record_bytes[b->i_table] != pn_table_record_bytes(s->tables[b->i_table])) return PN_CORRUPT;
        const size_t record = h->record_bytes[b->i_table], n = b->n_bytes / record;
        for (size_t i = 0; i < n; i++) {
            const uint8_t *r = (const uint8_t *)payload + i * record;
            uint64_t key;
            memcpy(&key, r, 8);
            if (!pn_shard_owns(s, key) || pn_table_denies(s->tables[b->i_table], key)) continue;
            enum pn_result e = pn_table_restore(s->tables[b->i_table], r, 1);
            if (e != PN_OK) return e;
        }
    } else if (b->type == PN_BLOCK_COUNTS) {
        uint64_t slot;
        memcpy(&slot, payload, 8);
        if (b->i_table >= s->job.n_tables || slot >= PN_SLOTS) return PN_CORRUPT;
        if (slot >= s->first_slot && slot <= s->last_slot) return pn_table_restore_counts(s->tables[b->i_table], (uint32_t)slot, (const uint8_t *)payload + 8, b->n_bytes - 8);
    } else if (b->type == PN_BLOCK_WINDOWS) {
        const struct pn_saved_window *w = payload;
        for (size_t i = 0; i < b->n_bytes / sizeof *w; i++) {
            if (w[i].producer >= s->n_producers || w[i].slot >= PN_SLOTS) return PN_CORRUPT;
            if (w[i].slot >= s->first_slot && w[i].slot <= s->last_slot) s->windows[w[i].producer * PN_SLOTS + w[i].slot] = w[i].window;
        }
    } else if (b->type == PN_BLOCK_PRODUCERS) {
        const struct pn_shard_producer *p = payload;
        if (h->n_producers != s->n_producers) return PN_CORRUPT;
        /* While producers run steps again, shards may stand at different steps; what all have reached is the least of the files. The windows
         * say exactly, slot by slot, what is in. */
        for (uint32_t i = 0; i < s->n_producers; i++) {
            struct pn_shard_producer *mine = &s->producers[i];
            if (p[i].clock > mine->clock) mine->clock = p[i].clock;
            if (p[i].step > mine->step) mine->step = p[i].step;
            if (p[i].incarnation > mine->incarnation) mine->incarnation = p[i].incarnation;
            mine->finished = (s->n_files == 0 || mine->finished) && p[i].finished;
        }
    } else if (b->type == PN_BLOCK_AUDIT) {
        const uint64_t *a = payload;
        for (uint32_t slot = h->first_slot; slot <= h->last_slot; slot++)
            if (slot >= s->first_slot && slot <= s->last_slot) s->audit[slot] = a[slot];
        if (s->n_files++ == 0 || a[PN_SLOTS] < s->sync_step) s->sync_step = a[PN_SLOTS];
    }
    return PN_OK;
}

enum pn_result pn_checkpoint_restore(struct pn_shard *s, const void *image, size_t n_bytes, const char *digest, struct pn_error *err) {
    struct pn_checkpoint_head head;
    return pn_checkpoint_read(image, n_bytes, digest, &head, take, s, err);
}
