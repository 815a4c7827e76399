/* SASRec (Kang and McAuley 2018): at each place the encoder's vector is held against the rows of items, the same rows that it reads. Training: the next item against
 * negatives; ranking: the place of the last next item among candidates.
 *   bce      each place against its own negatives: log loss of the next item and, as of 0, of each negative (eq. 7 there)
 *   softmax  against all negatives of the whole batch at once; with all items among them it is the full softmax. A negative that is the next item does not count. */
#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "nn/net.h"
#include "nn/tokens.h"

#define NONE UINT32_MAX
enum { CHUNK = 256 }; /* places whose logits over all negatives are held at once */

static size_t place_of(const struct pn_net *net, uint32_t i_field) {
    size_t i = 0;
    while (net->fields[i] != i_field) i++;
    return i;
}
static const uint32_t *begin_of(const struct pn_net *net, const struct pn_batch *b, uint32_t role) { return b->begin + place_of(net, role - 1) * b->n_examples; }
static uint32_t table_of(const struct pn_net *net) { return net->job->fields[net->fields[0]].i_table; }

static double dot(const float *a, const float *b, size_t k) {
    double sum = 0;
    for (size_t d = 0; d < k; d++) sum += (double)a[d] * (double)b[d];
    return sum;
}
/* The row of each token's target (lists are aligned at their ends); NONE: it has none. */
static void targets_of(const struct pn_net *net, const struct pn_pass *s, uint32_t *target) {
    const uint32_t *begin = begin_of(net, s->batch, net->job->sequence.target);
    for (size_t e = 0, at = 0; e < s->n; e++)
        for (size_t i = 0, m = s->begin[e + 1] - s->begin[e], own = begin[e + 1] - begin[e]; i < m; i++, at++)
            target[at] = i + own < m ? NONE : s->batch->position[begin[e] + i + own - m];
}

/* Each token's target and its own negatives, in one list. *begin, *row: malloc'ed. False: no memory. */
static bool entries_of(const struct pn_net *net, const struct pn_pass *s, const uint32_t *target, uint32_t **begin, uint32_t **row) {
    const uint32_t *negatives = begin_of(net, s->batch, net->job->sequence.negatives);
    *begin = malloc((s->n_tokens + 1) * sizeof **begin);
    *row = malloc((s->n_tokens + negatives[s->n] - negatives[0] + 1) * sizeof **row);
    if (*begin == NULL || *row == NULL) return false;
    uint32_t n = 0;
    for (size_t e = 0, at = 0; e < s->n; e++) {
        const size_t m = s->begin[e + 1] - s->begin[e], each = m > 0 ? (negatives[e + 1] - negatives[e]) / m : 0;
        for (size_t i = 0; i < m; i++, at++) {
            (*begin)[at] = n;
            if (target[at] == NONE) continue;
            (*row)[n++] = target[at];
            for (size_t j = 0; j < each; j++) (*row)[n++] = s->batch->position[negatives[e] + i * each + j];
        }
    }
    (*begin)[s->n_tokens] = n;
    return true;
}

static bool bce(struct pn_net *net, const struct pn_pass *s, const uint32_t *target, double share, double *loss) {
    const uint32_t t = table_of(net);
    uint32_t *begin, *row;
    const bool ok = entries_of(net, s, target, &begin, &row);
    const struct pn_tokens_view v = {.n_tokens = s->n_tokens, .k = net->k, .begin = begin, .row = row};
    if (ok) *loss = pn_token_bce(&v, net->values[net->shared].x, s->rows[t], share, net->values[net->shared].g, s->row_gradients[t]);
    free(begin);
    free(row);
    return ok;
}

/* All rows that a field's lists name, once each; returns how many. mark: n_unique, made here. */
static size_t union_of(const struct pn_batch *b, const uint32_t *begin, size_t n_unique, uint32_t *at, uint8_t *mark) {
    size_t n = 0;
    memset(mark, 0, n_unique);
    for (uint32_t i = begin[0]; i < begin[b->n_examples]; i++) {
        if (mark[b->position[i]]) continue;
        mark[b->position[i]] = 1;
        at[n++] = b->position[i];
    }
    return n;
}

/* The rows at, side by side. */
static void gather(const float *rows, const uint32_t *at, size_t n, size_t k, float *out) {
    for (size_t i = 0; i < n; i++) memcpy(out + i * k, rows + (size_t)at[i] * k, k * sizeof(float));
}

