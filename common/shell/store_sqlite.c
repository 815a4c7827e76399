#include "common/shell/store_sqlite.h"
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct store {
    struct pn_store store; /* first */
    sqlite3 *db;
    sqlite3_stmt *put, *remove, *scan;
    int lock;
    bool failed;           /* within the transaction */
};

static enum pn_result problem(struct store *s, int code, struct pn_error *err) {
    s->failed = true;
    return pn_fail(err, code == SQLITE_FULL ? PN_FULL : code == SQLITE_CORRUPT || code == SQLITE_NOTADB ? PN_CORRUPT : PN_IO, "coordinator.db: %s", sqlite3_errmsg(s->db));
}

static enum pn_result execute(struct store *s, const char *sql, struct pn_error *err) {
    int code = sqlite3_exec(s->db, sql, NULL, NULL, NULL);
    return code == SQLITE_OK ? PN_OK : problem(s, code, err);
}

static enum pn_result scan(struct pn_store *p, const char *kind, void (*visit)(void *, const char *, const char *), void *ctx, struct pn_error *err) {
    struct store *s = (struct store *)p;
    int code;
    sqlite3_bind_text(s->scan, 1, kind, -1, SQLITE_TRANSIENT);
    while ((code = sqlite3_step(s->scan)) == SQLITE_ROW) visit(ctx, (const char *)sqlite3_column_text(s->scan, 0), (const char *)sqlite3_column_text(s->scan, 1));
    sqlite3_reset(s->scan);
    return code == SQLITE_DONE ? PN_OK : problem(s, code, err);
}

static enum pn_result begin(struct pn_store *p, struct pn_error *err) {
    struct store *s = (struct store *)p;
    s->failed = false;
    return execute(s, "BEGIN IMMEDIATE", err);
}

static enum pn_result step(struct store *s, sqlite3_stmt *statement, const char *kind, const char *id, const char *json, struct pn_error *err) {
    sqlite3_bind_text(statement, 1, kind, -1, SQLITE_TRANSIENT);
    sqlite3_bind_text(statement, 2, id, -1, SQLITE_TRANSIENT);
    if (json != NULL) sqlite3_bind_text(statement, 3, json, -1, SQLITE_TRANSIENT);
    int code = sqlite3_step(statement);
    sqlite3_reset(statement);
    return code == SQLITE_DONE ? PN_OK : problem(s, code, err);
}

static enum pn_result put(struct pn_store *p, const char *kind, const char *id, const char *json, struct pn_error *err) {
    struct store *s = (struct store *)p;
    return step(s, s->put, kind, id, json, err);
}

static enum pn_result remove_record(struct pn_store *p, const char *kind, const char *id, struct pn_error *err) {
    struct store *s = (struct store *)p;
    return step(s, s->remove, kind, id, NULL, err);
}

static enum pn_result commit(struct pn_store *p, struct pn_error *err) {
    struct store *s = (struct store *)p;
    enum pn_result r = s->failed ? pn_fail(err, PN_IO, "coordinator.db: an earlier part of the transaction failed") : execute(s, "COMMIT", err);
    if (r != PN_OK) sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    return r;
}

static const struct pn_store_ops ops = {scan, begin, put, remove_record, commit};

enum pn_result pn_store_sqlite_open(struct pn_store **out, const char *dir, struct pn_error *err) {
    char path[600];
    struct store *s = calloc(1, sizeof *s);
    if (s == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory");
    s->store.ops = &ops;
    mkdir(dir, 0755);
    snprintf(path, sizeof path, "%s/coordinator.lock", dir);
    s->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (s->lock < 0) {
        free(s);
        return pn_fail(err, PN_IO, "%s: %s", path, strerror(errno));
    }
    if (flock(s->lock, LOCK_EX | LOCK_NB) != 0) {
        close(s->lock);
        free(s);
        return pn_fail(err, PN_REFUSED, "another coordinator works on %s (it holds coordinator.lock); stop it or choose another --dir", dir);
    }
    snprintf(path, sizeof path, "%s/coordinator.db", dir);
    int code = sqlite3_open(path, &s->db);
    enum pn_result r = code == SQLITE_OK ? PN_OK : problem(s, code, err);
    if (r == PN_OK) r = execute(s, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA busy_timeout=1000;"
                                   "CREATE TABLE IF NOT EXISTS records(kind TEXT NOT NULL, id TEXT NOT NULL, json TEXT NOT NULL, PRIMARY KEY(kind, id)) WITHOUT ROWID", err);
    if (r == PN_OK && (sqlite3_prepare_v2(s->db, "INSERT OR REPLACE INTO records VALUES(?,?,?)", -1, &s->put, NULL) != SQLITE_OK ||
                       sqlite3_prepare_v2(s->db, "DELETE FROM records WHERE kind=? AND id=?", -1, &s->remove, NULL) != SQLITE_OK ||
                       sqlite3_prepare_v2(s->db, "SELECT id, json FROM records WHERE kind=? ORDER BY id", -1, &s->scan, NULL) != SQLITE_OK))
        r = problem(s, SQLITE_ERROR, err);
    if (r != PN_OK) {
        pn_store_sqlite_close(&s->store);
        return r;
    }
    *out = &s->store;
    return PN_OK;
}

void pn_store_sqlite_close(struct pn_store *p) {
    struct store *s = (struct store *)p;
    sqlite3_finalize(s->put);
    sqlite3_finalize(s->remove);
    sqlite3_finalize(s->scan);
    sqlite3_close(s->db);
    close(s->lock);
    free(s);
}
