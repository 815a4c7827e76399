/* A whole secure sum in one thread: a coordinator, workers and servers over a virtual clock, with seeded loss, repetition, delay and reordering of messages,
 * workers that die at a chosen moment, and a hook that may change what is sent. The seeded generator exists here only. */
#ifndef PN_TESTS_SECAGG_WORLD_H
#define PN_TESTS_SECAGG_WORLD_H
#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "common/hash.h"
#include "privacy/secagg/coordinator.h"
#include "privacy/secagg/server.h"
#include "privacy/secagg/worker.h"

enum { W_NODES = 1 + 128 + 8, W_EVENTS = 1 << 16 };
struct world;
struct node { struct pn_env env; struct world *w; uint32_t id; double cpu_s; uint64_t sent_bytes; bool dead; };
struct event { uint64_t due, order; uint32_t from, to; struct pn_msg *m; struct pn_work *work; };
struct world {
    struct pn_rng rng;
    uint64_t now, order;
    struct node nodes[W_NODES];
    struct event *events; /* a heap by (due, order) */
    size_t n_events;
    struct { struct pn_timer *t; uint32_t node; } timers[4 * W_NODES];
    size_t n_timers;
    unsigned loss_permille, repeat_permille;
    uint64_t delay_ms;
    bool verbose;
    char last_line[512], warned[8192];
    struct pn_agg_terms terms;
    uint64_t first[9];
    uint8_t (*identities)[32], (*secrets)[64];
    uint8_t *words; /* n vectors behind one another */
    struct pn_agg_coordinator *coordinator;
    struct pn_agg_worker *workers[128];
    struct pn_agg_server *servers[8];
    int dies_at[128]; /* the kind of message at whose arrival the worker dies; 0: never; -1: behind its first segment */
    bool (*change)(struct world *, uint32_t from, uint32_t to, struct pn_msg **); /* false: the message is lost */
    bool over, released[8];
    enum pn_result result;
    uint32_t n_survivors;
    uint8_t survivors[PN_AGG_MAX_WORKERS];
    uint8_t *sum;
    char line[480];
};

