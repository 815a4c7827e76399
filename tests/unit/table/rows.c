/* Keys to rows: growth, collisions, edges, explicit tables, skipped slots, failing memory. */
#include "ps/table/rows.h"
#include "ps/table/pages.h"
#include "tests/unit/table/util.h"

/* Fails the n-th allocation from now; < 0: none. The sanitizers bring their own malloc: there the sweep is left out. */
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define CAN_FAIL 1
static long fail_in = -1;
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
static bool fails(void) { return fail_in >= 0 && fail_in-- == 0; }
void *malloc(size_t n) { return fails() ? NULL : __libc_malloc(n); }
void *calloc(size_t n, size_t size) { return fails() ? NULL : __libc_calloc(n, size); }
void *realloc(void *p, size_t n) { return fails() ? NULL : __libc_realloc(p, n); }
void *__libc_memalign(size_t, size_t);
void *aligned_alloc(size_t alignment, size_t n) { return fails() ? NULL : __libc_memalign(alignment, n); }
#endif

START_TEST(two_hundred_thousand_rows_are_found_again_and_no_others) {
    enum { N = 200000, BATCH = 1000 };
    struct pn_table_spec spec = spec_of(PN_SGD, 2);
    spec.init = PN_INIT_ZERO;
    spec.optimizer = (struct pn_optimizer_spec){.kind = PN_SGD, .lr = 1};
    struct pn_table *t = pn_table_open(&spec);
    uint64_t keys[BATCH];
    float rows[2 * BATCH];
    for (uint64_t begin = 0; begin < N; begin += BATCH) {
        for (uint64_t i = 0; i < BATCH; i++) {
            keys[i] = (begin + i) * 3;
            rows[2 * i] = -(float)(begin + i);
            rows[2 * i + 1] = 1;
        }
        OK(pn_table_push(t, keys, rows, BATCH, 1, NULL));
    }
    ck_assert_uint_eq(pn_table_rows(t), N);
    ck_assert_uint_ge(pn_table_bytes(t), N * pn_table_record_bytes(t));
    ck_assert_uint_lt(pn_table_bytes(t), N * pn_table_record_bytes(t) * 2 + (8u << 20));
    for (uint64_t begin = 0; begin < N; begin += BATCH) {
        for (uint64_t i = 0; i < BATCH; i++) keys[i] = (begin + i) * 3;
        ck_assert_uint_eq(pn_table_pull(t, keys, BATCH, rows), 0);
        for (uint64_t i = 0; i < BATCH; i++) ck_assert(rows[2 * i] == (float)(begin + i) && rows[2 * i + 1] == -1);
        for (uint64_t i = 0; i < BATCH; i++) keys[i] = (begin + i) * 3 + 1;
        ck_assert_uint_eq(pn_table_pull(t, keys, BATCH, rows), BATCH);
    }
    ck_assert_uint_eq(pn_table_rows(t), N);
    pn_table_close(t);
} END_TEST

/* The inverse of pn_mix64: keys with any hash we like. */
static uint64_t unmix(uint64_t x) {
    x ^= x >> 31 ^ x >> 62;
    x *= 0x319642b2d24d8ec3ull;
    x ^= x >> 27 ^ x >> 54;
    x *= 0x96de1b173f119089ull;
    x ^= x >> 30 ^ x >> 60;
    return x - 0x9e3779b97f4a7c15ull;
}

