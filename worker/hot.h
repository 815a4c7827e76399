/* Rows that a producer's device holds from earlier steps (training.deviceCache, nn/device.h): a step looks there first and pulls what is missing or older than the job allows.
 * The servers stay the truth: every gradient is pushed as ever, evaluation reads from them, and rows of servers that lost what they held are forgotten. */
#ifndef PN_WORKER_HOT_H
#define PN_WORKER_HOT_H

#include "nn/device.h"
#include "ps/client/client.h"

/* When rows of before have become worth nothing: `life` rises with any change of a shard's term, as such a shard is back at a checkpoint. */
struct pn_hot_life { uint64_t life, terms[PN_MAX_SHARDS]; uint32_t n_shards; };
void pn_hot_map(struct pn_hot_life *, const struct pn_shard_map *);

/* What a step has to pull; places are those of the batch's unique keys. */
struct pn_hot_step {
    uint32_t *places[PN_MAX_TABLES];
    uint64_t *keys[PN_MAX_TABLES];
    size_t n[PN_MAX_TABLES];
    size_t look;                  /* of the device */
    uint64_t life;                /* when it was looked for */
};
void pn_hot_free(struct pn_hot_step *);
/* On a work thread: looks for the rows of the batch of step `now`. */
enum pn_result pn_hot_find(struct pn_hot_step *, struct pn_device *, const struct pn_job *, const struct pn_batch *, uint64_t now, bool empty, struct pn_error *);
/* Parts of a pull of what is missing, straight to its place among rows[t]; returns how many. The step lives until the pull is answered. */
size_t pn_hot_parts(const struct pn_hot_step *, const struct pn_job *, float *const rows[PN_MAX_TABLES], struct pn_client_part parts[PN_MAX_TABLES]);

#endif
