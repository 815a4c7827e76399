#include "common/shell/duckdb.h"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum pn_result pn_duckdb_load(const char *path, struct pn_duckdb *d, struct pn_error *err) {
    if (path == NULL) path = getenv("PINION_DUCKDB") != NULL ? getenv("PINION_DUCKDB") : "libduckdb.so";
    int minor = 0;
    const char *python = strstr(path, ".cpython-3");
    if (python != NULL && sscanf(python, ".cpython-3%2d", &minor) == 1) {
        char name[40];
        snprintf(name, sizeof name, "libpython3.%d.so.1.0", minor);
        if (dlopen(name, RTLD_LAZY | RTLD_GLOBAL) == NULL) return pn_fail(err, PN_NOT_FOUND, "%s is of Python 3.%d and needs %s: %s", path, minor, name, dlerror());
    }
    void *lib = dlopen(path, RTLD_LAZY);
    if (lib == NULL)
        return pn_fail(err, PN_NOT_FOUND, "DuckDB cannot be loaded: %s. `pip install duckdb` brings it; then PINION_DUCKDB=\"$(python3 -c 'import _duckdb; print(_duckdb.__file__)')\", or its libduckdb.so",
                       dlerror());
    const struct { const char *name; void *to; } wanted[] = {
        {"duckdb_open", &d->open}, {"duckdb_close", &d->close}, {"duckdb_connect", &d->connect}, {"duckdb_disconnect", &d->disconnect}, {"duckdb_query", &d->query},
        {"duckdb_result_error", &d->error}, {"duckdb_destroy_result", &d->destroy}, {"duckdb_prepare", &d->prepare}, {"duckdb_prepare_error", &d->prepare_error},
        {"duckdb_destroy_prepare", &d->destroy_prepare}, {"duckdb_execute_prepared_streaming", &d->stream}, {"duckdb_fetch_chunk", &d->fetch},
        {"duckdb_data_chunk_get_size", &d->chunk_rows}, {"duckdb_data_chunk_get_vector", &d->chunk_vector}, {"duckdb_vector_get_data", &d->vector_data},
        {"duckdb_vector_get_validity", &d->vector_validity}, {"duckdb_destroy_data_chunk", &d->destroy_chunk}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        void *f = dlsym(lib, wanted[i].name);
        if (f == NULL) return pn_fail(err, PN_NOT_FOUND, "%s does not export %s: another build of DuckDB is needed (1.0 or later)", path, wanted[i].name);
        memcpy(wanted[i].to, &f, sizeof f);
    }
    return PN_OK;
}

enum pn_result pn_duckdb_fail(struct pn_error *err, const char *why) {
    char line[300];
    snprintf(line, sizeof line, "%s", why != NULL ? why : "no reason given");
    for (char *c = line; *c != '\0'; c++)
        if (*c == '\n') *c = ' ';
    return pn_fail(err, PN_FAILED, "DuckDB: %s", line);
}

enum pn_result pn_duckdb_run(const struct pn_duckdb *d, void *connection, const char *sql, struct pn_error *err) {
    struct pn_duckdb_result r = {{0}};
    const enum pn_result result = d->query(connection, sql, &r) == 0 ? PN_OK : pn_duckdb_fail(err, d->error(&r));
    d->destroy(&r);
    return result;
}

enum pn_result pn_duckdb_connect(const struct pn_duckdb *d, unsigned threads, void **database, void **connection, struct pn_error *err) {
    char sql[200];
    *database = *connection = NULL;
    if (d->open(NULL, database) != 0 || d->connect(*database, connection) != 0) return pn_fail(err, PN_FAILED, "DuckDB could not be started");
    int n = snprintf(sql, sizeof sql, "SET memory_limit = '1GB'; SET preserve_insertion_order = true; SET autoinstall_known_extensions = false");
    if (threads > 0) snprintf(sql + n, sizeof sql - (size_t)n, "; SET threads = %u", threads);
    struct pn_error unknown; /* before 1.3 it kept no pieces of files */
    pn_duckdb_run(d, *connection, "SET enable_external_file_cache = false", &unknown);
    return pn_duckdb_run(d, *connection, sql, err);
}

void pn_duckdb_disconnect(const struct pn_duckdb *d, void **database, void **connection) {
    if (*connection != NULL) d->disconnect(connection);
    if (*database != NULL) d->close(database);
}

char *pn_duckdb_quoted(const char *text, char quote) {
    char *out = malloc(2 * strlen(text) + 3), *to = out;
    if (out == NULL) return NULL;
    *to++ = quote;
    for (; *text != '\0'; text++) {
        if (*text == quote) *to++ = quote;
        *to++ = *text;
    }
    *to++ = quote;
    *to = '\0';
    return out;
}
