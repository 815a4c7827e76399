#include "worker/kafka/kafka.h"
#include <errno.h>
#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ASK_MS = 1000, BATCH = 512 };

struct partition {
    bool begun;
    rd_kafka_message_t *messages[BATCH]; /* fetched; those before i are gone, but the last taken one */
    size_t n, i;
};

struct kafka {
    struct pn_topic topic;               /* first */
    rd_kafka_t *rk;
    rd_kafka_topic_t *rkt;
    char name[250], brokers[400];
    struct partition *partitions[PN_MAX_PARTITIONS];
    bool troubled;                       /* set by error callbacks, too: they run inside rd_kafka_poll, on the caller's thread */
    struct pn_error trouble;
};

/* text NULL: all is well. */
static void set_trouble(struct kafka *k, const char *text) {
    k->troubled = text != NULL;
    if (text != NULL) snprintf(k->trouble.text, sizeof k->trouble.text, "kafka brokers %.150s: %.250s; trying again", k->brokers, text);
}

static void on_error(rd_kafka_t *rk, int code, const char *reason, void *opaque) {
    (void)rk;
    if (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN || code == RD_KAFKA_RESP_ERR__AUTHENTICATION || code == RD_KAFKA_RESP_ERR__RESOLVE || code == RD_KAFKA_RESP_ERR__SSL)
        set_trouble(opaque, code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN ? "none can be reached" : reason);
}

static void on_log(const rd_kafka_t *rk, int level, const char *what, const char *text) { (void)rk; (void)level; (void)what; (void)text; }

static void *say_goodbye(void *topic) {
    struct kafka *k = topic;
    for (uint32_t p = 0; p < PN_MAX_PARTITIONS; p++) {
        struct partition *part = k->partitions[p];
        if (part == NULL) continue;
        if (part->begun) rd_kafka_consume_stop(k->rkt, (int32_t)p);
        for (size_t i = part->i > 0 ? part->i - 1 : 0; i < part->n; i++)
            if (part->messages[i] != NULL) rd_kafka_message_destroy(part->messages[i]);
        free(part);
    }
    if (k->rkt != NULL) rd_kafka_topic_destroy(k->rkt);
    if (k->rk != NULL) rd_kafka_destroy(k->rk);
    free(k);
    return NULL;
}

/* In a thread of its own: librdkafka 2.0.2 does not come back from the end of a topic that vanished while it was read. Such a one costs a thread, until the process ends. */
static void close_topic(struct pn_topic *t) {
    pthread_t thread;
    pthread_attr_t detached;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    if (pthread_create(&thread, &detached, say_goodbye, t) != 0) say_goodbye(t);
    pthread_attr_destroy(&detached);
}

static bool final(rd_kafka_resp_err_t e) {
    return e == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART || e == RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC || e == RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION || e == RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION ||
           e == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED || e == RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
}

/* A broker's answer that trying again would not change, on one line. */
static enum pn_result refused(const struct kafka *k, rd_kafka_resp_err_t e, struct pn_error *err) {
    if (e == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED || e == RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED)
        return pn_fail(err, PN_INVALID, "kafka brokers %.150s do not let this user read topic \"%s\" (%s)", k->brokers, k->name, rd_kafka_err2name(e));
    return pn_fail(err, PN_NOT_FOUND, "kafka brokers %.150s have no topic \"%s\"; make it, or mend data.train.kafka.topic", k->brokers, k->name);
}

static enum pn_result busy(struct kafka *k, rd_kafka_resp_err_t e, struct pn_error *err) {
    rd_kafka_poll(k->rk, 0);
    if (!k->troubled) set_trouble(k, e == RD_KAFKA_RESP_ERR__TRANSPORT || e == RD_KAFKA_RESP_ERR__TIMED_OUT ? "no answer" : rd_kafka_err2str(e));
    return pn_fail(err, PN_BUSY, "kafka: %s", rd_kafka_err2str(e));
}

