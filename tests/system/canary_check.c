/* canary-check CANARIES GUESSES RIGHT DELTA CHANCE: prints the lower bound of epsilon that so many right guesses prove, for tests/system/canaries.py. */
#include <stdio.h>
#include <stdlib.h>
#include "privacy/canary.h"

int main(int argc, char **argv) {
    if (argc != 6) return fprintf(stderr, "usage: canary-check CANARIES GUESSES RIGHT DELTA CHANCE\n"), 2;
    const uint64_t m = strtoull(argv[1], NULL, 10), r = strtoull(argv[2], NULL, 10), v = strtoull(argv[3], NULL, 10);
    const double delta = atof(argv[4]), chance = atof(argv[5]);
    if (v > r || r > m || !(delta >= 0 && delta <= 1) || !(chance > 0 && chance < 1)) return fprintf(stderr, "canary-check: right guesses <= guesses <= canaries, 0 <= delta <= 1, 0 < chance < 1\n"), 2;
    printf("%.6f\n", pn_canary_epsilon(m, r, v, delta, chance));
    return 0;
}
