/* One client process and one server process (bench-server) over tcp on loopback.
 *   bench-wire ADDRESS... [--rows N] [--dim D] [--raw KEYS] [--in-flight K] [--seconds S] [--op pull|push|fill|check] [--name NAME]
 *   several addresses: shards of as many slots each. --pids A,B,..: the servers' processes: CPU time a row of client and servers is reported, too
 *   --seed S and --batches N: which batches are drawn, and how many before they come again
 *   check pushes one batch to new rows, pulls it and compares with what Adagrad makes of it.
 *   fill pushes new rows: [--from RANK] [--batch KEYS] [--producer P]   both ends: [--codec float16] */
#include <getopt.h>
#include <sys/resource.h>
#include <unistd.h>
#include "common/shell/keys.h"
#include "common/shell/shell.h"
#include "ps/client/client.h"
#include "tests/benchmarks/workload.h"

enum { MAX_IN_FLIGHT = 64 };
static struct {
    struct pn_shell *shell;
    struct pn_client *client;
    struct pn_job job;
    struct batch *batches;
    size_t n_batches, next;
    uint64_t n_rows, filled, step;
    uint32_t dim, in_flight, open, producer;
    size_t batch;
    int op; /* 0 pull, 1 push, 2 fill, 3 check */
    double seconds, begin, end;
    const char *during; /* BENCH_DURING: a file that is there while one fills; another measures no longer than that */
    uint64_t rows, requests;
    double *latencies;
    size_t n_latencies;
    float *values;
    int pids[PN_MAX_SHARDS], n_pids;
    double cpu;
    struct slot { float *rows; size_t n; double since; bool blocked; struct pn_client_part part; } slots[MAX_IN_FLIGHT];
} B;

enum { MAX_LATENCIES = 4000000 };

static void done(void *owner, enum pn_result r);

