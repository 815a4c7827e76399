#include "common/shell/process.h"
#include <stdio.h>
#include "ps/ps.h"
#include "ps/tier/rocksdb.h"

int main(int argc, char **argv) {
    struct pn_process_options o = {.name = "ps-0", .bind = "tcp://127.0.0.1:7710", .http = "127.0.0.1:7711", .coordinator = "tcp://127.0.0.1:7701", .dir = "pinion-data", .log_level = PN_INFO};
    pn_process_options(argc, argv, "pinion-ps: a parameter server, one shard.", &o);
    struct pn_shell *shell;
    struct pn_http *http;
    pn_process_open(&o, true, pn_ps_http, &shell, &http);
    struct pn_ps_options options = {0};
    snprintf(options.name, sizeof options.name, "%s", o.name);
    snprintf(options.http, sizeof options.http, "%s", pn_http_address(http));
    snprintf(options.coordinator, sizeof options.coordinator, "%s", o.coordinator);
    snprintf(options.address, sizeof options.address, "%s", pn_shell_address(shell));
    char tier[500];
    snprintf(tier, sizeof tier, "%s/tier-%s", o.dir, o.name);
    options.tiers = pn_tiers_rocksdb(tier); /* makes nothing before a job needs it */
    struct pn_ps *core = pn_ps_open(pn_shell_env(shell), &options);
    if (core == NULL) pn_process_fail(o.name, PN_NO_MEMORY, "no memory");
    pn_http_core(http, core);
    pn_shell_run(shell, &pn_ps_core, core);
    return 0; /* the kernel takes back what a process held; a checkpoint is what lasts */
}
