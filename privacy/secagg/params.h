/* Degree and threshold of a secure sum, and who is whose neighbour.
 *
 * Bell et al. 2020 (CCS, "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead"): each worker masks against k neighbours
 * on a random Harary graph and shares its secrets with them, t of which bring a secret back. docs/secure-aggregation.md has the formula. */
#ifndef PN_SECAGG_PARAMS_H
#define PN_SECAGG_PARAMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/result.h"

#define PN_AGG_MAX_WORKERS 1024u
#define PN_AGG_MAX_DEGREE 255u /* the points of GF(256) other than 0 */
#define PN_AGG_MIN_WORKERS 3u  /* of two, one and a server know the other's update */

/* The smallest degree (*k) and threshold (*t) for n workers of whom any `corrupt` may work with the servers and any `dropped` may fall silent:
 * each of "a secret is learned" and "a secret is lost" has a probability of at most 2^-security_bits, 2^-correctness_bits, over the random graph.
 * PN_REFUSED: no degree does; the line says which condition fails. Any thread. */
enum pn_result pn_agg_params(uint32_t n, uint32_t corrupt, uint32_t dropped, unsigned security_bits, unsigned correctness_bits, uint32_t *k, uint32_t *t,
                             struct pn_error *);

/* A circulant Harary graph over n workers put into an order drawn from a seed. Plain data. */
struct pn_agg_graph {
    uint32_t n, k;
    uint16_t place[PN_AGG_MAX_WORKERS]; /* of a worker in the ring */
    uint16_t at[PN_AGG_MAX_WORKERS];    /* the worker at a place */
};
/* The same seed, n and k give the same graph everywhere. k is even or n - 1. */
void pn_agg_graph_draw(struct pn_agg_graph *, uint32_t n, uint32_t k, const uint8_t seed[32]);
/* The point at which j's share of i's secrets lies: 1..k, or 0 when j is no neighbour of i. Neighbours are mutual, points are not. */
uint32_t pn_agg_point(const struct pn_agg_graph *, uint32_t i, uint32_t j);
/* i's neighbour at a point 1..k. */
uint32_t pn_agg_neighbour(const struct pn_agg_graph *, uint32_t i, uint32_t point);

#endif
