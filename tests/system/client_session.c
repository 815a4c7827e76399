/* client-session COORDINATOR JOB THREADS STEPS: threads share one session, push counts in every way that there is, give some up, and add up
 * what must be in the tables; then all rows must be exactly that. Table 0 has rows of 4, SGD with rate 1, zero at first. */
#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "client/pinion.h"

enum { KEYS = 300, N = 64, DIM = 4, OPEN = 8 };

static struct pinion_session *S;
static atomic_int counts[KEYS], taken_back, pending, log_lines;
static int n_steps;

#define MUST(call, want) do { struct pinion_error e = {""}, *err = &e; int got = (call); if (got != (want)) { \
    fprintf(stderr, "%s: %s, not %s: %s\n", #call, pinion_code_name(got), pinion_code_name(want), e.text); exit(1); } } while (0)

struct push { uint64_t keys[N]; float rows[N * DIM]; struct pinion_part part; struct pinion_ticket *ticket; };

static uint64_t next(uint64_t *seed) {
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 33;
}

static void fill(struct push *p, uint64_t *seed) {
    for (int i = 0; i < N; i++) p->keys[i] = next(seed) % KEYS;
    for (int i = 0; i < N * DIM; i++) p->rows[i] = -1;
    p->part = (struct pinion_part){0, N, p->keys, p->rows};
}
static void count(const struct push *p) {
    for (int i = 0; i < N; i++) counts[p->keys[i]]++;
}

static void settle(struct push *p, uint64_t *seed) {
    struct pinion_error err = {""};
    int code;
    if (next(seed) % 4 == 0) code = pinion_drop(p->ticket);
    else while ((code = pinion_wait(p->ticket, NULL, 20, &err)) == PINION_DEADLINE) {}
    p->ticket = NULL;
    taken_back += code == PINION_DEADLINE;
    pending += code == PINION_PENDING;
    if (code == PINION_OK || code == PINION_PENDING) count(p);
    else if (code != PINION_DEADLINE) {
        fprintf(stderr, "a push: %s %s\n", pinion_code_name(code), err.text);
        exit(1);
    }
}

static void *work(void *arg) {
    uint64_t seed = (uint64_t)(uintptr_t)arg;
    struct push *open = calloc(OPEN, sizeof *open);
    float rows[N * DIM];
    for (int step = 0; step < n_steps; step++) {
        struct push *p = &open[step % OPEN];
        if (p->ticket != NULL) settle(p, &seed);
        fill(p, &seed);
        if (next(&seed) % 3 == 0) {
            const int code = pinion_push(S, &p->part, 1, NULL, next(&seed) % 8 == 0 ? 0 : -1, NULL);
            if (code == PINION_OK || code == PINION_PENDING) count(p);
            else taken_back++;
        } else {
            MUST(pinion_push_start(S, &p->part, 1, &p->ticket, -1, err), PINION_OK);
        }
        if (step % 5 == 0) {
            struct pinion_part part = {0, N, p->keys, rows};
            struct pinion_ticket *t;
            struct pinion_status status;
            pinion_pull(S, &part, 1, (int)(next(&seed) % 3), NULL); /* answered or given up */
            MUST(pinion_pull_start(S, &part, 1, &t, -1, err), PINION_OK);
            if (step % 2 == 0) pinion_drop(t);
            else MUST(pinion_wait(t, NULL, -1, err), PINION_OK);
            pinion_status(S, &status);
            assert(status.open);
        }
        if (step % 100 == 50) MUST(pinion_checkpoint(S, -1, err), PINION_OK);
    }
    for (int i = 0; i < OPEN; i++)
        if (open[i].ticket != NULL) settle(&open[i], &seed);
    free(open);
    return NULL;
}

static void log_line(void *owner, int level, const char *line) {
    (void)owner; (void)level; (void)line;
    log_lines++;
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    const struct pinion_options options = {.coordinator = argv[1], .job = argv[2], .log = log_line};
    pthread_t threads[16];
    const int n = atoi(argv[3]);
    n_steps = atoi(argv[4]);
    MUST(pinion_open(&S, &options, 30000, err), PINION_OK);
    struct pinion_session *other;
    MUST(pinion_open(&other, &options, 200, err), PINION_DEADLINE); /* there is one producer */
    struct pinion_table tables[2];
    assert(pinion_tables(S, tables, 1) == 2 && tables[0].dim == DIM && strcmp(tables[0].name, "users") == 0);
    for (int i = 0; i < n && i < 16; i++) pthread_create(&threads[i], NULL, work, (void *)(uintptr_t)(i + 1));
    for (int i = 0; i < n && i < 16; i++) pthread_join(threads[i], NULL);
    MUST(pinion_checkpoint(S, 60000, err), PINION_OK); /* also what is pending is in it */
    uint64_t keys[KEYS];
    float rows[KEYS * DIM];
    for (int i = 0; i < KEYS; i++) keys[i] = (uint64_t)i;
    const struct pinion_part part = {0, KEYS, keys, rows};
    MUST(pinion_pull(S, &part, 1, 60000, err), PINION_OK);
    int wrong = 0;
    for (int i = 0; i < KEYS * DIM; i++) wrong += rows[i] != (float)counts[i / DIM];
    struct pinion_status status;
    pinion_status(S, &status);
    printf("held: %d threads, %llu steps, %d taken back, %d given up on their way, %llu replayed\n", n, (unsigned long long)status.clock, taken_back, pending,
           (unsigned long long)status.replays);
    if (wrong > 0) fprintf(stderr, "%d of %d numbers are wrong\n", wrong, KEYS * DIM);
    struct pinion_ticket *left[3]; /* a session may be closed over open tickets */
    for (int i = 0; i < 3; i++) MUST(pinion_pull_start(S, &part, 1, &left[i], -1, err), PINION_OK);
    MUST(pinion_finish(S, 60000, err), PINION_OK);
    MUST(pinion_finish(S, 60000, err), PINION_OK);
    pinion_close(S);
    return wrong > 0;
}
