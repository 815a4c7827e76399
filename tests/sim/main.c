/* sim --seeds A..B [--clients | --private [--neighbours] | --secure | --statistics] [--verbose] [--until-failure] [--repeat]: runs seeds, each in a process of its own (a failed assertion of a
 * core is a finding, and a killed node's memory goes with it); prints faults by kind and every seed that broke something. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "common/mutant.h"
#include "tests/sim/sim.h"

struct child { pid_t pid; int fd; uint64_t seed; };

static enum sim_kind kind;

static struct child start(uint64_t seed, bool verbose, bool neighbour) {
    int ends[2];
    if (pipe(ends) != 0) exit(1);
    fflush(NULL);
    struct child c = {.pid = fork(), .fd = ends[0], .seed = seed};
    if (c.pid == 0) {
        close(ends[0]);
        alarm(240); /* a livelock is a finding too */
        struct sim_verdict v = {0};
        sim_neighbour = neighbour;
        sim_scenario(seed, kind, verbose ? stderr : NULL, &v);
        if (write(ends[1], &v, sizeof v) != (ssize_t)sizeof v) _exit(3);
        _exit(0);
    }
    close(ends[1]);
    return c;
}

static struct sim_verdict finish(struct child *c) {
    struct sim_verdict v = {0};
    size_t got = 0;
    while (got < sizeof v) {
        ssize_t n = read(c->fd, (char *)&v + got, sizeof v - got);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        got += (size_t)n;
    }
    close(c->fd);
    int status = 0;
    waitpid(c->pid, &status, 0);
    if (got < sizeof v) {
        memset(&v, 0, sizeof v);
        v.failed = 1;
        if (WIFSIGNALED(status)) snprintf(v.line, sizeof v.line, "process ended by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
        else snprintf(v.line, sizeof v.line, "process ended with status %d", status);
    }
    return v;
}

static void add(struct sim_counts *sum, const struct sim_counts *c) {
    uint64_t *a = (uint64_t *)sum;
    const uint64_t *b = (const uint64_t *)c;
    for (size_t i = 0; i < sizeof *sum / sizeof *a; i++) a[i] += b[i];
}

int main(int argc, char **argv) {
    uint64_t first = 1, last = 100;
    bool verbose = false, until_failure = false, repeat = false, neighbours = false;
    for (int i = 1; i < argc; i++) {
        char *dots;
        if (strcmp(argv[i], "--seeds") == 0 && i + 1 < argc) {
            first = last = strtoull(argv[++i], &dots, 10);
            if (strncmp(dots, "..", 2) == 0) last = strtoull(dots + 2, NULL, 10);
        } else if (strcmp(argv[i], "--verbose") == 0) verbose = true;
        else if (strcmp(argv[i], "--until-failure") == 0) until_failure = true;
        else if (strcmp(argv[i], "--repeat") == 0) repeat = true;
        else if (strcmp(argv[i], "--neighbours") == 0) neighbours = true;
        else if (strcmp(argv[i], "--clients") == 0) kind = SIM_CLIENTS;
        else if (strcmp(argv[i], "--private") == 0) kind = SIM_PRIVATE;
        else if (strcmp(argv[i], "--secure") == 0) kind = SIM_SECURE;
        else if (strcmp(argv[i], "--statistics") == 0) kind = SIM_STATISTICS;
        else {
            fprintf(stderr, "usage: sim --seeds A..B [--clients | --private [--neighbours] | --secure | --statistics] [--verbose] [--until-failure] [--repeat]\n");
            return 2;
        }
    }
    struct sim_counts sum = {0};
    uint64_t failed = 0, ran = 0, virtual_ms = 0, first_failure = 0;
    struct timespec t0, t1;
    clock_gettime(CLOCK_MONOTONIC, &t0);
    struct child running[2];
    int n_running = 0;
    const int at_once = verbose ? 1 : 2;
    for (uint64_t seed = first; seed <= last || n_running > 0;) {
        while (n_running < at_once && seed <= last && !(until_failure && failed > 0)) running[n_running++] = start(seed++, verbose, false);
        if (n_running == 0) break;
        struct child c = running[0];
        running[0] = running[--n_running];
        struct sim_verdict v = finish(&c);
        if (repeat && !v.failed) { /* the same seed twice gives the same trace */
            struct child again = start(c.seed, false, false);
            struct sim_verdict w = finish(&again);
            if (w.trace != v.trace) {
                v.failed = 1;
                snprintf(v.line, sizeof v.line, "the second run of the seed took another way (trace %016llx, then %016llx)",
                         (unsigned long long)v.trace, (unsigned long long)w.trace);
            }
        }
        if (neighbours && !v.failed) { /* with one example another, servers are asked for the same */
            struct child again = start(c.seed, false, true);
            struct sim_verdict w = finish(&again);
            if (w.asked != v.asked) {
                v.failed = 1;
                snprintf(v.line, sizeof v.line, "with one example another, workers asked servers for something else (%016llx, then %016llx)", (unsigned long long)v.asked, (unsigned long long)w.asked);
            }
        }
        ran++;
        virtual_ms += v.virtual_ms;
        add(&sum, &v.counts);
        if (v.failed) {
            failed++;
            if (first_failure == 0 || c.seed < first_failure) first_failure = c.seed;
            printf("seed %llu: %s\n", (unsigned long long)c.seed, v.line);
        } else if (verbose) {
            printf("seed %llu: held, trace %016llx, %llu ms of virtual time\n", (unsigned long long)c.seed, (unsigned long long)v.trace,
                   (unsigned long long)v.virtual_ms);
        }
    }
    clock_gettime(CLOCK_MONOTONIC, &t1);
    double seconds = (double)(t1.tv_sec - t0.tv_sec) + (double)(t1.tv_nsec - t0.tv_nsec) / 1e9;
    if (until_failure) {
        printf("mutant %d: %s after %llu seeds (seed %llu), %.1f s\n", PN_MUTANT, failed > 0 ? "found" : "NOT FOUND", (unsigned long long)ran,
               (unsigned long long)first_failure, seconds);
        return failed > 0 ? 0 : 1;
    }
#define C(name) (unsigned long long)sum.name
    printf("simulated %.1f h in %.1f s: %llu events, %llu messages (%llu lost, %llu doubled, %llu late, %llu damaged, %llu partitioned), "
           "%llu crashes (%llu with power lost), %llu pauses, %llu file operations (%llu failed, %llu fsyncs failed, %llu on a full disk, "
           "%llu torn files, %llu lost names), %llu commits\n",
           (double)virtual_ms / 3.6e6, seconds, C(events), C(sent), C(lost), C(duplicated), C(delayed), C(corrupted), C(partitioned),
           C(crashes), C(power_cuts), C(pauses), C(io), C(io_errors), C(sync_errors), C(disk_full), C(torn), C(names_lost), C(commits));
    printf("%llu seeds held, %llu failed\n", (unsigned long long)(ran - failed), (unsigned long long)failed);
    return failed > 0 ? 1 : 0;
}
