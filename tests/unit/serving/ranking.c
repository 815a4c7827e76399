#include "tests/unit/serving/world.h"

static struct world *w;
static void setup(void) {
    w = malloc(sizeof *w);
    world_init(w);
}
static void teardown(void) {
    world_free(w);
    free(w);
}
static void serve(int storage) {
    publish(w, 1, storage, 60);
    world_plan(w, 1, 1);
    world_work(w);
}
static float score_at(struct json_object *o, size_t i) { return (float)json_object_get_double(pn_json_at(pn_json_get(output(o, "score"), "data"), i)); }

/* Large bodies go to a work thread, small ones do not: both are compared. */
static void compare(size_t n, float tolerance) {
    struct truth t;
    truth_open(&t, 1);
    struct table_of_text rows = raw_of(n, candidate);
    float *right = malloc(n * sizeof *right);
    truth_scores(&t, 1, &rows.raw, right);
    char *body = infer_body(n, 0);
    struct reply *a = ask(w, "POST", "/v2/models/m/infer", body);
    ck_assert_msg(a->status == 200, "%s", a->body);
    struct json_object *o = json_of(a);
    ck_assert_str_eq(pn_json_str(o, "model_version", ""), "1");
    ck_assert_str_eq(pn_json_str(o, "id", ""), "q");
    ck_assert_uint_eq(pn_json_length(pn_json_get(output(o, "score"), "data")), n);
    bool differ = false;
    for (size_t i = 0; i < n; i++) {
        ck_assert_float_eq_tol(score_at(o, i), right[i], tolerance);
        differ = differ || right[i] != right[0];
    }
    ck_assert(differ || n == 1);
    json_object_put(o);
    drop(a);
    free(body);
    free(right);
    free_raw(&rows);
    truth_close(&t);
}

START_TEST(ranking_equals_the_net_on_the_rows_within_the_storage) {
    static const float tolerance[] = {1e-5f, 2e-3f, 2e-2f};
    publish(w, 1, _i, 5000);
    world_plan(w, 1, 1);
    world_work(w);
    compare(1, tolerance[_i]);
    compare(50, tolerance[_i]);
    compare(5000, tolerance[_i]); /* two chunks, on a work thread */
} END_TEST

START_TEST(top_k_gives_the_best_first) {
    serve(PN_STORE_FLOAT32);
    char *body = infer_body(50, 0), *best = infer_body(50, 10);
    struct reply *a = ask(w, "POST", "/v2/models/m/infer", body), *b = ask(w, "POST", "/v2/models/m/versions/1/infer", best);
    ck_assert_int_eq(b->status, 200);
    struct json_object *all = json_of(a), *top = json_of(b);
    ck_assert_uint_eq(pn_json_length(pn_json_get(output(top, "index"), "data")), 10);
    ck_assert_uint_eq(pn_json_length(pn_json_get(output(top, "index"), "shape")), 1);
    for (size_t i = 0; i < 10; i++) {
        size_t index = json_object_get_uint64(pn_json_at(pn_json_get(output(top, "index"), "data"), i)), above = 0;
        ck_assert_float_eq(score_at(top, i), score_at(all, index));
        for (size_t k = 0; k < 50; k++) above += score_at(all, k) > score_at(all, index) || (score_at(all, k) == score_at(all, index) && k < index);
        ck_assert_uint_eq(above, i);
    }
    json_object_put(all);
    json_object_put(top);
    drop(a);
    drop(b);
    free(body);
    free(best);
} END_TEST

