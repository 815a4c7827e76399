/* The core of pinion-coordinator: members, jobs, checkpoints, publications. docs/architecture.md, "The coordinator". */
#ifndef PN_COORDINATOR_COORDINATOR_H
#define PN_COORDINATOR_COORDINATOR_H
#include "common/env.h"
#include "common/http.h"
#include "common/store.h"

struct pn_coordinator_options {
    char dir[400];           /* checkpoints and models live under it: dir/jobs/ID/checkpoints/E, dir/models/M/V */
    uint64_t lease_ms;       /* a node unheard of for so long is dead; 0: 1500 */
    uint64_t beat_ms;        /* 0: 100 */
};
struct pn_coordinator;
struct pn_coordinator *pn_coordinator_open(struct pn_env *, struct pn_store *, const struct pn_coordinator_options *);
void pn_coordinator_close(struct pn_coordinator *);
extern const struct pn_core_ops pn_coordinator_core;
void pn_coordinator_http(void *core, struct pn_http_request *); /* the REST interface, /metrics, / */
#endif