/* CPU seconds of this process and the servers so far, all threads. */
static double cpu_s(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    double s = (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
    for (int i = 0; i < B.n_pids; i++) {
        char path[60];
        unsigned long user = 0, system = 0;
        snprintf(path, sizeof path, "/proc/%d/stat", B.pids[i]);
        FILE *f = fopen(path, "r");
        if (f == NULL || fscanf(f, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2) fprintf(stderr, "no process %d\n", B.pids[i]);
        if (f != NULL) fclose(f);
        s += (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
    }
    return s;
}

static void pulled_to_check(void *owner, enum pn_result r) {
    struct slot *s = owner;
    size_t wrong = r != PN_OK;
    for (size_t i = 0; i < s->n * B.dim; i++) wrong += !(fabsf(s->rows[i] + 0.01f) < 1e-5f); /* one step of Adagrad from 0: the rate, against the gradient */
    if (wrong > 0) {
        fprintf(stderr, "%zu of %zu values are wrong; the first is %g\n", wrong, s->n * B.dim, (double)s->rows[0]);
        exit(1);
    }
    pn_shell_stop(B.shell);
}
static void pushed_to_check(void *owner, enum pn_result r) {
    struct slot *s = owner;
    if (r != PN_OK) exit(1);
    s->part.rows = s->rows;
    pn_client_pull(B.client, UINT32_MAX, 0, &s->part, 1, pulled_to_check, s);
}

static void push(struct slot *s) {
    enum pn_result r = pn_client_push(B.client, B.producer, B.step + 1, false, &s->part, 1, done, s);
    if (r == PN_OK) B.step++;
    s->blocked = r == PN_BUSY; /* the first of 64 is still on its way: again when something comes back */
    if (r == PN_OK || r == PN_BUSY) return;
    fprintf(stderr, "push %llu: %s\n", (unsigned long long)B.step + 1, pn_result_name(r));
    exit(1);
}

static void issue(struct slot *s) {
    const struct batch *b = &B.batches[B.next++ % B.n_batches];
    s->n = b->n;
    s->part = (struct pn_client_part){0, b->n, b->keys, B.op == 0 ? s->rows : B.values, NULL};
    B.open++;
    s->since = now_s();
    if (B.op == 0) pn_client_pull(B.client, UINT32_MAX, 0, &s->part, 1, done, s);
    else push(s);
}

static void done(void *owner, enum pn_result r) {
    struct slot *s = owner;
    if (r != PN_OK) {
        fprintf(stderr, "a request failed: %s\n", pn_result_name(r));
        exit(1);
    }
    double now = now_s();
    B.open--;
    for (uint32_t i = 0; i < B.in_flight; i++)
        if (B.slots[i].blocked) push(&B.slots[i]);
    if (B.begin > 0) {
        B.rows += s->n;
        B.requests++;
        if (B.n_latencies < MAX_LATENCIES) B.latencies[B.n_latencies++] = now - s->since;
    }
    if (B.begin == 0 && B.requests++ == 2 * B.in_flight) { /* warm */
        B.begin = now;
        B.cpu = cpu_s();
        B.requests = 0;
        B.end = now + B.seconds;
    }
    if (B.op == 2 ? B.next < B.n_batches : B.begin == 0 || (now < B.end && (B.during == NULL || access(B.during, F_OK) == 0))) issue(s);
    else if (B.open == 0) {
        B.end = now;
        B.cpu = cpu_s() - B.cpu;
        pn_shell_stop(B.shell);
    }
}

static void start(void *core) {
    (void)core;
    if (B.op == 3) {
        struct slot *s = &B.slots[0];
        s->n = B.batches[0].n;
        s->part = (struct pn_client_part){0, s->n, B.batches[0].keys, B.values, NULL};
        if (pn_client_push(B.client, B.producer, 1, false, &s->part, 1, pushed_to_check, s) != PN_OK) exit(1);
        return;
    }
    for (uint32_t i = 0; i < B.in_flight; i++) issue(&B.slots[i]);
}
static void message(void *core, pn_peer from, struct pn_msg *m) {
    (void)core;
    struct pn_frame f;
    if (pn_frame_open(&f, m->data, m->n_bytes, NULL) != PN_OK) return;
    pn_client_message(B.client, from, m, &f);
    pn_frame_close(&f);
}

int main(int argc, char **argv) {
    static const struct option options[] = {{"rows", 1, 0, 'r'}, {"dim", 1, 0, 'd'}, {"raw", 1, 0, 'k'}, {"in-flight", 1, 0, 'f'}, {"seconds", 1, 0, 's'}, {"op", 1, 0, 'o'},
                                            {"name", 1, 0, 'n'}, {"producer", 1, 0, 'p'}, {"from", 1, 0, 'F'}, {"batch", 1, 0, 'b'}, {"codec", 1, 0, 'c'}, {"pids", 1, 0, 'P'}, {"seed", 1, 0, 'S'}, {"batches", 1, 0, 'B'}, {0}};
    size_t raw = RAW_KEYS, n_batches = 0;
    uint64_t seed = 1;
    const char *name = "ps", *codec = "float32";
    uint32_t incarnation = (uint32_t)time(NULL);
    B.batch = 20000, B.n_rows = 1000000, B.dim = 16, B.in_flight = 4, B.seconds = 3;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 'r') B.n_rows = strtoull(optarg, NULL, 10);
        else if (c == 'd') B.dim = (uint32_t)atoi(optarg);
        else if (c == 'k') raw = strtoull(optarg, NULL, 10);
        else if (c == 'f') B.in_flight = (uint32_t)atoi(optarg);
        else if (c == 's') B.seconds = atof(optarg);
        else if (c == 'o') B.op = strcmp(optarg, "push") == 0 ? 1 : strcmp(optarg, "fill") == 0 ? 2 : strcmp(optarg, "check") == 0 ? 3 : 0;
        else if (c == 'n') name = optarg;
        else if (c == 'c') codec = optarg;
        else if (c == 'S') seed = strtoull(optarg, NULL, 10);
        else if (c == 'B') n_batches = strtoull(optarg, NULL, 10);
        else if (c == 'P')
            for (char *p = strtok(optarg, ","); p != NULL && B.n_pids < (int)PN_MAX_SHARDS; p = strtok(NULL, ",")) B.pids[B.n_pids++] = atoi(p);
        else if (c == 'p') B.producer = (uint32_t)atoi(optarg);
        else if (c == 'F') B.filled = strtoull(optarg, NULL, 10);
        else if (c == 'b') B.batch = strtoull(optarg, NULL, 10);
        else return 2;
    }
    if (optind + 1 > argc || B.in_flight < 1 || B.in_flight > MAX_IN_FLIGHT) return 2;
    struct pn_error err;
    char text[1000], *report_text = NULL;
    snprintf(text, sizeof text, BENCH_JOB, "", (int)B.dim - 1, codec);
    if (pn_job_parse(&B.job, text, strlen(text), "bench", NULL, &report_text, &err) != PN_OK) {
        fprintf(stderr, "%s\n", report_text);
        return 1;
    }
    B.n_batches = B.op == 2 ? (size_t)((B.n_rows - B.filled + B.batch - 1) / B.batch) : n_batches > 0 ? n_batches : raw < 10000 ? 2000 : 100;
    B.batches = malloc(B.n_batches * sizeof *B.batches);
    for (size_t b = 0; B.op == 2 && b < B.n_batches; b++) {
        B.batches[b] = (struct batch){.keys = malloc(B.batch * sizeof(uint64_t))};
        while (B.batches[b].n < B.batch && B.filled < B.n_rows) B.batches[b].keys[B.batches[b].n++] = key_of(B.filled++);
        qsort(B.batches[b].keys, B.batches[b].n, sizeof(uint64_t), by_mix);
    }
    B.during = getenv("BENCH_DURING");
    if (B.op == 2 && B.during != NULL) fclose(fopen(B.during, "w"));
    if (B.op != 2) make_batches(B.batches, B.n_batches, B.n_rows, raw, seed);
    B.latencies = malloc(MAX_LATENCIES * sizeof *B.latencies);
    B.values = malloc((size_t)RAW_KEYS * B.dim * sizeof(float));
    for (size_t i = 0; i < (size_t)RAW_KEYS * B.dim; i++) B.values[i] = B.op == 2 ? 0 : 1e-3f;
    for (uint32_t i = 0; i < B.in_flight; i++) {
        B.slots[i].rows = malloc(raw * B.dim * sizeof(float));
    }
    struct pn_keys *keys = NULL;
    if ((getenv("BENCH_KEYS") != NULL && pn_keys_open(&keys, getenv("BENCH_KEYS"), "client", &err) != PN_OK) || pn_shell_open(&B.shell, "client", NULL, keys, PN_WARN, &err) != PN_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    B.client = pn_client_open(pn_shell_env(B.shell), &B.job, "bench");
    static struct pn_shard_map map;
    for (int i = optind; i < argc && map.n_shards < PN_MAX_SHARDS; i++) {
        snprintf(map.shards[map.n_shards].address, sizeof map.shards[0].address, "%s", argv[i]);
        map.shards[map.n_shards++].term = 1;
    }
    for (uint32_t s = 0; s < PN_SLOTS; s++) map.owner[s] = (uint16_t)(s * map.n_shards / PN_SLOTS);
    pn_client_map(B.client, &map);
    pn_client_producer(B.client, B.producer, incarnation, 1);
    static const struct pn_core_ops ops = {.start = start, .message = message};
    pn_shell_run(B.shell, &ops, &B);
    if (B.op == 2 && B.during != NULL) remove(B.during);
    if (B.op >= 2) return 0;
    if (getenv("BENCH_TAIL")) { /* only the tail of the latencies */
        char tail[100];
        snprintf(tail, sizeof tail, "%s.p50_ms", name);
        report(tail, quantile(B.latencies, B.n_latencies, 0.5) * 1e3, "ms", -1, NULL);
        snprintf(tail, sizeof tail, "%s.p999_ms", name);
        report(tail, quantile(B.latencies, B.n_latencies, 0.999) * 1e3, "ms", -1, NULL);
        snprintf(tail, sizeof tail, "%s.max_ms", name);
        report(tail, quantile(B.latencies, B.n_latencies, 1) * 1e3, "ms", -1, NULL);
        return 0;
    }
    double took = B.end - B.begin;
    char full[100];
    report(name, (double)B.rows / took / 1e6, "Mrows/s", -1, NULL);
    snprintf(full, sizeof full, "%s.requests", name);
    report(full, (double)B.requests / took, "requests/s", -1, NULL);
    if (B.n_pids > 0) {
        snprintf(full, sizeof full, "%s.cpu_ns_per_row", name);
        report(full, B.cpu * 1e9 / (double)B.rows, "ns of client and servers", -1, NULL);
    }
    double p50 = quantile(B.latencies, B.n_latencies, 0.5), p99 = quantile(B.latencies, B.n_latencies, 0.99);
    snprintf(full, sizeof full, "%s.p50", name);
    report(full, p50 * 1e6, "us", -1, NULL);
    snprintf(full, sizeof full, "%s.p99", name);
    report(full, p99 * 1e6, "us", p99 / p50, "p50");
    return 0;
}
