/* Metrics of scores; model.h says what each is. */
#include <math.h>
#include <stdlib.h>
#include "nn/model.h"

struct scored { float score, label; };

/* What is no number stands behind all others, so that orders are total and runs of equal scores end. Who would act upon a figure looks for such scores first (worker/evaluate.c). */
static float ordered(float score) { return isnan(score) ? -INFINITY : score; }

static int by_score(const void *a, const void *b) {
    float x = ((const struct scored *)a)->score, y = ((const struct scored *)b)->score;
    return x < y ? -1 : x > y;
}

/* Mann-Whitney: the share of (positive, negative) pairs in right order; a run of equal scores counts its pairs half. */
double pn_auc(const float *scores, const float *labels, size_t n) {
    struct scored *s = malloc((n + 1) * sizeof *s);
    if (s == NULL) return NAN;
    for (size_t i = 0; i < n; i++) s[i] = (struct scored){ordered(scores[i]), labels[i]};
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

static double mean(const float *x, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i];
    return n > 0 ? sum / (double)n : NAN;
}

double pn_normalised_entropy(const float *scores, const float *labels, size_t n) {
    const double p = mean(labels, n);
    return p > 0 && p < 1 ? pn_log_loss(scores, labels, n) / -(p * log(p) + (1 - p) * log(1 - p)) : NAN;
}

double pn_calibration(const float *scores, const float *labels, size_t n) {
    const double p = mean(labels, n);
    return p > 0 ? mean(scores, n) / p : NAN;
}

double pn_calibration_error(const float *scores, const float *labels, size_t n, size_t n_bins) {
    double gap[1000] = {0}, error = 0; /* sum of score - label in a bin: its share of rows times the difference of the means, times n */
    if (n_bins == 0 || n_bins > 1000 || n == 0) return NAN;
    for (size_t i = 0; i < n; i++) {
        const double s = (double)scores[i] * (double)n_bins;
        const size_t bin = !(s > 0) ? 0 : s >= (double)n_bins ? n_bins - 1 : (size_t)s;
        gap[bin] += (double)scores[i] - (double)labels[i];
    }
    for (size_t b = 0; b < n_bins; b++) error += fabs(gap[b]);
    return error / (double)n;
}

/* ---- by group ---- */
struct ranked { uint64_t group; float score, label; };

/* Groups together; in a group the best score first, and of equal scores the negatives. */
static int by_place(const void *a, const void *b) {
    const struct ranked *x = a, *y = b;
    if (x->group != y->group) return x->group < y->group ? -1 : 1;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return (x->label > 0.5f) - (y->label > 0.5f);
}

static struct ranked *ranked(const float *scores, const float *labels, const uint64_t *groups, size_t n) {
    struct ranked *r = malloc((n + 1) * sizeof *r);
    if (r == NULL) return NULL;
    for (size_t i = 0; i < n; i++) r[i] = (struct ranked){groups[i], ordered(scores[i]), labels[i]};
    qsort(r, n, sizeof *r, by_place);
    return r;
}

/* AUC of a group in order: as pn_auc, from the top. */
static double auc_of(const struct ranked *r, size_t n) {
    double above = 0, pairs = 0, negatives = 0;
    for (size_t i = 0; i < n;) {
        double p = 0, q = 0;
        size_t j = i;
        for (; j < n && r[j].score == r[i].score; j++) {
            if (r[j].label > 0.5f) p++;
            else q++;
        }
        pairs += q * (above + 0.5 * p);
        negatives += q;
        above += p;
        i = j;
    }
    return above > 0 && negatives > 0 ? pairs / (above * negatives) : NAN;
}

double pn_group_auc(const float *scores, const float *labels, const uint64_t *groups, size_t n) {
    struct ranked *r = ranked(scores, labels, groups, n);
    double sum = 0, rows = 0;
    for (size_t i = 0, j; r != NULL && i < n; i = j) {
        for (j = i; j < n && r[j].group == r[i].group;) j++;
        const double auc = auc_of(r + i, j - i);
        if (isnan(auc)) continue;
        sum += auc * (double)(j - i);
        rows += (double)(j - i);
    }
    free(r);
    return rows > 0 ? sum / rows : NAN;
}

struct pn_ranking pn_rank_metrics(const float *scores, const float *labels, const uint64_t *groups, size_t n, size_t k) {
    struct pn_ranking m = {0};
    struct ranked *r = ranked(scores, labels, groups, n);
    for (size_t i = 0, j; r != NULL && i < n; i = j) {
        size_t positives = 0, found = 0, first = 0;
        double gain = 0, best = 0;
        for (j = i; j < n && r[j].group == r[i].group; j++) {
            const size_t place = j - i + 1;
            if (!(r[j].label > 0.5f)) continue;
            if (positives++ == 0) first = place;
            if (place > k) continue;
            found++;
            gain += 1 / log2((double)place + 1);
        }
        if (positives == 0) continue;
        for (size_t place = 1; place <= positives && place <= k; place++) best += 1 / log2((double)place + 1);
        m.n_groups++;
        m.hit += found > 0;
        m.recall += (double)found / (double)positives;
        m.ndcg += best > 0 ? gain / best : 0;
        m.mrr += 1 / (double)first;
    }
    free(r);
    const double groups_counted = m.n_groups > 0 ? (double)m.n_groups : NAN;
    m.hit /= groups_counted;
    m.recall /= groups_counted;
    m.ndcg /= groups_counted;
    m.mrr /= groups_counted;
    return m;
}
