/* The core of pinion-ps: one shard. docs/architecture.md, "The parameter server". */
#ifndef PN_PS_PS_H
#define PN_PS_PS_H
#include "common/env.h"
#include "common/http.h"

struct pn_ps_options {
    char name[64];          /* "ps-0": stays over restarts */
    char address[128];      /* where clients reach this shard, "tcp://127.0.0.1:7710" */
    char http[128];         /* "http://127.0.0.1:7711" or "" */
    char coordinator[128];  /* "tcp://127.0.0.1:7701" */
    size_t slice;           /* what a push may cost at a time (ps/apply.h); 0: PN_SHARD_SLICE */
    struct pn_tiers *tiers; /* where rows beyond a table's memory go; NULL: jobs that need it are refused */
};
struct pn_ps;
struct pn_ps *pn_ps_open(struct pn_env *, const struct pn_ps_options *);
void pn_ps_close(struct pn_ps *);
extern const struct pn_core_ops pn_ps_core;
void pn_ps_http(void *core, struct pn_http_request *); /* GET /metrics, /health */
#endif
