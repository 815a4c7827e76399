#include "ps/window.h"

enum pn_window_verdict pn_window_look(const struct pn_window *w, uint32_t incarnation, uint64_t step) {
    if (incarnation < w->incarnation) return PN_WINDOW_FENCED;
    if (step > w->highest) return PN_WINDOW_NEW;
    uint64_t age = w->highest - step;
    if (age >= PN_WINDOW_STEPS) return PN_WINDOW_DUPLICATE; /* a producer has at most 64 in flight: acknowledged long ago */
    return w->bits >> age & 1 ? PN_WINDOW_DUPLICATE : PN_WINDOW_NEW;
}

enum pn_window_verdict pn_window_mark(struct pn_window *w, uint32_t incarnation, uint64_t step) {
    enum pn_window_verdict verdict = pn_window_look(w, incarnation, step);
    if (verdict != PN_WINDOW_FENCED && incarnation > w->incarnation) w->incarnation = incarnation; /* steps go on counting */
    if (verdict != PN_WINDOW_NEW) return verdict;
    if (step > w->highest) {
        uint64_t gap = step - w->highest;
        w->bits = gap < PN_WINDOW_STEPS ? w->bits << gap | 1 : 1;
        w->highest = step;
    } else {
        w->bits |= 1ull << (w->highest - step);
    }
    return verdict;
}
