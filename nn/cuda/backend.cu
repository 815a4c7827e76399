/* The table. The worker loads this module and asks for it by name (worker/main.c). */
#include "nn/cuda/runtime.cuh"
#include "nn/cache.h"
#include "nn/cuda/module.h"

extern "C" const struct pn_backend *pn_backend_module(void) {
    static struct pn_backend t;
    t.name = PN_BACKEND_NAME;
    pn_fill_context(&t);
    pn_fill_group(&t);
    pn_fill_pool(&t);
    pn_fill_interact(&t);
    pn_fill_linear(&t);
    pn_fill_norm(&t);
    pn_fill_attention(&t);
    pn_fill_small(&t);
    pn_fill_sequence(&t);
    pn_fill_loss(&t);
    pn_fill_dense(&t);
    pn_fill_pair(&t);
    pn_fill_sasrec(&t);
    pn_fill_private(&t);
    t.cache = pn_cache_module();
    return &t;
}
