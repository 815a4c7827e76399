/* An ONNX graph under construction, over the messages that protobuf-c makes of onnx.proto. Names are copied; raw data is borrowed until the graph is packed.
 * When memory runs out the graph is `failed`, every call does nothing, and packing says so. */
#ifndef PN_NN_ONNX_GRAPH_H
#define PN_NN_ONNX_GRAPH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "onnx.pb-c.h"

struct pn_graph {
    Onnx__GraphProto g;
    void **owned;          /* all that was allocated */
    size_t n_owned, max_owned, n_names, bytes;
    bool failed;
};
void pn_graph_open(struct pn_graph *, const char *name);
void pn_graph_close(struct pn_graph *);
/* A name that is the graph's own: what no input is called. Printf-like. */
const char *pn_graph_name(struct pn_graph *, const char *format, ...) __attribute__((format(printf, 2, 3)));
void *pn_graph_alloc(struct pn_graph *, size_t n_bytes); /* zeros; NULL: failed */

/* columns < 0: one dimension. The first dimension is called "n". columns 0: the second is called `second`. */
void pn_graph_input(struct pn_graph *, const char *name, int type, int64_t columns, const char *second);
void pn_graph_output(struct pn_graph *, const char *name);
/* Floats of shape [a, b], or [b] if a is 0. */
const char *pn_graph_floats(struct pn_graph *, const char *name, const float *data, size_t a, size_t b);
const char *pn_graph_ints(struct pn_graph *, const int64_t *data, size_t n);

/* A node with one output, whose name is returned. in: n names. */
Onnx__NodeProto *pn_graph_add(struct pn_graph *, const char *op, const char *const *in, size_t n_in, const char *out);
const char *pn_graph_node(struct pn_graph *, const char *op, const char *a, const char *b, const char *c); /* b, c: NULL where there is none */
void pn_graph_attribute(struct pn_graph *, Onnx__NodeProto *, const char *name, int64_t i);
void pn_graph_real(struct pn_graph *, Onnx__NodeProto *, const char *name, float f);
void pn_graph_list(struct pn_graph *, Onnx__NodeProto *, const char *name, const int64_t *list, size_t n);

#endif
