/* Nodes, clock, events, messages: pn_env of the simulator. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "common/mutant.h"
#include "tests/sim/sim.h"

enum event_kind { E_MESSAGE, E_TIMER, E_IO, E_WORK, E_CALL };

struct sim_event {
    uint64_t at_ns, sequence;
    enum event_kind kind;
    int node;
    uint32_t life;
    union {
        struct { pn_peer from; struct pn_msg *m; } message;
        struct { struct pn_timer *t; uint64_t id; } timer;
        struct pn_io *io;
        struct pn_work *work;
        struct { void (*fn)(struct sim *, uint64_t); uint64_t arg; } call;
    } u;
};

/* ---- chance ---- */
uint64_t sim_draw(struct sim *s, uint64_t below) { return pn_rng_next(&s->rng) % below; }
bool sim_chance(struct sim *s, double p) { return p > 0 && pn_rng_uniform(&s->rng) < p; }

void sim_trace(struct sim *s, const char *what, uint64_t a, uint64_t b) {
    s->trace = pn_mix64(s->trace ^ pn_hash(what, strlen(what), s->now_ns) ^ pn_mix64(a * 31 + b));
}

/* ---- the heap of events, by (time, sequence) ---- */
static bool before(const struct sim_event *a, const struct sim_event *b) {
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->sequence < b->sequence;
}

static struct sim_event *push(struct sim *s, enum event_kind kind, struct sim_node *node, uint64_t at_ns) {
    struct sim_event *e = calloc(1, sizeof *e);
    assert(e != NULL);
    e->kind = kind;
    e->at_ns = at_ns;
    e->sequence = s->sequence++;
    e->node = node == NULL ? -1 : node->index;
    e->life = node == NULL ? 0 : node->life;
    if (s->n_heap == s->heap_room) {
        s->heap_room = s->heap_room == 0 ? 256 : s->heap_room * 2;
        s->heap = realloc(s->heap, s->heap_room * sizeof *s->heap);
        assert(s->heap != NULL);
    }
    size_t i = s->n_heap++;
    while (i > 0 && before(e, s->heap[(i - 1) / 2])) {
        s->heap[i] = s->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    s->heap[i] = e;
    return e;
}

static struct sim_event *pop(struct sim *s) {
    struct sim_event *top = s->heap[0], *last = s->heap[--s->n_heap];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= s->n_heap) break;
        if (child + 1 < s->n_heap && before(s->heap[child + 1], s->heap[child])) child++;
        if (!before(s->heap[child], last)) break;
        s->heap[i] = s->heap[child];
        i = child;
    }
    if (s->n_heap > 0) s->heap[i] = last;
    return top;
}

void sim_at(struct sim *s, uint64_t at_ns, void (*fn)(struct sim *, uint64_t), uint64_t arg) {
    struct sim_event *e = push(s, E_CALL, NULL, at_ns);
    e->u.call.fn = fn;
    e->u.call.arg = arg;
}

/* ---- pn_env ---- */
static struct sim_node *node_of(struct pn_env *e) { return (struct sim_node *)e; }
static uint64_t now_ns(struct pn_env *e) { return node_of(e)->sim->now_ns; }
static uint64_t wall_ms(struct pn_env *e) { return 1700000000000ull + node_of(e)->sim->now_ns / MS; }
static uint64_t random64(struct pn_env *e) { return pn_rng_next(&node_of(e)->sim->rng); }

static void timer_start(struct pn_env *e, struct pn_timer *t, uint64_t delay_ms) {
    struct sim_node *n = node_of(e);
    struct sim *s = n->sim;
    t->active = true;
    t->impl_id = s->sequence + 1; /* an event of an earlier start no longer matches */
    t->due_ns = s->now_ns + delay_ms * MS;
    if (delay_ms == 0) t->due_ns += sim_draw(s, s->faults.turn_ns + 1); /* what comes meanwhile goes before it */
    struct sim_event *ev = push(s, E_TIMER, n, t->due_ns);
    ev->u.timer.t = t;
    ev->u.timer.id = t->impl_id;
    t->impl = ev;
}

static void forget_timer(struct sim_event *ev) { ev->u.timer.t = NULL; }

static void timer_stop(struct pn_env *e, struct pn_timer *t) {
    (void)e;
    /* The core may free the timer after this: the event must not look at it again. */
    if (t->active && t->impl != NULL) forget_timer(t->impl);
    t->active = false;
    t->impl = NULL;
}

static void timer_restart(struct pn_env *e, struct pn_timer *t, uint64_t delay_ms) {
    timer_stop(e, t);
    timer_start(e, t, delay_ms);
}

#define CONNECTION (1ull << 62)

