/* From a batch's rows back to the entries that name them: a counting sort, stable, so that sums have one order. */
#include <string.h>
#include "nn/backend.h"

void pn_inverse_build(const uint32_t *rows, const uint32_t *id, size_t n, size_t n_rows, uint32_t *order, uint32_t *chunk_begin, uint32_t *chunk_row, uint32_t *wide_begin,
                      uint32_t counts[2], uint32_t *scratch) {
    uint32_t *at = scratch, n_chunks = 0, n_wide = 0, place = 0;
    memset(at, 0, (n_rows + 1) * sizeof *at);
    for (size_t i = 0; i < n; i++)
        if (rows[i] != UINT32_MAX) at[rows[i]]++;
    for (int several = 1; several >= 0; several--) { /* rows of several chunks first; at[] becomes each row's first place */
        for (size_t r = 0; r < n_rows; r++) {
            const uint32_t many = at[r];
            if (many != 0 && (many & 0x80000000u) == 0 && (many > PN_CHUNK) == several) {
                if (several) wide_begin[n_wide++] = n_chunks;
                for (uint32_t from = 0; from < many; from += PN_CHUNK) {
                    chunk_begin[n_chunks] = place + from;
                    chunk_row[n_chunks++] = (uint32_t)r;
                }
                at[r] = place | 0x80000000u; /* done with */
                place += many;
            }
        }
        if (several) wide_begin[n_wide] = n_chunks;
    }
    chunk_begin[n_chunks] = place;
    for (size_t i = 0; i < n; i++)
        if (rows[i] != UINT32_MAX) order[at[rows[i]]++ & 0x7fffffffu] = id != NULL ? id[i] : (uint32_t)i;
    counts[0] = n_chunks;
    counts[1] = n_wide;
}