static enum pn_result count_partitions(struct pn_topic *t, uint32_t *n, struct pn_error *err) {
    struct kafka *k = (struct kafka *)t;
    const struct rd_kafka_metadata *m = NULL;
    rd_kafka_resp_err_t e = rd_kafka_metadata(k->rk, 0, k->rkt, &m, ASK_MS);
    if (e != RD_KAFKA_RESP_ERR_NO_ERROR) return final(e) ? refused(k, e, err) : busy(k, e, err);
    e = m->topic_cnt == 1 ? m->topics[0].err : RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    *n = m->topic_cnt == 1 && m->topics[0].partition_cnt > 0 ? (uint32_t)m->topics[0].partition_cnt : 0;
    rd_kafka_metadata_destroy(m);
    if (e == RD_KAFKA_RESP_ERR_NO_ERROR && *n == 0) e = RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE;
    if (e != RD_KAFKA_RESP_ERR_NO_ERROR) return final(e) ? refused(k, e, err) : busy(k, e, err);
    if (*n > PN_MAX_PARTITIONS) return pn_fail(err, PN_INVALID, "topic \"%s\" has %u partitions; at most %d are read", k->name, *n, PN_MAX_PARTITIONS);
    set_trouble(k, NULL);
    return PN_OK;
}

static enum pn_result range(struct pn_topic *t, uint32_t partition, uint64_t *first, uint64_t *end, struct pn_error *err) {
    struct kafka *k = (struct kafka *)t;
    int64_t low = 0, high = 0;
    const rd_kafka_resp_err_t e = rd_kafka_query_watermark_offsets(k->rk, k->name, (int32_t)partition, &low, &high, ASK_MS);
    if (e != RD_KAFKA_RESP_ERR_NO_ERROR) return final(e) ? refused(k, e, err) : busy(k, e, err);
    *first = low > 0 ? (uint64_t)low : 0;
    *end = high > low ? (uint64_t)high : *first;
    set_trouble(k, NULL);
    return PN_OK;
}

