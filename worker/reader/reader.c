/* The core's side of the reader: finds and reads the files, one piece ahead of the work that eats them.
 *
 *   next -> work (advance) -> a batch, the end or an error: done()
 *                          -> hungry: hand over the piece read ahead (wait for it if need be), read the next, work again
 *                          -> this file is over: open the next one, work again
 * A file that is not there is looked for with the endings .zst and .gz. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "worker/reader/internal.h"

static const char *const endings[] = {"", ".zst", ".gz"};
enum { N_ENDINGS = sizeof(endings) / sizeof(endings[0]) };

static void on_work(struct pn_work *);
static void on_io(struct pn_io *);

static void run(struct pn_work *w) {
    struct pn_reader *r = w->owner;
    r->advance = pn_reader_advance(r);
}

static void start_work(struct pn_reader *r) {
    if (r->topic != NULL) pn_topic_rows_prepare(r);
    r->work_busy = true;
    r->work = (struct pn_work){.run = run, .done = on_work, .owner = r};
    pn_work_start(r->env, &r->work);
}

static void start_read(struct pn_reader *r) {
    r->io_busy = true;
    r->io = (struct pn_io){.op = PN_IO_READ, .path = r->path, .offset = r->offset, .buffer = r->piece[r->i_reading],
                           .n_bytes = PN_READ_BYTES, .done = on_io, .owner = r};
    pn_io_start(r->env, &r->io);
}

static void start_file(struct pn_reader *r) {
    snprintf(r->path, sizeof(r->path), "%s%s", r->base, endings[r->i_ending]);
    r->offset = 0;
    r->file_ended = r->piece_ready = false;
    r->waiting = true;
    start_read(r);
}

/* The last thing a handler does: the callee may close the reader. */
static void deliver(struct pn_reader *r, enum pn_result result) {
    void (*done)(void *, enum pn_result, const struct pn_raw *, const struct pn_error *) = r->done;
    r->done = NULL;
    done(r->owner, result, result == PN_OK ? &r->batch.raw : NULL, result == PN_OK || result == PN_NOT_FOUND ? NULL : &r->err);
}

static void fail_file(struct pn_reader *r) {
    r->waiting = false;
    deliver(r, r->result);
}

static bool has_stream(struct pn_reader *r) {
    if (r->stream != NULL || (r->stream = pn_stream_open(r->path)) != NULL) return true;
    pn_reader_no_memory(r);
    fail_file(r);
    return false;
}

/* The first file, or the next. */
static void open_file(struct pn_reader *r) {
    char name[32];
    if (r->data.format == PN_FORMAT_MOVIELENS)
        snprintf(r->base, sizeof(r->base), "%s/%s", r->data.path, pn_movielens_file(r, r->i_file, name));
    else if (r->data.n_more > 0) snprintf(r->base, sizeof(r->base), "%s", r->i_file == 0 ? r->data.path : r->data.more[r->i_file - 1]);
    else snprintf(r->base, sizeof(r->base), "%s", r->i_file < r->n_files - 1 && !pn_format_sequences(r->data.format) ? r->data.negatives.seen[r->i_file] : r->data.path);
    r->i_ending = 0;
    if (r->data.format != PN_FORMAT_PARQUET) {
        start_file(r);
        return;
    }
    snprintf(r->path, sizeof r->path, "%s", r->base); /* whoever parses it reads it, too */
    if (has_stream(r)) start_work(r);
}

static void free_reader(struct pn_reader *r) {
    pn_stream_close(r->stream);
    pn_reader_rows_free(r);
    free(r->piece[0]);
    free(r->piece[1]);
    free(r);
}

