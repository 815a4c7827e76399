/* A secure job in the simulated cluster: five data holders with a few rows each. The oracle: Adam counts the steps of each row. The weights, and without a choice of
 * rows all rows, with a choice made once (fest) the chosen ones, are in every step: in the last checkpoint their counts are the job's steps, or one was lost or doubled.
 * And the ledger of noise (I8): masked words of a round leave a holder only when the durable record has charged as many rounds. Noise comes from libsodium, so that no figure of the model repeats; what is
 * sent, lost and crashed follows the seed as far as it does not depend on noise. */
#include <assert.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include "common/json.h"
#include "common/wire.h"
#include "privacy/secagg/round.h"
#include "ps/checkpoint.h"
#include "secure/plan.h"
#include "tests/sim/sim.h"

enum { ROWS = 400, USERS = 160, HOLDERS = 5, BATCH = 16 };

void sim_secure_job(struct sim *s, char *yaml, size_t room, uint64_t *steps) {
    char *text = malloc(ROWS * 32 + 64);
    assert(text != NULL);
    size_t n = (size_t)sprintf(text, "who,item,hour,click\n");
    for (int i = 0; i < ROWS; i++) n += (size_t)sprintf(text + n, "u%d,i%d,%d,%d\n", (int)sim_draw(s, USERS), (int)sim_draw(s, 40), (int)sim_draw(s, 6), (int)sim_draw(s, 2));
    sim_disk_put(s->disk, "/data/train.csv", text, n);
    free(text);
    const uint64_t selection = sim_draw(s, 3), epochs = 1 + sim_draw(s, 4);
    const bool by_user = sim_chance(s, .3);
    *steps = epochs * (by_user ? USERS : ROWS) / HOLDERS / BATCH;
    s->wire.sums_a_charge = selection == 0 ? 2 : 1;
    s->wire.chooses = selection == 1;
    snprintf(yaml, room,
             "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: secure}\nspec:\n  data: {train: {format: csv, uri: /data/train.csv, label: click}}\n"
             "  features: [{name: item, type: categorical, buckets: 32}, {name: hour, type: categorical, buckets: 8}]\n"
             "  tables: {defaults: {optimizer: {name: adam, lr: 0.01}}}\n  model: {name: lr}\n  optimizer: {name: adam, lr: 0.01}\n"
             "  training: {batchSize: %d, epochs: %llu, seed: 3, dataShards: %d, consistency: {mode: sync}}\n  checkpoint: {every: %llums, keep: 2}\n  failurePolicy: {maxRestarts: 100000}\n"
             "  privacy: {%s: %d, epsilon: 100, delta: 1.0e-3, budget: 1000, noiseMultiplier: %s, dataset: d, aggregation: secure, minWorkers: 3, maxDropout: 0.2, phaseTimeout: %llums%s}\n",
             BATCH, (unsigned long long)epochs, HOLDERS, (unsigned long long)(100 + sim_draw(s, 1000)), by_user ? "unit: user, userField: who, examplesPerUser: 3, users" : "rows", by_user ? USERS : ROWS, selection == 0 ? "5, voteNoise: 6" : "5",
             (unsigned long long)(1000 + sim_draw(s, 2000)),
             (const char *const[]){", selection: adafest, threshold: 0.000001", ", selection: fest, threshold: 0.000001", ", selection: dense"}[selection]);
}

void sim_secure_identity(int i, uint8_t secret[64]) {
    uint8_t seed[32] = {(uint8_t)(i + 1)}, public_key[32];
    crypto_sign_seed_keypair(public_key, secret, seed);
}

/* The noise of a round is used: a charge must be durable for it. An attempt of adafest is two sums, of one charge; fest begins with a choice, which is a charge of its own kind. */
static void used(struct sim *s, uint64_t round) {
    for (size_t i = 0; i < s->wire.n_rounds; i++)
        if (s->wire.rounds[i] == round) return;
    assert(s->wire.n_rounds < sizeof s->wire.rounds / sizeof *s->wire.rounds);
    s->wire.rounds[s->wire.n_rounds++] = round;
    const char *json = sim_store_first(s->store, "job");
    struct json_object *o = json == NULL ? NULL : pn_json_parse(json, strlen(json), NULL), *unit = pn_json_at(pn_json_get(o, "producers"), 0);
    const uint64_t choices = pn_json_u64(unit, "lives", 0), charged = pn_json_u64(unit, "charged", 0) + choices;
    if (o != NULL) json_object_put(o);
    if (charged < s->wire.charged || s->wire.n_rounds > charged * s->wire.sums_a_charge || (choices > 0) != s->wire.chooses) s->wire.uncharged = true;
    s->wire.charged = charged;
}

