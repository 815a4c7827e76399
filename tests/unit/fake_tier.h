/* A second tier in memory, for tests of the table and for the simulator. One thread. */
#ifndef PN_TESTS_FAKE_TIER_H
#define PN_TESTS_FAKE_TIER_H
#include <stdlib.h>
#include <string.h>
#include "common/tier.h"

struct fake_tier {
    struct pn_tier tier;           /* first */
    uint64_t *keys;                /* [room]: open addressing, power of two; key + 1 (0: empty) */
    uint8_t *records;
    size_t room, n;
    unsigned fail_gets, fail_puts; /* the next so many fail */
    bool *gone;                    /* told when it is destroyed */
};
struct pn_tier_scan { struct fake_tier *t; size_t n, at; uint64_t *keys; };

static inline struct fake_tier *fake_tier_of(struct pn_tier *t) { return (struct fake_tier *)(void *)t; }
static inline size_t fake_tier_place(const struct fake_tier *t, uint64_t key) {
    size_t i = (size_t)(key * 0x9e3779b97f4a7c15ull >> 20) & (t->room - 1);
    while (t->keys[i] != 0 && t->keys[i] != key + 1) i = (i + 1) & (t->room - 1);
    return i;
}
static inline bool fake_tier_get(struct pn_tier *tier, const uint64_t *keys, size_t n, size_t n_bytes, void *records, bool *found) {
    struct fake_tier *t = fake_tier_of(tier);
    if (t->fail_gets > 0 && t->fail_gets--) return false;
    for (size_t i = 0; i < n; i++) {
        const size_t at = fake_tier_place(t, keys[i]);
        found[i] = t->keys[at] != 0;
        if (found[i]) memcpy((uint8_t *)records + i * n_bytes, t->records + at * tier->record_bytes, n_bytes);
    }
    return true;
}
static inline bool fake_tier_put(struct pn_tier *tier, const uint64_t *keys, const void *records, size_t n) {
    struct fake_tier *t = fake_tier_of(tier);
    if (t->fail_puts > 0 && t->fail_puts--) return false;
    for (size_t i = 0; i < n; i++) {
        if (t->n * 2 >= t->room) {
            struct fake_tier old = *t;
            t->room *= 2;
            t->keys = calloc(t->room, sizeof *t->keys);
            t->records = calloc(t->room, tier->record_bytes);
            for (size_t k = 0; k < old.room; k++)
                if (old.keys[k] != 0) {
                    const size_t at = fake_tier_place(t, old.keys[k] - 1);
                    t->keys[at] = old.keys[k];
                    memcpy(t->records + at * tier->record_bytes, old.records + k * tier->record_bytes, tier->record_bytes);
                }
            free(old.keys);
            free(old.records);
        }
        const size_t at = fake_tier_place(t, keys[i]);
        t->n += t->keys[at] == 0;
        t->keys[at] = keys[i] + 1;
        memcpy(t->records + at * tier->record_bytes, (const uint8_t *)records + i * tier->record_bytes, tier->record_bytes);
    }
    return true;
}
static inline bool fake_tier_remove(struct pn_tier *tier, const uint64_t *keys, size_t n) {
    struct fake_tier *t = fake_tier_of(tier), old = *t;
    t->keys = calloc(t->room, sizeof *t->keys); /* all but these are put in again: open addressing knows no holes */
    t->records = calloc(t->room, tier->record_bytes);
    t->n = 0;
    for (size_t i = 0; i < old.room; i++) {
        bool goes = old.keys[i] == 0;
        for (size_t k = 0; k < n; k++) goes = goes || old.keys[i] == keys[k] + 1;
        const uint64_t key = old.keys[i] - 1;
        const unsigned fails = t->fail_puts;
        t->fail_puts = 0;
        if (!goes) fake_tier_put(tier, &key, old.records + i * tier->record_bytes, 1);
        t->fail_puts = fails;
    }
    free(old.keys);
    free(old.records);
    return true;
}
static inline struct pn_tier_scan *fake_tier_scan(struct pn_tier *tier) {
    struct pn_tier_scan *s = calloc(1, sizeof *s);
    s->t = fake_tier_of(tier);
    s->keys = malloc((s->t->n + 1) * sizeof *s->keys);
    for (size_t i = 0; i < s->t->room; i++)
        if (s->t->keys[i] != 0) s->keys[s->n++] = s->t->keys[i] - 1;
    return s;
}
static inline size_t fake_tier_next(struct pn_tier_scan *s, uint64_t *keys, void *records, size_t max, bool *failed) {
    size_t n = 0;
    *failed = s->t->fail_gets > 0 && s->t->fail_gets--;
    if (*failed) return 0;
    for (; n < max && s->at < s->n; n++, s->at++) {
        bool found;
        keys[n] = s->keys[s->at];
        fake_tier_get(&s->t->tier, &keys[n], 1, s->t->tier.record_bytes, (uint8_t *)records + n * s->t->tier.record_bytes, &found);
    }
    return n;
}
static inline void fake_tier_scan_end(struct pn_tier_scan *s) {
    free(s->keys);
    free(s);
}
static inline uint64_t fake_tier_bytes(const struct pn_tier *tier) { return ((const struct fake_tier *)(const void *)tier)->n * tier->record_bytes; }
static inline void fake_tier_destroy(struct pn_tier *tier) {
    struct fake_tier *t = fake_tier_of(tier);
    if (t->gone != NULL) *t->gone = true;
    free(t->keys);
    free(t->records);
    free(t);
}
static const struct pn_tier_ops fake_tier_ops = {.get = fake_tier_get, .put = fake_tier_put, .remove = fake_tier_remove, .scan = fake_tier_scan, .next = fake_tier_next,
                                                 .scan_end = fake_tier_scan_end, .bytes = fake_tier_bytes, .destroy = fake_tier_destroy};
static inline struct pn_tier *fake_tier(size_t record_bytes) {
    struct fake_tier *t = calloc(1, sizeof *t);
    t->tier.ops = &fake_tier_ops;
    t->tier.record_bytes = record_bytes;
    atomic_init(&t->tier.refs, 1);
    t->room = 64;
    t->keys = calloc(t->room, sizeof *t->keys);
    t->records = calloc(t->room, record_bytes);
    return &t->tier;
}
static inline enum pn_result fake_tiers_open(struct pn_tiers *ts, const char *name, size_t record_bytes, struct pn_tier **out, struct pn_error *err) {
    (void)ts;
    (void)name;
    (void)err;
    *out = fake_tier(record_bytes);
    return PN_OK;
}
static struct pn_tiers fake_tiers __attribute__((unused)) = {fake_tiers_open};
#endif
