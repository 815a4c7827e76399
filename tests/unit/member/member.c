/* A client's member with a coordinator and two servers that the test plays by hand. */
#include "client/member/member.h"
#include "tests/unit/fake_env.h"

enum { COORDINATOR = 1 };
static const char job_text[] = "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data: {external: true}\n  tables: {a: {dim: 2}, b: {dim: 1}}\n"
                               "  model: {name: external}\n  training: {inFlight: 3, consistency: {mode: async}}\n  checkpoint: {ringBytes: 4096}\n";

struct rig { struct fake *f; struct pn_member *m; uint64_t revision; struct json_object *beat; int n_changed; };

static void changed(void *owner) { ((struct rig *)owner)->n_changed++; }

static void rig_open(struct rig *r, bool takes_producer) {
    *r = (struct rig){.f = fake_open()};
    struct pn_member_options o = {.name = "c", .coordinator = "tcp://c", .job = "job-1", .takes_producer = takes_producer};
    r->m = pn_member_open(&r->f->env, &o, changed, r);
    pn_member_core.start(r->m);
    fake_drop_sent(r->f);
}
static void rig_close(struct rig *r) {
    pn_member_close(r->m);
    if (r->beat != NULL) json_object_put(r->beat);
    fake_close(r->f);
}

struct plan { uint64_t generation, incarnation, first_step, committed, cut, term1; bool no_producer, no_job; const char *state; };
static void give(struct rig *r, struct plan p) {
    struct json_object *o = json_object_new_object(), *job = json_object_new_object(), *external = json_object_new_object(), *cut = NULL;
    pn_json_add_u64(o, "beat_ms", 100);
    pn_json_add_str(job, "id", "job-1");
    pn_json_add_u64(job, "generation", p.generation ? p.generation : 1);
    pn_json_add_u64(job, "n_producers", 2);
    pn_json_add_str(job, "text", job_text);
    char text[500];
    snprintf(text, sizeof text, "[{\"address\":\"tcp://a\",\"term\":5},{\"address\":\"tcp://b\",\"term\":%d}]", (int)(p.term1 ? p.term1 : 6));
    pn_json_add(job, "shards", pn_json_parse(text, strlen(text), NULL));
    pn_json_add(job, "slots", pn_json_parse("[0,512]", 7, NULL));
    snprintf(text, sizeof text, "[{\"producer\":1,\"incarnation\":%d,\"first_step\":%d}]", (int)(p.incarnation ? p.incarnation : 1), (int)(p.first_step ? p.first_step : 1));
    pn_json_add(job, "producers", p.no_producer ? json_object_new_array() : pn_json_parse(text, strlen(text), NULL));
    snprintf(text, sizeof text, "{\"epoch\":1,\"steps\":[0,%d]}", (int)p.committed);
    pn_json_add(job, "committed", pn_json_parse(text, strlen(text), NULL));
    if (p.cut != 0) {
        cut = json_object_new_object();
        pn_json_add_u64(cut, "epoch", p.cut);
        pn_json_add_u64(cut, "upto", 0);
    }
    pn_json_add_str(external, "state", p.state != NULL ? p.state : "RUNNING");
    pn_json_add_str(external, "reason", p.state != NULL ? "as the test says" : "");
    pn_json_add(o, "external", external);
    pn_json_add(o, "cut", cut);
    if (p.no_job) json_object_put(job);
    else pn_json_add(o, "job", job);
    struct pn_msg *m = pn_control_write(&r->f->env, PN_PLAN, 1, ++r->revision, o);
    pn_member_core.message(r->m, COORDINATOR, m);
    pn_msg_unref(m);
    json_object_put(o);
}

/* Reads all that was sent: keeps the newest beat; answers pulls (zeros) and pushes when asked to. Returns how many pushes (messages) were out. */
static size_t serve(struct rig *r, bool answer, const char *refusal) {
    size_t n = 0;
    pn_peer to;
    for (struct pn_msg *m; (m = fake_take(r->f, &to)) != NULL; pn_msg_unref(m)) {
        struct pn_frame f;
        ck_assert_int_eq(pn_frame_open(&f, m->data, m->n_bytes, NULL), PN_OK);
        if (f.kind == PN_BEAT) {
            if (r->beat != NULL) json_object_put(r->beat);
            r->beat = pn_control_read(&f, NULL);
        }
        n += f.kind == PN_PUSH;
        if (answer && (f.kind == PN_PUSH || f.kind == PN_PULL)) {
            struct pn_writer w;
            uint8_t *body;
            uint64_t tables[4], counts[4];
            size_t n_tables, n_counts, bytes = 0;
            ck_assert(pn_frame_u64s(&f, "tables", tables, 4, &n_tables) && pn_frame_u64s(&f, "counts", counts, 4, &n_counts));
            for (size_t i = 0; i < n_tables; i++) bytes += pn_pad8(counts[i] * (tables[i] == 0 ? 8 : 4));
            pn_write_start(&w, refusal != NULL ? PN_REFUSAL : f.kind == PN_PUSH ? PN_ACK : PN_ROWS, f.term, f.request);
            if (refusal != NULL) pn_write_str(&w, "code", refusal);
            if (f.kind == PN_PULL) {
                pn_write_u64s(&w, "tables", tables, n_tables);
                pn_write_u64s(&w, "counts", counts, n_counts);
            }
            struct pn_msg *back = pn_write_finish(&w, &r->f->env, f.kind == PN_PULL ? bytes : 0, &body);
            if (f.kind == PN_PULL) memset(body, 0, bytes);
            pn_msg_seal(back);
            pn_member_core.message(r->m, to, back);
            pn_msg_unref(back);
        }
        pn_frame_close(&f);
    }
    return n;
}