/* Gives the piece that was read ahead to the stream and starts reading the next one. */
static void hand_over(struct pn_reader *r) {
    if (!has_stream(r)) return;
    if (r->read_error) {
        r->result = pn_fail(&r->err, PN_IO, "%.300s: cannot be read at byte %llu: %s%s", r->path, (unsigned long long)r->offset,
                            strerror(r->read_error), r->read_error == EISDIR ? "; a uri that ends in / stands for all files of a folder" : "");
        fail_file(r);
        return;
    }
    r->waiting = r->piece_ready = false;
    pn_stream_feed(r->stream, r->piece[r->i_reading], r->piece_bytes, r->file_ended);
    r->i_reading ^= 1;
    if (!r->file_ended) start_read(r);
    start_work(r);
}

static void on_work(struct pn_work *w) {
    struct pn_reader *r = w->owner;
    r->work_busy = false;
    if (r->closed) {
        if (!r->io_busy) free_reader(r);
        return;
    }
    if (r->topic != NULL) pn_topic_rows_worked(r);
    switch (r->advance) {
        case PN_ADVANCE_WAIT:
            if (!pn_topic_rows_wait(r)) start_work(r);
            return;
        case PN_ADVANCE_BATCH: deliver(r, PN_OK); return;
        case PN_ADVANCE_END: deliver(r, PN_NOT_FOUND); return;
        case PN_ADVANCE_FAILED: deliver(r, r->result); return;
        case PN_ADVANCE_HUNGRY:
            r->waiting = true;
            if (r->piece_ready) hand_over(r);
            else assert(r->io_busy && "hungry, and nothing is being read");
            return;
        case PN_ADVANCE_NEXT_FILE:
            pn_stream_close(r->stream);
            r->stream = NULL;
            r->i_file++;
            open_file(r);
            return;
    }
}

/* ---- files ---- */


/* What is there instead of the missing file. */
static void on_list(struct pn_reader *r) {
    char list[200] = "";
    size_t used = 0;
    int n = 0;
    for (char **name = r->io.result >= 0 ? r->io.names : NULL; name && *name; name++, n++) {
        if (used + strlen(*name) + 3 >= sizeof(list) - 8) {
            memcpy(list + used, ", ...", 6);
            break;
        }
        used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s", n ? ", " : "", *name);
    }
    if (r->io.result >= 0) free(r->io.names);
    const char *there = r->io.result < 0 ? "its folder is not there either" : n == 0 ? "its folder is empty" : "its folder has ";
    const char *path = strlen(r->base) > 180 ? r->base + strlen(r->base) - 180 : r->base;
    r->result = pn_fail(&r->err, PN_IO, "%s: no such file, nor with .zst or .gz behind; %s%s", path, there, list);
    fail_file(r);
}

static void list_folder(struct pn_reader *r) {
    snprintf(r->path, sizeof(r->path), "%s", r->base);
    char *slash = strrchr(r->path, '/');
    if (!slash) snprintf(r->path, sizeof(r->path), ".");
    else if (slash == r->path) slash[1] = 0;
    else *slash = 0;
    r->io_busy = r->listing = true;
    r->io = (struct pn_io){.op = PN_IO_LIST, .path = r->path, .done = on_io, .owner = r};
    pn_io_start(r->env, &r->io);
}

static void on_io(struct pn_io *io) {
    struct pn_reader *r = io->owner;
    r->io_busy = false;
    if (r->closed) {
        if (r->listing && io->result >= 0) free(io->names);
        if (!r->work_busy) free_reader(r);
        return;
    }
    if (r->listing) {
        on_list(r);
        return;
    }
    if (io->result < 0) {
        if (r->offset == 0 && (io->result == -ENOENT || io->result == -ENOTDIR)) {
            if (++r->i_ending < N_ENDINGS) start_file(r);
            else list_folder(r);
            return;
        }
        /* Of a piece read ahead the error must wait until the work before it is done. */
        r->piece_bytes = 0;
        r->piece_ready = r->file_ended = true;
        r->read_error = (int)-io->result;
    } else {
        r->piece_bytes = (size_t)io->result;
        r->offset += r->piece_bytes;
        r->piece_ready = true;
        r->file_ended = r->piece_bytes < PN_READ_BYTES;
    }
    if (r->waiting) hand_over(r);
}

