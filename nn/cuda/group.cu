/* Several contexts as one group: a vector of each, summed over all, by NCCL: one communicator a device, all of this process. The library is no part of the module: it is loaded when
 * a job first wants several devices. No kernels here. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include "nn/cuda/runtime.cuh"
#ifdef PN_EMULATED
#define PN_NCCL 1 /* tests/parity/emulated_nccl.h */
#elif defined(PN_NCCL)
#include <nccl.h>
#endif

#ifndef PN_NCCL
static enum pn_result join(struct pn_group **, struct pn_ctx *const *, size_t, struct pn_error *err) {
    return pn_fail(err, PN_REFUSED, "several devices: this worker was built without NCCL (there was no nccl.h): take one device");
}
static void leave(struct pn_group *, bool) {}
static void all_reduce(struct pn_group *, float *const *, size_t) {}
#else
struct pn_nccl {
    decltype(&ncclCommInitAll) init;
    decltype(&ncclCommDestroy) destroy;
    decltype(&ncclCommAbort) abort_;
    decltype(&ncclGroupStart) start;
    decltype(&ncclGroupEnd) end;
    decltype(&ncclAllReduce) sum;
    decltype(&ncclGetErrorString) text;
};
struct pn_group {
    const struct pn_nccl *nccl;
    size_t n;
    struct pn_ctx *members[PN_MOST_DEVICES];
    ncclComm_t comms[PN_MOST_DEVICES];
};

/* Producers of one worker have groups of their own on the same devices: whoever queues, queues on all of them before the next does, so that their sums stand in one order. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#ifdef PN_EMULATED
static const struct pn_nccl *nccl(struct pn_error *) {
    static const struct pn_nccl all = {ncclCommInitAll, ncclCommDestroy, ncclCommAbort, ncclGroupStart, ncclGroupEnd, ncclAllReduce, ncclGetErrorString};
    return &all;
}
#else
template <class F> static bool find(void *library, const char *name, F *f) {
    *f = reinterpret_cast<F>(dlsym(library, name));
    return *f != nullptr;
}
static const struct pn_nccl *nccl(struct pn_error *err) { /* lock is held */
    static struct pn_nccl all;
    static bool found;
    if (found) return &all;
    void *library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
        pn_fail(err, PN_REFUSED, "several devices sum by NCCL, which cannot be loaded (%s): install libnccl2, or take one device", dlerror());
        return nullptr;
    }
    found = find(library, "ncclCommInitAll", &all.init) && find(library, "ncclCommDestroy", &all.destroy) && find(library, "ncclCommAbort", &all.abort_) &&
            find(library, "ncclGroupStart", &all.start) && find(library, "ncclGroupEnd", &all.end) && find(library, "ncclAllReduce", &all.sum) &&
            find(library, "ncclGetErrorString", &all.text);
    if (!found) pn_fail(err, PN_REFUSED, "several devices: libnccl.so.2 is none that has what is needed (%s)", dlerror());
    return found ? &all : nullptr;
}
#endif

static enum pn_result join_locked(struct pn_group *g, struct pn_ctx *const *members, struct pn_error *err) {
    int devices[PN_MOST_DEVICES];
    if ((g->nccl = nccl(err)) == nullptr) return PN_REFUSED;
    for (size_t i = 0; i < g->n; i++) {
        g->members[i] = members[i];
        devices[i] = members[i]->device;
    }
    const ncclResult_t r = g->nccl->init(g->comms, (int)g->n, devices);
    return r == ncclSuccess ? PN_OK : pn_fail(err, PN_FAILED, "%zu devices cannot be joined by NCCL: %s", g->n, g->nccl->text(r));
}
static enum pn_result join(struct pn_group **out, struct pn_ctx *const *members, size_t n, struct pn_error *err) {
    struct pn_group *g = (struct pn_group *)calloc(1, sizeof *g);
    if (g == nullptr || n > PN_MOST_DEVICES) {
        free(g);
        return pn_fail(err, PN_NO_MEMORY, "no memory for a group of %zu devices", n);
    }
    g->n = n;
    pthread_mutex_lock(&lock);
    const enum pn_result r = join_locked(g, members, err);
    pthread_mutex_unlock(&lock);
    if (r == PN_OK) *out = g;
    else free(g);
    return r;
}

static void leave(struct pn_group *g, bool broken) {
    for (size_t i = 0; i < g->n; i++) {
        cudaSetDevice(g->members[i]->device);
        if (broken) g->nccl->abort_(g->comms[i]);
        else g->nccl->destroy(g->comms[i]);
    }
    free(g);
}

static void all_reduce(struct pn_group *g, float *const *x, size_t n) {
    pthread_mutex_lock(&lock);
    ncclResult_t r = g->nccl->start();
    for (size_t i = 0; r == ncclSuccess && i < g->n; i++) {
        cudaSetDevice(g->members[i]->device);
        r = g->nccl->sum(x[i], x[i], n, ncclFloat, ncclSum, g->comms[i], pn_compute(g->members[i]));
    }
    const ncclResult_t ended = g->nccl->end();
    pthread_mutex_unlock(&lock);
    if (r == ncclSuccess) r = ended;
    for (size_t i = 0; r != ncclSuccess && i < g->n; i++) {
        char what[200];
        snprintf(what, sizeof what, "NCCL's all-reduce over %zu devices: %s", g->n, g->nccl->text(r));
        pn_broken(g->members[i], what);
    }
}
#endif

void pn_fill_group(struct pn_backend *t) {
    t->join = join;
    t->leave = leave;
    t->all_reduce = all_reduce;
}
