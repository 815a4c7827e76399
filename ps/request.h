/* One PULL, PUSH or SEED, read and checked. Nothing of the shard is changed here. */
#ifndef PN_PS_REQUEST_H
#define PN_PS_REQUEST_H

#include "ps/shard.h"

/* Keys, and values where they came as float32, lie in the message: it must live as long as this does. */
struct pn_part { uint32_t i_table; size_t n; const uint64_t *keys; const float *values; float *decoded; /* NULL: values are in the message */ };
struct pn_request {
    uint64_t producer, incarnation, step, clock, last;
    size_t n_parts;
    struct pn_part parts[PN_MAX_TABLES];
};

/* Reads the parts; values: they follow the keys; rising: keys must be unique and rising by their mix. Returns NULL, or what is wrong. The caller drops it in
 * either case. */
const char *pn_request_read(const struct pn_shard *, struct pn_frame *, struct pn_request *, bool values, bool rising);
void pn_request_drop(struct pn_request *);
bool pn_request_finite(const struct pn_shard *, const struct pn_request *); /* no value is infinite or no number */
void pn_request_slots(const struct pn_request *, uint64_t bits[PN_SLOTS / 64]); /* slots that it touches */

#endif
