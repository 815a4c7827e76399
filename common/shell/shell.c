#include <malloc.h>
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include "common/shell/internal.h"
#include "common/shell/keys.h"

static struct pn_shell *shell_of(struct pn_env *e) { return (struct pn_shell *)e; }

/* ---- clocks ---- */
static uint64_t now_ns(struct pn_env *e) {
    struct timespec t;
    (void)e;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t wall_ms(struct pn_env *e) {
    struct timespec t;
    (void)e;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

static uint64_t random64(struct pn_env *e) {
    uint64_t v = 0;
    (void)e;
    while (getrandom(&v, sizeof v, 0) != (ssize_t)sizeof v) {}
    return v;
}

/* ---- timers: a heap by (due, start order), one uv_timer for its head. impl_id is the place in the heap. ---- */
static bool before(const struct pn_timer *a, const struct pn_timer *b) {
    return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : (uintptr_t)a->impl < (uintptr_t)b->impl;
}

static void place(struct pn_shell *s, struct pn_timer *t, size_t i) {
    s->heap[i] = t;
    t->impl_id = i;
}

static void sift(struct pn_shell *s, size_t i) {
    struct pn_timer *t = s->heap[i];
    while (i > 0 && before(t, s->heap[(i - 1) / 2])) {
        place(s, s->heap[(i - 1) / 2], i);
        i = (i - 1) / 2;
    }
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= s->n_heap) break;
        if (child + 1 < s->n_heap && before(s->heap[child + 1], s->heap[child])) child++;
        if (!before(s->heap[child], t)) break;
        place(s, s->heap[child], i);
        i = child;
    }
    place(s, t, i);
}

static void arm(struct pn_shell *s);

static void fire(struct pn_shell *s) {
    uint64_t now = now_ns(&s->env);
    while (s->n_heap > 0 && s->heap[0]->due_ns <= now) {
        struct pn_timer *t = s->heap[0];
        s->env.ops->timer_stop(&s->env, t);
        t->fire(t);
    }
    arm(s);
}

static void fire_due(uv_timer_t *u) { fire(u->data); }
static void fire_soon(uv_idle_t *h) {
    uv_idle_stop(h);
    fire(h->data);
}

/* A uv_timer of 0 ms started by a timer fires again before the loop looks at any socket; an idle handle waits for its next turn. */
static void arm(struct pn_shell *s) {
    const uint64_t now = now_ns(&s->env);
    uv_timer_stop(&s->timer);
    uv_idle_stop(&s->soon);
    if (s->n_heap == 0) return;
    const uint64_t due = s->heap[0]->due_ns;
    if (due <= now) {
        uv_idle_start(&s->soon, fire_soon);
        return;
    }
    uv_update_time(&s->loop);
    uv_timer_start(&s->timer, fire_due, (due - now + 999999u) / 1000000u, 0);
}

static void timer_stop(struct pn_env *e, struct pn_timer *t) {
    struct pn_shell *s = shell_of(e);
    if (!t->active) return;
    size_t i = t->impl_id;
    struct pn_timer *last = s->heap[--s->n_heap];
    t->active = false;
    if (last != t) {
        place(s, last, i);
        sift(s, i);
    }
}

static void timer_start(struct pn_env *e, struct pn_timer *t, uint64_t delay_ms) {
    struct pn_shell *s = shell_of(e);
    timer_stop(e, t);
    if (s->n_heap == s->heap_room) {
        size_t room = s->heap_room == 0 ? 64 : s->heap_room * 2;
        struct pn_timer **grown = realloc(s->heap, room * sizeof *grown);
        if (grown == NULL) abort(); /* a process without its timers is as good as dead: its supervisor starts it again */
        s->heap = grown;
        s->heap_room = room;
    }
    t->active = true;
    t->due_ns = now_ns(e) + delay_ms * 1000000u;
    t->impl = (void *)(uintptr_t)++s->sequence;
    s->heap[s->n_heap++] = t;
    t->impl_id = s->n_heap - 1;
    sift(s, s->n_heap - 1);
    if (s->heap[0] == t) arm(s);
}

/* ---- the rest of the table ---- */
static pn_peer connect_to(struct pn_env *e, const char *address) { return pn_transport_connect(shell_of(e)->transport, address); }
static void disconnect(struct pn_env *e, pn_peer p) { pn_transport_disconnect(shell_of(e)->transport, p); }
static struct pn_msg *message(struct pn_env *e, size_t n) { (void)e; return pn_transport_message(n); }
static void send_message(struct pn_env *e, pn_peer to, struct pn_msg *m) { pn_transport_send(shell_of(e)->transport, to, m); }
static bool sender(struct pn_env *e, const char **role, const char **name) { return pn_transport_sender(shell_of(e)->transport, role, name); }
static void io(struct pn_env *e, struct pn_io *r) { pn_files_start(shell_of(e)->files, r); }
static void work(struct pn_env *e, struct pn_work *w) { pn_pool_start(shell_of(e)->pool, w); }
static enum pn_result map(struct pn_env *e, const char *path, const void **d, size_t *n) { (void)e; return pn_files_map(path, d, n); }
static void unmap(struct pn_env *e, const void *d, size_t n) { (void)e; pn_files_unmap(d, n); }
static void log_line(struct pn_env *e, enum pn_log_level level, const char *line) {
    struct pn_shell *s = shell_of(e);
    if (!s->embedded) pn_logs_write(level, line);
    else if (s->log != NULL) s->log(s->log_owner, level, line);
}

