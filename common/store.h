/* The coordinator's durable records: small JSON texts by (kind, id), changed in transactions.
 * The shell keeps them in SQLite (WAL, synchronous=FULL); the simulator in memory with crash semantics. */
#ifndef PN_COMMON_STORE_H
#define PN_COMMON_STORE_H

#include "common/result.h"

struct pn_store;
struct pn_store_ops {
    /* Visits the records of a kind in order of id. The texts live until the visitor returns. */
    enum pn_result (*scan)(struct pn_store *, const char *kind, void (*visit)(void *ctx, const char *id, const char *json),
                           void *ctx, struct pn_error *);
    /* One transaction: begin, any number of put/remove, commit. Durable when commit returned PN_OK;
     * after any error, also of an earlier put or remove in it, nothing of it happened: commit then fails and rolls back. put/remove outside a transaction are our own mistake. */
    enum pn_result (*begin)(struct pn_store *, struct pn_error *);
    enum pn_result (*put)(struct pn_store *, const char *kind, const char *id, const char *json, struct pn_error *);
    enum pn_result (*remove)(struct pn_store *, const char *kind, const char *id, struct pn_error *);
    enum pn_result (*commit)(struct pn_store *, struct pn_error *);
};
struct pn_store {
    const struct pn_store_ops *ops;
};

#endif
