/* The session: a thread with a shell and a member (client/member), and calls from any other thread.
 *
 * A call makes a ticket, puts it into the inbox under the one lock and wakes the loop; the loop takes the inbox, works with the member without
 * the lock, and marks answers under it. What calls may see of the member is the view, copied under the lock after every change. Sums and
 * copies of repeated keys are made on the caller's thread, so that several callers do them at once. */
#include "client/pinion.h"
#include <assert.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>
#include "client/member/keyed.h"
#include "client/member/member.h"
#include "common/shell/keys.h"
#include "common/shell/shell.h"

#define MAX_PULLS 256u
#define MAX_BYTES (128u << 20)
#define MAX_KEYS (1u << 24)

enum todo { NOTHING, START, TAKE_BACK };

struct pinion_ticket {
    struct pn_member_request request;   /* the loop's between START and done */
    struct pinion_session *session;
    struct pn_keyed parts[PN_MAX_TABLES];
    /* under the lock */
    enum todo todo;
    bool queued, done, taken_back;      /* queued: in the inbox. taken_back: done, and it had no effect */
    enum pn_result result;
    struct pn_error error;
    uint64_t step;
    struct pinion_ticket *next;         /* inbox */
    struct pinion_ticket *older, *newer;
};

struct pinion_session {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t woke;                /* anything below changed */
    /* the loop's */
    struct pn_shell *shell;
    struct pn_member *member;
    uv_async_t wake;
    /* under the lock */
    struct pinion_ticket *inbox, **inbox_end;
    struct pinion_ticket *tickets;      /* all that are not freed */
    size_t n_pulls, n_pushes;           /* open ones */
    uint32_t max_pushes;
    bool closing, resuming, job_known;
    struct pn_member_view view;
    /* set once by the loop before job_known */
    uint32_t n_tables;
    struct pinion_table tables[PN_MAX_TABLES];
    bool read_only;
    void (*log)(void *, int, const char *);
    void *log_owner;
};

/* ---- errors ---- */
const char *pinion_code_name(int code) {
    static const char *const names[] = {"ok", "failed", "invalid", "deadline", "pending", "fenced", "ended", "no_memory"};
    return code >= 0 && code < (int)(sizeof names / sizeof *names) ? names[code] : "unknown";
}

static int fail(struct pinion_error *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
static int fail(struct pinion_error *err, int code, const char *format, ...) {
    if (err == NULL) return code;
    va_list args;
    va_start(args, format);
    vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    return code;
}

static int code_of(enum pn_result r) {
    switch (r) {
    case PN_OK: return PINION_OK;
    case PN_INVALID: return PINION_INVALID;
    case PN_FENCED: return PINION_FENCED;
    case PN_REFUSED: return PINION_ENDED;
    case PN_NO_MEMORY: return PINION_NO_MEMORY;
    default: return PINION_FAILED;
    }
}

/* ---- waiting ---- */
static struct timespec deadline_of(int timeout_ms) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += timeout_ms / 1000;
    t.tv_nsec += timeout_ms % 1000 * 1000000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000;
    }
    return t;
}

/* With the lock. False: the time is up. */
static bool sleep_until(struct pinion_session *s, int timeout_ms, const struct timespec *deadline) {
    if (timeout_ms < 0) return pthread_cond_wait(&s->woke, &s->lock) == 0;
    return timeout_ms > 0 && pthread_cond_timedwait(&s->woke, &s->lock, deadline) == 0;
}

/* ---- the loop's thread ---- */
static void changed(void *owner) {
    struct pinion_session *s = owner;
    const struct pn_job *job = pn_member_job(s->member);
    pthread_mutex_lock(&s->lock);
    pn_member_look(s->member, &s->view);
    if (job != NULL && !s->job_known) {
        s->n_tables = (uint32_t)job->i_dense_table; /* the dense table stands last and belongs to built-in models */
        s->max_pushes = job->max_in_flight;
        for (uint32_t t = 0; t < s->n_tables; t++) {
            snprintf(s->tables[t].name, sizeof s->tables[t].name, "%s", job->tables[t].name);
            s->tables[t].dim = job->tables[t].dim;
        }
        s->job_known = true;
    }
    pthread_cond_broadcast(&s->woke);
    pthread_mutex_unlock(&s->lock);
}

