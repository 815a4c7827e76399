/* nn/cache.h over the table of cache.cuh. Threads: a warp a key; its lanes then copy the row side by side. */
#include <stdlib.h>
#include "nn/cache.h"
#include "nn/cuda/cache.cuh"

struct pn_cache {
    struct pn_ctx *ctx;
    struct pn_cache_table t;
    unsigned long long *counts; /* as struct pn_cache_counts, on the device */
};
enum { FOUND, MISSING, STALE, INSERTED, EVICTED, N_COUNTS };
static cudaStream_t cache_stream(const struct pn_ctx *ctx) { return ctx->streams[PN_STREAM_IN]; }

__global__ void cache_find_kernel(struct pn_cache_table t, const uint64_t *keys, size_t n, uint32_t now, uint32_t staleness, float *rows, uint32_t *hit, unsigned long long *counts) {
    const unsigned lane = threadIdx.x % 32;
    const size_t warps = (size_t)gridDim.x * (blockDim.x / 32);
    for (size_t i = (size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; i < n; i += warps) {
        const uint64_t place = pn_cache_find(t, keys[i], lane);
        const bool there = place != PN_CACHE_NONE, fresh = there && now - t.refreshed[place] <= staleness;
        if (fresh)
            for (size_t d = lane; d < t.dim; d += 32) rows[i * t.dim + d] = t.rows[place * t.dim + d];
        if (lane == 0) {
            hit[i] = fresh;
            if (fresh) t.scores[place] = now;
            atomicAdd(&counts[fresh ? FOUND : there ? STALE : MISSING], 1ull);
        }
    }
}
__global__ void cache_insert_kernel(struct pn_cache_table t, const uint64_t *keys, const float *rows, const uint32_t *hit, size_t n, uint32_t now, unsigned long long *counts) {
    const unsigned lane = threadIdx.x % 32;
    const size_t warps = (size_t)gridDim.x * (blockDim.x / 32);
    for (size_t i = (size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; i < n; i += warps) {
        if (hit != NULL && hit[i] != 0) continue;
        const uint64_t mixed = pn_mix(keys[i]), bucket = pn_cache_bucket(mixed, t.n_buckets);
        pn_cache_lock(&t.locks[bucket], lane);
        uint64_t place = pn_cache_find(t, keys[i], lane);
        const bool there = place != PN_CACHE_NONE;
        if (!there) place = pn_cache_victim(t, bucket, lane);
        for (size_t d = lane; d < t.dim; d += 32) t.rows[place * t.dim + d] = rows[i * t.dim + d];
        if (lane == 0) {
            const uint64_t in = place % PN_CACHE_PLACES;
            uint32_t *four = &t.digests[bucket * 32 + in / 4];
            const unsigned shift = 8 * (in % 4);
            if (!there) atomicAdd(&counts[(*four >> shift & 0xff) != 0 ? EVICTED : INSERTED], 1ull);
            t.keys[place] = keys[i];
            t.scores[place] = now;
            t.refreshed[place] = now;
            *four = (*four & ~(0xffu << shift)) | pn_cache_digest(mixed) << shift;
        }
        pn_cache_unlock(&t.locks[bucket], lane);
    }
}
__global__ void cache_accumulate_kernel(struct pn_cache_table t, const uint64_t *keys, const float *gradients, size_t n, float rate) {
    const unsigned lane = threadIdx.x % 32;
    const size_t warps = (size_t)gridDim.x * (blockDim.x / 32);
    for (size_t i = (size_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; i < n; i += warps) {
        const uint64_t place = pn_cache_find(t, keys[i], lane);
        if (place == PN_CACHE_NONE) continue;
        for (size_t d = lane; d < t.dim; d += 32) t.rows[place * t.dim + d] -= rate * gradients[i * t.dim + d];
    }
}

static void cache_close(struct pn_cache *c) {
    void *all[] = {c->t.digests, c->t.keys, c->t.scores, c->t.refreshed, c->t.rows, c->t.locks, c->counts};
    cudaSetDevice(c->ctx->device);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (all[i] != NULL) cudaFree(all[i]);
    free(c);
}
static struct pn_cache *cache_open(struct pn_ctx *ctx, size_t n_rows, size_t dim) {
    struct pn_cache *c = (struct pn_cache *)calloc(1, sizeof *c);
    if (c == NULL) return NULL;
    c->ctx = ctx;
    c->t.dim = dim;
    for (c->t.n_buckets = 1; c->t.n_buckets * PN_CACHE_PLACES < n_rows;) c->t.n_buckets *= 2;
    const size_t places = c->t.n_buckets * PN_CACHE_PLACES;
    cudaSetDevice(ctx->device);
    bool ok = cudaMalloc((void **)&c->t.digests, c->t.n_buckets * 128) == cudaSuccess && cudaMalloc((void **)&c->t.keys, places * 8) == cudaSuccess;
    ok = ok && cudaMalloc((void **)&c->t.scores, places * 4) == cudaSuccess && cudaMalloc((void **)&c->t.refreshed, places * 4) == cudaSuccess;
    ok = ok && cudaMalloc((void **)&c->t.rows, places * dim * sizeof(float)) == cudaSuccess && cudaMalloc((void **)&c->t.locks, c->t.n_buckets * 4) == cudaSuccess;
    ok = ok && cudaMalloc((void **)&c->counts, N_COUNTS * sizeof *c->counts) == cudaSuccess;
    if (!ok) {
        cudaGetLastError();
        cache_close(c);
        return NULL;
    }
    pn_check(ctx, cudaMemsetAsync(c->t.digests, 0, c->t.n_buckets * 128, cache_stream(ctx)), "cache");
    pn_check(ctx, cudaMemsetAsync(c->t.locks, 0, c->t.n_buckets * 4, cache_stream(ctx)), "cache");
    pn_check(ctx, cudaMemsetAsync(c->counts, 0, N_COUNTS * sizeof *c->counts, cache_stream(ctx)), "cache");
    return c;
}
static void cache_empty(struct pn_cache *c) { /* what the digests do not name is not there */
    cudaSetDevice(c->ctx->device);
    pn_check(c->ctx, cudaMemsetAsync(c->t.digests, 0, c->t.n_buckets * 128, cache_stream(c->ctx)), "cache");
}
static size_t cache_room(const struct pn_cache *c) { return c->t.n_buckets * PN_CACHE_PLACES; }
static unsigned warps_for(size_t n) {
    const unsigned b = pn_blocks(n, 8);
    return b < 1u << 20 ? b : 1u << 20;
}
static void cache_find(struct pn_cache *c, const uint64_t *keys, size_t n, uint32_t now, uint32_t staleness, float *rows, uint32_t *hit) {
    if (n > 0) PN_LAUNCH(cache_find_kernel, warps_for(n), 256, 0, cache_stream(c->ctx), c->t, keys, n, now, staleness, rows, hit, c->counts);
    pn_launched(c->ctx, "cache find");
}
static void cache_insert(struct pn_cache *c, const uint64_t *keys, const float *rows, const uint32_t *hit, size_t n, uint32_t now) {
    if (n > 0) PN_LAUNCH(cache_insert_kernel, warps_for(n), 256, 0, cache_stream(c->ctx), c->t, keys, rows, hit, n, now, c->counts);
    pn_launched(c->ctx, "cache insert");
}
__global__ void cache_assemble_kernel(const float *found, const float *pulled, const uint32_t *source, size_t n, size_t dim, float *out) {
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n * dim; i += (size_t)gridDim.x * blockDim.x) {
        const uint32_t from = source[i / dim];
        out[i] = from == UINT32_MAX ? found[i] : pulled[(size_t)from * dim + i % dim];
    }
}
static void cache_assemble(struct pn_ctx *ctx, const float *found, const float *pulled, const uint32_t *source, size_t n, size_t dim, float *out) {
    const unsigned blocks = pn_blocks(n * dim, 256);
    if (n > 0) PN_LAUNCH(cache_assemble_kernel, blocks < 65536 ? blocks : 65536, 256, 0, cache_stream(ctx), found, pulled, source, n, dim, out);
    pn_launched(ctx, "cache assemble");
}
static void cache_accumulate(struct pn_cache *c, const uint64_t *keys, const float *gradients, size_t n, float rate) {
    if (n > 0) PN_LAUNCH(cache_accumulate_kernel, warps_for(n), 256, 0, cache_stream(c->ctx), c->t, keys, gradients, n, rate);
    pn_launched(c->ctx, "cache accumulate");
}
static struct pn_cache_counts cache_look(struct pn_cache *c) {
    unsigned long long n[N_COUNTS] = {0};
    cudaSetDevice(c->ctx->device);
    pn_check(c->ctx, cudaMemcpyAsync(n, c->counts, sizeof n, cudaMemcpyDeviceToHost, cache_stream(c->ctx)), "cache counts");
    pn_check(c->ctx, cudaMemsetAsync(c->counts, 0, sizeof n, cache_stream(c->ctx)), "cache counts");
    pn_check(c->ctx, cudaStreamSynchronize(cache_stream(c->ctx)), "cache counts");
    struct pn_cache_counts out = {n[FOUND], n[MISSING], n[STALE], n[INSERTED], n[EVICTED]};
    return out;
}

extern "C" const struct pn_cache_ops *pn_cache_module(void) {
    static const struct pn_cache_ops ops = {cache_open, cache_close, cache_room, cache_empty, cache_find, cache_insert, cache_assemble, cache_accumulate, cache_look};
    return &ops;
}