START_TEST(keys_that_share_slot_tag_and_first_group_are_kept_apart) {
    enum { N = 3000 };
    struct pn_table_spec spec = spec_of(PN_SGD, 1);
    spec.init = PN_INIT_ZERO;
    spec.optimizer = (struct pn_optimizer_spec){.kind = PN_SGD, .lr = 1};
    struct pn_table *t = pn_table_open(&spec);
    uint64_t keys[N];
    float values[N];
    for (uint64_t i = 0; i < N; i++) {
        keys[i] = unmix(0xabcull << 52 | i << 20 | 5); /* slot, tag, low 20 bits all alike */
        ck_assert_uint_eq(pn_mix64(keys[i]), 0xabcull << 52 | i << 20 | 5);
        values[i] = -(float)i;
        OK(pn_table_push(t, &keys[i], &values[i], 1, 0, NULL));
    }
    ck_assert_uint_eq(pn_table_pull(t, keys, N, values), 0);
    for (uint64_t i = 0; i < N; i++) ck_assert(values[i] == (float)i);
    uint64_t other = unmix(0xabcull << 52 | (uint64_t)N << 20 | 5);
    ck_assert_uint_eq(pn_table_pull(t, &other, 1, values), 1);
    pn_table_close(t);
} END_TEST

START_TEST(every_machine_finds_the_same) {
    enum { N = 30000, BATCH = 500 };
    struct pn_rows t;
    ck_assert(pn_rows_open(&t, 8));
    uint64_t keys[BATCH];
    pn_place places[BATCH], expected[BATCH];
    const void *rows[BATCH];
    for (uint64_t begin = 0; begin < N; begin += BATCH) {
        for (uint64_t i = 0; i < BATCH; i++) keys[i] = (begin + i) % 3 ? (begin + i) * 7 : unmix(5ull << 54 | (begin + i) << 40 | 3);
        pn_rows_find(&t, keys, BATCH, places);
        OK(pn_rows_prepare(&t, places, BATCH, NULL, false, true));
        bool made;
        for (int i = 0; i < BATCH; i++) pn_rows_make(&t, keys[i], &made);
        for (uint64_t i = 0; i < BATCH; i++) keys[i] += i % 2;
        ck_assert(pn_index_use(0));
        size_t missing = pn_rows_find(&t, keys, BATCH, expected);
        for (int variant = 0; variant < 3; variant++) {
            if (!pn_index_use(variant)) continue;
            ck_assert_uint_eq(pn_rows_find(&t, keys, BATCH, places), missing);
            ck_assert_mem_eq(places, expected, sizeof places);
            ck_assert_uint_eq(pn_rows_ask(&t, keys, BATCH, rows, 8), missing);
            for (int i = 0; i < BATCH; i++) ck_assert_ptr_eq(rows[i], (uint32_t)places[i] == PN_NO_ROW ? NULL : pn_rows_at(&t, places[i]));
        }
    }
    pn_rows_close(&t);
} END_TEST

/* The index holds no keys; it must be able to tell them all the same. */
START_TEST(an_index_tells_its_keys) {
    enum { N = 40000 };
    struct pn_rows t;
    ck_assert(pn_rows_open(&t, 4));
    static uint64_t keys[N], told[N];
    static pn_place places[N];
    for (uint64_t i = 0; i < N; i++) keys[i] = i % 4 ? pn_mix64(i) : unmix((i % 8 ? 9ull : 1023ull) << 54 | i << 23 | i % 4); /* two crowded slots, one wraps */
    for (size_t begin = 0, n; begin < N; begin += n) { /* pieces of 1, 2, 4, ... keys */
        n = begin + 1 < N - begin ? begin + 1 : N - begin;
        pn_rows_find(&t, keys + begin, n, places);
        OK(pn_rows_prepare(&t, places, n, NULL, false, true));
        bool made;
        for (size_t i = 0; i < n; i++) pn_rows_make(&t, keys[begin + i], &made);
    }
    ck_assert_uint_eq(pn_rows_find(&t, keys, N, places), 0);
    for (uint32_t slot = 0; slot < PN_SLOTS; slot++) {
        pn_index_keys(&t, slot, t.slots[slot].n_rows, told);
        for (size_t i = 0; i < N; i++)
            if (places[i] >> 32 == slot) ck_assert_uint_eq(told[(uint32_t)places[i]], keys[i]);
    }
    pn_rows_close(&t);
} END_TEST

