/* A file that a library reads by itself (Parquet), as the reader sees it: pieces of CSV text, a header first. worker/parquet/ is the one implementation, given to the core by
 * worker/main.c; tests have one in memory. Called from work threads, one call at a time a handle; a call may wait for the disk. */
#ifndef PN_WORKER_READER_PARSED_H
#define PN_WORKER_READER_PARSED_H

#include "job/job.h"

struct pn_parsed { const struct pn_parsed_ops *ops; };
struct pn_parsed_ops {
    void (*close)(struct pn_parsed *);   /* from any thread, with no call under way */
    /* The next piece, cut anywhere; valid until the next call. *n 0: the end. */
    enum pn_result (*next)(struct pn_parsed *, const char **text, size_t *n, struct pn_error *);
};
/* path: of one of the data's files; it gives the data's columns and its label, in the file's order. Not PN_OK: err says why (no library; no such column, and which there are; no such file). */
typedef enum pn_result pn_parsed_open(struct pn_parsed **, const struct pn_data *, const char *path, struct pn_error *);

#endif
