/* What the four processes share: options, addresses, start and end. */
#ifndef PN_COMMON_SHELL_PROCESS_H
#define PN_COMMON_SHELL_PROCESS_H

#include "common/shell/http.h"

struct pn_process_options {
    char name[64], bind[128], http[64], coordinator[128], dir[400], address_file[400], keys[400];
    enum pn_log_level log_level;
};
/* Reads the command line over the given defaults. Ends the process with 2 on wrong usage. */
void pn_process_options(int argc, char **argv, const char *doc, struct pn_process_options *);
/* Opens shell and HTTP, writes the address file ({"zmq","http","pid"}, by rename). Ends the process: 1 with one line when an address cannot be had,
 * 4 when it is refused. listens: a ROUTER is bound. */
void pn_process_open(const struct pn_process_options *, bool listens, void (*handle)(void *, struct pn_http_request *), struct pn_shell **, struct pn_http **);
/* Prints "NAME: line" and ends the process with 1, or 4 for PN_REFUSED. */
void pn_process_fail(const char *name, enum pn_result, const char *line) __attribute__((noreturn));

#endif
