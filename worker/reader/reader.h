/* Streams rows of a data set, from plain, gzip or zstd files, in the order a seed gives, for one data shard of n.
 *
 * Deterministic: (data, epoch, producer, n_producers, shuffle, batch_size) fix batch number k = 1, 2, ... Batches are
 * dealt round-robin: the shuffled stream of the epoch is cut into batches; global batch b belongs to producer b % n.
 * With by_hash each row is dealt by itself, whatever rows there are beside it.
 * Every file access goes through pn_env; memory is bounded by the shuffle buffer. */
#ifndef PN_WORKER_READER_READER_H
#define PN_WORKER_READER_READER_H

#include "common/env.h"
#include "nn/model.h"
#include "worker/reader/parsed.h"
#include "worker/reader/topic.h"

struct json_object;
struct pn_reader;
struct pn_reader_options {
    uint32_t producer, n_producers;
    uint32_t epoch;                  /* from 0: part of the shuffle's seed */
    uint64_t shuffle_buffer, shuffle_seed; /* 0: file order */
    uint32_t batch_size;
    bool by_hash;                    /* rows are dealt by a hash, not batch by batch: of the record's bytes, or ... */
    const char *user;                /* ... if not NULL, of this column: all rows of one value are one producer's. A row without a value is bad. Borrowed */
    pn_parsed_open *parsed;          /* who reads Parquet; NULL: nobody can here */
    uint64_t skip_batches;           /* of this producer, in this epoch: to go on after a restore */
    /* of a topic (data->kafka) only: */
    pn_topic_open *topic;
    void (*proposes)(void *owner);   /* pn_reader_proposal has news. On the core's thread; must not close the reader */
    void *owner;
};
/* The rows of one batch; raw points into arrays owned by the reader, valid until the next call of pn_reader_next. */
struct pn_reader *pn_reader_open(struct pn_env *, const struct pn_data *, const struct pn_reader_options *);
/* After the last batch: the same data once more as another epoch, without reading the `seen` files again. False: this reader cannot; open a new one. */
bool pn_reader_again(struct pn_reader *, uint32_t epoch);
/* May be called from inside a callback; an io in flight is waited for behind the scenes, no callback runs after it. */
void pn_reader_close(struct pn_reader *);
/* done(owner, PN_OK, raw): a batch (the last one may be short). PN_NOT_FOUND with raw NULL: the end. Other results:
 * err has the line: missing file (path and what is there instead), truncated compressed file (byte offset), a row with a
 * wrong number of columns (file, line, found, expected). A bad row stops the job: nothing is dropped in silence. */
void pn_reader_next(struct pn_reader *, void (*done)(void *owner, enum pn_result, const struct pn_raw *raw, const struct pn_error *),
                    void *owner);
/* A topic's reader gives no row before a ledger says which (common/ledger.h). What it would have in it next, for the coordinator: the caller's; NULL: nothing yet. */
struct json_object *pn_reader_proposal(const struct pn_reader *);
/* How many offsets of its partitions are behind the last batch, as far as the log's ends are known; UINT64_MAX: not known, or no topic. */
uint64_t pn_reader_lag(const struct pn_reader *);
/* The ledger as it stands, of which all is durable. Borrowed. */
void pn_reader_deal(struct pn_reader *, struct json_object *ledger);
/* Whose a row dealt by its bytes is. */
uint32_t pn_reader_owner(const char *record, size_t n_bytes, uint32_t n_producers);
/* The columns that the data will have: fixed for movielens, criteo and libfm; for csv known after the first batch (NULL before). */
const char *const *pn_reader_columns(const struct pn_reader *, size_t *n);

#endif
