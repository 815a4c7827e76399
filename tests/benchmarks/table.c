/* The table alone, in this process, on one core, beside what the memory gives: the same rows by row number.
 *   bench-table [--rows N] [--dim D] [--seconds S] [--small-pages] */
#include <getopt.h>
#include "ps/table/optimizer.h"
#include "ps/table/pages.h"
#include "ps/table/table.h"
#include "tests/benchmarks/workload.h"

enum { BATCHES = 200 }; /* enough that the tail does not stay in a cache from round to round */

/* Runs f over all batches again and again; Mrows/s, median over rounds. */
struct run { const struct batch *batches; void *state; float *values; uint32_t dim; };
static double rate(const struct run *r, void (*f)(const struct run *, const struct batch *), double seconds) {
    double rounds[1000], end = now_s() + seconds;
    size_t n = 0;
    for (int i = 0; i < BATCHES; i++) f(r, &r->batches[i]);
    while (n < 3 || (now_s() < end && n < 1000)) {
        double begin = now_s();
        size_t rows = 0;
        for (int i = 0; i < BATCHES; i++) {
            f(r, &r->batches[i]);
            rows += r->batches[i].n;
        }
        rounds[n++] = (double)rows / (now_s() - begin) / 1e6;
    }
    return quantile(rounds, n, 0.5);
}

#define LIMIT_GATHER(DIM)                                                                                                                  \
    for (size_t i = 0; i < b->n; i++) {                                                                                                    \
        if (i + 24 < b->n)                                                                                                                 \
            for (size_t at = 0; at < (DIM); at += 16) __builtin_prefetch(rows + (size_t)b->ranks[i + 24] * (DIM) + at);         \
        memcpy(r->values + i * (DIM), rows + (size_t)b->ranks[i] * (DIM), (DIM) * sizeof(float));                               \
    }
static void limit_gather(const struct run *r, const struct batch *b) {
    const float *rows = r->state;
    if (r->dim == 16) LIMIT_GATHER(16)
    else if (r->dim == 64) LIMIT_GATHER(64)
    else LIMIT_GATHER((size_t)r->dim)
}

static void limit_adagrad(const struct run *r, const struct batch *b) {
    static const struct pn_optimizer_spec o = {.kind = PN_ADAGRAD, .lr = 0.01f, .epsilon = 1e-10f};
    float *rows[256];
    const float *gradients[256];
    for (size_t begin = 0; begin < b->n; begin += 256) {
        size_t n = b->n - begin < 256 ? b->n - begin : 256;
        for (size_t i = 0; i < n; i++) {
            rows[i] = (float *)r->state + (size_t)b->ranks[begin + i] * 2 * r->dim;
            gradients[i] = r->values + (begin + i) * r->dim;
        }
        pn_optimizer_steps(&o, r->dim, rows, gradients, NULL, n);
    }
}

static void table_gather(const struct run *r, const struct batch *b) { pn_table_pull(r->state, b->keys, b->n, r->values); }
static void table_adagrad(const struct run *r, const struct batch *b) {
    if (pn_table_push(r->state, b->keys, r->values, b->n, 1, NULL) != PN_OK) exit(1);
}

