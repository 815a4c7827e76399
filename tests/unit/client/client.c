/* The client against shards that the test plays by hand. */
#include "ps/client/client.h"
#include "tests/unit/fake_env.h"

enum { N = 2, SENT_MAX = 512 };

static struct pn_job job_of(enum pn_consistency mode, bool durable) {
    struct pn_job job = {.consistency = mode, .ack_durable = durable, .ring_bytes = 20000, .n_tables = 2, .i_dense_table = 1};
    job.tables[0] = (struct pn_table_spec){.name = "t", .dim = 3};
    job.tables[1] = (struct pn_table_spec){.name = "dense", .dim = 2, .explicit_rows = true};
    return job;
}
static struct pn_shard_map map_of(uint64_t term0, uint64_t term1) {
    struct pn_shard_map map = {.n_shards = N};
    snprintf(map.shards[0].address, 128, "tcp://a");
    snprintf(map.shards[1].address, 128, "tcp://b");
    map.shards[0].term = term0;
    map.shards[1].term = term1;
    for (uint32_t s = 0; s < PN_SLOTS; s++) map.owner[s] = s >= PN_SLOTS / 2;
    return map;
}
struct rig { struct fake *f; struct pn_job job; struct pn_client *c; struct pn_shard_map map; };
static void rig_open(struct rig *r, enum pn_consistency mode, bool durable) {
    *r = (struct rig){.f = fake_open(), .job = job_of(mode, durable), .map = map_of(1, 2)};
    r->c = pn_client_open(&r->f->env, &r->job, "j");
    pn_client_map(r->c, &r->map);
    ck_assert_int_eq(pn_client_producer(r->c, 0, 4, 1), PN_OK);
}
static void rig_close(struct rig *r) {
    pn_client_close(r->c);
    fake_close(r->f);
}

struct told { int n; enum pn_result result; };
static void tell(void *owner, enum pn_result r) {
    struct told *t = owner;
    t->n++;
    t->result = r;
}

/* What a shard received. */
struct got { uint32_t shard; enum pn_kind kind; uint64_t term, request, step, incarnation; struct pn_msg *m; };
static size_t receive(struct rig *r, struct got *out) {
    size_t n = 0;
    pn_peer to;
    for (struct pn_msg *m; (m = fake_take(r->f, &to)) != NULL; n++) {
        struct pn_frame f;
        ck_assert_uint_lt(n, SENT_MAX);
        ck_assert_int_eq(pn_frame_open(&f, m->data, m->n_bytes, NULL), PN_OK);
        out[n] = (struct got){.shard = (uint32_t)to - 1, .kind = f.kind, .term = f.term, .request = f.request, .m = m};
        pn_frame_u64(&f, "step", &out[n].step);
        pn_frame_u64(&f, "incarnation", &out[n].incarnation);
        pn_frame_close(&f);
    }
    return n;
}
static void drop(struct got *g, size_t n) {
    for (size_t i = 0; i < n; i++) pn_msg_unref(g[i].m);
}
static void hand(struct rig *r, uint32_t shard, struct pn_msg *m) {
    struct pn_frame f;
    ck_assert_int_eq(pn_frame_open(&f, m->data, m->n_bytes, NULL), PN_OK);
    pn_client_message(r->c, shard + 1, m, &f);
    pn_frame_close(&f);
    pn_msg_unref(m);
}
static void answer(struct rig *r, const struct got *g, enum pn_kind kind, uint64_t term, const char *code) {
    struct pn_writer w;
    uint8_t *body;
    pn_write_start(&w, kind, term, g->request);
    if (code != NULL) {
        pn_write_str(&w, "code", code);
        pn_write_str(&w, "text", "as the test says");
    }
    struct pn_msg *m = pn_write_finish(&w, &r->f->env, 0, &body);
    pn_msg_seal(m);
    hand(r, g->shard, m);
}
static void ack(struct rig *r, const struct got *g) { answer(r, g, PN_ACK, r->map.shards[g->shard].term, NULL); }

static uint64_t key_of_shard(uint32_t shard, uint64_t after) {
    uint64_t k = after + 1;
    while ((pn_slot_of(k) >= PN_SLOTS / 2) != shard) k++;
    return k;
}
static enum pn_result push(struct rig *r, uint64_t step, struct told *t) {
    uint64_t key = key_of_shard(0, 0);
    float g[3] = {1, 2, (float)step};
    struct pn_client_part part = {0, 1, &key, g, NULL};
    return pn_client_push(r->c, 0, step, false, &part, 1, tell, t);
}

