#include "common/shell/process.h"
#include "common/shell/keys.h"
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void pn_process_fail(const char *name, enum pn_result r, const char *line) {
    fprintf(stderr, "%s: %s\n", name, line);
    exit(r == PN_REFUSED ? 4 : 1);
}

static const struct argp_option options[] = {
    {"name", 'n', "NAME", 0, "name of this node, kept over restarts", 0},
    {"coordinator", 'c', "ADDRESS", 0, "the coordinator's ZeroMQ address, tcp://127.0.0.1:7701, with #KEY behind it where sockets are encrypted", 0},
    {"bind", 'b', "ADDRESS", 0, "ZeroMQ address to listen at; port 0: any free one", 0},
    {"http", 'H', "HOST:PORT", 0, "HTTP address to listen at; port 0: any free one", 0},
    {"dir", 'd', "DIR", 0, "directory of the state", 0},
    {"keys", 'k', "DIR", 0, "encrypt: NAME.key and authorized/ lie here (pinion keygen). Without it only loopback addresses are allowed", 0},
    {"address-file", 'a', "FILE", 0, "write the real addresses here as JSON", 0},
    {"log-level", 'l', "LEVEL", 0, "debug, info, warn or error", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state) {
    struct pn_process_options *o = state->input;
    static const char *const levels[] = {"debug", "info", "warn", "error"};
    char *to = NULL;
    size_t room = 0;
    switch (key) {
    case 'n': to = o->name; room = sizeof o->name; break;
    case 'c': to = o->coordinator; room = sizeof o->coordinator; break;
    case 'b': to = o->bind; room = sizeof o->bind; break;
    case 'H': to = o->http; room = sizeof o->http; break;
    case 'd': to = o->dir; room = sizeof o->dir; break;
    case 'k': to = o->keys; room = sizeof o->keys; break;
    case 'a': to = o->address_file; room = sizeof o->address_file; break;
    case 'l':
        for (int i = 0; i < 4; i++)
            if (strcmp(arg, levels[i]) == 0) {
                o->log_level = (enum pn_log_level)i;
                return 0;
            }
        argp_error(state, "--log-level %s: debug, info, warn or error", arg);
        return 0;
    case ARGP_KEY_ARG: argp_error(state, "unexpected argument \"%s\"", arg); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
    if (strlen(arg) >= room) argp_error(state, "\"%.40s...\" is too long", arg);
    snprintf(to, room, "%s", arg);
    return 0;
}

void pn_process_options(int argc, char **argv, const char *doc, struct pn_process_options *o) {
    const struct argp argp = {options, parse, NULL, doc, NULL, NULL, NULL};
    argp_err_exit_status = 2;
    argp_parse(&argp, argc, argv, 0, NULL, o);
}

void pn_process_open(const struct pn_process_options *o, bool listens, void (*handle)(void *, struct pn_http_request *), struct pn_shell **shell, struct pn_http **http) {
    struct pn_error err = {""};
    struct pn_keys *keys = NULL;
    enum pn_result r = o->keys[0] != '\0' ? pn_keys_open(&keys, o->keys, o->name, &err) : PN_OK;
    if (r == PN_OK) r = pn_shell_open(shell, o->name, listens ? o->bind : NULL, keys, o->log_level, &err);
    if (r == PN_OK) r = pn_http_open(http, *shell, o->http, handle, &err);
    if (r != PN_OK) pn_process_fail(o->name, r, err.text);
    if (keys != NULL && listens) pn_log(pn_shell_env(*shell), PN_INFO, "encrypted, at %s", pn_shell_address(*shell));
    if (o->address_file[0] == '\0') return;
    char tmp[420];
    snprintf(tmp, sizeof tmp, "%s.tmp", o->address_file);
    FILE *f = fopen(tmp, "w");
    if (f == NULL) pn_process_fail(o->name, PN_IO, "the address file cannot be written");
    fprintf(f, "{\"zmq\":\"%s\",\"http\":\"%s\",\"pid\":%d}\n", pn_shell_address(*shell), pn_http_address(*http), (int)getpid());
    if (fclose(f) != 0 || rename(tmp, o->address_file) != 0) pn_process_fail(o->name, PN_IO, "the address file cannot be written");
}
