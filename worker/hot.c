#include "worker/hot.h"
#include <stdlib.h>
#include <string.h>

void pn_hot_map(struct pn_hot_life *l, const struct pn_shard_map *map) {
    bool same = l->n_shards == map->n_shards;
    for (uint32_t i = 0; i < map->n_shards; i++) {
        same = same && l->terms[i] == map->shards[i].term;
        l->terms[i] = map->shards[i].term;
    }
    l->n_shards = map->n_shards;
    if (!same) l->life++;
}

void pn_hot_free(struct pn_hot_step *s) {
    for (size_t t = 0; t < PN_MAX_TABLES; t++) {
        free(s->places[t]);
        free(s->keys[t]);
    }
    memset(s, 0, sizeof *s);
}

enum pn_result pn_hot_find(struct pn_hot_step *s, struct pn_device *d, const struct pn_job *job, const struct pn_batch *b, uint64_t now, bool empty, struct pn_error *err) {
    for (uint32_t t = 0; t < job->i_dense_table; t++) {
        s->places[t] = malloc((b->n_unique[t] + 1) * sizeof *s->places[t]);
        s->keys[t] = malloc((b->n_unique[t] + 1) * sizeof *s->keys[t]);
        if (s->places[t] == NULL || s->keys[t] == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory for a step");
    }
    const enum pn_result r = pn_device_find(d, s->look, b, now, empty, s->places, s->n, err);
    for (uint32_t t = 0; r == PN_OK && t < job->i_dense_table; t++)
        for (size_t i = 0; i < s->n[t]; i++) s->keys[t][i] = b->unique[t][s->places[t][i]]; /* a part of a list in the wire's order is in it too */
    return r;
}

size_t pn_hot_parts(const struct pn_hot_step *s, const struct pn_job *job, float *const rows[PN_MAX_TABLES], struct pn_client_part parts[PN_MAX_TABLES]) {
    size_t n = 0;
    for (uint32_t t = 0; t < job->i_dense_table; t++)
        if (s->n[t] > 0) parts[n++] = (struct pn_client_part){t, s->n[t], s->keys[t], rows[t], s->places[t]};
    return n;
}
