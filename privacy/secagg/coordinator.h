/* The coordinator's part of one secure sum: it relays keys, shares and signatures, decides who survives, puts the secrets of the left-over masks together
 * and names them to the servers. It sees no vector. A core over pn_env, one thread; one object a round. It keeps nothing on disk: after a restart the round is
 * gone (its workers and servers are told so by PN_AGG_STOP or by the next PN_AGG_ROUND) and nothing of it is released. */
#ifndef PN_SECAGG_COORDINATOR_H
#define PN_SECAGG_COORDINATOR_H

#include "privacy/secagg/round.h"

struct pn_agg_coordinator;
struct pn_agg_coordinator_setup {
    const struct pn_agg_terms *terms;
    const pn_peer *workers; /* terms->n; 0: that worker is not here. Both arrays live until close */
    const pn_peer *servers;
    /* PN_OK: every server has its sum, of the `n_workers` in `survivors` (n bytes of 0 and 1). Else nothing is released and the line says why. */
    void (*done)(void *owner, enum pn_result, const uint8_t *survivors, uint32_t n_workers, const char *line);
    void *owner;
};
/* PN_REFUSED: the terms do not hold, or fewer workers are here than a sum may be made of. Begins the round. */
enum pn_result pn_agg_coordinator_open(struct pn_agg_coordinator **, struct pn_env *, const struct pn_agg_coordinator_setup *, struct pn_error *);
void pn_agg_coordinator_message(struct pn_agg_coordinator *, pn_peer from, const struct pn_frame *);
/* Ends an unfinished round without a sum. */
void pn_agg_coordinator_close(struct pn_agg_coordinator *);
/* How many shares were shown that their owner had not committed to; i's count. */
uint32_t pn_agg_coordinator_wrong_shares(const struct pn_agg_coordinator *, uint32_t i);

#endif
