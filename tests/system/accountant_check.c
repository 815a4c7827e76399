/* accountant-check DELTA RATE NOISE STEPS [RATE NOISE STEPS]...: prints epsilon by privacy loss distributions and by Renyi orders, for tests/system/accountant.py. */
#include <stdio.h>
#include <stdlib.h>
#include "privacy/accountant.h"

int main(int argc, char **argv) {
    struct pn_privacy_event events[16];
    struct pn_error err = {""};
    size_t n = 0;
    double tight, renyi;
    if (argc < 5 || (argc - 2) % 3 != 0 || argc > 2 + 3 * 16) return fprintf(stderr, "usage: accountant-check DELTA RATE NOISE STEPS ...\n"), 2;
    for (int i = 2; i < argc; i += 3) events[n++] = (struct pn_privacy_event){atof(argv[i]), atof(argv[i + 1]), strtoull(argv[i + 2], NULL, 10)};
    if (pn_privacy_epsilon(events, n, atof(argv[1]), &tight, &err) != PN_OK || pn_privacy_epsilon_rdp(events, n, atof(argv[1]), &renyi, &err) != PN_OK)
        return fprintf(stderr, "accountant-check: %s\n", err.text), 1;
    printf("%.10g %.10g\n", tight, renyi);
    return 0;
}
