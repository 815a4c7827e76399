/* As much of CUDA as nn/cuda/ uses, on the host, so that its kernels run where no device is. One block at a time; each of its threads is a fiber. A fiber runs until a
 * barrier or a shuffle, then another, in an order that a seed draws: what needs a barrier and has none gives different results. What a device leaves undefined ends the
 * program with a line: a barrier that some threads of the block never reach, a shuffle without its whole warp.
 *
 * There are PINION_EMULATED_DEVICES devices (1). What a device refuses ends the program: a launch into a stream of a device that is not the thread's current one, an event of
 * another device than its stream's.
 *
 * Device memory ends at a page that may not be touched and begins as NaN; shared memory too begins as NaN. Streams run in place. A captured stream keeps its launches
 * and replays them. Not emulated: time, memory order between blocks, cuBLASLt (emulated_gemm.h). */
#ifndef PN_TESTS_PARITY_EMULATED_H
#define PN_TESTS_PARITY_EMULATED_H

#include <functional>
#include <math.h>
#include <mutex>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace emulated {
enum state { RUNS, AT_BLOCK, AT_WARP, DONE };
struct fiber { ucontext_t context; enum state state; dim3 thread; uint64_t lane_value; };
struct block_state {
    std::vector<fiber> fibers;
    std::vector<char *> stacks;
    size_t current = 0;
    ucontext_t scheduler;
    dim3 grid, block, index;
    unsigned char *shared = nullptr;
    size_t n_shared = 0;
    std::function<void()> body;
    uint64_t draw = 1;
    bool capturing = false;
    std::vector<std::function<void()>> *captured = nullptr;
    unsigned long launches = 0;
};
inline int &device() { static thread_local int d = 0; return d; } /* cudaSetDevice's */
inline int devices() {
    const char *n = getenv("PINION_EMULATED_DEVICES");
    return n != nullptr && atoi(n) > 0 ? atoi(n) : 1;
}
inline block_state &now() { static thread_local block_state s; return s; } /* two producers compute at once */
[[noreturn]] inline void undefined(const char *what) {
    fprintf(stderr, "emulated: %s\n", what);
    abort();
}
inline void yield(enum state s) {
    block_state &b = now();
    fiber &f = b.fibers[b.current];
    f.state = s;
    swapcontext(&f.context, &b.scheduler);
}
inline void enter() {
    block_state &b = now();
    b.body();
    b.fibers[b.current].state = DONE;
    swapcontext(&b.fibers[b.current].context, &b.scheduler);
}
enum { STACK = 64 * 1024 };

inline void run_block(size_t n) {
    block_state &b = now();
    while (b.stacks.size() < n) b.stacks.push_back((char *)malloc(STACK));
    if (b.fibers.size() != n) b.fibers = std::vector<fiber>(n);
    for (size_t i = 0; i < n; i++) {
        fiber &f = b.fibers[i];
        getcontext(&f.context);
        f.context.uc_stack.ss_sp = b.stacks[i];
        f.context.uc_stack.ss_size = STACK;
        f.context.uc_link = nullptr;
        f.state = RUNS;
        f.thread = dim3((unsigned)(i % b.block.x), (unsigned)(i / b.block.x % b.block.y), (unsigned)(i / b.block.x / b.block.y));
        makecontext(&f.context, enter, 0);
    }
    std::vector<size_t> order(n);
    for (size_t i = 0; i < n; i++) order[i] = i;
    for (size_t left = n; left > 0;) {
        for (size_t i = n; i > 1; i--) { /* another order each round */
            b.draw = b.draw * 6364136223846793005ull + 1442695040888963407ull;
            std::swap(order[i - 1], order[(b.draw >> 33) % i]);
        }
        for (size_t i : order)
            if (b.fibers[i].state == RUNS) {
                b.current = i;
                swapcontext(&b.scheduler, &b.fibers[i].context);
                left -= b.fibers[i].state == DONE;
            }
        size_t at_block = 0, released = 0;
        for (size_t w = 0; w < n; w += 32) {
            size_t waiting = 0, in = n - w < 32 ? n - w : 32;
            for (size_t i = w; i < w + in; i++) waiting += b.fibers[i].state == AT_WARP, at_block += b.fibers[i].state == AT_BLOCK;
            if (waiting == 0) continue;
            if (waiting < in) undefined("a shuffle that not all lanes of the warp reach");
            for (size_t i = w; i < w + in; i++) b.fibers[i].state = RUNS;
            released += in;
        }
        if (released > 0 || left == 0) continue;
        if (at_block != n) undefined("a barrier that some threads of the block never reach");
        for (size_t i = 0; i < n; i++) b.fibers[i].state = RUNS;
    }
}

