/* Blocks of sequences (nn/sequence.c) as nodes. Where the net lays tokens behind one another without padding, the graph has [n, most, width], the tokens at the
 * end and nothing in front: what is in front is masked in attention and left out of the summary, so that its values reach no output. */
#include <math.h>
#include <string.h>
#include "nn/onnx/writer.h"

#define FAR 1e9f /* subtracted from a logit of attention: its share becomes 0 exactly */

static const char *real(struct writer *w, float x) {
    float *own = pn_graph_alloc(&w->g, sizeof *own);
    if (own == NULL) return "";
    *own = x;
    return pn_graph_floats(&w->g, pn_graph_name(&w->g, "/c%zu", w->g.n_names++), own, 0, 1);
}
/* 0 where there is a token, -FAR where there is none: [n, most]. */
static const char *absent(struct writer *w) { return pn_graph_node(&w->g, "Mul", pn_graph_node(&w->g, "Sub", w->present, real(w, 1), NULL), real(w, FAR), NULL); }
static const char *permuted(struct writer *w, const char *x, const int64_t order[4]) {
    const char *out = pn_graph_name(&w->g, "/n%zu", w->g.n_names++);
    pn_graph_list(&w->g, pn_graph_add(&w->g, "Transpose", &x, 1, out), "perm", order, 4);
    return out;
}

/* Input rows.FIELD [n, most]. */
void pn_onnx_tokens(struct writer *w, const struct pn_block *b) {
    const struct pn_net *net = w->net;
    const struct pn_field *f = &net->job->fields[net->fields[b->w]];
    const char *rows = pn_graph_name(&w->g, "rows.%s", f->name);
    if (w->present == NULL) pn_graph_input(&w->g, w->present = "present", ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT, (int64_t)net->most, NULL);
    pn_graph_input(&w->g, rows, ONNX__TENSOR_PROTO__DATA_TYPE__INT64, (int64_t)net->most, NULL);
    const char *x = pn_graph_node(&w->g, "Gather", w->table[f->i_table], rows, NULL);
    if (net->wide) x = slice(w, x, 1, 1 + net->k, 2);
    OUT = b->gain == 1 ? x : pn_graph_node(&w->g, "Mul", x, real(w, (float)b->gain), NULL);
}

void pn_onnx_candidate(struct writer *w, const struct pn_block *b) {
    const size_t k = w->net->k, most = w->net->most;
    float *ones = pn_graph_alloc(&w->g, most * sizeof *ones);
    if (ones == NULL) return;
    for (size_t i = 0; i < most; i++) ones[i] = 1;
    const char *column = pn_graph_floats(&w->g, pn_graph_name(&w->g, "/c%zu", w->g.n_names++), ones, most, 1);
    OUT = pn_graph_node(&w->g, "Mul", reshape(w, slice(w, IN(0), b->w * k, (b->w + 1) * k, 1), 1, k), column, NULL);
}

/* The vectors of places are counted from the newest: here the other way round. */
void pn_onnx_positions(struct writer *w, const struct pn_block *b) {
    const size_t most = w->net->most, width = b->width;
    float *turned = pn_graph_alloc(&w->g, most * width * sizeof *turned);
    if (turned == NULL) return;
    for (size_t i = 0; i < most; i++) memcpy(turned + i * width, w->p + b->w + (most - 1 - i) * width, width * sizeof *turned);
    OUT = pn_graph_node(&w->g, "Add", IN(0), pn_graph_floats(&w->g, "sequence.position.reversed", turned, most, width), NULL);
}

