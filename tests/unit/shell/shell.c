#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "common/shell/http.h"
#include "common/shell/shell.h"
#include "common/shell/store_sqlite.h"
#include "common/wire.h"

/* A core that talks to itself over TCP, works, writes and times at once. */
#define ROUNDS 500u
struct self {
    struct pn_shell *shell;
    struct pn_env *env;
    pn_peer peer;
    unsigned answered, worked, wrote, fired;
    uint64_t sums[ROUNDS];
    struct job { struct pn_work work; uint64_t input, output; } jobs[ROUNDS];
    struct pn_io io[4];
    int step;
    char path[200], text[64];
    struct pn_timer timer, guard, at_once;
    bool timed_out;
};

static void maybe_done(struct self *s) {
    if (s->answered >= ROUNDS && s->worked >= ROUNDS && s->wrote == 4 && s->fired >= 20) pn_shell_stop(s->shell);
}

static struct pn_msg *frame(struct pn_env *env, enum pn_kind kind, uint64_t request, size_t n) {
    struct pn_writer w;
    uint8_t *body;
    pn_write_start(&w, kind, 1, request);
    struct pn_msg *m = pn_write_finish(&w, env, n, &body);
    memset(body, (int)request & 255, n);
    pn_msg_seal(m);
    return m;
}

static void send_one(struct self *s, uint64_t i) { pn_send(s->env, s->peer, frame(s->env, PN_PULL, i, i % 7 == 0 ? 200000 : 24)); }

static void on_message(void *core, pn_peer from, struct pn_msg *m) {
    struct self *s = core;
    struct pn_frame f;
    ck_assert_uint_eq((uintptr_t)m->data % 8, 0);
    ck_assert_int_eq(pn_frame_open(&f, m->data, m->n_bytes, NULL), PN_OK);
    if (f.kind == PN_PULL) pn_send(s->env, from, frame(s->env, PN_ROWS, f.request, 16));
    else if (f.request == s->answered) {
        s->answered++;
        if (s->answered < ROUNDS) send_one(s, s->answered);
    }
    pn_frame_close(&f);
    maybe_done(s);
}

static void run_job(struct pn_work *w) {
    struct job *j = w->owner;
    for (uint64_t i = 0; i < 1000; i++) j->output += j->input * i;
}
static struct self *the_self;
static void job_done(struct pn_work *w) {
    struct job *j = w->owner;
    ck_assert_uint_eq(j->output, j->input * 499500);
    the_self->worked++;
    maybe_done(the_self);
}

static void io_done(struct pn_io *io) {
    struct self *s = io->owner;
    ck_assert_int_ge(io->result, 0);
    ck_assert_ptr_eq(io, &s->io[s->wrote]); /* one path: in the order given */
    s->wrote++;
    if (s->wrote == 4) ck_assert_str_eq(s->text, "written");
    maybe_done(s);
}

static void fire(struct pn_timer *t) {
    struct self *s = t->owner;
    s->fired++;
    if (s->answered == 0) send_one(s, 0); /* until the connection stands */
    pn_timer_start(s->env, t, 5);
    maybe_done(s);
}
/* Due again at once, as long as answers are missing: it must not keep the loop from its sockets. */
static void fire_at_once(struct pn_timer *t) {
    struct self *s = t->owner;
    if (s->answered < ROUNDS) pn_timer_start(s->env, t, 0);
}
static void give_up(struct pn_timer *t) {
    struct self *s = t->owner;
    s->timed_out = true;
    pn_shell_stop(s->shell);
}

static void start(void *core) {
    struct self *s = core;
    s->peer = s->env->ops->connect(s->env, pn_shell_address(s->shell));
    ck_assert_uint_ne(s->peer, 0);
    ck_assert_uint_eq(s->env->ops->connect(s->env, pn_shell_address(s->shell)), s->peer);
    ck_assert_uint_eq(s->env->ops->connect(s->env, "tcp://192.0.2.1:1"), 0); /* not loopback */
    for (uint64_t i = 0; i < ROUNDS; i++) {
        s->jobs[i] = (struct job){.input = i, .work = {.run = run_job, .done = job_done}};
        s->jobs[i].work.owner = &s->jobs[i];
        pn_work_start(s->env, &s->jobs[i].work);
    }
    static char data[] = "written";
    s->io[0] = (struct pn_io){.op = PN_IO_CREATE, .path = s->path};
    s->io[1] = (struct pn_io){.op = PN_IO_WRITE, .path = s->path, .buffer = data, .n_bytes = sizeof data};
    s->io[2] = (struct pn_io){.op = PN_IO_SYNC, .path = s->path};
    s->io[3] = (struct pn_io){.op = PN_IO_READ, .path = s->path, .buffer = s->text, .n_bytes = sizeof s->text};
    for (int i = 0; i < 4; i++) {
        s->io[i].done = io_done;
        s->io[i].owner = s;
        pn_io_start(s->env, &s->io[i]);
    }
    s->timer = (struct pn_timer){.fire = fire, .owner = s};
    s->guard = (struct pn_timer){.fire = give_up, .owner = s};
    pn_timer_start(s->env, &s->guard, 40000);
    pn_timer_start(s->env, &s->timer, 1);
    s->at_once = (struct pn_timer){.fire = fire_at_once, .owner = s};
    pn_timer_start(s->env, &s->at_once, 0);
}