static pn_peer connect_to(struct pn_env *e, const char *address) {
    struct sim *s = node_of(e)->sim;
    for (int i = 0; i < s->n_nodes; i++)
        if (strcmp(s->nodes[i].address, address) == 0) return CONNECTION | (uint64_t)(i + 1);
    return 0;
}

static void disconnect(struct pn_env *e, pn_peer p) { (void)e; (void)p; }

static void free_message(struct pn_msg *m) { free(m); }

static struct pn_msg *new_message(size_t n_bytes) {
    struct pn_msg *m = malloc(sizeof *m + n_bytes + 16);
    assert(m != NULL);
    m->data = (uint8_t *)(((uintptr_t)(m + 1) + 15) & ~(uintptr_t)15);
    m->n_bytes = n_bytes;
    m->refs = 1;
    m->free = free_message;
    return m;
}

static struct pn_msg *message(struct pn_env *e, size_t n_bytes) { (void)e; return new_message(n_bytes); }

static void deliver_later(struct sim *s, struct sim_node *to, pn_peer from, const struct pn_msg *m, bool in_faults) {
    struct sim_event *e = NULL;
    uint64_t delay = 20000 + sim_draw(s, s->faults.latency_ns + 1);
    if (in_faults && sim_chance(s, s->faults.slow)) {
        delay += sim_draw(s, s->faults.slow_ns + 1);
        s->counts.delayed++;
    }
    e = push(s, E_MESSAGE, to, s->now_ns + delay);
    e->life = 0; /* a connection outlives a restart of its far end: the address stays */
    e->u.message.from = from;
    e->u.message.m = new_message(m->n_bytes);
    memcpy(e->u.message.m->data, m->data, m->n_bytes);
    if (in_faults && m->n_bytes > 0 && sim_chance(s, s->faults.corrupt)) {
        e->u.message.m->data[sim_draw(s, m->n_bytes)] ^= (uint8_t)(1u << sim_draw(s, 8));
        s->counts.corrupted++;
    }
}

static void send_message(struct pn_env *e, pn_peer to, struct pn_msg *m) {
    struct sim_node *n = node_of(e);
    struct sim *s = n->sim;
    s->counts.sent++;
    sim_secure_sent(s, m);
    if (s->budget != NULL) sim_budget_sent(s->budget, s, m);
    if (s->statistics != NULL) sim_statistics_sent(s->statistics, s, n, m);
    int index = (int)(to & 0xffff) - 1;
    assert(index >= 0 && index < s->n_nodes && "a peer that this env gave");
    struct sim_node *target = &s->nodes[index];
    pn_peer from;
    bool lost = false;
    if (to & CONNECTION) {
        from = (uint64_t)(n->index + 1) | (uint64_t)n->life << 16;
    } else {
        from = CONNECTION | (uint64_t)(n->index + 1);
        lost = (uint32_t)(to >> 16) != target->life; /* a return address dies with its process */
    }
    bool cut = (s->cut[n->index] >> index & 1) != 0;
    if (cut) s->counts.partitioned++;
    if (lost || cut || (s->faults_on && sim_chance(s, s->faults.loss))) {
        s->counts.lost++;
    } else {
        deliver_later(s, target, from, m, s->faults_on);
        if (s->faults_on && sim_chance(s, s->faults.duplicate)) {
            s->counts.duplicated++;
            deliver_later(s, target, from, m, true);
        }
    }
    pn_msg_unref(m);
}

static void io_start(struct pn_env *e, struct pn_io *io) { sim_disk_start(node_of(e)->sim, node_of(e), io); }

void sim_finish_io(struct sim *s, struct sim_node *n, struct pn_io *io, uint64_t at_ns) {
    push(s, E_IO, n, at_ns)->u.io = io;
}

static void work_start(struct pn_env *e, struct pn_work *w) {
    struct sim_node *n = node_of(e);
    push(n->sim, E_WORK, n, n->sim->now_ns + 10000 + sim_draw(n->sim, 2 * MS))->u.work = w;
}

static enum pn_result map_file(struct pn_env *e, const char *path, const void **data, size_t *n_bytes) {
    return sim_disk_map(node_of(e)->sim, path, data, n_bytes);
}
static void unmap_file(struct pn_env *e, const void *data, size_t n_bytes) {
    (void)e;
    (void)n_bytes;
    sim_disk_unmap(data);
}

static void log_line(struct pn_env *e, enum pn_log_level level, const char *line) {
    struct sim_node *n = node_of(e);
    if (n->sim->log != NULL)
        fprintf(n->sim->log, "%10.3f ms %-12s %c %s\n", (double)n->sim->now_ns / 1e6, n->name, "DIWE"[level], line);
}

