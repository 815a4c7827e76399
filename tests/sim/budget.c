/* A private job in the simulated cluster, and the ledger of its noise (I8): whenever a worker sends the push of a step for the first time in a life of a producer, the noise of that step is used,
 * and the coordinator's durable records must have charged that producer with as many steps as were used so far. What was charged never becomes less.
 * What workers tell the coordinator has nothing of their rows, and what they ask servers for must not depend on their data: a pull names weights alone, and with one example another (sim_neighbour) all asks are the same. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "common/json.h"
#include "common/wire.h"
#include "tests/sim/sim.h"
#include "worker/reader/reader.h"

enum { USED = 1 << 16, PRODUCERS = 8, BATCH = 8 };

struct sim_budget {
    uint64_t seen[USED];                 /* (producer, incarnation, step), open addressing; 0: free */
    uint64_t used[PRODUCERS], charged[PRODUCERS];
    uint64_t asked;                      /* hash of what workers asked servers for */
    bool failed;
    char line[300];
};
bool sim_neighbour;

void sim_budget_draw(struct sim *s, uint32_t n_producers, const char *mode, char *yaml, size_t room) {
    const uint64_t rows = 40ull * n_producers + sim_draw(s, 40);
    char *data = malloc(16 * (rows + 1));
    assert(data != NULL);
    size_t n = (size_t)sprintf(data, "y,k\n");
    const uint64_t other = sim_draw(s, rows);
    for (uint64_t i = 0; i < rows; i++) {
        const int y = (int)sim_draw(s, 2), k = (int)sim_draw(s, 20);
        char row[24];
        const size_t length = (size_t)sprintf(row, "%d,v%d", y, k);
        const uint32_t owner = pn_reader_owner(row, length, n_producers);
        size_t width = (size_t)sprintf(data + n, "%s", row);
        /* The other example is one of the same producer and as long, so that all takes as long: how long things take is told to everybody (docs/privacy.md). */
        for (char c = 'a'; sim_neighbour && i == other && (c == 'a' || pn_reader_owner(data + n, width, n_producers) != owner); c++) {
            assert(c <= 'z');
            width = (size_t)sprintf(data + n, "%d,%c%d", 1 - y, c, k);
        }
        n += width;
        data[n++] = '\n';
    }
    sim_disk_put(s->disk, "/data/train.csv", data, n);
    free(data);
    const bool tight = sim_chance(s, 0.2); /* not enough for a second life of a producer */
    snprintf(yaml, room,
             "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: private}\nspec:\n  data: {train: {format: csv, uri: /data/train.csv, label: y, rows: 100000}}\n"
             "  features: [{name: k, type: categorical, buckets: 16}]\n  tables: {defaults: {optimizer: {name: sgd, lr: 0.1}, init: zero}}\n  model: {name: lr}\n"
             "  optimizer: {name: sgd, lr: 0.1}\n  training: {batchSize: %d, epochs: %u, seed: 1, dataShards: %u, inFlight: %u, consistency: {mode: %s, ack: durable%s}}\n"
             "  privacy: {rows: %llu, epsilon: 50, delta: 1.0e-4, budget: %d, noiseMultiplier: %s, %s, dataset: d}\n"
             "  checkpoint: {every: %llums, keep: 2}\n  failurePolicy: {maxRestarts: 100000}\n",
             BATCH, 4 + (uint32_t)sim_draw(s, 20), n_producers, 1 + (uint32_t)sim_draw(s, 8), mode, strcmp(mode, "ssp") == 0 ? ", staleness: 3" : "", (unsigned long long)rows, tight ? 50 : 1000,
             tight ? "auto" : "5", sim_chance(s, 0.5) ? "selection: dense" : "selection: adafest, threshold: 2", (unsigned long long)(100 + sim_draw(s, 1000)));
}

struct sim_budget *sim_budget_open(void) { return calloc(1, sizeof(struct sim_budget)); }

static void broken(struct sim_budget *b, const char *what, uint64_t producer, uint64_t step, uint64_t used, uint64_t charged) {
    if (b->failed) return;
    b->failed = true;
    snprintf(b->line, sizeof b->line, "%s: producer %llu, step %llu: the noise of %llu steps was used, %llu are charged durably", what, (unsigned long long)producer, (unsigned long long)step,
             (unsigned long long)used, (unsigned long long)charged);
}