START_TEST(a_pull_asks_each_shard_for_its_keys_and_puts_rows_where_they_belong) {
    struct rig r;
    rig_open(&r, PN_ASYNC, true);
    uint64_t a = key_of_shard(0, 0), b = key_of_shard(1, 0), keys[4] = {b, a, key_of_shard(1, b), key_of_shard(0, a)};
    float rows[12] = {0};
    struct pn_client_part part = {0, 4, keys, rows, NULL};
    struct told t = {0};
    struct got g[SENT_MAX];
    pn_client_pull(r.c, 0, 0, &part, 1, tell, &t);
    size_t n = receive(&r, g);
    ck_assert_uint_eq(n, 2);
    for (size_t i = 0; i < n; i++) {
        struct pn_frame f;
        uint64_t count, table;
        size_t m;
        pn_frame_open(&f, g[i].m->data, g[i].m->n_bytes, NULL);
        ck_assert(pn_frame_u64s(&f, "tables", &table, 1, &m) && pn_frame_u64s(&f, "counts", &count, 1, &m) && table == 0 && count == 2);
        const uint64_t *asked = pn_frame_take(&f, 2, 8);
        struct pn_writer w;
        uint8_t *body;
        pn_write_start(&w, PN_ROWS, g[i].term, g[i].request);
        pn_write_u64s(&w, "tables", &table, 1);
        pn_write_u64s(&w, "counts", &count, 1);
        struct pn_msg *back = pn_write_finish(&w, &r.f->env, 24, &body);
        for (size_t k = 0; k < 2; k++)
            for (size_t d = 0; d < 3; d++) ((float *)(void *)body)[k * 3 + d] = (float)asked[k] * 10 + (float)d;
        pn_msg_seal(back);
        pn_frame_close(&f);
        ck_assert_int_eq(t.n, 0);
        pn_msg_ref(back);
        hand(&r, g[i].shard, back);
        hand(&r, g[i].shard, back); /* the same answer twice */
    }
    ck_assert(t.n == 1 && t.result == PN_OK);
    for (size_t k = 0; k < 4; k++)
        for (size_t d = 0; d < 3; d++) ck_assert(rows[k * 3 + d] == (float)keys[k] * 10 + (float)d);
    drop(g, n);
    rig_close(&r);
} END_TEST

START_TEST(a_pull_goes_only_to_shards_with_keys_unless_staleness_is_bounded) {
    for (int ssp = 0; ssp < 2; ssp++) {
        struct rig r;
        rig_open(&r, ssp ? PN_SSP : PN_ASYNC, true);
        uint64_t key = key_of_shard(1, 0);
        float row[3];
        struct pn_client_part part = {0, 1, &key, row, NULL};
        struct told t = {0};
        struct got g[SENT_MAX];
        pn_client_pull(r.c, 0, 0, &part, 1, tell, &t);
        size_t n = receive(&r, g);
        ck_assert_uint_eq(n, ssp ? 2u : 1u);
        drop(g, n);
        rig_close(&r);
    }
} END_TEST

START_TEST(a_push_goes_to_every_shard_and_is_repeated_as_it_was_until_acknowledged) {
    struct rig r;
    rig_open(&r, PN_ASYNC, true);
    struct told t = {0};
    struct got g[SENT_MAX], again[SENT_MAX];
    ck_assert_int_eq(push(&r, 1, &t), PN_OK);
    size_t n = receive(&r, g);
    ck_assert_uint_eq(n, 2);
    ck_assert_uint_ne(g[0].shard, g[1].shard);
    ck_assert_uint_eq(g[0].incarnation, 4);
    ack(&r, &g[0]);
    fake_advance(r.f, 6000);
    size_t m = receive(&r, again);
    ck_assert(m >= 3 && m <= 12); /* it becomes patient */
    for (size_t i = 0; i < m; i++) {
        ck_assert_uint_eq(again[i].shard, g[1].shard);
        ck_assert_uint_eq(again[i].m->n_bytes, g[1].m->n_bytes);
        ck_assert_mem_eq(again[i].m->data, g[1].m->data, g[1].m->n_bytes);
    }
    ck_assert_int_eq(t.n, 0);
    ck_assert_uint_eq(pn_client_clock(r.c, 0), 0);
    ack(&r, &again[0]);
    ack(&r, &g[1]);
    ck_assert(t.n == 1 && t.result == PN_OK);
    ck_assert_uint_eq(pn_client_clock(r.c, 0), 1);
    drop(g, n);
    drop(again, m);
    rig_close(&r);
} END_TEST

