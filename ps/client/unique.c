#include <stdlib.h>
#include "ps/client/client.h"

struct pair { uint64_t key, i; };

static int by_key(const void *a, const void *b) {
    const struct pair *x = a, *y = b;
    return x->key != y->key ? (x->key < y->key ? -1 : 1) : (x->i < y->i ? -1 : x->i > y->i);
}

size_t pn_unique(const uint64_t *keys, size_t n, uint64_t *unique, uint32_t *index, uint64_t *scratch) {
    struct pair *pairs = (struct pair *)(void *)scratch;
    size_t n_unique = 0;
    for (size_t i = 0; i < n; i++) pairs[i] = (struct pair){keys[i], i};
    qsort(pairs, n, sizeof *pairs, by_key);
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || pairs[i].key != pairs[i - 1].key) unique[n_unique++] = pairs[i].key;
        index[pairs[i].i] = (uint32_t)(n_unique - 1);
    }
    return n_unique;
}
