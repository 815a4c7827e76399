/* One seed: a cluster of a drawn shape runs the integer oracle's job under drawn faults; then the faults stop, the job must end
 * in bounded time (I12), and the committed checkpoint must hold every push exactly once (I1, I3). Meanwhile snapshots are published
 * and must verify (I7). */
#include <assert.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include "common/json.h"
#include "coordinator/coordinator.h"
#include "ps/checkpoint.h"
#include "ps/ps.h"
#include "serving/serving.h"
#include "tests/sim/sim.h"
#include "tests/unit/fake_tier.h"
#include "worker/audit.h"
#include "worker/worker.h"

#define DIR "/cluster"
#define LIVENESS_MS 180000u

struct scenario {
    struct sim sim;           /* first: sim_at hands it back */
    uint32_t n_ps, n_workers, n_producers;
    uint64_t steps, n_keys;
    const char *mode;
    char yaml[1600];
    char job_id[64], state[32], reason[256];
    uint64_t newest;          /* checkpoint epoch */
    char checkpoint_dir[512];
    bool healed, clients, secure;
    size_t slice;             /* of the servers' pushes; 0: as ever, more than any push has here */
    enum sim_kind kind;
    uint64_t n_published, n_publish_refused;
    uint64_t clock_seen[64];
};

/* ---- a person at the coordinator's REST interface ---- */
struct call {
    struct pn_http_request r; /* first */
    struct scenario *s;
    void (*then)(struct scenario *, int status, struct json_object *);
    char path[128];
    char *body;
};

static void answered(struct pn_http_request *r, int status, const char *type, const char *header, const void *body, size_t n) {
    struct call *c = (struct call *)r;
    (void)type;
    (void)header;
    struct json_object *o = pn_json_parse(body, n, NULL);
    if (c->then != NULL) c->then(c->s, status, o);
    if (o != NULL) json_object_put(o);
    free(c->body);
    free(c);
}

static void ask(struct scenario *s, const char *method, const char *path, struct json_object *body_taken,
                void (*then)(struct scenario *, int, struct json_object *)) {
    struct sim_node *n = &s->sim.nodes[0];
    if (!n->up || n->paused) {
        if (body_taken != NULL) json_object_put(body_taken);
        return;
    }
    struct call *c = calloc(1, sizeof *c);
    assert(c != NULL);
    c->s = s;
    c->then = then;
    snprintf(c->path, sizeof c->path, "%s", path);
    c->body = strdup(body_taken != NULL ? pn_json_text(body_taken) : "");
    if (body_taken != NULL) json_object_put(body_taken);
    c->r = (struct pn_http_request){.method = method, .path = c->path, .query = "", .body = (const uint8_t *)c->body,
                                    .body_bytes = strlen(c->body), .answer = answered};
    pn_coordinator_http(n->core, &c->r);
}

static void on_submitted(struct scenario *s, int status, struct json_object *o) {
    const char *id = pn_json_str(o, "id", "");
    if (status == 200 || status == 201) snprintf(s->job_id, sizeof s->job_id, "%s", id);
    else if (status == 400) snprintf(s->reason, sizeof s->reason, "job refused: %s", pn_json_str(o, "error", "?"));
}

static void on_job(struct scenario *s, int status, struct json_object *o) {
    if (status != 200) return;
    snprintf(s->state, sizeof s->state, "%s", pn_json_str(o, "state", ""));
    snprintf(s->reason, sizeof s->reason, "%s", pn_json_str(o, "reason", ""));
    struct json_object *list = pn_json_get(o, "checkpoints");
    for (size_t i = 0; i < pn_json_length(list); i++) {
        uint64_t e = pn_json_u64(pn_json_at(list, i), "epoch", 0);
        if (e >= s->newest && !pn_json_bool(pn_json_at(list, i), "bad", false)) s->newest = e;
    }
}

static void on_published(struct scenario *s, int status, struct json_object *o) {
    (void)o;
    if (status == 200) s->n_published++;
    else s->n_publish_refused++;
}

static bool ended(const struct scenario *s) {
    return strcmp(s->state, "SUCCEEDED") == 0 || strcmp(s->state, "FAILED") == 0 || strcmp(s->state, "CANCELLED") == 0;
}

