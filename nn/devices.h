/* Several devices as one (nn/device.h each): data parallel. A batch's examples are cut into as many parts, in their order; each device has all dense parameters, and the rows that
 * its part reads. What the losses are means of is the whole batch, so that the parts' gradients are shares whose sum is the batch's: dense ones are summed on the devices (all-reduce),
 * those of rows by row on the host. Who calls sees one step with one batch, one result, whatever the number of devices.
 *
 *     begin = bring for each device (beside one another, if the caller has the threads), join
 *
 * With one device all of it is pn_device_begin and pn_device_end. Slots, and who may call what when, as there. */
#ifndef PN_NN_DEVICES_H
#define PN_NN_DEVICES_H

#include "nn/device.h"

struct pn_devices;
/* Opens the n devices of these numbers, at most PN_MOST_DEVICES. PN_REFUSED: as pn_device_open, or there is nothing that several could sum by. The job has passed pn_job_check_devices if n > 1. */
enum pn_result pn_devices_open(struct pn_devices **, const struct pn_backend *, const size_t *numbers, size_t n, const struct pn_job *, size_t n_dense_inputs, struct pn_error *);
void pn_devices_close(struct pn_devices *);
size_t pn_devices_number(const struct pn_devices *);
struct pn_device *pn_devices_one(struct pn_devices *, size_t i); /* borrowed; the only one may have a cache */
enum pn_result pn_devices_clip_units(struct pn_devices *, float most, struct pn_error *);

enum pn_result pn_devices_begin(struct pn_devices *, size_t slot, const struct pn_batch *, const float *const rows[PN_MAX_TABLES], const float *parameters, uint64_t seed,
                                struct pn_error *);
/* The same in its parts, for n > 1. The batch stays until the end. A bring of each device, then join; without a join (one has failed) the slot has no step. */
enum pn_result pn_devices_bring(struct pn_devices *, size_t slot, size_t i, const struct pn_batch *, const float *const rows[PN_MAX_TABLES], const float *parameters, uint64_t seed,
                                struct pn_error *);
void pn_devices_join(struct pn_devices *, size_t slot);
enum pn_result pn_devices_end(struct pn_devices *, size_t slot, const struct pn_batch *, float *const row_gradients[PN_MAX_TABLES], float *parameter_gradients, float *scores,
                              double *loss, struct pn_error *);

/* Of each step the slowest device's copies and computation, and the sum as that device saw it: what the others wait for is in its computation. */
struct pn_device_seconds pn_devices_time(const struct pn_devices *);

#endif
