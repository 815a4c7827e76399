/* From blocks to nodes: a writer for each kind of block, found by the kind's name. Shapes: writer.h. */
#include "nn/onnx/onnx.h"
#include <stdlib.h>
#include <string.h>
#include "nn/onnx/writer.h"

#define MOST_BYTES 2000000000u /* a message of protobuf ends at 2 GiB */

/* Rows by number, pooled: rows.FIELD [n], or for a field of lists rows.FIELD and weights.FIELD [n, most], where places that are not there have weight 0. */
static void embedding(struct writer *w, const struct pn_block *b) {
    const struct pn_net *net = w->net;
    const char *linear[PN_MAX_FIELDS], *vectors[PN_MAX_FIELDS];
    for (size_t s = 0; s < net->n_sparse; s++) {
        const struct pn_field *f = &net->job->fields[net->fields[s]];
        const char *rows = pn_graph_name(&w->g, "rows.%s", f->name);
        const bool listed = f->type == PN_FIELD_MULTI || f->type == PN_FIELD_LEAVES;
        pn_graph_input(&w->g, rows, ONNX__TENSOR_PROTO__DATA_TYPE__INT64, listed ? 0 : -1, listed ? pn_graph_name(&w->g, "most.%s", f->name) : NULL);
        const char *x = pn_graph_node(&w->g, "Gather", w->table[f->i_table], rows, NULL);
        if (listed) {
            const char *weights = pn_graph_name(&w->g, "weights.%s", f->name);
            pn_graph_input(&w->g, weights, ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT, 0, pn_graph_name(&w->g, "most.%s", f->name));
            const char *wide = pn_graph_node(&w->g, "Unsqueeze", weights, pn_graph_ints(&w->g, (int64_t[]){2}, 1), NULL);
            x = sum_over(w, pn_graph_node(&w->g, "Mul", x, wide, NULL), (int64_t[]){1}, 1, false);
        }
        if (net->wide) linear[s] = net->k > 0 ? slice(w, x, 0, 1, 1) : x;
        vectors[s] = net->wide && net->k > 0 ? slice(w, x, 1, 1 + net->k, 1) : x;
    }
    if (net->wide) OUT = pn_graph_node(&w->g, "Mul", sum_over(w, concat(w, linear, net->n_sparse), (int64_t[]){1}, 1, true), constant(w, net->job->linear_scale), NULL);
    if (net->k > 0) w->name[b->out[1]] = concat(w, vectors, net->n_sparse);
}
static void numbers(struct writer *w, const struct pn_block *b) {
    OUT = "numbers";
    pn_graph_input(&w->g, "numbers", ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT, (int64_t)b->width, NULL);
}
static void bias(struct writer *w, const struct pn_block *b) { OUT = parameter(w, b->w, 1, 1); }
static void linear(struct writer *w, const struct pn_block *b) {
    const char *weight = parameter(w, b->w, b->from, b->width);
    OUT = relu(w, b, !b->biased ? pn_graph_node(&w->g, "MatMul", IN(0), weight, NULL)
                    : !b->tokens ? pn_graph_node(&w->g, "Gemm", IN(0), weight, parameter(w, b->b, 0, b->width))
                                 : pn_graph_node(&w->g, "Add", pn_graph_node(&w->g, "MatMul", IN(0), weight, NULL), parameter(w, b->b, 0, b->width), NULL));
}
static void weight(struct writer *w, const struct pn_block *b) { OUT = pn_graph_node(&w->g, "MatMul", IN(0), parameter(w, b->w, b->from, 1), NULL); }
static void norm(struct writer *w, const struct pn_block *b) {
    const char *in[] = {IN(0), parameter(w, b->w, 0, b->width), parameter(w, b->b, 0, b->width)}, *out = pn_graph_name(&w->g, "/n%zu", w->g.n_names++);
    Onnx__NodeProto *node = pn_graph_add(&w->g, "LayerNormalization", in, 3, out);
    pn_graph_attribute(&w->g, node, "axis", -1);
    pn_graph_real(&w->g, node, "epsilon", 1e-5f);
    OUT = relu(w, b, out);
}
static void batch_norm(struct writer *w, const struct pn_block *b) {
    const size_t at = pn_net_state(w->net) + b->state;
    const char *in[] = {IN(0), parameter(w, b->w, 0, b->width), parameter(w, b->b, 0, b->width), parameter(w, at, 0, b->width), parameter(w, at + b->width, 0, b->width)};
    const char *out = pn_graph_name(&w->g, "/n%zu", w->g.n_names++);
    pn_graph_real(&w->g, pn_graph_add(&w->g, "BatchNormalization", in, 5, out), "epsilon", 1e-5f);
    OUT = relu(w, b, out);
}
static void dropout(struct writer *w, const struct pn_block *b) { OUT = IN(0); }
static void fm(struct writer *w, const struct pn_block *b) {
    const char *v = reshape(w, IN(0), w->net->n_sparse, w->net->k), *sums = sum_over(w, v, (int64_t[]){1}, 1, false);
    const char *total = sum_over(w, pn_graph_node(&w->g, "Mul", sums, sums, NULL), (int64_t[]){1}, 1, true);
    const char *flat = pn_graph_node(&w->g, "Mul", IN(0), IN(0), NULL);
    OUT = pn_graph_node(&w->g, "Mul", pn_graph_node(&w->g, "Sub", total, sum_over(w, flat, (int64_t[]){1}, 1, true), NULL), constant(w, 0.5f), NULL);
}
static void cross(struct writer *w, const struct pn_block *b) {
    const char *product = pn_graph_node(&w->g, "Gemm", IN(1), parameter(w, b->w, b->width, b->width), parameter(w, b->b, 0, b->width));
    OUT = pn_graph_node(&w->g, "Add", pn_graph_node(&w->g, "Mul", IN(0), product, NULL), IN(1), NULL);
}
static void dot(struct writer *w, const struct pn_block *b) {
    const size_t m = b->from / w->net->k;
    const char *v = reshape(w, IN(0), m, w->net->k), *turned = pn_graph_name(&w->g, "/n%zu", w->g.n_names++);
    pn_graph_list(&w->g, pn_graph_add(&w->g, "Transpose", &v, 1, turned), "perm", (int64_t[]){0, 2, 1}, 3);
    int64_t *pairs = pn_graph_alloc(&w->g, b->width * sizeof *pairs);
    if (pairs == NULL) return;
    size_t n = 0;
    for (size_t j = 1; j < m; j++)
        for (size_t i = 0; i < j; i++) pairs[n++] = (int64_t)(j * m + i);
    const char *all = reshape(w, pn_graph_node(&w->g, "MatMul", v, turned, NULL), m * m, 0), *in[] = {all, pn_graph_ints(&w->g, pairs, n)};
    OUT = pn_graph_name(&w->g, "/n%zu", w->g.n_names++);
    pn_graph_attribute(&w->g, pn_graph_add(&w->g, "Gather", in, 2, OUT), "axis", 1);
}
static void part(struct writer *w, const struct pn_block *b) {
    const size_t m = b->from / w->net->k;
    OUT = reshape(w, slice(w, reshape(w, IN(0), m, w->net->k), b->w, b->w + b->width / m, 2), b->width, 0);
}
static void product(struct writer *w, const struct pn_block *b) {
    OUT = pn_graph_node(&w->g, "Mul", slice(w, IN(0), 0, b->width, 1), slice(w, IN(0), b->width, 2 * b->width, 1), NULL);
}
static void pair(struct writer *w, const struct pn_block *b) { /* rows.USER, rows.ITEM [n] */
    const struct pn_net *net = w->net;
    const char *row[2], *weights[2], *v[2];
    for (size_t s = 0; s < 2; s++) {
        const struct pn_field *f = &net->job->fields[net->fields[s]];
        const char *rows = pn_graph_name(&w->g, "rows.%s", f->name);
        pn_graph_input(&w->g, rows, ONNX__TENSOR_PROTO__DATA_TYPE__INT64, -1, NULL);
        row[s] = pn_graph_node(&w->g, "Gather", w->table[f->i_table], rows, NULL);
        weights[s] = net->wide ? slice(w, row[s], 0, 1, 1) : NULL;
        v[s] = net->wide ? slice(w, row[s], 1, 1 + net->k, 1) : row[s];
    }
    OUT = sum_over(w, pn_graph_node(&w->g, "Mul", v[0], v[1], NULL), (int64_t[]){1}, 1, true);
    if (!net->wide) return;
    const char *linear = pn_graph_node(&w->g, "Mul", pn_graph_node(&w->g, "Add", weights[0], weights[1], NULL), constant(w, net->job->linear_scale), NULL);
    OUT = pn_graph_node(&w->g, "Add", OUT, linear, NULL);
}
static void unit(struct writer *w, const struct pn_block *b) {
    const char *v = reshape(w, IN(0), b->width / w->net->k, w->net->k);
    const char *squares = sum_over(w, pn_graph_node(&w->g, "Mul", v, v, NULL), (int64_t[]){2}, 1, true);
    const char *length = pn_graph_node(&w->g, "Sqrt", pn_graph_node(&w->g, "Add", squares, constant(w, 1e-12f), NULL), NULL, NULL);
    OUT = reshape(w, pn_graph_node(&w->g, "Div", v, length, NULL), b->width, 0);
}
static void side_by_side(struct writer *w, const struct pn_block *b) {
    const char *in[PN_MAX_INPUTS];
    for (size_t i = 0; i < b->n_in; i++) in[i] = IN(i);
    OUT = concat(w, in, b->n_in);
}
static void sum(struct writer *w, const struct pn_block *b) {
    const char *in[PN_MAX_INPUTS];
    for (size_t i = 0; i < b->n_in; i++) in[i] = IN(i);
    OUT = pn_graph_name(&w->g, "/n%zu", w->g.n_names++);
    pn_graph_add(&w->g, "Sum", in, b->n_in, OUT);
}

