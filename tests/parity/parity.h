/* Shared by the programs of tests/parity: which backend is held against the CPU's.
 *   PROGRAM emulated     the kernels as plain C++ (emulated.h)
 *   PROGRAM MODULE.so    the first device of that module; exit 77 and the reason as last line where there is none */
#ifndef PN_TESTS_PARITY_H
#define PN_TESTS_PARITY_H

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/hash.h"
#include "nn/cache.h"
#include "nn/cuda/module.h"

static inline const struct pn_backend *parity_backend(int argc, char **argv) {
    struct pn_error why = {""};
    const struct pn_backend *be = NULL;
    if (argc < 2) {
        fprintf(stderr, "usage: %s emulated | PATH of libpinion-cuda.so\n", argv[0]);
        exit(2);
    }
    if (strcmp(argv[1], "emulated") == 0) return pn_backend_module();
    if (dlopen("libcuda.so.1", RTLD_LAZY) == NULL) {
        printf("no CUDA device: no driver (libcuda.so.1) on this machine\n");
        exit(77);
    }
    void *module = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    const void *at = module != NULL ? dlsym(module, "pn_backend_module") : NULL;
    const struct pn_backend *(*get)(void);
    memcpy(&get, &at, sizeof get);
    if (at == NULL) {
        fprintf(stderr, "%s: %s\n", argv[1], dlerror());
        exit(1);
    }
    be = get();
    if (be->devices(&why) == 0) {
        printf("no CUDA device: %s\n", why.text);
        exit(77);
    }
    return be;
}
#endif
