/* pinion convert: Parquet to CSV, by DuckDB (common/shell/duckdb.h). Rows keep their order; memory is bounded. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/shell/duckdb.h"
#include "deploy/cli/cli.h"

static bool ends_in(const char *text, const char *ending) {
    const size_t n = strlen(text), m = strlen(ending);
    return n >= m && strcmp(text + n - m, ending) == 0;
}

int verb_convert(const struct cli *c) {
    if (c->n_rest != 2) cli_fail(EXIT_USAGE, "pinion convert FILE.parquet FILE.csv[.zst|.gz] [--select COLUMNS] [--duckdb LIBRARY]");
    const char *in = c->rest[0], *out = c->rest[1], *select = cli_option(c, "select", "*");
    const char *compression = ends_in(out, ".csv.zst") ? "zstd" : ends_in(out, ".csv.gz") ? "gzip" : ends_in(out, ".csv") ? "none" : NULL;
    if (compression == NULL) cli_fail(EXIT_USAGE, "%s: the name of the result must end in .csv, .csv.zst or .csv.gz", out);
    char part[1000];
    snprintf(part, sizeof part, "%.900s.part", out);
    struct pn_duckdb d;
    struct pn_error err = {""};
    void *database = NULL, *connection = NULL;
    char *from = pn_duckdb_quoted(in, '\''), *to = pn_duckdb_quoted(part, '\'');
    const size_t room = strlen(select) + 4 * strlen(in) + 3000;
    char *sql = malloc(room);
    if (from == NULL || to == NULL || sql == NULL) cli_fail(EXIT_FAILED, "no memory");
    snprintf(sql, room, "COPY (SELECT %s FROM read_parquet(%s)) TO %s (FORMAT csv, HEADER, COMPRESSION %s)", select, from, to, compression);
    if (pn_duckdb_load(cli_option(c, "duckdb", NULL), &d, &err) != PN_OK || pn_duckdb_connect(&d, 0, &database, &connection, &err) != PN_OK) cli_fail(EXIT_FAILED, "%s", err.text);
    if (pn_duckdb_run(&d, connection, sql, &err) != PN_OK) {
        unlink(part);
        cli_fail(EXIT_FAILED, "%s", err.text);
    }
    pn_duckdb_disconnect(&d, &database, &connection);
    free(from);
    free(to);
    free(sql);
    if (rename(part, out) != 0) cli_fail(EXIT_FAILED, "%s cannot be written", out);
    printf("%s\n", out);
    return EXIT_DONE;
}
