/* One pass enters the keys in a hash table whose places rise with the mixed key; so a walk over the table meets them all but sorted, and an insertion sort ends it. */
#include "common/unique.h"
#include <string.h>
#include "common/hash.h"

static unsigned bits_of(size_t n) {
    unsigned bits = 4;
    while (((size_t)1 << bits) < n + n / 2) bits++;
    return bits;
}

/* places, with room behind for those that probing moves past the end; mixed keys by ordinal; mixed keys and ordinals in order. */
size_t pn_unique_scratch(size_t n) { return (((size_t)1 << bits_of(n)) + n + 16) * 4 + n * 8 + n * 16; }

struct sorted { uint64_t mix; uint32_t ordinal; };

size_t pn_unique(const uint64_t *keys, size_t n, uint64_t *unique, uint32_t *index, void *scratch) {
    const unsigned bits = bits_of(n);
    const size_t n_places = ((size_t)1 << bits) + n;
    uint64_t *mixes = scratch;
    struct sorted *sorted = (struct sorted *)(void *)(mixes + n);
    uint32_t *places = (uint32_t *)(void *)(sorted + n), n_unique = 0;
    memset(places, 0, n_places * sizeof *places);
    for (size_t i = 0; i < n; i++) {
        const uint64_t mix = pn_mix64(keys[i]);
        size_t at = mix >> (64 - bits);
        while (places[at] != 0 && mixes[places[at] - 1] != mix) at++;
        if (places[at] == 0) {
            mixes[n_unique] = mix;
            unique[n_unique] = keys[i];
            places[at] = ++n_unique;
        }
        index[i] = places[at] - 1;
    }
    uint32_t m = 0;
    for (size_t at = 0; m < n_unique; at++) {
        if (places[at] == 0) continue;
        const uint32_t ordinal = places[at] - 1;
        uint32_t to = m++;
        for (; to > 0 && sorted[to - 1].mix > mixes[ordinal]; to--) sorted[to] = sorted[to - 1];
        sorted[to] = (struct sorted){mixes[ordinal], ordinal};
    }
    /* From here on places are ranks, and mixes is room for the keys in order. */
    for (uint32_t i = 0; i < n_unique; i++) {
        places[sorted[i].ordinal] = i;
        mixes[i] = unique[sorted[i].ordinal];
    }
    memcpy(unique, mixes, n_unique * sizeof *unique);
    for (size_t i = 0; i < n; i++) index[i] = places[index[i]];
    return n_unique;
}
