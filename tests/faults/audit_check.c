/* audit-check DIR PRODUCERS STEPS KEYS: compares a committed checkpoint of an audit job with the exact answer. Exit 1 names what was lost or doubled. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/faults/checkpoint_files.h"
#include "worker/audit.h"

struct audit { uint64_t n_keys, rows, wrong; float *expected; unsigned char *seen; };

static enum pn_result visit(void *ctx, const struct pn_checkpoint_head *h, const struct pn_block *b, const void *payload) {
    struct audit *a = ctx;
    if (b->type != PN_BLOCK_RECORDS || b->i_table != 0) return PN_OK;
    for (size_t at = 0; at < b->n_bytes; at += h->record_bytes[0], a->rows++) {
        uint64_t key;
        float row[PN_AUDIT_DIM];
        char line[300];
        memcpy(&key, (const char *)payload + at, sizeof key);
        memcpy(row, (const char *)payload + at + 16, sizeof row);
        if (key >= a->n_keys || a->seen[key]++ != 0) {
            printf("key %llu is foreign or stands twice\n", (unsigned long long)key);
            a->wrong++;
        } else if (pn_audit_check(key, row, a->expected + key * PN_AUDIT_DIM, line, sizeof line) != 0) {
            printf("%s\n", line);
            a->wrong++;
        }
    }
    return PN_OK;
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: audit-check DIR PRODUCERS STEPS KEYS\n");
        return 2;
    }
    uint32_t producers = (uint32_t)strtoul(argv[2], NULL, 10);
    uint64_t steps = strtoull(argv[3], NULL, 10);
    struct audit a = {.n_keys = strtoull(argv[4], NULL, 10)};
    a.expected = calloc(a.n_keys, PN_AUDIT_DIM * sizeof(float));
    a.seen = calloc(a.n_keys, 1);
    if (a.expected == NULL || a.seen == NULL) return 1;
    pn_audit_expect(producers, steps, a.n_keys, a.expected);
    if (!checkpoint_blocks(argv[1], visit, &a)) return 1;
    for (uint64_t k = 0; k < a.n_keys; k++)
        if (!a.seen[k] && a.expected[k * PN_AUDIT_DIM] > 0) {
            printf("key %llu is missing: all its pushes are lost\n", (unsigned long long)k);
            a.wrong++;
        }
    printf("%llu rows, %llu pushes: %llu wrong\n", (unsigned long long)a.rows, (unsigned long long)(producers * steps), (unsigned long long)a.wrong);
    return a.wrong > 0;
}
