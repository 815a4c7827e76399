/* Compressed bytes in, records of text out. Pure: bytes are put in by pn_stream_feed, no file is touched. */
#ifndef PN_WORKER_READER_STREAM_H
#define PN_WORKER_READER_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/result.h"

struct pn_stream;
enum pn_stream_state {
    PN_STREAM_RECORD,  /* here is one */
    PN_STREAM_HUNGRY,  /* feed more */
    PN_STREAM_END,
    PN_STREAM_BAD      /* pn_error and pn_result say how */
};
struct pn_record {
    const char *text;  /* without its line end; valid until the next call */
    size_t n_bytes;
    uint64_t line;     /* of its start, from 1 */
};

/* The longest record taken: beyond, the file is not what it is said to be. */
#define PN_RECORD_MAX_BYTES (1u << 20)

/* path (borrowed, for messages): its ending .zst or .gz says how it is compressed. NULL: no memory. */
struct pn_stream *pn_stream_open(const char *path);
void pn_stream_close(struct pn_stream *);
/* The next piece of the file; lives until the stream is hungry again. `last`: there is nothing behind it (n may be 0). */
void pn_stream_feed(struct pn_stream *, const void *data, size_t n_bytes, bool last);
/* The next record that is not an empty line. quotes: a field (fields end at `separator`) that begins with " ends at the
 * next single ", and may hold line ends. */
enum pn_stream_state pn_stream_record(struct pn_stream *, bool quotes, char separator, struct pn_record *, enum pn_result *,
                                      struct pn_error *);

#endif
