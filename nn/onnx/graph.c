#include "nn/onnx/graph.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void pn_graph_open(struct pn_graph *g, const char *name) {
    *g = (struct pn_graph){.failed = false};
    onnx__graph_proto__init(&g->g);
    g->g.name = (char *)(uintptr_t)pn_graph_name(g, "%s", name);
}

void pn_graph_close(struct pn_graph *g) {
    for (size_t i = 0; i < g->n_owned; i++) free(g->owned[i]);
    free(g->owned);
    *g = (struct pn_graph){.failed = true};
}

void *pn_graph_alloc(struct pn_graph *g, size_t n_bytes) {
    if (g->n_owned == g->max_owned) {
        const size_t max = g->max_owned == 0 ? 256 : 2 * g->max_owned;
        void **owned = realloc(g->owned, max * sizeof *owned);
        if (owned == NULL) {
            g->failed = true;
            return NULL;
        }
        g->owned = owned;
        g->max_owned = max;
    }
    void *p = calloc(1, n_bytes + 1);
    if (p == NULL) g->failed = true;
    else g->owned[g->n_owned++] = p;
    return p;
}

const char *pn_graph_name(struct pn_graph *g, const char *format, ...) {
    va_list args;
    char text[300];
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    char *p = pn_graph_alloc(g, strlen(text) + 1);
    if (p == NULL) return "";
    strcpy(p, text);
    return p;
}

/* One more pointer at the end of a list of a message: the list is doubled when its length is a power of two. */
static bool append(struct pn_graph *g, void *list_at, size_t *n, void *item) {
    void **list;
    memcpy(&list, list_at, sizeof list);
    if (item == NULL || g->failed) return false;
    if ((*n & (*n - 1)) == 0) {
        void **grown = pn_graph_alloc(g, (*n == 0 ? 1 : 2 * *n) * sizeof *grown);
        if (grown == NULL) return false;
        if (*n > 0) memcpy(grown, list, *n * sizeof *grown);
        list = grown;
        memcpy(list_at, &list, sizeof list);
    }
    list[(*n)++] = item;
    return true;
}

static Onnx__TensorShapeProto__Dimension *dimension(struct pn_graph *g, int64_t value, const char *name) {
    Onnx__TensorShapeProto__Dimension *d = pn_graph_alloc(g, sizeof *d);
    if (d == NULL) return NULL;
    onnx__tensor_shape_proto__dimension__init(d);
    if (name != NULL) {
        d->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM;
        d->dim_param = (char *)(uintptr_t)pn_graph_name(g, "%s", name);
    } else {
        d->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
        d->dim_value = value;
    }
    return d;
}

static Onnx__ValueInfoProto *value(struct pn_graph *g, const char *name, int type, int64_t columns, const char *second) {
    Onnx__ValueInfoProto *v = pn_graph_alloc(g, sizeof *v);
    Onnx__TypeProto *t = pn_graph_alloc(g, sizeof *t);
    Onnx__TypeProto__Tensor *tensor = pn_graph_alloc(g, sizeof *tensor);
    Onnx__TensorShapeProto *shape = pn_graph_alloc(g, sizeof *shape);
    if (g->failed) return NULL;
    onnx__value_info_proto__init(v);
    onnx__type_proto__init(t);
    onnx__type_proto__tensor__init(tensor);
    onnx__tensor_shape_proto__init(shape);
    append(g, &shape->dim, &shape->n_dim, dimension(g, 0, "n"));
    if (columns >= 0) append(g, &shape->dim, &shape->n_dim, dimension(g, columns, columns == 0 ? second : NULL));
    tensor->has_elem_type = 1;
    tensor->elem_type = type;
    tensor->shape = shape;
    t->value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
    t->tensor_type = tensor;
    v->name = (char *)(uintptr_t)pn_graph_name(g, "%s", name);
    v->type = t;
    return v;
}
void pn_graph_input(struct pn_graph *g, const char *name, int type, int64_t columns, const char *second) { append(g, &g->g.input, &g->g.n_input, value(g, name, type, columns, second)); }
void pn_graph_output(struct pn_graph *g, const char *name) { append(g, &g->g.output, &g->g.n_output, value(g, name, ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT, -1, NULL)); }

