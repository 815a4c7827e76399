/* IEEE 754 binary16 and bfloat16, round to nearest even; the portable and the machine's form give the same bits. Any thread. */
#ifndef PN_COMMON_HALF_H
#define PN_COMMON_HALF_H

#include <stddef.h>
#include <stdint.h>

uint16_t pn_half_from_float(float x);   /* beyond 65504: infinity */
float pn_float_from_half(uint16_t h);
void pn_halves_from_floats(const float *x, uint16_t *h, size_t n);
void pn_floats_from_halves(const uint16_t *h, float *x, size_t n);

uint16_t pn_bfloat_from_float(float x);
float pn_float_from_bfloat(uint16_t b);
void pn_bfloats_from_floats(const float *x, uint16_t *b, size_t n);
void pn_floats_from_bfloats(const uint16_t *b, float *x, size_t n);

#endif
