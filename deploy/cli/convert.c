/* pinion convert: Parquet to CSV, by DuckDB's C interface, loaded when it is asked for. Debian has no Parquet library for C; PyPI's duckdb is one shared object that
 * exports DuckDB's C functions, and wants Python's own library for the rest of what it is. DuckDB's libduckdb.so does as well. Rows keep their order; memory is bounded. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "deploy/cli/cli.h"

/* Of duckdb.h, whose interface is stable since 1.0: a result is 48 bytes that the caller owns. */
struct result { uint64_t words[6]; uint64_t spare[10]; };
struct duckdb {
    int (*open)(const char *path, void **database);
    int (*connect)(void *database, void **connection);
    int (*query)(void *connection, const char *sql, struct result *);
    const char *(*error)(struct result *);
    void (*destroy)(struct result *);
};

static bool ends_in(const char *text, const char *ending) {
    const size_t n = strlen(text), m = strlen(ending);
    return n >= m && strcmp(text + n - m, ending) == 0;
}

static struct duckdb load(const char *path) {
    struct duckdb d;
    int minor = 0;
    const char *python = strstr(path, ".cpython-3");
    if (python != NULL && sscanf(python, ".cpython-3%2d", &minor) == 1) {
        char name[40];
        snprintf(name, sizeof name, "libpython3.%d.so.1.0", minor);
        if (dlopen(name, RTLD_LAZY | RTLD_GLOBAL) == NULL) cli_fail(EXIT_FAILED, "%s is of Python 3.%d and needs %s: %s", path, minor, name, dlerror());
    }
    void *lib = dlopen(path, RTLD_LAZY);
    if (lib == NULL)
        cli_fail(EXIT_FAILED, "DuckDB cannot be loaded: %s. `pip install duckdb` brings it; then --duckdb \"$(python3 -c 'import _duckdb; print(_duckdb.__file__)')\", or its libduckdb.so", dlerror());
    const struct { const char *name; void *to; } wanted[] = {{"duckdb_open", &d.open}, {"duckdb_connect", &d.connect}, {"duckdb_query", &d.query}, {"duckdb_result_error", &d.error},
                                                             {"duckdb_destroy_result", &d.destroy}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        void *f = dlsym(lib, wanted[i].name);
        if (f == NULL) cli_fail(EXIT_FAILED, "%s does not export %s: another build of DuckDB is needed (1.0 or later)", path, wanted[i].name);
        memcpy(wanted[i].to, &f, sizeof f);
    }
    return d;
}

/* text as an SQL string: ' is doubled. */
static void quoted(char *out, size_t room, const char *text) {
    size_t n = 0;
    out[n++] = '\'';
    for (; *text != '\0'; text++) {
        if (n + 4 > room) cli_fail(EXIT_USAGE, "a path is too long");
        if (*text == '\'') out[n++] = '\'';
        out[n++] = *text;
    }
    out[n++] = '\'';
    out[n] = '\0';
}

/* One line of what DuckDB says. */
static void run(const struct duckdb *d, void *connection, const char *sql, const char *part) {
    struct result r = {{0}, {0}};
    if (d->query(connection, sql, &r) == 0) {
        d->destroy(&r);
        return;
    }
    char line[300];
    const char *why = d->error(&r);
    snprintf(line, sizeof line, "%s", why != NULL ? why : "no reason given");
    for (char *c = line; *c != '\0'; c++)
        if (*c == '\n') *c = ' ';
    if (part != NULL) unlink(part);
    cli_fail(EXIT_FAILED, "DuckDB: %s", line);
}

int verb_convert(const struct cli *c) {
    if (c->n_rest != 2) cli_fail(EXIT_USAGE, "pinion convert FILE.parquet FILE.csv[.zst|.gz] [--select COLUMNS] [--duckdb LIBRARY]");
    const char *in = c->rest[0], *out = c->rest[1], *select = cli_option(c, "select", "*");
    const char *library = cli_option(c, "duckdb", getenv("PINION_DUCKDB") != NULL ? getenv("PINION_DUCKDB") : "libduckdb.so");
    const char *compression = ends_in(out, ".csv.zst") ? "zstd" : ends_in(out, ".csv.gz") ? "gzip" : ends_in(out, ".csv") ? "none" : NULL;
    if (compression == NULL) cli_fail(EXIT_USAGE, "%s: the name of the result must end in .csv, .csv.zst or .csv.gz", out);
    char from[2000], to[2000], part[1000], *sql;
    snprintf(part, sizeof part, "%.900s.part", out);
    quoted(from, sizeof from, in);
    quoted(to, sizeof to, part);
    const size_t room = strlen(select) + 5000;
    if ((sql = malloc(room)) == NULL) cli_fail(EXIT_FAILED, "no memory");
    snprintf(sql, room, "COPY (SELECT %s FROM read_parquet(%s)) TO %s (FORMAT csv, HEADER, COMPRESSION %s)", select, from, to, compression);
    const struct duckdb d = load(library);
    void *database = NULL, *connection = NULL;
    if (d.open(NULL, &database) != 0 || d.connect(database, &connection) != 0) cli_fail(EXIT_FAILED, "DuckDB could not be started");
    run(&d, connection, "SET memory_limit = '1GB'", NULL);
    run(&d, connection, sql, part);
    free(sql);
    if (rename(part, out) != 0) cli_fail(EXIT_FAILED, "%s cannot be written", out);
    printf("%s\n", out);
    return EXIT_DONE;
}
