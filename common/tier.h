/* A store of fixed-size records by 64-bit key, for rows that do not fit in memory. Scratch: empty when opened, gone with its last reference; what must
 * outlive the process is in checkpoints. ps/tier has it over RocksDB; tests in memory. */
#ifndef PN_COMMON_TIER_H
#define PN_COMMON_TIER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/result.h"

struct pn_tier;
struct pn_tier_scan;
struct pn_tier_ops {
    /* found[i]: whether keys[i] is there; then records + i * n_bytes gets the first n_bytes of its record. The owner's thread. False: the store failed. */
    bool (*get)(struct pn_tier *, const uint64_t *keys, size_t n, size_t n_bytes, void *records, bool *found);
    /* Puts n whole records (replaces). Any threads, beside gets and scans. False: the store failed; some may be in. */
    bool (*put)(struct pn_tier *, const uint64_t *keys, const void *records, size_t n);
    /* Removes records for good: also what files have of them. The owner's thread, beside no put of the same keys. False: the store failed. */
    bool (*remove)(struct pn_tier *, const uint64_t *keys, size_t n);
    /* Reads everything once, in any order, each key once; what is put meanwhile may or may not show. Any thread, one at a time. next: how many; 0: the end, or *failed. */
    struct pn_tier_scan *(*scan)(struct pn_tier *); /* NULL: no memory */
    size_t (*next)(struct pn_tier_scan *, uint64_t *keys, void *records, size_t max, bool *failed);
    void (*scan_end)(struct pn_tier_scan *);
    uint64_t (*bytes)(const struct pn_tier *);      /* on disk */
    void (*destroy)(struct pn_tier *);
};
struct pn_tier {
    const struct pn_tier_ops *ops;
    size_t record_bytes;
    _Atomic unsigned refs;      /* 1 when opened; whoever works beside the owner's thread holds one */
};
static inline struct pn_tier *pn_tier_ref(struct pn_tier *t) {
    atomic_fetch_add(&t->refs, 1);
    return t;
}
static inline void pn_tier_unref(struct pn_tier *t) {
    if (t != NULL && atomic_fetch_sub(&t->refs, 1) == 1) t->ops->destroy(t);
}

/* Where tiers come from: one a table. */
struct pn_tiers {
    enum pn_result (*open)(struct pn_tiers *, const char *name, size_t record_bytes, struct pn_tier **, struct pn_error *);
};

#endif
