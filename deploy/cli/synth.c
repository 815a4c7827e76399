/* `pinion synth`: clicks from a stated random ground truth, so that the best possible AUC is known.
 *
 * p(click) = sigmoid(b + a_user + c_item + <u_user, v_item> + d_hour + e_device), user and item vectors of 4 normal factors with standard deviation .6, biases
 * normal with .5, hours and devices with .3, b = -0.8; items follow Zipf with exponent 1.05, users are uniform. Nobody can rank better than p itself. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "common/hash.h"
#include "deploy/cli/cli.h"
#include "nn/model.h"

#define FACTORS 4

static double normal_of(uint64_t seed, uint64_t what, uint64_t i) {
    struct pn_rng r = {pn_mix64(seed ^ pn_mix64(what * 1000003u + i))};
    return pn_rng_normal(&r);
}

struct world { uint64_t seed, n_items, n_users; double *cumulative; };

static uint64_t draw_item(const struct world *w, struct pn_rng *r) {
    double x = pn_rng_uniform(r) * w->cumulative[w->n_items - 1];
    uint64_t low = 0, high = w->n_items - 1;
    while (low < high) {
        uint64_t middle = (low + high) / 2;
        if (w->cumulative[middle] < x) low = middle + 1;
        else high = middle;
    }
    return low;
}

static double truth(const struct world *w, uint64_t user, uint64_t item, uint64_t hour, uint64_t device) {
    double z = -0.8 + 0.5 * normal_of(w->seed, 1, user) + 0.5 * normal_of(w->seed, 2, item) + 0.3 * normal_of(w->seed, 3, hour) + 0.3 * normal_of(w->seed, 4, device);
    for (uint64_t k = 0; k < FACTORS; k++) z += 0.36 * normal_of(w->seed, 10 + k, user) * normal_of(w->seed, 20 + k, item);
    return 1 / (1 + exp(-z));
}

static const char *const genres[] = {"comedy", "drama", "thriller", "documentary", "music", "sport", "news", "travel"};
static const char *const adjectives[] = {"Quiet", "Bright", "Hidden", "Last", "Golden", "Little", "Northern", "Lost"};
static const char *const nouns[] = {"Harbour", "Garden", "Summer", "Engine", "Letter", "River", "Station", "Winter"};

static void write_part(const struct world *w, const char *dir, const char *name, uint64_t rows, struct pn_rng *r, double *auc, double *loss) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s.csv", dir, name);
    FILE *f = fopen(path, "w");
    if (f == NULL) cli_fail(EXIT_FAILED, "%s cannot be written", path);
    float *p = malloc(rows * sizeof *p), *y = malloc(rows * sizeof *y);
    if (p == NULL || y == NULL) cli_fail(EXIT_FAILED, "no memory for %llu rows", (unsigned long long)rows);
    fprintf(f, "click,user,item,genre,hour,device\n");
    for (uint64_t i = 0; i < rows; i++) {
        uint64_t user = pn_rng_next(r) % w->n_users, item = draw_item(w, r), hour = pn_rng_next(r) % 24, device = pn_rng_next(r) % 3;
        p[i] = (float)truth(w, user, item, hour, device);
        y[i] = pn_rng_uniform(r) < (double)p[i] ? 1.0f : 0.0f;
        fprintf(f, "%d,%llu,%llu,%s,%llu,%llu\n", (int)y[i], (unsigned long long)user, (unsigned long long)item, genres[item % 8], (unsigned long long)hour, (unsigned long long)device);
    }
    if (fclose(f) != 0) cli_fail(EXIT_FAILED, "%s cannot be written: the disk may be full", path);
    *auc = pn_auc(p, y, rows);
    *loss = pn_log_loss(p, y, rows);
    free(p);
    free(y);
}

int verb_synth(const struct cli *c) {
    const char *dir = cli_option(c, "out", NULL);
    if (dir == NULL) cli_fail(EXIT_USAGE, "pinion synth needs --out DIR");
    uint64_t rows = (uint64_t)cli_number(c, "rows", 100000, 100, 1000000000);
    struct world w = {.seed = (uint64_t)cli_number(c, "seed", 1, 0, 1L << 60), .n_items = (uint64_t)cli_number(c, "items", 2000, 2, 10000000),
                      .n_users = (uint64_t)cli_number(c, "users", 1000, 1, 100000000)};
    w.cumulative = malloc(w.n_items * sizeof *w.cumulative);
    if (w.cumulative == NULL) cli_fail(EXIT_FAILED, "no memory");
    double sum = 0;
    for (uint64_t i = 0; i < w.n_items; i++) w.cumulative[i] = sum += pow((double)(i + 1), -1.05);
    mkdir(dir, 0755);
    struct pn_rng r = {pn_mix64(w.seed ^ 0x5e1f)};
    double auc, loss, unused;
    write_part(&w, dir, "train", rows * 8 / 10, &r, &unused, &unused);
    write_part(&w, dir, "validation", rows / 10, &r, &unused, &unused);
    write_part(&w, dir, "test", rows / 10, &r, &auc, &loss);
    char path[600];
    snprintf(path, sizeof path, "%s/items.csv", dir);
    FILE *f = fopen(path, "w");
    if (f == NULL) cli_fail(EXIT_FAILED, "%s cannot be written", path);
    fprintf(f, "item,genre,title\n");
    for (uint64_t i = 0; i < w.n_items; i++)
        fprintf(f, "%llu,%s,%s %s %llu\n", (unsigned long long)i, genres[i % 8], adjectives[pn_mix64(i) % 8], nouns[pn_mix64(i + 7) % 8], (unsigned long long)i);
    fclose(f);
    snprintf(path, sizeof path, "%s/truth.json", dir);
    f = fopen(path, "w");
    if (f == NULL) cli_fail(EXIT_FAILED, "%s cannot be written", path);
    fprintf(f, "{\"rows\":%llu,\"seed\":%llu,\"best_test_auc\":%.6f,\"best_test_logloss\":%.6f}\n", (unsigned long long)rows, (unsigned long long)w.seed, auc, loss);
    fclose(f);
    printf("%llu rows under %s; the best possible test AUC is %.4f (log loss %.4f)\n", (unsigned long long)rows, dir, auc, loss);
    return EXIT_DONE;
}