struct shared { uint32_t *at; uint8_t *mark; float *rows, *gradients, *logits; size_t n; };
static void shared_free(struct shared *c) {
    free(c->at);
    free(c->mark);
    free(c->rows);
    free(c->gradients);
    free(c->logits);
}
static bool shared_of(struct pn_net *net, const struct pn_pass *s, struct shared *c) {
    const uint32_t t = table_of(net);
    const size_t n = s->batch->n_unique[t];
    *c = (struct shared){.at = malloc((n + 1) * sizeof *c->at), .mark = malloc(n + 1)};
    if (c->at == NULL || c->mark == NULL) return false;
    c->n = union_of(s->batch, begin_of(net, s->batch, net->job->sequence.negatives), n, c->at, c->mark);
    c->rows = malloc((c->n * net->k + 1) * sizeof(float));
    c->gradients = calloc(c->n * net->k + 1, sizeof(float));
    c->logits = malloc((CHUNK * c->n + 1) * sizeof(float));
    if (c->rows == NULL || c->gradients == NULL || c->logits == NULL) return false;
    gather(s->rows[t], c->at, c->n, net->k, c->rows);
    return true;
}

static bool softmax(struct pn_net *net, const struct pn_pass *s, const uint32_t *target, double share, double *loss) {
    const uint32_t t = table_of(net);
    struct shared c;
    const bool ok = shared_of(net, s, &c);
    const struct pn_tokens_view v = {.n_tokens = s->n_tokens, .k = net->k, .target = target, .at = c.at, .n_at = c.n};
    if (ok) *loss = pn_token_softmax(&v, net->values[net->shared].x, s->rows[t], share, c.rows, c.gradients, c.logits, net->values[net->shared].g, s->row_gradients[t]);
    shared_free(&c);
    return ok;
}

static void score(struct pn_net *net, const struct pn_pass *s, const uint32_t *target, float *scores) {
    pn_token_scores(net->values[net->shared].x, s->rows[table_of(net)], target, s->begin, s->n, net->k, scores);
}

bool pn_sasrec_loss(struct pn_net *net, const struct pn_pass *s, float *scores, double *loss) {
    uint32_t *target = malloc((s->n_tokens + 1) * sizeof *target);
    size_t n = 0;
    *loss = 0;
    if (target == NULL) return false;
    targets_of(net, s, target);
    for (size_t i = 0; i < s->n_tokens; i++) n += target[i] != NONE;
    const double share = n > 0 ? 1 / (double)n : 0;
    const bool ok = net->job->sequence.softmax ? softmax(net, s, target, share, loss) : bce(net, s, target, share, loss);
    *loss *= (double)s->n;
    if (ok) score(net, s, target, scores);
    free(target);
    return ok;
}

/* How many are no number, or infinite. */
static uint32_t count_no_numbers(const float *x, size_t n) {
    uint32_t none = 0;
    for (size_t i = 0; i < n; i++) none += x[i] - x[i] != 0;
    return none;
}

/* The place of z among logits, of which -infinity is no candidate. numbers: all of them are, as they were computed. loss: the cross entropy is wanted too, else it is -1. */
static struct pn_place place_among(const float *logits, size_t n, float z, bool numbers, bool loss) {
    struct pn_place p = {0};
    double sum = 1;
    uint32_t rank = 0, out = 0;
    for (size_t j = 0; j < n; j++) rank += !(logits[j] < z) & (logits[j] != -INFINITY);
    for (size_t j = 0; j < n; j++) out += logits[j] == -INFINITY;
    for (size_t j = 0; loss && j < n; j++) sum += exp((double)logits[j] - (double)z);
    p.rank = rank;
    p.n_candidates = (uint32_t)n - out;
    p.loss = !numbers || z - z != 0 ? NAN : loss ? (float)log(sum) : -1;
    return p;
}