START_TEST(preallocated_memory_is_asked_for_in_pieces_and_used_by_the_rows) {
    struct pn_table_spec spec = spec_of(PN_ADAGRAD, 16);
    struct pn_table *t = pn_table_open(&spec);
    void *at;
    size_t n_bytes, total = 0;
    ck_assert(!pn_table_ahead(t, &at, &n_bytes)); /* a small table asks for nothing */
    pn_table_preallocate(t, 64u << 20);
    while (pn_table_ahead(t, &at, &n_bytes)) {
        ck_assert_uint_le(n_bytes, 2u << 20);
        pn_pages_back(at, n_bytes);
        total += n_bytes;
    }
    ck_assert_uint_ge(total, 60u << 20); /* whole pieces of two parts */
    ck_assert_uint_le(total, 70u << 20);
    static uint64_t keys[20000];
    static float zeros[20000 * 16];
    for (uint64_t k = 0; k < 20000; k++) keys[k] = k;
    OK(pn_table_push(t, keys, zeros, 20000, 1, NULL));
    ck_assert(!pn_table_ahead(t, &at, &n_bytes)); /* it is there already */
    pn_table_close(t);
} END_TEST

/* Keys crafted to share a home: the stash takes what the eight buckets cannot, and the index does not grow without end. */
START_TEST(crafted_keys_cost_no_more_memory_than_others) {
    enum { N = 5000 };
    struct pn_rows t;
    ck_assert(pn_rows_open(&t, 4));
    uint64_t before = pn_rows_bytes(&t);
    for (uint64_t i = 0; i < N; i++) {
        uint64_t key = unmix(77ull << 54 | 1ull << 40 | i);
        pn_place place;
        ck_assert_uint_eq(pn_rows_find(&t, &key, 1, &place), 1);
        OK(pn_rows_prepare(&t, &place, 1, NULL, false, true));
        bool made;
        *(float *)pn_rows_make(&t, key, &made) = (float)i;
        ck_assert(made);
    }
    ck_assert_uint_gt(t.slots[77].n_stashed, N - 100);
    ck_assert_uint_lt(pn_rows_bytes(&t) - before, 5u << 20);
    for (uint64_t i = 0; i < N; i++) {
        uint64_t key = unmix(77ull << 54 | 1ull << 40 | i);
        pn_place place;
        ck_assert_uint_eq(pn_rows_find(&t, &key, 1, &place), 0);
        ck_assert(*(float *)pn_rows_at(&t, place) == (float)i);
    }
    pn_rows_close(&t);
} END_TEST

START_TEST(the_first_and_the_last_key_are_keys_like_any_other) {
    struct pn_table_spec spec = spec_of(PN_ADAGRAD, 3);
    struct pn_table *t = pn_table_open(&spec);
    const uint64_t keys[4] = {0, UINT64_MAX, 1, UINT64_MAX - 1};
    float gradient[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3}, before[12], after[12];
    ck_assert_uint_eq(pn_table_pull(t, keys, 4, before), 4);
    OK(pn_table_push(t, keys, gradient, 2, 9, NULL));
    ck_assert_uint_eq(pn_table_rows(t), 2);
    ck_assert_uint_eq(pn_table_pull(t, keys, 4, after), 2);
    for (int i = 0; i < 6; i++) ck_assert(after[i] < before[i]);
    ck_assert_mem_eq(after + 6, before + 6, 6 * sizeof(float));
    pn_table_close(t);
} END_TEST

START_TEST(a_pull_makes_nothing_and_may_repeat_keys) {
    struct pn_table_spec spec = spec_of(PN_SGD, 5);
    struct pn_table *t = pn_table_open(&spec);
    const uint64_t keys[6] = {9, 8, 9, 9, 8, 7};
    float rows[30], gradient[5] = {1, 1, 1, 1, 1};
    ck_assert_uint_eq(pn_table_pull(t, keys, 6, rows), 6);
    ck_assert_uint_eq(pn_table_rows(t), 0);
    ck_assert_mem_eq(rows, rows + 10, 20);
    ck_assert_mem_eq(rows, rows + 15, 20);
    ck_assert_mem_eq(rows + 5, rows + 20, 20);
    OK(pn_table_push(t, keys, gradient, 1, 1, NULL));
    ck_assert_uint_eq(pn_table_pull(t, keys, 6, rows), 3);
    ck_assert_mem_eq(rows, rows + 10, 20);
    ck_assert_uint_eq(pn_table_pull(t, keys, 0, rows), 0);
    OK(pn_table_push(t, keys, gradient, 0, 1, NULL));
    pn_table_close(t);
} END_TEST

