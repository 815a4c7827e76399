/* The order of pairs of DLRM's interaction: (0,1), (0,2), (1,2), (0,3) ... */
#ifndef PN_NN_CUDA_INTERACT_CUH
#define PN_NN_CUDA_INTERACT_CUH
#include "nn/cuda/runtime.cuh"

struct pn_pair { size_t i, j; };
__host__ __device__ static inline size_t pn_pair_at(size_t i, size_t j) { return j * (j - 1) / 2 + i; } /* i < j */
__host__ __device__ static inline struct pn_pair pn_pair_of(size_t p) {
    size_t j = (size_t)((1.0f + sqrtf(1.0f + 8.0f * (float)p)) / 2.0f);
    while (j * (j - 1) / 2 > p) j--; /* the root is rounded */
    while ((j + 1) * j / 2 <= p) j++;
    struct pn_pair at = {p - j * (j - 1) / 2, j};
    return at;
}
#endif
