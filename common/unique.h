/* Unique keys of a batch, in the order of the wire: rising by pn_mix64, that is by slot, so that each shard's keys stand together. */
#ifndef PN_COMMON_UNIQUE_H
#define PN_COMMON_UNIQUE_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of scratch for n keys. */
size_t pn_unique_scratch(size_t n);
/* keys[n], n < 2^31 -> unique[] (room for n), index[i] = place of keys[i] in unique. Returns how many are unique. Linear in n; any thread. */
size_t pn_unique(const uint64_t *keys, size_t n, uint64_t *unique, uint32_t *index, void *scratch);

#endif
