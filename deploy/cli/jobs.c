#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "deploy/cli/cli.h"
#include "job/job.h"

static volatile sig_atomic_t interrupted;
static void on_interrupt(int number) { (void)number; interrupted = 1; }
static void nap(long ms) { nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL); }

static const char *one(const struct cli *c, const char *what) {
    if (c->n_rest != 1) cli_fail(EXIT_USAGE, "pinion %s needs one %s", c->verb, what);
    return c->rest[0];
}

static void print(struct json_object *o) { printf("%s\n", json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE)); }

int verb_status(const struct cli *c) {
    struct json_object *o = cli_must(c, "GET", "/api/v1/status", NULL), *nodes = pn_json_get(o, "nodes"), *jobs = pn_json_get(o, "jobs");
    if (c->json) {
        print(o);
        return EXIT_DONE;
    }
    printf("%-14s %-8s %-6s %-10s %s\n", "NODE", "ROLE", "ALIVE", "ROWS", "HTTP");
    for (size_t i = 0; i < pn_json_length(nodes); i++) {
        struct json_object *n = pn_json_at(nodes, i);
        printf("%-14s %-8s %-6s %-10llu %s\n", pn_json_str(n, "name", ""), pn_json_str(n, "role", ""), pn_json_bool(n, "alive", false) ? "yes" : "no",
               (unsigned long long)pn_json_u64(n, "rows", 0), pn_json_str(n, "http", ""));
    }
    printf("\n%-10s %-24s %-11s %-18s %s\n", "JOB", "NAME", "STATE", "PHASE", "REASON");
    for (size_t i = 0; i < pn_json_length(jobs); i++) {
        struct json_object *j = pn_json_at(jobs, i);
        printf("%-10s %-24s %-11s %-18s %s\n", pn_json_str(j, "id", ""), pn_json_str(j, "name", ""), pn_json_str(j, "state", ""), pn_json_str(j, "phase", ""), pn_json_str(j, "reason", ""));
    }
    return EXIT_DONE;
}

static const char *four_digits(double v, char text[16]) {
    if (isfinite(v)) snprintf(text, 16, "%.4f", v);
    return isfinite(v) ? text : "-";
}

int verb_jobs(const struct cli *c) {
    struct json_object *o = cli_must(c, "GET", "/api/v1/jobs", NULL), *jobs = pn_json_get(o, "jobs");
    if (c->json) {
        print(o);
        return EXIT_DONE;
    }
    printf("%-10s %-24s %-11s %10s %-10s %10s %8s  %s\n", "JOB", "NAME", "STATE", "SAMPLES", "FIGURE", "VALIDATION", "TEST", "REASON");
    for (size_t i = 0; i < pn_json_length(jobs); i++) {
        struct json_object *j = pn_json_at(jobs, i);
        const struct cli_figure *f = cli_figure_first(j);
        char name[32], validation[16], test[16];
        cli_figure_name(j, f, name);
        printf("%-10s %-24s %-11s %10llu %-10s %10s %8s  %s\n", pn_json_str(j, "id", ""), pn_json_str(j, "name", ""), pn_json_str(j, "state", ""), (unsigned long long)pn_json_u64(j, "samples", 0), name,
               four_digits(cli_figure_of(j, "validation", f), validation), four_digits(cli_figure_of(j, "test", f), test), pn_json_str(j, "reason", ""));
    }
    return EXIT_DONE;
}

static bool ended(const char *state) { return strcmp(state, "SUCCEEDED") == 0 || strcmp(state, "FAILED") == 0 || strcmp(state, "CANCELLED") == 0; }

static void progress(struct json_object *j, bool terminal, double seconds) {
    double epoch = (double)pn_json_u64(j, "epoch", 0), epochs = (double)pn_json_u64(j, "epochs", 1), loss = pn_json_double(j, "loss", NAN);
    double rate = pn_json_double(j, "samples_per_s", 0); /* of the last second; at the start and at the end the mean says more */
    if (rate <= 0 || ended(pn_json_str(j, "state", ""))) rate = pn_json_double(j, "samples_per_s_mean", 0);
    char bar[31], metrics[320] = "", figures[200];
    int full = (int)(30 * pn_json_double(j, "progress", 0));
    for (int i = 0; i < 30; i++) bar[i] = i < full ? '#' : '-';
    bar[30] = '\0';
    int n = 0;
    if (isfinite(loss)) n += snprintf(metrics + n, sizeof metrics - (size_t)n, "  loss %.4f", loss);
    if (pn_json_get(j, "lag") != NULL) n += snprintf(metrics + n, sizeof metrics - (size_t)n, "  %llu behind", (unsigned long long)pn_json_u64(j, "lag", 0));
    cli_measured(j, "validation", true, figures, sizeof figures);
    if (figures[0] != '\0') snprintf(metrics + n, sizeof metrics - (size_t)n, "  %s", figures);
    fprintf(stderr, "%s%s%s%s %s, epoch %.0f of %.0f, %llu samples, %.0f samples/s%s, %.0f s%s", terminal ? "\r\033[K" : "", terminal ? "[" : "", terminal ? bar : "",
            terminal ? "]" : "training:", pn_json_str(j, "phase", ""), epoch, epochs, (unsigned long long)pn_json_u64(j, "samples", 0), rate, metrics, seconds,
            terminal ? "" : "\n");
    fflush(stderr);
}