/* The durable charges of the one job. */
static void read_charges(struct sim_budget *b, struct sim *s) {
    const char *json = sim_store_first(s->store, "job");
    struct json_object *o = json == NULL ? NULL : pn_json_parse(json, strlen(json), NULL), *units = pn_json_get(o, "producers");
    for (uint64_t p = 0; p < PRODUCERS; p++) {
        const uint64_t now = p < pn_json_length(units) ? pn_json_u64(pn_json_at(units, p), "charged", 0) : 0;
        if (now < b->charged[p]) broken(b, "the budget was given back", p, 0, b->charged[p], now);
        b->charged[p] = now;
    }
    if (o != NULL) json_object_put(o);
}

/* A step's asks name no row of the embeddings: the servers would see what is in its batch. */
static void asks(struct sim_budget *b, const struct pn_msg *m) {
    struct pn_frame f;
    uint64_t tables[2], counts[2], slot = 0;
    size_t n = 0, n_counts = 0;
    if (pn_frame_open(&f, m->data, m->n_bytes, NULL) != PN_OK) return;
    if (f.kind == PN_PULL && pn_frame_u64s(&f, "tables", tables, 2, &n) && pn_frame_u64s(&f, "counts", counts, 2, &n_counts))
        for (size_t i = 0; i < n && !b->failed; i++)
            if (tables[i] == 0 && counts[i] > 0) {
                b->failed = true;
                snprintf(b->line, sizeof b->line, "a pull of a private job names %llu rows of the embeddings", (unsigned long long)counts[i]);
            }
    pn_frame_u64(&f, "slot", &slot); /* of CHANGES; its version counts pushes with rows, which were released */
    b->asked = f.kind == PN_CHANGES ? pn_mix64(b->asked ^ pn_mix64(f.request) ^ slot) : pn_mix64(b->asked ^ pn_hash(m->data, m->n_bytes, 0));
    pn_frame_close(&f);
}

/* What a worker says of a producer: steps, but nothing that is counted or measured of its rows. */
static void says(struct sim_budget *b, const struct pn_msg *m) {
    struct pn_frame f;
    if (pn_frame_open(&f, m->data, m->n_bytes, NULL) != PN_OK) return;
    struct json_object *o = pn_control_read(&f, NULL), *list = pn_json_get(o, "producers");
    for (size_t i = 0; i < pn_json_length(list) && !b->failed; i++) {
        struct json_object *e = pn_json_at(list, i);
        if (pn_json_double(e, "fraction", 0) == 0 && pn_json_double(e, "loss_sum", 0) == 0 && pn_json_u64(e, "loss_rows", 0) == 0 && pn_json_u64(e, "samples", 0) % BATCH == 0) continue;
        b->failed = true;
        snprintf(b->line, sizeof b->line, "a beat of a private job tells of its rows: %s", json_object_to_json_string(e));
    }
    if (o != NULL) json_object_put(o);
    pn_frame_close(&f);
}

void sim_budget_sent(struct sim_budget *b, struct sim *s, const struct pn_msg *m) {
    struct pn_frame f;
    uint64_t producer, incarnation, step;
    if (m->n_bytes >= PN_ENVELOPE_BYTES && m->data[5] == PN_BEAT) says(b, m);
    if (m->n_bytes >= PN_ENVELOPE_BYTES && (m->data[5] == PN_PULL || m->data[5] == PN_SEED || m->data[5] == PN_CHANGES)) asks(b, m);
    if (b->failed || m->n_bytes < PN_ENVELOPE_BYTES || m->data[5] != PN_PUSH || pn_frame_open(&f, m->data, m->n_bytes, NULL) != PN_OK) return;
    const bool good = pn_frame_u64(&f, "producer", &producer) && pn_frame_u64(&f, "incarnation", &incarnation) && pn_frame_u64(&f, "step", &step);
    pn_frame_close(&f);
    assert(good && producer < PRODUCERS && "a push says whose it is");
    const uint64_t key = 1 + (producer | incarnation << 8 | step << 32);
    size_t at = (size_t)pn_mix64(key) % USED;
    while (b->seen[at] != 0 && b->seen[at] != key) at = (at + 1) % USED;
    if (b->seen[at] == key) return; /* the same push once more, or to another shard */
    b->seen[at] = key;
    assert(++b->used[producer] < USED / 2);
    read_charges(b, s);
    if (b->used[producer] > b->charged[producer]) broken(b, "noise before its budget", producer, step, b->used[producer], b->charged[producer]);
}

const char *sim_budget_close(struct sim_budget *b, struct sim *s, uint64_t *asked, char *line, size_t room) {
    read_charges(b, s);
    const bool failed = b->failed;
    *asked = b->asked;
    snprintf(line, room, "%s", b->line);
    free(b);
    return failed ? line : NULL;
}
