#include <stdio.h>
#include <string.h>
#include "ps/client/client.h"

bool pn_shard_map_read(struct json_object *job, struct pn_shard_map *map) {
    struct json_object *shards = pn_json_get(job, "shards"), *slots = pn_json_get(job, "slots");
    memset(map, 0, sizeof *map);
    size_t n = pn_json_length(shards);
    if (n == 0 || n > PN_MAX_SHARDS || pn_json_length(slots) != n) return false;
    map->n_shards = (uint32_t)n;
    uint32_t slot = 0;
    for (uint32_t s = 0; s < n; s++) {
        snprintf(map->shards[s].address, sizeof map->shards[s].address, "%s", pn_json_str(pn_json_at(shards, s), "address", ""));
        map->shards[s].term = pn_json_u64(pn_json_at(shards, s), "term", 0);
        uint32_t end = s + 1 < n ? (uint32_t)json_object_get_uint64(pn_json_at(slots, s + 1)) : PN_SLOTS;
        for (; slot < end && slot < PN_SLOTS; slot++) map->owner[slot] = (uint16_t)s;
    }
    return true;
}
