/* Deliberate bugs for measuring the simulator: -DPINION_MUTANT=n compiles one in (docs/testing.md). 0: none. */
#ifndef PN_COMMON_MUTANT_H
#define PN_COMMON_MUTANT_H
#ifndef PN_MUTANT
#define PN_MUTANT 0
#endif
#endif
