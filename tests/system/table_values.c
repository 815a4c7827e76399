/* table-values DIR: the first float of each row of a job's first table in a committed checkpoint, as "value count" lines. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/faults/checkpoint_files.h"

struct values { struct { float value; unsigned long long rows; } all[4096]; size_t n; };

static enum pn_result visit(void *ctx, const struct pn_checkpoint_head *h, const struct pn_block *b, const void *payload) {
    struct values *v = ctx;
    if (b->type != PN_BLOCK_RECORDS || b->i_table != 0) return PN_OK;
    for (size_t at = 0; at < b->n_bytes; at += h->record_bytes[0]) {
        float x;
        size_t i = 0;
        memcpy(&x, (const char *)payload + at + 16, sizeof x);
        while (i < v->n && v->all[i].value != x) i++;
        if (i == sizeof v->all / sizeof *v->all) return PN_FULL;
        if (i == v->n) v->all[v->n++].value = x;
        v->all[i].rows++;
    }
    return PN_OK;
}

int main(int argc, char **argv) {
    static struct values v;
    if (argc != 2) {
        fprintf(stderr, "usage: table-values DIR\n");
        return 2;
    }
    if (!checkpoint_blocks(argv[1], visit, &v)) return 1;
    for (size_t i = 0; i < v.n; i++) printf("%.9g %llu\n", (double)v.all[i].value, v.all[i].rows);
    return 0;
}
