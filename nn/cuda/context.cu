/* Devices, memory, streams, events and graphs. */
#include <stdlib.h>
#include "nn/cuda/runtime.cuh"

void pn_broken(struct pn_ctx *c, const char *what) {
    if (c->failed[0] == '\0') snprintf(c->failed, sizeof c->failed, "%s", what);
}

void *pn_scratch(struct pn_ctx *c, size_t n) {
    if (n <= c->n_scratch) return c->scratch;
    if (c->scratch != NULL && c->n_old == PN_OLD_SCRATCH) {
        pn_broken(c, "the scratch memory grew too often");
        return NULL;
    }
    void *p = NULL;
    const size_t wanted = n > 2 * c->n_scratch ? n : 2 * c->n_scratch;
    if (cudaMalloc(&p, wanted) != cudaSuccess) {
        cudaGetLastError();
        pn_broken(c, "no memory on the device for scratch");
        return NULL;
    }
    if (c->scratch != NULL) c->old[c->n_old++] = c->scratch;
    c->scratch = p;
    c->n_scratch = wanted;
    return p;
}

static size_t devices(struct pn_error *err) {
    int n = 0;
    const cudaError_t e = cudaGetDeviceCount(&n);
    if (e == cudaSuccess && n > 0) return (size_t)n;
    cudaGetLastError();
    pn_fail(err, PN_NOT_FOUND, "no CUDA device on this machine: %s", e == cudaSuccess ? "the driver counts none" : cudaGetErrorString(e));
    return 0;
}

static void close_(struct pn_ctx *c) {
    cudaSetDevice(c->device);
    for (int i = 0; i < PN_STREAMS; i++)
        if (c->streams[i] != NULL) cudaStreamSynchronize(c->streams[i]);
    pn_gemm_close(c);
    if (c->scratch != NULL) cudaFree(c->scratch);
    for (size_t i = 0; i < c->n_old; i++) cudaFree(c->old[i]);
    for (unsigned i = 0; i < PN_EVENTS; i++)
        if (c->events[i] != NULL) cudaEventDestroy(c->events[i]);
    for (int i = 0; i < PN_STREAMS; i++)
        if (c->streams[i] != NULL) cudaStreamDestroy(c->streams[i]);
    free(c);
}

