/* A job whose features are counted first, in the simulated cluster. Whenever a worker sends servers something of it, seeds and pulls too, the coordinator's durable record must name the file of the
 * statistics, the same as ever, and what would be left of that file and its vocabularies after a loss of all power must be what their digests say: nobody uses what may still be lost or become
 * another. In the end, behind one more start of the coordinator, the folder has these files and no others. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "common/json.h"
#include "common/wire.h"
#include "snapshot/artifacts.h"
#include "tests/sim/sim.h"

#define FOLDER "/cluster/jobs/job-1/vocabularies"

struct sim_statistics { struct pn_artifact file; size_t n_files; bool failed; char line[300]; };

void sim_statistics_draw(struct sim *s, uint32_t n_producers, const char *mode, char *yaml, size_t room) {
    const uint64_t rows = 100ull * n_producers + sim_draw(s, 400);
    char *data = malloc(40 * (rows + 1));
    assert(data != NULL);
    size_t n = (size_t)sprintf(data, "y,k,x\n");
    for (uint64_t i = 0; i < rows; i++) n += (size_t)sprintf(data + n, "%d,v%llu,%llu\n", i < 2 ? (int)i : (int)sim_draw(s, 2), (unsigned long long)sim_draw(s, 1 + sim_draw(s, 60)), (unsigned long long)sim_draw(s, 1000));
    sim_disk_put(s->disk, "/data/train.csv", data, n);
    free(data);
    const bool trees = sim_chance(s, 0.5);
    snprintf(yaml, room,
             "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: counted}\nspec:\n  data: {train: {format: csv, uri: /data/train.csv, label: y}}\n"
             "  features:\n    - {name: k, type: categorical, vocabulary: {minCount: 3}}\n    - {name: x, type: numeric, bucketize: {quantiles: 8}}\n%s"
             "  tables: {defaults: {optimizer: {name: sgd, lr: 0.1}, init: zero}}\n  model: {name: %s}\n"
             "  optimizer: {name: sgd, lr: 0.1}\n  training: {batchSize: 8, epochs: %u, seed: 1, dataShards: %u, inFlight: %u, consistency: {mode: %s, ack: durable%s}}\n"
             "  checkpoint: {every: %llums, keep: 2}\n  failurePolicy: {maxRestarts: 100000}\n",
             trees ? "    - {name: leaves, type: leaves, table: leaves, trees: 3, depth: 2, minWeight: 1, minCount: 2}\n" : "", trees ? "gbdt+lr" : "lr", 1 + (uint32_t)sim_draw(s, 4),
             n_producers, 1 + (uint32_t)sim_draw(s, 8), mode, strcmp(mode, "ssp") == 0 ? ", staleness: 3" : "", (unsigned long long)(100 + sim_draw(s, 1000)));
}

struct sim_statistics *sim_statistics_open(void) { return calloc(1, sizeof(struct sim_statistics)); }

static void broken(struct sim_statistics *t, const char *what, const char *name) {
    if (!t->failed) snprintf(t->line, sizeof t->line, "%s: %s", what, name);
    t->failed = true;
}

/* What the platter has of a file; NULL: not what it should be. Freed by the caller. */
static char *lasting(struct sim_statistics *t, struct sim *s, const struct pn_artifact *a) {
    char path[200];
    size_t n = 0;
    snprintf(path, sizeof path, FOLDER "/%s", a->name);
    char *data = sim_disk_lasting(s->disk, path, &n);
    if (data != NULL && pn_artifact_verify(a, data, n, NULL) == PN_OK) return data;
    broken(t, data == NULL ? "statistics are used, and the file would not outlive a loss of power" : "statistics are used, and after a loss of power the file would be damaged", a->name);
    free(data);
    return NULL;
}

static void look(struct sim_statistics *t, struct sim *s) {
    const char *json = sim_store_first(s->store, "job");
    struct json_object *o = json == NULL ? NULL : pn_json_parse(json, strlen(json), NULL);
    struct pn_artifact file, *list = NULL;
    if (!pn_artifact_read(pn_json_get(pn_json_get(o, "model"), "statistics"), &file)) broken(t, "statistics are used, and no durable record names them", "job-1");
    else if (t->file.name[0] != '\0' && strcmp(t->file.digest, file.digest) != 0) broken(t, "the record names other statistics than before", file.name);
    if (o != NULL) json_object_put(o);
    if (t->failed) return;
    t->file = file;
    char *text = lasting(t, s, &file);
    size_t n = 0;
    if (text != NULL && pn_artifacts_read(text, &list, &n, NULL) != PN_OK) broken(t, "the statistics cannot be read", file.name);
    for (size_t i = 0; i < n && !t->failed; i++) free(lasting(t, s, &list[i]));
    t->n_files = 1 + n;
    free(list);
    free(text);
}

void sim_statistics_sent(struct sim_statistics *t, struct sim *s, const struct sim_node *from, const struct pn_msg *m) {
    if (t->failed || from->role != SIM_WORKER || m->n_bytes < PN_ENVELOPE_BYTES || m->data[5] == PN_BEAT) return;
    look(t, s);
}

const char *sim_statistics_close(struct sim_statistics *t, struct sim *s, bool trained, char *line, size_t room) {
    if (trained && !t->failed) look(t, s);
    if (trained && !t->failed) {
        sim_crash(s, &s->nodes[0], false);
        sim_boot(s, &s->nodes[0]);
        sim_run_until(s, s->now_ns + 10000 * MS);
        const size_t n = sim_disk_count(s->disk, FOLDER);
        if (n != t->n_files) snprintf(t->line, sizeof t->line, "%zu files lie in " FOLDER ", and the record needs %zu", n, t->n_files), t->failed = true;
    }
    const bool failed = t->failed;
    snprintf(line, room, "%s", t->line);
    free(t);
    return failed ? line : NULL;
}
