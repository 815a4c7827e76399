#include <math.h>
#include <string.h>
#include "nn/blocks.h"

float pn_pool_scale(enum pn_pooling pooling, uint32_t n) {
    return n == 1 ? 1.0f : pooling == PN_POOL_MEAN ? 1.0f / (float)n : pooling == PN_POOL_SQRTN ? 1.0f / sqrtf((float)n) : 1.0f;
}

/* Examples at once: what the fields put beside one another in their vectors stays in the first-level cache, and a field's rows are asked for while those of the
 * field before it are read. Rows follow from hashes, so that the processor guesses none of them. */
enum { BLOCK = 16 };

static inline void ask_for(const struct pn_batch *b, size_t s, size_t first, size_t end, const float *table, size_t dim) {
    for (size_t e = first; e < end; e++) {
        const float *row = table + (size_t)b->position[b->begin[s * b->n_examples + e]] * dim;
        __builtin_prefetch(row, 1);
        __builtin_prefetch(row + dim - 1, 1);
    }
}

PN_MACHINES void pn_pool_forward(const struct pn_job *job, const size_t *fields, size_t f, const struct pn_batch *b, const float *const rows[PN_MAX_TABLES], bool wide, size_t k, float linear_scale,
                     float *linear, float *embedded) {
    const size_t n = b->n_examples, dim = wide + k;
    if (wide) memset(linear, 0, n * sizeof *linear);
    for (size_t at = 0; at < n; at += BLOCK) {
        const size_t last = at + BLOCK < n ? at + BLOCK : n;
        for (size_t s = 0; s < f; s++) {
            const struct pn_field *field = &job->fields[fields[s]];
            const float *table = rows[field->i_table];
            if (s + 1 < f) ask_for(b, s + 1, at, last, rows[job->fields[fields[s + 1]].i_table], dim);
            for (size_t e = at; e < last; e++) {
                float *restrict out = embedded + (e * f + s) * k;
                const uint32_t begin = b->begin[s * n + e], end = b->begin[s * n + e + 1];
                const float *restrict first = table + (size_t)b->position[begin] * dim;
                const float once = pn_batch_weight(b, begin);
                float w = wide ? once * first[0] : 0;
                for (size_t d = 0; d < k; d++) out[d] = once * first[wide + d];
                if (end - begin > 1) {
                    for (uint32_t i = begin + 1; i < end; i++) {
                        const float *row = table + (size_t)b->position[i] * dim;
                        const float times = pn_batch_weight(b, i);
                        if (wide) w += times * row[0];
                        for (size_t d = 0; d < k; d++) out[d] += times * row[wide + d];
                    }
                    const float scale = pn_pool_scale(field->pooling, end - begin);
                    w *= scale;
                    for (size_t d = 0; d < k; d++) out[d] *= scale;
                }
                if (wide) linear[e] += linear_scale * w;
            }
        }
    }
}

PN_MACHINES void pn_pool_backward(const struct pn_job *job, const size_t *fields, size_t f, const struct pn_batch *b, bool wide, size_t k, float linear_scale, const float *linear_gradient,
                      const float *embedded_gradient, float *const row_gradients[PN_MAX_TABLES]) {
    const size_t n = b->n_examples, dim = wide + k;
    for (size_t at = 0; at < n; at += BLOCK) {
        const size_t last = at + BLOCK < n ? at + BLOCK : n;
        for (size_t s = 0; s < f; s++) {
            const struct pn_field *field = &job->fields[fields[s]];
            float *table = row_gradients[field->i_table];
            if (s + 1 < f) ask_for(b, s + 1, at, last, row_gradients[job->fields[fields[s + 1]].i_table], dim);
            for (size_t e = at; e < last; e++) {
                const float *restrict g = embedded_gradient + (e * f + s) * k;
                const uint32_t begin = b->begin[s * n + e], end = b->begin[s * n + e + 1];
                const float scale = pn_pool_scale(field->pooling, end - begin);
                for (uint32_t i = begin; i < end; i++) {
                    float *restrict row = table + (size_t)b->position[i] * dim;
                    const float share = scale * pn_batch_weight(b, i);
                    if (wide) row[0] += share * linear_scale * linear_gradient[e];
                    for (size_t d = 0; d < k; d++) row[wide + d] += share * g[d];
                }
            }
        }
    }
}

/* ---- a part of the vectors, for models of two categorical fields, which have no weights; widths of small models compiled by themselves (linear.c says why) ---- */
#define PASS __attribute__((always_inline)) static inline void

PASS part_forward(const struct pn_job *job, const size_t *fields, size_t f, const struct pn_batch *b, const float *const rows[PN_MAX_TABLES], size_t dim, size_t at, size_t width, float *restrict embedded) {
    const size_t n = b->n_examples;
    for (size_t s = 0; s < f; s++) {
        const struct pn_field *field = &job->fields[fields[s]];
        const float *table = rows[field->i_table] + at;
        for (size_t e = 0; e < n; e++) {
            float *restrict out = embedded + (e * f + s) * width;
            const uint32_t begin = b->begin[s * n + e], end = b->begin[s * n + e + 1];
            const float *restrict first = table + (size_t)b->position[begin] * dim;
            for (size_t d = 0; d < width; d++) out[d] = first[d];
            if (end - begin <= 1) continue;
            for (uint32_t i = begin + 1; i < end; i++)
                for (size_t d = 0; d < width; d++) out[d] += table[(size_t)b->position[i] * dim + d];
            const float scale = pn_pool_scale(field->pooling, end - begin);
            for (size_t d = 0; d < width; d++) out[d] *= scale;
        }
    }
}
PN_MACHINES void pn_pool_part_forward(const struct pn_job *job, const size_t *fields, size_t f, const struct pn_batch *b, const float *const rows[PN_MAX_TABLES], size_t dim, size_t at, size_t width,
                                      float *out) {
    if (width == 8) part_forward(job, fields, f, b, rows, dim, at, 8, out);
    else if (width == 32) part_forward(job, fields, f, b, rows, dim, at, 32, out);
    else part_forward(job, fields, f, b, rows, dim, at, width, out);
}

PASS part_backward(const struct pn_job *job, const size_t *fields, size_t f, const struct pn_batch *b, size_t dim, size_t at, size_t width, const float *restrict gradient,
                   float *const row_gradients[PN_MAX_TABLES]) {
    const size_t n = b->n_examples;
    for (size_t s = 0; s < f; s++) {
        const struct pn_field *field = &job->fields[fields[s]];
        float *table = row_gradients[field->i_table] + at;
        for (size_t e = 0; e < n; e++) {
            const float *restrict g = gradient + (e * f + s) * width;
            const uint32_t begin = b->begin[s * n + e], end = b->begin[s * n + e + 1];
            const float scale = pn_pool_scale(field->pooling, end - begin);
            for (uint32_t i = begin; i < end; i++) {
                float *restrict row = table + (size_t)b->position[i] * dim;
                for (size_t d = 0; d < width; d++) row[d] += scale * g[d];
            }
        }
    }
}
PN_MACHINES void pn_pool_part_backward(const struct pn_job *job, const size_t *fields, size_t f, const struct pn_batch *b, size_t dim, size_t at, size_t width, const float *g,
                                       float *const row_gradients[PN_MAX_TABLES]) {
    if (width == 8) part_backward(job, fields, f, b, dim, at, 8, g, row_gradients);
    else if (width == 32) part_backward(job, fields, f, b, dim, at, 32, g, row_gradients);
    else part_backward(job, fields, f, b, dim, at, width, g, row_gradients);
}
