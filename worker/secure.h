/* A data holder's part in the rounds of a secure job (docs/secure-aggregation.md, "Jobs"): its rows in memory, a copy of the model, and for each round a batch drawn
 * by Poisson sampling, of which only masked sums leave. What it pulls of the servers depends on the rounds before, which are public, and not on its rows. */
#ifndef PN_WORKER_SECURE_H
#define PN_WORKER_SECURE_H

#include "worker/internal.h"

struct pn_holder;
/* The run's job is secure. identity: 64 bytes, Ed25519, copied. NULL: no memory. */
struct pn_holder *pn_holder_open(struct pn_run *, uint32_t producer, pn_peer coordinator, const uint8_t identity[64]);
void pn_holder_close(struct pn_holder *); /* NULL is allowed; frees itself when its last computation has returned */
/* The plan's job: its round and the servers' addresses. */
void pn_holder_plan(struct pn_holder *, struct json_object *plan_job);
/* A frame of kinds 40 to 55. */
void pn_holder_message(struct pn_holder *, pn_peer from, const struct pn_frame *);
/* For a beat; taken by the caller. */
struct json_object *pn_holder_state(const struct pn_holder *);
uint32_t pn_holder_producer(const struct pn_holder *);

#endif
