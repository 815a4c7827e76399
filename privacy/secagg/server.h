/* A server's part of one secure sum: it takes the masked segments of its own words and, once told which workers remain and which masks are left over,
 * sums. A core over pn_env, one thread; one object a round. It keeps the segments until the survivors are known: n times its segment's bytes. */
#ifndef PN_SECAGG_SERVER_H
#define PN_SECAGG_SERVER_H

#include "privacy/secagg/round.h"

struct pn_agg_server;
struct pn_agg_server_setup {
    const struct pn_agg_terms *terms;
    uint32_t self; /* number among terms->n_servers */
    pn_peer coordinator;
    /* PN_OK: `sum` holds the words first[self]..first[self+1] of the sum, valid during the call; `n_workers` are in it. Else the line says why there is none. */
    void (*done)(void *owner, enum pn_result, const void *sum, uint32_t n_workers, const char *line);
    void *owner;
};
enum pn_result pn_agg_server_open(struct pn_agg_server **, struct pn_env *, const struct pn_agg_server_setup *, struct pn_error *);
/* `m` is the frame's message: a segment is kept by reference, not copied. */
void pn_agg_server_message(struct pn_agg_server *, pn_peer from, struct pn_msg *m, const struct pn_frame *);
void pn_agg_server_close(struct pn_agg_server *);

#endif
