/* A pn_env for tests of one core: one thread, a clock that the test moves, files in memory, messages that the test reads.
 * Nothing happens by itself: io and work wait until fake_run(), timers until fake_advance(). */
#ifndef PN_TESTS_FAKE_ENV_H
#define PN_TESTS_FAKE_ENV_H
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/hash.h"
#include "common/wire.h"

enum { FAKE_FILES = 64, FAKE_QUEUE = 64, FAKE_SENT = 4096, FAKE_TIMERS = 32, FAKE_PEERS = 16, FAKE_STEPS = 512 };
struct fake_file { char path[520]; uint8_t *data; size_t n_bytes; bool exists, synced; };
struct fake_sent { pn_peer to; struct pn_msg *m; };
struct fake {
    struct pn_env env;
    uint64_t now_ns, random;
    struct fake_file files[FAKE_FILES];
    struct pn_io *ios[FAKE_QUEUE];
    struct pn_work *works[FAKE_QUEUE];
    size_t n_ios, n_works;
    struct pn_timer *timers[FAKE_TIMERS];
    char peers[FAKE_PEERS][128];
    struct fake_sent sent[FAKE_SENT];   /* the test takes them with fake_take */
    size_t n_sent;
    uint64_t n_io_done, fail_io;        /* fail_io: the number (from 1) of the operation that fails with -EIO; 0: none */
    struct { enum pn_io_op op; char path[64]; } steps[FAKE_STEPS]; /* what was done to files, by the end of the path */
    size_t n_steps;
};

static inline struct fake *fake_of(struct pn_env *e) { return (struct fake *)(void *)e; }
static inline uint64_t fake_now(struct pn_env *e) { return fake_of(e)->now_ns; }
static inline uint64_t fake_random(struct pn_env *e) { return pn_mix64(++fake_of(e)->random); }

static inline void fake_timer_stop(struct pn_env *e, struct pn_timer *t) {
    for (size_t i = 0; i < FAKE_TIMERS; i++)
        if (fake_of(e)->timers[i] == t) fake_of(e)->timers[i] = NULL;
    t->active = false;
}
static inline void fake_timer_start(struct pn_env *e, struct pn_timer *t, uint64_t delay_ms) {
    fake_timer_stop(e, t);
    t->due_ns = fake_of(e)->now_ns + delay_ms * 1000000u;
    t->active = true;
    for (size_t i = 0; i < FAKE_TIMERS; i++)
        if (fake_of(e)->timers[i] == NULL) {
            fake_of(e)->timers[i] = t;
            return;
        }
    ck_abort_msg("too many timers");
}
static inline pn_peer fake_connect(struct pn_env *e, const char *address) {
    for (size_t i = 0; i < FAKE_PEERS; i++) {
        char *known = fake_of(e)->peers[i];
        if (known[0] == '\0') snprintf(known, 128, "%s", address);
        if (strcmp(known, address) == 0) return i + 1;
    }
    ck_abort_msg("too many peers");
    return 0;
}
static inline void fake_disconnect(struct pn_env *e, pn_peer p) { (void)e; (void)p; }
static inline void fake_release(struct pn_msg *m) { free(m); }
static inline struct pn_msg *fake_message(struct pn_env *e, size_t n) {
    (void)e;
    struct pn_msg *m = malloc(sizeof *m + n + 8);
    *m = (struct pn_msg){.data = (uint8_t *)(m + 1), .n_bytes = n, .refs = 1, .free = fake_release};
    return m;
}
static inline void fake_send(struct pn_env *e, pn_peer to, struct pn_msg *m) {
    ck_assert_uint_lt(fake_of(e)->n_sent, FAKE_SENT);
    fake_of(e)->sent[fake_of(e)->n_sent++] = (struct fake_sent){to, m};
}
static inline void fake_io(struct pn_env *e, struct pn_io *io) {
    ck_assert_uint_lt(fake_of(e)->n_ios, FAKE_QUEUE);
    fake_of(e)->ios[fake_of(e)->n_ios++] = io;
}
static inline void fake_work(struct pn_env *e, struct pn_work *w) {
    ck_assert_uint_lt(fake_of(e)->n_works, FAKE_QUEUE);
    fake_of(e)->works[fake_of(e)->n_works++] = w;
}
static inline void fake_log(struct pn_env *e, enum pn_log_level level, const char *line) { (void)e; (void)level; (void)line; }
static const struct pn_env_ops fake_ops = {.now_ns = fake_now, .wall_ms = fake_now, .random = fake_random, .timer_start = fake_timer_start,
                                           .timer_stop = fake_timer_stop, .connect = fake_connect, .disconnect = fake_disconnect, .message = fake_message,
                                           .send = fake_send, .io = fake_io, .work = fake_work, .log = fake_log};

static inline struct fake *fake_open(void) {
    struct fake *f = calloc(1, sizeof *f);
    f->env.ops = &fake_ops;
    f->now_ns = 1000000001u; /* odd: the client marks what it sent with now | 1, which on an even clock lies ahead of now */
    return f;
}
static inline void fake_close(struct fake *f) {
    ck_assert_uint_eq(f->n_ios + f->n_works, 0);
    for (size_t i = 0; i < FAKE_FILES; i++) free(f->files[i].data);
    for (size_t i = 0; i < f->n_sent; i++) pn_msg_unref(f->sent[i].m);
    free(f);
}

