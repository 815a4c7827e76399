/* worker/kafka over librdkafka's own mock cluster: real sockets on loopback, real time. */
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <unistd.h>
#include "common/ledger.h"
#include "tests/unit/fake_env.h"
#include "worker/kafka/kafka.h"
#include "worker/reader/reader.h"

static rd_kafka_t *holder, *producer;
static rd_kafka_mock_cluster_t *cluster;

static rd_kafka_t *make(const char *brokers, const char *codec) {
    char why[200];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "log_level", "0", why, sizeof why);
    if (brokers != NULL) rd_kafka_conf_set(conf, "bootstrap.servers", brokers, why, sizeof why);
    rd_kafka_conf_set(conf, "compression.codec", codec, why, sizeof why);
    rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
    ck_assert_msg(rk != NULL, "%s", why);
    return rk;
}
static void up(const char *codec, int partitions) {
    holder = make(NULL, "none");
    cluster = rd_kafka_mock_cluster_new(holder, 1);
    ck_assert_int_eq(rd_kafka_mock_topic_create(cluster, "clicks", partitions, 1), RD_KAFKA_RESP_ERR_NO_ERROR);
    producer = make(rd_kafka_mock_cluster_bootstraps(cluster), codec);
}
static void down(void) {
    rd_kafka_destroy(producer);
    rd_kafka_mock_cluster_destroy(cluster);
    rd_kafka_destroy(holder);
}
static void put(int partition, size_t from, size_t n) {
    for (size_t i = from; i < from + n; i++) {
        char text[64];
        size_t length = (size_t)snprintf(text, sizeof text, "{\"id\": \"%d-%zu\", \"y\": 1}", partition, i);
        char *value = i % 10 == 3 ? NULL : text;
        if (value == NULL) length = 0;
        rd_kafka_producev(producer, RD_KAFKA_V_TOPIC("clicks"), RD_KAFKA_V_PARTITION(partition), RD_KAFKA_V_VALUE(value, length),
                          RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END);
    }
    ck_assert_int_eq(rd_kafka_flush(producer, 20000), RD_KAFKA_RESP_ERR_NO_ERROR);
}
static struct pn_kafka_spec spec(void) {
    struct pn_kafka_spec s = {.topic = "clicks", .n_properties = 2, .properties = {{"reconnect.backoff.ms", "20"}, {"reconnect.backoff.max.ms", "100"}}};
    snprintf(s.brokers, sizeof s.brokers, "%s", cluster != NULL ? rd_kafka_mock_cluster_bootstraps(cluster) : "127.0.0.1:1");
    return s;
}
static struct pn_topic *open_topic(void) {
    const struct pn_kafka_spec s = spec();
    struct pn_error err = {""};
    struct pn_topic *t = pn_kafka_open(&s, &err);
    ck_assert_msg(t != NULL, "%s", err.text);
    return t;
}
/* Waits for something, at most 20 s. */
static enum pn_topic_state take(struct pn_topic *t, uint32_t p, struct pn_message *m, struct pn_error *err) {
    enum pn_topic_state s = PN_TOPIC_NOTHING;
    for (int i = 0; i < 20000 && (s = t->ops->take(t, p, m, err)) == PN_TOPIC_NOTHING; i++) usleep(1000);
    return s;
}
/* Messages [from, to) of partition 0, in order, then its end. */
static void expect(struct pn_topic *t, uint64_t from, uint64_t to, bool end) {
    struct pn_error err = {""};
    for (uint64_t i = from; i < to;) {
        struct pn_message m;
        const enum pn_topic_state s = take(t, 0, &m, &err);
        if (s == PN_TOPIC_END) continue;
        ck_assert_msg(s == PN_TOPIC_MESSAGE, "%d at %llu: %s", s, (unsigned long long)i, err.text);
        ck_assert_uint_eq(m.offset, i);
        char text[64];
        const int length = snprintf(text, sizeof text, "{\"id\": \"0-%llu\", \"y\": 1}", (unsigned long long)i);
        if (i % 10 == 3) ck_assert(m.data == NULL && m.n_bytes == 0);
        else ck_assert(m.n_bytes == (size_t)length && memcmp(m.data, text, m.n_bytes) == 0);
        i++;
    }
    struct pn_message m;
    if (!end) return;
    ck_assert_int_eq(take(t, 0, &m, &err), PN_TOPIC_END);
    ck_assert_uint_eq(m.offset, to);
}

