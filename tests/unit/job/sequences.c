/* Sequences, further labels and a teacher in a job file: read, printed and read again the same; mistakes named. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "job/job.h"

#define HEAD "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n"
static const char ranking[] = HEAD
    "  data:\n    train: {format: movielens, uri: /ml, split: time, part: train, history: 20}\n    validation: {format: movielens, uri: /ml, split: time, part: validation, history: 20}\n"
    "  features:\n    - {name: item, type: categorical}\n    - {name: history, type: sequence, maxLength: 20, separator: \",\", hash: {share: item}}\n    - {name: marks, type: sequence}\n"
    "  model:\n    name: dcn_v2\n    embeddingDim: 8\n    sequence: {fields: [history, marks], candidate: item, blocks: 3, heads: 4, width: 16, feedForward: 32, recent: 2, positions: false, dropout: 0.25}\n"
    "    heads: [{name: best, threshold: 5, weight: 0.5}, {name: bought, column: b}]\n    distill: {column: teacher, weight: 0.3, temperature: 2}\n";
static const char next_item[] = HEAD
    "  data:\n    train: {format: sasrec, uri: /s, part: train, history: 50, negatives: {perPositive: 2, seed: 3, redraw: true}}\n    validation: {format: s3rec, uri: /s, part: validation, history: 50}\n"
    "  features:\n    - {name: h, type: sequence, maxLength: 50, hash: {share: i}}\n    - {name: t, type: sequence, maxLength: 50, hash: {share: i}}\n"
    "    - {name: n, type: sequence, maxLength: 1000000, hash: {share: i}}\n"
    "  model: {name: sasrec, embeddingDim: 8, sequence: {fields: [h], target: t, negatives: n, loss: softmax}}\n  training: {earlyStopping: {metric: ndcg@10}}\n";

static enum pn_result parse(struct pn_job *job, const char *text, struct pn_error *err) { return pn_job_parse(job, text, strlen(text), "t", NULL, NULL, err); }

START_TEST(sequences_heads_and_teachers_are_read_printed_and_read_again) {
    static struct pn_job job, again;
    struct pn_error err = {""};
    ck_assert_msg(parse(&job, ranking, &err) == PN_OK, "%s", err.text);
    const struct pn_sequence_spec *q = &job.sequence;
    ck_assert(q->n_fields == 2 && q->fields[0] == 1 && q->fields[1] == 2 && q->candidate == 1 && q->blocks == 3 && q->heads == 4 && q->width == 16 && q->feed_forward == 32);
    ck_assert(q->recent == 2 && !q->positions && q->dropout == 0.25f);
    ck_assert_uint_eq(job.fields[0].hash_seed, job.fields[1].hash_seed);
    ck_assert(job.n_heads == 2 && job.heads[0].threshold == 5 && job.heads[0].weight == 0.5f && job.heads[1].threshold == 0.5 && strcmp(job.heads[1].column, "b") == 0);
    ck_assert(job.distill.weight == 0.3f && job.distill.temperature == 2 && strcmp(job.distill.column, "teacher") == 0);
    ck_assert(job.train.history == 20 && job.validation.part == PN_PART_VALIDATION);
    const char *const texts[] = {ranking, next_item};
    for (int i = 0; i < 2; i++) {
        ck_assert_msg(parse(&job, texts[i], &err) == PN_OK, "%s", err.text);
        char *text = pn_job_text(&job);
        ck_assert_msg(parse(&again, text, &err) == PN_OK, "%s\n%s", err.text, text);
        char *twice = pn_job_text(&again);
        ck_assert_str_eq(text, twice);
        ck_assert_mem_eq(&job.sequence, &again.sequence, sizeof job.sequence);
        free(text);
        free(twice);
        pn_job_free(&again);
        pn_job_free(&job);
    }
    ck_assert_int_eq(parse(&job, next_item, &err), PN_OK);
    ck_assert(job.model == PN_MODEL_SASREC && job.sequence.softmax && job.sequence.target == 2 && job.sequence.negatives == 3 && job.sequence.seen == 0 && job.stop_by == PN_BY_NDCG && job.rank_k == 10);
    ck_assert(job.train.format == PN_FORMAT_SASREC && job.validation.format == PN_FORMAT_S3REC && job.train.negatives.per_positive == 2 && job.train.negatives.redraw);
    pn_job_free(&job);
} END_TEST

START_TEST(what_does_not_fit_is_refused) {
    static const struct { const char *whole, *from, *to, *words; } wrong[] = {
        {ranking, "fields: [history, marks]", "fields: [history]", "\"marks\" is a sequence that no model reads"},
        {ranking, "fields: [history, marks]", "fields: [history, item]", "no feature of type sequence is named \"item\""},
        {ranking, "candidate: item", "candidate: marks", "no feature with one embedding"},
        {ranking, "width: 16", "width: 18", "not a multiple of heads"},
        {ranking, "maxLength: 20", "maxLength: 300", "is above 200"},
        {ranking, "name: dcn_v2", "name: fm", "has a meaning for wide_deep"},
        {ranking, "candidate: item", "target: marks", "for the model sasrec only"},
        {ranking, "name: bought", "name: best", "stands twice"},
        {ranking, "column: teacher, ", "", "distill needs column"},
        {ranking, "split: time, part: validation", "split: u1, part: validation", "part: validation goes with"},
        {next_item, "part: train, history: 50", "part: train", "needs history"},
        {next_item, "part: train, ", "", "needs part"},
        {next_item, ", target: t", "", "needs target"},
        {next_item, "name: n, type: sequence, maxLength: 1000000, hash: {share: i}", "name: n, type: sequence", "one table with one hash.share"},
        {next_item, "loss: softmax", "loss: softmax, width: 4", "width of a sasrec model is its embeddingDim"},
        {next_item, "format: sasrec, uri: /s, part: train, history: 50, negatives: {perPositive: 2, seed: 3, redraw: true}", "format: csv, uri: /s", "go together"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        static struct pn_job job;
        char text[3000];
        const char *at = strstr(wrong[i].whole, wrong[i].from);
        ck_assert_msg(at != NULL, "%s", wrong[i].from);
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - wrong[i].whole), wrong[i].whole, wrong[i].to, at + strlen(wrong[i].from));
        struct pn_error err = {""};
        ck_assert_msg(parse(&job, text, &err) == PN_INVALID, "%s", wrong[i].words);
        ck_assert_msg(strstr(err.text, wrong[i].words) != NULL, "%s: %s", wrong[i].words, err.text);
    }
} END_TEST

int main(void) {
    Suite *s = suite_create("sequences");
    TCase *t = tcase_create("sequences");
    tcase_set_timeout(t, 30);
    tcase_add_test(t, sequences_heads_and_teachers_are_read_printed_and_read_again);
    tcase_add_test(t, what_does_not_fit_is_refused);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
