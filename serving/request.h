/* An infer request of the Open Inference Protocol, as text or with binary tensors, and its answer. Pure computation. */
#ifndef PN_SERVING_REQUEST_H
#define PN_SERVING_REQUEST_H

#include "serving/ranker.h"

struct pn_infer {
    struct pn_candidates candidates;
    size_t top_k;                     /* 0: all scores in the order of the candidates */
    bool has_id;
    char *id;
    struct { bool wanted, binary; } score, index;
    /* the candidates' text grows here */
    char *text;
    size_t n_text, room;
};
/* `header_length`: the text of Inference-Header-Content-Length, NULL if absent. PN_INVALID: err is for the client. The caller frees
 * in any case. Columns that the model does not read are checked and left out. */
enum pn_result pn_infer_parse(struct pn_infer *, const struct pn_columns *, const char *header_length, const uint8_t *body, size_t n_bytes, struct pn_error *);
void pn_infer_free(struct pn_infer *);
/* The answer (malloc). json_bytes: length of the JSON part, 0 when all is JSON. */
enum pn_result pn_infer_render(const struct pn_infer *, const char *model, uint64_t version, const float *scores, char **body, size_t *n_bytes, size_t *json_bytes);

#endif