static void poll_job(struct sim *sim, uint64_t unused) {
    struct scenario *s = (struct scenario *)sim;
    (void)unused;
    if (ended(s)) return;
    char path[128];
    if (s->job_id[0] == '\0') {
        struct json_object *o = json_object_new_object();
        pn_json_add_str(o, "text", s->yaml);
        pn_json_add_str(o, "file", "audit.yaml");
        pn_json_add_str(o, "base", "/");
        pn_json_add_str(o, "key", "the-one-job"); /* repeated until an answer comes: it must run once */
        ask(s, "POST", "/api/v1/jobs", o, on_submitted);
    } else {
        snprintf(path, sizeof path, "/api/v1/jobs/%s", s->job_id);
        ask(s, "GET", path, NULL, on_job);
        if (sim_chance(sim, 0.01)) {
            snprintf(path, sizeof path, "/api/v1/jobs/%s/checkpoint", s->job_id);
            ask(s, "POST", path, json_object_new_object(), NULL);
        }
        if (sim_chance(sim, 0.01)) {
            snprintf(path, sizeof path, "/api/v1/jobs/%s/publish", s->job_id);
            ask(s, "POST", path, json_object_new_object(), on_published);
        }
        if (s->kind == SIM_PRIVATE && sim_chance(sim, 0.01)) {
            snprintf(path, sizeof path, "/api/v1/jobs/%s/restore", s->job_id);
            ask(s, "POST", path, json_object_new_object(), NULL);
        }
    }
    sim_at(sim, sim->now_ns + 50 * MS, poll_job, 0);
}

/* ---- processes ---- */
void sim_boot(struct sim *sim, struct sim_node *n) {
    n->life++;
    n->up = true;
    const char *coordinator = sim->nodes[0].address;
    switch (n->role) {
    case SIM_COORDINATOR: {
        struct pn_coordinator_options o = {.dir = DIR};
        n->core = pn_coordinator_open(&n->env, sim_store_connect(sim->store), &o);
        n->ops = &pn_coordinator_core;
        break;
    }
    case SIM_PS: {
        struct pn_ps_options o = {0};
        snprintf(o.name, sizeof o.name, "%s", n->name);
        snprintf(o.address, sizeof o.address, "%s", n->address);
        snprintf(o.coordinator, sizeof o.coordinator, "%s", coordinator);
        o.tiers = &fake_tiers;
        o.slice = ((struct scenario *)sim)->slice;
        n->core = pn_ps_open(&n->env, &o);
        n->ops = &pn_ps_core;
        break;
    }
    case SIM_WORKER: {
        struct scenario *s = (struct scenario *)sim;
        if (s->kind == SIM_CLIENTS) {
            struct sim_client_options o = {.job_id = s->job_id, .n_keys = s->n_keys, .n_steps = s->steps};
            snprintf(o.name, sizeof o.name, "%s", n->name);
            snprintf(o.coordinator, sizeof o.coordinator, "%s", coordinator);
            n->core = sim_client_open(&n->env, &o);
            n->ops = &sim_client_core;
            break;
        }
        struct pn_worker_options o = {.has_identity = s->secure};
        if (s->secure) sim_secure_identity(n->index, o.identity);
        snprintf(o.name, sizeof o.name, "%s", n->name);
        snprintf(o.coordinator, sizeof o.coordinator, "%s", coordinator);
        n->core = pn_worker_open(&n->env, &o);
        n->ops = &pn_worker_core;
        break;
    }
    case SIM_SERVING: {
        struct pn_serving_options o = {0};
        snprintf(o.name, sizeof o.name, "%s", n->name);
        snprintf(o.coordinator, sizeof o.coordinator, "%s", coordinator);
        n->core = pn_serving_open(&n->env, &o);
        n->ops = &pn_serving_core;
        break;
    }
    case SIM_CHECKER: return;
    }
    assert(n->core != NULL);
    n->ops->start(n->core);
}

static void boot_again(struct sim *sim, uint64_t i) {
    if (!sim->nodes[i].up) sim_boot(sim, &sim->nodes[i]);
}

static void crash_one(struct scenario *s, int i) {
    sim_crash(&s->sim, &s->sim.nodes[i], sim_chance(&s->sim, s->sim.faults.power_cut));
    sim_at(&s->sim, s->sim.now_ns + (50 + sim_draw(&s->sim, sim_chance(&s->sim, 0.2) ? 4000 : 500)) * MS, boot_again, (uint64_t)i);
}

