/* The work's side: records to rows, through the shuffle's window, into this producer's batches.
 *
 * The window holds unparsed lines: only the rows of a producer's own batches are parsed by it. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "worker/reader/internal.h"

bool pn_reader_no_memory(struct pn_reader *r) {
    r->result = pn_fail(&r->err, PN_NO_MEMORY, "%s: no memory", r->path);
    return false;
}

bool pn_row_bad(struct pn_reader *r, uint64_t line, const char *format, ...) {
    char text[300];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    const char *of = r->data.n_more == 0 ? r->path : line >> PN_LINE_FILE == 0 ? r->data.path : r->data.more[(line >> PN_LINE_FILE) - 1];
    const char *file = strlen(of) > 150 ? of + strlen(of) - 150 : of;
    r->result = pn_fail(&r->err, PN_INVALID, "%s:%llu: %s", file, (unsigned long long)(line & ((1ull << PN_LINE_FILE) - 1)), text);
    return false;
}

bool pn_row_label(struct pn_reader *r, uint64_t line, const char *text, size_t n, float *label) {
    char copy[64], *end = copy;
    double value = 0;
    if (n > 0 && n < sizeof(copy)) {
        memcpy(copy, text, n);
        copy[n] = 0;
        value = strtod(copy, &end);
    }
    if (n == 0 || n >= sizeof(copy) || end != copy + n || value != value)
        return pn_row_bad(r, line, "the label is \"%.*s\", not a number", n < 40 ? (int)n : 40, text);
    r->batch.value = (float)value;
    *label = value >= r->data.threshold ? 1 : 0;
    return true;
}

/* ---- the batch ---- */

static bool grow(void *array, size_t n_bytes) {
    void *grown = realloc(*(void **)array, n_bytes);
    if (!grown) return false;
    *(void **)array = grown;
    return true;
}

bool pn_row_field(struct pn_reader *r, const char *text, size_t n) {
    struct pn_reader_batch *b = &r->batch;
    size_t cell = b->n_rows * b->n_columns + b->i_column;
    if (cell >= b->max_cells) {
        size_t max = b->max_cells ? b->max_cells * 2 : 64 * b->n_columns;
        if (!grow(&b->offset, max * 4) || !grow(&b->length, max * 4) || !grow(&b->offset_by_column, max * 4) || !grow(&b->length_by_column, max * 4))
            return pn_reader_no_memory(r);
        b->max_cells = max;
    }
    if (b->text.n + n > UINT32_MAX || !pn_text_bytes(&b->text, text, n)) return pn_reader_no_memory(r);
    b->offset[cell] = (uint32_t)(b->text.n - n);
    b->length[cell] = (uint32_t)n;
    b->i_column++;
    return true;
}

bool pn_row_end(struct pn_reader *r, float label) {
    struct pn_reader_batch *b = &r->batch;
    if (b->n_rows >= b->max_labels) {
        size_t max = b->max_labels ? b->max_labels * 2 : 64;
        if (!grow(&b->labels, max * sizeof(float)) || !grow(&b->values, max * sizeof(float))) return pn_reader_no_memory(r);
        b->max_labels = max;
    }
    b->values[b->n_rows] = b->value;
    b->labels[b->n_rows++] = label;
    b->i_column = 0;
    return true;
}

static void finish_batch(struct pn_reader *r) {
    struct pn_reader_batch *b = &r->batch;
    for (size_t row = 0; row < b->n_rows; row++)
        for (size_t c = 0; c < b->n_columns; c++) {
            b->offset_by_column[c * b->n_rows + row] = b->offset[row * b->n_columns + c];
            b->length_by_column[c * b->n_rows + row] = b->length[row * b->n_columns + c];
        }
    b->raw = (struct pn_raw){.n_rows = b->n_rows, .n_columns = b->n_columns, .names = r->names, .text = b->text.text,
                             .offset = b->offset_by_column, .length = b->length_by_column, .labels = b->labels, .log_q = b->log_q, .values = b->values};
}

/* ---- from a record to a batch ---- */

static bool parse(struct pn_reader *r, const struct pn_record *record) {
    r->batch.n_columns = r->n_names;
    return pn_reader_csv(r)                     ? pn_csv_row(r, record)
           : r->data.format == PN_FORMAT_CRITEO ? pn_criteo_row(r, record)
           : r->data.format == PN_FORMAT_LIBFM  ? pn_libfm_row(r, record)
           : r->data.format == PN_FORMAT_JSONL  ? pn_json_row(r, record)
           : pn_format_sequences(r->data.format) ? pn_sequence_row(r, record)
                                                : pn_movielens_row(r, record);
}

uint32_t pn_reader_owner(const char *record, size_t n_bytes, uint32_t n_producers) { return (uint32_t)(pn_hash(record, n_bytes, 0x726f7773ull) % n_producers); }

