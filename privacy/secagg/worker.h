/* A data holder's part of one secure sum: a core over pn_env. One thread; an object takes part in one round and is then closed. */
#ifndef PN_SECAGG_WORKER_H
#define PN_SECAGG_WORKER_H

#include "privacy/secagg/round.h"

struct pn_agg_worker;
struct pn_agg_worker_setup {
    const struct pn_agg_terms *terms;
    uint32_t self;                /* number among terms->n */
    const uint8_t *identity;      /* 64: the Ed25519 secret key of terms->identities[self] */
    const void *words;            /* first[n_servers] words: clipped, rounded, with this worker's share of noise (fixed.h, privacy/discrete.h); lives until `done` or close */
    pn_peer coordinator;
    const pn_peer *servers;       /* terms->n_servers; lives until close, as the identities do */
    /* The worker's part is over: PN_OK once it has revealed what it was asked for, or the line says why it stopped. Not from inside a call. */
    void (*done)(void *owner, enum pn_result, const char *line);
    void *owner;
};
/* PN_INVALID, PN_REFUSED: the terms do not hold, or the identity is not that of `self`. */
enum pn_result pn_agg_worker_open(struct pn_agg_worker **, struct pn_env *, const struct pn_agg_worker_setup *, struct pn_error *);
void pn_agg_worker_message(struct pn_agg_worker *, pn_peer from, const struct pn_frame *);
/* Wipes its secrets. The memory is freed once a mask that is being made is done. */
void pn_agg_worker_close(struct pn_agg_worker *);

#endif
