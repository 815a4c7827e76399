/* kafka-mock: a Kafka cluster for tests (librdkafka's own mock) and what fills it. Prints its brokers' address, then obeys lines on stdin and answers each with a line:
 *   topic NAME PARTITIONS             put NAME PARTITION N      the next N lines are messages ("\0": one without payload)
 *   down BROKER | up BROKER           codec none|gzip|snappy|lz4|zstd      unknown NAME (from now on the brokers have no such topic)
 * Ends with stdin. */
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static rd_kafka_t *producer(const char *brokers, const char *codec) {
    char why[200];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "bootstrap.servers", brokers, why, sizeof why);
    rd_kafka_conf_set(conf, "compression.codec", codec, why, sizeof why);
    rd_kafka_conf_set(conf, "linger.ms", "2", why, sizeof why);
    rd_kafka_conf_set(conf, "enable.idempotence", "true", why, sizeof why); /* in order, each once, also over a broker that is down for a while */
    rd_kafka_conf_set(conf, "log_level", "0", why, sizeof why);
    return rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
}

static int put(rd_kafka_t *rk, const char *topic, int partition, long n) {
    static char line[1 << 20];
    for (long i = 0; i < n; i++) {
        if (fgets(line, sizeof line, stdin) == NULL) return -1;
        size_t length = strcspn(line, "\n");
        const int null = strncmp(line, "\\0", 2) == 0 && length == 2;
        while (rd_kafka_producev(rk, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_PARTITION(partition), RD_KAFKA_V_VALUE(null ? NULL : line, null ? 0 : length),
                                 RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END) == RD_KAFKA_RESP_ERR__QUEUE_FULL)
            rd_kafka_poll(rk, 10);
        rd_kafka_poll(rk, 0);
    }
    return rd_kafka_flush(rk, 30000) == RD_KAFKA_RESP_ERR_NO_ERROR ? 0 : -1;
}

int main(void) {
    char why[200], line[300], name[250], codec[20] = "none";
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "log_level", "0", why, sizeof why);
    rd_kafka_t *holder = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
    rd_kafka_mock_cluster_t *cluster = holder != NULL ? rd_kafka_mock_cluster_new(holder, 2) : NULL;
    if (cluster == NULL) return 1;
    const char *brokers = rd_kafka_mock_cluster_bootstraps(cluster);
    rd_kafka_t *rk = producer(brokers, codec);
    printf("%s\n", brokers);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL) {
        int a = 0, rc = -1;
        long n = 0;
        if (sscanf(line, "topic %249s %d", name, &a) == 2) rc = rd_kafka_mock_topic_create(cluster, name, a, 1) == RD_KAFKA_RESP_ERR_NO_ERROR ? 0 : -1;
        else if (sscanf(line, "put %249s %d %ld", name, &a, &n) == 3) rc = put(rk, name, a, n);
        else if (sscanf(line, "down %d", &a) == 1) rc = rd_kafka_mock_broker_set_down(cluster, a) == RD_KAFKA_RESP_ERR_NO_ERROR ? 0 : -1;
        else if (sscanf(line, "up %d", &a) == 1) rc = rd_kafka_mock_broker_set_up(cluster, a) == RD_KAFKA_RESP_ERR_NO_ERROR ? 0 : -1;
        else if (sscanf(line, "unknown %249s", name) == 1) {
            rd_kafka_mock_topic_set_error(cluster, name, RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
            rc = 0;
        } else if (sscanf(line, "codec %19s", codec) == 1) {
            rd_kafka_destroy(rk);
            rk = producer(brokers, codec);
            rc = rk != NULL ? 0 : -1;
        }
        printf("%s\n", rc == 0 ? "ok" : "failed");
        fflush(stdout);
    }
    rd_kafka_destroy(rk);
    rd_kafka_mock_cluster_destroy(cluster);
    rd_kafka_destroy(holder);
    return 0;
}