static const struct { const char *name; void (*write)(struct writer *, const struct pn_block *); } kinds[] = {
    {"embedding", embedding}, {"numbers", numbers}, {"bias", bias}, {"linear", linear}, {"weight", weight}, {"norm", norm}, {"batch norm", batch_norm}, {"dropout", dropout},
    {"fm", fm}, {"cross", cross}, {"dot", dot}, {"part", part}, {"product", product}, {"pair", pair}, {"unit", unit}, {"concat", side_by_side}, {"sum", sum},
    {"tokens", pn_onnx_tokens}, {"candidate", pn_onnx_candidate}, {"positions", pn_onnx_positions}, {"attention", pn_onnx_attention}, {"summary", pn_onnx_summary}};

/* NAME [n]: the sigmoid of a logit; the logit itself as well if it is asked for. */
static void score(struct writer *w, const char *logit, const char *name, const char *logit_name) {
    const char *in[] = {logit, pn_graph_ints(&w->g, (int64_t[]){-1}, 1)}, *flat = logit_name != NULL ? logit_name : pn_graph_name(&w->g, "/n%zu", w->g.n_names++);
    pn_graph_add(&w->g, "Reshape", in, 2, flat);
    pn_graph_add(&w->g, "Sigmoid", &flat, 1, name);
    if (logit_name != NULL) pn_graph_output(&w->g, logit_name);
    pn_graph_output(&w->g, name);
}