/* With the lock. */
static void answer(struct pinion_ticket *t, enum pn_result result, bool taken_back) {
    struct pinion_session *s = t->session;
    t->done = true;
    t->taken_back = taken_back;
    t->result = result;
    t->error = t->request.error;
    t->step = t->request.step;
    if (t->request.op == PN_MEMBER_PULL) s->n_pulls--;
    else s->n_pushes--;
    pthread_cond_broadcast(&s->woke);
}

static void done(struct pn_member_request *r) {
    struct pinion_ticket *t = r->owner;
    struct pinion_session *s = t->session;
    pthread_mutex_lock(&s->lock);
    pn_member_look(s->member, &s->view);
    answer(t, r->result, false);
    pthread_mutex_unlock(&s->lock);
}

static void on_wake(uv_async_t *a) {
    struct pinion_session *s = a->data;
    pthread_mutex_lock(&s->lock);
    while (s->inbox != NULL) {
        struct pinion_ticket *t = s->inbox;
        const enum todo todo = t->todo;
        s->inbox = t->next;
        if (s->inbox == NULL) s->inbox_end = &s->inbox;
        t->queued = false;
        if (t->done) { /* answered before it was given up */
            pthread_cond_broadcast(&s->woke);
            continue;
        }
        pthread_mutex_unlock(&s->lock);
        if (todo == START) pn_member_start(s->member, &t->request);
        else if (todo == TAKE_BACK) {
            const bool without_effect = pn_member_take_back(s->member, &t->request);
            pthread_mutex_lock(&s->lock);
            answer(t, PN_DEADLINE, without_effect);
            pthread_mutex_unlock(&s->lock);
        }
        pthread_mutex_lock(&s->lock);
    }
    const bool closing = s->closing, resuming = s->resuming;
    s->resuming = false;
    pthread_mutex_unlock(&s->lock);
    if (resuming) pn_member_resume(s->member);
    if (closing) pn_shell_stop(s->shell);
}

static void *run(void *arg) {
    struct pinion_session *s = arg;
    pn_shell_run(s->shell, &pn_member_core, s->member);
    pn_member_close(s->member);
    usleep(20000); /* the last beat goes out; without it the others wait for our lease */
    pn_shell_close(s->shell);
    return NULL;
}

static void log_line(void *owner, enum pn_log_level level, const char *line) {
    struct pinion_session *s = owner;
    if (s->log != NULL) s->log(s->log_owner, (int)level, line);
}

/* ---- opening and closing ---- */
static int state_error(const struct pinion_session *s, struct pinion_error *err) {
    switch (s->view.state) {
    case PN_MEMBER_ENDED: return fail(err, PINION_ENDED, "%s", s->view.why);
    case PN_MEMBER_MOVED: return fail(err, PINION_FENCED, "%s", s->view.why);
    default: return fail(err, PINION_DEADLINE, "%s", s->view.why);
    }
}

