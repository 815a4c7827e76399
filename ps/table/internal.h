/* A table's inside, shared by table.c (operations), cold.c (the second tier) and evict.c. */
#ifndef PN_PS_TABLE_INTERNAL_H
#define PN_PS_TABLE_INTERNAL_H

#include "ps/table/filter.h"
#include "ps/table/optimizer.h"
#include "ps/table/rows.h"
#include "ps/table/table.h"

struct pn_cold;
struct pn_table {
    struct pn_table_spec spec;
    uint32_t n_state;          /* floats */
    size_t value_bytes;        /* of a row's values as stored, to whole floats */
    size_t payload_bytes;      /* values and state: what a record holds behind its head */
    struct pn_rows rows;
    struct pn_filter filter;
    struct pn_table_counters counters;
    pn_place *places;          /* scratch of push, seed, restore, scan */
    size_t max_places;
    float *work;               /* storage other than float32: rows as the optimizers take them, PN_WORK_ROWS of them, then their values encoded */
    struct pn_cold *cold;      /* NULL: all rows are in memory */
    void (*begin)(void *owner, uint64_t key, float *values); /* NULL: the initializer's values it is */
    void *begin_owner;
    uint64_t *denied, denied_slots[PN_SLOTS / 64]; /* deny.c: mixed keys, rising; a bit for each slot that has one */
    size_t n_denied;
};

/* A record on its way to or from a file: docs/formats.md. */
struct pn_record { uint64_t key; uint32_t frequency, last_step; uint8_t payload[]; };
/* What a tracked row has behind its payload. */
struct pn_trace { uint32_t frequency, last_step; };
static inline struct pn_trace *pn_trace_of(const struct pn_table *t, void *row) { return (struct pn_trace *)(void *)((uint8_t *)row + t->payload_bytes); }
static inline float *pn_state_of(const struct pn_table *t, void *row) { return (float *)(void *)((uint8_t *)row + t->value_bytes); }

#endif