static enum pn_result open_(struct pn_ctx **out, size_t device, enum pn_precision precision, struct pn_error *err) {
    const size_t n = devices(err);
    if (n == 0) return PN_NOT_FOUND;
    if (device >= n) return pn_fail(err, PN_NOT_FOUND, "device cuda:%zu: this machine has %zu CUDA devices", device, n);
    struct pn_ctx *c = (struct pn_ctx *)calloc(1, sizeof *c);
    if (c == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory for a context");
    c->device = (int)device;
    c->precision = precision;
    pn_check(c, cudaSetDevice(c->device), "cudaSetDevice");
    for (int i = 0; i < PN_STREAMS; i++) pn_check(c, cudaStreamCreateWithFlags(&c->streams[i], cudaStreamNonBlocking), "cudaStreamCreate");
    for (unsigned i = 0; i < PN_EVENTS; i++) pn_check(c, cudaEventCreateWithFlags(&c->events[i], cudaEventDefault), "cudaEventCreate");
    if (c->failed[0] == '\0' && !pn_gemm_open(c)) pn_broken(c, "cuBLASLt cannot be opened");
    if (c->failed[0] != '\0') {
        pn_fail(err, PN_FAILED, "device cuda:%zu: %s", device, c->failed);
        close_(c);
        return PN_FAILED;
    }
    *out = c;
    return PN_OK;
}

static void *alloc(struct pn_ctx *c, size_t n) {
    void *p = NULL;
    cudaSetDevice(c->device);
    if (cudaMalloc(&p, n > 0 ? n : 1) == cudaSuccess) return p;
    cudaGetLastError();
    return NULL;
}
static void release(struct pn_ctx *c, void *p) {
    cudaSetDevice(c->device);
    if (p != NULL) cudaFree(p);
}
static void *host_alloc(struct pn_ctx *c, size_t n) {
    void *p = NULL;
    cudaSetDevice(c->device);
    if (cudaMallocHost(&p, n > 0 ? n : 1) == cudaSuccess) return p;
    cudaGetLastError();
    return NULL;
}
static void host_release(struct pn_ctx *c, void *p) {
    cudaSetDevice(c->device);
    if (p != NULL) cudaFreeHost(p);
}
static void upload(struct pn_ctx *c, void *to, const void *host, size_t n) {
    cudaSetDevice(c->device); /* a thread's first call: work threads come and go */
    if (n > 0) pn_check(c, cudaMemcpyAsync(to, host, n, cudaMemcpyHostToDevice, c->streams[PN_STREAM_IN]), "copy to the device");
}
static void download(struct pn_ctx *c, void *host, const void *from, size_t n) {
    cudaSetDevice(c->device);
    if (n > 0) pn_check(c, cudaMemcpyAsync(host, from, n, cudaMemcpyDeviceToHost, c->streams[PN_STREAM_OUT]), "copy from the device");
}
static void clear(struct pn_ctx *c, void *p, size_t n) {
    cudaSetDevice(c->device);
    if (n > 0) pn_check(c, cudaMemsetAsync(p, 0, n, pn_compute(c)), "clear");
}
static void mark(struct pn_ctx *c, enum pn_stream s, size_t event) { pn_check(c, cudaEventRecord(c->events[event], c->streams[s]), "event"); }
static void after(struct pn_ctx *c, enum pn_stream s, size_t event) { pn_check(c, cudaStreamWaitEvent(c->streams[s], c->events[event], 0), "wait for an event"); }

static enum pn_result told(struct pn_ctx *c, cudaError_t e, struct pn_error *err) {
    if (e != cudaSuccess) return pn_fail(err, PN_FAILED, "device cuda:%d: %s", c->device, cudaGetErrorString(e));
    return c->failed[0] == '\0' ? PN_OK : pn_fail(err, PN_FAILED, "device cuda:%d: %s", c->device, c->failed);
}
static enum pn_result await(struct pn_ctx *c, size_t event, struct pn_error *err) {
    cudaSetDevice(c->device);
    return told(c, cudaEventSynchronize(c->events[event]), err);
}
static double elapsed(struct pn_ctx *c, size_t from, size_t to) {
    float ms = 0;
    cudaSetDevice(c->device);
    if (cudaEventElapsedTime(&ms, c->events[from], c->events[to]) == cudaSuccess) return (double)ms / 1e3;
    cudaGetLastError();
    return 0;
}
static enum pn_result finish(struct pn_ctx *c, struct pn_error *err) {
    cudaError_t e = cudaSuccess;
    cudaSetDevice(c->device);
    for (int i = 0; i < PN_STREAMS && e == cudaSuccess; i++) e = cudaStreamSynchronize(c->streams[i]);
    return told(c, e, err);
}

static bool capture(struct pn_ctx *c) {
    cudaSetDevice(c->device);
    const bool ok = cudaStreamBeginCapture(pn_compute(c), cudaStreamCaptureModeThreadLocal) == cudaSuccess;
    if (!ok) cudaGetLastError();
    return ok;
}
static void *captured(struct pn_ctx *c) {
    cudaGraph_t g = NULL;
    cudaGraphExec_t run = NULL;
    if (cudaStreamEndCapture(pn_compute(c), &g) == cudaSuccess && g != NULL && cudaGraphInstantiate(&run, g, 0) != cudaSuccess) run = NULL;
    if (g != NULL) cudaGraphDestroy(g);
    cudaGetLastError();
    return (void *)run;
}
static void replay(struct pn_ctx *c, void *g) { pn_check(c, cudaGraphLaunch((cudaGraphExec_t)g, pn_compute(c)), "a captured step"); }
static void graph_free(struct pn_ctx *c, void *g) {
    cudaSetDevice(c->device);
    cudaGraphExecDestroy((cudaGraphExec_t)g);
}

void pn_fill_context(struct pn_backend *t) {
    t->devices = devices;
    t->open = open_;
    t->close = close_;
    t->alloc = alloc;
    t->free = release;
    t->host_alloc = host_alloc;
    t->host_free = host_release;
    t->upload = upload;
    t->download = download;
    t->clear = clear;
    t->mark = mark;
    t->after = after;
    t->await = await;
    t->finish = finish;
    t->elapsed = elapsed;
    t->capture = capture;
    t->captured = captured;
    t->replay = replay;
    t->graph_free = graph_free;
}