/* Waiting times of a fault kind: exponential-ish around the mean. */
static uint64_t wait_ns(struct sim *sim, uint64_t mean_ms) { return (1 + sim_draw(sim, 2 * mean_ms)) * MS; }

static void crashes(struct sim *sim, uint64_t unused) {
    struct scenario *s = (struct scenario *)sim;
    (void)unused;
    if (!sim->faults_on) return;
    if (sim_chance(sim, sim->faults.crash_all))
        for (int i = 0; i < sim->n_nodes; i++) crash_one(s, i);
    else
        crash_one(s, (int)sim_draw(sim, (uint64_t)sim->n_nodes));
    sim_at(sim, sim->now_ns + wait_ns(sim, sim->faults.crash_every_ms), crashes, 0);
}

static void go_on(struct sim *sim, uint64_t i) { sim->nodes[i].paused = false; }
static void pauses(struct sim *sim, uint64_t unused) {
    (void)unused;
    if (!sim->faults_on) return;
    uint64_t i = sim_draw(sim, (uint64_t)sim->n_nodes);
    if (sim->nodes[i].up) {
        sim->nodes[i].paused = true;
        sim->counts.pauses++;
        sim_at(sim, sim->now_ns + wait_ns(sim, sim->faults.pause_ms), go_on, i);
    }
    sim_at(sim, sim->now_ns + wait_ns(sim, sim->faults.pause_every_ms), pauses, 0);
}

static void heal_partition(struct sim *sim, uint64_t unused) {
    (void)unused;
    memset(sim->cut, 0, sizeof sim->cut);
}
static void partitions(struct sim *sim, uint64_t unused) {
    (void)unused;
    if (!sim->faults_on) return;
    uint64_t side = sim_draw(sim, 1ull << sim->n_nodes);
    bool one_way = sim_chance(sim, 0.3);
    for (int a = 0; a < sim->n_nodes; a++)
        for (int b = 0; b < sim->n_nodes; b++)
            if ((side >> a & 1) != (side >> b & 1) && (!one_way || (side >> a & 1))) sim->cut[a] |= 1ull << b;
    sim_at(sim, sim->now_ns + wait_ns(sim, sim->faults.partition_ms), heal_partition, 0);
    sim_at(sim, sim->now_ns + wait_ns(sim, sim->faults.partition_every_ms), partitions, 0);
}

static void disk_free(struct sim *sim, uint64_t unused) { (void)unused; sim->disk_full = false; }
static void disk_fills(struct sim *sim, uint64_t unused) {
    (void)unused;
    if (!sim->faults_on) return;
    sim->disk_full = true;
    sim_at(sim, sim->now_ns + wait_ns(sim, sim->faults.disk_full_ms), disk_free, 0);
    sim_at(sim, sim->now_ns + wait_ns(sim, sim->faults.disk_full_every_ms), disk_fills, 0);
}

static void heal(struct sim *sim, uint64_t unused) {
    struct scenario *s = (struct scenario *)sim;
    (void)unused;
    sim->faults_on = false;
    sim->disk_full = false;
    memset(sim->cut, 0, sizeof sim->cut);
    for (int i = 0; i < sim->n_nodes; i++) {
        sim->nodes[i].paused = false;
        boot_again(sim, (uint64_t)i);
    }
    s->healed = true;
    if (sim->log != NULL) fprintf(sim->log, "%10.3f ms              * HEALED\n", (double)sim->now_ns / 1e6);
}

/* ---- drawing a seed's world ---- */
static double sometimes(struct sim *sim, double p, double most) { return sim_chance(sim, p) ? most * (double)sim_draw(sim, 1000) / 1000 : 0; }

