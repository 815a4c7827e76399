/* What build/libpinion-cuda.so exports. */
#ifndef PN_NN_CUDA_MODULE_H
#define PN_NN_CUDA_MODULE_H
#include "nn/backend.h"
#ifdef __cplusplus
extern "C" {
#endif
const struct pn_backend *pn_backend_module(void);
#ifdef __cplusplus
}
#endif
#endif