/* Counts the bytes of masked words, once a message; a segment's words have no padding. */
void sim_secure_sent(struct sim *s, const struct pn_msg *m) {
    struct pn_frame f;
    if (m->data[5] == PN_PUSH) s->wire.pushes++;
    if (m->data[5] != PN_AGG_MASKED || pn_frame_open(&f, m->data, m->n_bytes, NULL) != PN_OK) return;
    uint32_t crc;
    uint64_t round[4];
    size_t n_round;
    if (pn_frame_u64s(&f, "round", round, 4, &n_round) && n_round == 4) used(s, round[0]);
    memcpy(&crc, m->data + 28, sizeof crc);
    uint8_t *seen = &s->wire.seen[crc % 65536 / 8];
    if (!(*seen >> crc % 8 & 1))
        for (size_t i = sizeof(uint8_t[64]); i < f.body_bytes; i++, s->wire.n++) s->wire.bytes[f.body[i]]++; /* behind the signature */
    *seen |= (uint8_t)(1u << crc % 8);
    pn_frame_close(&f);
}
bool sim_secure_wire(const struct sim *s, char *line, size_t room) {
    const double expected = (double)s->wire.n / 256;
    double chi = 0;
    for (int b = 0; b < 256; b++) chi += ((double)s->wire.bytes[b] - expected) * ((double)s->wire.bytes[b] - expected) / (expected > 0 ? expected : 1);
    if (s->wire.uncharged) snprintf(line, room, "noise before its budget: %zu sums were made, %llu rounds are charged durably", s->wire.n_rounds, (unsigned long long)s->wire.charged);
    else if (s->wire.pushes > 0) snprintf(line, room, "%llu pushes in the clear", (unsigned long long)s->wire.pushes);
    else if (s->wire.n < 5000) snprintf(line, room, "only %llu bytes of masked words were sent", (unsigned long long)s->wire.n);
    else if (chi > 255 + 7 * 22.6) snprintf(line, room, "masked words are not uniform: chi-square %.0f with 255 degrees of freedom", chi); /* seven deviations */
    else return true;
    return false;
}

/* Which rows a fest job has chosen, by its record: of each table a bit a place. */
static void read_chosen(struct sim *s, struct pn_job *job, struct pn_secure_rows *rows, uint8_t *passed, const char *yaml) {
    const char *json = sim_store_first(s->store, "job");
    struct json_object *o = json == NULL ? NULL : pn_json_parse(json, strlen(json), NULL);
    struct pn_error err;
    const bool good = pn_job_parse(job, yaml, strlen(yaml), "secure", NULL, NULL, &err) == PN_OK && pn_secure_rows_open(rows, job, pn_json_u64(pn_json_get(o, "model"), "parameters", 0), &err) == PN_OK &&
                      pn_secure_unhex(pn_json_str(o, "chosen", ""), passed, pn_secure_bitmap_bytes(job->privacy.vote_buckets));
    assert(good && "the record of a fest job that has ended has its choice");
    if (o != NULL) json_object_put(o);
}

struct counts { uint64_t steps, rows, strange, chosen_rows; bool all; char *line; size_t room; int bad; const struct pn_secure_rows *chosen; const uint8_t *passed; };
static enum pn_result visit(void *ctx, const struct pn_checkpoint_head *h, const struct pn_block *b, const void *payload) {
    struct counts *c = ctx;
    if (b->type != PN_BLOCK_RECORDS) return PN_OK;
    for (size_t at = 0; at < b->n_bytes; at += h->record_bytes[b->i_table]) {
        float count;
        uint64_t key;
        memcpy(&key, (const uint8_t *)payload + at, sizeof key);
        memcpy(&count, (const uint8_t *)payload + at + 16 + 12u * h->dim[b->i_table], sizeof count);
        c->rows++;
        if (c->chosen != NULL && !h->explicit_rows[b->i_table]) {
            const size_t row = pn_secure_row(c->chosen, b->i_table, key);
            c->strange += row == SIZE_MAX || !pn_secure_bit(c->passed, c->chosen->bucket[b->i_table][row]);
            c->chosen_rows++;
        }
        const bool always = c->all || h->explicit_rows[b->i_table];
        if ((always ? count != (float)c->steps : count > (float)c->steps) && !c->bad++)
            snprintf(c->line, c->room, "key %llu of table %u has taken %g steps, the job had %llu", (unsigned long long)key, b->i_table, (double)count, (unsigned long long)c->steps);
    }
    return PN_OK;
}
/* All records of one checkpoint file. False: *line says which step was lost or doubled, which row is not the job's, or that the file is bad. */
bool sim_secure_check(struct sim *s, const char *yaml, const void *image, size_t n, const char *digest, uint64_t steps, uint64_t *rows, uint64_t *missing, char *line, size_t room) {
    struct pn_job job;
    struct pn_secure_rows all;
    uint8_t passed[1024];
    const bool fest = s->wire.chooses;
    struct counts c = {.steps = steps, .all = s->wire.sums_a_charge == 1, .line = line, .room = room, .chosen = fest ? &all : NULL, .passed = passed};
    struct pn_checkpoint_head head;
    struct pn_error err = {""};
    if (fest) read_chosen(s, &job, &all, passed, yaml);
    const enum pn_result r = pn_checkpoint_read(image, n, digest, &head, visit, &c, &err);
    if (fest && *missing == UINT64_MAX) { /* with the first file: all that must be there */
        *missing = 0;
        for (size_t t = 0; t < all.n_tables; t++)
            for (size_t i = 0; all.bucket[t] != NULL && i < all.n[t]; i++) *missing += pn_secure_bit(passed, all.bucket[t][i]);
    }
    if (fest) {
        *missing -= c.chosen_rows;
        pn_secure_rows_close(&all);
        pn_job_free(&job);
    }
    *rows += c.rows;
    if (r != PN_OK) snprintf(line, room, "%s", err.text);
    else if (c.strange > 0 && !c.bad) snprintf(line, room, "%llu rows that the job has not chosen", (unsigned long long)c.strange);
    return r == PN_OK && c.bad == 0 && c.strange == 0;
}
