/* Turns checkpoint files into segments of a snapshot, one after the other, off the request path (docs/architecture.md, "Publication"). */
#ifndef PN_PS_PUBLISH_H
#define PN_PS_PUBLISH_H

#include "common/json.h"

struct pn_publish;
/* plan: {version, dir, storage, checkpoint_dir, files:[name]}. changed(owner) runs when the state is final. NULL: no memory. */
struct pn_publish *pn_publish_start(struct pn_env *, struct json_object *plan, void (*changed)(void *owner), void *owner);
uint64_t pn_publish_version(const struct pn_publish *);
struct json_object *pn_publish_state(const struct pn_publish *); /* for the beat; the caller owns it */
void pn_publish_abandon(struct pn_publish *);                     /* frees itself when what is in flight returned */

#endif
