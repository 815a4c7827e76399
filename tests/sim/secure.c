/* A secure job in the simulated cluster: five data holders with a few rows each. The oracle: Adam counts the steps of each row. The weights, and without a choice of
 * rows all rows, are in every step: in the last checkpoint their counts are the job's steps, or one was lost or doubled. Noise comes from libsodium, so that no figure of the model repeats; what is
 * sent, lost and crashed follows the seed as far as it does not depend on noise. */
#include <assert.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include "common/wire.h"
#include "privacy/secagg/round.h"
#include "ps/checkpoint.h"
#include "tests/sim/sim.h"

enum { ROWS = 400, HOLDERS = 5, BATCH = 16 };

void sim_secure_job(struct sim *s, char *yaml, size_t room, uint64_t *steps) {
    char *text = malloc(ROWS * 24 + 64);
    assert(text != NULL);
    size_t n = (size_t)sprintf(text, "item,hour,click\n");
    for (int i = 0; i < ROWS; i++) n += (size_t)sprintf(text + n, "i%d,%d,%d\n", (int)sim_draw(s, 40), (int)sim_draw(s, 6), (int)sim_draw(s, 2));
    sim_disk_put(s->disk, "/data/train.csv", text, n);
    free(text);
    const bool adafest = sim_chance(s, .5);
    const uint64_t epochs = 1 + sim_draw(s, 4);
    *steps = epochs * ROWS / HOLDERS / BATCH;
    snprintf(yaml, room,
             "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: secure}\nspec:\n  data: {train: {format: csv, uri: /data/train.csv, label: click}}\n"
             "  features: [{name: item, type: categorical, buckets: 32}, {name: hour, type: categorical, buckets: 8}]\n"
             "  tables: {defaults: {optimizer: {name: adam, lr: 0.01}}}\n  model: {name: lr}\n  optimizer: {name: adam, lr: 0.01}\n"
             "  training: {batchSize: %d, epochs: %llu, seed: 3, dataShards: %d, consistency: {mode: sync}}\n  checkpoint: {every: %llums, keep: 2}\n  failurePolicy: {maxRestarts: 100000}\n"
             "  privacy: {rows: %d, epsilon: 100, delta: 1.0e-3, budget: 1000, noiseMultiplier: %s, dataset: d, aggregation: secure, minWorkers: 3, maxDropout: 0.2, phaseTimeout: %llums%s}\n",
             BATCH, (unsigned long long)epochs, HOLDERS, (unsigned long long)(100 + sim_draw(s, 1000)), ROWS, adafest ? "5, voteNoise: 6" : "5",
             (unsigned long long)(1000 + sim_draw(s, 2000)), adafest ? ", selection: adafest, threshold: 0.000001" : ", selection: dense");
}

void sim_secure_identity(int i, uint8_t secret[64]) {
    uint8_t seed[32] = {(uint8_t)(i + 1)}, public_key[32];
    crypto_sign_seed_keypair(public_key, secret, seed);
}

/* Counts the bytes of masked words, once a message; a segment's words have no padding. */
void sim_secure_sent(struct sim *s, const struct pn_msg *m) {
    struct pn_frame f;
    if (m->data[5] == PN_PUSH) s->wire.pushes++;
    if (m->data[5] != PN_AGG_MASKED || pn_frame_open(&f, m->data, m->n_bytes, NULL) != PN_OK) return;
    uint32_t crc;
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
    if (s->wire.pushes > 0) snprintf(line, room, "%llu pushes in the clear", (unsigned long long)s->wire.pushes);
    else if (s->wire.n < 20000) snprintf(line, room, "only %llu bytes of masked words were sent", (unsigned long long)s->wire.n);
    else if (chi > 255 + 7 * 22.6) snprintf(line, room, "masked words are not uniform: chi-square %.0f with 255 degrees of freedom", chi); /* seven deviations */
    else return true;
    return false;
}

struct counts { uint64_t steps, rows; bool dense; char *line; size_t room; int bad; };
static enum pn_result visit(void *ctx, const struct pn_checkpoint_head *h, const struct pn_block *b, const void *payload) {
    struct counts *c = ctx;
    if (b->type != PN_BLOCK_RECORDS) return PN_OK;
    for (size_t at = 0; at < b->n_bytes; at += h->record_bytes[b->i_table]) {
        float count;
        uint64_t key;
        memcpy(&key, (const uint8_t *)payload + at, sizeof key);
        memcpy(&count, (const uint8_t *)payload + at + 16 + 12u * h->dim[b->i_table], sizeof count);
        c->rows++;
        const bool always = c->dense || h->explicit_rows[b->i_table];
        if ((always ? count != (float)c->steps : count > (float)c->steps) && !c->bad++)
            snprintf(c->line, c->room, "key %llu of table %u has taken %g steps, the job had %llu", (unsigned long long)key, b->i_table, (double)count, (unsigned long long)c->steps);
    }
    return PN_OK;
}
/* All records of one checkpoint file. False: *line says which step was lost or doubled, or that the file is bad. */
bool sim_secure_check(const void *image, size_t n, const char *digest, uint64_t steps, bool dense, uint64_t *rows, char *line, size_t room) {
    struct counts c = {.steps = steps, .dense = dense, .line = line, .room = room};
    struct pn_checkpoint_head head;
    struct pn_error err = {""};
    if (pn_checkpoint_read(image, n, digest, &head, visit, &c, &err) != PN_OK) {
        snprintf(line, room, "%s", err.text);
        return false;
    }
    *rows += c.rows;
    return c.bad == 0;
}
