#include "worker/parquet/parquet.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/shell/duckdb.h"
#include "common/text.h"

static void put_quoted(struct pn_text *t, const char *from, char quote) {
    char *quoted = pn_duckdb_quoted(from, quote);
    if (quoted != NULL) pn_text_bytes(t, quoted, strlen(quoted));
    t->failed = t->failed || quoted == NULL;
    free(quoted);
}
/* A field of CSV: between quotes where it holds what would end it. */
static void put_cell(struct pn_text *t, const char *from, size_t n) {
    size_t plain = 0;
    while (plain < n && from[plain] != ',' && from[plain] != '"' && from[plain] != '\n' && from[plain] != '\r') plain++;
    if (plain == n) {
        pn_text_bytes(t, from, n);
        return;
    }
    pn_text_bytes(t, "\"", 1);
    for (size_t i = 0; i < n; i++) {
        if (from[i] == '"') pn_text_bytes(t, "\"", 1);
        pn_text_bytes(t, from + i, 1);
    }
    pn_text_bytes(t, "\"", 1);
}

struct parquet {
    struct pn_parsed parsed;
    struct pn_duckdb duckdb;
    void *database, *connection, *statement;
    struct pn_duckdb_result result;
    uint64_t n_columns;
    char path[400];
    struct pn_text text;    /* the piece that is out */
    bool begun;          /* the header has been given */
};

static enum pn_result no_memory(const struct parquet *f, struct pn_error *err) { return pn_fail(err, PN_NO_MEMORY, "%s: no memory", f->path); }

/* What DuckDB says of this file; not the part of our statement that it shows. */
static enum pn_result bad(const struct parquet *f, const char *why, struct pn_error *err) {
    struct pn_error said;
    pn_duckdb_fail(&said, why);
    char *shown = strstr(said.text, "  LINE 1:");
    if (shown != NULL) *shown = '\0';
    const char *path = strlen(f->path) > 150 ? f->path + strlen(f->path) - 150 : f->path;
    return pn_fail(err, PN_INVALID, "%s: cannot be read as Parquet: %.200s", path, said.text);
}

static enum pn_result start(struct parquet *f, struct pn_text *sql, struct pn_error *err) {
    const struct pn_duckdb *d = &f->duckdb;
    pn_text_bytes(sql, "", 1);
    if (sql->failed) return no_memory(f, err);
    if (d->prepare(f->connection, sql->text, &f->statement) != 0) return bad(f, d->prepare_error(f->statement), err);
    if (d->stream(f->statement, &f->result) != 0) return bad(f, d->error(&f->result), err);
    return PN_OK;
}
static void stop(struct parquet *f) {
    f->duckdb.destroy(&f->result);
    if (f->statement != NULL) f->duckdb.destroy_prepare(&f->statement);
    memset(&f->result, 0, sizeof f->result);
}

struct column { const struct pn_duckdb_string *cells; const uint64_t *validity; };
static struct column column_of(const struct pn_duckdb *d, void *chunk, uint64_t i) {
    void *vector = d->chunk_vector(chunk, i);
    return (struct column){d->vector_data(vector), d->vector_validity(vector)};
}
static const char *cell(const struct column *c, uint64_t row, size_t *n) {
    *n = 0;
    if (c->validity != NULL && !(c->validity[row / 64] >> (row % 64) & 1)) return "";
    *n = c->cells[row].n;
    return *n <= 12 ? c->cells[row].inlined : c->cells[row].data;
}

/* Not so a struct, a map, a list of lists. */
static bool can_be_value(const char *type) {
    return strncmp(type, "STRUCT", 6) != 0 && strncmp(type, "MAP", 3) != 0 && strncmp(type, "UNION", 5) != 0 && strchr(type, '[') == strrchr(type, '[');
}

/* A column's text, by its type. */
static void put_value(struct pn_text *sql, const char *name, const char *type) {
    const bool list = strchr(type, '[') != NULL;
    pn_text_add(sql, list ? "array_to_string(CAST(" : strcmp(type, "BOOLEAN") == 0 ? "CAST(CAST(" : "CAST(");
    put_quoted(sql, name, '"');
    pn_text_add(sql, list ? " AS VARCHAR[]), '|')" : strcmp(type, "BOOLEAN") == 0 ? " AS TINYINT) AS VARCHAR)" : " AS VARCHAR)");
}

/* What is asked of a file: the statement that gives its columns as text; meanwhile all names that it has, and which of the data's were among them. */
struct selection { struct pn_text sql, names; size_t n_named; bool label; };

static enum pn_result take_column(struct parquet *f, const struct pn_data *data, struct selection *s, const char *name, const char *type, struct pn_error *err) {
    const bool label = strcmp(name, data->label) == 0, named = pn_data_names(data->columns, name);
    pn_text_add(&s->names, "%s%s", s->names.n > 0 ? ", " : "", name);
    if (!label && !named && data->columns[0] != '\0') return PN_OK;
    if (!can_be_value(type))
        return label || named ? pn_fail(err, PN_INVALID, "%.150s: column \"%.60s\" is of type %.60s, which is no value of a feature", f->path, name, type) : PN_OK;
    pn_text_add(&s->sql, f->n_columns > 0 ? ", " : "SELECT ");
    put_value(&s->sql, name, type);
    pn_text_add(&f->text, f->n_columns++ > 0 ? "," : "");
    put_quoted(&f->text, name, '"');
    s->label = s->label || label;
    s->n_named += named;
    return PN_OK;
}

