/* The second tier of a table: rows beyond the memory limit live in a pn_tier; the most pushed of each slot stay in memory.
 *
 * A row that is in memory is the truth, whatever the tier has of it: promotion copies a row in and leaves the tier's copy to grow old; demotion writes the
 * coldest rows of a slot on a work thread and then takes out of memory those that did not change meanwhile. During a cut nothing is demoted, so that what the
 * tier has of rows that were not in memory at the cut is the cut's, and the scan gives just these. */
#ifndef PN_PS_TABLE_COLD_H
#define PN_PS_TABLE_COLD_H

#include "common/tier.h"
#include "ps/table/internal.h"

struct pn_cold {
    struct pn_tier *tier;
    uint32_t share;             /* rows of a slot that stay in memory */
    uint64_t n_rows;            /* rows that are in the tier alone */
    uint32_t *cut_rows;         /* of each slot, in memory at the cut; NULL: no cut */
    uint64_t cut_n_rows;        /* n_rows at the cut: they may all have come back since, and the cut still has them */
    uint64_t flying[PN_SLOTS / 64]; /* slots with a demotion that is not over: a second one could leave an older copy behind */
    bool failed;                /* the tier lost something: the table is of no use any more */
    /* scratch of a request */
    uint64_t *mixes;
    uint32_t *at;               /* which keys of the request are looked for */
    uint32_t *found_at;         /* by key of the request: 1 + its place in records; 0: not found */
    uint8_t *records;
    uint8_t *nothing;           /* a row of zeros: stands for one that the tier will give */
    bool *found;
    size_t room, record_room;
};

/* Room for a request of n keys. False: no memory. */
bool pn_cold_reserve(struct pn_cold *, size_t n);
/* Looks for keys[cold->at[0..n)]: cold->found[] and the first n_bytes of each record in cold->records. PN_IO: the tier failed; PN_NO_MEMORY. */
enum pn_result pn_cold_get(struct pn_cold *, const uint64_t *keys, size_t n, size_t n_bytes);
void pn_cold_close(struct pn_cold *);
bool pn_cold_cut(struct pn_table *);      /* false: no memory */
void pn_cold_cut_end(struct pn_table *);

#endif
