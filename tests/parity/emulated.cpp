/* nn/cuda/ as plain C++: one translation unit. Its table is named "emulated". */
#define PN_EMULATED 1
#include "nn/cuda/runtime.cuh"
#include "nn/cuda/attention.cu"
#include "nn/cuda/context.cu"
#define threads_for threads_for_pairs
#include "nn/cuda/interact.cu"
#undef threads_for
#include "nn/cuda/dense.cu"
#include "nn/cuda/linear.cu"
#include "nn/cuda/norm.cu"
#include "nn/cuda/loss.cu"
#include "nn/cuda/pool.cu"
#include "nn/cuda/pair.cu"
#include "nn/cuda/sasrec.cu"
#include "nn/cuda/private.cu"
#include "nn/cuda/sequence.cu"
#include "nn/cuda/small.cu"
#include "tests/parity/emulated_gemm.h"
#include "tests/parity/emulated_nccl.h"
#include "nn/cuda/group.cu"
#include "nn/cuda/backend.cu"
#include "nn/cuda/cache.cu"