static const struct pn_env_ops ops = {
    .now_ns = now_ns, .wall_ms = wall_ms, .random = random64, .timer_start = timer_start, .timer_stop = timer_stop, .connect = connect_to,
    .disconnect = disconnect, .message = message, .send = send_message, .sender = sender, .io = io, .work = work, .map = map, .unmap = unmap, .log = log_line,
};

/* ---- life ---- */
static void on_signal(uv_signal_t *h, int number) {
    (void)number;
    pn_shell_stop(h->data);
}

static enum pn_result open_parts(struct pn_shell *s, const char *bind, unsigned n_threads, struct pn_error *err) {
    s->files = pn_files_open(s);
    s->pool = pn_pool_open(s, n_threads);
    return s->files == NULL || s->pool == NULL ? pn_fail(err, PN_NO_MEMORY, "no memory") : pn_transport_open(&s->transport, s, bind, err);
}

static struct pn_shell *new_shell(const char *name, struct pn_keys *keys) {
    struct pn_shell *s = calloc(1, sizeof *s);
    if (s == NULL || uv_loop_init(&s->loop) != 0) {
        free(s);
        pn_keys_close(keys);
        return NULL;
    }
    s->keys = keys;
    s->env.ops = &ops;
    snprintf(s->name, sizeof s->name, "%s", name);
    uv_timer_init(&s->loop, &s->timer);
    uv_idle_init(&s->loop, &s->soon);
    s->timer.data = s->soon.data = s;
    return s;
}

enum pn_result pn_shell_open_embedded(struct pn_shell **out, const char *name, struct pn_keys *keys, void (*log)(void *, enum pn_log_level, const char *), void *owner, struct pn_error *err) {
    struct pn_shell *s = new_shell(name, keys);
    if (s == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory");
    s->embedded = true;
    s->log = log;
    s->log_owner = owner;
    enum pn_result r = open_parts(s, NULL, 0, err);
    if (r != PN_OK) pn_shell_close(s);
    else *out = s;
    return r;
}

enum pn_result pn_shell_open(struct pn_shell **out, const char *name, const char *bind, struct pn_keys *keys, enum pn_log_level level, struct pn_error *err) {
    /* Messages of megabytes come and go all the time: their memory stays with the process instead of being unmapped and zeroed again. */
    mallopt(M_MMAP_THRESHOLD, 64 << 20);
    mallopt(M_TRIM_THRESHOLD, 256 << 20);
    struct pn_shell *s = new_shell(name, keys);
    if (s == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory");
    pn_logs_open(s->name, level);
    uv_signal_init(&s->loop, &s->term);
    uv_signal_init(&s->loop, &s->intr);
    s->term.data = s->intr.data = s;
    uv_signal_start(&s->term, on_signal, SIGTERM);
    uv_signal_start(&s->intr, on_signal, SIGINT);
    signal(SIGPIPE, SIG_IGN);
    enum pn_result r = open_parts(s, bind, 2, err);
    if (r != PN_OK) {
        pn_shell_close(s);
        return r;
    }
    *out = s;
    return PN_OK;
}

struct pn_env *pn_shell_env(struct pn_shell *s) { return &s->env; }
const char *pn_shell_address(const struct pn_shell *s) { return pn_transport_address(s->transport); }
uv_loop_t *pn_shell_loop(struct pn_shell *s) { return &s->loop; }

void pn_shell_run(struct pn_shell *s, const struct pn_core_ops *core_ops, void *core) {
    s->ops = core_ops;
    s->core = core;
    core_ops->start(core);
    pn_transport_drain(s->transport);
    uv_run(&s->loop, UV_RUN_DEFAULT);
    s->core = NULL;
}

void pn_shell_stop(struct pn_shell *s) {
    if (s->stopping) return;
    s->stopping = true;
    if (s->core != NULL && s->ops->stop != NULL) s->ops->stop(s->core);
    uv_stop(&s->loop);
}

static void close_handle(uv_handle_t *h, void *unused) {
    (void)unused;
    if (!uv_is_closing(h)) uv_close(h, NULL);
}

void pn_shell_close(struct pn_shell *s) {
    if (s->pool != NULL) pn_pool_close(s->pool);
    if (s->transport != NULL) pn_transport_close(s->transport);
    uv_walk(&s->loop, close_handle, NULL);
    uv_run(&s->loop, UV_RUN_DEFAULT);
    uv_loop_close(&s->loop);
    if (s->files != NULL) pn_files_close(s->files);
    if (s->pool != NULL) pn_pool_free(s->pool);
    pn_transport_free(s->transport);
    pn_keys_close(s->keys);
    free(s->heap);
    free(s);
}