/* A row dealt by its user. It has to be parsed to know whose it is; another's is taken back. */
static bool give_by_user(struct pn_reader *r, const struct pn_record *record, bool *full) {
    struct pn_reader_batch *b = &r->batch;
    const size_t text = b->text.n;
    if (!parse(r, record)) return false;
    size_t c = 0;
    while (c < r->n_names && strcmp(r->names[c], r->options.user) != 0) c++;
    if (c == r->n_names) return pn_row_bad(r, record->line, "the data has no column \"%s\", by which a private job knows its users (privacy.userField)", r->options.user);
    const size_t cell = (b->n_rows - 1) * b->n_columns + c;
    if (b->length[cell] == 0) return pn_row_bad(r, record->line, "column \"%s\" (privacy.userField) is empty: whose is this row? Drop such rows, or give each a name of its own", r->options.user);
    if (pn_user_of(b->text.text + b->offset[cell], b->length[cell]) % r->options.n_producers != r->options.producer) {
        b->n_rows--;
        b->text.n = text;
    }
    *full = b->n_rows == r->options.batch_size;
    return true;
}

/* Is the next row of the shuffled stream this producer's? */
static bool is_own(struct pn_reader *r, const struct pn_record *record) {
    const uint64_t n = r->options.n_producers;
    if (r->options.by_hash) return pn_reader_owner(record->text, record->n_bytes, r->options.n_producers) == r->options.producer;
    const uint64_t i_batch = r->n_rows_out++ / r->options.batch_size;
    return i_batch % n == r->options.producer && i_batch / n >= r->options.skip_batches;
}

/* The next row of the shuffled stream. True: go on; sets *full at the end of an own batch. */
static bool give(struct pn_reader *r, const struct pn_record *record, bool *full) {
    if (r->options.by_hash && r->options.user != NULL) return give_by_user(r, record, full);
    if (!is_own(r, record)) return true;
    const bool good = parse(r, record);
    *full = r->batch.n_rows == r->options.batch_size;
    return good;
}

static size_t pick(struct pn_reader *r) { return (size_t)((unsigned __int128)pn_rng_next(&r->rng) * r->n_window >> 64); }

static bool give_held(struct pn_reader *r, size_t i, bool *full) {
    struct pn_held *held = r->window[i];
    bool good = give(r, &(struct pn_record){held->text, held->n_bytes, held->line}, full);
    free(held);
    r->window[i] = r->window[--r->n_window];
    return good;
}

static bool hold(struct pn_reader *r, const struct pn_record *record) {
    if (r->n_window == r->max_window) {
        size_t max = r->max_window ? r->max_window * 2 : 1024;
        if (!grow(&r->window, max * sizeof(*r->window))) return pn_reader_no_memory(r);
        r->max_window = max;
    }
    struct pn_held *held = malloc(sizeof(*held) + record->n_bytes);
    if (!held) return pn_reader_no_memory(r);
    held->line = record->line;
    held->n_bytes = (uint32_t)record->n_bytes;
    memcpy(held->text, record->text, record->n_bytes);
    r->window[r->n_window++] = held;
    return true;
}

/* A row on its way into the shuffle's window, or straight out. */
static bool pass(struct pn_reader *r, const struct pn_record *record, bool *full) {
    if (r->options.shuffle_buffer == 0) return give(r, record, full);
    if (r->n_window == r->options.shuffle_buffer && !give_held(r, pick(r), full)) return false;
    return hold(r, record);
}

/* A record of the file with the rows. */
static bool take(struct pn_reader *r, const struct pn_record *record, bool *full) {
    if (pn_reader_csv(r) && !r->names) {
        if (r->data.n_more > 0 && !pn_text_bytes(&r->header, record->text, record->n_bytes)) return pn_reader_no_memory(r);
        return pn_csv_header(r, record);
    }
    if (r->header_due) {
        r->header_due = false;
        if (record->n_bytes == r->header.n && memcmp(record->text, r->header.text, r->header.n) == 0) return true;
        return pn_row_bad(r, record->line, "the header is another than that of the list's first file: \"%.*s\" and not \"%.*s\"", record->n_bytes < 80 ? (int)record->n_bytes : 80, record->text,
                          r->header.n < 80 ? (int)r->header.n : 80, r->header.text);
    }
    if (r->data.format == PN_FORMAT_MOVIELENS) {
        bool wanted = true;
        if (!pn_movielens_wanted(r, record, &wanted)) return false;
        if (!wanted) return true;
    }
    if (pn_format_sequences(r->data.format) && !pn_sequence_wanted(r, record)) return true;
    const uint64_t i = r->n_rows_read++;
    if (i < r->data.first_row) return true;
    if (r->data.n_rows && i + 1 == r->data.first_row + r->data.n_rows) r->ended = true;
    if (r->data.negatives.per_positive > 0 && !pn_format_sequences(r->data.format) && !pn_negatives_owe(r, record)) return false;
    return pass(r, record, full);
}