/* Follows a job to its end. quiet: no progress. */
static int follow(const struct cli *c, const char *id, double timeout_s, bool quiet) {
    bool terminal = isatty(2) && getenv("NO_COLOR") == NULL;
    char path[200], url[600];
    snprintf(path, sizeof path, "/api/v1/jobs/%s", id);
    snprintf(url, sizeof url, "%s%s", cli_coordinator(c), path);
    signal(SIGINT, on_interrupt);
    double seconds = 0, shown = -10, silent = 0;
    for (;; nap(100), seconds += 0.1) {
        struct json_object *j = NULL;
        int status = cli_http(url, "GET", NULL, &j);
        if (interrupted) {
            fprintf(stderr, "\ninterrupted; the job goes on: pinion wait %s, pinion cancel %s\n", id, id);
            return EXIT_INTERRUPTED;
        }
        if (status == 404) cli_fail(EXIT_REFUSED, "%s", pn_json_str(j, "error", "no such job"));
        if (status != 200) { /* a coordinator that is being started again */
            silent += 0.1;
            if (silent > 60) cli_fail(EXIT_UNREACHABLE, "the coordinator has not answered for a minute");
            continue;
        }
        silent = 0;
        const char *state = pn_json_str(j, "state", "");
        bool end = ended(state);
        if (!quiet && (end || seconds - shown >= (terminal ? 0.3 : 2))) {
            progress(j, terminal, seconds);
            shown = seconds;
        }
        if (end) {
            if (!quiet && terminal) fputc('\n', stderr);
            const char *file = cli_option(c, "json", NULL);
            if (file != NULL) {
                FILE *f = fopen(file, "w");
                if (f == NULL) cli_fail(EXIT_FAILED, "--json %s cannot be written", file);
                fprintf(f, "%s\n", pn_json_text(j));
                fclose(f);
            }
            if (c->json) print(j);
            else {
                char figures[300];
                cli_measured(j, "test", false, figures, sizeof figures);
                if (figures[0] == '\0') cli_measured(j, "validation", false, figures, sizeof figures);
                printf("%s %s%s%s", id, state, figures[0] != '\0' ? ": " : "", figures);
                if (pn_json_u64(j, "version", 0) > 0) printf("; published as %s version %llu", pn_json_str(j, "model", ""), (unsigned long long)pn_json_u64(j, "version", 0));
                printf("\n");
            }
            const char *reason = pn_json_str(j, "reason", "");
            if (reason[0] != '\0') fprintf(stderr, "pinion: %s\n", reason);
            return strcmp(state, "SUCCEEDED") == 0 ? EXIT_DONE : EXIT_FAILED;
        }
        json_object_put(j);
        if (timeout_s > 0 && seconds >= timeout_s) {
            fprintf(stderr, "\npinion: job %s has not ended in %.0f s\n", id, timeout_s);
            return EXIT_TIMEOUT;
        }
    }
}

/* ${PINION_DATA} -> --data or the environment variable. */
static char *substitute(const char *text, const char *data) {
    static const char name[] = "${PINION_DATA}";
    size_t n = 0, room = strlen(text) + 1;
    for (const char *at = text; (at = strstr(at, name)) != NULL; at += sizeof name - 1) n++;
    if (n == 0 || data == NULL) return strdup(text);
    char *out = malloc(room + n * strlen(data)), *to = out;
    if (out == NULL) cli_fail(EXIT_FAILED, "no memory");
    while (*text != '\0') {
        if (strncmp(text, name, sizeof name - 1) == 0) {
            to = stpcpy(to, data);
            text += sizeof name - 1;
        } else {
            *to++ = *text++;
        }
    }
    *to = '\0';
    return out;
}