static const char *tensor(struct pn_graph *g, const char *name, int type, const void *data, size_t n_bytes, size_t a, size_t b) {
    Onnx__TensorProto *t = pn_graph_alloc(g, sizeof *t);
    int64_t *dims = pn_graph_alloc(g, 2 * sizeof *dims);
    if (g->failed) return name;
    onnx__tensor_proto__init(t);
    t->dims = dims;
    if (a > 0) dims[t->n_dims++] = (int64_t)a;
    dims[t->n_dims++] = (int64_t)b;
    t->has_data_type = 1;
    t->data_type = type;
    t->name = (char *)(uintptr_t)name;
    t->has_raw_data = 1;
    t->raw_data = (ProtobufCBinaryData){n_bytes, (uint8_t *)(uintptr_t)data};
    g->bytes += n_bytes;
    append(g, &g->g.initializer, &g->g.n_initializer, t);
    return name;
}
const char *pn_graph_floats(struct pn_graph *g, const char *name, const float *data, size_t a, size_t b) {
    return tensor(g, name, ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT, data, (a > 0 ? a : 1) * b * sizeof *data, a, b);
}
const char *pn_graph_ints(struct pn_graph *g, const int64_t *data, size_t n) {
    int64_t *own = pn_graph_alloc(g, n * sizeof *own);
    if (own == NULL) return "";
    memcpy(own, data, n * sizeof *own);
    return tensor(g, pn_graph_name(g, "/i%zu", g->n_names++), ONNX__TENSOR_PROTO__DATA_TYPE__INT64, own, n * sizeof *own, 0, n);
}

Onnx__NodeProto *pn_graph_add(struct pn_graph *g, const char *op, const char *const *in, size_t n_in, const char *out) {
    Onnx__NodeProto *node = pn_graph_alloc(g, sizeof *node);
    if (node == NULL) return NULL;
    onnx__node_proto__init(node);
    node->op_type = (char *)(uintptr_t)op;
    node->name = (char *)(uintptr_t)pn_graph_name(g, "%s/%s", out, op);
    for (size_t i = 0; i < n_in; i++) append(g, &node->input, &node->n_input, (char *)(uintptr_t)in[i]);
    append(g, &node->output, &node->n_output, (char *)(uintptr_t)out);
    append(g, &g->g.node, &g->g.n_node, node);
    return node;
}
const char *pn_graph_node(struct pn_graph *g, const char *op, const char *a, const char *b, const char *c) {
    const char *in[3] = {a, b, c}, *out = pn_graph_name(g, "/n%zu", g->n_names++);
    pn_graph_add(g, op, in, (size_t)(b == NULL ? 1 : c == NULL ? 2 : 3), out);
    return out;
}

static Onnx__AttributeProto *attribute(struct pn_graph *g, Onnx__NodeProto *node, const char *name, Onnx__AttributeProto__AttributeType type) {
    Onnx__AttributeProto *a = pn_graph_alloc(g, sizeof *a);
    if (a == NULL || node == NULL) return NULL;
    onnx__attribute_proto__init(a);
    a->name = (char *)(uintptr_t)name;
    a->has_type = 1;
    a->type = type;
    return append(g, &node->attribute, &node->n_attribute, a) ? a : NULL;
}
void pn_graph_attribute(struct pn_graph *g, Onnx__NodeProto *node, const char *name, int64_t i) {
    Onnx__AttributeProto *a = attribute(g, node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT);
    if (a == NULL) return;
    a->has_i = 1;
    a->i = i;
}
void pn_graph_real(struct pn_graph *g, Onnx__NodeProto *node, const char *name, float f) {
    Onnx__AttributeProto *a = attribute(g, node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT);
    if (a == NULL) return;
    a->has_f = 1;
    a->f = f;
}
void pn_graph_list(struct pn_graph *g, Onnx__NodeProto *node, const char *name, const int64_t *list, size_t n) {
    Onnx__AttributeProto *a = attribute(g, node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS);
    int64_t *own = pn_graph_alloc(g, n * sizeof *own);
    if (a == NULL || own == NULL) return;
    memcpy(own, list, n * sizeof *own);
    a->ints = own;
    a->n_ints = n;
}