int main(int argc, char **argv) {
    static const struct option options[] = {{"rows", 1, 0, 'r'}, {"dim", 1, 0, 'd'}, {"seconds", 1, 0, 's'}, {"small-pages", 0, 0, 'p'}, {0}};
    uint64_t n_rows = 1000000;
    uint32_t dim = 16;
    double seconds = 1;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 'r') n_rows = strtoull(optarg, NULL, 10);
        else if (c == 'd') dim = (uint32_t)atoi(optarg);
        else if (c == 's') seconds = atof(optarg);
        else if (c == 'p') pn_huge_pages = false;
        else return 2;
    }
    struct batch batches[BATCHES];
    make_batches(batches, BATCHES, n_rows, RAW_KEYS, 1);
    uint32_t *row_of = malloc(n_rows * sizeof *row_of);
    for (uint64_t i = 0; i < n_rows; i++) row_of[i] = (uint32_t)i;
    struct pn_rng rng = {7};
    for (uint64_t i = n_rows - 1; i > 0; i--) {
        uint64_t j = pn_rng_next(&rng) % (i + 1);
        uint32_t x = row_of[i];
        row_of[i] = row_of[j];
        row_of[j] = x;
    }
    for (int b = 0; b < BATCHES; b++) /* from here on ranks are numbers of rows */
        for (size_t i = 0; i < batches[b].n; i++) batches[b].ranks[i] = row_of[batches[b].ranks[i]];
    float *values = huge((size_t)RAW_KEYS * dim * sizeof(float), true);
    for (size_t i = 0; i < (size_t)RAW_KEYS * dim; i++) values[i] = 1e-3f;
    const char *pages = pn_huge_pages ? "" : ".4KiB";
    char name[100], size[32];
    size_name(n_rows, dim, size);
    /* the limit is always that of huge pages */
    struct run limit = {batches, huge(n_rows * dim * sizeof(float), true), values, dim};
    double gather_limit = rate(&limit, limit_gather, seconds);
    munmap(limit.state, n_rows * dim * sizeof(float));
    limit.state = huge(n_rows * 2 * dim * sizeof(float), true);
    double adagrad_limit = rate(&limit, limit_adagrad, seconds);
    munmap(limit.state, n_rows * 2 * dim * sizeof(float));

    struct pn_table_spec spec = {.name = "t", .dim = dim, .optimizer = {.kind = PN_ADAGRAD, .lr = 0.01f, .epsilon = 1e-10f}, .init = PN_INIT_ZERO};
    struct pn_table *t = pn_table_open(&spec);
    enum { FILL = 20000 };
    static uint64_t keys[FILL];
    float *first = calloc((size_t)FILL * dim, sizeof(float));
    double begin = now_s(), slowest = 0, peak = 0;
    const double row_bytes = (double)dim * 2 * sizeof(float);
    for (uint64_t at = 0; at < n_rows; at += FILL) {
        size_t n = n_rows - at < FILL ? (size_t)(n_rows - at) : FILL;
        for (size_t i = 0; i < n; i++) keys[i] = key_of(at + i);
        double since = now_s();
        if (pn_table_push(t, keys, first, n, 1, NULL) != PN_OK) return 1;
        if (now_s() - since > slowest) slowest = now_s() - since;
        void *place;
        size_t n_place;
        while (pn_table_ahead(t, &place, &n_place)) pn_pages_back(place, n_place); /* as a server does, on another thread */
        double over = ((double)pn_table_bytes(t) - row_bytes * (double)pn_table_rows(t)) / (double)n_rows;
        if (over > peak) peak = over;
    }
    double filled = now_s() - begin;
    struct run r = {batches, t, values, dim};
    double gather = rate(&r, table_gather, seconds), adagrad = rate(&r, table_adagrad, seconds);
    snprintf(name, sizeof name, "table.gather.%s%s", size, pages);
    report(name, gather, "Mrows/s", gather / gather_limit, "memory limit of this run");
    snprintf(name, sizeof name, "table.adagrad.%s%s", size, pages);
    report(name, adagrad, "Mrows/s", adagrad / adagrad_limit, "memory limit of this run");
    snprintf(name, sizeof name, "table.insert.%s%s", size, pages);
    report(name, (double)n_rows / filled / 1e6, "Mrows/s", -1, NULL);
    snprintf(name, sizeof name, "table.insert_slowest.%s%s", size, pages);
    report(name, slowest * 1e3, "ms for 20,000 new rows", -1, NULL);
    snprintf(name, sizeof name, "table.overhead_bytes_per_row.%.*s%s", (int)(strchr(size, 'x') - size), size, pages);
    report(name, peak, "bytes, at the worst moment of growth, a final row", -1, NULL);
    return 0;
}
