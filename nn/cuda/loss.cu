/* Losses.
 *
 * Threads. BCE: one an example, in double as the CPU does (a batch is small beside its rows). Groups (a positive row and the negatives behind it): one thread a positive
 * row, which walks its group; the others leave. Softmax within the batch: one block a row of the n * n logits, which two products make and use. Each example's loss is
 * written down and one block sums them: one order. */
#include "nn/cuda/runtime.cuh"

__device__ static inline double softplus(double x) { return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x)); }
__device__ static inline double log_loss(double z, double y) { return (z > 0 ? z : 0) - z * y + log1p(exp(-fabs(z))); }
__device__ static inline double sigmoid(double z) { return 1 / (1 + exp(-z)); }

struct bce_each {
    const float *logits, *labels, *teacher;
    double taught, t, weight;
    size_t n;
    float *scores, *gradient;
    double *each;
    __device__ void operator()(size_t e) const {
        const double z = (double)logits[e], y = (double)labels[e], p = sigmoid(z), w = teacher == NULL || isnan(teacher[e]) ? 0 : taught;
        const double soft = w > 0 ? sigmoid((double)teacher[e] / t) : 0;
        scores[e] = (float)p;
        each[e] = weight * ((1 - w) * log_loss(z, y) + (w > 0 ? w * t * t * log_loss(z / t, soft) : 0));
        if (gradient != NULL) gradient[e] = (float)(weight * (((1 - w) * (p - y) + (w > 0 ? w * t * (sigmoid(z / t) - soft) : 0)) / (double)n));
    }
};
struct read_double {
    const double *x;
    __device__ double operator()(size_t i) const { return x[i]; }
};
struct put_scaled {
    double scale, *to;
    __device__ void operator()(double sum) const { *to = sum * scale; }
};
static void bce(struct pn_ctx *c, const float *logits, const float *labels, const float *teacher, float taught, float temperature, float weight, size_t n, float *scores,
                float *gradient, double *loss) {
    double *each = (double *)pn_scratch(c, (n + 1) * sizeof *each);
    if (each == NULL) return;
    const struct bce_each f = {logits, labels, teacher, (double)taught, (double)temperature, (double)weight, n, scores, gradient, each};
    pn_each(c, n, f, "log loss");
    const struct read_double all = {each};
    const struct put_scaled done = {1, loss};
    pn_sum(c, n, all, done, "sum of log loss");
}

/* count: positives, pairs (negatives that stand behind a positive). Rows before the first positive are in no group. */
struct group_of {
    const float *labels;
    __device__ bool positive(size_t i) const { return !(labels[i] < 0.5f); }
};
struct is_positive {
    struct group_of g;
    __device__ double operator()(size_t i) const { return g.positive(i) ? 1 : 0; }
};
struct put_count {
    double *to;
    __device__ void operator()(double sum) const { *to = sum; }
};
struct leading { /* one thread: batches begin with a positive row, or soon have one */
    struct group_of g;
    size_t n;
    const double *positives;
    double *pairs;
    __device__ void operator()(size_t) const {
        size_t first = 0;
        while (first < n && !g.positive(first)) first++;
        *pairs = first == n ? 0 : (double)(n - first) - *positives;
    }
};
struct group_each {
    enum pn_group_loss kind;
    struct group_of g;
    const float *logits, *log_q;
    float parameter;
    size_t n;
    const double *count; /* positives, pairs */
    float *gradient;
    double *each;
    __device__ void operator()(size_t b) const {
        each[b] = 0;
        if (!g.positive(b)) {
            size_t i = b; /* a negative writes its own zero only where no positive stands before it */
            while (i > 0 && !g.positive(i)) i--;
            if (!g.positive(i)) gradient[b] = 0;
            return;
        }
        size_t end = b + 1;
        while (end < n && !g.positive(end)) end++;
        float own = 0;
        double sum = 0;
        if (kind == PN_GROUP_SOFTMAX) {
            float most = -INFINITY;
            double total = 0;
            for (size_t i = b; i < end; i++) {
                gradient[i] = logits[i] / parameter - (log_q != NULL ? log_q[i] : 0);
                if (gradient[i] > most) most = gradient[i];
            }
            sum = -(double)(gradient[b] - most);
            for (size_t i = b; i < end; i++) total += (double)(gradient[i] = expf(gradient[i] - most));
            sum += log(total);
            const float share = (float)(1 / (total * (double)parameter * count[0]));
            for (size_t i = b; i < end; i++) gradient[i] *= share;
            gradient[b] -= 1 / (parameter * (float)count[0]);
            each[b] = sum / count[0];
            return;
        }
        for (size_t i = b + 1; i < end; i++) {
            if (kind == PN_GROUP_BPR) {
                const double d = (double)logits[b] - (double)logits[i];
                const float x = (float)(1 / ((1 + exp(d)) * count[1]));
                sum += softplus(-d);
                own -= x;
                gradient[i] = x;
            } else {
                const float d = parameter - logits[b] + logits[i];
                const float x = d > 0 ? 1 / (float)count[1] : 0;
                sum += d > 0 ? (double)d : 0;
                own -= x;
                gradient[i] = x;
            }
        }
        gradient[b] = own;
        each[b] = end > b + 1 ? sum / count[1] : 0;
    }
};
static void group_loss(struct pn_ctx *c, enum pn_group_loss kind, const float *logits, const float *labels, const float *log_q, float parameter, size_t n, float *gradient,
                       double *loss) {
    double *each = (double *)pn_scratch(c, (n + 2) * sizeof *each), *count = each + n;
    if (each == NULL) return;
    const struct group_of g = {labels};
    const struct is_positive positive = {g};
    const struct put_count to = {count};
    pn_sum(c, n, positive, to, "count of groups");
    const struct leading pairs = {g, n, count, count + 1};
    pn_each(c, 1, pairs, "count of pairs");
    const struct group_each f = {kind, g, logits, log_q, parameter, n, count, gradient, each};
    pn_each(c, n, f, "loss of groups");
    const struct read_double all = {each};
    const struct put_scaled done = {(double)n, loss};
    pn_sum(c, n, all, done, "sum of losses");
}

