/* Lines "score label group" on standard input; all metrics as one JSON object on standard output. For tests/system/metrics.py. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include "nn/model.h"

int main(int argc, char **argv) {
    static float scores[200000], labels[200000];
    static uint64_t groups[200000];
    const size_t k = argc > 1 ? (size_t)strtoul(argv[1], NULL, 10) : 10;
    size_t n = 0;
    while (n < 200000 && scanf("%f %f %" SCNu64, &scores[n], &labels[n], &groups[n]) == 3) n++;
    const struct pn_ranking m = pn_rank_metrics(scores, labels, groups, n, k);
    printf("{\"auc\":%.12g,\"logloss\":%.12g,\"ne\":%.12g,\"calibration\":%.12g,\"ece10\":%.12g,\"ece20\":%.12g,\"gauc\":%.12g,\"hit\":%.12g,\"recall\":%.12g,\"ndcg\":%.12g,\"mrr\":%.12g}\n",
           pn_auc(scores, labels, n), pn_log_loss(scores, labels, n), pn_normalised_entropy(scores, labels, n), pn_calibration(scores, labels, n),
           pn_calibration_error(scores, labels, n, 10), pn_calibration_error(scores, labels, n, 20), pn_group_auc(scores, labels, groups, n), m.hit, m.recall, m.ndcg, m.mrr);
    return 0;
}