int verb_submit(const struct cli *c) {
    const char *file = one(c, "job file");
    size_t n;
    char *raw = cli_read_file(file, &n), base[PATH_MAX] = "", data[PATH_MAX];
    if (raw == NULL) cli_fail(EXIT_USAGE, "%s: there is no such job file", file);
    const char *given = cli_option(c, "data", getenv("PINION_DATA"));
    if (given != NULL && realpath(given, data) == NULL) cli_fail(EXIT_USAGE, "--data %s: there is no such folder", given);
    char *text = strlen(raw) == n ? substitute(raw, given != NULL ? data : NULL) : raw;
    if (text != raw) n = strlen(text);
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", strcmp(file, "-") == 0 ? "." : file);
    char *slash = strrchr(folder, '/');
    if (slash == NULL) snprintf(folder, sizeof folder, ".");
    else *slash = '\0';
    if (realpath(folder[0] != '\0' ? folder : "/", base) == NULL) base[0] = '\0';
    static struct pn_job job;
    struct pn_error err;
    char *report = NULL;
    const char *name = strrchr(file, '/') != NULL ? strrchr(file, '/') + 1 : file;
    if (pn_job_parse(&job, text, n, name, base, &report, &err) != PN_OK) { /* offline, as --dry-run: no cluster is needed to hear of mistakes */
        fputs(report != NULL ? report : err.text, stderr);
        return EXIT_REFUSED;
    }
    if (cli_option(c, "dry-run", NULL) != NULL) {
        if (job.model == PN_MODEL_EXTERNAL) printf("%s: good: external, %zu tables, %u producers for clients to take\n", file, job.n_tables - 1, job.n_producers);
        else printf("%s: good: %zu features, %zu tables, model of %zu hidden layers, %u epochs of batches of %u\n", file, job.n_fields, job.n_tables, job.n_hidden, job.epochs, job.batch_size);
        cli_privacy_ahead(&job);
        return EXIT_DONE;
    }
    struct json_object *o = json_object_new_object();
    char key[100];
    snprintf(key, sizeof key, "%lld-%d", (long long)time(NULL), (int)getpid());
    pn_json_add_str(o, "text", text);
    pn_json_add_str(o, "file", name);
    pn_json_add_str(o, "base", base);
    pn_json_add_str(o, "key", cli_option(c, "key", key));
    struct json_object *answer = cli_must(c, "POST", "/api/v1/jobs", o);
    const char *id = pn_json_str(answer, "id", "");
    if (cli_option(c, "no-wait", NULL) != NULL) {
        if (c->json) print(answer);
        else printf("%s\n", id);
        return EXIT_DONE;
    }
    fprintf(stderr, "%s submitted\n", id);
    return follow(c, id, 0, false);
}

int verb_wait(const struct cli *c) { return follow(c, one(c, "job"), (double)cli_number(c, "timeout", 0, 0, 1000000), cli_option(c, "progress", NULL) == NULL); }

int verb_logs(const struct cli *c) {
    const char *node = one(c, "node");
    char path[700];
    if (strchr(node, '/') != NULL) cli_fail(EXIT_USAGE, "a node's name has no slash");
    snprintf(path, sizeof path, "%s/logs/%s.log", c->dir, node);
    FILE *f = fopen(path, "r");
    if (f == NULL) cli_fail(EXIT_REFUSED, "there is no log %s; pinion status lists the nodes", path);
    char part[65536];
    signal(SIGINT, on_interrupt);
    do {
        size_t n;
        while ((n = fread(part, 1, sizeof part, f)) > 0) fwrite(part, 1, n, stdout);
        fflush(stdout);
        clearerr(f);
        if (cli_option(c, "follow", NULL) == NULL) break;
        nap(200);
    } while (!interrupted);
    return EXIT_DONE;
}

static int act(const struct cli *c, const char *kind, const char *id, const char *verb, struct json_object *body, const char *sentence, const char *key) {
    char path[300];
    snprintf(path, sizeof path, "/api/v1/%s/%s/%s", kind, id, verb);
    struct json_object *o = cli_must(c, "POST", path, body);
    if (c->json) print(o);
    else printf("%s %s %llu\n", id, sentence, (unsigned long long)pn_json_u64(o, key, 0));
    return EXIT_DONE;
}

int verb_cancel(const struct cli *c) {
    const char *id = one(c, "job");
    char path[300];
    snprintf(path, sizeof path, "/api/v1/jobs/%s/cancel", id);
    struct json_object *o = cli_must(c, "POST", path, json_object_new_object());
    if (c->json) print(o);
    else printf("%s %s\n", id, pn_json_str(o, "state", "cancelled"));
    return EXIT_DONE;
}

int verb_checkpoint(const struct cli *c) { return act(c, "jobs", one(c, "job"), "checkpoint", json_object_new_object(), "has checkpoint", "epoch"); }

int verb_restore(const struct cli *c) {
    struct json_object *body = json_object_new_object();
    const char *id = one(c, "job");
    if (cli_option(c, "epoch", NULL) != NULL) pn_json_add_u64(body, "epoch", (uint64_t)cli_number(c, "epoch", 0, 1, LONG_MAX));
    return act(c, "jobs", id, "restore", body, "goes on from checkpoint", "epoch");
}

int verb_publish(const struct cli *c) {
    struct json_object *body = json_object_new_object();
    const char *id = one(c, "job");
    pn_json_add_bool(body, "force", cli_option(c, "force", NULL) != NULL);
    return act(c, "jobs", id, "publish", body, "published as version", "version");
}

int verb_rollback(const struct cli *c) {
    struct json_object *body = json_object_new_object();
    const char *model = one(c, "model");
    if (cli_option(c, "version", NULL) != NULL) pn_json_add_u64(body, "version", (uint64_t)cli_number(c, "version", 0, 1, LONG_MAX));
    return act(c, "models", model, "rollback", body, "is back at version", "version");
}
