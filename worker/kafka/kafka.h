/* Topics of Kafka through librdkafka. The simple consumer: no groups, no offsets at the brokers; where a job stands is in its own checkpoints (common/ledger.h).
 * Outside the core: sockets and threads are librdkafka's own. */
#ifndef PN_WORKER_KAFKA_KAFKA_H
#define PN_WORKER_KAFKA_KAFKA_H

#include "worker/reader/topic.h"

pn_topic_open pn_kafka_open;

#endif
