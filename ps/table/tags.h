/* Sixteen one-byte tags compared at once: bit i of the result says that tags[i] == tag. */
#ifndef PN_PS_TABLE_TAGS_H
#define PN_PS_TABLE_TAGS_H

#include <stdint.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define PN_TAG_GROUP 16u

static inline uint32_t pn_tags_match_portable(const uint8_t *tags, uint8_t tag) {
    uint32_t found = 0;
    for (uint32_t i = 0; i < PN_TAG_GROUP; i++) found |= (uint32_t)(tags[i] == tag) << i;
    return found;
}
static inline uint32_t pn_tags_match(const uint8_t *tags, uint8_t tag) {
#ifdef __SSE2__
    __m128i group = _mm_loadu_si128((const __m128i *)(const void *)tags);
    return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(group, _mm_set1_epi8((char)tag)));
#else
    return pn_tags_match_portable(tags, tag);
#endif
}

#endif