static const struct pn_env_ops env_ops = {
    .now_ns = now_ns, .wall_ms = wall_ms, .random = random64, .timer_start = timer_restart, .timer_stop = timer_stop,
    .connect = connect_to, .disconnect = disconnect, .message = message, .send = send_message, .io = io_start,
    .work = work_start, .map = map_file, .unmap = unmap_file, .log = log_line,
};

/* ---- events happen ---- */
static void happen(struct sim *s, struct sim_event *e) {
    s->now_ns = e->at_ns;
    s->counts.events++;
    struct sim_node *n = e->node >= 0 ? &s->nodes[e->node] : NULL;
    if (n != NULL && n->up && n->paused && (e->life == n->life || e->kind == E_MESSAGE)) {
        /* A stopped process: everything waits for it. */
        struct sim_event *again = push(s, e->kind, n, s->now_ns + 5 * MS);
        again->life = e->life;
        again->u = e->u;
        if (e->kind == E_TIMER && e->u.timer.t != NULL && e->u.timer.t->impl == e) e->u.timer.t->impl = again;
        return;
    }
    bool alive = n == NULL || (n->up && (e->kind == E_MESSAGE || e->life == n->life));
    switch (e->kind) {
    case E_CALL: e->u.call.fn(s, e->u.call.arg); break;
    case E_MESSAGE:
        if (alive) {
            sim_trace(s, "message", (uint64_t)e->node, pn_hash(e->u.message.m->data, e->u.message.m->n_bytes, e->u.message.from));
            n->ops->message(n->core, e->u.message.from, e->u.message.m);
        }
        pn_msg_unref(e->u.message.m);
        break;
    case E_TIMER: {
        struct pn_timer *t = e->u.timer.t;
        if (!alive || t == NULL || !t->active || t->impl_id != e->u.timer.id) break;
        t->active = false;
        t->impl = NULL;
        sim_trace(s, "timer", (uint64_t)e->node, e->u.timer.id);
        t->fire(t);
        break;
    }
    case E_IO:
        if (!alive) break;
        sim_disk_apply(s, n, e->u.io);
        sim_trace(s, "io", (uint64_t)e->u.io->op, (uint64_t)e->u.io->result);
        e->u.io->done(e->u.io);
        break;
    case E_WORK:
        if (!alive) break;
        sim_trace(s, "work", (uint64_t)e->node, 0);
        e->u.work->run(e->u.work);
        e->u.work->done(e->u.work);
        break;
    }
}

void sim_run_until(struct sim *s, uint64_t at_ns) {
    while (s->n_heap > 0 && s->heap[0]->at_ns <= at_ns) {
        struct sim_event *e = pop(s);
        happen(s, e);
        free(e);
    }
    s->now_ns = at_ns;
}

/* ---- life and death ---- */
struct sim_node *sim_add(struct sim *s, enum sim_role role, int i) {
    static const char *const names[] = {"coordinator", "ps", "worker", "serving", "checker"};
    assert(s->n_nodes < SIM_NODES);
    struct sim_node *n = &s->nodes[s->n_nodes];
    *n = (struct sim_node){.env = {&env_ops}, .sim = s, .index = s->n_nodes++, .role = role, .life = 1};
    char name[24];
    if (role == SIM_COORDINATOR) snprintf(name, sizeof name, "coordinator");
    else snprintf(name, sizeof name, "%s-%d", names[role], i);
    snprintf(n->name, sizeof n->name, "%s", name);
    snprintf(n->address, sizeof n->address, "tcp://%s", name);
    return n;
}

void sim_crash(struct sim *s, struct sim_node *n, bool power_cut) {
    if (!n->up) return;
    s->counts.crashes++;
    if (s->log != NULL) fprintf(s->log, "%10.3f ms %-12s * %s\n", (double)s->now_ns / 1e6, n->name, power_cut ? "POWER CUT" : "CRASH");
    sim_trace(s, "crash", (uint64_t)n->index, power_cut);
    n->up = false;
    n->paused = false;
    n->life++;
    /* A killed process frees nothing; its memory stays with this seed's own process (main.c forks). */
    n->core = NULL;
    if (power_cut) {
        s->counts.power_cuts++;
        sim_disk_power_cut(s, n);
    }
}

void sim_open(struct sim *s, uint64_t seed) {
    memset(s, 0, sizeof *s);
    s->seed = seed;
    s->rng.state = pn_mix64(seed ^ 0x51u);
    s->disk = sim_disk_open();
    s->store = sim_store_open(s);
}

void sim_close(struct sim *s) {
    while (s->n_heap > 0) {
        struct sim_event *e = pop(s);
        if (e->kind == E_MESSAGE) pn_msg_unref(e->u.message.m);
        free(e);
    }
    free(s->heap);
    sim_disk_close(s->disk);
    sim_store_close(s->store);
}
