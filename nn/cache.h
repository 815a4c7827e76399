/* A cache of hot rows in a GPU's memory (nn/cuda/cache.cuh says how it is laid out). The servers stay the truth: what is found here need not be pulled, for `staleness`
 * steps; gradients are pushed as ever. Keys of one call are unique. All pointers are device memory of the context. One context's calls run in order, on its stream IN, behind the
 * copies that bring them keys and rows: a find need not wait for the step that computes. */
#ifndef PN_NN_CACHE_H
#define PN_NN_CACHE_H

#include "nn/backend.h"
#ifdef __cplusplus
extern "C" {
#endif

struct pn_cache;
struct pn_cache_counts { uint64_t found, missing, stale, inserted, evicted; };

struct pn_cache_ops {
    /* Room for at least n_rows rows (rounded up: a power of two of buckets of 128). NULL: no memory. */
    struct pn_cache *(*open)(struct pn_ctx *, size_t n_rows, size_t dim);
    void (*close)(struct pn_cache *);
    size_t (*room)(const struct pn_cache *); /* rows */
    void (*empty)(struct pn_cache *);        /* of all rows */
    /* rows[i * dim ..] = the copy of keys[i], hit[i] = 1, where there is one that is not older than `staleness` steps at step `now`; else hit[i] = 0 and the row is
     * left as it is. A find counts as a use: the score becomes `now`. */
    void (*find)(struct pn_cache *, const uint64_t *keys, size_t n, uint32_t now, uint32_t staleness, float *rows, uint32_t *hit);
    /* Puts rows in (fresh at `now`), over the old copy or in the place of the bucket's least used row. Where hit is given only rows of hit 0. Which of a batch's rows stay
     * when a bucket gets more than 128 of them depends on their order on the device: those are rows, never which values. */
    void (*insert)(struct pn_cache *, const uint64_t *keys, const float *rows, const uint32_t *hit, size_t n, uint32_t now);
    /* A batch's rows from both sources: out[i] = found[i] where source[i] is UINT32_MAX, else pulled[source[i]]. */
    void (*assemble)(struct pn_ctx *, const float *found, const float *pulled, const uint32_t *source, size_t n, size_t dim, float *out);
    /* row -= rate * gradient for keys that are here: a worker sees its own steps before the servers' answer comes back. */
    void (*accumulate)(struct pn_cache *, const uint64_t *keys, const float *gradients, size_t n, float rate);
    /* Waits, and tells what happened since the last call. */
    struct pn_cache_counts (*look)(struct pn_cache *);
};
const struct pn_cache_ops *pn_cache_module(void);
/* nn/cpu/cache.c: the reference. */
extern const struct pn_cache_ops pn_cache_cpu;

#ifdef __cplusplus
}
#endif
#endif
