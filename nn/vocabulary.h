/* The values of a categorical feature that have keys of their own. As text a vocabulary is one value a line, the most frequent first: a value has neither a line break nor
 * a '\r' at its end, is not empty and stands once. That text is what a user gives (`vocabulary: {file}`), what the counting worker writes, and what a snapshot holds. */
#ifndef PN_NN_VOCABULARY_H
#define PN_NN_VOCABULARY_H

#include "job/job.h"

#define PN_VOCABULARY_BYTES (1u << 30) /* of a text */
#define PN_VOCABULARY_NAME 64u         /* of a file, with a NUL */

/* Read-only once made: shared by threads. It holds the values' keys (pn_hash of the value, seed of the field): 64 bits stand for a value here as everywhere. */
struct pn_vocabulary;
/* PN_INVALID: err says what is wrong with the text, and in which line. */
enum pn_result pn_vocabulary_read(struct pn_vocabulary **, const char *text, size_t n_bytes, uint64_t hash_seed, struct pn_error *);
void pn_vocabulary_close(struct pn_vocabulary *); /* NULL is allowed */
bool pn_vocabulary_has(const struct pn_vocabulary *, uint64_t key);
size_t pn_vocabulary_size(const struct pn_vocabulary *);
/* One of the n_oov keys that all other values of a field share; key is what the value would have. */
uint64_t pn_vocabulary_other(uint64_t hash_seed, uint32_t n_oov, uint64_t key);

/* Those of a job, by field; fields with the vocabulary of another field have none here. */
struct pn_vocabularies { struct pn_vocabulary *of[PN_MAX_FIELDS]; };
/* Makes those that the job file gives (values). */
enum pn_result pn_vocabularies_open(struct pn_vocabularies *, const struct pn_job *, struct pn_error *);
void pn_vocabularies_close(struct pn_vocabularies *);

/* ---- counting ---- */
struct pn_counts;
struct pn_counts *pn_counts_open(void); /* NULL: no memory */
void pn_counts_close(struct pn_counts *); /* NULL is allowed */
/* One more of a value, which is not empty. Values that cannot stand in a vocabulary do not count. PN_FULL: more than PN_VOCABULARY_MOST different ones, or PN_VOCABULARY_BYTES of them. */
enum pn_result pn_counts_add(struct pn_counts *, const char *value, size_t n_bytes);
/* The values that came min_count times or more, the max_size most frequent of them, as text: by count, highest first, then by their bytes. So it depends on how often each value
 * came, not on the order, nor on how the rows were divided. malloc; *n_values of them. PN_NO_MEMORY. */
enum pn_result pn_counts_text(const struct pn_counts *, uint64_t min_count, uint32_t max_size, char **text, size_t *n_bytes, size_t *n_values);

#endif
