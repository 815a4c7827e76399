"""Our metrics against scikit-learn and NumPy on random scores, with ties, small groups and groups of one class. scikit-learn goes into a virtual
environment under build/; skipped where it cannot be installed."""
import json
import os
import subprocess
import sys
from cluster import BUILD, skip

venv = os.path.join(BUILD, "metrics-venv")
python = os.path.join(venv, "bin", "python")
if "--inside" not in sys.argv:
    steps = [] if os.path.exists(os.path.join(venv, "done")) else [[sys.executable, "-m", "venv", venv], [python, "-m", "pip", "install", "-q", "scikit-learn", "numpy"]]
    for step in steps:
        try:
            p = subprocess.run(step, capture_output=True, text=True, timeout=300)
        except (OSError, subprocess.TimeoutExpired) as e:
            skip(f"scikit-learn cannot be installed: {e}")
        if p.returncode != 0:
            skip("scikit-learn cannot be installed: " + (p.stderr.strip() or p.stdout.strip()).split("\n")[-1][:200])
    open(os.path.join(venv, "done"), "w").close()
    sys.exit(subprocess.run([python, __file__, "--inside"]).returncode)

import numpy as np
from sklearn.metrics import log_loss, ndcg_score, roc_auc_score


def expected(s, y, g, k):
    p = y.mean()
    out = {"auc": roc_auc_score(y, s), "logloss": log_loss(y, np.clip(s, 1e-7, 1 - 1e-7)), "calibration": s.mean() / p}
    out["ne"] = out["logloss"] / -(p * np.log(p) + (1 - p) * np.log(1 - p))
    for n in (10, 20):  # jobs have 20. s is the float32 score in double precision, as in nn/metrics.c: a score at an edge falls to the same side
        bins = np.minimum((s * n).astype(int), n - 1)
        out[f"ece{n}"] = sum((bins == b).mean() * abs(s[bins == b].mean() - y[bins == b].mean()) for b in range(n) if (bins == b).any())
    aucs, weights, hit, recall, ndcg, mrr = [], [], [], [], [], []
    for u in np.unique(g):
        a, b = s[g == u], y[g == u]
        if 0 < b.sum() < len(b):
            aucs.append(roc_auc_score(b, a))
            weights.append(len(b))
        if b.sum() == 0:
            continue
        order = np.lexsort((b, -a))  # best first, ties against the positives
        ranked = b[order]
        hit.append(ranked[:k].any())
        recall.append(ranked[:k].sum() / b.sum())
        mrr.append(1 / (1 + np.argmax(ranked)))
        # scikit-learn averages over ties: it gets the places themselves as scores
        ndcg.append(ndcg_score([ranked], [-np.arange(len(ranked))], k=k) if len(ranked) > 1 else 1.0)
    out.update(gauc=np.average(aucs, weights=weights), hit=np.mean(hit), recall=np.mean(recall), ndcg=np.mean(ndcg), mrr=np.mean(mrr))
    return out


checked = 0
for seed in range(12):
    r = np.random.default_rng(seed)
    n, k = int(r.integers(200, 5000)), int(r.integers(1, 20))
    g = r.integers(0, max(2, n // int(r.integers(3, 40))), n)
    y = (r.random(n) < r.uniform(0.05, 0.6)).astype(float)
    s = np.round(np.clip(0.3 * y + r.random(n) * 0.7, 0, 1), int(r.integers(1, 5))).astype(np.float32)
    s[r.integers(0, n, 20)] = r.integers(0, 2, 20)  # certain, and some of them wrong: 1 is in the last bin
    lines = "".join(f"{a:.9g} {b:g} {u}\n" for a, b, u in zip(s, y, g))
    got = json.loads(subprocess.run([os.path.join(BUILD, "metrics-check"), str(k)], input=lines, capture_output=True, text=True, check=True).stdout)
    want = expected(s.astype(np.float64), y, g, k)
    for name, value in want.items():
        assert abs(got[name] - value) < 2e-6, (seed, name, got[name], value)
        checked += 1
print(f"figure {checked} metrics equal scikit-learn's")
