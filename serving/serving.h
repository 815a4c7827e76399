/* The core of pinion-serve: loads published versions, ranks. docs/architecture.md, "The serving replica". */
#ifndef PN_SERVING_SERVING_H
#define PN_SERVING_SERVING_H
#include "common/env.h"
#include "common/http.h"

struct pn_serving_options {
    char name[64];
    char http[128];          /* the Open Inference Protocol's address */
    char coordinator[128];
};
struct pn_serving;
struct pn_serving *pn_serving_open(struct pn_env *, const struct pn_serving_options *);
void pn_serving_close(struct pn_serving *);
extern const struct pn_core_ops pn_serving_core;
void pn_serving_http(void *core, struct pn_http_request *);
#endif
