#include "common/shell/zap.h"
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#define ENFORCE_DOMAIN 93 /* ZMQ_ZAP_ENFORCE_DOMAIN, which Debian's zmq.h keeps among the drafts; the library has it */

struct pn_zap {
    struct pn_shell *shell;
    void *context, *socket;
    struct pn_keys *keys;
    uv_poll_t poll;
    uint8_t stranger[32]; /* the key of the test */
};

static uint64_t now_ms(struct pn_zap *z) { return pn_now_ms(&z->shell->env); }

/* ---- the handler ---- */
/* The next part of a question; -1: there is none. */
static int part(void *socket, void *to, size_t room) {
    int more = 0;
    size_t n = sizeof more;
    zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &n);
    return more ? zmq_recv(socket, to, room, ZMQ_DONTWAIT) : -1;
}

/* version, request, domain, address, routing id, mechanism, the key. A stranger is told to come again (300): told to go (400), libzmq's client never tries again, and would need a restart
 * once its .pub file is there. */
static bool answer(struct pn_zap *z) {
    char version[8], request[256], skipped[256], mechanism[16];
    uint8_t key[64];
    const int n_version = zmq_recv(z->socket, version, sizeof version, ZMQ_DONTWAIT);
    if (n_version < 0) return false;
    const int n_request = part(z->socket, request, sizeof request);
    for (int i = 0; i < 3; i++) part(z->socket, skipped, sizeof skipped);
    const int n_mechanism = part(z->socket, mechanism, sizeof mechanism), n_key = part(z->socket, key, sizeof key);
    while (part(z->socket, skipped, sizeof skipped) >= 0) {}
    const bool sound = n_version == 3 && memcmp(version, "1.0", 3) == 0 && n_request >= 0 && n_request <= (int)sizeof request && n_mechanism == 5 && memcmp(mechanism, "CURVE", 5) == 0 && n_key == 32;
    const struct pn_key_owner *who = sound ? pn_keys_find(z->keys, key, now_ms(z)) : NULL;
    char user[65] = "";
    if (who != NULL) sodium_bin2hex(user, sizeof user, key, 32);
    zmq_send(z->socket, "1.0", 3, ZMQ_SNDMORE);
    zmq_send(z->socket, request, n_request > 0 && n_request <= (int)sizeof request ? (size_t)n_request : 0, ZMQ_SNDMORE);
    const bool test = sound && sodium_memcmp(key, z->stranger, 32) == 0;
    zmq_send(z->socket, who != NULL ? "200" : test ? "400" : "300", 3, ZMQ_SNDMORE);
    zmq_send(z->socket, who != NULL ? "OK" : "No access", who != NULL ? 2 : 9, ZMQ_SNDMORE);
    zmq_send(z->socket, user, strlen(user), ZMQ_SNDMORE);
    zmq_send(z->socket, "", 0, 0);
    return true;
}

void pn_zap_drain(struct pn_zap *z) {
    while (z != NULL && answer(z)) {}
}

static void on_readable(uv_poll_t *p, int status, int events) {
    (void)status;
    (void)events;
    pn_zap_drain(p->data);
}

enum pn_result pn_zap_open(struct pn_zap **out, struct pn_shell *s, void *context, struct pn_keys *keys, struct pn_error *err) {
    struct pn_zap *z = calloc(1, sizeof *z);
    if (z == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory");
    *z = (struct pn_zap){.shell = s, .context = context, .keys = keys, .socket = zmq_socket(context, ZMQ_REP)};
    int zero = 0, fd;
    size_t n = sizeof fd;
    if (z->socket != NULL) zmq_setsockopt(z->socket, ZMQ_LINGER, &zero, sizeof zero);
    if (z->socket == NULL || zmq_bind(z->socket, "inproc://zeromq.zap.01") != 0) {
        if (z->socket != NULL) zmq_close(z->socket);
        free(z);
        return pn_fail(err, PN_FAILED, "nobody can be let in: %s", zmq_strerror(zmq_errno()));
    }
    zmq_getsockopt(z->socket, ZMQ_FD, &fd, &n);
    uv_poll_init(&s->loop, &z->poll, fd);
    z->poll.data = z;
    uv_poll_start(&z->poll, UV_READABLE, on_readable);
    *out = z;
    return PN_OK;
}

void pn_zap_close(struct pn_zap *z) {
    if (z == NULL) return;
    uv_poll_stop(&z->poll);
    zmq_close(z->socket);
}
void pn_zap_free(struct pn_zap *z) { free(z); }

/* ---- sockets ---- */
void pn_zap_guard(void *socket, const struct pn_keys *k) {
    int one = 1;
    zmq_setsockopt(socket, ZMQ_CURVE_SERVER, &one, sizeof one);
    zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, k->secret, 32);
    zmq_setsockopt(socket, ZMQ_ZAP_DOMAIN, "pinion", 6);
    zmq_setsockopt(socket, ENFORCE_DOMAIN, &one, sizeof one);
}

