/* The server's life by plans: what it is told to be, and what its beats say it is. */
#include "common/json.h"
#include "ps/ps.h"
#include "tests/unit/ps/util.h"

struct rig { struct fake *f; struct pn_ps *ps; pn_peer coordinator; };
static void rig_open(struct rig *r) {
    struct pn_ps_options o = {.name = "ps-0", .address = "tcp://me", .http = "", .coordinator = "tcp://boss"};
    r->f = fake_open();
    r->ps = pn_ps_open(&r->f->env, &o);
    r->coordinator = fake_connect(&r->f->env, "tcp://boss");
    pn_ps_core.start(r->ps);
    fake_drop_sent(r->f);
}
static void rig_close(struct rig *r) {
    pn_ps_close(r->ps);
    fake_run(r->f);
    fake_close(r->f);
}
static void hand(struct rig *r, pn_peer from, struct pn_msg *m) {
    pn_ps_core.message(r->ps, from, m);
    pn_msg_unref(m);
}
/* restore, cut: JSON texts. term 0: no job. */
static void plan(struct rig *r, pn_peer from, uint64_t epoch, uint64_t revision, uint64_t term, const char *restore, const char *cut) {
    struct json_object *o = json_object_new_object(), *job = NULL;
    pn_json_add_u64(o, "beat_ms", 100);
    if (term > 0) {
        job = json_object_new_object();
        pn_json_add_str(job, "id", "j");
        pn_json_add_u64(job, "generation", 1);
        pn_json_add_u64(job, "term", term);
        pn_json_add_str(job, "text", audit_job("async"));
        pn_json_add_u64(job, "n_producers", 1);
        pn_json_add_str(job, "owner", "0-1023");
        pn_json_add(job, "restore", restore != NULL ? pn_json_parse(restore, strlen(restore), NULL) : NULL);
    }
    pn_json_add(o, "job", job);
    pn_json_add(o, "cut", cut != NULL ? pn_json_parse(cut, strlen(cut), NULL) : NULL);
    hand(r, from, pn_control_write(&r->f->env, PN_PLAN, epoch, revision, o));
    json_object_put(o);
}
/* The newest beat; others are dropped. */
static struct json_object *beat(struct rig *r) {
    struct json_object *o = NULL;
    for (struct pn_msg *m; (m = fake_take(r->f, NULL)) != NULL; pn_msg_unref(m)) {
        struct pn_frame f;
        ck_assert_int_eq(pn_frame_open(&f, m->data, m->n_bytes, NULL), PN_OK);
        if (f.kind == PN_BEAT) {
            if (o != NULL) json_object_put(o);
            o = pn_control_read(&f, NULL);
        }
        pn_frame_close(&f);
    }
    ck_assert_ptr_nonnull(o);
    return o;
}
static void expect(struct rig *r, const char *part, const char *state, const char *code) {
    struct json_object *o = beat(r), *p = pn_json_get(o, part);
    ck_assert_str_eq(pn_json_str(p, "state", "none"), state);
    if (code != NULL) ck_assert_str_eq(pn_json_str(p, "code", ""), code);
    json_object_put(o);
}
static void push(struct rig *r, uint64_t term, uint64_t step) {
    const uint64_t key = 5;
    float g[8];
    for (int i = 0; i < 8; i++) g[i] = -1;
    struct ask a = PUSH(0, step);
    a.term = term;
    a.n_parts = 1;
    a.parts[0].count = 1;
    a.parts[0].dim = 8;
    a.parts[0].keys = &key;
    a.parts[0].values = g;
    hand(r, PEER, written(r->f, &a));
}

START_TEST(a_plan_opens_the_shard_and_the_beat_says_so_at_once) {
    struct rig r;
    rig_open(&r);
    push(&r, 5, 1);
    EXPECT_REFUSAL(r.f, PN_STALE_TERM);
    plan(&r, r.coordinator, 1, 1, 5, NULL, NULL);
    expect(&r, "job", "open", NULL);
    push(&r, 5, 1);
    EXPECT_ACK(r.f, 1);
    fake_advance(r.f, 350);
    ck_assert_uint_eq(r.f->n_sent, 3); /* and every beat_ms */
    plan(&r, r.coordinator, 1, 2, 0, NULL, NULL);
    expect(&r, "job", "none", NULL);
    rig_close(&r);
} END_TEST

START_TEST(a_plan_that_is_older_or_of_a_stranger_is_ignored) {
    struct rig r;
    rig_open(&r);
    plan(&r, r.coordinator, 2, 5, 5, NULL, NULL);
    fake_drop_sent(r.f);
    plan(&r, r.coordinator, 2, 4, 9, NULL, NULL);
    plan(&r, r.coordinator, 1, 99, 9, NULL, NULL);
    plan(&r, PEER, 3, 1, 9, NULL, NULL);
    ck_assert_uint_eq(r.f->n_sent, 0);
    push(&r, 5, 1);
    EXPECT_ACK(r.f, 1);
    rig_close(&r);
} END_TEST