static inline uint32_t w_worker(uint32_t i) { return 1 + i; }
static inline uint32_t w_server(const struct world *w, uint32_t s) { return 1 + w->terms.n + s; }
static inline struct node *w_node(struct pn_env *e) { return (struct node *)(void *)e; }
static inline uint64_t w_now(struct pn_env *e) { return w_node(e)->w->now; }
static inline uint64_t w_random(struct pn_env *e) { return pn_rng_next(&w_node(e)->w->rng); }
static inline void w_timer_stop(struct pn_env *e, struct pn_timer *t) {
    struct world *w = w_node(e)->w;
    for (size_t i = 0; i < w->n_timers; i++)
        if (w->timers[i].t == t) w->timers[i--] = w->timers[--w->n_timers];
    t->active = false;
}
static inline void w_timer_start(struct pn_env *e, struct pn_timer *t, uint64_t ms) {
    struct world *w = w_node(e)->w;
    w_timer_stop(e, t);
    t->due_ns = w->now + ms * 1000000u;
    t->active = true;
    assert(w->n_timers < sizeof w->timers / sizeof *w->timers);
    w->timers[w->n_timers].t = t;
    w->timers[w->n_timers++].node = w_node(e)->id;
}
static inline void w_release(struct pn_msg *m) { free(m); }
static inline struct pn_msg *w_message(struct pn_env *e, size_t n) {
    (void)e;
    struct pn_msg *m = malloc(sizeof *m + n + 8);
    if (m != NULL) *m = (struct pn_msg){.data = (uint8_t *)(m + 1), .n_bytes = n, .refs = 1, .free = w_release};
    return m;
}
static inline bool w_before(const struct event *a, const struct event *b) { return a->due != b->due ? a->due < b->due : a->order < b->order; }
static inline void w_push(struct world *w, struct event e) {
    assert(w->n_events < W_EVENTS);
    e.order = w->order++;
    size_t i = w->n_events++;
    for (; i > 0 && w_before(&e, &w->events[(i - 1) / 2]); i = (i - 1) / 2) w->events[i] = w->events[(i - 1) / 2];
    w->events[i] = e;
}
static inline struct event w_pop(struct world *w) {
    struct event top = w->events[0], last = w->events[--w->n_events];
    size_t i = 0;
    for (size_t c; (c = 2 * i + 1) < w->n_events; i = c) {
        if (c + 1 < w->n_events && w_before(&w->events[c + 1], &w->events[c])) c++;
        if (!w_before(&w->events[c], &last)) break;
        w->events[i] = w->events[c];
    }
    w->events[i] = last;
    return top;
}
static inline void w_send(struct pn_env *e, pn_peer to, struct pn_msg *m) {
    struct node *from = w_node(e);
    struct world *w = from->w;
    const uint32_t id = (uint32_t)to - 1;
    from->sent_bytes += m->n_bytes;
    if (from->dead || (w->change != NULL && !w->change(w, from->id, id, &m))) {
        pn_msg_unref(m);
        return;
    }
    const int dies = from->id >= 1 && from->id <= w->terms.n ? w->dies_at[from->id - 1] : 0;
    for (int copies = 1 + (pn_rng_next(&w->rng) % 1000 < w->repeat_permille); copies > 0; copies--) {
        if (pn_rng_next(&w->rng) % 1000 < w->loss_permille) continue;
        w_push(w, (struct event){.due = w->now + 1000000u * (1 + pn_rng_next(&w->rng) % (w->delay_ms + 1)), .from = from->id, .to = id, .m = pn_msg_ref(m)});
    }
    if (dies == -1 && m->data[5] == PN_AGG_MASKED) from->dead = true;
    pn_msg_unref(m);
}
static inline void w_work(struct pn_env *e, struct pn_work *work) {
    struct world *w = w_node(e)->w;
    w_push(w, (struct event){.due = w->now + 1000000u, .to = w_node(e)->id, .work = work});
}
static inline void w_log(struct pn_env *e, enum pn_log_level level, const char *line) {
    struct world *w = w_node(e)->w;
    (void)level;
    if (w->verbose) printf("%8.3f node %u: %s\n", (double)w->now * 1e-9, w_node(e)->id, line);
    snprintf(w->last_line, sizeof w->last_line, "%s", line);
    if (strlen(w->warned) + strlen(line) + 2 < sizeof w->warned) strcat(strcat(w->warned, line), "\n");
}
static const struct pn_env_ops w_ops = {.now_ns = w_now, .wall_ms = w_now, .random = w_random, .timer_start = w_timer_start, .timer_stop = w_timer_stop,
                                        .message = w_message, .send = w_send, .work = w_work, .log = w_log};

static inline double w_cpu(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}
static inline void w_worker_done(void *o, enum pn_result r, const char *line) { (void)o; (void)r; (void)line; }
static inline void w_server_done(void *o, enum pn_result r, const void *sum, uint32_t n, const char *line) {
    struct node *node = o;
    struct world *w = node->w;
    const uint32_t s = node->id - 1 - w->terms.n;
    (void)n;
    (void)line;
    if (r != PN_OK) return;
    w->released[s] = true;
    memcpy(w->sum + w->first[s] * w->terms.word_bytes, sum, (w->first[s + 1] - w->first[s]) * w->terms.word_bytes);
}
static inline void w_over(void *o, enum pn_result r, const uint8_t *survivors, uint32_t n, const char *line) {
    struct world *w = o;
    w->over = true;
    w->result = r;
    w->n_survivors = n;
    if (survivors != NULL) memcpy(w->survivors, survivors, w->terms.n);
    snprintf(w->line, sizeof w->line, "%s", line);
}

