/* A model's step through a backend (nn/backend.h): the blocks of nn/net.h with all values on the device.
 *
 * Two slots hold what a step brings and leaves, so that step n + 1 is copied in while n computes and n - 1 is copied out:
 *     begin(slot 0, n)   begin(slot 1, n + 1)   end(slot 0)   begin(slot 0, n + 2)   end(slot 1) ...
 * begin queues and returns; end waits for that slot alone. One thread begins and one ends at a time (they may be two). The caller keeps everything that begin was given
 * unchanged until it returns.
 *
 * Where the backend can, all that a step computes is captured once per shape (examples, bounds of keys and rows) and slot, and replayed. Models over sequences
 * run their blocks each time: their shapes change with every batch. */
#ifndef PN_NN_DEVICE_H
#define PN_NN_DEVICE_H

#include "nn/backend.h"
#include "nn/model.h"

#define PN_DEVICE_SLOTS 2u

struct pn_device;
/* Opens device number `device` of the backend for the job's model. PN_REFUSED: it has a block that no backend computes yet (the line names it). */
enum pn_result pn_device_open(struct pn_device **, const struct pn_backend *, size_t device, const struct pn_job *, size_t n_dense_inputs, struct pn_error *);
void pn_device_close(struct pn_device *);
/* As pn_net_step, in two halves; outputs are those of blocks.h's order of sums or near it. clip_norm: 0, or the most that the norm of all gradients may be. */
enum pn_result pn_device_begin(struct pn_device *, size_t slot, const struct pn_batch *, const float *const rows[PN_MAX_TABLES], const float *parameters, uint64_t seed,
                               struct pn_error *);
enum pn_result pn_device_end(struct pn_device *, size_t slot, const struct pn_batch *, float *const row_gradients[PN_MAX_TABLES], float *parameter_gradients, float *scores,
                             double *loss, struct pn_error *);
/* Steps that were replayed from a graph, of all that were begun. */
struct pn_device_counts { uint64_t steps, replayed, graphs; };
struct pn_device_counts pn_device_look(const struct pn_device *);

#endif