int pinion_open(struct pinion_session **out, const struct pinion_options *o, int timeout_ms, struct pinion_error *err) {
    struct pn_member_options m = {.takes_producer = !o->read_only};
    if (o->coordinator == NULL || o->job == NULL || strlen(o->coordinator) >= sizeof m.coordinator || strlen(o->job) >= sizeof m.job || o->job[0] == '\0')
        return fail(err, PINION_INVALID, "a session needs the coordinator's address (tcp://127.0.0.1:PORT) and the job's id");
    if (o->name != NULL && (o->name[0] == '\0' || strlen(o->name) >= sizeof m.name || strpbrk(o->name, "/\"\\ ") != NULL))
        return fail(err, PINION_INVALID, "name: 1 to %zu characters without blank, slash, backslash and quote", sizeof m.name - 1);
    struct pinion_session *s = calloc(1, sizeof *s);
    if (s == NULL) return fail(err, PINION_NO_MEMORY, "no memory");
    struct pn_error e = {""};
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->woke, &attr);
    pthread_condattr_destroy(&attr);
    s->inbox_end = &s->inbox;
    struct pn_keys *keys = NULL;
    s->read_only = o->read_only;
    s->log = o->log;
    s->log_owner = o->log_owner;
    snprintf(m.coordinator, sizeof m.coordinator, "%s", o->coordinator);
    snprintf(m.job, sizeof m.job, "%s", o->job);
    int code = PINION_OK;
    if (o->keys != NULL && pn_keys_open(&keys, o->keys, o->key != NULL ? o->key : "", &e) != PN_OK) {
        code = fail(err, PINION_INVALID, "%s", e.text);
        goto out;
    }
    if (pn_shell_open_embedded(&s->shell, "client", keys, log_line, s, &e) != PN_OK) {
        code = fail(err, PINION_NO_MEMORY, "%s", e.text);
        goto out;
    }
    struct pn_env *env = pn_shell_env(s->shell);
    if (o->name != NULL) snprintf(m.name, sizeof m.name, "%s", o->name);
    else snprintf(m.name, sizeof m.name, "%.40s%s%016llx", keys != NULL ? o->key : "client", keys != NULL ? "." : "-", (unsigned long long)env->ops->random(env));
    if (env->ops->connect(env, m.coordinator) == 0)
        code = fail(err, PINION_INVALID, keys != NULL ? "\"%s\" is no address of an authorized coordinator: tcp://HOST:PORT#KEY, as its address file has it" : "\"%s\" is no address of this machine: without keys only tcp://127.0.0.1:PORT is allowed", m.coordinator);
    else if ((s->member = pn_member_open(env, &m, changed, s)) == NULL) code = fail(err, PINION_NO_MEMORY, "no memory");
    if (code != PINION_OK) {
        pn_shell_close(s->shell);
        goto out;
    }
    uv_async_init((uv_loop_t *)pn_shell_loop(s->shell), &s->wake, on_wake);
    s->wake.data = s;
    pn_member_look(s->member, &s->view);
    if (pthread_create(&s->thread, NULL, run, s) != 0) {
        pn_member_close(s->member);
        pn_shell_close(s->shell);
        code = fail(err, PINION_FAILED, "no thread could be started");
        goto out;
    }
    const struct timespec deadline = deadline_of(timeout_ms);
    pthread_mutex_lock(&s->lock);
    while (s->view.state == PN_MEMBER_WAITING && sleep_until(s, timeout_ms, &deadline)) {}
    if (s->view.state != PN_MEMBER_OPEN) code = state_error(s, err);
    pthread_mutex_unlock(&s->lock);
    if (code == PINION_OK) *out = s;
    else pinion_close(s);
    return code;
out:
    pthread_cond_destroy(&s->woke);
    pthread_mutex_destroy(&s->lock);
    free(s);
    return code;
}

static void free_ticket(struct pinion_ticket *t) {
    struct pinion_session *s = t->session;
    if (t->older != NULL) t->older->newer = t->newer;
    if (t->newer != NULL) t->newer->older = t->older;
    else s->tickets = t->older;
    for (size_t i = 0; i < t->request.n_parts; i++) pn_keyed_free(&t->parts[i]);
    free(t);
}

