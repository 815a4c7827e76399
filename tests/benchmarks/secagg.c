/* Secure sums: a campaign of whole rounds in the simulator, what one costs, and what a mask costs.
 *   bench-secagg rounds N [SEED]     N small rounds with random cohorts, drop-outs at random phases up to the limit and (every fourth round) above it
 *   bench-secagg cost N VALUES       one round of N workers, 10 % of which drop out behind the shares; CPU seconds of each part and bytes sent
 *   bench-secagg layout N            degree and threshold for N (for the peer's program)
 *   bench-secagg masks               ChaCha20, and what libsodium has of AES, for 4 MiB
 *   bench-secagg noise               milliseconds for 1M values */
#include <math.h>
#include "privacy/discrete.h"
#include "privacy/secagg/fixed.h"
#include "tests/benchmarks/workload.h"
#include "tests/unit/secagg/world.h"

static int rounds(uint64_t n, uint64_t seed) {
    uint64_t good = 0, refused = 0, over = 0, dropped = 0, by_phase[6] = {0};
    static const int at[] = {PN_AGG_ROUND, PN_AGG_LIST, PN_AGG_DELIVER, -1, PN_AGG_SURVIVORS, PN_AGG_PROOF};
    for (uint64_t r = 0; r < n; r++) {
        struct pn_rng rng = {pn_mix64(seed + r)};
        const uint32_t workers = r % 100 == 99 ? 30 + (uint32_t)(pn_rng_next(&rng) % 20) : 4 + (uint32_t)(pn_rng_next(&rng) % 8);
        const uint32_t servers = 1 + (uint32_t)(pn_rng_next(&rng) % 3);
        struct world *w = w_open(seed + r, workers, servers, 16 * servers + pn_rng_next(&rng) % 40, pn_rng_next(&rng) % 4 == 0 ? 8 : 4);
        struct pn_error err;
        do { /* terms that can hold */
            w->terms.max_dropout = .34 * pn_rng_uniform(&rng);
            w->terms.max_colluding = .25 * pn_rng_uniform(&rng);
        } while (pn_agg_terms_check(&w->terms, &err) != PN_OK);
        const uint32_t limit = workers - pn_agg_fewest(&w->terms);
        const bool above = r % 4 == 3;
        const uint32_t drops = above ? limit + 1 + (uint32_t)(pn_rng_next(&rng) % (workers - limit)) : (uint32_t)(pn_rng_next(&rng) % (limit + 1));
        for (uint32_t d = 0; d < drops && d < workers;) {
            const uint32_t i = (uint32_t)(pn_rng_next(&rng) % workers);
            if (w->dies_at[i] != 0) continue;
            const uint32_t phase = (uint32_t)(pn_rng_next(&rng) % (above ? 3 : 6)); /* too many before the survivors are known */
            if (above || at[phase] != -1 || servers > 1) by_phase[phase]++;
            w->dies_at[i] = at[phase];
            d++;
        }
        w->terms.phase_ms = 10000;
        w->loss_permille = (unsigned)(pn_rng_next(&rng) % 3 == 0 ? 50 : 0);
        w->repeat_permille = (unsigned)(pn_rng_next(&rng) % 3 == 0 ? 100 : 0);
        w->delay_ms = pn_rng_next(&rng) % 30;
        if (w_start(w, &err) != PN_OK) {
            printf("round %llu: %s\n", (unsigned long long)(seed + r), err.text);
            return 1;
        }
        w_run(w);
        const bool right = above ? w->result != PN_OK && !w_any_released(w) : w->result == PN_OK && w->n_survivors >= workers - drops && w_sum_is_right(w);
        if (!right) {
            printf("round %llu: %u workers, %u servers, %u dropped of at most %u: result %d (%s), %u survivors, sum %s\n", (unsigned long long)(seed + r), workers, servers, drops, limit,
                   (int)w->result, w->line, w->n_survivors, w_sum_is_right(w) ? "right" : "wrong");
            return 1;
        }
        good += !above;
        over += above;
        refused += above;
        dropped += drops;
        w_close(w);
    }
    fprintf(stderr, "simulated %llu rounds: %llu sums equal bit for bit, %llu above the limit released nothing; %llu workers dropped (before keys %llu, shares %llu, masks %llu, between segments %llu, signing %llu, revealing %llu)\n",
           (unsigned long long)n, (unsigned long long)good, (unsigned long long)refused, (unsigned long long)dropped, (unsigned long long)by_phase[0], (unsigned long long)by_phase[1],
           (unsigned long long)by_phase[2], (unsigned long long)by_phase[3], (unsigned long long)by_phase[4], (unsigned long long)by_phase[5]);
    report("secagg.rounds", (double)good, "sums equal bit for bit", -1, NULL);
    report("secagg.rounds.above", (double)over, "rounds above the limit, nothing released", -1, NULL);
    return 0;
}

