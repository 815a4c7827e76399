/* A topic of messages in partitions (Kafka), as the reader sees it. worker/kafka/ is the one implementation over librdkafka, given to the core by worker/main.c; tests have one in
 * memory. All calls are made from work threads, one at a time a handle; they may block for a second, but not longer. */
#ifndef PN_WORKER_READER_TOPIC_H
#define PN_WORKER_READER_TOPIC_H

#include "job/job.h"

struct pn_message { uint64_t offset; const void *data; size_t n_bytes; }; /* data NULL: without payload. Valid until the next take of its partition */
enum pn_topic_state {
    PN_TOPIC_MESSAGE,
    PN_TOPIC_NOTHING,   /* not now: it is on its way, or the brokers cannot be reached (trouble) */
    PN_TOPIC_END,       /* message.offset: nothing is there from it on */
    PN_TOPIC_FAILED     /* the line says why; trying again would not help */
};
struct pn_topic { const struct pn_topic_ops *ops; };
struct pn_topic_ops {
    void (*close)(struct pn_topic *);   /* from any thread, with no call under way; comes back at once, the rest happens behind the scenes */
    /* How many partitions it has. PN_BUSY: the brokers cannot be asked now. PN_NOT_FOUND: they have no such topic. */
    enum pn_result (*partitions)(struct pn_topic *, uint32_t *n, struct pn_error *);
    /* Messages [*first, *end) of a partition are there (some offsets in between may be empty). PN_BUSY as above. */
    enum pn_result (*range)(struct pn_topic *, uint32_t partition, uint64_t *first, uint64_t *end, struct pn_error *);
    /* Begins to fetch a partition at an offset; once a partition. */
    enum pn_result (*begin)(struct pn_topic *, uint32_t partition, uint64_t offset, struct pn_error *);
    /* The next message of a partition, in order; never waits. */
    enum pn_topic_state (*take)(struct pn_topic *, uint32_t partition, struct pn_message *, struct pn_error *);
    /* Where a partition ended when something was last fetched of it; 0: nothing was yet. Never waits. */
    uint64_t (*end)(struct pn_topic *, uint32_t partition);
    /* What is wrong with the way to the brokers, on one line. False: nothing is known to be. */
    bool (*trouble)(struct pn_topic *, struct pn_error *);
};
/* NULL: err says why (a property that librdkafka refuses, a file with a password that cannot be read). Connects behind the scenes. */
typedef struct pn_topic *pn_topic_open(const struct pn_kafka_spec *, struct pn_error *);

#endif
