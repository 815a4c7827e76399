/* Which device a run computes on. `auto` takes a GPU where there is one that computes the model, and says in the log why not; `cuda:N` fails the run with that line. */
#include "nn/device.h"
#include "worker/internal.h"
#include "worker/private.h"

static bool wanted(const struct pn_job *job) { return job->device != PN_DEVICE_CPU && job->model != PN_MODEL_AUDIT && job->model != PN_MODEL_EXTERNAL; }

/* auto goes on without. */
static enum pn_result without(struct pn_run *run, enum pn_result r, const struct pn_error *why, struct pn_error *err) {
    run->backend = NULL;
    if (run->job.device == PN_DEVICE_CUDA) return pn_fail(err, r, "training.device cuda:%u: %s", run->job.device_number, why->text);
    if (!run->told_cpu) pn_log(run->env, PN_INFO, "training.device auto: the CPU computes: %s", why->text);
    run->told_cpu = true; /* once a job, not once a producer */
    return PN_OK;
}

enum pn_result pn_run_choose_device(struct pn_run *run, const struct pn_backend *(*gpu)(struct pn_error *), struct pn_error *err) {
    struct pn_error why = {""};
    if (!wanted(&run->job)) return PN_OK;
    if (gpu == NULL) return without(run, PN_NOT_FOUND, (pn_fail(&why, PN_NOT_FOUND, "this worker was built without CUDA"), &why), err);
    run->backend = gpu(&why);
    const size_t n = run->backend != NULL ? run->backend->devices(&why) : 0;
    if (n == 0) return without(run, PN_NOT_FOUND, &why, err);
    if (run->job.device == PN_DEVICE_CUDA && run->job.device_number >= n) {
        pn_fail(&why, PN_NOT_FOUND, "this machine has %zu CUDA device%s, from cuda:0 on", n, n == 1 ? "" : "s");
        return without(run, PN_NOT_FOUND, &why, err);
    }
    return PN_OK;
}

bool pn_run_device(struct pn_run *run, uint32_t producer, struct pn_device **device) {
    struct pn_error why = {""}, err = {""};
    *device = NULL;
    if (run->backend == NULL) return true;
    const size_t n = run->backend->devices(&why), number = run->job.device == PN_DEVICE_CUDA ? run->job.device_number : n > 0 ? producer % n : 0;
    enum pn_result r = pn_device_open(device, run->backend, number, &run->job, run->n_dense_inputs, &why);
    struct pn_private_spec spec;
    if (r == PN_OK && pn_private_spec_of(&run->job, run->n_producers, &spec))
        r = spec.by_user ? pn_fail(&why, PN_REFUSED, "gradients of whole users are not clipped on a GPU yet, only those of examples: use device: cpu (or auto)")
                         : pn_device_clip_examples(*device, spec.clip, &why);
    if (r == PN_OK && run->job.cache_rows > 0) r = pn_device_cache(*device, run->job.cache_rows, run->job.cache_staleness, &why);
    if (r != PN_OK && *device != NULL) {
        pn_device_close(*device);
        *device = NULL;
    }
    if (r == PN_OK) {
        pn_log(run->env, PN_INFO, "producer %u computes on %s:%zu", producer, run->backend->name, number);
        return true;
    }
    r = without(run, r, &why, &err);
    if (r == PN_OK) return true;
    pn_run_fail(run, r, err.text);
    return false;
}
