#include "common/progress.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void pn_progress_add(struct pn_progress *p, float score, float label) {
    const double s = (double)score, q = s < 1e-7 ? 1e-7 : s > 1 - 1e-7 ? 1 - 1e-7 : s;
    const double at = ((s > 0 ? log(s) - log1p(-s) : -INFINITY) + 16) * (PN_PROGRESS_BINS / 32.0); /* s = 1: +infinity, the last bin */
    const size_t bin = !(at > 0) ? 0 : at >= PN_PROGRESS_BINS ? PN_PROGRESS_BINS - 1 : (size_t)at;
    const bool positive = label > 0.5f;
    p->rows++;
    p->positives += positive;
    p->loss_sum -= positive ? log(q) : log1p(-q);
    p->score_sum += s;
    p->by_bin[positive][bin]++;
}

void pn_progress_merge(struct pn_progress *p, const struct pn_progress *more) {
    p->rows += more->rows;
    p->positives += more->positives;
    p->loss_sum += more->loss_sum;
    p->score_sum += more->score_sum;
    for (size_t k = 0; k < 2; k++)
        for (size_t b = 0; b < PN_PROGRESS_BINS; b++) p->by_bin[k][b] += more->by_bin[k][b];
}

struct pn_progress_figures pn_progress_figures(const struct pn_progress *p) {
    struct pn_progress_figures f = {.rows = p->rows, .auc = NAN, .logloss = NAN, .ne = NAN, .calibration = NAN, .label_rate = NAN};
    if (p->rows == 0) return f;
    const double n = (double)p->rows, positives = (double)p->positives, rate = positives / n;
    double below = 0, pairs = 0;
    for (size_t b = 0; b < PN_PROGRESS_BINS; b++) {
        pairs += p->by_bin[1][b] * (below + 0.5 * p->by_bin[0][b]);
        below += p->by_bin[0][b];
    }
    f.label_rate = rate;
    f.logloss = p->loss_sum / n;
    if (positives > 0) f.calibration = p->score_sum / positives;
    if (positives > 0 && positives < n) {
        f.auc = pairs / (positives * below);
        f.ne = f.logloss / -(rate * log(rate) + (1 - rate) * log(1 - rate));
    }
    return f;
}

struct json_object *pn_progress_json(const struct pn_progress *p) {
    struct json_object *o = json_object_new_object();
    char *text = malloc(PN_PROGRESS_BINS * 32 + 1);
    size_t n = 0;
    for (size_t b = 0; text != NULL && b < PN_PROGRESS_BINS; b++)
        if (p->by_bin[0][b] > 0 || p->by_bin[1][b] > 0) n += (size_t)snprintf(text + n, 33, "%zx:%x:%x ", b, p->by_bin[0][b], p->by_bin[1][b]);
    if (text != NULL) text[n] = '\0';
    pn_json_add_double(o, "loss_sum", p->loss_sum);
    pn_json_add_double(o, "score_sum", p->score_sum);
    pn_json_add_str(o, "bins", text != NULL ? text : "");
    free(text);
    return o;
}

/* One pass over the bins' text. Without p it only looks whether all is right. */
static bool bins(struct pn_progress *p, const char *text) {
    while (*text != '\0') {
        unsigned long v[3];
        for (int k = 0; k < 3; k++) {
            char *end;
            if (!strchr("0123456789abcdef", *text) || *text == '\0') return false;
            v[k] = strtoul(text, &end, 16);
            if (*end != (k < 2 ? ':' : ' ')) return false;
            text = end + 1;
        }
        if (v[0] >= PN_PROGRESS_BINS || v[1] > UINT32_MAX / 64 || v[2] > UINT32_MAX / 64) return false;
        if (p == NULL) continue;
        p->by_bin[0][v[0]] += (uint32_t)v[1];
        p->by_bin[1][v[0]] += (uint32_t)v[2];
        p->rows += v[1] + v[2];
        p->positives += v[2];
    }
    return true;
}

bool pn_progress_read(struct pn_progress *p, struct json_object *o) {
    const char *text = pn_json_str(o, "bins", NULL);
    const double loss = pn_json_double(o, "loss_sum", NAN), score = pn_json_double(o, "score_sum", NAN);
    if (text == NULL || !isfinite(loss) || !isfinite(score) || !bins(NULL, text)) return false;
    bins(p, text);
    p->loss_sum += loss;
    p->score_sum += score;
    return true;
}
