/* A step begun on several devices as the worker begins it: the parts of a batch brought beside one another, a thread a device. */
#ifndef PN_TESTS_PARITY_THREADS_H
#define PN_TESTS_PARITY_THREADS_H

#include <pthread.h>
#include <stdlib.h>
#include "nn/devices.h"

struct bring { pthread_t thread; struct pn_devices *d; size_t slot, i; const struct pn_batch *b; const float *const *rows; const float *p; uint64_t seed; enum pn_result r; struct pn_error err; };
static void *bring(void *arg) {
    struct bring *w = arg;
    w->r = pn_devices_bring(w->d, w->slot, w->i, w->b, w->rows, w->p, w->seed, &w->err);
    return NULL;
}

static enum pn_result begin_in_threads(struct pn_devices *d, size_t slot, const struct pn_batch *b, const float *const rows[PN_MAX_TABLES], const float *p, uint64_t seed, struct pn_error *err) {
    static struct bring parts[PN_MOST_DEVICES];
    enum pn_result r = PN_OK;
    for (size_t i = 0; i < pn_devices_number(d); i++) {
        parts[i] = (struct bring){.d = d, .slot = slot, .i = i, .b = b, .rows = rows, .p = p, .seed = seed};
        if (pthread_create(&parts[i].thread, NULL, bring, &parts[i]) != 0) exit(1);
    }
    for (size_t i = 0; i < pn_devices_number(d); i++) {
        pthread_join(parts[i].thread, NULL);
        if (parts[i].r != PN_OK) r = parts[i].r, *err = parts[i].err;
    }
    if (r == PN_OK) pn_devices_join(d, slot);
    return r;
}
#endif