static const char *const codecs[] = {"none", "gzip", "snappy", "lz4", "zstd"};
START_TEST(messages_come_in_order_from_any_offset_however_they_are_compressed) {
    up(codecs[_i], 1);
    put(0, 0, 700);
    for (uint64_t from = 0; from < 700; from += 333) {
        struct pn_topic *t = open_topic();
        uint64_t first, end;
        uint32_t n;
        struct pn_error err;
        ck_assert_int_eq(t->ops->partitions(t, &n, &err), PN_OK);
        ck_assert_uint_eq(n, 1);
        ck_assert_int_eq(t->ops->range(t, 0, &first, &end, &err), PN_OK);
        ck_assert(first == 0 && end == 700);
        ck_assert_uint_eq(t->ops->end(t, 0), 0);
        ck_assert_int_eq(t->ops->begin(t, 0, from, &err), PN_OK);
        expect(t, from, 700, true);
        ck_assert_uint_eq(t->ops->end(t, 0), 700);
        if (from == 333) put(0, 700, 5);
        if (from == 333) expect(t, 700, 705, true);
        t->ops->close(t);
        if (from == 333) break;
    }
    down();
} END_TEST

START_TEST(errors_of_brokers_delay_messages_and_change_nothing) {
    enum { FETCH = 1, METADATA = 3 };
    up("none", 1);
    put(0, 0, 200);
    struct pn_topic *t = open_topic();
    struct pn_error err = {""};
    uint32_t n;
    rd_kafka_mock_push_request_errors(cluster, METADATA, 2, RD_KAFKA_RESP_ERR__TRANSPORT, RD_KAFKA_RESP_ERR__TRANSPORT);
    enum pn_result r = PN_BUSY;
    for (int i = 0; i < 20 && (r = t->ops->partitions(t, &n, &err)) == PN_BUSY; i++) {}
    ck_assert_int_eq(r, PN_OK);
    rd_kafka_mock_push_request_errors(cluster, FETCH, 4, RD_KAFKA_RESP_ERR__TRANSPORT, RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, RD_KAFKA_RESP_ERR__TRANSPORT, RD_KAFKA_RESP_ERR_UNKNOWN);
    ck_assert_int_eq(t->ops->begin(t, 0, 0, &err), PN_OK);
    expect(t, 0, 200, true);
    rd_kafka_mock_broker_set_down(cluster, 1);
    struct pn_message m;
    bool trouble = false;
    for (int i = 0; i < 10000 && !trouble; i++) {
        ck_assert_int_eq(t->ops->take(t, 0, &m, &err), PN_TOPIC_NOTHING);
        trouble = t->ops->trouble(t, &err);
        usleep(1000);
    }
    ck_assert_msg(trouble && strstr(err.text, "none can be reached; trying again") != NULL, "%s", err.text);
    ck_assert_int_eq(t->ops->partitions(t, &n, &err), PN_BUSY);
    rd_kafka_mock_broker_set_up(cluster, 1);
    put(0, 200, 50);
    expect(t, 200, 250, false);
    ck_assert(!t->ops->trouble(t, &err));
    t->ops->close(t);
    down();
} END_TEST

