#include "common/shell/process.h"
#include <stdio.h>
#include <stdlib.h>
#include "common/shell/store_sqlite.h"
#include "coordinator/coordinator.h"

int main(int argc, char **argv) {
    struct pn_process_options o = {.name = "coordinator", .bind = "tcp://127.0.0.1:7701", .http = "127.0.0.1:7700", .coordinator = "tcp://127.0.0.1:7701", .dir = "pinion-data", .log_level = PN_INFO};
    pn_process_options(argc, argv, "pinion-coordinator: jobs, members, checkpoints, publications.", &o);
    struct pn_shell *shell;
    struct pn_http *http;
    struct pn_store *store;
    struct pn_error err = {""};
    enum pn_result r = pn_store_sqlite_open(&store, o.dir, &err);
    if (r != PN_OK) pn_process_fail(o.name, r, err.text);
    char *dir = realpath(o.dir, NULL); /* the servers may run elsewhere in the tree */
    if (dir == NULL) pn_process_fail(o.name, PN_IO, "the state directory cannot be resolved");
    pn_process_open(&o, true, pn_coordinator_http, &shell, &http);
    struct pn_coordinator_options options = {0};
    snprintf(options.dir, sizeof options.dir, "%s", dir);
    free(dir);
    struct pn_coordinator *core = pn_coordinator_open(pn_shell_env(shell), store, &options);
    if (core == NULL) pn_process_fail(o.name, PN_NO_MEMORY, "no memory");
    pn_http_core(http, core);
    pn_shell_run(shell, &pn_coordinator_core, core);
    return 0; /* the kernel takes back what a process held; a checkpoint is what lasts */
}