static void draw(struct scenario *s) {
    struct sim *sim = &s->sim;
    s->n_ps = 1 + (uint32_t)sim_draw(sim, 3);
    s->n_workers = 1 + (uint32_t)sim_draw(sim, 3);
    s->n_producers = 1 + (uint32_t)sim_draw(sim, 4);
    s->steps = 20 + sim_draw(sim, 200);
    s->n_keys = 8 + sim_draw(sim, 300);
    s->mode = (const char *const[]){"async", "async", "async", "sync", "ssp"}[sim_draw(sim, 5)];
    struct sim_faults *f = &sim->faults;
    f->latency_ns = sim_chance(sim, 0.5) ? 2 * MS : MS / 5;
    f->loss = sometimes(sim, 0.5, 0.15);
    f->duplicate = sometimes(sim, 0.5, 0.15);
    f->slow = sometimes(sim, 0.5, 0.1);
    f->slow_ns = (50 + sim_draw(sim, 2000)) * MS;
    f->corrupt = sometimes(sim, 0.3, 0.01);
    f->io_error = sometimes(sim, 0.3, 0.02);
    f->sync_error = sometimes(sim, 0.3, 0.1);
    f->crash_every_ms = sim_chance(sim, 0.8) ? 200 + sim_draw(sim, 3000) : 0;
    f->power_cut = sometimes(sim, 0.6, 1.0);
    f->crash_all = sometimes(sim, 0.4, 0.5);
    f->pause_every_ms = sim_chance(sim, 0.3) ? 500 + sim_draw(sim, 3000) : 0;
    f->pause_ms = 100 + sim_draw(sim, 3000);
    f->partition_every_ms = sim_chance(sim, 0.3) ? 500 + sim_draw(sim, 4000) : 0;
    f->partition_ms = 100 + sim_draw(sim, 3000);
    f->disk_full_every_ms = sim_chance(sim, 0.3) ? 500 + sim_draw(sim, 3000) : 0;
    f->disk_full_ms = 100 + sim_draw(sim, 1500);
    const bool tiered = sim_chance(sim, 0.3); /* memory for one row a slot: the others live in the second tier */
    snprintf(s->yaml, sizeof s->yaml,
             "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: audit}\nspec:\n"
             "  data:\n    train: {format: audit, rows: %llu}\n  model: {name: audit}\n  audit: {keys: %llu%s}\n"
             "  training: {batchSize: 32, seed: %llu, dataShards: %u, inFlight: %u, consistency: {mode: %s, ack: durable%s}}\n"
             "  checkpoint: {every: %llums, keep: 2, ringBytes: %s}\n"
             "  failurePolicy: {maxRestarts: 100000}\n",
             (unsigned long long)(s->steps * 32 * s->n_producers), (unsigned long long)s->n_keys, tiered ? ", memory: 1024" : "", (unsigned long long)sim_draw(sim, 1000),
             s->n_producers, 1 + (uint32_t)sim_draw(sim, 16), s->mode, strcmp(s->mode, "ssp") == 0 ? ", staleness: 3" : "",
             (unsigned long long)(100 + sim_draw(sim, 2000)), sim_chance(sim, 0.3) ? "64Ki" : "16Mi");
    if (sim_chance(sim, 0.5)) { /* pushes go in a few rows at a time, with everything else between */
        s->slice = 1 + sim_draw(sim, 16);
        f->turn_ns = sim_draw(sim, 2 * MS);
    }
}

/* The same world with an external job: one client a producer, and sometimes one more. */
static void draw_clients(struct scenario *s) {
    s->n_workers = s->n_producers + (uint32_t)sim_draw(&s->sim, 2);
    snprintf(s->yaml, sizeof s->yaml,
             "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: audit}\nspec:\n  data: {external: true}\n  model: {name: external}\n"
             "  tables: {audit: {dim: %u, optimizer: {name: sgd, lr: 1}, init: zero}}\n"
             "  training: {dataShards: %u, inFlight: %u, consistency: {mode: %s, ack: durable%s}}\n"
             "  checkpoint: {every: %llums, keep: 2, ringBytes: %s}\n  failurePolicy: {maxRestarts: 100000}\n",
             PN_AUDIT_DIM, s->n_producers, 1 + (uint32_t)sim_draw(&s->sim, 16), s->mode, strcmp(s->mode, "ssp") == 0 ? ", staleness: 3" : "",
             (unsigned long long)(100 + sim_draw(&s->sim, 2000)), sim_chance(&s->sim, 0.3) ? "64Ki" : "16Mi");
}

/* Files can be read and written: a worker that cannot ends the job, as it should. */
static void no_file_faults(struct sim *sim) {
    sim->faults.io_error = sim->faults.sync_error = 0;
    sim->faults.disk_full_every_ms = 0;
}

/* The same world with five data holders. */
static void draw_secure(struct scenario *s) {
    s->n_workers = 5;
    s->mode = "secure";
    no_file_faults(&s->sim);
    sim_secure_job(&s->sim, s->yaml, sizeof s->yaml, &s->steps);
}

