/* Which rows go when there are too many: by age, or the least pushed of a slot. */
#include <stdlib.h>
#include "ps/table/internal.h"

struct candidate { uint32_t frequency, age, i_row; };
/* Least pushed first; of these the longest untouched; of these the oldest number: one order on every machine. */
static int by_worth(const void *a, const void *b) {
    const struct candidate *x = a, *y = b;
    if (x->frequency != y->frequency) return x->frequency < y->frequency ? -1 : 1;
    if (x->age != y->age) return x->age > y->age ? -1 : 1;
    return x->i_row < y->i_row ? -1 : 1;
}

void pn_table_evict(struct pn_table *t, uint32_t i_slot, uint64_t step) {
    if ((t->spec.evict_age == 0 && t->spec.evict_rows == 0) || t->rows.cut || t->cold != NULL) return; /* what the tier has of a row would come back */
    const uint32_t n = t->rows.slots[i_slot].n_rows;
    if (n == 0) return;
    bool *gone = calloc(n, sizeof *gone);
    struct candidate *c = malloc(n * sizeof *c);
    uint32_t n_gone = 0, n_left = 0;
    if (gone && c) {
        for (uint32_t i = 0; i < n; i++) {
            const struct pn_trace *x = pn_trace_of(t, pn_rows_at(&t->rows, (pn_place)i_slot << 32 | i));
            const uint32_t age = (uint32_t)step - x->last_step;
            gone[i] = t->spec.evict_age > 0 && age < 1u << 31 && age > t->spec.evict_age; /* a step ahead of ours is young */
            n_gone += gone[i];
            if (!gone[i]) c[n_left++] = (struct candidate){x->frequency, age < 1u << 31 ? age : 0, i};
        }
        /* A slot's share of the limit; a twentieth below it, so that it is not sorted again with the next row. */
        const uint64_t most = t->spec.evict_rows / PN_SLOTS;
        if (t->spec.evict_rows > 0 && n_left > most) {
            qsort(c, n_left, sizeof *c, by_worth);
            for (uint32_t i = 0; i < n_left - (uint32_t)(most - most / 20); i++, n_gone++) gone[c[i].i_row] = true;
        }
        if (n_gone > 0 && pn_rows_remove(&t->rows, i_slot, gone)) t->counters.evicted += n_gone;
    }
    free(gone);
    free(c);
}