struct told { struct pn_member_request r; int n; };
static void tell(struct pn_member_request *r) { ((struct told *)r)->n++; }
static uint64_t keys[2] = {1, 2};
static float rows[4];
static void ask(struct rig *r, struct told *t, enum pn_member_op op) {
    *t = (struct told){.r = {.op = op, .done = tell}};
    if (op <= PN_MEMBER_PUSH) t->r.parts[t->r.n_parts++] = (struct pn_client_part){0, 2, keys, rows, NULL};
    if (pn_mix64(keys[0]) > pn_mix64(keys[1])) {
        uint64_t k = keys[0];
        keys[0] = keys[1];
        keys[1] = k;
    }
    pn_member_start(r->m, &t->r);
}
static struct pn_member_view look(struct rig *r) {
    static struct pn_member_view v;
    pn_member_look(r->m, &v);
    return v;
}
static struct json_object *producer_in_beat(struct rig *r) {
    fake_advance(r->f, 1);
    serve(r, false, NULL);
    return pn_json_at(pn_json_get(r->beat, "producers"), 0);
}

START_TEST(a_client_says_what_it_came_for_and_waits_for_a_whole_map_and_a_producer) {
    struct rig r;
    rig_open(&r, true);
    fake_advance(r.f, 150);
    serve(&r, false, NULL);
    ck_assert_str_eq(pn_json_str(pn_json_get(r.beat, "serves"), "job", ""), "job-1");
    ck_assert_uint_eq(pn_json_u64(pn_json_get(r.beat, "serves"), "producers", 9), 1);
    ck_assert(look(&r).state == PN_MEMBER_WAITING && strstr(look(&r).why, "does not answer") != NULL);
    give(&r, (struct plan){.no_job = true, .state = "PENDING"});
    ck_assert_ptr_nonnull(strstr(look(&r).why, "PENDING"));
    give(&r, (struct plan){.no_producer = true});
    ck_assert(look(&r).state == PN_MEMBER_WAITING && strstr(look(&r).why, "all 2 producers") != NULL);
    give(&r, (struct plan){.first_step = 8, .committed = 7});
    struct pn_member_view v = look(&r);
    ck_assert(v.state == PN_MEMBER_OPEN && v.producer == 1 && v.first_step == 8 && v.started == 7 && v.committed == 7);
    rig_close(&r);
} END_TEST

START_TEST(pushes_go_out_in_order_as_credit_allows_and_one_taken_back_leaves_no_gap) {
    struct rig r;
    struct told t[6];
    rig_open(&r, true);
    give(&r, (struct plan){0});
    for (int i = 0; i < 6; i++) ask(&r, &t[i], PN_MEMBER_PUSH);
    ck_assert(look(&r).started == 3 && look(&r).n_waiting == 3);
    ck_assert(pn_member_take_back(r.m, &t[4].r));   /* in line: no effect */
    ck_assert(!pn_member_take_back(r.m, &t[1].r));  /* out: it will be applied */
    ck_assert_uint_eq(serve(&r, true, NULL), 10);   /* five pushes, two servers */
    for (int i = 0; i < 6; i++) ck_assert_int_eq(t[i].n, i != 1 && i != 4);
    ck_assert(t[3].r.step == 4 && t[5].r.step == 5 && t[5].r.result == PN_OK && look(&r).clock == 5);
    rig_close(&r);
} END_TEST

START_TEST(a_cut_holds_new_pushes_back_until_it_is_over) {
    struct rig r;
    struct told t[2];
    rig_open(&r, true);
    give(&r, (struct plan){0});
    ask(&r, &t[0], PN_MEMBER_PUSH);
    give(&r, (struct plan){.cut = 4});
    ask(&r, &t[1], PN_MEMBER_PUSH);
    producer_in_beat(&r);
    ck_assert(!pn_json_bool(pn_json_get(r.beat, "cut"), "drained", true));
    fake_advance(r.f, 400); /* asked again */
    serve(&r, true, NULL);
    ck_assert(t[0].n == 1 && t[1].n == 0);
    producer_in_beat(&r);
    ck_assert(pn_json_bool(pn_json_get(r.beat, "cut"), "drained", false));
    give(&r, (struct plan){.committed = 1});
    serve(&r, true, NULL);
    ck_assert(t[1].n == 1 && t[1].r.step == 2 && look(&r).committed == 1);
    rig_close(&r);
} END_TEST

