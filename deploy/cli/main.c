#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "deploy/cli/cli.h"

static const struct verb {
    const char *name, *options, *help;
    int (*run)(const struct cli *);
} verbs[] = {
    {"up", "local! ps workers serving dir foreground! timeout encrypt!", "--local [--ps N --workers N --serving N --dir DIR --encrypt]: starts a cluster on this machine", verb_up},
    {"down", "", "[--dir DIR]: stops it; its state stays under DIR", verb_down},
    {"status", "", "who is alive, what runs", verb_status},
    {"submit", "dry-run! no-wait! json key data", "[--dry-run] [--no-wait] [--data DIR] [--json FILE] JOB.yaml: trains, shows progress", verb_submit},
    {"jobs", "", "all jobs", verb_jobs},
    {"wait", "timeout json progress!", "[--timeout SECONDS] [--progress] [--json FILE] JOB: until it has ended", verb_wait},
    {"logs", "follow!", "[--follow] NODE: its log (coordinator, ps-0, worker-1, ...)", verb_logs},
    {"cancel", "", "JOB", verb_cancel},
    {"checkpoint", "", "JOB: takes one now", verb_checkpoint},
    {"restore", "epoch", "JOB [--epoch E]: goes back to a checkpoint and trains on", verb_restore},
    {"publish", "force!", "JOB [--force]: a new version for the replicas, past its gate", verb_publish},
    {"rollback", "version", "MODEL [--version V]: back to an earlier version", verb_rollback},
    {"convert", "select duckdb", "FILE.parquet FILE.csv[.zst|.gz] [--select COLUMNS] [--duckdb LIBRARY]: Parquet to CSV, by DuckDB", verb_convert},
    {"privacy", "", "[DATASET|JOB]: what data sets have spent of their privacy budgets", verb_privacy},
    {"forget", "field value who timeout list!", "--field F --value V [JOB] | --list: takes the rows keyed by a value out of servers, checkpoints and published versions, for good", verb_forget},
    {"plot", "out tensorboard", "JOB [--out FILE.svg|FILE.csv] [--tensorboard FOLDER]: its learning curve (JOB.svg)", verb_plot},
    {"export", "format out", "VERSION-FOLDER [--format onnx|safetensors] [--out FILE]: a published model for other programs", verb_export},
    {"rank", "model serving top set candidates titles repeat json", "--model M --set column=value ... --candidates FILE.csv [--titles COLUMN] [--top K]: ranks", verb_rank},
    {"keygen", "keys role", "--role coordinator|ps|worker|serving [--keys DIR] NAME: a key pair for a node, to encrypt its sockets", verb_keygen},
    {"synth", "rows out seed items users", "--rows N --out DIR [--seed S]: clicks from a known random model", verb_synth},
};
#define N_VERBS (sizeof verbs / sizeof *verbs)

void cli_fail(int code, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs("pinion: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(code);
}

const char *cli_option(const struct cli *c, const char *name, const char *otherwise) {
    const char *found = otherwise;
    for (char **o = c->options; *o != NULL; o += 2)
        if (strcmp(o[0], name) == 0) found = o[1];
    return found;
}

long cli_number(const struct cli *c, const char *name, long otherwise, long low, long high) {
    const char *text = cli_option(c, name, NULL);
    if (text == NULL) return otherwise;
    char *end;
    long v = strtol(text, &end, 10);
    if (*text == '\0' || *end != '\0' || v < low || v > high) cli_fail(EXIT_USAGE, "--%s %s: a whole number from %ld to %ld is needed", name, text, low, high);
    return v;
}

static void usage(FILE *to) {
    fprintf(to, "usage: pinion COMMAND [OPTIONS]\n\n");
    for (size_t i = 0; i < N_VERBS; i++) fprintf(to, "  %-11s%s\n", verbs[i].name, verbs[i].help);
    fprintf(to, "\nEvery command takes --dir DIR (default pinion-data), --coordinator URL (else $PINION_COORDINATOR, else what DIR says)\n"
                "and --output json. Exit: 0 done, 1 failed, 2 wrong usage, 3 not reachable, 4 refused, 5 timed out, 130 interrupted.\n");
}

/* How much two words differ, for "did you mean": letters of one found in order in the other. */
static const char *nearest(const char *word) {
    const char *best = NULL;
    size_t most = 0;
    for (size_t i = 0; i < N_VERBS; i++) {
        size_t common = 0, n = strlen(verbs[i].name);
        for (const char *c = word; *c; c++) common += strchr(verbs[i].name, *c) != NULL;
        if (common * 2 > n && common > most && strlen(word) < n + 3) {
            most = common;
            best = verbs[i].name;
        }
    }
    return best;
}

/* 0: unknown, 1: takes a value, 2: a flag */
static int known(const char *list, const char *name) {
    size_t n = strlen(name);
    for (const char *at = list; (at = strstr(at, name)) != NULL; at += n)
        if ((at == list || at[-1] == ' ') && (at[n] == '\0' || at[n] == ' ' || at[n] == '!')) return at[n] == '!' ? 2 : 1;
    return 0;
}

int main(int argc, char **argv) {
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0) {
        usage(argc < 2 ? stderr : stdout);
        return argc < 2 ? EXIT_USAGE : EXIT_DONE;
    }
    const struct verb *v = NULL;
    for (size_t i = 0; i < N_VERBS; i++)
        if (strcmp(verbs[i].name, argv[1]) == 0) v = &verbs[i];
    if (v == NULL) {
        const char *near = nearest(argv[1]);
        cli_fail(EXIT_USAGE, "no command \"%s\"%s%s%s; pinion --help lists all", argv[1], near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
    }
    struct cli c = {.verb = v->name, .options = calloc((size_t)argc * 2 + 2, sizeof(char *)), .rest = calloc((size_t)argc + 1, sizeof(char *))};
    if (c.options == NULL || c.rest == NULL) cli_fail(EXIT_FAILED, "no memory");
    size_t n = 0;
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            printf("usage: pinion %s %s\n", v->name, v->help);
            return EXIT_DONE;
        }
        if (strncmp(argv[i], "--", 2) != 0) {
            c.rest[c.n_rest++] = argv[i];
            continue;
        }
        char *name = argv[i] + 2;
        int kind = known("dir coordinator output", name);
        if (kind == 0) kind = known(v->options, name);
        if (kind == 0) cli_fail(EXIT_USAGE, "%s: no option --%s; usage: pinion %s %s", v->name, name, v->name, v->help);
        static char none[] = "";
        c.options[n++] = name;
        c.options[n++] = kind == 2 ? none : i + 1 < argc ? argv[++i] : (cli_fail(EXIT_USAGE, "--%s needs a value", name), none);
    }
    c.dir = cli_option(&c, "dir", "pinion-data");
    c.coordinator = cli_option(&c, "coordinator", getenv("PINION_COORDINATOR"));
    const char *output = cli_option(&c, "output", "table");
    if (strcmp(output, "json") != 0 && strcmp(output, "table") != 0) cli_fail(EXIT_USAGE, "--output %s: table or json", output);
    c.json = strcmp(output, "json") == 0;
    return v->run(&c);
}
