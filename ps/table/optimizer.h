/* One optimizer step on one row: gradient, state and values in one pass. Plain element-wise arithmetic without
 * contraction or reassociation, so that every machine computes the same bits. */
#ifndef PN_PS_TABLE_OPTIMIZER_H
#define PN_PS_TABLE_OPTIMIZER_H

#include "job/job.h"

/* Floats of state behind the dim values of a row:
 *   sgd 0; adagrad dim (sums of squares); rowwise adagrad 1 (sum of mean squares);
 *   adam and adamw 2 * dim + 1 (m, v, the row's own count of steps); ftrl 2 * dim (z, n); momentum dim (velocity). */
uint32_t pn_optimizer_state_floats(const struct pn_optimizer_spec *, uint32_t dim);
/* The state of a new row whose values are there. FTRL: z such that its closed form gives those values. */
void pn_optimizer_start(const struct pn_optimizer_spec *, uint32_t dim, const float *values, float *state);
/* A row is its dim values and behind them its state. Rows must differ. */
void pn_optimizer_step(const struct pn_optimizer_spec *, uint32_t dim, float *row, const float *gradient);
/* l2: NULL, or for each row what stands in for the optimizer's l2 in this step (lazy decay). */
void pn_optimizer_steps(const struct pn_optimizer_spec *, uint32_t dim, float *const *rows, const float *const *gradients, const float *l2, size_t n);

/* The share of lr at a step of the producer that pushes, by the optimizer's schedule: 1 without one. The same on every machine. */
float pn_optimizer_pace(const struct pn_optimizer_spec *, uint64_t step);

/* Element i_element of the first values of a row is a function of (init_seed, key, i_element) only. */
void pn_init_row(const struct pn_table_spec *, uint64_t key, float *values);

#endif