static const struct pn_core_ops ops = {.start = start, .message = on_message};

START_TEST(messages_work_files_and_timers_all_come_back_on_the_cores_thread) {
    static struct self s;
    struct pn_error err;
    the_self = &s;
    ck_assert_int_eq(pn_shell_open(&s.shell, "test", "tcp://127.0.0.1:0", NULL, PN_ERROR, &err), PN_OK);
    s.env = pn_shell_env(s.shell);
    snprintf(s.path, sizeof s.path, "/tmp/pinion-shell-test-%d", (int)getpid());
    pn_shell_run(s.shell, &ops, &s);
    ck_assert(!s.timed_out);
    unlink(s.path);
    pn_shell_close(s.shell);
} END_TEST

START_TEST(an_address_in_use_and_one_that_is_not_loopback_are_refused_with_a_line) {
    struct pn_shell *a = NULL, *b = NULL;
    struct pn_error err;
    ck_assert_int_eq(pn_shell_open(&a, "a", "tcp://127.0.0.1:0", NULL, PN_ERROR, &err), PN_OK);
    ck_assert_int_eq(pn_shell_open(&b, "b", pn_shell_address(a), NULL, PN_ERROR, &err), PN_EXISTS);
    ck_assert_ptr_nonnull(strstr(err.text, pn_shell_address(a)));
    ck_assert_int_eq(pn_shell_open(&b, "b", "tcp://0.0.0.0:0", NULL, PN_ERROR, &err), PN_REFUSED);
    pn_shell_close(a);
} END_TEST

START_TEST(a_store_keeps_what_was_committed_and_nothing_else_and_lets_one_in) {
    char dir[64] = "/tmp/pinion-store-XXXXXX";
    struct pn_store *s, *other;
    struct pn_error err;
    ck_assert_ptr_nonnull(mkdtemp(dir));
    ck_assert_int_eq(pn_store_sqlite_open(&s, dir, &err), PN_OK);
    ck_assert_int_eq(pn_store_sqlite_open(&other, dir, &err), PN_REFUSED);
    ck_assert_int_eq(s->ops->begin(s, &err), PN_OK);
    ck_assert_int_eq(s->ops->put(s, "job", "a", "{}", &err), PN_OK);
    ck_assert_int_eq(s->ops->commit(s, &err), PN_OK);
    ck_assert_int_eq(s->ops->begin(s, &err), PN_OK);
    ck_assert_int_eq(s->ops->put(s, "job", "b", "{}", &err), PN_OK);
    pn_store_sqlite_close(s); /* in the middle of a transaction */
    ck_assert_int_eq(pn_store_sqlite_open(&s, dir, &err), PN_OK);
    ck_assert_int_eq(s->ops->begin(s, &err), PN_OK);
    ck_assert_int_eq(s->ops->remove(s, "job", "b", &err), PN_OK);
    ck_assert_int_eq(s->ops->commit(s, &err), PN_OK);
    pn_store_sqlite_close(s);
    char command[100];
    snprintf(command, sizeof command, "rm -r %s", dir);
    ck_assert_int_eq(system(command), 0);
} END_TEST

int main(void) {
    Suite *s = suite_create("shell");
    TCase *t = tcase_create("shell");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, messages_work_files_and_timers_all_come_back_on_the_cores_thread);
    tcase_add_test(t, an_address_in_use_and_one_that_is_not_loopback_are_refused_with_a_line);
    tcase_add_test(t, a_store_keeps_what_was_committed_and_nothing_else_and_lets_one_in);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_set_fork_status(r, CK_NOFORK); /* threads and a sanitizer do not like forks */
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