static uint8_t *binary_body(size_t n, size_t *n_json, size_t *n_bytes) {
    uint8_t *b = malloc(1000 + n * 200), *at;
    size_t genres = 0;
    char buffer[64];
    for (size_t r = 0; r < n; r++) genres += 4 + strlen(candidate(r, 2, buffer));
    *n_json = (size_t)sprintf((char *)b,
        "{\"id\":\"q\",\"parameters\":{\"binary_data_output\":true},\"inputs\":["
        "{\"name\":\"user\",\"shape\":[1,1],\"datatype\":\"INT32\",\"parameters\":{\"binary_data_size\":4}},"
        "{\"name\":\"item\",\"shape\":[%zu,1],\"datatype\":\"INT64\",\"parameters\":{\"binary_data_size\":%zu}},"
        "{\"name\":\"title\",\"shape\":[1,1],\"datatype\":\"BYTES\",\"parameters\":{\"binary_data_size\":7}},"
        "{\"name\":\"genres\",\"shape\":[%zu,1],\"datatype\":\"BYTES\",\"parameters\":{\"binary_data_size\":%zu}},"
        "{\"name\":\"price\",\"shape\":[%zu,1],\"datatype\":\"FP32\",\"parameters\":{\"binary_data_size\":%zu}}]}", n, n * 8, n, genres, n, n * 4);
    at = b + *n_json;
    memcpy(at, &(int32_t){7}, 4), at += 4;
    for (size_t r = 0; r < n; r++) memcpy(at, &(int64_t){(int64_t)r}, 8), at += 8;
    memcpy(at, "\3\0\0\0abc", 7), at += 7;
    for (size_t r = 0; r < n; r++) {
        const char *g = candidate(r, 2, buffer);
        memcpy(at, &(uint32_t){(uint32_t)strlen(g)}, 4);
        memcpy(at + 4, g, strlen(g));
        at += 4 + strlen(g);
    }
    for (size_t r = 0; r < n; r++) memcpy(at, &(float){(float)r + 0.5f}, 4), at += 4;
    *n_bytes = (size_t)(at - b);
    return b;
}

START_TEST(binary_tensors_give_the_same_scores_as_json) {
    serve(PN_STORE_FLOAT32);
    size_t n_json, n;
    uint8_t *b = binary_body(40, &n_json, &n);
    char length[20], *body = infer_body(40, 0);
    snprintf(length, sizeof length, "%zu", n_json);
    struct reply *a = send_request(w, "POST", "/v2/models/m/infer", length, b, n), *plain = ask(w, "POST", "/v2/models/m/infer", body);
    ck_assert_msg(a->status == 200, "%s", a->body);
    ck_assert_str_eq(a->type, "application/octet-stream");
    size_t header = 0;
    ck_assert_int_eq(sscanf(a->header, "Inference-Header-Content-Length: %zu", &header), 1);
    ck_assert_uint_eq(a->n, header + 160);
    struct json_object *o = json_of(plain), *head = pn_json_parse((const char *)a->body, header, NULL);
    ck_assert_uint_eq(pn_json_u64(pn_json_get(output(head, "score"), "parameters"), "binary_data_size", 0), 160);
    for (size_t i = 0; i < 40; i++) {
        float x;
        memcpy(&x, a->body + header + i * 4, 4);
        ck_assert_float_eq(x, score_at(o, i));
    }
    json_object_put(o);
    json_object_put(head);
    drop(a);
    drop(plain);
    /* every length of the header, every end of the body: an answer each time */
    for (size_t cut = 0; cut <= n; cut++) {
        uint8_t *part = malloc(cut + 1);
        memcpy(part, b, cut);
        struct reply *x = send_request(w, "POST", "/v2/models/m/infer", length, part, cut);
        ck_assert_int_eq(x->n_answers, 1);
        ck_assert_int_eq(x->status, cut == n ? 200 : 400);
        drop(x);
        free(part);
    }
    free(b);
    free(body);
} END_TEST

START_TEST(a_missing_column_is_named_with_what_is_expected) {
    serve(PN_STORE_FLOAT32);
    struct reply *a = ask(w, "POST", "/v2/models/m/infer", "{\"inputs\":[{\"name\":\"user\",\"shape\":[1,1],\"datatype\":\"INT64\",\"data\":[7]},"
                                                           "{\"name\":\"price\",\"shape\":[1],\"datatype\":\"FP32\",\"data\":[1]}]}");
    ck_assert_int_eq(a->status, 400);
    struct json_object *o = json_of(a);
    ck_assert_str_eq(pn_json_str(o, "error", ""), "missing inputs: item, genres; this model expects: user, item, genres, price");
    json_object_put(o);
    drop(a);
} END_TEST

