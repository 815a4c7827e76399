/* spec.data.train.kafka: a topic in place of files. What it says is checked as far as it can be without a broker. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "job/sections.h"

#define KEYS(...) (const char *const[]){__VA_ARGS__, NULL}

/* What a job may say to librdkafka: how to get to the brokers, and how much to fetch. Where reading begins and ends, and what is kept, is ours. */
static const char *const properties[] = {
    "security.protocol", "sasl.mechanism", "sasl.mechanisms", "sasl.username", "sasl.password", "sasl.kerberos.service.name", "sasl.kerberos.principal", "sasl.kerberos.keytab",
    "ssl.ca.location", "ssl.certificate.location", "ssl.key.location", "ssl.key.password", "ssl.endpoint.identification.algorithm", "ssl.cipher.suites", "client.id", "client.rack",
    "broker.address.family", "isolation.level", "check.crcs", "fetch.min.bytes", "fetch.wait.max.ms", "fetch.max.bytes", "max.partition.fetch.bytes", "receive.message.max.bytes",
    "queued.min.messages", "queued.max.messages.kbytes", "socket.timeout.ms", "socket.keepalive.enable", "reconnect.backoff.ms", "reconnect.backoff.max.ms", NULL};
static const char *const secrets[] = {"sasl.password", "ssl.key.password", NULL};

static bool among(const char *name, const char *const *list) {
    for (; *list != NULL; list++)
        if (strcmp(*list, name) == 0) return true;
    return false;
}