static int cost(uint32_t n, size_t values) {
    struct world *w = w_open(1, n, 2, values, 4);
    struct pn_error err;
    const uint32_t drops = n / 10;
    for (uint32_t d = 0; d < drops; d++) w->dies_at[d * 10 + 3] = PN_AGG_DELIVER;
    w->terms.phase_ms = 600; /* clipping and rounding are part of a worker's cost: measured by themselves below, and added */
    if (w_start(w, &err) != PN_OK) return fprintf(stderr, "%s\n", err.text), 1;
    w_run(w);
    if (w->result != PN_OK || !w_sum_is_right(w) || w->n_survivors != n - drops) return fprintf(stderr, "the round failed: %s\n", w->line), 1;
    double most = 0, sum = 0, all_servers = 0, bytes = 0;
    uint32_t counted = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (!w->survivors[i]) continue;
        const struct node *node = &w->nodes[w_worker(i)];
        sum += node->cpu_s;
        counted++;
        if (node->cpu_s > most) most = node->cpu_s;
        if ((double)node->sent_bytes > bytes) bytes = (double)node->sent_bytes;
    }
    for (uint32_t s = 0; s < w->terms.n_servers; s++) all_servers += w->nodes[w_server(w, s)].cpu_s;
    double *x = malloc(values * sizeof *x);
    uint32_t *draws = malloc(values * sizeof *draws), *words = malloc(values * sizeof *words);
    struct pn_fixed f = {.range = 1, .scale = 1 << 20, .word_bytes = 4};
    for (size_t i = 0; i < values; i++) x[i] = (double)(i % 2001) / 1000 - 1;
    size_t clipped;
    const double begin = w_cpu();
    uint8_t seed[32]; /* randombytes_buf alone takes ten times as long: it asks the kernel for every byte */
    randombytes_buf(seed, sizeof seed);
    randombytes_buf_deterministic(draws, values * sizeof *draws, seed);
    if (pn_fixed_encode(&f, x, values, draws, words, &clipped, &err) != PN_OK) return 1;
    const double encode = w_cpu() - begin;
    char name[80];
#define REPORT(what, v, unit) (snprintf(name, sizeof name, "secagg.%u." what, n), report(name, v, unit, -1, NULL))
    REPORT("worker", sum / counted + encode, "CPU s a worker, mean");
    REPORT("worker.most", most + encode, "CPU s, the slowest worker");
    REPORT("servers", all_servers, "CPU s, all servers");
    REPORT("coordinator", w->nodes[0].cpu_s, "CPU s");
    REPORT("bytes", bytes / (double)(values * 4), "x the plain 32-bit vector");
    REPORT("round", (sum / counted + encode) * n + all_servers + w->nodes[0].cpu_s, "CPU s, all parts");
    w_close(w);
    free(x);
    free(draws);
    free(words);
    return 0;
}