/* Every example against its own candidates. */
static bool rank_own(struct pn_net *net, const struct pn_pass *s, const uint32_t *target) {
    const uint32_t t = table_of(net), *begin = begin_of(net, s->batch, net->job->sequence.negatives);
    const size_t k = net->k;
    size_t widest = 0;
    for (size_t e = 0; e < s->n; e++) widest = begin[e + 1] - begin[e] > widest ? begin[e + 1] - begin[e] : widest;
    float *z = malloc((widest + 1) * sizeof *z);
    for (size_t e = 0; z != NULL && e < s->n; e++) {
        const size_t last = s->begin[e + 1] - s->begin[0], n = begin[e + 1] - begin[e];
        if (s->begin[e] == s->begin[e + 1] || target[last - 1] == NONE) continue;
        const float *v = net->values[net->shared].x + (last - 1) * k;
        const uint32_t *at = s->batch->position + begin[e];
        size_t m = 0;
        for (size_t j = 0; j < n; j++)
            if (at[j] != target[last - 1]) z[m++] = (float)dot(v, s->rows[t] + (size_t)at[j] * k, k);
        net->places[e] = place_among(z, m, (float)dot(v, s->rows[t] + (size_t)target[last - 1] * k, k), count_no_numbers(z, m) == 0, true);
    }
    free(z);
    return z != NULL;
}

/* Every example against the candidates of all, but for what it has had. The cross entropy over thousands of items is left out (NaN): it would take longer than the rest. */
static bool rank_all(struct pn_net *net, const struct pn_pass *s, const uint32_t *target) {
    const uint32_t t = table_of(net), *had = net->job->sequence.seen > 0 ? begin_of(net, s->batch, net->job->sequence.seen) : s->begin;
    const size_t k = net->k, n_rows = s->batch->n_unique[t];
    struct shared c;
    uint32_t *where = malloc((n_rows + 1) * sizeof *where);
    float *last = malloc((CHUNK * k + 1) * sizeof *last);
    const bool ok = shared_of(net, s, &c) && where != NULL && last != NULL;
    if (ok) memset(where, 0xff, n_rows * sizeof *where);
    for (size_t i = 0; ok && i < c.n; i++) where[c.at[i]] = (uint32_t)i;
    for (size_t first = 0; ok && c.n > 0 && first < s->n; first += CHUNK) {
        const size_t m = s->n - first < CHUNK ? s->n - first : CHUNK;
        memset(last, 0, m * k * sizeof *last);
        for (size_t i = 0; i < m; i++)
            if (s->begin[first + i] < s->begin[first + i + 1]) memcpy(last + i * k, net->values[net->shared].x + (size_t)(s->begin[first + i + 1] - s->begin[0] - 1) * k, k * sizeof *last);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)m, (int)c.n, (int)k, 1, last, (int)k, c.rows, (int)k, 0, c.logits, (int)c.n);
        for (size_t i = 0; i < m; i++) {
            const size_t e = first + i;
            const uint32_t own = s->begin[e] < s->begin[e + 1] ? target[s->begin[e + 1] - s->begin[0] - 1] : NONE;
            float *z = c.logits + i * c.n;
            if (own == NONE) continue;
            const bool numbers = count_no_numbers(z, c.n) == 0;
            /* the target's logit is that of its own column, where it is a candidate: ties are ties */
            const float mine = where[own] != NONE ? z[where[own]] : (float)dot(last + i * k, s->rows[t] + (size_t)own * k, k);
            if (where[own] != NONE) z[where[own]] = -INFINITY;
            for (uint32_t j = had[e]; j < had[e + 1]; j++)
                if (where[s->batch->position[j]] != NONE) z[where[s->batch->position[j]]] = -INFINITY;
            net->places[e] = place_among(z, c.n, mine, numbers, false);
        }
    }
    free(where);
    free(last);
    shared_free(&c);
    return ok;
}

bool pn_sasrec_rank(struct pn_net *net, const struct pn_pass *s, float *scores) {
    const uint32_t *begin = begin_of(net, s->batch, net->job->sequence.negatives);
    uint32_t *target = malloc((s->n_tokens + 1) * sizeof *target);
    if (target == NULL) return false;
    targets_of(net, s, target);
    score(net, s, target, scores);
    memset(net->places, 0, s->n * sizeof *net->places);
    /* The first row's candidates are everybody's where no other brings any. One row alone does not tell: it is the rest of data whose batch before did. */
    if (s->n > 1) net->own_candidates = begin[s->n] > begin[1];
    const bool ok = net->own_candidates ? rank_own(net, s, target) : rank_all(net, s, target);
    free(target);
    return ok;
}