static void restore_text(char *out, size_t n, const char *digest) {
    snprintf(out, n, "{\"dir\":\"/c/3\",\"epoch\":3,\"files\":[{\"name\":\"ps-0.ps\",\"bytes\":1,\"digest\":\"%s\"}]}", digest);
}
/* Writes the cut 3 with pushes 1..4 inside and returns its digest. */
static void cut3(struct rig *r, char digest[65]) {
    plan(r, r->coordinator, 1, 1, 5, NULL, NULL);
    for (uint64_t s = 1; s <= 4; s++) push(r, 5, s);
    plan(r, r->coordinator, 1, 2, 5, NULL, "{\"epoch\":3,\"dir\":\"/c/3\",\"steps\":[4]}");
    expect(r, "cut", "flipped", NULL);
    push(r, 5, 5); /* behind the cut */
    fake_run(r->f);
    struct json_object *o = beat(r), *cut = pn_json_get(o, "cut"), *file = pn_json_get(cut, "file");
    ck_assert_str_eq(pn_json_str(cut, "state", ""), "written");
    ck_assert_str_eq(pn_json_str(file, "name", ""), "ps-0.ps");
    ck_assert_uint_eq(pn_json_u64(file, "bytes", 0), fake_file(r->f, "/c/3/ps-0.ps", false)->n_bytes);
    snprintf(digest, 65, "%s", pn_json_str(file, "digest", ""));
    json_object_put(o);
}

START_TEST(a_new_term_restores_the_cut_and_knows_its_pushes) {
    struct rig r;
    char digest[65], restore[300];
    rig_open(&r);
    cut3(&r, digest);
    restore_text(restore, sizeof restore, digest);
    plan(&r, r.coordinator, 1, 3, 6, restore, NULL);
    expect(&r, "job", "opening", NULL);
    push(&r, 6, 4);
    EXPECT_REFUSAL(r.f, PN_STALE_TERM); /* not before it is open */
    fake_run(r.f);
    expect(&r, "job", "open", NULL);
    push(&r, 5, 4);
    EXPECT_REFUSAL(r.f, PN_STALE_TERM);
    for (uint64_t s = 3; s <= 5; s++) {
        push(&r, 6, s);
        EXPECT_ACK(r.f, s);
    }
    const uint64_t key = 5;
    struct ask pull = {.kind = PN_PULL, .term = 6, .request = 1, .job = "j", .n_parts = 1};
    pull.parts[0].count = 1;
    pull.parts[0].dim = 8;
    pull.parts[0].keys = &key;
    hand(&r, PEER, written(r.f, &pull));
    ck_assert(answered(r.f).values[0] == 5.0f);
    rig_close(&r);
} END_TEST

START_TEST(a_file_that_is_damaged_or_missing_is_reported_as_corrupt) {
    for (int missing = 0; missing < 2; missing++) {
        struct rig r;
        char digest[65], restore[300];
        rig_open(&r);
        cut3(&r, digest);
        if (missing) fake_file(r.f, "/c/3/ps-0.ps", false)->exists = false;
        else fake_file(r.f, "/c/3/ps-0.ps", false)->data[100] ^= 1;
        restore_text(restore, sizeof restore, digest);
        plan(&r, r.coordinator, 1, 3, 6, restore, NULL);
        fake_run(r.f);
        expect(&r, "job", "failed", "corrupt");
        plan(&r, r.coordinator, 1, 4, 7, NULL, NULL); /* it can be told to begin anew */
        expect(&r, "job", "open", NULL);
        rig_close(&r);
    }
} END_TEST

START_TEST(a_plan_without_the_cut_ends_it_and_the_next_one_is_written) {
    struct rig r;
    rig_open(&r);
    plan(&r, r.coordinator, 1, 1, 5, NULL, NULL);
    push(&r, 5, 1);
    plan(&r, r.coordinator, 1, 2, 5, NULL, "{\"epoch\":3,\"dir\":\"/c/3\",\"steps\":[1]}");
    fake_step(r.f);
    plan(&r, r.coordinator, 1, 3, 5, NULL, NULL);
    expect(&r, "cut", "none", NULL);
    plan(&r, r.coordinator, 1, 4, 5, NULL, "{\"epoch\":4,\"dir\":\"/c/4\",\"steps\":[1]}");
    fake_run(r.f);
    expect(&r, "cut", "written", NULL);
    ck_assert_ptr_null(fake_file(r.f, "/c/3/ps-0.ps", false));
    ck_assert_ptr_null(fake_file(r.f, "/c/3/ps-0.ps.part", false));
    ck_assert_ptr_nonnull(fake_file(r.f, "/c/4/ps-0.ps", false));
    rig_close(&r);
} END_TEST

START_TEST(a_restore_that_another_plan_overtakes_says_nothing) {
    struct rig r;
    char digest[65], restore[300];
    rig_open(&r);
    cut3(&r, digest);
    restore_text(restore, sizeof restore, digest);
    plan(&r, r.coordinator, 1, 3, 6, restore, NULL);
    fake_step(r.f);
    plan(&r, r.coordinator, 1, 4, 7, NULL, NULL);
    fake_run(r.f);
    push(&r, 7, 1);
    struct json_object *o = beat(&r);
    ck_assert_uint_eq(pn_json_u64(pn_json_get(o, "job"), "term", 0), 7);
    ck_assert_str_eq(pn_json_str(pn_json_get(o, "job"), "state", ""), "open");
    json_object_put(o);
    rig_close(&r);
} END_TEST

int main(void) {
    TCase *c = tcase_create("plans");
    tcase_add_test(c, a_plan_opens_the_shard_and_the_beat_says_so_at_once);
    tcase_add_test(c, a_plan_that_is_older_or_of_a_stranger_is_ignored);
    tcase_add_test(c, a_new_term_restores_the_cut_and_knows_its_pushes);
    tcase_add_test(c, a_file_that_is_damaged_or_missing_is_reported_as_corrupt);
    tcase_add_test(c, a_plan_without_the_cut_ends_it_and_the_next_one_is_written);
    tcase_add_test(c, a_restore_that_another_plan_overtakes_says_nothing);
    return fake_suite("plans", c);
}
