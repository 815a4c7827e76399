/* A user's keys of one table, in any order and with repeats, as the part of a request that travels: unique keys in the order of the wire.
 * Pure computation on the caller's thread. */
#ifndef PN_CLIENT_MEMBER_KEYED_H
#define PN_CLIENT_MEMBER_KEYED_H

#include "ps/client/client.h"

struct pn_keyed {
    size_t n_keys, dim;
    float *rows;          /* the user's: n_keys * dim */
    size_t n_unique;
    uint64_t *unique;     /* n_unique */
    uint32_t *index;      /* n_keys: place of a key in unique */
    uint32_t *first;      /* n_unique: the first key of the user's that is this one */
    float *sums;          /* push with repeated keys: n_unique * dim; else NULL */
};

/* Arrays are made here and freed by pn_keyed_free; keys are read during the call, rows belong to the user until then.
 * PN_NO_MEMORY: nothing to free. */
enum pn_result pn_keyed_open(struct pn_keyed *, const uint64_t *keys, size_t n_keys /* < 2^31 */, float *rows, size_t dim);
/* For a push: sums the gradients of repeated keys. PN_INVALID: err names the first key whose gradient, or sum of them, is no number that can
 * travel (NaN, infinite, or beyond 3.3e38). */
enum pn_result pn_keyed_sum(struct pn_keyed *, struct pn_error *err);
/* Behind a pull: each row is at the first of its keys; copies it to the others. */
void pn_keyed_spread(struct pn_keyed *);
struct pn_client_part pn_keyed_client_part(const struct pn_keyed *, uint32_t i_table); /* points into this one and the user's rows */
void pn_keyed_free(struct pn_keyed *);

#endif