START_TEST(what_is_not_there_is_said_and_not_skipped) {
    up("none", 1);
    put(0, 0, 20);
    struct pn_topic *t = open_topic();
    struct pn_error err = {""};
    struct pn_message m;
    uint32_t n;
    ck_assert_int_eq(t->ops->begin(t, 0, 5000, &err), PN_OK);
    ck_assert_int_eq(take(t, 0, &m, &err), PN_TOPIC_FAILED);
    ck_assert_msg(strstr(err.text, "partition 0: the log has no offset any more") != NULL, "%s", err.text);
    rd_kafka_mock_topic_set_error(cluster, "clicks", RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
    ck_assert_int_eq(t->ops->partitions(t, &n, &err), PN_NOT_FOUND);
    ck_assert_msg(strstr(err.text, "have no topic \"clicks\"") != NULL, "%s", err.text);
    rd_kafka_mock_topic_set_error(cluster, "clicks", RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
    ck_assert_int_eq(t->ops->partitions(t, &n, &err), PN_INVALID);
    ck_assert_msg(strstr(err.text, "do not let this user read topic \"clicks\"") != NULL, "%s", err.text);
    t->ops->close(t);
    down();
    cluster = NULL;
    t = open_topic(); /* nobody listens there */
    ck_assert_int_eq(t->ops->partitions(t, &n, &err), PN_BUSY);
    ck_assert(t->ops->trouble(t, &err));
    ck_assert_msg(strstr(err.text, "kafka brokers 127.0.0.1:1: none can be reached; trying again") != NULL, "%s", err.text);
    t->ops->close(t);
} END_TEST

START_TEST(properties_are_passed_on_and_passwords_come_from_files) {
    struct pn_kafka_spec s = spec();
    struct pn_error err = {""};
    snprintf(s.properties[0].name, sizeof s.properties[0].name, "security.protocol");
    snprintf(s.properties[0].value, sizeof s.properties[0].value, "sasl_plaintex");
    ck_assert_ptr_null(pn_kafka_open(&s, &err));
    ck_assert_msg(strstr(err.text, "security.protocol") != NULL, "%s", err.text);
    snprintf(s.properties[0].name, sizeof s.properties[0].name, "sasl.password");
    snprintf(s.properties[0].value, sizeof s.properties[0].value, "file:/there/is/none");
    ck_assert_ptr_null(pn_kafka_open(&s, &err));
    ck_assert_msg(strstr(err.text, "the password's file /there/is/none No such file") != NULL, "%s", err.text);
    char path[] = "/tmp/pinion-test-XXXXXX";
    const int fd = mkstemp(path);
    ck_assert_int_eq((int)write(fd, "secret\n", 7), 7);
    close(fd);
    snprintf(s.properties[0].value, sizeof s.properties[0].value, "file:%s", path);
    struct pn_topic *t = pn_kafka_open(&s, &err);
    ck_assert_msg(t != NULL, "%s", err.text);
    t->ops->close(t);
    unlink(path);
} END_TEST

/* The reader over it. Each life gives some batches; the ledger goes from one to the next. */
struct life { struct fake *f; struct pn_reader *r; struct pn_ledger ledger; bool came; enum pn_result result; const struct pn_raw *raw; struct pn_error err; };
static void proposes(void *owner) {
    struct life *l = owner;
    bool changed;
    struct json_object *o = pn_reader_proposal(l->r);
    ck_assert_int_eq(pn_ledger_take(&l->ledger, o, &changed, NULL), PN_OK);
    json_object_put(o);
    o = pn_ledger_write(&l->ledger);
    pn_reader_deal(l->r, o);
    json_object_put(o);
}
static void on_batch(void *owner, enum pn_result r, const struct pn_raw *raw, const struct pn_error *err) {
    struct life *l = owner;
    l->came = true;
    l->result = r;
    l->raw = raw;
    if (err != NULL) l->err = *err;
}
START_TEST(a_reader_that_is_replaced_goes_on_where_its_steps_ended) {
    enum { EACH = 400, BATCH = 30 };
    static unsigned char count[3][EACH];
    memset(count, 0, sizeof count);
    up("lz4", 3);
    for (int p = 0; p < 3; p++) put(p, 0, EACH / 2);
    struct pn_data d = {.present = true, .format = PN_FORMAT_JSONL, .threshold = 0.5, .label = "y", .columns = "id"};
    d.kafka = spec();
    d.kafka.end = PN_END_IDLE;
    d.kafka.idle_ms = 500;
    struct life l = {.f = NULL};
    bool over = false;
    uint64_t steps = 0;
    for (int life = 0; !over; life++) {
        l.f = fake_open();
        l.r = pn_reader_open(&l.f->env, &d, &(struct pn_reader_options){.n_producers = 1, .batch_size = BATCH, .skip_batches = steps, .topic = pn_kafka_open, .proposes = proposes, .owner = &l});
        struct json_object *o = pn_ledger_write(&l.ledger);
        pn_reader_deal(l.r, o);
        json_object_put(o);
        if (life == 1)
            for (int p = 0; p < 3; p++) put(p, EACH / 2, EACH / 2);
        if (life == 2) rd_kafka_mock_push_request_errors(cluster, 1, 3, RD_KAFKA_RESP_ERR__TRANSPORT, RD_KAFKA_RESP_ERR__TRANSPORT, RD_KAFKA_RESP_ERR__TRANSPORT);
        for (int k = 0; k < 9 && !over; k++) {
            l.came = false;
            pn_reader_next(l.r, on_batch, &l);
            for (int ms = 0; ms < 20000 && !l.came; ms++) {
                fake_run(l.f);
                if (l.came) break;
                usleep(1000);
                fake_advance(l.f, 1);
            }
            ck_assert(l.came);
            over = l.result == PN_NOT_FOUND;
            ck_assert_msg(over || l.result == PN_OK, "%s", l.err.text);
            for (size_t r = 0; !over && r < l.raw->n_rows; r++) {
                unsigned p, i;
                char id[32];
                snprintf(id, sizeof id, "%.*s", (int)l.raw->length[r], l.raw->text + l.raw->offset[r]);
                ck_assert_int_eq(sscanf(id, "%u-%u", &p, &i), 2);
                ck_assert(p < 3 && i < EACH);
                ck_assert(count[p][i]++ == 0);
            }
            steps += !over && l.raw->n_rows == BATCH;
        }
        pn_reader_close(l.r);
        fake_run(l.f);
        fake_close(l.f);
    }
    for (int p = 0; p < 3; p++)
        for (int i = 0; i < EACH; i++) ck_assert_uint_eq(count[p][i], i % 10 != 3);
    pn_ledger_free(&l.ledger);
    down();
} END_TEST

int main(void) {
    TCase *c = tcase_create("kafka");
    tcase_add_loop_test(c, messages_come_in_order_from_any_offset_however_they_are_compressed, 0, sizeof codecs / sizeof *codecs);
    tcase_add_test(c, errors_of_brokers_delay_messages_and_change_nothing);
    tcase_add_test(c, what_is_not_there_is_said_and_not_skipped);
    tcase_add_test(c, properties_are_passed_on_and_passwords_come_from_files);
    tcase_add_test(c, a_reader_that_is_replaced_goes_on_where_its_steps_ended);
    return fake_suite("kafka", c);
}