/* A line of the file: of those before the rows, or a row, or (sasrec) a part of one. */
static bool eat(struct pn_reader *r, const struct pn_record *record, bool rows, bool *full) {
    if (!rows) return pn_format_sequences(r->data.format) ? pn_sequence_load(r, record) : r->data.format == PN_FORMAT_LIBFM ? pn_negatives_load(r, record) : pn_movielens_load(r, record);
    if (!pn_format_sequences(r->data.format)) return take(r, record, full);
    struct pn_record user;
    bool there;
    return pn_sequence_gather(r, record, &user, &there) && (!there || take(r, &user, full));
}

void pn_reader_parsed_close(struct pn_reader *r) {
    if (r->parsed != NULL) r->parsed->ops->close(r->parsed);
    r->parsed = NULL;
}

/* The next piece of a file that a library reads: here, on the work's thread, as the library waits for the disk by itself. */
static bool feed_parsed(struct pn_reader *r) {
    const char *text = NULL;
    size_t n = 0;
    if (r->options.parsed == NULL) r->result = pn_fail(&r->err, PN_INVALID, "%s: nobody here reads Parquet", r->path);
    else if (r->parsed == NULL) r->result = r->options.parsed(&r->parsed, &r->data, r->path, &r->err);
    if (r->result == PN_OK) r->result = r->parsed->ops->next(r->parsed, &text, &n, &r->err);
    if (r->result == PN_OK) pn_stream_feed(r->stream, text, n, n == 0);
    return r->result == PN_OK;
}

enum pn_advance pn_reader_advance(struct pn_reader *r) {
    struct pn_reader_batch *b = &r->batch;
    if (r->result != PN_OK) return PN_ADVANCE_FAILED;
    if (pn_reader_pairs(r)) {
        const enum pn_advance a = pn_pairs_advance(r);
        if (a == PN_ADVANCE_BATCH) finish_batch(r);
        return a;
    }
    if (r->topic != NULL) {
        const enum pn_advance a = pn_topic_advance(r);
        if (a == PN_ADVANCE_BATCH) finish_batch(r);
        return a;
    }
    bool full = false;
    while (!full) {
        if (r->negatives.n_owed > 0) {
            struct pn_record negative;
            if (!pn_negatives_next(r, &negative) || !pass(r, &negative, &full)) return PN_ADVANCE_FAILED;
            continue;
        }
        if (r->ended) {
            if (r->n_window == 0) break;
            if (!give_held(r, pick(r), &full)) return PN_ADVANCE_FAILED;
            continue;
        }
        struct pn_record record;
        const bool rows = r->i_file >= pn_reader_first(r);
        switch (pn_stream_record(r->stream, pn_reader_csv(r), r->separator, &record, &r->result, &r->err)) {
            case PN_STREAM_HUNGRY:
                if (r->data.format != PN_FORMAT_PARQUET) return PN_ADVANCE_HUNGRY;
                if (!feed_parsed(r)) return PN_ADVANCE_FAILED;
                break;
            case PN_STREAM_BAD: return PN_ADVANCE_FAILED;
            case PN_STREAM_END:
                pn_reader_parsed_close(r);
                if (!rows) return PN_ADVANCE_NEXT_FILE;
                if (r->i_file + 1 < r->n_files && (!pn_reader_csv(r) || r->names)) { /* one more of the list */
                    r->header_due = pn_reader_csv(r);
                    return PN_ADVANCE_NEXT_FILE;
                }
                if (pn_format_sequences(r->data.format) && !eat(r, NULL, true, &full)) return PN_ADVANCE_FAILED;
                r->ended = true;
                if (pn_reader_csv(r) && !r->names) {
                    pn_row_bad(r, 1, "the file is empty; expected a line with the names of the columns");
                    return PN_ADVANCE_FAILED;
                }
                break;
            case PN_STREAM_RECORD:
                record.line |= (uint64_t)(r->i_file - (rows ? pn_reader_first(r) : r->i_file)) << PN_LINE_FILE;
                if (!eat(r, &record, rows, &full)) return PN_ADVANCE_FAILED;
                break;
        }
    }
    if (b->n_rows == 0) return PN_ADVANCE_END;
    finish_batch(r);
    return PN_ADVANCE_BATCH;
}

void pn_reader_rows_free(struct pn_reader *r) {
    for (size_t i = 0; i < r->n_window; i++) free(r->window[i]);
    free(r->window);
    free(r->batch.text.text);
    free(r->batch.offset);
    free(r->batch.length);
    free(r->batch.offset_by_column);
    free(r->batch.length_by_column);
    free(r->batch.labels);
    free(r->batch.values);
    free(r->names);
    free(r->name_text);
    free(r->ids);
    free(r->header.text);
    pn_reader_parsed_close(r);
    pn_movielens_free(r);
    pn_negatives_free(r);
    pn_pairs_free(r);
    pn_topic_rows_free(r);
    pn_sequence_free(r);
}
