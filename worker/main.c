#include "common/shell/process.h"
#include "common/shell/identity.h"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "worker/kafka/kafka.h"
#include "worker/parquet/parquet.h"
#include "worker/worker.h"

/* The CUDA backend is a module beside this program (libpinion-cuda.so): a worker starts, and costs nothing more, where there is no driver. */
static const struct pn_backend *gpu(struct pn_error *err) {
    typedef const struct pn_backend *(*table)(void);
    static const struct pn_backend *found;
    char path[600];
    const char *named = getenv("PINION_CUDA_MODULE"); /* tests: the kernels emulated on the host (tests/parity) */
    if (found != NULL) return found;
    if (named == NULL && dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL) == NULL) {
        pn_fail(err, PN_NOT_FOUND, "no CUDA device on this machine: no driver (libcuda.so.1)");
        return NULL;
    }
    const ssize_t n = readlink("/proc/self/exe", path, sizeof path - 40);
    path[n > 0 ? n : 0] = '\0';
    char *name = strrchr(path, '/');
    snprintf(name != NULL ? name + 1 : path, 30, "libpinion-cuda.so");
    if (named != NULL) snprintf(path, sizeof path, "%s", named);
    if (access(path, R_OK) != 0) {
        pn_fail(err, PN_NOT_FOUND, "this worker was built without CUDA (there is no %s)", path);
        return NULL;
    }
    void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const void *at = module != NULL ? dlsym(module, "pn_backend_module") : NULL;
    table get;
    memcpy(&get, &at, sizeof get);
    if (at == NULL) pn_fail(err, PN_FAILED, "%s cannot be loaded: %s", path, dlerror());
    else found = get();
    return found;
}

int main(int argc, char **argv) {
    struct pn_process_options o = {.name = "worker-0", .bind = "", .http = "127.0.0.1:0", .coordinator = "tcp://127.0.0.1:7701", .dir = "pinion-data", .log_level = PN_INFO};
    pn_process_options(argc, argv, "pinion-worker: trains.", &o);
    struct pn_shell *shell;
    struct pn_http *http;
    pn_process_open(&o, false, pn_worker_http, &shell, &http);
    struct pn_worker_options options = {.gpu = gpu, .topic = pn_kafka_open, .parsed = pn_parquet_open};
    snprintf(options.name, sizeof options.name, "%s", o.name);
    snprintf(options.http, sizeof options.http, "%s", pn_http_address(http));
    snprintf(options.coordinator, sizeof options.coordinator, "%s", o.coordinator);
    struct pn_error err = {""};
    const enum pn_result known = pn_identity_open(o.dir, options.identity, &err);
    options.has_identity = known == PN_OK;
    if (known == PN_CORRUPT) pn_process_fail(o.name, known, err.text);
    if (known != PN_OK) pn_log(pn_shell_env(shell), PN_WARN, "no identity, so no part in secure jobs: %s", err.text);
    struct pn_worker *core = pn_worker_open(pn_shell_env(shell), &options);
    if (core == NULL) pn_process_fail(o.name, PN_NO_MEMORY, "no memory");
    pn_http_core(http, core);
    pn_shell_run(shell, &pn_worker_core, core);
    return 0; /* the kernel takes back what a process held; a checkpoint is what lasts */
}