static void ask_as(void *socket, const uint8_t public_key[32], const uint8_t secret[32], const uint8_t server_key[32]) {
    zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, server_key, 32);
    zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, public_key, 32);
    zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, secret, 32);
}

void pn_zap_client(void *socket, const struct pn_keys *k, const uint8_t server_key[32]) { ask_as(socket, k->own.public_key, k->secret, server_key); }

const struct pn_key_owner *pn_zap_sender(struct pn_zap *z, void *frame) {
    const char *user = zmq_msg_gets(frame, "User-Id");
    uint8_t key[32];
    size_t n = 0;
    return user != NULL && strlen(user) == 64 && sodium_hex2bin(key, sizeof key, user, 64, NULL, &n, NULL) == 0 ? pn_keys_find(z->keys, key, now_ms(z)) : NULL;
}

/* ---- the test ---- */
static uint16_t event_of(void *monitor) {
    zmq_msg_t m;
    uint16_t event = 0;
    zmq_msg_init(&m);
    if (zmq_msg_recv(&m, monitor, ZMQ_DONTWAIT) >= 2) memcpy(&event, zmq_msg_data(&m), 2);
    const bool more = zmq_msg_more(&m);
    zmq_msg_close(&m);
    zmq_msg_init(&m);
    if (more) zmq_msg_recv(&m, monitor, ZMQ_DONTWAIT); /* the address */
    zmq_msg_close(&m);
    return event;
}

enum pn_result pn_zap_test(struct pn_zap *z, const char *endpoint, struct pn_error *err) {
    static _Atomic unsigned number;
    uint8_t public_key[32], secret[32];
    char name[64];
    int zero = 0, tries = 5000;
    uint16_t event = 0;
    void *stranger = zmq_socket(z->context, ZMQ_DEALER), *monitor = zmq_socket(z->context, ZMQ_PAIR);
    enum pn_result r = PN_DEADLINE;
    snprintf(name, sizeof name, "inproc://stranger-%u", number++);
    crypto_box_keypair(public_key, secret);
    memcpy(z->stranger, public_key, 32);
    if (stranger != NULL && monitor != NULL) {
        zmq_setsockopt(stranger, ZMQ_LINGER, &zero, sizeof zero);
        zmq_setsockopt(monitor, ZMQ_LINGER, &zero, sizeof zero);
        ask_as(stranger, public_key, secret, z->keys->own.public_key);
        zmq_socket_monitor(stranger, name, ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH);
        zmq_connect(monitor, name);
        zmq_connect(stranger, endpoint);
        for (; tries > 0 && event == 0; tries--) {
            zmq_pollitem_t items[] = {{z->socket, 0, ZMQ_POLLIN, 0}, {monitor, 0, ZMQ_POLLIN, 0}};
            zmq_poll(items, 2, 1);
            pn_zap_drain(z);
            event = event_of(monitor);
        }
        r = event == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH ? PN_OK : event != 0 ? PN_REFUSED : PN_DEADLINE;
        zmq_socket_monitor(stranger, NULL, 0);
    }
    if (stranger != NULL) zmq_close(stranger);
    if (monitor != NULL) zmq_close(monitor);
    if (r == PN_OK) return r;
    return pn_fail(err, r, r == PN_REFUSED ? "%s lets in a key that nobody knows: this libzmq does not keep strangers out, so nothing is served" : "%s does not answer a test of who may come in", endpoint);
}