START_TEST(values_of_a_multi_field_may_come_as_a_row) {
    serve(PN_STORE_FLOAT32);
    static const char *const form[2] = {"{\"name\":\"genres\",\"shape\":[2,2],\"datatype\":\"BYTES\",\"data\":[[\"Comedy\",\"Drama\"],[\"Drama\",null]]}",
                                        "{\"name\":\"genres\",\"shape\":[2,1],\"datatype\":\"BYTES\",\"data\":[[\"Comedy|Drama\"],[\"Drama\"]]}"};
    float score[2][2];
    for (int i = 0; i < 2; i++) {
        char body[600];
        snprintf(body, sizeof body, "{\"inputs\":[%s,{\"name\":\"user\",\"shape\":[1],\"datatype\":\"BYTES\",\"data\":[\"7\"]},"
                 "{\"name\":\"item\",\"shape\":[2],\"datatype\":\"UINT8\",\"data\":[1,3]},{\"name\":\"price\",\"shape\":[1],\"datatype\":\"FP64\",\"data\":[0.1]}]}", form[i]);
        struct reply *a = ask(w, "POST", "/v2/models/m/infer", body);
        ck_assert_msg(a->status == 200, "%s", a->body);
        struct json_object *o = json_of(a);
        for (size_t k = 0; k < 2; k++) score[i][k] = score_at(o, k);
        json_object_put(o);
        drop(a);
    }
    ck_assert_float_eq(score[0][0], score[1][0]);
    ck_assert_float_eq(score[0][1], score[1][1]);
    ck_assert_float_ne(score[0][0], score[0][1]);
} END_TEST

#define IN(x) "{\"inputs\":[" x "]}"
#define ITEM(x) IN("{\"name\":\"item\"," x "}")
static const char *const hostile[] = {
    "", "{", "null", "7", "[]", "{}", "{\"inputs\":7}", "{\"inputs\":[]}", "{\"inputs\":{}}", IN("7"), IN("null"), IN("[]"), IN("{}"), IN("{\"name\":7}"),
    ITEM("\"shape\":[1]"), ITEM("\"datatype\":\"INT64\""), ITEM("\"datatype\":\"FP16\",\"shape\":[1],\"data\":[1]"),
    ITEM("\"datatype\":\"INT64\",\"shape\":[0],\"data\":[]"), ITEM("\"datatype\":\"INT64\",\"shape\":[-1],\"data\":[]"),
    ITEM("\"datatype\":\"INT64\",\"shape\":[100001],\"data\":[1]"), ITEM("\"datatype\":\"INT64\",\"shape\":[18446744073709551615],\"data\":[1]"),
    ITEM("\"datatype\":\"INT64\",\"shape\":[1,1,1],\"data\":[1]"), ITEM("\"datatype\":\"INT64\",\"shape\":[],\"data\":[1]"),
    ITEM("\"datatype\":\"INT64\",\"shape\":[1.5],\"data\":[1]"), ITEM("\"datatype\":\"INT64\",\"shape\":\"1\",\"data\":[1]"),
    ITEM("\"datatype\":\"INT64\",\"shape\":[2],\"data\":[1]"), ITEM("\"datatype\":\"INT64\",\"shape\":[1],\"data\":[1,2]"),
    ITEM("\"datatype\":\"INT64\",\"shape\":[1],\"data\":[\"1\"]"), ITEM("\"datatype\":\"INT64\",\"shape\":[1],\"data\":[1.5]"),
    ITEM("\"datatype\":\"INT64\",\"shape\":[1],\"data\":[{}]"), ITEM("\"datatype\":\"INT64\",\"shape\":[1],\"data\":7"),
    ITEM("\"datatype\":\"UINT8\",\"shape\":[1],\"data\":[-7]"), ITEM("\"datatype\":\"BYTES\",\"shape\":[1],\"data\":[7]"),
    ITEM("\"datatype\":\"BOOL\",\"shape\":[1],\"data\":[7]"), ITEM("\"datatype\":\"INT64\",\"shape\":[1,4097],\"data\":[1]"),
    ITEM("\"datatype\":\"INT64\",\"shape\":[1,2],\"data\":[1,2]"),
    ITEM("\"datatype\":\"INT64\",\"shape\":[1],\"parameters\":{\"binary_data_size\":8}"),
    ITEM("\"datatype\":\"INT64\",\"shape\":[1],\"data\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]"),
    IN("{\"name\":\"item\",\"datatype\":\"INT64\",\"shape\":[1],\"data\":[1]},{\"name\":\"item\",\"datatype\":\"INT64\",\"shape\":[1],\"data\":[1]}"),
    "{\"inputs\":[]} more", "\xff\xfe", "\x1f\x8b\x08",
};