START_TEST(the_slowest_shard_holds_back_the_65th_push) {
    struct rig r;
    rig_open(&r, PN_ASYNC, true);
    struct told t = {0};
    struct got g[SENT_MAX];
    for (uint64_t s = 1; s <= 64; s++) ck_assert_int_eq(push(&r, s, &t), PN_OK);
    ck_assert_int_eq(push(&r, 65, &t), PN_BUSY);
    size_t n = receive(&r, g);
    for (size_t i = 0; i < n; i++)
        if (g[i].shard == 0 || g[i].step > 1) ack(&r, &g[i]);
    ck_assert_uint_eq(pn_client_clock(r.c, 0), 0);
    ck_assert_int_eq(push(&r, 65, &t), PN_BUSY);
    for (size_t i = 0; i < n; i++) ack(&r, &g[i]);
    ck_assert_uint_eq(pn_client_clock(r.c, 0), 64);
    ck_assert_int_eq(push(&r, 65, &t), PN_OK);
    drop(g, n);
    rig_close(&r);
} END_TEST

START_TEST(a_shard_that_lost_its_memory_gets_the_ring_in_order_and_at_most_64_ahead) {
    struct rig r;
    rig_open(&r, PN_ASYNC, true);
    struct told t = {0};
    struct got g[SENT_MAX], old = {0};
    for (uint64_t s = 1; s <= 200; s++) {
        ck_assert_int_eq(push(&r, s, &t), PN_OK);
        size_t n = receive(&r, g);
        for (size_t i = 0; i < n; i++) ack(&r, &g[i]);
        if (s == 200) {
            old = g[g[0].shard == 1 ? 0 : 1];
            pn_msg_ref(old.m);
        }
        drop(g, n);
    }
    ck_assert(t.n == 200 && pn_client_clock(r.c, 0) == 200);
    pn_client_committed(r.c, 0, 50);
    uint8_t *before = malloc(old.m->n_bytes);
    memcpy(before, old.m->data, old.m->n_bytes);
    r.map = map_of(1, 9);
    pn_client_map(r.c, &r.map);
    ck_assert_uint_eq(pn_client_clock(r.c, 0), 50);
    uint64_t expected = 51, acknowledged = 50;
    while (acknowledged < 200) {
        size_t n = receive(&r, g);
        ck_assert_uint_gt(n, 0);
        for (size_t i = 0; i < n; i++) {
            ck_assert_uint_eq(g[i].shard, 1);
            ck_assert_uint_eq(g[i].term, 9);
            ck_assert_uint_eq(g[i].step, expected++);
            ck_assert_uint_le(g[i].step, acknowledged + 64);
        }
        struct got late = g[0];
        answer(&r, &late, PN_ACK, 2, NULL); /* of the life before: says nothing */
        ck_assert_uint_eq(pn_client_clock(r.c, 0), acknowledged);
        for (size_t i = 0; i < n; i++) ack(&r, &g[i]);
        acknowledged = g[n - 1].step;
        drop(g, n);
    }
    ck_assert_int_eq(t.n, 200); /* nobody is told twice */
    ck_assert_uint_eq(pn_client_clock(r.c, 0), 200);
    ck_assert_mem_eq(before, old.m->data, old.m->n_bytes); /* what was sent has not changed */
    free(before);
    pn_msg_unref(old.m);
    rig_close(&r);
} END_TEST

START_TEST(a_full_ring_asks_for_a_checkpoint_and_a_commit_empties_it) {
    struct rig r;
    rig_open(&r, PN_ASYNC, true);
    struct told t = {0};
    struct got g[SENT_MAX];
    uint64_t s = 0;
    while (!pn_client_ring_full(r.c, 0)) {
        ck_assert_int_eq(push(&r, ++s, &t), PN_OK);
        size_t n = receive(&r, g);
        for (size_t i = 0; i < n; i++) ack(&r, &g[i]);
        drop(g, n);
        ck_assert_uint_lt(s, 1000);
    }
    ck_assert_int_eq(push(&r, s + 1, &t), PN_OK); /* what is started goes out */
    pn_client_committed(r.c, 0, s);
    ck_assert(!pn_client_ring_full(r.c, 0));
    rig_close(&r);
} END_TEST

START_TEST(a_fast_job_keeps_nothing_that_was_acknowledged) {
    struct rig r;
    rig_open(&r, PN_ASYNC, false);
    struct told t = {0};
    struct got g[SENT_MAX];
    for (uint64_t s = 1; s <= 300; s++) {
        ck_assert_int_eq(push(&r, s, &t), PN_OK);
        size_t n = receive(&r, g);
        for (size_t i = 0; i < n; i++) ack(&r, &g[i]);
        drop(g, n);
    }
    ck_assert(!pn_client_ring_full(r.c, 0));
    r.map = map_of(8, 9);
    pn_client_map(r.c, &r.map);
    ck_assert_uint_eq(r.f->n_sent, 0);
    rig_close(&r);
} END_TEST

