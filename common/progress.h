/* What scores were worth in a window of a stream: sums and a histogram that add up over workers (progressive validation: each row is scored, then learned).
 *
 * AUC comes from the histogram: PN_PROGRESS_BINS bins of the logit, 1/64 wide, over [-16, 16); rows in one bin count as equal, so that it differs from the exact figure by at
 * most half of the share of (positive, negative) pairs that fall together. The other figures are exact sums. Pure; one thread at a time. */
#ifndef PN_COMMON_PROGRESS_H
#define PN_COMMON_PROGRESS_H

#include "common/json.h"

#define PN_PROGRESS_BINS 2048u

struct pn_progress {
    uint64_t rows, positives;
    double loss_sum, score_sum;                  /* log loss clamped at 1e-7, as pn_log_loss */
    uint32_t by_bin[2][PN_PROGRESS_BINS];        /* rows of label 0, of label 1 */
};
/* NaN: not defined (one class is missing, no row). */
struct pn_progress_figures { uint64_t rows; double auc, logloss, ne, calibration, label_rate; };

/* score: a probability. label: above 0.5 or not. */
void pn_progress_add(struct pn_progress *, float score, float label);
void pn_progress_merge(struct pn_progress *, const struct pn_progress *more);
struct pn_progress_figures pn_progress_figures(const struct pn_progress *);
/* For beats: the sums, and the bins that are not empty as text. */
struct json_object *pn_progress_json(const struct pn_progress *);
/* Adds what pn_progress_json wrote. False: it is no such thing; nothing was added. */
bool pn_progress_read(struct pn_progress *, struct json_object *);

#endif
