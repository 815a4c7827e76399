/* pn_unique over the raw keys of the workload. */
#include "common/unique.h"
#include "tests/benchmarks/workload.h"

int main(void) {
    enum { BATCHES = 40 };
    static uint64_t keys[BATCHES][RAW_KEYS], unique[RAW_KEYS];
    static uint32_t index[RAW_KEYS];
    void *scratch = malloc(pn_unique_scratch(RAW_KEYS));
    for (int million = 1; million <= 10; million += 9) {
        struct zipf z;
        zipf_start(&z, (uint64_t)million * 1000000, 1.05, 3);
        for (int b = 0; b < BATCHES; b++)
            for (int i = 0; i < RAW_KEYS; i++) keys[b][i] = key_of(zipf_next(&z));
        double rounds[15];
        for (int r = 0; r < 15; r++) {
            double begin = now_s();
            for (int b = 0; b < BATCHES; b++) pn_unique(keys[b], RAW_KEYS, unique, index, scratch);
            rounds[r] = (now_s() - begin) / BATCHES / RAW_KEYS * 1e9;
        }
        char name[60];
        snprintf(name, sizeof name, "ps.unique.%dM", million);
        report(name, quantile(rounds, 15, 0.5), "ns a raw key", -1, NULL);
    }
    return 0;
}
