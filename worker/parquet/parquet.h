/* Parquet files for workers, over DuckDB (common/shell/duckdb.h). Values become text as DuckDB writes them, booleans 1 and 0, the elements of a list with | between, nulls nothing;
 * so a column means the same here as in a CSV file of it. */
#ifndef PN_WORKER_PARQUET_PARQUET_H
#define PN_WORKER_PARQUET_PARQUET_H

#include "worker/reader/parsed.h"

/* Memory of a handle: DuckDB's, at most 1 GB of it, in practice one row group; and a piece of 2,048 rows of text. */
pn_parsed_open pn_parquet_open;

#endif
