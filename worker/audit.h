/* The integer oracle (../docs/testing.md): a job whose right answer is known exactly.
 *
 * Producer p at step s pushes, for each of PN_AUDIT_RAW raw keys (drawn from hash(p, s, i) % audit_keys: they repeat),
 * the gradient of pn_audit_row; the table is plain SGD with rate 1 from 0 and each gradient is negated, so the row becomes the
 * exact sum: dim 0 counts, dim 1 sums s, dim 2 sums s*s % 61, dim 3 sums p + 1, dims 4.. repeat dim 0 (a torn row shows).
 * All values stay below 2^24: float32 is exact and order does not matter. */
#ifndef PN_WORKER_AUDIT_H
#define PN_WORKER_AUDIT_H

#include <stddef.h>
#include <stdint.h>

#define PN_AUDIT_RAW 32u
#define PN_AUDIT_DIM 8u

/* The raw keys of a step (PN_AUDIT_RAW of them, repeats included). */
void pn_audit_keys(uint32_t producer, uint64_t step, uint64_t n_keys, uint64_t keys[PN_AUDIT_RAW]);
/* Adds what one raw key of (producer, step) contributes. */
void pn_audit_add(uint32_t producer, uint64_t step, float row[PN_AUDIT_DIM]);
/* Expected table after all producers finished `steps` each: out[n_keys * PN_AUDIT_DIM], overwritten. */
void pn_audit_expect(uint32_t n_producers, uint64_t steps, uint64_t n_keys, float *out);
/* Compares a key's row; returns 0 if right, else writes one line naming the lost or doubled push as far as it can be told. */
int pn_audit_check(uint64_t key, const float *row, const float *expected, char *line, size_t n_line);

#endif
