/* Encrypted sockets: whoever is authorized is heard, by name; strangers, plain sockets, nodes whose key was taken away and messages that a role may not send are not. */
#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>
#include "common/shell/keys.h"
#include "common/shell/shell.h"
#include "common/wire.h"

static char dir[64], other[64];
static void folders(void) {
    snprintf(dir, sizeof dir, "/tmp/pinion-keys-XXXXXX");
    snprintf(other, sizeof other, "/tmp/pinion-keys-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    ck_assert_ptr_nonnull(mkdtemp(other));
}
static void no_folders(void) {
    char command[200];
    snprintf(command, sizeof command, "rm -rf %s %s", dir, other);
    ck_assert_int_eq(system(command), 0);
}
static void make(const char *where, const char *name, enum pn_key_role role) {
    struct pn_error err = {""};
    ck_assert_msg(pn_keys_make(where, name, role, &err) == PN_OK, "%s", err.text);
}
static struct pn_keys *load(const char *where, const char *name) {
    struct pn_keys *k = NULL;
    struct pn_error err = {""};
    ck_assert_msg(pn_keys_open(&k, where, name, &err) == PN_OK, "%s", err.text);
    return k;
}
static void write_file(const char *path, const char *text) {
    FILE *f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    fputs(text, f);
    fclose(f);
}
static void copy(const char *name, const char *from, const char *to) { /* a .pub file to another machine */
    char command[400];
    snprintf(command, sizeof command, "mkdir -p %s/authorized && cp %s/authorized/%s.pub %s/authorized/", to, from, name, to);
    ck_assert_int_eq(system(command), 0);
}

START_TEST(a_pair_is_made_once_and_read_back) {
    struct pn_error err;
    struct stat st;
    char path[120];
    make(dir, "ps-0", PN_KEY_PS);
    struct pn_keys *k = load(dir, "ps-0");
    ck_assert_int_eq(k->own.role, PN_KEY_PS);
    ck_assert_str_eq(k->own.name, "ps-0");
    const struct pn_key_owner *who = pn_keys_find(k, k->own.public_key, 1);
    ck_assert_ptr_nonnull(who);
    ck_assert(who->role == PN_KEY_PS && strcmp(who->name, "ps-0") == 0);
    ck_assert_int_eq(pn_keys_make(dir, "ps-0", PN_KEY_PS, &err), PN_EXISTS);
    struct pn_keys *again = load(dir, "ps-0");
    ck_assert_mem_eq(again->own.public_key, k->own.public_key, 32);
    ck_assert_mem_eq(again->secret, k->secret, 32);
    pn_keys_close(again);
    pn_keys_close(k);
    snprintf(path, sizeof path, "%s/ps-0.key", dir);
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_uint_eq(st.st_mode & 0777, 0600);
    static const char *const bad[] = {"", ".hidden", "a/b", "a b", "a#b", "a\"b"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) ck_assert_int_eq(pn_keys_make(dir, bad[i], PN_KEY_PS, &err), PN_INVALID);
} END_TEST

START_TEST(a_key_s_file_that_cannot_be_trusted_is_refused_by_one_line) {
    struct pn_keys *k = NULL;
    struct pn_error err;
    char path[120], to[120];
    ck_assert_int_eq(pn_keys_open(&k, dir, "worker-0", &err), PN_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(err.text, "pinion keygen"));
    make(dir, "worker-0", PN_KEY_WORKER);
    snprintf(path, sizeof path, "%s/worker-0.key", dir);
    chmod(path, 0640);
    ck_assert_int_eq(pn_keys_open(&k, dir, "worker-0", &err), PN_REFUSED);
    chmod(path, 0600);
    snprintf(to, sizeof to, "%s/worker-1.key", dir);
    ck_assert_int_eq(link(path, to), 0); /* copied under another name */
    ck_assert_int_eq(pn_keys_open(&k, dir, "worker-1", &err), PN_REFUSED);
    ck_assert_ptr_nonnull(strstr(err.text, "is the key of worker-0"));
    unlink(to);
    static const char *const texts[] = {"", "x", "pinion-secret-1 worker worker-0 00\n", "pinion-public-1 worker worker-0 0000000000000000000000000000000000000000000000000000000000000000\n",
                                        "pinion-secret-1 king worker-0 0000000000000000000000000000000000000000000000000000000000000000\n",
                                        "pinion-secret-1 worker worker-0 000000000000000000000000000000000000000000000000000000000000000z\n",
                                        "pinion-secret-1 worker worker-0 0000000000000000000000000000000000000000000000000000000000000000"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        write_file(path, texts[i]);
        ck_assert_msg(pn_keys_open(&k, dir, "worker-0", &err) == PN_CORRUPT, "%zu: %s", i, err.text);
        ck_assert_ptr_null(strchr(err.text, '\n'));
    }
} END_TEST

START_TEST(who_is_authorized_follows_the_folder_within_a_second) {
    char path[140];
    uint8_t nobody[32] = {7};
    make(dir, "coordinator", PN_KEY_COORDINATOR);
    struct pn_keys *k = load(dir, "coordinator");
    ck_assert_ptr_null(pn_keys_find(k, nobody, 1));
    for (int i = 0; i < 50; i++) {
        char name[20];
        snprintf(name, sizeof name, "worker-%d", i);
        make(other, name, PN_KEY_WORKER);
        copy(name, other, dir);
    }
    struct pn_keys *w = load(other, "worker-37");
    ck_assert_ptr_null(pn_keys_find(k, w->own.public_key, 900)); /* looked at less than a second ago */
    const struct pn_key_owner *who = pn_keys_find(k, w->own.public_key, 1100);
    ck_assert_ptr_nonnull(who);
    ck_assert_str_eq(who->name, "worker-37");
    snprintf(path, sizeof path, "%s/authorized/worker-37.pub", dir);
    unlink(path);
    snprintf(path, sizeof path, "%s/authorized/rubbish.pub", dir);
    write_file(path, "pinion-public-1 worker");
    ck_assert_ptr_null(pn_keys_find(k, w->own.public_key, 2200));
    ck_assert_uint_eq(k->n_authorized, 50); /* coordinator and 49 workers */
    snprintf(path, sizeof path, "rm -r %s/authorized", dir);
    ck_assert_int_eq(system(path), 0);
    ck_assert_ptr_null(pn_keys_find(k, k->own.public_key, 3300)); /* without the folder nobody is */
    pn_keys_close(w);
    pn_keys_close(k);
} END_TEST

START_TEST(what_a_role_may_send_is_this_table) {
    static const struct { unsigned kind; bool worker, ps, serving; } table[] = {
        {PN_BEAT, true, true, true}, {PN_PLAN, false, false, false}, {PN_PULL, true, false, false}, {PN_ROWS, false, false, false}, {PN_PUSH, true, false, false},
        {PN_SEED, true, false, false}, {PN_ACK, false, false, false}, {PN_REFUSAL, false, false, false}, {PN_CHANGES, true, false, false}, {40, true, true, false}, {55, true, true, false}, {39, false, false, false}, {56, false, false, false}, {0, false, false, false}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        ck_assert_uint_eq(pn_key_may_send(PN_KEY_WORKER, table[i].kind), table[i].worker);
        ck_assert_uint_eq(pn_key_may_send(PN_KEY_PS, table[i].kind), table[i].ps);
        ck_assert_uint_eq(pn_key_may_send(PN_KEY_SERVING, table[i].kind), table[i].serving);
        ck_assert(!pn_key_may_send(PN_KEY_COORDINATOR, table[i].kind));
    }
} END_TEST

START_TEST(an_address_is_split_at_its_key) {
    char plain[128];
    uint8_t key[32];
    ck_assert(!pn_key_of_address("tcp://127.0.0.1:1", plain, key));
    ck_assert_str_eq(plain, "tcp://127.0.0.1:1");
    ck_assert(pn_key_of_address("tcp://127.0.0.1:1#00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff", plain, key));
    ck_assert_str_eq(plain, "tcp://127.0.0.1:1");
    ck_assert(key[0] == 0 && key[31] == 0xff);
    static const char *const bad[] = {"tcp://127.0.0.1:1#", "tcp://127.0.0.1:1#00", "tcp://127.0.0.1:1#00112233445566778899aabbccddeeff00112233445566778899aabbccddeefg",
                                      "tcp://127.0.0.1:1#00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff0"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ck_assert(!pn_key_of_address(bad[i], plain, key));
        ck_assert_str_eq(plain, "");
    }
} END_TEST

/* ---- two shells: one listens, one asks ---- */
struct listener {
    struct pn_shell *shell;
    struct pn_timer timer;
    unsigned heard, ticks;
    char role[16], name[64];
};
struct asker {
    struct pn_shell *shell;
    struct pn_env *env;
    char address[128];
    enum pn_kind kind;
    pn_peer peer;
    atomic_uint answered; /* the listener looks at it */
    struct pn_timer timer;
};
static struct listener L;
static struct asker A;
static unsigned for_ticks;          /* 10 ms each, of the listener */
static bool until_answered;         /* no longer than it takes */
static atomic_bool over;            /* the listener has stopped */
enum { TICKS = 3000, OFTEN = 5 };
static void (*at_tick)(unsigned);

static struct pn_msg *frame(struct pn_env *env, enum pn_kind kind) {
    struct pn_writer w;
    uint8_t *body;
    pn_write_start(&w, kind, 1, 1);
    struct pn_msg *m = pn_write_finish(&w, env, 8, &body);
    memset(body, 0, 8);
    pn_msg_seal(m);
    return m;
}
static void hear(void *core, pn_peer from, struct pn_msg *m) {
    struct listener *l = core;
    const char *role = "", *name = "";
    struct pn_env *env = pn_shell_env(l->shell);
    l->heard++;
    ck_assert_uint_eq(m->data[5], A.kind);
    if (env->ops->sender(env, &role, &name)) {
        snprintf(l->role, sizeof l->role, "%s", role);
        snprintf(l->name, sizeof l->name, "%s", name);
    }
    pn_send(env, from, frame(env, PN_ACK));
}
static void answered(void *core, pn_peer from, struct pn_msg *m) {
    struct asker *a = core;
    const char *role, *name;
    ck_assert_uint_eq(from, a->peer);
    ck_assert_uint_eq(m->data[5], PN_ACK);
    ck_assert(!a->env->ops->sender(a->env, &role, &name)); /* an answer comes from whom the address named */
    a->answered++;
}
static void ask(struct pn_timer *t) {
    struct asker *a = t->owner;
    if (a->peer != 0) pn_send(a->env, a->peer, frame(a->env, a->kind));
    if (over) pn_shell_stop(a->shell);
    else pn_timer_start(a->env, t, 10);
}
static void tick(struct pn_timer *t) {
    struct listener *l = t->owner;
    if (at_tick != NULL) at_tick(l->ticks);
    if (++l->ticks >= for_ticks || (until_answered && l->heard > OFTEN && A.answered > OFTEN)) pn_shell_stop(l->shell);
    else pn_timer_start(pn_shell_env(l->shell), t, 10);
}
static void listen_start(void *core) {
    struct listener *l = core;
    l->timer = (struct pn_timer){.fire = tick, .owner = l};
    pn_timer_start(pn_shell_env(l->shell), &l->timer, 10);
}
static void ask_start(void *core) {
    struct asker *a = core;
    a->peer = a->env->ops->connect(a->env, a->address);
    a->timer = (struct pn_timer){.fire = ask, .owner = a};
    pn_timer_start(a->env, &a->timer, 10);
}
static const struct pn_core_ops listens = {.start = listen_start, .message = hear}, asks = {.start = ask_start, .message = answered};
static void *run_asker(void *unused) {
    (void)unused;
    pn_shell_run(A.shell, &asks, &A);
    pn_shell_close(A.shell);
    return NULL;
}
static void *plain_asker(void *unused) { /* no pinion at all: a socket of libzmq without keys */
    (void)unused;
    void *context = zmq_ctx_new(), *s = zmq_socket(context, ZMQ_DEALER);
    int zero = 0;
    char plain[128];
    uint8_t key[32];
    pn_key_of_address(A.address, plain, key);
    zmq_setsockopt(s, ZMQ_LINGER, &zero, sizeof zero);
    zmq_connect(s, plain);
    while (!over) {
        zmq_send(s, "01234567890123456789012345678901", 32, ZMQ_DONTWAIT);
        usleep(10000);
    }
    zmq_close(s);
    zmq_ctx_term(context);
    return NULL;
}
/* The listener has the key "ps-0" of `dir`; the asker that of asker_dir (NULL: no pinion). ticks 0: until it was answered often enough. */
static void talk(const char *asker_dir, const char *asker, enum pn_kind kind, unsigned ticks, void (*each_tick)(unsigned)) {
    struct pn_error err = {""};
    pthread_t thread;
    L = (struct listener){0};
    A = (struct asker){.kind = kind};
    for_ticks = ticks > 0 ? ticks : TICKS;
    until_answered = ticks == 0;
    over = false;
    at_tick = each_tick;
    ck_assert_msg(pn_shell_open(&L.shell, "ps-0", "tcp://127.0.0.1:0", load(dir, "ps-0"), PN_ERROR, &err) == PN_OK, "%s", err.text);
    snprintf(A.address, sizeof A.address, "%s", pn_shell_address(L.shell));
    ck_assert_uint_eq(strlen(strchr(A.address, '#')), 65);
    if (asker_dir != NULL) {
        ck_assert_int_eq(pn_shell_open_embedded(&A.shell, asker, load(asker_dir, asker), NULL, NULL, &err), PN_OK);
        A.env = pn_shell_env(A.shell);
    }
    pthread_create(&thread, NULL, asker_dir != NULL ? run_asker : plain_asker, NULL);
    pn_shell_run(L.shell, &listens, &L);
    over = true;
    pthread_join(thread, NULL);
    pn_shell_close(L.shell);
}

START_TEST(whoever_is_authorized_is_heard_and_answered_by_name) {
    make(dir, "ps-0", PN_KEY_PS);
    make(dir, "worker-3", PN_KEY_WORKER);
    talk(dir, "worker-3", PN_PUSH, 0, NULL);
    ck_assert_uint_gt(L.heard, OFTEN);
    ck_assert_uint_gt(A.answered, OFTEN);
    ck_assert_str_eq(L.role, "worker");
    ck_assert_str_eq(L.name, "worker-3");
} END_TEST

START_TEST(strangers_and_plain_sockets_are_not_heard) {
    make(dir, "ps-0", PN_KEY_PS);
    make(other, "worker-3", PN_KEY_WORKER);
    copy("ps-0", dir, other); /* it knows the server, the server does not know it */
    talk(other, "worker-3", PN_PUSH, 50, NULL);
    ck_assert(A.peer != 0 && L.heard == 0 && A.answered == 0);
    talk(NULL, NULL, PN_PUSH, 50, NULL);
    ck_assert_uint_eq(L.heard, 0);
} END_TEST

START_TEST(nobody_connects_to_a_server_whose_key_it_does_not_know) {
    make(dir, "ps-0", PN_KEY_PS);
    make(other, "worker-3", PN_KEY_WORKER);
    copy("worker-3", other, dir); /* the server would let it in; it does not know the server */
    talk(other, "worker-3", PN_PUSH, 20, NULL);
    ck_assert(A.peer == 0 && L.heard == 0);
} END_TEST

START_TEST(a_role_that_may_not_push_is_not_heard) {
    make(dir, "ps-0", PN_KEY_PS);
    make(dir, "serving-0", PN_KEY_SERVING);
    talk(dir, "serving-0", PN_PUSH, 50, NULL);
    ck_assert_uint_eq(L.heard, 0);
    talk(dir, "serving-0", PN_BEAT, 0, NULL);
    ck_assert_uint_gt(L.heard, OFTEN);
} END_TEST

static unsigned heard_then, taken;
static void take_away(unsigned n) {
    char path[120];
    snprintf(path, sizeof path, "%s/authorized/worker-3.pub", dir);
    if (taken == 0 && L.heard > OFTEN) {
        unlink(path);
        taken = n;
        for_ticks = n + 180;
    }
    if (taken > 0 && n == taken + 130) heard_then = L.heard;
}
START_TEST(a_node_whose_key_is_taken_away_is_shut_out_though_it_is_connected) {
    make(dir, "ps-0", PN_KEY_PS);
    make(dir, "worker-3", PN_KEY_WORKER);
    talk(dir, "worker-3", PN_PUSH, TICKS, take_away);
    ck_assert_uint_gt(heard_then, OFTEN);
    ck_assert_uint_eq(L.heard, heard_then); /* a second after, and from then on */
} END_TEST

START_TEST(what_cannot_be_encrypted_is_not_opened) {
    struct pn_shell *s = NULL;
    struct pn_error err;
    make(dir, "ps-0", PN_KEY_PS);
    ck_assert_int_eq(pn_shell_open(&s, "a", "tcp://0.0.0.0:0", load(dir, "ps-0"), PN_ERROR, &err), PN_INVALID); /* nobody could connect to that */
    ck_assert_int_eq(pn_shell_open(&s, "a", "tcp://*:0", NULL, PN_ERROR, &err), PN_REFUSED);
    ck_assert_int_eq(pn_shell_open(&s, "a", "tcp://192.0.2.1:0", NULL, PN_ERROR, &err), PN_REFUSED);
    ck_assert_ptr_nonnull(strstr(err.text, "--keys"));
} END_TEST

int main(void) {
    Suite *suite = suite_create("keys");
    TCase *c = tcase_create("keys");
    tcase_set_timeout(c, 60);
    tcase_add_checked_fixture(c, folders, no_folders);
    tcase_add_test(c, a_pair_is_made_once_and_read_back);
    tcase_add_test(c, a_key_s_file_that_cannot_be_trusted_is_refused_by_one_line);
    tcase_add_test(c, who_is_authorized_follows_the_folder_within_a_second);
    tcase_add_test(c, what_a_role_may_send_is_this_table);
    tcase_add_test(c, an_address_is_split_at_its_key);
    tcase_add_test(c, whoever_is_authorized_is_heard_and_answered_by_name);
    tcase_add_test(c, strangers_and_plain_sockets_are_not_heard);
    tcase_add_test(c, nobody_connects_to_a_server_whose_key_it_does_not_know);
    tcase_add_test(c, a_role_that_may_not_push_is_not_heard);
    tcase_add_test(c, a_node_whose_key_is_taken_away_is_shut_out_though_it_is_connected);
    tcase_add_test(c, what_cannot_be_encrypted_is_not_opened);
    suite_add_tcase(suite, c);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