/* The vector is cut into n_servers segments. Words are drawn small, so that a sum can be read. */
static inline struct world *w_open(uint64_t seed, uint32_t n, uint32_t n_servers, size_t n_values, unsigned word_bytes) {
    struct world *w = calloc(1, sizeof *w);
    w->rng.state = pn_mix64(seed);
    w->events = malloc(W_EVENTS * sizeof *w->events);
    w->identities = malloc(n * sizeof *w->identities);
    w->secrets = malloc(n * sizeof *w->secrets);
    w->words = malloc(n * n_values * word_bytes);
    w->sum = calloc(n_values, word_bytes);
    for (uint32_t i = 0; i < n; i++) {
        uint8_t s[32];
        for (int b = 0; b < 4; b++) { const uint64_t v = pn_rng_next(&w->rng); memcpy(s + 8 * b, &v, 8); }
        crypto_sign_seed_keypair(w->identities[i], w->secrets[i], s);
    }
    for (size_t i = 0; i < n * n_values; i++) {
        const int64_t v = (int64_t)(pn_rng_next(&w->rng) % 2001) - 1000;
        if (word_bytes == 4) ((uint32_t *)(void *)w->words)[i] = (uint32_t)v;
        else ((uint64_t *)(void *)w->words)[i] = (uint64_t)v;
    }
    for (uint32_t s = 1; s < n_servers; s++) w->first[s] = n_values * s / n_servers / 16 * 16;
    w->first[n_servers] = n_values;
    w->terms = (struct pn_agg_terms){.n = n, .min_workers = 3, .max_dropout = .1, .max_colluding = .2, .security_bits = 40, .correctness_bits = 40, .word_bytes = word_bytes,
                                     .n_servers = n_servers, .first = w->first, .identities = (const uint8_t(*)[32])w->identities, .retry_ms = 50, .phase_ms = 3000};
    for (uint32_t i = 0; i < W_NODES; i++) w->nodes[i] = (struct node){.env = {&w_ops}, .w = w, .id = i};
    return w;
}
static inline enum pn_result w_start_worker(struct world *w, uint32_t i, struct pn_error *err) {
    pn_peer servers[8];
    for (uint32_t s = 0; s < w->terms.n_servers; s++) servers[s] = w_server(w, s) + 1;
    static pn_peer kept[128][8];
    memcpy(kept[i], servers, sizeof servers);
    return pn_agg_worker_open(&w->workers[i], &w->nodes[w_worker(i)].env,
                              &(struct pn_agg_worker_setup){.terms = &w->terms, .self = i, .identity = w->secrets[i], .words = w->words + i * w->first[w->terms.n_servers] * w->terms.word_bytes,
                                                            .coordinator = 1, .servers = kept[i], .done = w_worker_done, .owner = &w->nodes[w_worker(i)]}, err);
}
static inline enum pn_result w_start_server(struct world *w, uint32_t s, struct pn_error *err) {
    return pn_agg_server_open(&w->servers[s], &w->nodes[w_server(w, s)].env,
                              &(struct pn_agg_server_setup){.terms = &w->terms, .self = s, .coordinator = 1, .done = w_server_done, .owner = &w->nodes[w_server(w, s)]}, err);
}
static inline enum pn_result w_start_coordinator(struct world *w, struct pn_error *err) {
    static pn_peer workers[128], servers[8];
    for (uint32_t i = 0; i < w->terms.n; i++) workers[i] = w->nodes[w_worker(i)].dead ? 0 : w_worker(i) + 1;
    for (uint32_t s = 0; s < w->terms.n_servers; s++) servers[s] = w_server(w, s) + 1;
    return pn_agg_coordinator_open(&w->coordinator, &w->nodes[0].env,
                                   &(struct pn_agg_coordinator_setup){.terms = &w->terms, .workers = workers, .servers = servers, .done = w_over, .owner = w}, err);
}
static inline enum pn_result w_start(struct world *w, struct pn_error *err) {
    enum pn_result r = PN_OK;
    for (uint32_t i = 0; r == PN_OK && i < w->terms.n; i++) r = w_start_worker(w, i, err);
    for (uint32_t s = 0; r == PN_OK && s < w->terms.n_servers; s++) r = w_start_server(w, s, err);
    const double begin = w_cpu();
    if (r == PN_OK) r = w_start_coordinator(w, err);
    w->nodes[0].cpu_s += w_cpu() - begin;
    return r;
}
static inline void w_hand(struct world *w, struct event *e) {
    struct node *to = &w->nodes[e->to];
    struct pn_frame f;
    if (!to->dead && e->to >= 1 && e->to <= w->terms.n && w->dies_at[e->to - 1] == e->m->data[5]) to->dead = true;
    if (to->dead || pn_frame_open(&f, e->m->data, e->m->n_bytes, NULL) != PN_OK) return;
    if (e->to == 0) {
        if (w->coordinator != NULL) pn_agg_coordinator_message(w->coordinator, e->from + 1, &f);
    } else if (e->to <= w->terms.n) {
        if (w->workers[e->to - 1] != NULL) pn_agg_worker_message(w->workers[e->to - 1], e->from + 1, &f);
    } else if (w->servers[e->to - 1 - w->terms.n] != NULL) pn_agg_server_message(w->servers[e->to - 1 - w->terms.n], e->from + 1, e->m, &f);
    pn_frame_close(&f);
}
/* One event. False: nothing is left to happen. */
static inline bool w_step(struct world *w) {
    size_t next = w->n_timers;
    for (size_t i = 0; i < w->n_timers; i++)
        if (next == w->n_timers || w->timers[i].t->due_ns < w->timers[next].t->due_ns) next = i;
    if (w->n_events == 0 && next == w->n_timers) return false;
    const double begin = w_cpu();
    if (w->n_events > 0 && (next == w->n_timers || w->events[0].due <= w->timers[next].t->due_ns)) {
        struct event e = w_pop(w);
        w->now = e.due > w->now ? e.due : w->now;
        if (e.work != NULL) {
            e.work->run(e.work);
            e.work->done(e.work);
        } else w_hand(w, &e);
        pn_msg_unref(e.m);
        w->nodes[e.to].cpu_s += w_cpu() - begin;
        return true;
    }
    struct pn_timer *t = w->timers[next].t;
    const uint32_t id = w->timers[next].node;
    w->timers[next] = w->timers[--w->n_timers];
    t->active = false;
    w->now = t->due_ns > w->now ? t->due_ns : w->now;
    if (!w->nodes[id].dead) t->fire(t);
    w->nodes[id].cpu_s += w_cpu() - begin;
    return true;
}
static inline void w_run(struct world *w) {
    for (uint64_t steps = 0; !w->over && w_step(w); steps++) assert(steps < 10000000);
}
static inline void w_close(struct world *w) {
    pn_agg_coordinator_close(w->coordinator);
    for (uint32_t i = 0; i < w->terms.n; i++) pn_agg_worker_close(w->workers[i]);
    for (uint32_t s = 0; s < w->terms.n_servers; s++) pn_agg_server_close(w->servers[s]);
    while (w->n_events > 0) { /* work that is on its way frees its object; messages are dropped */
        struct event e = w_pop(w);
        if (e.work != NULL) {
            e.work->run(e.work);
            e.work->done(e.work);
        }
        pn_msg_unref(e.m);
    }
    free(w->events);
    free(w->identities);
    free(w->secrets);
    free(w->words);
    free(w->sum);
    free(w);
}
static inline bool w_any_released(const struct world *w) {
    for (uint32_t s = 0; s < w->terms.n_servers; s++)
        if (w->released[s]) return true;
    return false;
}
/* All servers' sum is that of the survivors' words, bit for bit. */
static inline bool w_sum_is_right(const struct world *w) {
    const size_t n = w->first[w->terms.n_servers];
    for (size_t v = 0; v < n; v++) {
        uint64_t plain = 0, got = 0;
        for (uint32_t i = 0; i < w->terms.n; i++) {
            if (!w->survivors[i]) continue;
            plain += w->terms.word_bytes == 4 ? ((const uint32_t *)(const void *)w->words)[i * n + v] : ((const uint64_t *)(const void *)w->words)[i * n + v];
        }
        memcpy(&got, w->sum + v * w->terms.word_bytes, w->terms.word_bytes);
        if (w->terms.word_bytes == 4) plain = (uint32_t)plain;
        if (got != plain) return false;
    }
    return true;
}
#endif
