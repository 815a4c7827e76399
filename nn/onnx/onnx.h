/* A trained model as an ONNX graph (onnx.ai, opset 17): its blocks as nodes, its tables and weights as initializers. The features stay outside: a graph's inputs
 * are row numbers, which the job's hashing and the key lists beside the file give (docs/formats.md). Pure, any thread. */
#ifndef PN_NN_ONNX_ONNX_H
#define PN_NN_ONNX_ONNX_H

#include "nn/net.h"

/* The rows of an embedding table: n_rows * dim floats, row i of which is row i + 1 of the graph; row 0 there is zeros, for keys that are not in it. */
struct pn_onnx_table { size_t n_rows; const float *rows; };

/* parameters: the flat vector of the net. image: malloc. PN_REFUSED: beyond the 2 GiB that one file may have. */
enum pn_result pn_onnx_write(const struct pn_net *, const float *parameters, const struct pn_onnx_table tables[PN_MAX_TABLES], void **image, size_t *n_bytes, struct pn_error *);

#endif