/* ---- for the owner ---- */

struct pn_reader *pn_reader_open(struct pn_env *env, const struct pn_data *data, const struct pn_reader_options *options) {
    assert(data->format != PN_FORMAT_AUDIT);
    assert(options->batch_size > 0 && options->n_producers > 0 && options->producer < options->n_producers);
    struct pn_reader *r = calloc(1, sizeof(*r));
    if (!r) return NULL;
    r->env = env;
    r->data = *data;
    r->options = *options;
    /* All producers of an epoch shuffle alike: they share one stream. */
    r->rng.state = pn_mix64(options->shuffle_seed ^ pn_mix64(options->epoch + 1u));
    r->n_files = data->format == PN_FORMAT_MOVIELENS ? pn_movielens_n_files(r) : pn_format_sequences(data->format) ? 2 : 1 + (int)(data->rank_all ? 0 : data->negatives.n_seen) + (int)data->n_more;
    assert(data->n_more == 0 || data->negatives.n_seen == 0);
    snprintf(r->path, sizeof(r->path), "%s", data->path);
    r->piece[0] = malloc(PN_READ_BYTES);
    r->piece[1] = malloc(PN_READ_BYTES);
    bool good = r->piece[0] && r->piece[1];
    if (data->kafka.brokers[0] != '\0') {
        if (good && (pn_topic_rows_open(r) || r->result != PN_OK)) return r;
        free_reader(r);
        return NULL;
    }
    if (data->format == PN_FORMAT_CRITEO) good = good && pn_criteo_columns(r);
    if (data->format == PN_FORMAT_MOVIELENS) good = good && pn_movielens_columns(r);
    if (pn_format_sequences(data->format)) good = good && pn_sequence_columns(r);
    if (data->format == PN_FORMAT_JSONL) good = good && pn_json_columns(r);
    if (data->format == PN_FORMAT_LIBFM) good = good && pn_libfm_columns(r);
    if (pn_reader_pairs(r)) good = good && pn_pairs_columns(r);
    if (good) return r;
    free_reader(r);
    return NULL;
}

void pn_reader_close(struct pn_reader *r) {
    if (!r) return;
    r->closed = true;
    if (r->topic != NULL) pn_topic_rows_stop(r);
    if (!r->io_busy && !r->work_busy) free_reader(r);
}

void pn_reader_go_on(struct pn_reader *r) {
    if (r->done != NULL && !r->work_busy) start_work(r);
}

bool pn_reader_again(struct pn_reader *r, uint32_t epoch) {
    if (!pn_reader_pairs(r) || r->data.rank_all || !r->ended || !r->file_ended || r->io_busy || r->work_busy || r->result != PN_OK) return false;
    pn_stream_close(r->stream);
    r->stream = NULL;
    r->options.epoch = epoch;
    r->options.skip_batches = 0;
    r->rng.state = pn_mix64(r->options.shuffle_seed ^ pn_mix64(epoch + 1u));
    r->n_rows_read = r->n_rows_out = 0;
    r->ended = r->opened = false;
    r->pairs.at = NULL;
    return true;
}

void pn_reader_next(struct pn_reader *r, void (*done)(void *, enum pn_result, const struct pn_raw *, const struct pn_error *),
                    void *owner) {
    assert(!r->done && !r->closed && "one batch at a time");
    r->done = done;
    r->owner = owner;
    r->batch.n_rows = r->batch.i_column = r->batch.text.n = 0;
    if (!r->opened && r->result == PN_OK && r->topic == NULL) {
        r->opened = true;
        open_file(r);
    } else {
        start_work(r);
    }
}

const char *const *pn_reader_columns(const struct pn_reader *r, size_t *n) {
    *n = r->n_names;
    return r->names;
}