START_TEST(a_checkpoint_is_asked_for_and_covers_the_pushes_before_it) {
    struct rig r;
    struct told t[3], cut, end;
    rig_open(&r, true);
    give(&r, (struct plan){0});
    for (int i = 0; i < 3; i++) ask(&r, &t[i], PN_MEMBER_PUSH);
    ask(&r, &cut, PN_MEMBER_CHECKPOINT);
    ck_assert(pn_json_bool(producer_in_beat(&r), "ring_full", false));
    ask(&r, &end, PN_MEMBER_FINISH); /* waits for credit */
    struct told behind;
    ask(&r, &behind, PN_MEMBER_PUSH);
    fake_advance(r.f, 400); /* asked again */
    serve(&r, true, NULL);
    ck_assert(behind.n == 1 && behind.r.result == PN_REFUSED && end.r.step == 4);
    give(&r, (struct plan){.committed = 2});
    ck_assert_int_eq(cut.n, 0);
    give(&r, (struct plan){.committed = 3});
    ck_assert(cut.n == 1 && cut.r.result == PN_OK);
    ask(&r, &t[0], PN_MEMBER_PUSH);
    ck_assert(t[0].n == 1 && t[0].r.result == PN_REFUSED); /* nothing behind the last */
    fake_advance(r.f, 400);
    serve(&r, true, NULL);
    ck_assert(end.n == 0 && pn_json_bool(producer_in_beat(&r), "finished", false));
    give(&r, (struct plan){.committed = 4});
    ck_assert(end.n == 1 && end.r.result == PN_OK && end.r.step == 4);
    rig_close(&r);
} END_TEST

START_TEST(who_loses_its_producer_is_told_and_goes_on_only_after_a_resume) {
    struct rig r;
    struct told out, waiting, late, pull;
    rig_open(&r, true);
    give(&r, (struct plan){0});
    ask(&r, &out, PN_MEMBER_PUSH);
    ask(&r, &pull, PN_MEMBER_PULL);
    give(&r, (struct plan){.cut = 1});
    ask(&r, &waiting, PN_MEMBER_PUSH);
    give(&r, (struct plan){.incarnation = 3, .first_step = 9});
    ck_assert(out.n == 1 && out.r.result == PN_FENCED && waiting.n == 1 && waiting.r.result == PN_FENCED);
    ask(&r, &late, PN_MEMBER_PUSH);
    ck_assert(late.n == 1 && late.r.result == PN_FENCED && look(&r).state == PN_MEMBER_MOVED);
    serve(&r, true, NULL);
    ck_assert(pull.n == 1 && pull.r.result == PN_OK); /* a reader does not mind */
    pn_member_resume(r.m);
    ck_assert(look(&r).state == PN_MEMBER_OPEN && look(&r).first_step == 9);
    ask(&r, &late, PN_MEMBER_PUSH);
    serve(&r, true, NULL);
    ck_assert(late.r.result == PN_OK && late.r.step == 9);
    rig_close(&r);
} END_TEST

START_TEST(a_server_that_fences_takes_the_producer_before_the_plan_does) {
    struct rig r;
    struct told t;
    rig_open(&r, true);
    give(&r, (struct plan){0});
    ask(&r, &t, PN_MEMBER_PUSH);
    serve(&r, true, "fenced");
    ck_assert(t.n == 1 && t.r.result == PN_FENCED && look(&r).state == PN_MEMBER_MOVED && !look(&r).has_producer);
    pn_member_resume(r.m);
    ck_assert(!look(&r).has_producer); /* the old plan does not give it back */
    give(&r, (struct plan){.incarnation = 2, .first_step = 1});
    ck_assert(look(&r).state == PN_MEMBER_OPEN);
    rig_close(&r);
} END_TEST

START_TEST(a_refused_push_stops_those_behind_it_and_the_producer_begins_anew) {
    struct rig r;
    struct told t[2];
    rig_open(&r, true);
    give(&r, (struct plan){0});
    producer_in_beat(&r);
    const uint64_t life = pn_json_u64(r.beat, "incarnation", 0);
    for (int i = 0; i < 2; i++) ask(&r, &t[i], PN_MEMBER_PUSH);
    serve(&r, true, "invalid");
    ck_assert(t[0].r.result == PN_INVALID && t[1].r.result == PN_FENCED && look(&r).state == PN_MEMBER_MOVED);
    producer_in_beat(&r);
    ck_assert_uint_ne(pn_json_u64(r.beat, "incarnation", 0), life);
    rig_close(&r);
} END_TEST

