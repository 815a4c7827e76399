/* Steps under differential privacy, of one data shard: its examples in memory, batches drawn from them by Poisson sampling, and what leaves this process of a step:
 * clipped sums with noise, of rows that were chosen with noise. What is protected is a unit: an example, or a user with all examples. All of it is done here, at the holder of the data: servers see nothing else.
 *
 * Per step (Abadi et al. 2016; rows by Ghazi et al. 2023): every unit is in the batch with probability q, by itself (of a user then per_unit examples at most, any
 * of them); its whole gradient is clipped (nn/private.c); the sum gets normal noise of deviation noise * clip (and noise times what roundoff may add to it) in every coordinate that is sent; the result is divided by the expected batch size, for the
 * true one is private, too. */
#ifndef PN_WORKER_PRIVATE_H
#define PN_WORKER_PRIVATE_H

#include "nn/model.h"
#include "privacy/draws.h"

/* clip: L2 norm of one unit's votes; noise: multiplier of it; threshold: of noisy sums of votes. */
struct pn_vote_rule { double clip, noise, threshold; };
struct pn_private_spec {
    double rows;                 /* units of the shard, as the job declares them: public. q = batch / rows, whatever there really is, so that what is spent does not depend on it */
    uint32_t batch;              /* expected units */
    uint32_t per_unit;           /* by_user: examples of one in a step at most; else 1 */
    bool by_user;                /* batches say whose each example is (pn_batch.user) */
    float clip, noise;           /* noise: multiplier of clip */
    float spread;                /* of pn_net_step_clipped */
    double roundoff, most;       /* what roundoff adds to the clip, as a share of it; units that a shard may have (pn_job_roundoff, pn_job_most_units) */
    enum pn_selection selection;
    struct pn_vote_rule each;    /* adafest: of the votes of a step */
    struct pn_vote_rule once;    /* of the votes of all units, before the first step, for the rows that can be sent at all (fest, and adafest among them); threshold 0: all can */
};

/* What the job's privacy section says of one of its data shards. False: the job is not private. */
bool pn_private_spec_of(const struct pn_job *, uint32_t n_producers, struct pn_private_spec *);
/* Steps are made on a device, which sums all of a batch in float32. PN_REFUSED: in batches of this size that has too much roundoff, and nothing was changed. */
enum pn_result pn_private_on_device(struct pn_private_spec *, struct pn_error *);

struct pn_private;
/* job is borrowed; every keyed field has a domain (pn_field_domain). NULL: no memory. */
struct pn_private *pn_private_open(const struct pn_job *, const struct pn_private_spec *);
void pn_private_close(struct pn_private *);

/* Takes *batch over, also on failure. False: no memory. */
bool pn_private_add(struct pn_private *, struct pn_batch *batch);
/* Behind the last pn_private_add: finds each user's examples. False: no memory. */
bool pn_private_seal(struct pn_private *);
size_t pn_private_examples(const struct pn_private *);
size_t pn_private_units(const struct pn_private *);
uint64_t pn_private_steps_an_epoch(const struct pn_private *);

/* Chooses the rows that can be sent at all, once, behind pn_private_seal; nothing where spec.once has no threshold. */
enum pn_result pn_private_choose(struct pn_private *, struct pn_draws *);
/* Behind pn_private_seal: calls visit for each example of each unit, a unit's one after the other, `last` with its last one; ends at the first that is not PN_OK, and returns that. */
enum pn_result pn_private_visit(const struct pn_private *, enum pn_result (*visit)(void *owner, const struct pn_batch *part, size_t example, bool last), void *owner);
/* A batch by Poisson sampling; it may be empty. Rows that cannot be sent are marked idle in it. */
enum pn_result pn_private_draw(const struct pn_private *, struct pn_draws *, struct pn_batch *out);

/* What a step sends of its rows, by table: unique keys in the order of common/unique.h, and a gradient for each. malloc'ed. */
struct pn_private_push { uint64_t *keys[PN_MAX_TABLES]; float *gradients[PN_MAX_TABLES]; size_t n[PN_MAX_TABLES]; };
void pn_private_push_free(struct pn_private_push *);
/* From the clipped sums of a batch: row_gradients[t], n_unique[t] * dim(t), and dense, n_dense (changed in place). *out is made. Any thread. */
enum pn_result pn_private_release(const struct pn_private *, struct pn_draws *, const struct pn_batch *, float *const row_gradients[PN_MAX_TABLES], float *dense, size_t n_dense,
                                  struct pn_private_push *out);

#endif