START_TEST(hostile_json_gets_one_clear_line) {
    serve(PN_STORE_FLOAT32);
    struct reply *a = ask(w, "POST", "/v2/models/m/infer", hostile[_i]);
    ck_assert_msg(a->status == 400, "%s: %d", hostile[_i], a->status);
    struct json_object *o = json_of(a);
    ck_assert_uint_gt(strlen(pn_json_str(o, "error", "")), 5);
    ck_assert_ptr_null(strchr(pn_json_str(o, "error", ""), '\n'));
    json_object_put(o);
    drop(a);
} END_TEST

START_TEST(bad_parameters_and_outputs_are_refused) {
    static const char *const tails[] = {"\"parameters\":{\"top_k\":0}", "\"parameters\":{\"top_k\":-1}", "\"parameters\":{\"top_k\":\"5\"}", "\"parameters\":7",
                                        "\"outputs\":[{\"name\":\"index\"}]", "\"outputs\":[{\"name\":\"none\"}]", "\"outputs\":[7]", "\"outputs\":{}", "\"id\":7"};
    serve(PN_STORE_FLOAT32);
    for (size_t i = 0; i < sizeof tails / sizeof *tails; i++) {
        char *good = infer_body(3, 0), *body = malloc(strlen(good) + 100);
        sprintf(body, "{%s,%s", tails[i], strstr(good, "\"inputs\""));
        struct reply *a = ask(w, "POST", "/v2/models/m/infer", body);
        ck_assert_msg(a->status == 400, "%s: %d", tails[i], a->status);
        drop(a);
        free(good);
        free(body);
    }
    char *all = infer_body(3, 100); /* more than there are: all of them */
    struct reply *a = ask(w, "POST", "/v2/models/m/infer", all);
    struct json_object *o = json_of(a);
    ck_assert_uint_eq(pn_json_length(pn_json_get(output(o, "score"), "data")), 3);
    json_object_put(o);
    drop(a);
    free(all);
} END_TEST

START_TEST(columns_of_different_lengths_are_refused) {
    serve(PN_STORE_FLOAT32);
    struct reply *a = ask(w, "POST", "/v2/models/m/infer", "{\"inputs\":[{\"name\":\"user\",\"shape\":[2],\"datatype\":\"INT64\",\"data\":[7,8]},"
        "{\"name\":\"item\",\"shape\":[3],\"datatype\":\"INT64\",\"data\":[1,2,3]},{\"name\":\"genres\",\"shape\":[1],\"datatype\":\"BYTES\",\"data\":[\"\"]},"
        "{\"name\":\"price\",\"shape\":[1],\"datatype\":\"FP32\",\"data\":[1]}]}");
    ck_assert_int_eq(a->status, 400);
    ck_assert_ptr_nonnull(strstr((char *)a->body, "'user' has 2 candidates, 'item' has 3"));
    drop(a);
} END_TEST

int main(void) {
    TCase *c = tcase_create("ranking");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_loop_test(c, ranking_equals_the_net_on_the_rows_within_the_storage, 0, 3);
    tcase_add_test(c, top_k_gives_the_best_first);
    tcase_add_test(c, binary_tensors_give_the_same_scores_as_json);
    tcase_add_test(c, a_missing_column_is_named_with_what_is_expected);
    tcase_add_test(c, values_of_a_multi_field_may_come_as_a_row);
    tcase_add_loop_test(c, hostile_json_gets_one_clear_line, 0, sizeof hostile / sizeof *hostile);
    tcase_add_test(c, bad_parameters_and_outputs_are_refused);
    tcase_add_test(c, columns_of_different_lengths_are_refused);
    return run_cases("ranking", c);
}