/* Memory whose last byte lies before a page that may not be touched. */
struct region { unsigned char *base; size_t bytes; unsigned char *user; };
inline std::vector<region> &regions() { static std::vector<region> r; return r; }
inline std::mutex &regions_lock() { static std::mutex m; return m; }
inline void *guarded(size_t n) {
    const size_t page = 4096, size = (n + 15) / 16 * 16, all = (size + page - 1) / page * page + page;
    unsigned char *p = (unsigned char *)mmap(nullptr, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return nullptr;
    mprotect(p + all - page, page, PROT_NONE);
    memset(p, 0xff, all - page);
    std::lock_guard<std::mutex> held(regions_lock());
    regions().push_back({p, all, p + all - page - size});
    return regions().back().user;
}
inline void unguard(void *user) {
    std::lock_guard<std::mutex> held(regions_lock());
    std::vector<region> &r = regions();
    for (size_t i = 0; i < r.size(); i++)
        if (r[i].user == user) {
            munmap(r[i].base, r[i].bytes);
            r.erase(r.begin() + (long)i);
            return;
        }
    if (user != nullptr) undefined("memory is freed that was not allocated");
}

inline void launch(dim3 grid, dim3 block, size_t n_shared, std::function<void()> body) {
    block_state &b = now();
    if (b.capturing) {
        b.captured->push_back([=] { launch(grid, block, n_shared, body); });
        return;
    }
    const size_t n = (size_t)block.x * block.y * block.z;
    if (n == 0 || n > 1024 || grid.x == 0 || grid.y == 0 || grid.y > 65535 || grid.z == 0 || n_shared > 227 * 1024) undefined("a launch that a device refuses");
    b.launches++;
    unsigned char *shared = n_shared > 0 ? (unsigned char *)guarded(n_shared) : nullptr;
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                b.grid = grid;
                b.block = block;
                b.index = dim3(x, y, z);
                b.shared = shared;
                b.body = body;
                if (shared != nullptr) memset(shared, 0xff, n_shared);
                run_block(n);
            }
    if (shared != nullptr) unguard(shared);
}
} // namespace emulated

typedef struct emulated_stream { int device; } *cudaStream_t;
#define threadIdx (emulated::now().fibers[emulated::now().current].thread)
#define blockIdx (emulated::now().index)
#define blockDim (emulated::now().block)
#define gridDim (emulated::now().grid)
#define PN_SHARED(type, name) type *name = (type *)emulated::now().shared
#define PN_LAUNCH(kernel, grid, block, shared, stream, ...) emulated_launch(stream, kernel, dim3(grid), dim3(block), shared, __VA_ARGS__)
template <class... P, class... A> void emulated_launch(const emulated_stream *stream, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, A... a) {
    if (stream->device != emulated::device()) emulated::undefined("a launch into a stream of another device");
    emulated::launch(grid, block, shared, [=] { kernel(a...); });
}

static inline void __syncthreads() { emulated::yield(emulated::AT_BLOCK); }
static inline void __syncwarp(unsigned = 0xffffffffu) { emulated::yield(emulated::AT_WARP); }
template <class T> static inline T emulated_from_lane(T x, unsigned from) {
    emulated::block_state &b = emulated::now();
    static_assert(sizeof(T) <= 8, "a lane's value");
    const size_t me = b.current;
    memcpy(&b.fibers[me].lane_value, &x, sizeof x);
    emulated::yield(emulated::AT_WARP);
    T y;
    memcpy(&y, &b.fibers[me / 32 * 32 + from].lane_value, sizeof y);
    emulated::yield(emulated::AT_WARP);
    return y;
}
static inline unsigned emulated_lane() { return (unsigned)(emulated::now().current % 32); }
template <class T> static inline T __shfl_xor_sync(unsigned, T x, unsigned o, unsigned = 32) { return emulated_from_lane(x, emulated_lane() ^ o); }
template <class T> static inline T __shfl_sync(unsigned, T x, unsigned from, unsigned width = 32) { return emulated_from_lane(x, emulated_lane() / width * width + from % width); }
static inline unsigned __ballot_sync(unsigned, int p) {
    emulated::block_state &b = emulated::now();
    const size_t me = b.current, warp = me / 32 * 32;
    unsigned all = 0;
    b.fibers[me].lane_value = p != 0;
    emulated::yield(emulated::AT_WARP);
    for (unsigned i = 0; i < 32; i++) all |= (unsigned)(b.fibers[warp + i].lane_value != 0) << i;
    emulated::yield(emulated::AT_WARP);
    return all;
}
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
template <class T> static inline T atomicAdd(T *p, T x) { T old = *p; *p += x; return old; }
template <class T> static inline T atomicCAS(T *p, T expected, T x) { T old = *p; if (old == expected) *p = x; return old; }
template <class T> static inline T atomicExch(T *p, T x) { T old = *p; *p = x; return old; }
template <class T> static inline T atomicMax(T *p, T x) { T old = *p; if (x > old) *p = x; return old; }
static inline void __threadfence() {}