__global__ void batch_softmax_kernel(const uint64_t *items, const float *log_q, size_t n, float *z, double *each) {
    PN_SHARED(double, part);
    const size_t e = blockIdx.x;
    float *row = z + e * n, most = -INFINITY;
    for (size_t i = threadIdx.x; i < n; i += blockDim.x) {
        row[i] = i != e && items[i] == items[e] ? -INFINITY : row[i] - (log_q != NULL ? log_q[i] : 0);
        most = row[i] > most ? row[i] : most;
    }
    most = pn_most_block(most, part);
    const double own = (double)(row[e] - most);
    double total = 0;
    __syncthreads(); /* all have read row[e] */
    for (size_t i = threadIdx.x; i < n; i += blockDim.x) total += (double)(row[i] = expf(row[i] - most));
    total = pn_sum_block(total, part);
    const float share = (float)(1 / (total * (double)n));
    for (size_t i = threadIdx.x; i < n; i += blockDim.x) row[i] = row[i] * share - (i == e ? 1 / (float)n : 0);
    if (threadIdx.x == 0) each[e] = log(total) - own;
}
static void in_batch_softmax(struct pn_ctx *c, const float *pairs, const uint64_t *items, const float *log_q, size_t n, size_t k, float temperature, float *z, float *dpairs,
                             double *loss) {
    struct pn_gemm g = {};
    if (n > 0) {
        g.trans_b = true, g.m = g.n = n, g.k = k, g.lda = g.ldb = 2 * k, g.ldc = n, g.alpha = 1 / temperature, g.a = pairs, g.b = pairs + k, g.c = z;
        pn_multiply(c, &g);
    }
    double *each = (double *)pn_scratch(c, (n + 1) * sizeof *each); /* behind the product: it may use the scratch */
    if (each == NULL) return;
    if (n > 0) PN_LAUNCH(batch_softmax_kernel, (unsigned)n, 256, 256 * sizeof(double), pn_compute(c), items, log_q, n, z, each);
    pn_launched(c, "softmax in the batch");
    const struct read_double all = {each};
    const struct put_scaled done = {1, loss};
    pn_sum(c, n, all, done, "sum of losses"); /* n times the mean */
    if (n == 0) return;
    struct pn_gemm u = {}, v = {};
    u.m = n, u.n = k, u.k = n, u.lda = n, u.ldb = u.ldc = 2 * k, u.alpha = 1 / temperature, u.beta = 1, u.a = z, u.b = pairs + k, u.c = dpairs, u.kind_a = PN_GRADIENT;
    pn_multiply(c, &u);
    v.trans_a = true, v.m = n, v.n = k, v.k = n, v.lda = n, v.ldb = v.ldc = 2 * k, v.alpha = 1 / temperature, v.beta = 1, v.a = z, v.b = pairs, v.c = dpairs + k;
    v.kind_a = PN_GRADIENT;
    pn_multiply(c, &v);
}

void pn_fill_loss(struct pn_backend *t) {
    t->bce = bce;
    t->group_loss = group_loss;
    t->in_batch_softmax = in_batch_softmax;
}