/* ---- the verdict ---- */
static void fail(struct sim_verdict *out, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void fail(struct sim_verdict *out, const char *format, ...) {
    if (out->failed) return;
    out->failed = 1;
    va_list args;
    va_start(args, format);
    vsnprintf(out->line, sizeof out->line, format, args);
    va_end(args);
}

struct audit { const struct scenario *s; float *expected; uint8_t *seen; struct sim_verdict *out; uint64_t rows, missing /* secure.c */; };

static void check_row(struct audit *a, uint64_t key, const float *row) {
    char line[300];
    if (key >= a->s->n_keys) fail(a->out, "a row of key %llu, which nobody pushed", (unsigned long long)key);
    else if (a->seen[key]++) fail(a->out, "key %llu stands in two checkpoint files or twice in one", (unsigned long long)key);
    else if (pn_audit_check(key, row, a->expected + key * PN_AUDIT_DIM, line, sizeof line) != 0) fail(a->out, "%s", line);
}





static enum pn_result visit(void *ctx, const struct pn_checkpoint_head *h, const struct pn_block *b, const void *payload) {
    struct audit *a = ctx;
    if (b->type != PN_BLOCK_RECORDS || b->i_table != 0) return PN_OK;
    for (size_t at = 0; at < b->n_bytes; at += h->record_bytes[0]) {
        uint64_t key;
        float row[PN_AUDIT_DIM];
        memcpy(&key, (const uint8_t *)payload + at, sizeof key);
        memcpy(row, (const uint8_t *)payload + at + 16, sizeof row);
        check_row(a, key, row);
    }
    return PN_OK;
}

/* Reads the newest committed checkpoint as a restore would: by its manifest, every file against its digest. */
static void read_checkpoint(struct scenario *s, struct audit *a) {
    char path[600];
    const void *data;
    size_t n_bytes;
    struct pn_error err = {""};
    snprintf(path, sizeof path, "%s/manifest.json", s->checkpoint_dir);
    if (sim_disk_map(&s->sim, path, &data, &n_bytes) != PN_OK) {
        fail(a->out, "the committed checkpoint has no %s", path);
        return;
    }
    struct json_object *manifest = pn_json_parse(data, n_bytes, &err), *files = pn_json_get(manifest, "files");
    if (pn_json_length(files) == 0) fail(a->out, "%s names no files: %s", path, err.text);
    for (size_t i = 0; i < pn_json_length(files); i++) {
        struct json_object *f = pn_json_at(files, i);
        const void *image;
        size_t n;
        struct pn_checkpoint_head head;
        snprintf(path, sizeof path, "%s/%s", s->checkpoint_dir, pn_json_str(f, "name", "?"));
        if (sim_disk_map(&s->sim, path, &image, &n) != PN_OK) {
            fail(a->out, "the committed checkpoint lacks %s", path);
            continue;
        }
        char line[300];
        if (s->secure) {
            if (!sim_secure_check(&s->sim, s->yaml, image, n, pn_json_str(f, "digest", ""), s->steps, &a->rows, &a->missing, line, sizeof line)) fail(a->out, "%s: %s", path, line);
        } else if (pn_checkpoint_read(image, n, pn_json_str(f, "digest", ""), &head, visit, a, &err) != PN_OK) fail(a->out, "%s: %s", path, err.text);
        sim_disk_unmap(image);
    }
    if (manifest != NULL) json_object_put(manifest);
    sim_disk_unmap(data);
}

void sim_scenario(uint64_t seed, enum sim_kind kind, FILE *log, struct sim_verdict *out) {
    struct scenario *s = calloc(1, sizeof *s);
    assert(s != NULL);
    struct sim *sim = &s->sim;
    sim_open(sim, seed);
    sim->log = log;
    draw(s);
    s->kind = kind;
    s->clients = kind == SIM_CLIENTS;
    s->secure = kind == SIM_SECURE;
    if (s->clients) draw_clients(s);
    if (s->secure) draw_secure(s);
    if (kind == SIM_PRIVATE) {
        sim_budget_draw(sim, s->n_producers, s->mode, s->yaml, sizeof s->yaml);
        sim->budget = sim_budget_open();
        s->slice = (size_t)1 << 40; /* how many slices a push has, and so when answers come, is of what was released, and released rows differ with the example: --neighbours compares the asks alone */
    }
    if (kind == SIM_STATISTICS) {
        no_file_faults(sim);
        if (sim_chance(sim, 0.5)) sim->faults.crash_every_ms = 50 + sim_draw(sim, 200); /* the pass is a matter of milliseconds */
        sim_statistics_draw(sim, s->n_producers, s->mode, s->yaml, sizeof s->yaml);
        sim->statistics = sim_statistics_open();
    }
    if (log != NULL) fprintf(log, "seed %llu: %u servers, %u workers, %s\n%s", (unsigned long long)seed, s->n_ps, s->n_workers, s->mode, s->yaml);
    sim_add(sim, SIM_COORDINATOR, 0);
    for (uint32_t i = 0; i < s->n_ps; i++) sim_add(sim, SIM_PS, (int)i);
    for (uint32_t i = 0; i < s->n_workers; i++) sim_add(sim, SIM_WORKER, (int)i);
    sim_add(sim, SIM_SERVING, 0);
    sim->faults_on = true;
    for (int i = 0; i < sim->n_nodes; i++) sim_at(sim, sim_draw(sim, 200 * MS), boot_again, (uint64_t)i);
    sim_at(sim, 300 * MS, poll_job, 0);
    if (sim->faults.crash_every_ms) sim_at(sim, 400 * MS, crashes, 0);
    if (sim->faults.pause_every_ms) sim_at(sim, 400 * MS, pauses, 0);
    if (sim->faults.partition_every_ms) sim_at(sim, 400 * MS, partitions, 0);
    if (sim->faults.disk_full_every_ms) sim_at(sim, 400 * MS, disk_fills, 0);
    uint64_t heal_at = (2000 + sim_draw(sim, 15000)) * MS;
    sim_at(sim, heal_at, heal, 0);

    /* safety: until the faults stop; liveness: from there a bounded time */
    while (sim->now_ns < heal_at + (uint64_t)LIVENESS_MS * MS && !(ended(s) && s->healed)) sim_run_until(sim, sim->now_ns + 200 * MS);

    if (s->job_id[0] == '\0') fail(out, "the job was never accepted: %s", s->reason);
    else if (!ended(s)) fail(out, "%u s after the faults stopped the job is still %s (%s)", LIVENESS_MS / 1000, s->state, s->reason);
    else if (kind == SIM_PRIVATE && strcmp(s->state, "FAILED") == 0 && strstr(s->reason, "does not have the steps") != NULL) {} /* as it should, where the budget is spent */
    else if (strcmp(s->state, "SUCCEEDED") != 0) fail(out, "the job ended as %s: %s", s->state, s->reason);
    else if (kind != SIM_PRIVATE && kind != SIM_STATISTICS) {
        struct audit a = {.s = s, .out = out, .missing = UINT64_MAX, .expected = calloc(s->n_keys, PN_AUDIT_DIM * sizeof(float)), .seen = calloc(s->n_keys, 1)};
        if (!s->secure) pn_audit_expect(s->n_producers, s->steps, s->n_keys, a.expected);
        snprintf(s->checkpoint_dir, sizeof s->checkpoint_dir, DIR "/jobs/%s/checkpoints/%llu", s->job_id, (unsigned long long)s->newest);
        read_checkpoint(s, &a);
        if (sim->wire.chooses && a.missing != 0) fail(out, "%llu rows that the job has chosen are in no checkpoint file", (unsigned long long)a.missing);
        char seen[200];
        if (s->secure && !sim_secure_wire(sim, seen, sizeof seen)) fail(out, "%s", seen);
        if (s->secure && a.rows < (strstr(s->yaml, "selection: dense") != NULL ? 41 : 1)) fail(out, "the last checkpoint has %llu rows", (unsigned long long)a.rows);
        for (uint64_t k = 0; !s->secure && k < s->n_keys; k++)
            if (!a.seen[k] && a.expected[k * PN_AUDIT_DIM] > 0) fail(out, "key %llu is missing: all its pushes are lost", (unsigned long long)k);
        free(a.expected);
        free(a.seen);
    }
    char line[300];
    if (kind == SIM_PRIVATE && sim_budget_close(sim->budget, sim, &out->asked, line, sizeof line) != NULL) fail(out, "%s", line);
    if (kind == SIM_STATISTICS && sim_statistics_close(sim->statistics, sim, strcmp(s->state, "SUCCEEDED") == 0, line, sizeof line) != NULL) fail(out, "%s", line);
    out->trace = sim->trace;
    out->counts = sim->counts;
    out->virtual_ms = sim->now_ns / MS;
    sim_close(sim);
    free(s);
}