/* The file's columns, in its order: those of the data, or all that can be values. f->text becomes the header. */
static enum pn_result select_columns(struct parquet *f, const struct pn_data *data, struct selection *s, struct pn_error *err) {
    const struct pn_duckdb *d = &f->duckdb;
    struct pn_text sql = {0};
    pn_text_add(&sql, "SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM read_parquet(");
    put_quoted(&sql, f->path, '\'');
    pn_text_add(&sql, "))");
    enum pn_result r = start(f, &sql, err);
    free(sql.text);
    for (void *chunk; r == PN_OK && (chunk = d->fetch(f->result)) != NULL; d->destroy_chunk(&chunk)) {
        const struct column names = column_of(d, chunk, 0), types = column_of(d, chunk, 1);
        for (uint64_t i = 0; r == PN_OK && i < d->chunk_rows(chunk); i++) {
            size_t n, m;
            const char *at = cell(&names, i, &n), *of = cell(&types, i, &m);
            char *name = strndup(at, n), *type = strndup(of, m);
            r = name != NULL && type != NULL ? take_column(f, data, s, name, type, err) : no_memory(f, err);
            free(name);
            free(type);
        }
    }
    if (r == PN_OK && d->error(&f->result) != NULL) r = bad(f, d->error(&f->result), err);
    stop(f);
    size_t wanted = data->columns[0] != '\0';
    for (const char *c = data->columns; *c != '\0'; c++) wanted += *c == ',';
    pn_text_bytes(&s->names, "", 1);
    pn_text_bytes(&f->text, "\n", 1);
    pn_text_add(&s->sql, " FROM read_parquet(");
    put_quoted(&s->sql, f->path, '\'');
    pn_text_add(&s->sql, ")");
    if (r == PN_OK && (s->sql.failed || s->names.failed || f->text.failed)) r = no_memory(f, err);
    if (r == PN_OK && !s->label) r = pn_fail(err, PN_INVALID, "%.150s: no column \"%s\", which should be the label; it has %.150s", f->path, data->label, s->names.text);
    if (r == PN_OK && s->n_named < wanted) r = pn_fail(err, PN_INVALID, "%.150s: not all of columns [%.100s] are there; it has %.150s", f->path, data->columns, s->names.text);
    return r;
}

static void close_file(struct pn_parsed *parsed) {
    struct parquet *f = (struct parquet *)parsed;
    stop(f);
    pn_duckdb_disconnect(&f->duckdb, &f->database, &f->connection);
    free(f->text.text);
    free(f);
}

static enum pn_result next(struct pn_parsed *parsed, const char **text, size_t *n, struct pn_error *err) {
    struct parquet *f = (struct parquet *)parsed;
    const struct pn_duckdb *d = &f->duckdb;
    if (f->begun) {
        f->text.n = 0;
        void *chunk = d->fetch(f->result);
        if (chunk == NULL && d->error(&f->result) != NULL) return bad(f, d->error(&f->result), err);
        if (chunk != NULL) {
            struct column columns[f->n_columns];
            for (uint64_t c = 0; c < f->n_columns; c++) columns[c] = column_of(d, chunk, c);
            for (uint64_t row = 0; row < d->chunk_rows(chunk); row++)
                for (uint64_t c = 0; c < f->n_columns; c++) {
                    size_t bytes;
                    const char *at = cell(&columns[c], row, &bytes);
                    put_cell(&f->text, at, bytes);
                    pn_text_bytes(&f->text, c + 1 < f->n_columns ? "," : "\n", 1);
                }
            d->destroy_chunk(&chunk);
        }
        if (f->text.failed) return no_memory(f, err);
    }
    f->begun = true;
    *text = f->text.text;
    *n = f->text.n;
    return PN_OK;
}

enum pn_result pn_parquet_open(struct pn_parsed **out, const struct pn_data *data, const char *path, struct pn_error *err) {
    static const struct pn_parsed_ops ops = {close_file, next};
    struct parquet *f = calloc(1, sizeof *f);
    if (f == NULL) return pn_fail(err, PN_NO_MEMORY, "%s: no memory", path);
    f->parsed.ops = &ops;
    snprintf(f->path, sizeof f->path, "%s", path);
    struct pn_error why = {""};
    enum pn_result r = pn_duckdb_load(NULL, &f->duckdb, &why);
    if (r != PN_OK) {
        free(f);
        return pn_fail(err, r, "%.100s: %.370s", path, why.text);
    }
    struct selection selection = {0};
    r = pn_duckdb_connect(&f->duckdb, 1, &f->database, &f->connection, err);
    if (r == PN_OK) r = select_columns(f, data, &selection, err);
    if (r == PN_OK) r = start(f, &selection.sql, err);
    free(selection.sql.text);
    free(selection.names.text);
    if (r == PN_OK) *out = &f->parsed;
    else close_file(&f->parsed);
    return r;
}
