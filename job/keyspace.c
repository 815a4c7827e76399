/* The keys that a field can have, where they can be counted. */
#include "common/hash.h"
#include "job/job.h"

bool pn_fields_share(const struct pn_field *a, const struct pn_field *b) { return pn_field_keyed(a) && pn_field_keyed(b) && a->i_table == b->i_table && a->hash_seed == b->hash_seed; }

uint64_t pn_field_domain(const struct pn_field *f) { return f->buckets > 0 ? f->buckets : f->type == PN_FIELD_NUMERIC && f->n_boundaries > 0 ? f->n_boundaries + 2 : 0; }
uint64_t pn_field_missing_key(const struct pn_field *f) { return pn_mix64(f->hash_seed ^ 0x6d697373696e67ull); }
uint64_t pn_field_domain_key(const struct pn_field *f, uint64_t i) {
    if (f->buckets == 0 && i == f->n_boundaries + 1) return pn_field_missing_key(f);
    return pn_hash(&i, sizeof i, f->hash_seed);
}
