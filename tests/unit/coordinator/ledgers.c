/* A job that reads a topic: what its data shards are dealt is durable before a plan shows it (fake.h looks at each plan), and a checkpoint holds the position behind its steps. */
#include "tests/unit/coordinator/fake.h"

static const char topic_job[] =
    "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data:\n    train: {format: jsonl, columns: [u], kafka: {brokers: \"h:1\", topic: c}}\n"
    "  features: [{name: u, type: categorical}]\n  tables: {defaults: {optimizer: {name: adagrad, lr: 0.1}, init: zero}}\n  model: {name: lr}\n  optimizer: {name: adam, lr: 0.01}\n"
    "  training: {batchSize: 32, dataShards: 2}\n  checkpoint: {every: 500ms, keep: 3}\n";

/* The ledger that a producer's owner was given last; its first step. */
static struct json_object *ledger_of(uint64_t producer, uint64_t *first_step) {
    for (size_t i = 0; i < W->n_nodes; i++) {
        struct json_object *list = W->nodes[i].up ? pn_json_get(pn_json_get(W->nodes[i].plan, "job"), "producers") : NULL;
        for (size_t k = 0; k < pn_json_length(list); k++)
            if (pn_json_u64(pn_json_at(list, k), "producer", 99) == producer) {
                *first_step = pn_json_u64(pn_json_at(list, k), "first_step", 0);
                return pn_json_get(pn_json_at(list, k), "ledger");
            }
    }
    ck_abort_msg("nobody has producer %d", (int)producer);
    return NULL;
}
static uint64_t rows_in(struct json_object *ledger) {
    uint64_t rows = pn_json_u64(ledger, "rows", 0);
    struct json_object *extents = pn_json_get(ledger, "extents");
    for (size_t i = 0; i < pn_json_length(extents); i++) rows += json_object_get_uint64(pn_json_at(pn_json_at(extents, i), 3));
    return rows;
}
/* Every committed checkpoint holds positions at or before its own steps, and rows enough to go on behind them. */
static void look_at_checkpoints(void) {
    for (size_t i = 0; i < W->durable.n; i++) {
        if (strcmp(W->durable.all[i].kind, "checkpoint") != 0) continue;
        struct json_object *k = pn_json_parse(W->durable.all[i].json, strlen(W->durable.all[i].json), NULL);
        for (size_t p = 0; p < 2; p++) {
            struct json_object *ledger = pn_json_at(pn_json_get(k, "ledgers"), p);
            const uint64_t rows = 32 * json_object_get_uint64(pn_json_at(pn_json_get(k, "steps"), p)), before = pn_json_u64(ledger, "rows", UINT64_MAX);
            ck_assert(before <= rows && rows <= rows_in(ledger));
            /* 200 rows an extent lie in 201 offsets from 100 on */
            ck_assert_uint_eq(json_object_get_uint64(pn_json_at(pn_json_at(pn_json_get(ledger, "positions"), 0), 1)), 100 + before / 200 * 201);
            ck_assert_uint_le(pn_json_length(pn_json_get(ledger, "extents")), 1);
        }
        json_object_put(k);
    }
}
static void deal_on(uint64_t rows) {
    node("worker-0")->deals = node("worker-1")->deals = rows;
}

