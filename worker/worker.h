/* The core of pinion-worker: runs the producers that the coordinator gives it. docs/architecture.md, "The worker". */
#ifndef PN_WORKER_WORKER_H
#define PN_WORKER_WORKER_H
#include "common/env.h"
#include "common/http.h"

struct pn_backend;
struct pn_kafka_spec;
struct pn_topic;
struct pn_parsed;
struct pn_data;
struct pn_worker_options {
    char name[64];
    char http[128];
    char coordinator[128];
    /* The GPUs' backend (nn/backend.h), asked for when a job wants it; NULL and a line: there is none. NULL: built without. */
    const struct pn_backend *(*gpu)(struct pn_error *);
    /* Opens a Kafka topic (worker/reader/topic.h). NULL: built without. */
    struct pn_topic *(*topic)(const struct pn_kafka_spec *, struct pn_error *);
    /* Opens a Parquet file (worker/reader/parsed.h). NULL: none can be read. */
    enum pn_result (*parsed)(struct pn_parsed **, const struct pn_data *, const char *path, struct pn_error *);
    /* Its Ed25519 key pair, by which the other data holders of a secure job know it; has_identity false: it takes part in none. */
    bool has_identity;
    uint8_t identity[64];
};
struct pn_worker;
struct pn_worker *pn_worker_open(struct pn_env *, const struct pn_worker_options *);
void pn_worker_close(struct pn_worker *);
extern const struct pn_core_ops pn_worker_core;
void pn_worker_http(void *core, struct pn_http_request *);
#endif
