/* The memory of which pushes of a producer a slot has seen. */
#ifndef PN_PS_WINDOW_H
#define PN_PS_WINDOW_H

#include <stdint.h>

#define PN_WINDOW_STEPS 64u

/* Bit b of bits: step highest - b was applied. All zero: nothing seen yet (steps begin with 1). */
struct pn_window {
    uint64_t highest, bits;
    uint32_t incarnation, unused;
};
enum pn_window_verdict { PN_WINDOW_NEW, PN_WINDOW_DUPLICATE, PN_WINDOW_FENCED };

/* What marking would say; changes nothing. */
enum pn_window_verdict pn_window_look(const struct pn_window *, uint32_t incarnation, uint64_t step);
/* Marks push (producer, step) as applied in this slot. Called in the same event as the row updates, so that both are in a checkpoint or neither. */
enum pn_window_verdict pn_window_mark(struct pn_window *, uint32_t incarnation, uint64_t step);

#endif