static int masks(void) {
    enum { BYTES = 4 << 20 };
    uint8_t *out = aligned_alloc(64, BYTES), *in = calloc(1, BYTES), seed[32], tag[16], nonce[12] = {0};
    memset(out, 0, BYTES);
    randombytes_buf(seed, sizeof seed);
    struct pn_mask m = {.sign = 1};
    memcpy(m.seed, seed, 32);
    double best[3] = {9, 9, 9};
    crypto_aead_aes256gcm_state *aes = aligned_alloc(16, (sizeof *aes + 15) / 16 * 16);
    for (int r = 0; r < 20; r++) {
        double t[4] = {w_cpu()};
        crypto_stream_chacha20_xor_ic(out, in, BYTES, nonce, 0, seed);
        t[1] = w_cpu();
        pn_mask_add(out, 4, 0, BYTES / 4, &m, 1);
        t[2] = w_cpu();
        if (crypto_aead_aes256gcm_is_available() && crypto_aead_aes256gcm_beforenm(aes, seed) == 0) crypto_aead_aes256gcm_encrypt_detached_afternm(out, tag, NULL, in, BYTES, NULL, 0, NULL, nonce, aes);
        t[3] = w_cpu();
        for (int i = 0; i < 3; i++)
            if (t[i + 1] - t[i] < best[i]) best[i] = t[i + 1] - t[i];
    }
    report("secagg.chacha20", best[0] * 1e3, "ms for 4 MiB of stream", -1, NULL);
    report("secagg.mask", best[1] * 1e3, "ms for 1M masked values", -1, NULL);
    if (crypto_aead_aes256gcm_is_available()) report("secagg.aes256gcm", best[2] * 1e3, "ms for 4 MiB, with its tag", -1, NULL);
    free(out);
    free(in);
    free(aes);
    return 0;
}

static int noise(void) {
    enum { N = 1000000 };
    static int32_t v[N];
    struct pn_discrete *s;
    struct pn_discrete_table *t;
    if (pn_discrete_open(&s, NULL) != PN_OK || pn_discrete_table_gaussian(&t, 30, NULL) != PN_OK) return 1;
    double at = w_cpu();
    pn_discrete_table_draw(s, t, v, N);
    report("noise.gaussian", (w_cpu() - at) * 1e3, "ms for 1M values, sigma 30", -1, NULL);
    pn_discrete_table_close(t);
    if (pn_discrete_table_skellam(&t, 30, NULL) != PN_OK) return 1;
    at = w_cpu();
    pn_discrete_table_draw(s, t, v, N);
    report("noise.skellam", (w_cpu() - at) * 1e3, "ms for 1M values, sigma 30", -1, NULL);
    pn_discrete_table_close(t);
    at = w_cpu();
    for (int i = 0; i < N / 10; i++) v[i] = (int32_t)pn_discrete_exact(s, 900, 1);
    report("noise.exact", (w_cpu() - at) * 1e4, "ms for 1M values, sigma 30", -1, NULL);
    pn_discrete_close(s);
    return 0;
}

int main(int argc, char **argv) {
    if (sodium_init() < 0) return 1;
    const char *what = argc > 1 ? argv[1] : "";
    if (strcmp(what, "rounds") == 0 && argc >= 3) return rounds(strtoull(argv[2], NULL, 10), argc > 3 ? strtoull(argv[3], NULL, 10) : 1);
    if (strcmp(what, "cost") == 0 && argc == 4) return cost((uint32_t)strtoul(argv[2], NULL, 10), strtoull(argv[3], NULL, 10));
    if (strcmp(what, "masks") == 0) return masks();
    if (strcmp(what, "noise") == 0) return noise();
    if (strcmp(what, "layout") == 0 && argc == 3) {
        const uint32_t n = (uint32_t)strtoul(argv[2], NULL, 10);
        uint32_t k, t;
        struct pn_error err;
        if (pn_agg_params(n, n / 5, n / 10, 40, 40, &k, &t, &err) != PN_OK) return fprintf(stderr, "%s\n", err.text), 1;
        printf("%u %u\n", k, t);
        return 0;
    }
    fprintf(stderr, "bench-secagg rounds N [SEED] | cost N VALUES | layout N | masks | noise\n");
    return 2;
}
