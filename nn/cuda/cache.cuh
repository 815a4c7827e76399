/* A cache of hot rows in device memory: the hash table. After HierarchicalKV (NVIDIA, 2023): buckets of one cache line of digests, eviction inside a bucket by score, so
 * that it stays full at its best.
 *
 * A key lives in bucket mix(key) / 128 (one bucket, no chain). A bucket has 128 places; digests[128] (one byte a key, of other bits of its mix; 0: empty) are what a
 * look-up reads first: 128 bytes. Only places of the right digest have their key compared (one in 255 by chance). A row, its key, its score and the step it was last
 * refreshed at stand in arrays beside it.
 *
 * A step of the worker: find -> (hits: rows gathered; misses and stale rows: pulled from the servers, then insert) -> accumulate (what this worker pushes is also taken
 * off the copy, as plain SGD would, if asked) -> push as usual: the server stays the truth. A row is stale when `now - refreshed > staleness`.
 *
 * Threads. A group of 32 lanes (a warp) a key: each lane compares four digests, one ballot tells the places. An insertion locks its bucket (one word), so that two keys
 * of one bucket do not take one place; equal keys in one batch are the caller's to remove (a batch's keys are unique). Everything below runs as well on the host, by the
 * warp emulation of tests/parity. */
#ifndef PN_NN_CUDA_CACHE_CUH
#define PN_NN_CUDA_CACHE_CUH

#include "nn/cuda/runtime.cuh"

#define PN_CACHE_PLACES 128u
#define PN_CACHE_NONE UINT64_MAX

struct pn_cache_table {
    uint64_t n_buckets;       /* a power of two */
    size_t dim;
    uint32_t *digests;        /* n_buckets * 32: four digests a word */
    uint64_t *keys;           /* n_buckets * 128 */
    uint32_t *scores;         /* ... how often and how lately: the step of the last use, or uses, as the caller says; the least is evicted */
    uint32_t *refreshed;      /* step of the last insertion */
    float *rows;              /* ... * dim */
    uint32_t *locks;          /* n_buckets */
};
__host__ __device__ static inline uint32_t pn_cache_digest(uint64_t mixed) { return (uint32_t)(1 + (mixed >> 56) % 255); }
__host__ __device__ static inline uint64_t pn_cache_bucket(uint64_t mixed, uint64_t n_buckets) { return mixed & (n_buckets - 1); }

/* The place of a key, PN_CACHE_NONE if it is not there; the same in all lanes. */
__device__ static inline uint64_t pn_cache_find(const struct pn_cache_table &t, uint64_t key, unsigned lane) {
    const uint64_t mixed = pn_mix(key), bucket = pn_cache_bucket(mixed, t.n_buckets);
    const uint32_t four = t.digests[bucket * 32 + lane], digest = pn_cache_digest(mixed);
    uint64_t found = PN_CACHE_NONE;
    for (unsigned j = 0; j < 4; j++) {
        const uint64_t place = bucket * PN_CACHE_PLACES + lane * 4 + j;
        if ((four >> (8 * j) & 0xff) == digest && t.keys[place] == key) found = place;
    }
    const unsigned who = __ballot_sync(PN_FULL, found != PN_CACHE_NONE);
    return who == 0 ? PN_CACHE_NONE : __shfl_sync(PN_FULL, found, (unsigned)__ffs((int)who) - 1);
}
/* Where a new key of that bucket goes: an empty place, else the one of the least score (of equals the first); the same in all lanes. The bucket is locked. */
__device__ static inline uint64_t pn_cache_victim(const struct pn_cache_table &t, uint64_t bucket, unsigned lane) {
    uint64_t best = UINT64_MAX; /* score and place in one number: 0 for an empty one */
    const uint32_t four = t.digests[bucket * 32 + lane];
    for (unsigned j = 0; j < 4; j++) {
        const uint64_t in = lane * 4 + j, score = (four >> (8 * j) & 0xff) == 0 ? 0 : 1 + (uint64_t)t.scores[bucket * PN_CACHE_PLACES + in];
        const uint64_t both = score << 8 | in;
        best = both < best ? both : best;
    }
    for (unsigned o = 16; o > 0; o /= 2) {
        const uint64_t other = __shfl_xor_sync(PN_FULL, best, o);
        best = other < best ? other : best;
    }
    return bucket * PN_CACHE_PLACES + (best & 0xff);
}

#ifndef PN_EMULATED
/* One lane takes the lock for its warp. A warp holds one lock at a time and asks for none meanwhile, so nobody waits in a circle. */
__device__ static inline void pn_cache_lock(uint32_t *lock, unsigned lane) {
    if (lane == 0)
        while (atomicCAS(lock, 0u, 1u) != 0u) __nanosleep(64);
    __syncwarp();
    __threadfence();
}
#else
/* Fibers: while another warp holds it, the others run on. */
static inline void pn_cache_lock(uint32_t *lock, unsigned lane) {
    for (;;) {
        unsigned taken = lane == 0 && atomicCAS(lock, 0u, 1u) == 0u;
        if (__shfl_sync(PN_FULL, taken, 0u)) return;
    }
}
#endif
__device__ static inline void pn_cache_unlock(uint32_t *lock, unsigned lane) {
    __threadfence();
    __syncwarp();
    if (lane == 0) atomicExch(lock, 0u);
}
#endif
