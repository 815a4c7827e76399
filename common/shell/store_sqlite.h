/* The coordinator's records in SQLite: DIR/coordinator.db, WAL, synchronous=FULL; one coordinator a directory. */
#ifndef PN_COMMON_SHELL_STORE_SQLITE_H
#define PN_COMMON_SHELL_STORE_SQLITE_H

#include "common/store.h"

/* PN_REFUSED: another coordinator holds DIR/coordinator.lock. */
enum pn_result pn_store_sqlite_open(struct pn_store **, const char *dir, struct pn_error *);
void pn_store_sqlite_close(struct pn_store *);

#endif
