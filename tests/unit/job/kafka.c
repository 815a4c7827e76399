#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "job/job.h"

static enum pn_result parse(struct pn_job *job, const char *train, const char *features, const char *rest, struct pn_error *err) {
    char text[4000];
    snprintf(text, sizeof text,
             "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data:\n    train: {%s}\n%s"
             "  features: [%s]\n  tables: {defaults: {optimizer: {name: adagrad, lr: 0.1}, init: zero}}\n  model: {name: lr}\n  optimizer: {name: adam, lr: 0.01}\n  training: {batchSize: 32}\n",
             train, rest, features);
    return pn_job_parse(job, text, strlen(text), "job.yaml", "/base", NULL, err);
}
static const char user[] = "{name: user, type: categorical}";

static const char *const good[] = {
    "format: jsonl, columns: [user, hour], label: click, kafka: {brokers: \"a.example:9092,[::1]:9093\", topic: clicks.v1}",
    "format: csv, columns: [user, label, hour], kafka: {brokers: \"127.0.0.1:9092\", topic: c, start: latest, end: {idle: 30s}}",
    "format: tsv, columns: [user, label], threshold: 3, kafka: {brokers: \"h:1\", topic: c, start: [0, 17, 9000000000], end: latest}",
    "format: criteo, kafka: {brokers: \"h:1\", topic: c, end: never, properties: {security.protocol: sasl_ssl, sasl.mechanism: PLAIN, sasl.username: u, sasl.password: \"file:/run/secret\", fetch.min.bytes: 10}}",
};
START_TEST(a_topic_is_read_as_written_and_printed_again) {
    static struct pn_job j, again;
    struct pn_error err = {""};
    ck_assert_msg(parse(&j, good[_i], _i == 3 ? "{name: I1, type: categorical}" : user, "    stream: {window: 1000}\n", &err) == PN_OK, "%s", err.text);
    char *text = pn_job_text(&j);
    ck_assert_msg(pn_job_parse(&again, text, strlen(text), "job", NULL, NULL, &err) == PN_OK, "%s\n%s", err.text, text);
    ck_assert_int_eq(memcmp(&j.train, &again.train, sizeof j.train), 0);
    const struct pn_kafka_spec *k = &again.train.kafka;
    if (_i == 0) ck_assert(strcmp(k->brokers, "a.example:9092,[::1]:9093") == 0 && strcmp(k->topic, "clicks.v1") == 0 && k->start == PN_START_EARLIEST && k->end == PN_END_NEVER);
    if (_i == 1) ck_assert(k->start == PN_START_LATEST && k->end == PN_END_IDLE && k->idle_ms == 30000 && !again.train.tabs);
    if (_i == 2) ck_assert(k->start == PN_START_OFFSETS && k->n_offsets == 3 && k->offsets[2] == 9000000000u && k->end == PN_END_LATEST && again.train.tabs && again.train.threshold == 3);
    if (_i == 3) ck_assert(k->n_properties == 5 && strcmp(k->properties[3].value, "file:/run/secret") == 0 && strcmp(k->properties[4].name, "fetch.min.bytes") == 0);
    free(text);
    pn_job_free(&j);
    pn_job_free(&again);
} END_TEST

static const struct { const char *train, *features, *rest, *why; } bad[] = {
    {"format: jsonl, columns: [user], kafka: {topic: c}", user, "", "needs brokers"},
    {"format: jsonl, columns: [user], kafka: {brokers: \"h\", topic: c}", user, "", "brokers must be host:port"},
    {"format: jsonl, columns: [user], kafka: {brokers: \"h:1, i:2\", topic: c}", user, "", "brokers must be host:port"},
    {"format: jsonl, columns: [user], kafka: {brokers: \"h:99999\", topic: c}", user, "", "brokers must be host:port"},
    {"format: jsonl, columns: [user], kafka: {brokers: \"h:1\"}", user, "", "needs a topic"},
    {"format: jsonl, columns: [user], kafka: {brokers: \"h:1\", topic: a/b}", user, "", "a topic's name"},
    {"format: jsonl, columns: [user], kafka: {brokers: \"h:1\", topic: c, group: g}", user, "", "unknown key \"group\""},
    {"format: jsonl, columns: [user], kafka: {brokers: \"h:1\", topic: c, start: now}", user, "", "earliest"},
    {"format: jsonl, columns: [user], kafka: {brokers: \"h:1\", topic: c, start: [-1]}", user, "", "an offset"},
    {"format: jsonl, columns: [user], kafka: {brokers: \"h:1\", topic: c, end: {idle: 1ms}}", user, "", "idle must be from"},
    {"format: jsonl, columns: [user], kafka: {brokers: \"h:1\", topic: c, properties: {group.id: g}}", user, "", "unknown key \"group.id\""},
    {"format: jsonl, columns: [user], kafka: {brokers: \"h:1\", topic: c, properties: {sasl.password: secret}}", user, "", "a password does not belong in it"},
    {"format: jsonl, kafka: {brokers: \"h:1\", topic: c}", user, "", "needs columns"},
    {"format: jsonl, columns: [user, label], kafka: {brokers: \"h:1\", topic: c}", user, "", "without the label"},
    {"format: csv, columns: [user], kafka: {brokers: \"h:1\", topic: c}", user, "", "the label \"label\" among them"},
    {"format: csv, columns: [user, label], uri: a.csv, kafka: {brokers: \"h:1\", topic: c}", user, "", "uri has no meaning beside kafka"},
    {"format: libfm, kafka: {brokers: \"h:1\", topic: c}", user, "", "jsonl, csv, tsv or criteo"},
    {"format: jsonl, columns: [user], kafka: {brokers: \"h:1\", topic: c}", user, "    shuffle: {buffer: 10, seed: 1}\n", "shuffle has no place"},
    {"format: jsonl, columns: [user], kafka: {brokers: \"h:1\", topic: c}", user, "    test: {format: jsonl, columns: [user], kafka: {brokers: \"h:1\", topic: c}}\n", "only train can come out of a topic"},
    {"format: jsonl, columns: [user, n], kafka: {brokers: \"h:1\", topic: c}", "{name: user, type: categorical}, {name: n, type: numeric, transform: [standardize]}", "", "needs mean and std"},
    {"format: jsonl, columns: [user], kafka: {brokers: \"h:1\", topic: c}", "{name: user, type: categorical, vocabulary: {minCount: 2}}", "", "no pass over the data"},
};
START_TEST(what_a_topic_cannot_be_is_refused_in_one_line) {
    static struct pn_job j;
    struct pn_error err = {""};
    ck_assert_int_eq(parse(&j, bad[_i].train, bad[_i].features, bad[_i].rest, &err), PN_INVALID);
    ck_assert_msg(strstr(err.text, bad[_i].why) != NULL, "%s", err.text);
} END_TEST

int main(void) {
    Suite *s = suite_create("kafka");
    TCase *t = tcase_create("kafka");
    tcase_add_loop_test(t, a_topic_is_read_as_written_and_printed_again, 0, sizeof good / sizeof *good);
    tcase_add_loop_test(t, what_a_topic_cannot_be_is_refused_in_one_line, 0, sizeof bad / sizeof *bad);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