START_TEST(explicit_rows_exist_only_by_seed_and_the_first_seed_stays) {
    struct pn_table_spec spec = spec_of(PN_ADAGRAD, 2);
    spec.explicit_rows = true;
    struct pn_table *t = pn_table_open(&spec);
    const uint64_t keys[3] = {0, 1, 2};
    float first[6] = {1, 2, 3, 4, 5, 6}, second[6] = {9, 9, 9, 9, 9, 9}, rows[6], gradient[6] = {1, 1, 1, 1, 1, 1};
    ck_assert_uint_eq(pn_table_pull(t, keys, 3, rows), 3);
    for (int i = 0; i < 6; i++) ck_assert(rows[i] == 0);
    ck_assert_int_eq(pn_table_push(t, keys, gradient, 3, 1, NULL), PN_NOT_SEEDED);
    OK(pn_table_seed(t, keys, first, 2));
    ck_assert_int_eq(pn_table_push(t, keys, gradient, 3, 1, NULL), PN_NOT_SEEDED);
    ck_assert_uint_eq(pn_table_pull(t, keys, 2, rows), 0);
    ck_assert_mem_eq(rows, first, 16); /* nothing was applied */
    OK(pn_table_seed(t, keys, second, 3));
    ck_assert_uint_eq(pn_table_pull(t, keys, 3, rows), 0);
    ck_assert_mem_eq(rows, first, 16);
    ck_assert_mem_eq(rows + 4, second, 8);
    OK(pn_table_push(t, keys, gradient, 3, 1, NULL));
    /* The missing key of a skipped slot is nobody's fault. */
    uint64_t skip[16] = {0}, absent = 77;
    skip[pn_slot_of(absent) >> 6] |= 1ull << (pn_slot_of(absent) & 63);
    OK(pn_table_push(t, &absent, gradient, 1, 1, skip));
    ck_assert_uint_eq(pn_table_rows(t), 3);
    pn_table_close(t);
} END_TEST

START_TEST(rows_of_skipped_slots_are_left_alone) {
    enum { N = 5000 };
    struct pn_table_spec spec = spec_of(PN_ADAM, 2);
    struct pn_table *t = pn_table_open(&spec);
    uint64_t keys[N], skip[16];
    float gradient[2 * N], before[2 * N], after[2 * N];
    struct pn_rng rng = {8};
    for (uint64_t i = 0; i < N; i++) keys[i] = i;
    for (int i = 0; i < 2 * N; i++) gradient[i] = 1;
    for (int i = 0; i < 16; i++) skip[i] = pn_rng_next(&rng);
    OK(pn_table_push(t, keys, gradient, N / 2, 1, NULL));
    pn_table_pull(t, keys, N, before);
    OK(pn_table_push(t, keys, gradient, N, 2, skip));
    pn_table_pull(t, keys, N, after);
    uint64_t n_rows = N / 2;
    for (uint64_t i = 0; i < N; i++) {
        uint32_t slot = pn_slot_of(keys[i]);
        bool skipped = skip[slot >> 6] >> (slot & 63) & 1;
        if (!skipped && i >= N / 2) n_rows++;
        ck_assert_int_eq(memcmp(before + 2 * i, after + 2 * i, 8) == 0, skipped);
    }
    ck_assert_uint_eq(pn_table_rows(t), n_rows);
    pn_table_close(t);
} END_TEST