static enum pn_result pack(struct writer *w, void **image, size_t *n_bytes, struct pn_error *err) {
    Onnx__ModelProto model;
    Onnx__OperatorSetIdProto opset, *opsets[] = {&opset};
    if (w->g.failed) return pn_fail(err, PN_NO_MEMORY, "no memory for the graph");
    if (w->g.bytes > MOST_BYTES) return pn_fail(err, PN_REFUSED, "the model's tables have %zu bytes, and an ONNX file ends at 2 GB", w->g.bytes);
    onnx__model_proto__init(&model);
    onnx__operator_set_id_proto__init(&opset);
    opset.has_version = 1;
    opset.version = 17;
    opset.domain = (char *)(uintptr_t)"";
    model.has_ir_version = 1;
    model.ir_version = 8;
    model.producer_name = (char *)(uintptr_t)"pinion";
    model.n_opset_import = 1;
    model.opset_import = opsets;
    model.graph = &w->g.g;
    *n_bytes = onnx__model_proto__get_packed_size(&model);
    if ((*image = malloc(*n_bytes + 1)) == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory for %zu bytes of ONNX", *n_bytes);
    onnx__model_proto__pack(&model, *image);
    return PN_OK;
}

enum pn_result pn_onnx_write(const struct pn_net *net, const float *parameters, const struct pn_onnx_table tables[PN_MAX_TABLES], void **image, size_t *n_bytes, struct pn_error *err) {
    struct writer *w = calloc(1, sizeof *w);
    if (w == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory for the graph");
    w->net = net;
    w->p = parameters;
    enum pn_result r = PN_OK;
    pn_graph_open(&w->g, net->job->name);
    for (uint32_t t = 0; t < net->job->i_dense_table && r == PN_OK; t++) { /* row 0: zeros */
        const size_t dim = net->job->tables[t].dim;
        float *rows = tables[t].n_rows * dim * sizeof *rows < MOST_BYTES ? pn_graph_alloc(&w->g, (tables[t].n_rows + 1) * dim * sizeof *rows) : NULL;
        if (rows == NULL) r = pn_fail(err, PN_REFUSED, "table %s has %zu rows: too large for one ONNX file, or for memory", net->job->tables[t].name, tables[t].n_rows);
        else if (tables[t].n_rows > 0) memcpy(rows + dim, tables[t].rows, tables[t].n_rows * dim * sizeof *rows);
        w->table[t] = pn_graph_name(&w->g, "table.%s", net->job->tables[t].name);
        if (rows != NULL) pn_graph_floats(&w->g, w->table[t], rows, tables[t].n_rows + 1, dim);
    }
    for (size_t i = 0; i < net->n_blocks && r == PN_OK; i++) {
        const struct pn_block *b = &net->blocks[i];
        size_t k = 0;
        while (k < sizeof kinds / sizeof *kinds && strcmp(kinds[k].name, b->kind->name) != 0) k++;
        if (k == sizeof kinds / sizeof *kinds) r = pn_fail(err, PN_REFUSED, "a block \"%s\" has no ONNX form here", b->kind->name);
        else kinds[k].write(w, b);
    }
    if (r == PN_OK) {
        score(w, net->job->model == PN_MODEL_SASREC ? pn_onnx_next_item(w) : w->name[net->logit], "score", "logit");
        for (size_t h = 0; h < net->job->n_heads; h++) score(w, w->name[net->heads[h]], pn_graph_name(&w->g, "score.%s", net->job->heads[h].name), NULL);
        r = pack(w, image, n_bytes, err);
    }
    pn_graph_close(&w->g);
    free(w);
    return r;
}
