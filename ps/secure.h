/* A server's part in the rounds of a secure job (docs/secure-aggregation.md): its segment of each sum, which buckets of its own passed the threshold, and the one
 * application of an update. Core code on the owner's thread; one object for an open shard. */
#ifndef PN_PS_SECURE_H
#define PN_PS_SECURE_H

#include "common/json.h"
#include "ps/shard.h"

struct pn_ps_secure;
/* shard is borrowed. self: its number. changed(owner): something worth a beat. NULL: no memory. */
struct pn_ps_secure *pn_ps_secure_open(struct pn_env *, struct pn_shard *, uint32_t self, pn_peer coordinator, void (*changed)(void *owner), void *owner);
void pn_ps_secure_close(struct pn_ps_secure *); /* NULL is allowed */
/* The `secure` of a plan's job. */
void pn_ps_secure_plan(struct pn_ps_secure *, struct json_object *secure);
/* A frame of kinds 40 to 55. The message may be kept. */
void pn_ps_secure_message(struct pn_ps_secure *, pn_peer from, struct pn_msg *, const struct pn_frame *);
/* For a beat; taken by the caller. */
struct json_object *pn_ps_secure_state(const struct pn_ps_secure *);

#endif
