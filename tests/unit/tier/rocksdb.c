/* The tier over RocksDB beside a plain array: what was put last is what is found and scanned, over flushes and compactions. */
#include "ps/tier/rocksdb.h"
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/hash.h"

enum { BYTES = 52, KEYS = 200000 };
static char dir[200];

static uint64_t key_of(uint64_t i) { return pn_mix64(i); }
static void record_of(uint64_t i, uint64_t version, uint8_t *out) {
    for (size_t b = 0; b < BYTES; b += 4) {
        const uint32_t x = (uint32_t)pn_mix64(i * 31 + version * 977 + b);
        memcpy(out + b, &x, 4);
    }
}

static struct pn_tier *open_tier(struct pn_tiers *tiers, const char *name) {
    struct pn_tier *t = NULL;
    struct pn_error err = {""};
    ck_assert_msg(tiers->open(tiers, name, BYTES, &t, &err) == PN_OK, "%s", err.text);
    return t;
}
static void put(struct pn_tier *t, uint64_t begin, uint64_t end, uint64_t version) {
    const size_t n = end - begin;
    uint64_t *keys = malloc(n * sizeof *keys);
    uint8_t *records = malloc(n * BYTES);
    for (uint64_t i = begin; i < end; i++) {
        keys[i - begin] = key_of(i);
        record_of(i, version, records + (i - begin) * BYTES);
    }
    ck_assert(t->ops->put(t, keys, records, n));
    free(keys);
    free(records);
}

START_TEST(the_last_put_is_found_and_scanned) {
    struct pn_tiers *tiers = pn_tiers_rocksdb(dir);
    struct pn_tier *t = open_tier(tiers, "a"), *other = open_tier(tiers, "b");
    static uint64_t version[KEYS + 1000]; /* 0: never put */
    struct pn_rng rng = {5};
    for (uint64_t round = 1; round <= 30; round++) { /* some 200 MB: memory tables are flushed and merged */
        const uint64_t begin = pn_rng_next(&rng) % (KEYS - 100000), end = begin + 100000;
        put(t, begin, end, round);
        for (uint64_t i = begin; i < end; i++) version[i] = round;
        enum { N = 3000 };
        static uint64_t which[N], keys[N];
        static uint8_t records[N * BYTES], want[BYTES];
        static bool found[N];
        for (size_t i = 0; i < N; i++) keys[i] = key_of(which[i] = pn_rng_next(&rng) % (KEYS + 1000));
        const size_t part = round % 2 ? BYTES : 12; /* the first bytes alone */
        ck_assert(t->ops->get(t, keys, N, part, records, found));
        for (size_t i = 0; i < N; i++) {
            ck_assert_int_eq(found[i], version[which[i]] != 0);
            if (!found[i]) continue;
            record_of(which[i], version[which[i]], want);
            ck_assert_mem_eq(records + i * part, want, part);
        }
        ck_assert(other->ops->get(other, keys, N, part, records, found));
        for (size_t i = 0; i < N; i++) ck_assert(!found[i]); /* a table of its own */
    }
    static uint64_t keys[5000];
    static uint8_t records[5000 * BYTES], want[BYTES];
    static bool seen[KEYS + 1000];
    struct pn_tier_scan *s = t->ops->scan(t);
    bool failed;
    size_t total = 0;
    for (size_t n; (n = t->ops->next(s, keys, records, 5000, &failed)) > 0; total += n)
        for (size_t i = 0; i < n; i++) {
            const uint64_t which = pn_unmix64(keys[i]);
            ck_assert(which < KEYS && !seen[which] && version[which] > 0);
            seen[which] = true;
            record_of(which, version[which], want);
            ck_assert_mem_eq(records + i * BYTES, want, BYTES);
        }
    ck_assert(!failed);
    t->ops->scan_end(s);
    for (size_t i = 0; i < KEYS; i++) ck_assert_int_eq(seen[i], version[i] != 0);
    ck_assert_uint_gt(t->ops->bytes(t), 0);
    pn_tier_ref(t);
    pn_tier_unref(t);
    pn_tier_unref(t);
    pn_tier_unref(other);
    struct pn_tier *again = open_tier(tiers, "a"); /* empty, though it has the name of one before */
    bool found;
    ck_assert(again->ops->get(again, keys, 1, BYTES, records, &found) && !found);
    pn_tier_unref(again);
} END_TEST

/* Whether any file of the tier has these bytes. */
static bool in_files(const void *bytes, size_t n) {
    char command[600], hex[2 * 8 * 4 + 1] = "";
    for (size_t i = 0; i < n; i++) sprintf(hex + 4 * i, "\\x%02x", ((const uint8_t *)bytes)[i]);
    snprintf(command, sizeof command, "LC_ALL=C grep -rlaP '%s' %s > /dev/null", hex, dir);
    return system(command) == 0;
}

START_TEST(a_removed_record_is_gone_from_the_files_too) {
    struct pn_tiers *tiers = pn_tiers_rocksdb(dir);
    struct pn_tier *t = open_tier(tiers, "a");
    for (uint64_t round = 1; round <= 8; round++) put(t, 0, 100000, round); /* some 50 MB: in files of more than one level, and in memory */
    const uint64_t keys[3] = {key_of(77), key_of(50000), key_of(99999)}, other = key_of(78);
    const uint64_t wire[2] = {__builtin_bswap64(keys[0]), __builtin_bswap64(other)};
    ck_assert(in_files(&wire[0], 8));
    ck_assert(t->ops->remove(t, keys, 3));
    uint8_t records[3 * BYTES], want[BYTES];
    bool found[3];
    ck_assert(t->ops->get(t, keys, 3, BYTES, records, found) && !found[0] && !found[1] && !found[2]);
    ck_assert(!in_files(&wire[0], 8));
    ck_assert(in_files(&wire[1], 8));
    ck_assert(t->ops->get(t, &other, 1, BYTES, records, found) && found[0]);
    record_of(78, 8, want);
    ck_assert_mem_eq(records, want, BYTES);
    pn_tier_unref(t);
} END_TEST

START_TEST(a_place_that_cannot_be_written_is_named) {
    struct pn_tiers *tiers = pn_tiers_rocksdb("/proc/nowhere/tier");
    struct pn_tier *t = NULL;
    struct pn_error err = {""};
    ck_assert_int_eq(tiers->open(tiers, "a", 8, &t, &err), PN_IO);
    ck_assert(strstr(err.text, "/proc/nowhere/tier") != NULL);
} END_TEST

int main(void) {
    snprintf(dir, sizeof dir, "/tmp/pinion-tier-%d", (int)getpid());
    Suite *s = suite_create("tier");
    TCase *c = tcase_create("rocksdb");
    tcase_set_timeout(c, 120);
    tcase_add_test(c, the_last_put_is_found_and_scanned);
    tcase_add_test(c, a_removed_record_is_gone_from_the_files_too);
    tcase_add_test(c, a_place_that_cannot_be_written_is_named);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    char command[300];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    if (system(command) != 0) failed++;
    return failed ? 1 : 0;
}
