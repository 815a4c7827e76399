/* HTTP over libmicrohttpd on the shell's loop. Loopback only. Runs everything on the loop's thread. */
#ifndef PN_COMMON_SHELL_HTTP_H
#define PN_COMMON_SHELL_HTTP_H

#include "common/http.h"
#include "common/shell/shell.h"

struct pn_http;
/* address "127.0.0.1:PORT", port 0 for a free one. handle(core, request) answers each request once, now or later; /metrics gets the
 * process_* metrics behind the core's. A body beyond 64 MiB is answered 413. */
enum pn_result pn_http_open(struct pn_http **, struct pn_shell *, const char *address, void (*handle)(void *core, struct pn_http_request *), struct pn_error *);
/* The core may come later than the address. */
void pn_http_core(struct pn_http *, void *core);
const char *pn_http_address(const struct pn_http *); /* "http://127.0.0.1:PORT" */
void pn_http_close(struct pn_http *);

#endif
