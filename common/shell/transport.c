/* ZeroMQ on libuv's loop. One context a process, one ROUTER where we are asked, one DEALER for each address we ask. One frame is one message.
 * A ZeroMQ descriptor is edge-triggered: after every event and every send all sockets are drained until EAGAIN. */
#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>
#include "common/shell/internal.h"
#include "common/shell/zap.h"
#include "common/wire.h"

#define CONNECTION (1ull << 62)
#define MAX_CONNECTIONS 1024u
#define MAX_DRAIN 256 /* messages in one go: timers and other sockets get their turn */

struct connection {
    void *socket;
    char address[128];
    uv_poll_t poll;
    struct pn_transport *transport;
};

struct pn_transport {
    struct pn_shell *shell;
    void *context, *router;
    char address[128];
    uv_poll_t router_poll;
    uv_check_t check;
    uv_idle_t again;      /* runs while a drain stopped before EAGAIN */
    struct connection *connections[MAX_CONNECTIONS];
    size_t n_connections;
    bool draining;
    struct pn_keys *keys; /* NULL: nothing is encrypted, and everything is on loopback */
    struct pn_zap *zap;
    bool named;                        /* the message that the core is given comes from: */
    struct pn_key_owner sender;
    uint64_t told_ms;
};

/* ---- messages: `refs` belongs to the core's thread; `shared` counts the core and ZeroMQ's I/O threads ---- */
struct message {
    struct pn_msg m;      /* first */
    atomic_uint shared;
    bool received;
    zmq_msg_t zmq;
    _Alignas(16) uint8_t bytes[];
};

static void release(struct message *x) {
    if (atomic_fetch_sub(&x->shared, 1) != 1) return;
    if (x->received) zmq_msg_close(&x->zmq);
    free(x);
}

static void core_done(struct pn_msg *m) { release((struct message *)m); }
static void zmq_done(void *data, void *hint) {
    (void)data;
    release(hint);
}

static struct message *new_message(size_t room) {
    struct message *x = malloc(sizeof *x + room);
    if (x == NULL) return NULL;
    x->m = (struct pn_msg){.data = x->bytes, .n_bytes = room, .refs = 1, .free = core_done};
    atomic_init(&x->shared, 1);
    x->received = false;
    return x;
}

struct pn_msg *pn_transport_message(size_t n_bytes) {
    struct message *x = new_message(n_bytes);
    return x == NULL ? NULL : &x->m;
}

/* ---- receiving ---- */

/* May whoever sent this frame send such a one? Once a second at most the log says who was turned away. */
static bool allowed(struct pn_transport *t, zmq_msg_t *frame) {
    const unsigned kind = zmq_msg_size(frame) >= PN_ENVELOPE_BYTES ? ((const uint8_t *)zmq_msg_data(frame))[5] : 0;
    const struct pn_key_owner *who = pn_zap_sender(t->zap, frame);
    t->named = who != NULL && pn_key_may_send(who->role, kind);
    if (t->named) t->sender = *who;
    if (t->named) return true;
    const uint64_t now = pn_now_ms(&t->shell->env);
    if (now - t->told_ms >= 1000)
        pn_log(&t->shell->env, PN_WARN, "a message of kind %u from %s was dropped: %s", kind, who != NULL ? who->name : "a node whose key is not authorized any more",
               who != NULL ? "its role may not send it" : "its .pub file is gone");
    t->told_ms = now;
    return false;
}