static enum pn_result begin(struct pn_topic *t, uint32_t partition, uint64_t offset, struct pn_error *err) {
    struct kafka *k = (struct kafka *)t;
    if (partition >= PN_MAX_PARTITIONS || offset > INT64_MAX) return pn_fail(err, PN_INVALID, "topic \"%s\": no partition %u, or no offset %llu", k->name, partition, (unsigned long long)offset);
    struct partition *part = k->partitions[partition] = calloc(1, sizeof *part);
    if (part == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory for a partition");
    if (rd_kafka_consume_start(k->rkt, (int32_t)partition, (int64_t)offset) != 0)
        return pn_fail(err, PN_FAILED, "topic \"%s\", partition %u: cannot be read from offset %llu: %s", k->name, partition, (unsigned long long)offset, rd_kafka_err2str(rd_kafka_last_error()));
    part->begun = true;
    return PN_OK;
}

static enum pn_topic_state take(struct pn_topic *t, uint32_t partition, struct pn_message *out, struct pn_error *err) {
    struct kafka *k = (struct kafka *)t;
    struct partition *part = k->partitions[partition];
    for (;;) {
        if (part->i > 0) { /* the one that was taken last */
            rd_kafka_message_destroy(part->messages[part->i - 1]);
            part->messages[part->i - 1] = NULL;
        }
        if (part->i == part->n) {
            part->i = part->n = 0;
            const ssize_t n = rd_kafka_consume_batch(k->rkt, (int32_t)partition, 0, part->messages, BATCH);
            if (n <= 0) {
                rd_kafka_poll(k->rk, 0);
                return PN_TOPIC_NOTHING;
            }
            part->n = (size_t)n;
        }
        const rd_kafka_message_t *m = part->messages[part->i++];
        if (m->err == RD_KAFKA_RESP_ERR_NO_ERROR || m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
            *out = (struct pn_message){(uint64_t)m->offset, m->err == RD_KAFKA_RESP_ERR_NO_ERROR ? m->payload : NULL, m->err == RD_KAFKA_RESP_ERR_NO_ERROR ? m->len : 0};
            if (k->troubled) set_trouble(k, NULL);
            return m->err == RD_KAFKA_RESP_ERR_NO_ERROR ? PN_TOPIC_MESSAGE : PN_TOPIC_END;
        }
        if (m->err == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET || m->err == RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE) {
            pn_fail(err, PN_INVALID, "topic \"%s\", partition %u: the log has no offset any more at which reading should go on (%.200s); messages that were not read yet are gone, nothing is skipped in silence",
                    k->name, partition, rd_kafka_message_errstr(m));
            return PN_TOPIC_FAILED;
        }
        if (final(m->err)) {
            refused(k, m->err, err);
            return PN_TOPIC_FAILED;
        }
        set_trouble(k, rd_kafka_message_errstr(m)); /* librdkafka goes on trying */
    }
}

static uint64_t last_end(struct pn_topic *t, uint32_t partition) {
    struct kafka *k = (struct kafka *)t;
    int64_t low = 0, high = 0;
    const rd_kafka_resp_err_t e = rd_kafka_get_watermark_offsets(k->rk, k->name, (int32_t)partition, &low, &high); /* out of librdkafka's memory */
    return e == RD_KAFKA_RESP_ERR_NO_ERROR && high > 0 ? (uint64_t)high : 0; /* below 0: not known */
}

static bool look_for_trouble(struct pn_topic *t, struct pn_error *out) {
    struct kafka *k = (struct kafka *)t;
    rd_kafka_poll(k->rk, 0);
    if (k->troubled) *out = k->trouble;
    return k->troubled;
}

static const struct pn_topic_ops ops = {.close = close_topic, .partitions = count_partitions, .range = range, .begin = begin, .take = take, .end = last_end, .trouble = look_for_trouble};

/* A password out of its file, without the line's end. */
static bool read_secret(const char *path, char out[256], struct pn_error *err) {
    FILE *f = fopen(path, "r");
    const size_t n = f != NULL ? fread(out, 1, 255, f) : 0;
    const int error = errno;
    if (f != NULL) fclose(f);
    out[n] = '\0';
    out[strcspn(out, "\r\n")] = '\0';
    if (out[0] != '\0') return true;
    pn_fail(err, PN_INVALID, "kafka: the password's file %s %s", path, f == NULL ? strerror(error) : "is empty");
    return false;
}

struct pn_topic *pn_kafka_open(const struct pn_kafka_spec *spec, struct pn_error *err) {
    static const char *const ours[][2] = {{"client.id", "pinion"}, {"enable.partition.eof", "true"}, {"enable.auto.commit", "false"}, {"enable.auto.offset.store", "false"},
                                          {"auto.offset.reset", "error"}, {"allow.auto.create.topics", "false"}, {"queued.max.messages.kbytes", "16384"},
                                          {"topic.metadata.refresh.interval.ms", "10000"}, {"reconnect.backoff.max.ms", "5000"}};
    char why[256] = "", secret[256] = "";
    struct kafka *k = calloc(1, sizeof *k);
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    if (k == NULL || conf == NULL) {
        free(k);
        if (conf != NULL) rd_kafka_conf_destroy(conf);
        pn_fail(err, PN_NO_MEMORY, "no memory for a topic");
        return NULL;
    }
    k->topic.ops = &ops;
    snprintf(k->name, sizeof k->name, "%s", spec->topic);
    snprintf(k->brokers, sizeof k->brokers, "%s", spec->brokers);
    bool good = rd_kafka_conf_set(conf, "bootstrap.servers", spec->brokers, why, sizeof why) == RD_KAFKA_CONF_OK;
    for (size_t i = 0; good && i < sizeof ours / sizeof *ours; i++) good = rd_kafka_conf_set(conf, ours[i][0], ours[i][1], why, sizeof why) == RD_KAFKA_CONF_OK;
    for (uint32_t i = 0; good && i < spec->n_properties; i++) {
        const char *name = spec->properties[i].name, *value = spec->properties[i].value;
        const bool hidden = strcmp(name, "sasl.password") == 0 || strcmp(name, "ssl.key.password") == 0;
        if (hidden && !read_secret(value + strlen("file:"), secret, err)) {
            rd_kafka_conf_destroy(conf);
            say_goodbye(k);
            return NULL;
        }
        good = rd_kafka_conf_set(conf, name, hidden ? secret : value, why, sizeof why) == RD_KAFKA_CONF_OK;
    }
    rd_kafka_conf_set_opaque(conf, k);
    rd_kafka_conf_set_error_cb(conf, on_error);
    rd_kafka_conf_set_log_cb(conf, on_log);
    if (good) {
        k->rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof why);
        if (k->rk != NULL) conf = NULL; /* it is its own now */
    }
    if (k->rk != NULL && (k->rkt = rd_kafka_topic_new(k->rk, spec->topic, NULL)) == NULL) snprintf(why, sizeof why, "%s", rd_kafka_err2str(rd_kafka_last_error()));
    explicit_bzero(secret, sizeof secret);
    if (k->rkt != NULL) return &k->topic;
    if (conf != NULL) rd_kafka_conf_destroy(conf);
    say_goodbye(k);
    pn_fail(err, PN_INVALID, "kafka: %s", why);
    return NULL;
}
