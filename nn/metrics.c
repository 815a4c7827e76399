#include <math.h>
#include <stdlib.h>
#include "nn/model.h"

struct scored { float score, label; };

static int by_score(const void *a, const void *b) {
    float x = ((const struct scored *)a)->score, y = ((const struct scored *)b)->score;
    return x < y ? -1 : x > y;
}

/* Mann-Whitney: the share of (positive, negative) pairs in right order; a run of equal scores counts its pairs half. */
double pn_auc(const float *scores, const float *labels, size_t n) {
    struct scored *s = malloc((n + 1) * sizeof *s);
    if (s == NULL) return NAN;
    for (size_t i = 0; i < n; i++) s[i] = (struct scored){scores[i], labels[i]};
    qsort(s, n, sizeof *s, by_score);
    double below = 0, pairs = 0, positives = 0;
    for (size_t i = 0; i < n;) {
        double p = 0, q = 0;
        size_t j = i;
        for (; j < n && s[j].score == s[i].score; j++) {
            if (s[j].label > 0.5f) p++;
            else q++;
        }
        pairs += p * (below + 0.5 * q);
        positives += p;
        below += q;
        i = j;
    }
    free(s);
    return positives > 0 && below > 0 ? pairs / (positives * below) : NAN;
}

double pn_log_loss(const float *scores, const float *labels, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        double p = (double)scores[i];
        p = p < 1e-7 ? 1e-7 : p > 1 - 1e-7 ? 1 - 1e-7 : p;
        sum -= labels[i] > 0.5f ? log(p) : log(1 - p);
    }
    return n > 0 ? sum / (double)n : NAN;
}