/* Takes one message off a socket. *m is NULL when it was none of ours (no or too many frames) or may not be sent: dropped. False: nothing is there. */
static bool receive(struct pn_transport *t, void *socket, bool routed, pn_peer *from, struct pn_msg **m) {
    zmq_msg_t frame;
    t->named = false;
    *m = NULL;
    *from = 0;
    zmq_msg_init(&frame);
    if (zmq_msg_recv(&frame, socket, ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(&frame);
        return false;
    }
    bool sound = true;
    if (routed) {
        /* libzmq's own routing ids: five bytes, the first 0. Others would be chosen by the peer: not accepted. */
        const uint8_t *id = zmq_msg_data(&frame);
        sound = zmq_msg_size(&frame) == 5 && id[0] == 0 && zmq_msg_more(&frame);
        if (sound) {
            uint32_t number;
            memcpy(&number, id + 1, 4);
            *from = (1ull << 33) | number;
        }
        bool more = zmq_msg_more(&frame);
        zmq_msg_close(&frame);
        zmq_msg_init(&frame);
        if (!more || zmq_msg_recv(&frame, socket, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&frame);
            return true;
        }
    }
    while (zmq_msg_more(&frame)) { /* one frame is one message: anything longer is drained and dropped */
        sound = false;
        zmq_msg_close(&frame);
        zmq_msg_init(&frame);
        if (zmq_msg_recv(&frame, socket, ZMQ_DONTWAIT) < 0) break;
    }
    size_t n = zmq_msg_size(&frame);
    if (sound && routed && t->keys != NULL) sound = allowed(t, &frame);
    if (sound && n > 0) {
        bool aligned = (uintptr_t)zmq_msg_data(&frame) % 8 == 0;
        struct message *x = new_message(aligned ? 0 : n);
        if (x != NULL && aligned) {
            zmq_msg_init(&x->zmq);
            zmq_msg_move(&x->zmq, &frame);
            x->m.data = zmq_msg_data(&x->zmq);
            x->m.n_bytes = n;
            x->received = true;
        } else if (x != NULL) {
            memcpy(x->bytes, zmq_msg_data(&frame), n);
        }
        if (x != NULL) *m = &x->m;
    }
    zmq_msg_close(&frame);
    return true;
}

static int drain_socket(struct pn_transport *t, void *socket, pn_peer connection) {
    int n = 0;
    pn_peer from;
    struct pn_msg *m;
    while (n < MAX_DRAIN && receive(t, socket, connection == 0, &from, &m)) {
        n++;
        if (m == NULL) continue;
        if (t->shell->core != NULL) t->shell->ops->message(t->shell->core, connection != 0 ? connection : from, m);
        pn_msg_unref(m);
    }
    return n;
}

static void run_again(uv_idle_t *h) {
    uv_idle_stop(h);
    pn_transport_drain(h->data);
}

void pn_transport_drain(struct pn_transport *t) {
    if (t == NULL || t->draining || t->shell->core == NULL) return;
    t->draining = true;
    pn_zap_drain(t->zap);
    bool more = t->router != NULL && drain_socket(t, t->router, 0) == MAX_DRAIN;
    for (size_t i = 0; i < t->n_connections; i++) /* a message may open a connection: the list grows at its end */
        more = drain_socket(t, t->connections[i]->socket, CONNECTION | (i + 1)) == MAX_DRAIN || more;
    t->draining = false;
    if (more) uv_idle_start(&t->again, run_again);
}

static void on_readable(uv_poll_t *p, int status, int events) {
    (void)status;
    (void)events;
    pn_transport_drain(p->data);
}
static void on_check(uv_check_t *c) { pn_transport_drain(c->data); }

/* ---- sockets ---- */
static bool loopback(const char *address) {
    return strncmp(address, "tcp://127.", 10) == 0 || strncmp(address, "tcp://[::1]:", 12) == 0 || strncmp(address, "tcp://localhost:", 16) == 0;
}

/* A process has one context; a program of others may have many shells, and those share it where sockets are encrypted: two contexts may crash in libsodium's end (libzmq 4.3.4). */
static struct { pthread_mutex_t lock; void *context; unsigned users; } shared = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void *take_context(bool of_all) {
    if (!of_all) return zmq_ctx_new();
    pthread_mutex_lock(&shared.lock);
    if (shared.users++ == 0) shared.context = zmq_ctx_new();
    void *context = shared.context;
    pthread_mutex_unlock(&shared.lock);
    return context;
}

static void give_context(void *context) {
    pthread_mutex_lock(&shared.lock);
    const bool last = context != shared.context || --shared.users == 0;
    if (last && context == shared.context) shared.context = NULL;
    pthread_mutex_unlock(&shared.lock);
    if (last) zmq_ctx_term(context);
}

static void *new_socket(struct pn_transport *t, int type) {
    void *s = zmq_socket(t->context, type);
    if (s == NULL) return NULL;
    int zero = 0, one = 1, hwm = 1000, beat = 1000, timeout = 3000, handshake = 3000, again = 50, most = 1000;
    int64_t max = PN_FRAME_MAX_BYTES;
    zmq_setsockopt(s, ZMQ_LINGER, &zero, sizeof zero);
    zmq_setsockopt(s, ZMQ_SNDHWM, &hwm, sizeof hwm);
    zmq_setsockopt(s, ZMQ_RCVHWM, &hwm, sizeof hwm);
    zmq_setsockopt(s, ZMQ_MAXMSGSIZE, &max, sizeof max);
    zmq_setsockopt(s, ZMQ_HEARTBEAT_IVL, &beat, sizeof beat);
    zmq_setsockopt(s, ZMQ_HEARTBEAT_TIMEOUT, &timeout, sizeof timeout);
    zmq_setsockopt(s, ZMQ_HANDSHAKE_IVL, &handshake, sizeof handshake);
    zmq_setsockopt(s, ZMQ_RECONNECT_IVL, &again, sizeof again);
    zmq_setsockopt(s, ZMQ_RECONNECT_IVL_MAX, &most, sizeof most);
    if (type == ZMQ_ROUTER) zmq_setsockopt(s, ZMQ_ROUTER_MANDATORY, &one, sizeof one);
    if (type == ZMQ_DEALER) zmq_setsockopt(s, ZMQ_IMMEDIATE, &one, sizeof one); /* nothing queues for a peer that is not there: every protocol repeats */
    return s;
}

static void watch(struct pn_transport *t, void *socket, uv_poll_t *poll) {
    int fd;
    size_t n = sizeof fd;
    zmq_getsockopt(socket, ZMQ_FD, &fd, &n);
    uv_poll_init(&t->shell->loop, poll, fd);
    poll->data = t;
    uv_poll_start(poll, UV_READABLE, on_readable);
}

enum pn_result pn_transport_open(struct pn_transport **out, struct pn_shell *s, const char *bind, struct pn_error *err) {
    struct pn_transport *t = calloc(1, sizeof *t);
    if (t == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory");
    t->shell = s;
    t->keys = s->keys;
    t->context = take_context(s->embedded && s->keys != NULL);
    uv_check_init(&s->loop, &t->check);
    uv_idle_init(&s->loop, &t->again);
    t->check.data = t->again.data = t;
    uv_check_start(&t->check, on_check);
    *out = t;
    if (bind == NULL) return PN_OK;
    char real[140];
    uint8_t key[32];
    pn_key_of_address(bind, real, key); /* an address that was read somewhere has our key behind it */
    if (t->keys == NULL && !loopback(real))
        return pn_fail(err, PN_REFUSED, "%s is not a loopback address: what leaves this machine must be encrypted; make keys with pinion keygen and start with --keys DIR", bind);
    if (strncmp(real, "tcp://*:", 8) == 0 || strncmp(real, "tcp://0.0.0.0:", 14) == 0 || strncmp(real, "tcp://[::]:", 11) == 0)
        return pn_fail(err, PN_INVALID, "%s names no machine: others connect to the address that stands here, so it must be one of this machine's", bind);
    enum pn_result r = t->keys != NULL ? pn_zap_open(&t->zap, s, t->context, t->keys, err) : PN_OK;
    if (r != PN_OK) return r;
    t->router = new_socket(t, ZMQ_ROUTER);
    if (t->router != NULL && t->keys != NULL) pn_zap_guard(t->router, t->keys);
    size_t length = strlen(real);
    if (length > 2 && strcmp(real + length - 2, ":0") == 0) strcpy(real + length - 1, "*");
    if (t->router == NULL || zmq_bind(t->router, real) != 0) {
        int code = zmq_errno();
        return pn_fail(err, code == EADDRINUSE ? PN_EXISTS : PN_INVALID, "cannot listen at %s: %s%s", bind, zmq_strerror(code),
                       code == EADDRINUSE ? "; another process has that port, choose another with --bind or stop it" : "");
    }
    size_t n = 60; /* room for a key behind it */
    if (zmq_getsockopt(t->router, ZMQ_LAST_ENDPOINT, t->address, &n) != 0) return pn_fail(err, PN_INVALID, "%s is too long", bind);
    watch(t, t->router, &t->router_poll);
    if (t->keys == NULL) return PN_OK;
    r = pn_zap_test(t->zap, t->address, err);
    n = strlen(t->address);
    t->address[n] = '#';
    sodium_bin2hex(t->address + n + 1, 65, t->keys->own.public_key, 32);
    return r;
}

void pn_transport_close(struct pn_transport *t) {
    for (size_t i = 0; i < t->n_connections; i++) {
        uv_poll_stop(&t->connections[i]->poll);
        zmq_close(t->connections[i]->socket);
    }
    if (t->router != NULL) {
        if (t->address[0] != '\0') uv_poll_stop(&t->router_poll);
        zmq_close(t->router);
    }
    pn_zap_close(t->zap);
    give_context(t->context);
}

void pn_transport_free(struct pn_transport *t) {
    if (t == NULL) return;
    for (size_t i = 0; i < t->n_connections; i++) free(t->connections[i]);
    pn_zap_free(t->zap);
    free(t);
}

const char *pn_transport_address(const struct pn_transport *t) { return t->address; }

/* Where to, and whom to expect there. False: why says it. */
static bool reachable(struct pn_transport *t, const char *address, char plain[128], uint8_t key[32], char why[200]) {
    const bool keyed = pn_key_of_address(address, plain, key);
    const struct pn_key_owner *who = keyed && t->keys != NULL ? pn_keys_find(t->keys, key, pn_now_ms(&t->shell->env)) : NULL;
    if (plain[0] == '\0') snprintf(why, 200, "what stands behind # is no key of 64 hexadecimal digits");
    else if (t->keys == NULL && keyed) snprintf(why, 200, "it is encrypted: start with --keys DIR");
    else if (t->keys == NULL && !loopback(plain)) snprintf(why, 200, "it is not on loopback, and nothing is encrypted without --keys DIR");
    else if (t->keys != NULL && !keyed) snprintf(why, 200, "it does not end in #KEY, so that nobody knows who answers there; its process must have --keys, too");
    else if (t->keys != NULL && who == NULL) snprintf(why, 200, "its key is not in %.100s/authorized", t->keys->dir);
    else if (t->keys != NULL && who->role != PN_KEY_COORDINATOR && who->role != PN_KEY_PS) snprintf(why, 200, "its key is that of %s, a %s, which does not answer", who->name, pn_key_role_names[who->role]);
    return why[0] == '\0';
}

bool pn_transport_sender(const struct pn_transport *t, const char **role, const char **name) {
    if (!t->named) return false;
    *role = pn_key_role_names[t->sender.role];
    *name = t->sender.name;
    return true;
}

pn_peer pn_transport_connect(struct pn_transport *t, const char *address) {
    for (size_t i = 0; i < t->n_connections; i++)
        if (strcmp(t->connections[i]->address, address) == 0) return CONNECTION | (i + 1);
    struct connection *c = NULL;
    char plain[128], why[200] = "";
    uint8_t key[32];
    if (strlen(address) >= sizeof c->address || t->n_connections == MAX_CONNECTIONS || !reachable(t, address, plain, key, why)) {
        pn_log(&t->shell->env, PN_ERROR, "cannot connect to \"%s\": %s", address, why[0] != '\0' ? why : "it is too long, or there are too many connections");
        return 0;
    }
    c = calloc(1, sizeof *c);
    if (c == NULL) return 0;
    c->transport = t;
    c->socket = new_socket(t, ZMQ_DEALER);
    strcpy(c->address, address);
    if (c->socket != NULL && t->keys != NULL) pn_zap_client(c->socket, t->keys, key);
    if (c->socket == NULL || zmq_connect(c->socket, plain) != 0) {
        pn_log(&t->shell->env, PN_ERROR, "cannot connect to %s: %s", address, zmq_strerror(zmq_errno()));
        if (c->socket != NULL) zmq_close(c->socket);
        free(c);
        return 0;
    }
    watch(t, c->socket, &c->poll);
    t->connections[t->n_connections++] = c;
    return CONNECTION | t->n_connections;
}

/* Connections are few and live as long as the process: what is no longer used costs one idle socket. */
void pn_transport_disconnect(struct pn_transport *t, pn_peer p) {
    (void)t;
    (void)p;
}

void pn_transport_send(struct pn_transport *t, pn_peer to, struct pn_msg *m) {
    struct message *x = (struct message *)m;
    void *socket = t->router;
    bool ok = to != 0;
    if (ok && (to & CONNECTION) != 0) {
        size_t i = (size_t)(to & ~CONNECTION);
        ok = i >= 1 && i <= t->n_connections;
        if (ok) socket = t->connections[i - 1]->socket;
    } else if (ok) {
        uint8_t id[5] = {0};
        uint32_t number = (uint32_t)to;
        memcpy(id + 1, &number, 4);
        ok = socket != NULL && zmq_send(socket, id, sizeof id, ZMQ_SNDMORE | ZMQ_DONTWAIT) == (int)sizeof id;
    }
    if (ok) {
        zmq_msg_t z;
        atomic_fetch_add(&x->shared, 1);
        zmq_msg_init_data(&z, m->data, m->n_bytes, zmq_done, x);
        if (zmq_msg_send(&z, socket, ZMQ_DONTWAIT) < 0) zmq_msg_close(&z); /* full or gone: lost, as a message may be */
    }
    pn_msg_unref(m);
}
