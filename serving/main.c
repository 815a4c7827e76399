#include "common/shell/process.h"
#include <stdio.h>
#include "serving/serving.h"

int main(int argc, char **argv) {
    struct pn_process_options o = {.name = "serving-0", .bind = "", .http = "127.0.0.1:8000", .coordinator = "tcp://127.0.0.1:7701", .dir = "pinion-data", .log_level = PN_INFO};
    pn_process_options(argc, argv, "pinion-serve: a serving replica.", &o);
    struct pn_shell *shell;
    struct pn_http *http;
    pn_process_open(&o, false, pn_serving_http, &shell, &http);
    struct pn_serving_options options = {0};
    snprintf(options.name, sizeof options.name, "%s", o.name);
    snprintf(options.http, sizeof options.http, "%s", pn_http_address(http));
    snprintf(options.coordinator, sizeof options.coordinator, "%s", o.coordinator);
    struct pn_serving *core = pn_serving_open(pn_shell_env(shell), &options);
    if (core == NULL) pn_process_fail(o.name, PN_NO_MEMORY, "no memory");
    pn_http_core(http, core);
    pn_shell_run(shell, &pn_serving_core, core);
    return 0; /* the kernel takes back what a process held; a checkpoint is what lasts */
}