START_TEST(a_record_tells_how_often_and_when_last) {
    struct pn_table_spec spec = spec_of(PN_ADAM, 3);
    struct pn_table *t = pn_table_open(&spec);
    const uint64_t key = 4;
    float gradient[3] = {1, 2, 3}, row[3];
    OK(pn_table_push(t, &key, gradient, 1, 10, NULL));
    OK(pn_table_push(t, &key, gradient, 1, 0x500000007ull, NULL));
    ck_assert_uint_eq(pn_table_record_bytes(t), 16 + 40);
    ck_assert(pn_table_cut(t));
    size_t n;
    uint8_t *records = scan_all(t, 3, &n);
    ck_assert_uint_eq(n, 1);
    struct record *r = (struct record *)records;
    pn_table_pull(t, &key, 1, row);
    ck_assert(r->key == 4 && r->frequency == 2 && r->last_step == 7);
    ck_assert_mem_eq(r->values, row, 12);
    free(records);
    pn_table_close(t);
} END_TEST

#ifdef CAN_FAIL
/* Runs the same story with the n-th allocation failing, for every n: a failed call changed nothing and a repeat succeeds. */
START_TEST(a_failed_allocation_leaves_the_table_as_it_was) {
    enum { N = 700 };
    uint64_t keys[N];
    float gradient[3 * N], before[3 * N], after[3 * N];
    struct pn_table_spec spec = spec_of(PN_ADAGRAD, 3);
    for (uint64_t i = 0; i < N; i++) keys[i] = i % 2 ? i : unmix(7ull << 54 | i << 20); /* one crowded slot */
    for (int i = 0; i < 3 * N; i++) gradient[i] = (float)(i % 7) - 3;
    bool failed = true;
    for (long n = 0; failed; n += n < 40 ? 1 : 13) {
        struct pn_table *t = pn_table_open(&spec);
        OK(pn_table_push(t, keys, gradient, N / 4, 1, NULL));
        ck_assert(pn_table_cut(t));
        pn_table_pull(t, keys, N, before);
        uint64_t rows = pn_table_rows(t);
        fail_in = n;
        enum pn_result result = pn_table_push(t, keys, gradient, N, 2, NULL);
        fail_in = -1;
        failed = result != PN_OK;
        if (failed) {
            ck_assert_int_eq(result, PN_NO_MEMORY);
            ck_assert_uint_eq(pn_table_rows(t), rows);
            pn_table_pull(t, keys, N, after);
            ck_assert_mem_eq(before, after, sizeof(before));
            OK(pn_table_push(t, keys, gradient, N, 2, NULL));
        }
        ck_assert_uint_eq(pn_table_rows(t), N);
        size_t count;
        uint8_t *records = scan_all(t, 64, &count);
        ck_assert_uint_eq(count, N / 4);
        free(records);
        pn_table_close(t);
    }
    fail_in = 0;
    struct pn_table *none = pn_table_open(&spec);
    ck_assert_ptr_null(none);
    fail_in = 1;
    none = pn_table_open(&spec);
    fail_in = -1;
    ck_assert_ptr_null(none);
} END_TEST
#endif

int main(void) {
    TCase *c = tcase_create("rows");
    tcase_add_test(c, two_hundred_thousand_rows_are_found_again_and_no_others);
    tcase_add_test(c, keys_that_share_slot_tag_and_first_group_are_kept_apart);
    tcase_add_test(c, every_machine_finds_the_same);
    tcase_add_test(c, an_index_tells_its_keys);
    tcase_add_test(c, preallocated_memory_is_asked_for_in_pieces_and_used_by_the_rows);
    tcase_add_test(c, crafted_keys_cost_no_more_memory_than_others);
    tcase_add_test(c, the_first_and_the_last_key_are_keys_like_any_other);
    tcase_add_test(c, a_pull_makes_nothing_and_may_repeat_keys);
    tcase_add_test(c, explicit_rows_exist_only_by_seed_and_the_first_seed_stays);
    tcase_add_test(c, rows_of_skipped_slots_are_left_alone);
    tcase_add_test(c, a_record_tells_how_often_and_when_last);
#ifdef CAN_FAIL
    tcase_add_test(c, a_failed_allocation_leaves_the_table_as_it_was);
#endif
    return run_suite(c);
}