/* ---- the runtime ---- */
typedef int cudaError_t;
enum { cudaSuccess = 0, cudaErrorMemoryAllocation = 2, cudaErrorInvalidValue = 1 };
typedef struct emulated_event { int device; struct timespec at; } *cudaEvent_t;
typedef std::vector<std::function<void()>> *cudaGraph_t, *cudaGraphExec_t;
enum { cudaStreamNonBlocking = 1, cudaEventDefault = 0, cudaStreamCaptureModeThreadLocal = 1 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
static inline const char *cudaGetErrorString(cudaError_t e) { return e == cudaErrorMemoryAllocation ? "out of memory" : "failed"; }
static inline cudaError_t cudaGetLastError() { return cudaSuccess; }
static inline cudaError_t cudaGetDeviceCount(int *n) { *n = emulated::devices(); return cudaSuccess; }
static inline cudaError_t cudaSetDevice(int d) {
    if (d < 0 || d >= emulated::devices()) return cudaErrorInvalidValue;
    emulated::device() = d;
    return cudaSuccess;
}
static inline cudaError_t cudaMalloc(void **p, size_t n) { return (*p = emulated::guarded(n)) != nullptr ? cudaSuccess : cudaErrorMemoryAllocation; }
static inline cudaError_t cudaFree(void *p) { emulated::unguard(p); return cudaSuccess; }
static inline cudaError_t cudaMallocHost(void **p, size_t n) { return (*p = malloc(n)) != nullptr ? cudaSuccess : cudaErrorMemoryAllocation; }
static inline cudaError_t cudaFreeHost(void *p) { free(p); return cudaSuccess; }
static inline cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, cudaMemcpyKind, cudaStream_t) { if (n > 0) memcpy(to, from, n); return cudaSuccess; }
static inline cudaError_t cudaMemsetAsync(void *p, int v, size_t n, cudaStream_t) {
    emulated::block_state &b = emulated::now();
    if (b.capturing) b.captured->push_back([=] { memset(p, v, n); });
    else if (n > 0) memset(p, v, n);
    return cudaSuccess;
}
static inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, int) { *s = new emulated_stream{emulated::device()}; return cudaSuccess; }
static inline cudaError_t cudaStreamDestroy(cudaStream_t s) { delete s; return cudaSuccess; }
static inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
static inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, int) { *e = new emulated_event{emulated::device(), {}}; return cudaSuccess; }
static inline cudaError_t cudaEventDestroy(cudaEvent_t e) { delete e; return cudaSuccess; }
static inline cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) { /* streams run in place */
    if (e->device != s->device) emulated::undefined("an event of another device than its stream's");
    clock_gettime(CLOCK_MONOTONIC, &e->at);
    return cudaSuccess;
}
static inline cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t a, cudaEvent_t b) {
    *ms = (float)(1e3 * (double)(b->at.tv_sec - a->at.tv_sec) + 1e-6 * (double)(b->at.tv_nsec - a->at.tv_nsec));
    return cudaSuccess;
}
static inline cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
static inline cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, int) { return cudaSuccess; }
static inline cudaError_t cudaStreamBeginCapture(cudaStream_t, int) {
    emulated::now().capturing = true;
    emulated::now().captured = new std::vector<std::function<void()>>();
    return cudaSuccess;
}
static inline cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t *g) {
    emulated::now().capturing = false;
    *g = emulated::now().captured;
    return cudaSuccess;
}
static inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t *e, cudaGraph_t g, unsigned long long) { *e = new std::vector<std::function<void()>>(*g); return cudaSuccess; }
static inline cudaError_t cudaGraphDestroy(cudaGraph_t g) { delete g; return cudaSuccess; }
static inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t g) { delete g; return cudaSuccess; }
static inline cudaError_t cudaGraphLaunch(cudaGraphExec_t g, cudaStream_t) {
    for (auto &f : *g) f();
    return cudaSuccess;
}
template <class K> static inline cudaError_t cudaFuncSetAttribute(K, int, int) { return cudaSuccess; }
enum { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
#endif