void pinion_close(struct pinion_session *s) {
    if (s == NULL) return;
    pthread_mutex_lock(&s->lock);
    s->closing = true;
    uv_async_send(&s->wake);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    while (s->tickets != NULL) free_ticket(s->tickets);
    pthread_cond_destroy(&s->woke);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

size_t pinion_tables(struct pinion_session *s, struct pinion_table *out, size_t room) {
    for (size_t t = 0; t < s->n_tables && t < room; t++) out[t] = s->tables[t];
    return s->n_tables;
}

/* ---- requests ---- */
static bool is_push(enum pn_member_op op) { return op != PN_MEMBER_PULL; }

static int read_parts(struct pinion_session *s, struct pinion_ticket *t, const struct pinion_part *parts, size_t n_parts, struct pinion_error *err) {
    uint32_t seen = 0;
    size_t bytes = 0;
    if (n_parts > s->n_tables) return fail(err, PINION_INVALID, "%zu parts, but the job has %u tables, and none may stand twice", n_parts, s->n_tables);
    for (size_t i = 0; i < n_parts; i++) {
        const struct pinion_part *p = &parts[i];
        if (p->table >= s->n_tables) return fail(err, PINION_INVALID, "there is no table %u: the job has %u", p->table, s->n_tables);
        if (seen >> p->table & 1) return fail(err, PINION_INVALID, "table %s stands twice in one request", s->tables[p->table].name);
        seen |= 1u << p->table;
        if (p->n_keys > 0 && (p->keys == NULL || p->rows == NULL)) return fail(err, PINION_INVALID, "table %s: keys or rows are missing", s->tables[p->table].name);
        if (p->n_keys > MAX_KEYS) return fail(err, PINION_INVALID, "table %s: %zu keys in one request; at most %u", s->tables[p->table].name, p->n_keys, MAX_KEYS);
        bytes += p->n_keys * (8 + (size_t)s->tables[p->table].dim * sizeof(float));
        if (bytes > MAX_BYTES) return fail(err, PINION_INVALID, "a request of more than %u MiB: split it", MAX_BYTES >> 20);
    }
    for (size_t i = 0; i < n_parts; i++) {
        struct pn_error why = {""};
        struct pn_keyed *b = &t->parts[t->request.n_parts];
        enum pn_result r = pn_keyed_open(b, parts[i].keys, parts[i].n_keys, parts[i].rows, s->tables[parts[i].table].dim);
        if (r != PN_OK) return fail(err, PINION_NO_MEMORY, "no memory for %zu keys", parts[i].n_keys);
        t->request.n_parts++; /* from here on freed with the ticket */
        if (t->request.op == PN_MEMBER_PUSH && (r = pn_keyed_sum(b, &why)) != PN_OK) return fail(err, code_of(r), "table %s: %s", s->tables[parts[i].table].name, why.text);
        t->request.parts[i] = pn_keyed_client_part(b, parts[i].table);
    }
    return PINION_OK;
}

/* With the lock. */
static void post(struct pinion_ticket *t, enum todo todo) {
    struct pinion_session *s = t->session;
    t->todo = todo;
    if (!t->queued) { /* else the loop has not seen it yet, and sees only what it is to do now */
        t->queued = true;
        t->next = NULL;
        *s->inbox_end = t;
        s->inbox_end = &t->next;
    }
    uv_async_send(&s->wake);
}

static int start(struct pinion_session *s, enum pn_member_op op, const struct pinion_part *parts, size_t n_parts, struct pinion_ticket **out, int timeout_ms,
                 const struct timespec *deadline, struct pinion_error *err) {
    if (is_push(op) && s->read_only) return fail(err, PINION_INVALID, "this session only reads: it was opened without a producer");
    struct pinion_ticket *t = calloc(1, sizeof *t);
    if (t == NULL) return fail(err, PINION_NO_MEMORY, "no memory");
    t->session = s;
    t->request.op = op;
    t->request.done = done;
    t->request.owner = t;
    int code = read_parts(s, t, parts, n_parts, err);
    pthread_mutex_lock(&s->lock);
    while (code == PINION_OK) {
        /* A pull waits out a restart, a push must not: behind one it would be another step than its caller thinks. */
        if (s->view.state == PN_MEMBER_ENDED || (is_push(op) && s->view.state == PN_MEMBER_MOVED)) code = state_error(s, err);
        else if (is_push(op) ? s->n_pushes < s->max_pushes : s->n_pulls < MAX_PULLS) break;
        else if (!sleep_until(s, timeout_ms, deadline)) code = fail(err, PINION_DEADLINE, "no credit: %zu pushes and %zu pulls are unanswered", s->n_pushes, s->n_pulls);
    }
    t->older = s->tickets;
    if (t->older != NULL) t->older->newer = t;
    s->tickets = t;
    if (code == PINION_OK) {
        if (is_push(op)) s->n_pushes++;
        else s->n_pulls++;
        post(t, START);
        *out = t;
    } else {
        free_ticket(t);
    }
    pthread_mutex_unlock(&s->lock);
    return code;
}

/* Gives the answer of a ticket that is done, and frees it. With the lock, which it drops. */
static int conclude(struct pinion_ticket *t, uint64_t *step, struct pinion_error *err) {
    struct pinion_session *s = t->session;
    pthread_mutex_unlock(&s->lock);
    int code;
    if (t->result == PN_DEADLINE && t->taken_back) code = fail(err, PINION_DEADLINE, "not answered in time; it was taken back and has no effect");
    else if (t->result == PN_DEADLINE) code = fail(err, PINION_PENDING, "step %llu was not acknowledged in time; it is out and will be applied once", (unsigned long long)t->step);
    else if (t->result != PN_OK) code = fail(err, code_of(t->result), "%s", t->error.text);
    else code = PINION_OK;
    if (code == PINION_OK && t->request.op == PN_MEMBER_PULL)
        for (size_t i = 0; i < t->request.n_parts; i++) pn_keyed_spread(&t->parts[i]);
    if (step != NULL) *step = t->step;
    pthread_mutex_lock(&s->lock);
    free_ticket(t);
    pthread_mutex_unlock(&s->lock);
    return code;
}

static int give_up(struct pinion_ticket *t, uint64_t *step, struct pinion_error *err) {
    struct pinion_session *s = t->session;
    if (!t->done && t->queued && t->todo == START) { /* the loop has not even seen it */
        struct pinion_ticket **at = &s->inbox;
        while (*at != t) at = &(*at)->next;
        *at = t->next;
        if (*at == NULL) s->inbox_end = at;
        t->queued = false;
        answer(t, PN_DEADLINE, true);
    }
    if (!t->done) post(t, TAKE_BACK);
    while (!t->done) pthread_cond_wait(&s->woke, &s->lock); /* short: the loop never blocks */
    while (t->queued) pthread_cond_wait(&s->woke, &s->lock);
    return conclude(t, step, err);
}

/* Waits in full and gives up behind it. */
static int finish_call(struct pinion_ticket *t, uint64_t *step, int timeout_ms, const struct timespec *deadline, struct pinion_error *err) {
    struct pinion_session *s = t->session;
    pthread_mutex_lock(&s->lock);
    while (!t->done && sleep_until(s, timeout_ms, deadline)) {}
    return t->done ? conclude(t, step, err) : give_up(t, step, err);
}

static int call(struct pinion_session *s, enum pn_member_op op, const struct pinion_part *parts, size_t n_parts, uint64_t *step, int timeout_ms, struct pinion_error *err) {
    struct pinion_ticket *t;
    const struct timespec deadline = deadline_of(timeout_ms);
    if (step != NULL) *step = 0;
    int code = start(s, op, parts, n_parts, &t, timeout_ms, &deadline, err);
    return code != PINION_OK ? code : finish_call(t, step, timeout_ms, &deadline, err);
}

int pinion_pull(struct pinion_session *s, const struct pinion_part *parts, size_t n_parts, int timeout_ms, struct pinion_error *err) {
    return call(s, PN_MEMBER_PULL, parts, n_parts, NULL, timeout_ms, err);
}

int pinion_push(struct pinion_session *s, const struct pinion_part *parts, size_t n_parts, uint64_t *step, int timeout_ms, struct pinion_error *err) {
    return call(s, PN_MEMBER_PUSH, parts, n_parts, step, timeout_ms, err);
}

int pinion_pull_start(struct pinion_session *s, const struct pinion_part *parts, size_t n_parts, struct pinion_ticket **ticket, int timeout_ms, struct pinion_error *err) {
    const struct timespec deadline = deadline_of(timeout_ms);
    return start(s, PN_MEMBER_PULL, parts, n_parts, ticket, timeout_ms, &deadline, err);
}

int pinion_push_start(struct pinion_session *s, const struct pinion_part *parts, size_t n_parts, struct pinion_ticket **ticket, int timeout_ms, struct pinion_error *err) {
    const struct timespec deadline = deadline_of(timeout_ms);
    return start(s, PN_MEMBER_PUSH, parts, n_parts, ticket, timeout_ms, &deadline, err);
}

int pinion_wait(struct pinion_ticket *t, uint64_t *step, int timeout_ms, struct pinion_error *err) {
    struct pinion_session *s = t->session;
    const struct timespec deadline = deadline_of(timeout_ms);
    pthread_mutex_lock(&s->lock);
    while (!t->done && sleep_until(s, timeout_ms, &deadline)) {}
    if (t->done) return conclude(t, step, err);
    pthread_mutex_unlock(&s->lock);
    return fail(err, PINION_DEADLINE, "not answered yet");
}

int pinion_drop(struct pinion_ticket *t) {
    pthread_mutex_lock(&t->session->lock);
    return t->done ? conclude(t, NULL, NULL) : give_up(t, NULL, NULL);
}

int pinion_checkpoint(struct pinion_session *s, int timeout_ms, struct pinion_error *err) {
    return call(s, PN_MEMBER_CHECKPOINT, NULL, 0, NULL, timeout_ms, err);
}

int pinion_finish(struct pinion_session *s, int timeout_ms, struct pinion_error *err) {
    pthread_mutex_lock(&s->lock);
    const bool again = s->view.finished;
    const bool over = s->view.state == PN_MEMBER_ENDED && s->view.succeeded;
    pthread_mutex_unlock(&s->lock);
    if (over) return PINION_OK;
    return call(s, again ? PN_MEMBER_CHECKPOINT : PN_MEMBER_FINISH, NULL, 0, NULL, timeout_ms, err);
}

int pinion_resume(struct pinion_session *s, uint64_t *first_step, int timeout_ms, struct pinion_error *err) {
    const struct timespec deadline = deadline_of(timeout_ms);
    int code = PINION_OK;
    pthread_mutex_lock(&s->lock);
    if (s->view.state == PN_MEMBER_MOVED) {
        s->resuming = true;
        uv_async_send(&s->wake);
        while (s->resuming && sleep_until(s, timeout_ms, &deadline)) {}
    }
    while ((s->resuming || s->view.state == PN_MEMBER_MOVED || s->view.state == PN_MEMBER_WAITING) && sleep_until(s, timeout_ms, &deadline)) {}
    if (s->view.state != PN_MEMBER_OPEN) code = state_error(s, err);
    else if (first_step != NULL) *first_step = s->view.started + 1;
    pthread_mutex_unlock(&s->lock);
    return code;
}

void pinion_status(struct pinion_session *s, struct pinion_status *out) {
    pthread_mutex_lock(&s->lock);
    const struct pn_member_view *v = &s->view;
    *out = (struct pinion_status){.open = v->state == PN_MEMBER_OPEN, .fenced = v->state == PN_MEMBER_MOVED, .ended = v->state == PN_MEMBER_ENDED,
                                  .has_producer = v->has_producer, .finished = v->finished, .producer = v->producer, .n_producers = v->n_producers,
                                  .incarnation = v->incarnation, .generation = v->generation, .first_step = v->first_step, .next_step = v->started + 1,
                                  .clock = v->clock, .committed_step = v->committed, .open_pushes = s->n_pushes, .open_pulls = s->n_pulls,
                                  .retries = v->counters.retries, .replays = v->counters.replays};
    snprintf(out->why, sizeof out->why, "%s", v->why);
    pthread_mutex_unlock(&s->lock);
}
