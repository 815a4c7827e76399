/* Which devices a run computes on. `auto` takes a GPU where there is one that computes the model, and says in the log why not; `cuda:N` and lists fail the run with that line. */
#include <stdio.h>
#include "nn/devices.h"
#include "worker/internal.h"
#include "worker/private.h"

static bool wanted(const struct pn_job *job) { return job->device != PN_DEVICE_CPU && job->model != PN_MODEL_AUDIT && job->model != PN_MODEL_EXTERNAL; }

/* auto goes on without. */
static enum pn_result without(struct pn_run *run, enum pn_result r, const struct pn_error *why, struct pn_error *err) {
    char device[PN_DEVICE_TEXT];
    run->backend = NULL;
    if (run->job.device == PN_DEVICE_CUDA) return pn_fail(err, r, "training.device %s: %s", pn_job_device_text(&run->job, device), why->text);
    if (!run->told_cpu) pn_log(run->env, PN_INFO, "training.device auto: the CPU computes: %s", why->text);
    run->told_cpu = true; /* once a job, not once a producer */
    return PN_OK;
}

/* The numbers of a producer's devices, of the n there are; a job's list rises, so that its last is its greatest. */
static size_t numbers_of(const struct pn_job *job, uint32_t producer, size_t n, size_t numbers[PN_MOST_DEVICES]) {
    size_t count = 0;
    if (n == 0) return 0;
    if (job->device != PN_DEVICE_CUDA) numbers[count++] = producer % n;
    for (size_t i = 0; job->device == PN_DEVICE_CUDA && i < PN_MOST_DEVICES && (job->devices != PN_ALL_DEVICES || i < n); i++)
        if (job->devices >> i & 1) numbers[count++] = i;
    return count;
}

enum pn_result pn_run_choose_device(struct pn_run *run, const struct pn_backend *(*gpu)(struct pn_error *), struct pn_error *err) {
    struct pn_error why = {""};
    size_t numbers[PN_MOST_DEVICES];
    if (!wanted(&run->job)) return PN_OK;
    if (run->job.privacy.secure) return without(run, PN_REFUSED, (pn_fail(&why, PN_REFUSED, "data holders of secure sums compute their steps on the CPU"), &why), err);
    if (gpu == NULL) return without(run, PN_NOT_FOUND, (pn_fail(&why, PN_NOT_FOUND, "this worker was built without CUDA"), &why), err);
    run->backend = gpu(&why);
    const size_t n = run->backend != NULL ? run->backend->devices(&why) : 0, count = numbers_of(&run->job, 0, n, numbers);
    if (n == 0) return without(run, PN_NOT_FOUND, &why, err);
    if (numbers[count - 1] >= n) {
        pn_fail(&why, PN_NOT_FOUND, "this machine has %zu CUDA device%s, from cuda:0 on", n, n == 1 ? "" : "s");
        return without(run, PN_NOT_FOUND, &why, err);
    }
    return PN_OK;
}

bool pn_run_devices(struct pn_run *run, uint32_t producer, struct pn_private_spec *private, struct pn_devices **devices) {
    struct pn_error why = {""}, err = {""};
    size_t numbers[PN_MOST_DEVICES];
    *devices = NULL;
    if (run->backend == NULL) return true;
    const size_t n = numbers_of(&run->job, producer, run->backend->devices(&why), numbers);
    enum pn_result r = n > 0 ? pn_devices_open(devices, run->backend, numbers, n, &run->job, run->n_dense_inputs, &why) : PN_NOT_FOUND;
    if (r == PN_OK && private != NULL) r = pn_devices_clip_units(*devices, private->clip, &why);
    if (r == PN_OK && private != NULL) r = pn_private_on_device(private, &why);
    if (r == PN_OK && run->job.cache_rows > 0) r = pn_device_cache(pn_devices_one(*devices, 0), run->job.cache_rows, run->job.cache_staleness, &why);
    if (r != PN_OK && *devices != NULL) {
        pn_devices_close(*devices);
        *devices = NULL;
    }
    if (r == PN_OK) {
        char text[PN_DEVICE_TEXT] = "";
        for (size_t i = 0, at = 0; i < n; i++) at += (size_t)snprintf(text + at, sizeof text - at, "%s%zu", i > 0 ? "," : "", numbers[i]);
        pn_log(run->env, PN_INFO, "producer %u computes on %s:%s", producer, run->backend->name, text);
        return true;
    }
    r = without(run, r, &why, &err);
    if (r == PN_OK) return true;
    pn_run_fail(run, r, err.text);
    return false;
}
