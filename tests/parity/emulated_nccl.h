/* As much of NCCL as nn/cuda/group.cu uses, over the emulator's devices: what is queued between a start and an end is summed at the end, in the order of ranks. What would hang a
 * device ends the program: a rank without a sum, or with two, or of another length; a stream of another device than the communicator's. */
#ifndef PN_TESTS_PARITY_EMULATED_NCCL_H
#define PN_TESTS_PARITY_EMULATED_NCCL_H

#include <atomic>
#include <vector>
#include "tests/parity/emulated.h"

typedef enum { ncclSuccess = 0, ncclInvalidArgument = 4 } ncclResult_t;
typedef enum { ncclFloat = 7 } ncclDataType_t;
typedef enum { ncclSum = 0 } ncclRedOp_t;
struct emulated_clique { int n; std::atomic<int> left; };
typedef struct emulated_comm { struct emulated_clique *clique; int rank, device; } *ncclComm_t;

namespace emulated {
struct reduction { ncclComm_t comm; const float *from; float *to; size_t n; };
inline std::vector<reduction> &queued() { static thread_local std::vector<reduction> q; return q; }
inline int &open_groups() { static thread_local int n = 0; return n; }
} // namespace emulated

static inline const char *ncclGetErrorString(ncclResult_t r) { return r == ncclSuccess ? "no error" : "invalid argument"; }
static inline ncclResult_t ncclCommInitAll(ncclComm_t *comms, int n, const int *devices) {
    for (int i = 0; i < n; i++)
        for (int j = 0; j <= i; j++)
            if (devices[i] < 0 || devices[i] >= emulated::devices() || (j < i && devices[i] == devices[j])) return ncclInvalidArgument;
    emulated_clique *clique = new emulated_clique{n, {n}};
    for (int i = 0; i < n; i++) comms[i] = new emulated_comm{clique, i, devices[i]};
    return ncclSuccess;
}
static inline ncclResult_t ncclCommDestroy(ncclComm_t c) {
    if (--c->clique->left == 0) delete c->clique;
    delete c;
    return ncclSuccess;
}
static inline ncclResult_t ncclCommAbort(ncclComm_t c) { return ncclCommDestroy(c); }
static inline ncclResult_t ncclGroupStart() {
    emulated::open_groups()++;
    return ncclSuccess;
}
static inline ncclResult_t ncclAllReduce(const void *from, void *to, size_t n, ncclDataType_t, ncclRedOp_t, ncclComm_t c, cudaStream_t stream) {
    if (emulated::open_groups() == 0) emulated::undefined("a sum over several devices of one thread, outside of a group: the first would wait for the others for ever");
    if (emulated::now().capturing) emulated::undefined("a sum over devices within a capture");
    if (stream->device != c->device) emulated::undefined("a communicator's sum on another device's stream");
    emulated::queued().push_back({c, (const float *)from, (float *)to, n});
    return ncclSuccess;
}
static inline ncclResult_t ncclGroupEnd() {
    std::vector<emulated::reduction> &q = emulated::queued();
    if (--emulated::open_groups() > 0 || q.empty()) return ncclSuccess;
    std::vector<const emulated::reduction *> ranks((size_t)q[0].comm->clique->n, nullptr);
    for (const emulated::reduction &r : q) {
        if (r.comm->clique != q[0].comm->clique || r.n != q[0].n) emulated::undefined("sums of two lengths or groups in one call");
        if (ranks[(size_t)r.comm->rank] != nullptr) emulated::undefined("a rank with two sums");
        ranks[(size_t)r.comm->rank] = &r;
    }
    for (const emulated::reduction *r : ranks)
        if (r == nullptr) emulated::undefined("a rank without a sum: the others would wait for ever");
    for (size_t d = 0; d < q[0].n; d++) {
        float sum = 0;
        for (const emulated::reduction *r : ranks) sum += r->from[d];
        for (const emulated::reduction *r : ranks) r->to[d] = sum;
    }
    q.clear();
    return ncclSuccess;
}
#endif
