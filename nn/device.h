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
/* ---- hot rows that stay on the device (device_cache.c over nn/cache.h) ----
 * A step is then three halves: find says which of its rows are not there, or older than `staleness` steps; those the caller pulls; begin_found puts them beside the others and
 * keeps them. The row that step `now` reads is one that was pulled for a step >= now - staleness. */
#define PN_DEVICE_LOOKS 8u /* steps that may be found and not begun yet */
/* A cache for each table: room for rows_a_table rows, or as many as its fields can have. PN_REFUSED: the backend has none. Once, before the first step. */
enum pn_result pn_device_cache(struct pn_device *, uint64_t rows_a_table, uint32_t staleness, struct pn_error *);
/* Waits. missing[t]: out, room for n_unique[t]: the places in unique[t] that have to be pulled, rising. Steps in their order; `look` is free again after its begin_found.
 * empty: forget all rows first, as they are of servers that have lost what they held. */
enum pn_result pn_device_find(struct pn_device *, size_t look, const struct pn_batch *, uint64_t now, bool empty, uint32_t *const missing[PN_MAX_TABLES],
                              size_t n_missing[PN_MAX_TABLES], struct pn_error *);
/* As pn_device_begin, of the batch that `look` was found for; rows[t] are read at the places that were missing. keep: those are put into the cache. */
enum pn_result pn_device_begin_found(struct pn_device *, size_t slot, size_t look, bool keep, const struct pn_batch *, const float *const rows[PN_MAX_TABLES],
                                     const float *parameters, uint64_t seed, struct pn_error *);
/* Since the beginning; rows: held now. Exact up to the last find but for steps begun since. Not beside a find or begin of another thread. */
struct pn_device_cache_counts { uint64_t keys, found, evicted, rows; };
struct pn_device_cache_counts pn_device_cache_look(const struct pn_device *);

/* From now on a step is as pn_net_step_clipped: each unit's gradient (an example's, or with unit_begin that of a user's examples) is clipped to `most`, and their sum comes out
 * (noise is the caller's). The norms come of one backward pass; a second one, with the logits' gradients scaled, gives the sums: a gradient is linear in them.
 * PN_REFUSED: the model has a part whose norms no backend finds. */
enum pn_result pn_device_clip_units(struct pn_device *, float most, struct pn_error *);

/* Seconds that steps which have ended took on the device: copies in (with the cache, if there is one), computation, the sum with other devices (devices.h), copies out. They run
 * side by side, but the sum is behind the computation: the largest is what binds. Not beside an end of another thread. */
struct pn_device_seconds { double in, compute, sum, out; };
struct pn_device_seconds pn_device_time(const struct pn_device *);
/* Steps that were replayed from a graph, of all that were begun. */
struct pn_device_counts { uint64_t steps, replayed, graphs; };
struct pn_device_counts pn_device_look(const struct pn_device *);

#endif
