/* DuckDB's C interface, loaded when it is asked for: it reads Parquet, for which Debian has no library in C. PyPI's duckdb is one shared object that exports these
 * functions, and wants Python's own library for the rest of what it is; DuckDB's libduckdb.so does as well. Of duckdb.h, whose interface is stable since 1.0. */
#ifndef PN_COMMON_SHELL_DUCKDB_H
#define PN_COMMON_SHELL_DUCKDB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/result.h"

struct pn_duckdb_result { uint64_t words[6]; };   /* duckdb_result: the caller's memory, passed by value to fetch */
struct pn_duckdb_string {                         /* duckdb_string_t: up to 12 bytes lie behind their number, more at data */
    union {
        struct { uint32_t n; char inlined[12]; };
        struct { char number_and_prefix[8]; const char *data; };
    };
};
struct pn_duckdb {
    int (*open)(const char *path, void **database);
    void (*close)(void **database);
    int (*connect)(void *database, void **connection);
    void (*disconnect)(void **connection);
    int (*query)(void *connection, const char *sql, struct pn_duckdb_result *);
    const char *(*error)(struct pn_duckdb_result *);
    void (*destroy)(struct pn_duckdb_result *);
    int (*prepare)(void *connection, const char *sql, void **statement);
    const char *(*prepare_error)(void *statement);
    void (*destroy_prepare)(void **statement);
    int (*stream)(void *statement, struct pn_duckdb_result *);  /* duckdb_execute_prepared_streaming: chunks are made as they are fetched */
    void *(*fetch)(struct pn_duckdb_result);                    /* the next chunk; NULL: the end, or error says what */
    uint64_t (*chunk_rows)(void *chunk);
    void *(*chunk_vector)(void *chunk, uint64_t i_column);
    void *(*vector_data)(void *vector);
    uint64_t *(*vector_validity)(void *vector);                 /* a bit a row: it is no null; NULL: none is one */
    void (*destroy_chunk)(void **chunk);
};

/* path NULL: PINION_DUCKDB, or libduckdb.so. Any thread. On failure err says how to get the library. */
enum pn_result pn_duckdb_load(const char *path, struct pn_duckdb *, struct pn_error *);
/* A statement whose result nobody wants. */
enum pn_result pn_duckdb_run(const struct pn_duckdb *, void *connection, const char *sql, struct pn_error *);
/* A database of its own in memory, of so many threads (0: one a core), at most 1 GB, rows in their files' order, nothing fetched from the network. Closed by pn_duckdb_disconnect. */
enum pn_result pn_duckdb_connect(const struct pn_duckdb *, unsigned threads, void **database, void **connection, struct pn_error *);
void pn_duckdb_disconnect(const struct pn_duckdb *, void **database, void **connection);
/* "DuckDB: " and what it says, on one line. */
enum pn_result pn_duckdb_fail(struct pn_error *, const char *why);
/* text between quotes (' for a string, " for a name), those in it doubled. The caller's; NULL: no memory. */
char *pn_duckdb_quoted(const char *text, char quote);

#endif
