/* Shared by the shell's files. */
#ifndef PN_COMMON_SHELL_INTERNAL_H
#define PN_COMMON_SHELL_INTERNAL_H

#include <pthread.h>
#include <uv.h>
#include "common/shell/shell.h"

struct pn_transport;
struct pn_keys;
struct pn_files;
struct pn_pool;

struct pn_shell {
    struct pn_env env;            /* first */
    uv_loop_t loop;
    uv_signal_t term, intr;
    uv_timer_t timer;             /* drives the heap of pn_timers */
    uv_idle_t soon;               /* the same for what is due at once: sockets are read between one such timer and the next */
    struct pn_timer **heap;
    size_t n_heap, heap_room;
    uint64_t sequence;
    const struct pn_core_ops *ops;
    void *core;
    char name[64], address[128];
    struct pn_keys *keys;         /* NULL: nothing is encrypted */
    struct pn_transport *transport;
    struct pn_files *files;
    struct pn_pool *pool;
    bool stopping, embedded;
    void (*log)(void *owner, enum pn_log_level, const char *line); /* embedded */
    void *log_owner;
};

/* transport.c */
enum pn_result pn_transport_open(struct pn_transport **, struct pn_shell *, const char *bind, struct pn_error *);
void pn_transport_close(struct pn_transport *); /* the sockets; its handles close with the loop, then it is freed: */
void pn_transport_free(struct pn_transport *);
const char *pn_transport_address(const struct pn_transport *);
pn_peer pn_transport_connect(struct pn_transport *, const char *address);
void pn_transport_disconnect(struct pn_transport *, pn_peer);
struct pn_msg *pn_transport_message(size_t n_bytes);
void pn_transport_send(struct pn_transport *, pn_peer, struct pn_msg *);
void pn_transport_drain(struct pn_transport *);
bool pn_transport_sender(const struct pn_transport *, const char **role, const char **name);

/* files.c */
struct pn_files *pn_files_open(struct pn_shell *);
void pn_files_close(struct pn_files *);
void pn_files_start(struct pn_files *, struct pn_io *);
enum pn_result pn_files_map(const char *path, const void **data, size_t *n_bytes);
void pn_files_unmap(const void *data, size_t n_bytes);

/* pool.c: threads for pure computation, apart from libuv's own (files), so that neither starves the other */
struct pn_pool *pn_pool_open(struct pn_shell *, unsigned n_threads);
void pn_pool_close(struct pn_pool *); /* ends the threads; its handle closes with the loop, then: */
void pn_pool_free(struct pn_pool *);
void pn_pool_start(struct pn_pool *, struct pn_work *);

/* logs.c */
void pn_logs_open(const char *name, enum pn_log_level);
void pn_logs_write(enum pn_log_level, const char *line);

#endif
