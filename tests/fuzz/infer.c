/* The body of a ranking request, with and without binary tensors. The first two bytes choose the length of the JSON part. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "serving/request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const struct pn_field item = {.type = PN_FIELD_CATEGORICAL}, genres = {.type = PN_FIELD_MULTI, .separator = '|'}, price = {.type = PN_FIELD_NUMERIC};
    static const struct pn_columns columns = {3, {"item", "genres", "price"}, {&item, &genres, &price}};
    static struct pn_infer q;
    if (size < 2) return 0;
    char length[16];
    struct pn_error err;
    snprintf(length, sizeof length, "%u", (unsigned)(data[0] | data[1] << 8));
    size_t n = size - 2;
    uint8_t *body = malloc(n + (n == 0)); /* of exactly its size: a read behind is seen */
    memcpy(body, data + 2, n);
    if (pn_infer_parse(&q, &columns, data[0] == 0 && data[1] == 0 ? NULL : length, body, n, &err) == PN_OK) {
        float *scores = calloc(q.candidates.n_rows, sizeof *scores);
        char *answer;
        size_t n_answer, n_json;
        for (size_t c = 0; c < columns.n; c++)
            for (size_t r = 0; r < q.candidates.columns[c].n; r++)
                if (q.candidates.columns[c].offset[r] + (size_t)q.candidates.columns[c].length[r] > q.n_text) abort();
        if (pn_infer_render(&q, "m", 1, scores, &answer, &n_answer, &n_json) == PN_OK) free(answer);
        free(scores);
    }
    pn_infer_free(&q);
    free(body);
    return 0;
}