void pn_onnx_attention(struct writer *w, const struct pn_block *b) {
    const size_t most = w->net->most, d = b->width / b->heads;
    const char *shape = pn_graph_ints(&w->g, (int64_t[]){-1, (int64_t)most, (int64_t)b->heads, (int64_t)d}, 4), *part[3];
    for (size_t i = 0; i < 3; i++) /* q, v: [n, heads, most, d]; k: [n, heads, d, most] */
        part[i] = permuted(w, pn_graph_node(&w->g, "Reshape", slice(w, IN(0), i * b->width, (i + 1) * b->width, 2), shape, NULL), i == 1 ? (int64_t[]){0, 2, 3, 1} : (int64_t[]){0, 2, 1, 3});
    const char *z = pn_graph_node(&w->g, "Mul", pn_graph_node(&w->g, "MatMul", part[0], part[1], NULL), real(w, 1 / sqrtf((float)d)), NULL);
    z = pn_graph_node(&w->g, "Add", z, pn_graph_node(&w->g, "Unsqueeze", absent(w), pn_graph_ints(&w->g, (int64_t[]){1, 2}, 2), NULL), NULL);
    if (b->causal) {
        float *later = pn_graph_alloc(&w->g, most * most * sizeof *later);
        if (later == NULL) return;
        for (size_t i = 0; i < most; i++)
            for (size_t j = i + 1; j < most; j++) later[i * most + j] = -FAR;
        z = pn_graph_node(&w->g, "Add", z, pn_graph_floats(&w->g, pn_graph_name(&w->g, "/c%zu", w->g.n_names++), later, most, most), NULL);
    }
    const char *share = pn_graph_name(&w->g, "/n%zu", w->g.n_names++);
    pn_graph_attribute(&w->g, pn_graph_add(&w->g, "Softmax", &z, 1, share), "axis", -1);
    OUT = reshape(w, permuted(w, pn_graph_node(&w->g, "MatMul", share, part[2], NULL), (int64_t[]){0, 2, 1, 3}), most, b->width);
}

/* The greatest of each unit over the tokens, then the newest tokens; 0 where there is none. */
void pn_onnx_summary(struct writer *w, const struct pn_block *b) {
    const size_t most = w->net->most, width = b->from, recent = b->width / width - 1;
    const char *parts[PN_MAX_FIELDS], *any = pn_graph_name(&w->g, "/n%zu", w->g.n_names++), *greatest = pn_graph_name(&w->g, "/n%zu", w->g.n_names++);
    const char *masked = pn_graph_node(&w->g, "Add", IN(0), pn_graph_node(&w->g, "Unsqueeze", absent(w), pn_graph_ints(&w->g, (int64_t[]){2}, 1), NULL), NULL);
    Onnx__NodeProto *node = pn_graph_add(&w->g, "ReduceMax", &masked, 1, greatest);
    pn_graph_list(&w->g, node, "axes", (int64_t[]){1}, 1);
    pn_graph_attribute(&w->g, node, "keepdims", 0);
    node = pn_graph_add(&w->g, "ReduceMax", &w->present, 1, any);
    pn_graph_list(&w->g, node, "axes", (int64_t[]){1}, 1);
    pn_graph_attribute(&w->g, node, "keepdims", 1);
    parts[0] = pn_graph_node(&w->g, "Mul", greatest, any, NULL);
    size_t n = 1;
    for (size_t r = 0; r < recent && n < PN_MAX_FIELDS; r++) {
        if (r >= most) { /* never there */
            parts[n++] = pn_graph_node(&w->g, "Mul", parts[0], real(w, 0), NULL);
            continue;
        }
        const char *token = reshape(w, slice(w, IN(0), most - 1 - r, most - r, 1), width, 0);
        parts[n++] = pn_graph_node(&w->g, "Mul", token, slice(w, w->present, most - 1 - r, most - r, 1), NULL);
    }
    OUT = concat(w, parts, n);
}

/* Input rows.TARGET [n]: the item that each example is scored with. */
const char *pn_onnx_next_item(struct writer *w) {
    const struct pn_net *net = w->net;
    const struct pn_field *f = &net->job->fields[net->job->sequence.target - 1];
    const char *rows = pn_graph_name(&w->g, "rows.%s", f->name);
    pn_graph_input(&w->g, rows, ONNX__TENSOR_PROTO__DATA_TYPE__INT64, -1, NULL);
    const char *newest = reshape(w, slice(w, w->name[net->shared], net->most - 1, net->most, 1), net->k, 0);
    const char *item = pn_graph_node(&w->g, "Gather", w->table[f->i_table], rows, NULL);
    return sum_over(w, pn_graph_node(&w->g, "Mul", newest, item, NULL), (int64_t[]){1}, 1, true);
}