START_TEST(a_stale_term_waits_for_the_map_and_fenced_stops_the_producer) {
    struct rig r;
    rig_open(&r, PN_ASYNC, true);
    struct told t = {0};
    struct got g[SENT_MAX], again[SENT_MAX];
    push(&r, 1, &t);
    size_t n = receive(&r, g);
    answer(&r, &g[1], PN_REFUSAL, 9, "stale_term");
    ck_assert(t.n == 0 && pn_client_counters(r.c)->stale_terms == 1);
    r.map = map_of(g[1].shard == 0 ? 9 : 1, g[1].shard == 1 ? 9 : 2);
    pn_client_map(r.c, &r.map);
    size_t m = receive(&r, again);
    ck_assert_uint_eq(m, 1);
    ck_assert(again[0].shard == g[1].shard && again[0].term == 9 && again[0].request == g[1].request);
    answer(&r, &again[0], PN_REFUSAL, 9, "fenced");
    ck_assert(t.n == 1 && t.result == PN_FENCED);
    ck_assert_int_eq(push(&r, 2, &t), PN_FENCED);
    fake_advance(r.f, 5000);
    ck_assert_uint_eq(r.f->n_sent, 0);
    drop(g, n);
    drop(again, m);
    rig_close(&r);
} END_TEST

START_TEST(a_push_that_came_before_the_seed_is_repeated_behind_it) {
    struct rig r;
    rig_open(&r, PN_ASYNC, true);
    struct told t = {0}, seeded = {0};
    struct got g[SENT_MAX];
    uint64_t key = key_of_shard(0, 0);
    float row[2] = {1, 2};
    struct pn_client_part part = {1, 1, &key, row, NULL};
    pn_client_seed(r.c, &part, tell, &seeded);
    size_t n = receive(&r, g);
    ck_assert(n == 1 && g[0].kind == PN_SEED && g[0].shard == 0);
    ack(&r, &g[0]);
    ck_assert(seeded.n == 1 && seeded.result == PN_OK);
    drop(g, n);
    push(&r, 1, &t);
    n = receive(&r, g);
    for (size_t i = 0; i < n; i++)
        if (g[i].shard == 0) answer(&r, &g[i], PN_REFUSAL, 1, "not_seeded");
    drop(g, n);
    fake_advance(r.f, 600);
    n = receive(&r, g);
    size_t seed = n, repeated = n;
    for (size_t i = n; i-- > 0;)
        if (g[i].shard == 0) *(g[i].kind == PN_SEED ? &seed : &repeated) = i;
    ck_assert(seed < repeated && repeated < n);
    ck_assert_int_eq(t.n, 0);
    drop(g, n);
    rig_close(&r);
} END_TEST

START_TEST(a_shard_that_lost_its_memory_gets_the_seed_before_the_pushes) {
    struct rig r;
    rig_open(&r, PN_ASYNC, true);
    struct told t = {0};
    struct got g[SENT_MAX];
    uint64_t key = key_of_shard(0, 0);
    float row[2] = {1, 2};
    struct pn_client_part part = {1, 1, &key, row, NULL};
    pn_client_seed(r.c, &part, tell, &t);
    push(&r, 1, &t);
    size_t n = receive(&r, g);
    for (size_t i = 0; i < n; i++) ack(&r, &g[i]);
    drop(g, n);
    r.map = map_of(6, 2);
    pn_client_map(r.c, &r.map);
    n = receive(&r, g);
    ck_assert_uint_eq(n, 2);
    ck_assert(g[0].kind == PN_SEED && g[1].kind == PN_PUSH && g[0].term == 6 && g[1].term == 6);
    drop(g, n);
    rig_close(&r);
} END_TEST

START_TEST(what_was_cancelled_is_not_called_but_its_push_goes_on) {
    struct rig r;
    rig_open(&r, PN_ASYNC, true);
    struct told t = {0};
    struct got g[SENT_MAX];
    uint64_t key = key_of_shard(0, 0);
    float row[3];
    struct pn_client_part part = {0, 1, &key, row, NULL};
    pn_client_pull(r.c, 0, 0, &part, 1, tell, &t);
    push(&r, 1, &t);
    drop(g, receive(&r, g));
    pn_client_cancel(r.c, &t);
    fake_advance(r.f, 500);
    size_t n = receive(&r, g);
    for (size_t i = 0; i < n; i++) {
        ck_assert_int_eq(g[i].kind, PN_PUSH);
        ack(&r, &g[i]);
    }
    ck_assert_uint_eq(pn_client_clock(r.c, 0), 1);
    ck_assert_int_eq(t.n, 0);
    drop(g, n);
    rig_close(&r);
} END_TEST

