/* The reader's inside. Two threads take turns: the core's (files, timers, callbacks: reader.c) and a work thread
 * (decompression, parsing, shuffle: everything else). While the work runs, the core's side touches only the read ahead. */
#ifndef PN_WORKER_READER_INTERNAL_H
#define PN_WORKER_READER_INTERNAL_H

#include "common/hash.h"
#include "common/ledger.h"
#include "common/text.h"
#include "worker/reader/reader.h"
#include "worker/reader/stream.h"

#define PN_READ_BYTES (256u << 10)
#define PN_MAX_COLUMNS 1024u

struct pn_held { uint64_t line; uint32_t n_bytes; char text[]; }; /* a row that waits in the shuffle's window */

struct pn_reader_batch {
    struct pn_text text;
    uint32_t *offset, *length;    /* row-major while the batch grows */
    uint32_t *offset_by_column, *length_by_column;
    float *labels, *values, value; /* value: of the row under way, its label before the threshold */
    size_t n_rows, n_columns, i_column;  /* i_column: fields of the row under way */
    float *log_q;                 /* pairs only */
    size_t max_cells, max_labels, max_log_q;
    struct pn_raw raw;
};

/* ml-100k's side files. Ids index the arrays; a length of id text 0 means absent. */
struct pn_movielens {
    struct pn_text text;
    struct pn_span { uint32_t offset, length; } *users, *items; /* n * fields each, see movielens.c */
    size_t n_users, n_items;
    uint64_t *test;               /* user << 32 | item, sorted once loaded */
    size_t n_test, max_test;
    bool sorted;
    /* histories and the split by time (history.c): all ratings by (user, time, line), and the first of validation and of test by (time, line) */
    struct pn_moment { uint32_t user, item; uint64_t time, line; uint8_t rating; } *ratings, cut[2];
    size_t n_ratings, max_ratings;
};

/* Negatives to be drawn (libfm.c). */
struct pn_number_set { uint64_t *at; size_t n, room; };
struct pn_negatives {
    size_t i_column, i_group;
    struct pn_number_set seen, known;  /* pairs (group, value) of positive rows; values */
    struct pn_span *values;            /* in order of their first row */
    size_t n_values, max_values;
    struct pn_text text, line;
    struct pn_record of;               /* the positive row whose negatives are owed; lives until the stream goes on */
    uint32_t n_owed;
};

/* Pairs of users and items (pairs.c). Tables by id. */
struct pn_pairs {
    struct pn_number_set seen;    /* pairs of the `seen` files */
    uint32_t *rows, *items;       /* an item's pairs; the items that have some, rising */
    size_t n_ids, n_items;
    uint32_t *counts, *held;      /* a user's pairs; hold_out of them, by rising lot */
    size_t n_users, n_held;
    double *keep, total;          /* total: of the items' weights */
    uint32_t *alias;
    uint64_t *map;                /* users * map_row words: a bit for each item that is not drawn; NULL: too large, the set says it */
    size_t map_row, map_users;
    float log_uniform;
    bool ready;
    uint64_t *window;
    size_t n_window, max_window;
    struct pn_record line;        /* under way; lives until the stream goes on */
    const char *at;               /* its next item; NULL: none under way */
    uint32_t user;
    bool list, lists;             /* lists: so is the file's first line, and all are of its kind */
    uint64_t first_line;          /* 0: it has not come yet */
    uint64_t n_left_out;          /* batches of lists before the position */
};

enum pn_advance { PN_ADVANCE_BATCH, PN_ADVANCE_END, PN_ADVANCE_HUNGRY, PN_ADVANCE_NEXT_FILE, PN_ADVANCE_WAIT /* topics: nothing is there now */, PN_ADVANCE_FAILED };

struct pn_reader {
    struct pn_env *env;
    struct pn_data data;
    struct pn_reader_options options;

    /* the core's side */
    void (*done)(void *, enum pn_result, const struct pn_raw *, const struct pn_error *);
    void *owner;
    bool closed, io_busy, work_busy, waiting; /* waiting: the work needs the piece that is being read */
    struct pn_io io;
    struct pn_work work;
    uint8_t *piece[2];            /* one is eaten, one is read */
    int i_reading;
    bool piece_ready;             /* the read one is complete */
    size_t piece_bytes;
    uint64_t offset;              /* of the next read */
    bool file_ended;              /* nothing to read any more in this file */
    int i_file, n_files, i_ending; /* files with rows come last: 1 + data.n_more of them */
    bool opened, listing;
    int read_error;               /* errno of the read ahead */
    char path[560], base[520];    /* of the file being read; without .zst or .gz */

    /* the work's side */
    enum pn_advance advance;
    enum pn_result result;        /* once failed, for ever */
    struct pn_error err;
    struct pn_stream *stream;
    bool ended;                   /* all rows have come */
    char separator;
    const char **names;           /* columns given out; NULL: not known yet */
    size_t n_names;
    char *name_text;              /* csv, jsonl, libfm: what names point into */
    struct pn_id { const char *id, *value; size_t n_value; } *ids; /* libfm by id: of the columns in their order; value: on the line being read, NULL: none */
    struct pn_text header;        /* csv: the first file's, which those behind it must have, too */
    bool header_due;              /* csv: the next record is one */
    size_t i_label;               /* csv: the label's place among all columns */
    uint64_t n_rows_read, n_rows_out;
    struct pn_rng rng;
    struct pn_held **window;
    size_t n_window, max_window;
    struct pn_reader_batch batch;
    struct pn_movielens movielens;
    struct pn_negatives negatives;
    struct pn_pairs pairs;
    struct pn_parsed *parsed;     /* parquet: the file under way; NULL: none, or not begun */
    struct pn_topic_rows *topic;  /* NULL: rows come from files */
    struct pn_sequences {
        uint64_t most;                /* the highest item */
        struct pn_text user, given;   /* sasrec: the user under way, and the one before, given out */
        uint64_t line;
        struct pn_number_set items;   /* of the row under way, in order: not a set, only room */
        struct pn_text cell;
    } sequences;
};