START_TEST(a_new_generation_asks_pulls_again_and_ends_pushes) {
    struct rig r;
    struct told push, pull;
    rig_open(&r, true);
    give(&r, (struct plan){0});
    ask(&r, &push, PN_MEMBER_PUSH);
    ask(&r, &pull, PN_MEMBER_PULL);
    serve(&r, false, NULL);
    give(&r, (struct plan){.generation = 2, .incarnation = 2, .first_step = 1, .term1 = 9});
    ck_assert(push.r.result == PN_FENCED && pull.n == 0);
    serve(&r, true, NULL);
    ck_assert(pull.n == 1 && pull.r.result == PN_OK);
    pn_member_resume(r.m);
    ck_assert(look(&r).state == PN_MEMBER_OPEN && look(&r).generation == 2);
    rig_close(&r);
} END_TEST

START_TEST(a_job_that_ends_answers_all_that_is_open) {
    static const struct { const char *state; enum pn_result commit; } cases[] = {{"CANCELLED", PN_REFUSED}, {"SUCCEEDED", PN_OK}};
    for (int i = 0; i < 2; i++) {
        struct rig r;
        struct told push, pull, cut, late;
        rig_open(&r, true);
        give(&r, (struct plan){0});
        ask(&r, &push, PN_MEMBER_PUSH);
        ask(&r, &pull, PN_MEMBER_PULL);
        ask(&r, &cut, PN_MEMBER_CHECKPOINT);
        give(&r, (struct plan){.no_job = true, .state = cases[i].state});
        ck_assert(push.r.result == PN_REFUSED && pull.r.result == PN_REFUSED && cut.n == 1 && cut.r.result == cases[i].commit);
        ck_assert(strstr(push.r.error.text, cases[i].state) != NULL && look(&r).state == PN_MEMBER_ENDED);
        ask(&r, &late, PN_MEMBER_PULL);
        ck_assert(late.n == 1 && late.r.result == PN_REFUSED);
        rig_close(&r);
    }
} END_TEST

START_TEST(a_full_ring_asks_for_a_checkpoint_and_waits_for_it) {
    struct rig r;
    rig_open(&r, true);
    give(&r, (struct plan){0});
    static struct told t[40];
    for (int i = 0; i < 40; i++) {
        ask(&r, &t[i], PN_MEMBER_PUSH);
        serve(&r, true, NULL);
    }
    struct pn_member_view v = look(&r);
    ck_assert(v.started < 40 && v.n_waiting == 40 - v.started);
    ck_assert(pn_json_bool(producer_in_beat(&r), "ring_full", false));
    give(&r, (struct plan){.committed = v.started});
    serve(&r, true, NULL);
    ck_assert_uint_gt(look(&r).started, v.started);
    rig_close(&r);
} END_TEST

START_TEST(a_reader_takes_no_producer_and_pushes_nothing) {
    struct rig r;
    struct told t;
    rig_open(&r, false);
    give(&r, (struct plan){.no_producer = true});
    ck_assert_int_eq(look(&r).state, PN_MEMBER_OPEN);
    ask(&r, &t, PN_MEMBER_PUSH);
    ck_assert(t.n == 1 && t.r.result == PN_INVALID);
    ask(&r, &t, PN_MEMBER_PULL);
    serve(&r, true, NULL);
    ck_assert(t.n == 1 && t.r.result == PN_OK);
    rig_close(&r);
} END_TEST

int main(void) {
    TCase *c = tcase_create("member");
    tcase_add_test(c, a_client_says_what_it_came_for_and_waits_for_a_whole_map_and_a_producer);
    tcase_add_test(c, pushes_go_out_in_order_as_credit_allows_and_one_taken_back_leaves_no_gap);
    tcase_add_test(c, a_cut_holds_new_pushes_back_until_it_is_over);
    tcase_add_test(c, a_checkpoint_is_asked_for_and_covers_the_pushes_before_it);
    tcase_add_test(c, who_loses_its_producer_is_told_and_goes_on_only_after_a_resume);
    tcase_add_test(c, a_server_that_fences_takes_the_producer_before_the_plan_does);
    tcase_add_test(c, a_refused_push_stops_those_behind_it_and_the_producer_begins_anew);
    tcase_add_test(c, a_new_generation_asks_pulls_again_and_ends_pushes);
    tcase_add_test(c, a_job_that_ends_answers_all_that_is_open);
    tcase_add_test(c, a_full_ring_asks_for_a_checkpoint_and_waits_for_it);
    tcase_add_test(c, a_reader_takes_no_producer_and_pushes_nothing);
    return fake_suite("member", c);
}