static void close_inside(void *owner, enum pn_result r) {
    (void)r;
    pn_client_close(((struct rig *)owner)->c);
}
START_TEST(the_client_may_be_closed_by_its_own_callback) {
    struct rig r;
    rig_open(&r, PN_ASYNC, true);
    struct got g[SENT_MAX];
    uint64_t key = key_of_shard(0, 0);
    float row[3] = {0};
    struct pn_client_part part = {0, 1, &key, row, NULL};
    ck_assert_int_eq(pn_client_push(r.c, 0, 1, true, &part, 1, close_inside, &r), PN_OK);
    size_t n = receive(&r, g);
    for (size_t i = 0; i < n; i++) ack(&r, &g[i]);
    drop(g, n);
    fake_advance(r.f, 1000);
    ck_assert_uint_eq(r.f->n_sent, 0);
    fake_close(r.f);
} END_TEST

START_TEST(nothing_is_sent_twice_at_one_moment_on_an_even_clock) {
    struct rig r;
    rig_open(&r, PN_ASYNC, true);
    r.f->now_ns += r.f->now_ns % 2;
    struct told t = {0};
    push(&r, 1, &t);
    push(&r, 2, &t);
    ck_assert_uint_eq(r.f->n_sent, 4);
    rig_close(&r);
} END_TEST

START_TEST(a_commit_from_before_the_seed_does_not_lose_it) {
    struct rig r;
    rig_open(&r, PN_ASYNC, true);
    struct told t = {0};
    struct got g[SENT_MAX];
    uint64_t key = key_of_shard(0, 0);
    float row[2] = {1, 2};
    struct pn_client_part part = {1, 1, &key, row, NULL};
    pn_client_seed(r.c, &part, tell, &t);
    size_t n = receive(&r, g);
    ack(&r, &g[0]);
    drop(g, n);
    pn_client_committed(r.c, 0, 0); /* its cut was taken before the seed came */
    r.map = map_of(6, 2);
    pn_client_map(r.c, &r.map);
    n = receive(&r, g);
    ck_assert(n == 1 && g[0].kind == PN_SEED);
    drop(g, n);
    rig_close(&r);
} END_TEST

START_TEST(a_refused_seed_is_told) {
    struct rig r;
    rig_open(&r, PN_ASYNC, true);
    struct told t = {0};
    struct got g[SENT_MAX];
    uint64_t key = key_of_shard(0, 0);
    float row[2] = {1, 2};
    struct pn_client_part part = {1, 1, &key, row, NULL};
    pn_client_seed(r.c, &part, tell, &t);
    size_t n = receive(&r, g);
    answer(&r, &g[0], PN_REFUSAL, 1, "invalid");
    ck_assert(t.n == 1 && t.result == PN_INVALID);
    drop(g, n);
    rig_close(&r);
} END_TEST

int main(void) {
    TCase *c = tcase_create("client");
    tcase_add_test(c, a_pull_asks_each_shard_for_its_keys_and_puts_rows_where_they_belong);
    tcase_add_test(c, a_pull_goes_only_to_shards_with_keys_unless_staleness_is_bounded);
    tcase_add_test(c, a_push_goes_to_every_shard_and_is_repeated_as_it_was_until_acknowledged);
    tcase_add_test(c, the_slowest_shard_holds_back_the_65th_push);
    tcase_add_test(c, a_shard_that_lost_its_memory_gets_the_ring_in_order_and_at_most_64_ahead);
    tcase_add_test(c, a_full_ring_asks_for_a_checkpoint_and_a_commit_empties_it);
    tcase_add_test(c, a_fast_job_keeps_nothing_that_was_acknowledged);
    tcase_add_test(c, a_stale_term_waits_for_the_map_and_fenced_stops_the_producer);
    tcase_add_test(c, a_push_that_came_before_the_seed_is_repeated_behind_it);
    tcase_add_test(c, a_shard_that_lost_its_memory_gets_the_seed_before_the_pushes);
    tcase_add_test(c, what_was_cancelled_is_not_called_but_its_push_goes_on);
    tcase_add_test(c, the_client_may_be_closed_by_its_own_callback);
    tcase_add_test(c, nothing_is_sent_twice_at_one_moment_on_an_even_clock);
    tcase_add_test(c, a_commit_from_before_the_seed_does_not_lose_it);
    tcase_add_test(c, a_refused_seed_is_told);
    return fake_suite("client", c);
}
