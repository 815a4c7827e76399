#include "worker/audit.h"
#include <stdio.h>
#include <string.h>
#include "common/hash.h"

void pn_audit_keys(uint32_t producer, uint64_t step, uint64_t n_keys, uint64_t keys[PN_AUDIT_RAW]) {
    for (uint64_t i = 0; i < PN_AUDIT_RAW; i++) keys[i] = pn_mix64(pn_mix64(step * PN_AUDIT_RAW + i) ^ (producer + 1)) % n_keys;
}

void pn_audit_add(uint32_t producer, uint64_t step, float row[PN_AUDIT_DIM]) {
    row[0] += 1;
    row[1] += (float)step;
    row[2] += (float)(step * step % 61);
    row[3] += (float)(producer + 1);
    for (size_t d = 4; d < PN_AUDIT_DIM; d++) row[d] += 1;
}

void pn_audit_expect(uint32_t n_producers, uint64_t steps, uint64_t n_keys, float *out) {
    uint64_t keys[PN_AUDIT_RAW];
    memset(out, 0, n_keys * PN_AUDIT_DIM * sizeof *out);
    for (uint32_t p = 0; p < n_producers; p++)
        for (uint64_t s = 1; s <= steps; s++) {
            pn_audit_keys(p, s, n_keys, keys);
            for (size_t i = 0; i < PN_AUDIT_RAW; i++) pn_audit_add(p, s, out + keys[i] * PN_AUDIT_DIM);
        }
}

int pn_audit_check(uint64_t key, const float *row, const float *expected, char *line, size_t n_line) {
    for (size_t d = 4; d < PN_AUDIT_DIM; d++)
        if (row[d] != row[0]) {
            snprintf(line, n_line, "key %llu: a torn row: dimension %zu is %g, dimension 0 is %g", (unsigned long long)key, d, (double)row[d], (double)row[0]);
            return 1;
        }
    if (memcmp(row, expected, PN_AUDIT_DIM * sizeof *row) == 0) return 0;
    double count = (double)row[0] - (double)expected[0], steps = (double)row[1] - (double)expected[1], producers = (double)row[3] - (double)expected[3];
    if (count == 1 || count == -1)
        snprintf(line, n_line, "key %llu: step %g of producer %g was %s", (unsigned long long)key, steps * count, producers * count - 1, count > 0 ? "applied twice" : "lost");
    else
        snprintf(line, n_line, "key %llu: %+g pushes against the right number %g, their steps differ by %+g, their producers by %+g", (unsigned long long)key, count,
                 (double)expected[0], steps, producers);
    return 1;
}
