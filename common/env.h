/* What a core may do: the one table of operations between a role's core and its shell.
 *
 * A core is a deterministic state machine (docs/architecture.md). It runs on one thread, reacts to
 * messages, timers and finished requests, and touches the outside world only through this table. The
 * shell (common/shell) implements it over libuv, ZeroMQ, threads and real files; the simulator
 * (tests/sim) implements it over a virtual clock and seeded faults.
 *
 * Request structs (pn_timer, pn_io, pn_work) are owned by the caller and must live until their callback
 * ran. Every callback runs on the core's own thread, never from inside the call that started it.
 * Cores use plain malloc and free: they do not disturb determinism, and the tests fail them by wrapping. */
#ifndef PN_COMMON_ENV_H
#define PN_COMMON_ENV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/result.h"

struct pn_env;

/* ---- peers and messages ---- */

/* Where a message goes or came from: an outgoing connection made with `connect`, or the return address
 * of a message that came in. Never 0. Valid for this process life only; a send to a peer that has gone
 * is dropped silently, as any message may be: every protocol retries. */
typedef uint64_t pn_peer;

/* One message = one frame. `data` is 8-byte aligned. Reference counted, single thread (the shell's
 * transport takes care of its own threads): a sender that wants to keep a message for a retry takes a
 * reference first with pn_msg_ref; a message must not change after its first send. */
struct pn_msg {
    uint8_t *data;
    size_t n_bytes;
    uint32_t refs;
    void (*free)(struct pn_msg *); /* set by whoever made it */
};
struct pn_msg *pn_msg_ref(struct pn_msg *m);
void pn_msg_unref(struct pn_msg *m); /* NULL is allowed */

/* ---- timers ---- */
struct pn_timer {
    void (*fire)(struct pn_timer *);
    void *owner;
    bool active;           /* kept by env: set while started, cleared before fire() runs */
    uint64_t due_ns;       /* kept by env */
    void *impl;            /* kept by env; set to NULL before the first start */
    uint64_t impl_id;      /* kept by env */
};

/* ---- file operations ---- */
enum pn_io_op {
    PN_IO_READ,     /* path, offset, buffer, n_bytes -> result = bytes read (fewer only at the end of the file) */
    PN_IO_SIZE,     /* path -> result = bytes */
    PN_IO_CREATE,   /* path: new or truncated empty file; fails with -EEXIST if `exclusive` and it exists */
    PN_IO_WRITE,    /* path, offset, buffer, n_bytes: all bytes or an error */
    PN_IO_SYNC,     /* path: fsync. A failed one is never repeated on the same file */
    PN_IO_RENAME,   /* path -> path2 (replaces) */
    PN_IO_SYNC_DIR, /* path: fsync of a folder */
    PN_IO_REMOVE,   /* path: a file or an empty folder; missing is no error */
    PN_IO_MKDIR,    /* path, with parents; existing is no error */
    PN_IO_LIST,     /* path -> names (NULL-terminated array, sorted; one malloc block, free() by the owner) */
};
/* One operation on one file, named by path: no handle outlives a call, so that a crash leaks nothing and
 * the simulator stays small. The shell keeps recently used descriptors open behind this. */
struct pn_io {
    enum pn_io_op op;
    const char *path, *path2;   /* must live until done() */
    uint64_t offset;
    void *buffer;
    size_t n_bytes;
    bool exclusive;
    void (*done)(struct pn_io *);
    void *owner;
    int64_t result;             /* out: >= 0, or a negative errno */
    char **names;               /* out: PN_IO_LIST */
    void *impl;                 /* kept by env */
};

/* ---- work on another thread: pure computation, no env call, no shared state but its own input ---- */
struct pn_work {
    void (*run)(struct pn_work *);   /* on a work thread */
    void (*done)(struct pn_work *);  /* back on the core's thread */
    void *owner;
    bool background;                 /* nobody waits for it: it gives way to everything else on the machine */
    void *impl;                      /* kept by env */
};

enum pn_log_level { PN_DEBUG, PN_INFO, PN_WARN, PN_ERROR };

struct pn_env_ops {
    uint64_t (*now_ns)(struct pn_env *);   /* monotonic */
    uint64_t (*wall_ms)(struct pn_env *);  /* only for people: nothing may depend on it */
    uint64_t (*random)(struct pn_env *);   /* 64 random bits */

    void (*timer_start)(struct pn_env *, struct pn_timer *, uint64_t delay_ms); /* restarts an active one */
    void (*timer_stop)(struct pn_env *, struct pn_timer *);                     /* inactive is fine */

    /* A connection that keeps reconnecting; the same address twice gives the same peer. 0: bad address. */
    pn_peer (*connect)(struct pn_env *, const char *address);
    void (*disconnect)(struct pn_env *, pn_peer);
    struct pn_msg *(*message)(struct pn_env *, size_t n_bytes); /* a buffer to fill; NULL: no memory */
    void (*send)(struct pn_env *, pn_peer to, struct pn_msg *); /* consumes one reference; may lose it */

    /* While the core is given a message that came in: who sent it, by the key of its connection (valid until the core returns). False: connections are not encrypted, and whoever is on this machine
     * may be anybody. NULL in worlds without keys. */
    bool (*sender)(struct pn_env *, const char **role, const char **name);

    void (*io)(struct pn_env *, struct pn_io *);     /* requests on one path complete in the order given */
    void (*work)(struct pn_env *, struct pn_work *); /* requests run in any order, maybe at once */

    /* A whole file, read-only, for as long as it is mapped. Synchronous. */
    enum pn_result (*map)(struct pn_env *, const char *path, const void **data, size_t *n_bytes);
    void (*unmap)(struct pn_env *, const void *data, size_t n_bytes);

    void (*log)(struct pn_env *, enum pn_log_level, const char *line);
};

/* The shell and the simulator embed this at the start of their own struct. */
struct pn_env {
    const struct pn_env_ops *ops;
};

/* What a shell drives. `data` is the 8-aligned frame; the core may keep the message by pn_msg_ref. */
struct pn_core_ops {
    void (*start)(void *core);
    void (*message)(void *core, pn_peer from, struct pn_msg *m);
    void (*stop)(void *core); /* asked to end: finish what is short, then say so; optional (NULL) */
};

/* Short forms. */
static inline uint64_t pn_now_ns(struct pn_env *e) { return e->ops->now_ns(e); }
static inline uint64_t pn_now_ms(struct pn_env *e) { return e->ops->now_ns(e) / 1000000u; }
static inline void pn_timer_start(struct pn_env *e, struct pn_timer *t, uint64_t ms) { e->ops->timer_start(e, t, ms); }
static inline void pn_timer_stop(struct pn_env *e, struct pn_timer *t) { e->ops->timer_stop(e, t); }
static inline void pn_send(struct pn_env *e, pn_peer to, struct pn_msg *m) { e->ops->send(e, to, m); }
static inline void pn_io_start(struct pn_env *e, struct pn_io *io) { e->ops->io(e, io); }
static inline void pn_work_start(struct pn_env *e, struct pn_work *w) { e->ops->work(e, w); }
void pn_log(struct pn_env *e, enum pn_log_level level, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