/* ---- files ---- */
static inline struct fake_file *fake_file(struct fake *f, const char *path, bool make) {
    struct fake_file *room = NULL;
    for (size_t i = 0; i < FAKE_FILES; i++) {
        if (f->files[i].exists && strcmp(f->files[i].path, path) == 0) return &f->files[i];
        if (!f->files[i].exists && room == NULL) room = &f->files[i];
    }
    if (!make) return NULL;
    ck_assert_ptr_nonnull(room);
    free(room->data);
    *room = (struct fake_file){.exists = true};
    snprintf(room->path, sizeof room->path, "%s", path);
    return room;
}
static inline void fake_do(struct fake *f, struct pn_io *io) {
    struct fake_file *at = fake_file(f, io->path, io->op == PN_IO_CREATE);
    size_t n = strlen(io->path);
    if (f->n_steps < FAKE_STEPS) {
        f->steps[f->n_steps].op = io->op;
        snprintf(f->steps[f->n_steps++].path, sizeof f->steps[0].path, "%s", io->path + (n > 63 ? n - 63 : 0));
    }
    io->result = 0;
    if (++f->n_io_done == f->fail_io) {
        io->result = -EIO;
        return;
    }
    switch (io->op) {
    case PN_IO_CREATE: at->n_bytes = 0; at->synced = false; break;
    case PN_IO_WRITE:
        if (at == NULL) { io->result = -ENOENT; break; }
        if (io->offset + io->n_bytes > at->n_bytes) {
            at->data = realloc(at->data, io->offset + io->n_bytes);
            at->n_bytes = io->offset + io->n_bytes;
        }
        memcpy(at->data + io->offset, io->buffer, io->n_bytes);
        at->synced = false;
        break;
    case PN_IO_READ: {
        if (at == NULL) { io->result = -ENOENT; break; }
        size_t left = io->offset < at->n_bytes ? at->n_bytes - io->offset : 0, take = left < io->n_bytes ? left : io->n_bytes;
        if (take > 0) memcpy(io->buffer, at->data + io->offset, take);
        io->result = (int64_t)take;
        break;
    }
    case PN_IO_SIZE: io->result = at == NULL ? -ENOENT : (int64_t)at->n_bytes; break;
    case PN_IO_SYNC:
        if (at == NULL) io->result = -ENOENT;
        else at->synced = true;
        break;
    case PN_IO_RENAME: {
        struct fake_file *old = fake_file(f, io->path2, false);
        if (at == NULL) { io->result = -ENOENT; break; }
        if (old != NULL) old->exists = false;
        snprintf(at->path, sizeof at->path, "%s", io->path2);
        break;
    }
    case PN_IO_REMOVE: if (at != NULL) at->exists = false; break;
    case PN_IO_SYNC_DIR: case PN_IO_MKDIR: break;
    case PN_IO_LIST: io->result = -ENOSYS; break;
    }
}
/* One waiting operation completes; false: none waits. */
static inline bool fake_step(struct fake *f) {
    if (f->n_ios > 0) {
        struct pn_io *io = f->ios[0];
        memmove(f->ios, f->ios + 1, --f->n_ios * sizeof *f->ios);
        fake_do(f, io);
        io->done(io);
        return true;
    }
    if (f->n_works > 0) {
        struct pn_work *w = f->works[0];
        memmove(f->works, f->works + 1, --f->n_works * sizeof *f->works);
        w->run(w);
        w->done(w);
        return true;
    }
    return false;
}
static inline void fake_run(struct fake *f) { while (fake_step(f)) {} }

/* ---- time and messages ---- */
/* Moves the clock, firing what is due in order of time. */
static inline void fake_advance(struct fake *f, uint64_t ms) {
    const uint64_t end = f->now_ns + ms * 1000000u;
    for (;;) {
        size_t next = FAKE_TIMERS;
        for (size_t i = 0; i < FAKE_TIMERS; i++)
            if (f->timers[i] != NULL && f->timers[i]->due_ns <= end && (next == FAKE_TIMERS || f->timers[i]->due_ns < f->timers[next]->due_ns)) next = i;
        if (next == FAKE_TIMERS) break;
        struct pn_timer *t = f->timers[next];
        f->timers[next] = NULL;
        t->active = false;
        if (t->due_ns > f->now_ns) f->now_ns = t->due_ns;
        t->fire(t);
    }
    f->now_ns = end;
}
/* The oldest message that was sent; the caller unrefs. NULL: none. */
static inline struct pn_msg *fake_take(struct fake *f, pn_peer *to) {
    if (f->n_sent == 0) return NULL;
    struct fake_sent s = f->sent[0];
    memmove(f->sent, f->sent + 1, --f->n_sent * sizeof *f->sent);
    if (to != NULL) *to = s.to;
    return s.m;
}
static inline void fake_drop_sent(struct fake *f) {
    for (struct pn_msg *m; (m = fake_take(f, NULL)) != NULL;) pn_msg_unref(m);
}
static inline int fake_suite(const char *name, TCase *c) {
    Suite *s = suite_create(name);
    tcase_set_timeout(c, 120);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
#endif
