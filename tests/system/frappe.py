"""A click-through model on real data, from the log to the ranking: DeepFM with batch norm on Frappe, negatives drawn on the fly, stopped early by validation,
published, and its test rows scored once more by a serving replica."""
import os
import subprocess
import sys
import time
from cluster import Cluster, ROOT, data, skip

folder = data("frappe")
if not folder:
    skip("no ../shared/data/frappe")
if "--quick" in sys.argv:
    skip("trains for half a minute on real data; the sanitizers see the same code in early_stopping")
COLUMNS = "user item daytime weekday isweekend homework cost weather country city".split()
with open(os.path.join(ROOT, "docs", "jobs", "frappe-deepfm.yaml")) as f:
    text = f.read().replace("${PINION_DATA}", folder)


def auc(scores, labels):
    ranked = sorted(zip(scores, labels))
    below = pairs = 0.0
    for _, y in ranked:  # float scores: ties are too rare to matter here
        if y:
            pairs += below
        else:
            below += 1
    return pairs / (below * (len(ranked) - below))


with Cluster(ps=2, workers=2, serving=1) as c:
    begin = time.time()
    done = c.wait(c.submit(text), 300)
    took = time.time() - begin
    assert done["state"] == "SUCCEEDED", done
    best = next(e for e in done["history"] if e["epoch"] == done["best_epoch"])
    print(f"figure frappe DeepFM test AUC {done['test_auc']:.4f} (at least 0.982), log loss {done['test_logloss']:.4f} (at most 0.165), best epoch {done['best_epoch']} "
          f"after {best['seconds']:.0f} s, the job {took:.0f} s")
    assert done["test_auc"] >= 0.982 and done["test_logloss"] <= 0.165, done
    assert 0.9 < done["test_calibration"] < 1.1, done

    lines = subprocess.run(["zstd", "-dcq", os.path.join(folder, "frappe.test.libfm.zst")], capture_output=True, text=True, check=True).stdout.splitlines()[:5000]
    rows = [line.split() for line in lines]
    labels = [r[0] == "1" for r in rows]
    scores = c.scores("frappe-deepfm", {name: [r[i + 1].split(":")[0] for r in rows] for i, name in enumerate(COLUMNS)})
    served = auc([scores[i] for i in range(len(rows))], labels)
    print(f"figure frappe DeepFM AUC of {len(rows)} test rows as served {served:.4f}")
    assert abs(served - done["test_auc"]) < 0.01, served
