/* Losses over groups of rows and within a batch; blocks.h says what each is. Sums run in the rows' order: the same bits each time. */
#include <cblas.h>
#include <math.h>
#include <string.h>
#include "nn/net.h"

/* The group that begins at or behind *at: rows [*begin, *end), the first of label 1. False: there is none. */
static bool group(const float *labels, size_t n, size_t *at, size_t *begin, size_t *end) {
    size_t i = *at;
    while (i < n && labels[i] < 0.5f) i++;
    *begin = i;
    if (i == n) return false;
    for (i++; i < n && labels[i] < 0.5f;) i++;
    *at = *end = i;
    return true;
}

/* Without overflow: log(1 + exp(x)). */
static double softplus(double x) { return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x)); }

/* Pairs of a positive row and a negative of its group. */
static size_t count_pairs(const float *labels, size_t n) {
    size_t at = 0, begin, end, pairs = 0;
    while (group(labels, n, &at, &begin, &end)) pairs += end - begin - 1;
    return pairs;
}

size_t pn_loss_terms(enum pn_loss loss, const float *labels, size_t n) {
    if (loss == PN_LOSS_BPR || loss == PN_LOSS_HINGE) return count_pairs(labels, n);
    if (loss != PN_LOSS_SOFTMAX) return n;
    size_t at = 0, begin, end, groups = 0;
    for (; group(labels, n, &at, &begin, &end); groups++) {}
    return groups;
}

double pn_bpr(const float *logits, const float *labels, size_t n, float *gradient) {
    const size_t pairs = count_pairs(labels, n);
    size_t at = 0, begin, end;
    double sum = 0;
    memset(gradient, 0, n * sizeof *gradient);
    while (group(labels, n, &at, &begin, &end))
        for (size_t i = begin + 1; i < end; i++) {
            const double d = (double)logits[begin] - (double)logits[i];
            const float g = (float)(1 / ((1 + exp(d)) * (double)pairs));
            sum += softplus(-d);
            gradient[begin] -= g;
            gradient[i] += g;
        }
    return pairs > 0 ? sum / (double)pairs : 0;
}

double pn_hinge(const float *logits, const float *labels, size_t n, float margin, float *gradient) {
    const size_t pairs = count_pairs(labels, n);
    size_t at = 0, begin, end;
    double sum = 0;
    memset(gradient, 0, n * sizeof *gradient);
    while (group(labels, n, &at, &begin, &end))
        for (size_t i = begin + 1; i < end; i++) {
            const float d = margin - logits[begin] + logits[i];
            if (d <= 0) continue;
            sum += (double)d;
            gradient[begin] -= 1 / (float)pairs;
            gradient[i] += 1 / (float)pairs;
        }
    return pairs > 0 ? sum / (double)pairs : 0;
}

double pn_sampled_softmax(const float *logits, const float *labels, const float *log_q, size_t n, float temperature, float *gradient) {
    const size_t groups = pn_loss_terms(PN_LOSS_SOFTMAX, labels, n);
    size_t at, begin, end;
    double sum = 0;
    memset(gradient, 0, n * sizeof *gradient);
    for (at = 0; group(labels, n, &at, &begin, &end);) {
        float most = -INFINITY;
        double total = 0;
        for (size_t i = begin; i < end; i++) {
            gradient[i] = logits[i] / temperature - (log_q != NULL ? log_q[i] : 0);
            if (gradient[i] > most) most = gradient[i];
        }
        sum -= (double)(gradient[begin] - most);
        for (size_t i = begin; i < end; i++) total += (double)(gradient[i] = expf(gradient[i] - most));
        sum += log(total);
        const float share = (float)(1 / (total * (double)temperature * (double)groups));
        for (size_t i = begin; i < end; i++) gradient[i] *= share;
        gradient[begin] -= 1 / (temperature * (float)groups);
    }
    return groups > 0 ? sum / (double)groups : 0;
}

double pn_in_batch_softmax(const float *pairs, const uint64_t *items, const float *log_q, size_t n, size_t k, float temperature, float *z, float *dpairs) {
    const int rows = (int)n, width = (int)k, step = (int)(2 * k);
    double sum = 0;
    if (n == 0) return 0;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, rows, width, 1 / temperature, pairs, step, pairs + k, step, 0, z, rows);
    for (size_t e = 0; e < n; e++) {
        float *row = z + e * n;
        for (size_t i = 0; i < n; i++) row[i] = i != e && items[i] == items[e] ? -INFINITY : row[i] - (log_q != NULL ? log_q[i] : 0);
        const float most = pn_greatest(row, n, -INFINITY);
        sum -= (double)(row[e] - most);
        const double total = pn_exp_sum(row, n, most);
        sum += log(total);
        const float share = (float)(1 / (total * (double)n));
        for (size_t i = 0; i < n; i++) row[i] *= share;
        row[e] -= 1 / (float)n;
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, width, rows, 1 / temperature, z, rows, pairs + k, step, 1, dpairs, step);
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, rows, width, rows, 1 / temperature, z, rows, pairs, step, 1, dpairs + k, step);
    return sum / (double)n;
}

double pn_net_loss(struct pn_net *net, const struct pn_pass *s, float *scores) {
    const struct pn_job *job = net->job;
    const struct pn_value *logit = &net->values[net->logit], *embedded = &net->values[net->embedded];
    const float *labels = s->batch->labels, *log_q = job->log_q ? s->batch->log_q : NULL;
    if (job->loss == PN_LOSS_BCE) return pn_bce(logit->x, labels, s->n, scores, logit->g);
    pn_bce(logit->x, labels, s->n, scores, NULL);
    double mean = 0;
    switch (job->loss) {
    case PN_LOSS_BCE: break;
    case PN_LOSS_BPR: mean = pn_bpr(logit->x, labels, s->n, logit->g); break;
    case PN_LOSS_HINGE: mean = pn_hinge(logit->x, labels, s->n, job->margin, logit->g); break;
    case PN_LOSS_SOFTMAX: mean = pn_sampled_softmax(logit->x, labels, log_q, s->n, job->temperature, logit->g); break;
    case PN_LOSS_IN_BATCH: /* each field has one key an example: the second field's begin behind the first's */
        mean = pn_in_batch_softmax(embedded->x, s->batch->keys + s->n, log_q, s->n, net->k, job->temperature, net->scratch, embedded->g);
        break;
    }
    return mean * (double)s->n;
}