/* rows.c */
static inline bool pn_reader_csv(const struct pn_reader *r) { return r->data.format == PN_FORMAT_CSV || r->data.format == PN_FORMAT_PARQUET; } /* a header, and fields that may be quoted */
enum pn_advance pn_reader_advance(struct pn_reader *);
void pn_reader_rows_free(struct pn_reader *);
void pn_reader_parsed_close(struct pn_reader *);
/* A row of the batch: its columns in order, then the label. False: no memory, r->result is set. */
bool pn_row_field(struct pn_reader *, const char *text, size_t n);
bool pn_row_end(struct pn_reader *, float label);
/* Sets result and err from a record's place: "file:line: ...". Always false. */
bool pn_row_bad(struct pn_reader *, uint64_t line, const char *format, ...) __attribute__((format(printf, 3, 4)));
bool pn_reader_no_memory(struct pn_reader *);
/* label = value >= threshold. */
bool pn_row_label(struct pn_reader *, uint64_t line, const char *text, size_t n, float *label);

/* The first file with rows. */
static inline int pn_reader_first(const struct pn_reader *r) { return r->n_files - 1 - (int)r->data.n_more; }
/* A row waits in the shuffle's window while the next file is being read: its line says which file it is of. Lines of the first are as they are. */
#define PN_LINE_FILE 48

/* json_lines.c */
bool pn_json_columns(struct pn_reader *);
bool pn_json_row(struct pn_reader *, const struct pn_record *);

/* formats.c: csv and criteo */
bool pn_csv_header(struct pn_reader *, const struct pn_record *);
bool pn_csv_row(struct pn_reader *, const struct pn_record *);
bool pn_criteo_columns(struct pn_reader *);
bool pn_criteo_row(struct pn_reader *, const struct pn_record *);

/* libfm.c */
bool pn_libfm_columns(struct pn_reader *);
bool pn_libfm_row(struct pn_reader *, const struct pn_record *);
bool pn_negatives_load(struct pn_reader *, const struct pn_record *); /* a line of a `seen` file */
bool pn_negatives_owe(struct pn_reader *, const struct pn_record *);  /* its negatives, if it is positive, come next */
bool pn_negatives_next(struct pn_reader *, struct pn_record *);       /* valid until the next call */
void pn_negatives_free(struct pn_reader *);

/* pairs.c: ncf and lightgcn */
bool pn_pairs_columns(struct pn_reader *);
bool pn_pairs_load(struct pn_reader *, const struct pn_record *);     /* a line of a `seen` file */
enum pn_advance pn_pairs_advance(struct pn_reader *);                 /* fills the batch; PN_ADVANCE_END: nothing is left */
void pn_pairs_free(struct pn_reader *);
static inline bool pn_reader_pairs(const struct pn_reader *r) { return r->data.format == PN_FORMAT_NCF || r->data.format == PN_FORMAT_LIGHTGCN; }
/* topic_rows.c: messages of a topic in place of files */
struct pn_topic_rows;
bool pn_topic_rows_open(struct pn_reader *);           /* false: no memory, unless r->result says more */
void pn_topic_rows_free(struct pn_reader *);
enum pn_advance pn_topic_advance(struct pn_reader *);  /* fills the batch, across calls */
/* The core's side: before a piece of work; behind it; it has to wait (false: no, there is news); no more waiting. */
void pn_topic_rows_prepare(struct pn_reader *);
void pn_topic_rows_worked(struct pn_reader *);
bool pn_topic_rows_wait(struct pn_reader *);
void pn_topic_rows_stop(struct pn_reader *);
void pn_reader_go_on(struct pn_reader *);              /* reader.c: works on at what was asked for */
/* sequences.c: sasrec and s3rec */
bool pn_sequence_columns(struct pn_reader *);
bool pn_sequence_load(struct pn_reader *, const struct pn_record *);   /* a line on the first pass: the highest item */
/* A line of the second: *ready is a whole user's line "user item item ..." (s3rec: this one; sasrec: the user before), if *there. NULL record: the end. */
bool pn_sequence_gather(struct pn_reader *, const struct pn_record *, struct pn_record *ready, bool *there);
bool pn_sequence_wanted(struct pn_reader *, const struct pn_record *); /* has actions enough for its part */
bool pn_sequence_row(struct pn_reader *, const struct pn_record *);
void pn_sequence_free(struct pn_reader *);

/* movielens.c */
bool pn_movielens_columns(struct pn_reader *);
const char *pn_movielens_file(const struct pn_reader *, int i_file, char name[32]);
int pn_movielens_n_files(const struct pn_reader *);
bool pn_movielens_load(struct pn_reader *, const struct pn_record *); /* a line of a side file */
bool pn_movielens_wanted(struct pn_reader *, const struct pn_record *, bool *wanted);
bool pn_movielens_row(struct pn_reader *, const struct pn_record *);
void pn_movielens_free(struct pn_reader *);

/* history.c: MovieLens in time order */
bool pn_history_load(struct pn_reader *, const struct pn_moment *);  /* one rating, in the file's order */
bool pn_history_sort(struct pn_reader *);                            /* once, behind the last */
/* Is this moment of the data's part (split: time)? */
bool pn_history_wanted(const struct pn_reader *, uint64_t time, uint64_t line);
/* The columns history and history_rating: the user's last ratings before `time`, oldest first. */
bool pn_history_fields(struct pn_reader *, uint32_t user, uint64_t time);

#endif
