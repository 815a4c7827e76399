/* The second tier over RocksDB: one database a process, one column family a table, plain tables of mapped memory found by hash (rows are small, of one size,
 * and looked up one by one: blocks of many rows would only be searched). No log: the tier is scratch, checkpoints are what lasts. */
#ifndef PN_PS_TIER_ROCKSDB_H
#define PN_PS_TIER_ROCKSDB_H

#include "common/tier.h"

/* dir: the database's own folder, made when the first tier is opened; what is there is deleted first. The result lives as long as the process. NULL: no memory. */
struct pn_tiers *pn_tiers_rocksdb(const char *dir);

#endif