START_TEST(dealt_rows_survive_the_coordinator_and_the_worker) {
    cluster();
    deal_on(200);
    submit(topic_job);
    run_ms(2000);
    uint64_t first, again;
    struct json_object *l = json_object_get(ledger_of(1, &first));
    const uint64_t at = pn_json_u64(l, "at", 0) + pn_json_length(pn_json_get(l, "extents"));
    ck_assert_uint_gt(at, 10);
    ck_assert_uint_gt(pn_json_u64(l, "at", 0), 0); /* what a checkpoint holds is taken out */
    look_at_checkpoints();
    json_object_put(l);
    restart_core();
    run_ms(2000);
    l = ledger_of(1, &first);
    ck_assert_uint_ge(pn_json_u64(l, "at", 0) + pn_json_length(pn_json_get(l, "extents")), at);
    const uint64_t rows = rows_in(l);
    crash("worker-1");
    run_ms(2500);
    boot(WORKER, "worker-1");
    deal_on(200);
    run_ms(1000);
    l = ledger_of(1, &again);
    ck_assert_uint_gt(again, first);
    ck_assert(rows_in(l) >= rows && pn_json_u64(l, "rows", 0) <= 32 * (json_object_get_uint64(pn_json_at(pn_json_get(pn_json_get(pn_json_get(node("worker-0")->plan, "job"), "committed"), "steps"), 1))));
    look_at_checkpoints();
    world_close();
} END_TEST

START_TEST(a_generation_deals_anew_behind_its_checkpoint) {
    cluster();
    deal_on(200);
    const char *id = submit(topic_job);
    run_ms(3000);
    uint64_t first;
    crash("ps-1");
    run_ms(60);
    const uint64_t bad = newest(id), rows = rows_in(ledger_of(0, &first));
    struct node *n = boot(PS, "ps-1");
    n->open_code = "corrupt";
    n->open_fails_from = bad;
    for (int i = 0; i < 40 && pn_json_u64(pn_json_get(node("worker-0")->plan, "job"), "generation", 0) != 2; i++) run_ms(10);
    ck_assert_uint_eq(pn_json_u64(pn_json_get(node("worker-0")->plan, "job"), "generation", 0), 2);
    struct json_object *l = ledger_of(0, &first);
    ck_assert(pn_json_u64(l, "rows", UINT64_MAX) <= 32 * (first - 1) && rows_in(l) >= 32 * (first - 1) && rows_in(l) < rows);
    node("ps-1")->open_code = NULL;
    run_ms(2000);
    look_at_checkpoints();
    ck_assert_uint_gt(newest(id), bad);
    world_close();
} END_TEST

START_TEST(a_proposal_of_an_earlier_owner_or_one_that_does_not_follow_changes_nothing) {
    cluster();
    submit(topic_job);
    run_ms(300);
    uint64_t first;
    ck_assert_uint_eq(rows_in(ledger_of(0, &first)), 0);
    static const char *const wrong[] = {"{\"at\": 5, \"extents\": [[0, 0, 0, 0]]}", "{\"at\": 0, \"extents\": [[0, 0, 9, 9]]}", "{\"at\": 0, \"extents\": 3}", "7"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong + 1; i++) {
        struct node *n = node("worker-0");
        struct json_object *o = make_beat(n), *list = pn_json_get(o, "producers");
        for (size_t k = 0; k < pn_json_length(list); k++) {
            struct json_object *e = pn_json_at(list, k);
            const bool right = i == sizeof wrong / sizeof *wrong;
            pn_json_add(e, "deal", right ? fake_deal(NULL, 0, 1) : pn_json_parse(wrong[i], strlen(wrong[i]), NULL));
            if (right) pn_json_add_u64(e, "incarnation", pn_json_u64(e, "incarnation", 0) + 1);
        }
        deliver(n->peer, o);
        json_object_put(o);
        run_ms(100);
        struct json_object *l = ledger_of(0, &first);
        ck_assert_uint_eq(pn_json_length(pn_json_get(l, "extents")) + pn_json_length(pn_json_get(l, "positions")), 0);
    }
    world_close();
} END_TEST

int main(void) {
    TCase *c = tcase_create("ledgers");
    tcase_add_test(c, dealt_rows_survive_the_coordinator_and_the_worker);
    tcase_add_test(c, a_generation_deals_anew_behind_its_checkpoint);
    tcase_add_test(c, a_proposal_of_an_earlier_owner_or_one_that_does_not_follow_changes_nothing);
    return run_tests("ledgers", c);
}