static void read_brokers(struct pn_yaml *y, struct fy_node *n, const char *what, struct pn_kafka_spec *k, struct fy_node *at) {
    if (n == NULL) {
        pn_yaml_problem(y, at, "%s.kafka needs brokers: host:port, several with ',' between", what);
        return;
    }
    char text[400];
    if (!pn_yaml_text(y, n, "brokers", text, sizeof text)) return;
    bool good = text[0] != '\0';
    for (const char *p = text; good && *p != '\0';) {
        const size_t one = strcspn(p, ",");
        const char *colon = NULL;
        for (const char *c = p; c < p + one; c++) {
            good = good && ((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') || strchr(".-_:[]", *c) != NULL);
            if (*c == ':') colon = c;
        }
        char *end = NULL;
        const long port = colon != NULL ? strtol(colon + 1, &end, 10) : 0;
        good = good && colon != NULL && colon > p && end == p + one && port >= 1 && port <= 65535;
        p += one + (p[one] == ',');
    }
    if (!good) pn_yaml_problem(y, n, "brokers must be host:port, several with ',' between and no blanks; found \"%s\"", text);
    else snprintf(k->brokers, sizeof k->brokers, "%s", text);
}

static void read_start(struct pn_yaml *y, struct fy_node *n, struct pn_kafka_spec *k) {
    if (n == NULL) return;
    int which = 0;
    if (fy_node_get_type(n) != FYNT_SEQUENCE) {
        if (pn_yaml_choice(y, n, "start", KEYS("earliest", "latest"), NULL, &which)) k->start = which == 1 ? PN_START_LATEST : PN_START_EARLIEST;
        return;
    }
    const int count = fy_node_sequence_item_count(n);
    if (count < 1 || count > PN_MAX_PARTITIONS) {
        pn_yaml_problem(y, n, "start must be earliest, latest, or a list of offsets: of partition 0, 1, ... (1 to %d)", PN_MAX_PARTITIONS);
        return;
    }
    void *it = NULL;
    k->start = PN_START_OFFSETS;
    for (struct fy_node *o; (o = fy_node_sequence_iterate(n, &it)) != NULL;) pn_yaml_count(y, o, "an offset", 0, INT64_MAX, &k->offsets[k->n_offsets++]);
}

static void read_end(struct pn_yaml *y, struct fy_node *n, struct pn_kafka_spec *k) {
    if (n == NULL) return;
    int which = 0;
    if (fy_node_get_type(n) == FYNT_MAPPING) {
        if (!pn_yaml_keys(y, n, "end", KEYS("idle"), NULL)) return;
        k->end = PN_END_IDLE;
        if (pn_yaml_get(n, "idle") == NULL) pn_yaml_problem(y, n, "end: {idle: 30s} says after how long without a message the stream is over");
        else if (pn_yaml_duration(y, pn_yaml_get(n, "idle"), "idle", &k->idle_ms) && (k->idle_ms < 10 || k->idle_ms > 1000ull * 86400 * 365)) pn_yaml_problem(y, n, "idle must be from 10ms to a year");
    } else if (pn_yaml_choice(y, n, "end", KEYS("never", "latest"), NULL, &which)) k->end = which == 1 ? PN_END_LATEST : PN_END_NEVER;
}

static void read_properties(struct pn_yaml *y, struct fy_node *n, struct pn_kafka_spec *k) {
    if (n == NULL || !pn_yaml_keys(y, n, "properties", properties, NULL)) return;
    void *it = NULL;
    for (struct fy_node_pair *pair; (pair = fy_node_mapping_iterate(n, &it)) != NULL;) {
        struct fy_node *value = fy_node_pair_value(pair);
        if (k->n_properties == PN_MAX_PROPERTIES) {
            pn_yaml_problem(y, n, "at most %d properties", PN_MAX_PROPERTIES);
            return;
        }
        char *name = k->properties[k->n_properties].name, *text = k->properties[k->n_properties].value;
        if (!pn_yaml_text(y, fy_node_pair_key(pair), "a property", name, sizeof k->properties->name) || !pn_yaml_text(y, value, name, text, sizeof k->properties->value)) continue;
        if (among(name, secrets) && (strncmp(text, "file:/", 6) != 0 || text[6] == '\0'))
            pn_yaml_problem(y, value, "%s must be file:/PATH, a file that workers can read: a job file is kept and shown, a password does not belong in it", name);
        k->n_properties++;
    }
}

void pn_job_read_kafka(struct pn_yaml *y, struct fy_node *n, const char *what, struct pn_data *d) {
    if (!pn_yaml_keys(y, n, "kafka", KEYS("brokers", "topic", "start", "end", "properties"), NULL)) return;
    if (d->format != PN_FORMAT_CSV && d->format != PN_FORMAT_JSONL && d->format != PN_FORMAT_CRITEO)
        pn_yaml_problem(y, n, "%s: messages may be of format jsonl, csv, tsv or criteo", what);
    read_brokers(y, pn_yaml_get(n, "brokers"), what, &d->kafka, n);
    struct fy_node *topic = pn_yaml_get(n, "topic");
    char name[250] = "";
    if (topic == NULL) pn_yaml_problem(y, n, "%s.kafka needs a topic", what);
    else if (pn_yaml_text(y, topic, "topic", name, sizeof name)) {
        bool good = name[0] != '\0';
        for (const char *c = name; *c != '\0'; c++) good = good && ((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') || strchr("._-", *c) != NULL);
        if (!good) pn_yaml_problem(y, topic, "a topic's name has letters, digits, '.', '_' and '-' only; found \"%s\"", name);
        snprintf(d->kafka.topic, sizeof d->kafka.topic, "%s", name);
    }
    read_start(y, pn_yaml_get(n, "start"), &d->kafka);
    read_end(y, pn_yaml_get(n, "end"), &d->kafka);
    read_properties(y, pn_yaml_get(n, "properties"), &d->kafka);
}

void pn_job_check_kafka(struct pn_yaml *y, struct fy_node *data, const struct pn_job *job) {
    struct fy_node *n = pn_yaml_get(pn_yaml_get(data, "train"), "kafka");
    if (n == NULL) return;
    if (job->epochs != 1) pn_yaml_problem(y, n, "a topic is read once: training.epochs must be 1");
    if (job->shuffle_buffer > 0) pn_yaml_problem(y, n, "a topic is read in its order: shuffle has no place beside it");
    if (job->patience > 0) pn_yaml_problem(y, n, "a topic is read once: earlyStopping has no place beside it");
    if (job->privacy.rows > 0) pn_yaml_problem(y, n, "a private job draws from all of its examples: they come from files");
    if (pn_job_prepares(job)) pn_yaml_problem(y, n, "there is no pass over the data before the stream: leaves, quantiles, and vocabularies that are counted or come from a file have no place beside kafka");
    for (size_t i = 0; i < job->n_fields; i++)
        if (job->fields[i].standardize && job->fields[i].std <= 0)
            pn_yaml_problem(y, n, "feature \"%s\": standardize needs mean and std beside kafka; there is no pass over the data before the stream", job->fields[i].name);
}
