/* A row through the table's optimizer, for a second implementation to check (optimizers.py).
 *   optimizer-trace KIND DIM STEPS LR EPSILON ACCUMULATOR BETA1 BETA2 L1 L2 BETA MOMENTUM NESTEROV: from stdin float32 first values [DIM] and
 *   gradients [STEPS * DIM], to stdout the values behind each step [STEPS * DIM]. */
#include <stdio.h>
#include <stdlib.h>
#include "ps/table/table.h"

int main(int argc, char **argv) {
    if (argc != 14) return 2;
    const uint32_t dim = (uint32_t)atoi(argv[2]);
    struct pn_table_spec spec = {.name = "t", .dim = dim, .explicit_rows = true,
                                 .optimizer = {.kind = (enum pn_optimizer)atoi(argv[1]), .lr = strtof(argv[4], NULL), .epsilon = strtof(argv[5], NULL), .initial_accumulator = strtof(argv[6], NULL),
                                               .beta1 = strtof(argv[7], NULL), .beta2 = strtof(argv[8], NULL), .l1 = strtof(argv[9], NULL), .l2 = strtof(argv[10], NULL), .ftrl_beta = strtof(argv[11], NULL), .momentum = strtof(argv[12], NULL), .nesterov = atoi(argv[13]) == 1}};
    struct pn_table *t = pn_table_open(&spec);
    const uint64_t key = 1;
    float *row = malloc(dim * sizeof *row);
    if (t == NULL || row == NULL || fread(row, sizeof *row, dim, stdin) != dim || pn_table_seed(t, &key, row, 1) != PN_OK) return 1;
    for (int step = 1; step <= atoi(argv[3]); step++) {
        if (fread(row, sizeof *row, dim, stdin) != dim || pn_table_push(t, &key, row, 1, (uint64_t)step, NULL) != PN_OK) return 1;
        pn_table_pull(t, &key, 1, row);
        fwrite(row, sizeof *row, dim, stdout);
    }
    return 0;
}
