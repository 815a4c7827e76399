/* Shared by the writers of blocks: a graph under construction and what each value of the net is called in it. A value of examples is [n, width], one of tokens
 * [n, most, width] with the places that are not there in front. */
#ifndef PN_NN_ONNX_WRITER_H
#define PN_NN_ONNX_WRITER_H

#include "nn/net.h"
#include "nn/onnx/graph.h"

struct writer {
    const struct pn_net *net;
    const float *p;
    struct pn_graph g;
    const char *name[PN_MAX_VALUES];
    const char *table[PN_MAX_TABLES];
    const char *present;   /* [n, most], 1 where there is a token; NULL until the first block of tokens */
};

#define IN(i) w->name[b->in[i]]
#define OUT w->name[b->out[0]]

static inline const char *parameter(struct writer *w, size_t offset, size_t rows, size_t columns) {
    for (size_t i = 0; i < w->net->n_named; i++)
        if (w->net->parameters[i].offset == offset && w->net->parameters[i].shape[0] * w->net->parameters[i].shape[1] == (rows > 0 ? rows : 1) * columns)
            return pn_graph_floats(&w->g, pn_graph_name(&w->g, "%s", w->net->parameters[i].name), w->p + offset, rows, columns);
    return pn_graph_floats(&w->g, pn_graph_name(&w->g, "/p%zu", offset), w->p + offset, rows, columns);
}
static inline const char *reshape(struct writer *w, const char *x, size_t a, size_t b) { /* [n, a, b]; [n, a] if b is 0 */
    return pn_graph_node(&w->g, "Reshape", x, pn_graph_ints(&w->g, (int64_t[]){-1, (int64_t)a, (int64_t)b}, b > 0 ? 3 : 2), NULL);
}
static inline const char *slice(struct writer *w, const char *x, size_t from, size_t to, int64_t axis) {
    const char *in[] = {x, pn_graph_ints(&w->g, (int64_t[]){(int64_t)from}, 1), pn_graph_ints(&w->g, (int64_t[]){(int64_t)to}, 1), pn_graph_ints(&w->g, &axis, 1)};
    const char *out = pn_graph_name(&w->g, "/n%zu", w->g.n_names++);
    pn_graph_add(&w->g, "Slice", in, 4, out);
    return out;
}
static inline const char *sum_over(struct writer *w, const char *x, const int64_t *axes, size_t n, bool keep) {
    const char *in[] = {x, pn_graph_ints(&w->g, axes, n)}, *out = pn_graph_name(&w->g, "/n%zu", w->g.n_names++);
    pn_graph_attribute(&w->g, pn_graph_add(&w->g, "ReduceSum", in, 2, out), "keepdims", keep);
    return out;
}
static inline const char *constant(struct writer *w, float x) {
    float *own = pn_graph_alloc(&w->g, sizeof *own);
    if (own == NULL) return "";
    *own = x;
    return pn_graph_floats(&w->g, pn_graph_name(&w->g, "/c%zu", w->g.n_names++), own, 0, 1);
}
static inline const char *concat(struct writer *w, const char *const *in, size_t n) {
    if (n == 1) return in[0];
    const char *out = pn_graph_name(&w->g, "/n%zu", w->g.n_names++);
    pn_graph_attribute(&w->g, pn_graph_add(&w->g, "Concat", in, n, out), "axis", -1);
    return out;
}
static inline const char *relu(struct writer *w, const struct pn_block *b, const char *x) { return b->relu ? pn_graph_node(&w->g, "Relu", x, NULL, NULL) : x; }

/* sequence.c */
void pn_onnx_tokens(struct writer *, const struct pn_block *);
void pn_onnx_candidate(struct writer *, const struct pn_block *);
void pn_onnx_positions(struct writer *, const struct pn_block *);
void pn_onnx_attention(struct writer *, const struct pn_block *);
void pn_onnx_summary(struct writer *, const struct pn_block *);
/* SASRec: the logit of each example's item, [n, 1], from the tokens' last place. */
const char *pn_onnx_next_item(struct writer *);

#endif
