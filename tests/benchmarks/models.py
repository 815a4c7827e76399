"""models.py JOB DATA [--seeds N] [--nodes N] [--async] [--change OLD=>NEW]...: the figures of docs/models.md. Runs docs/jobs/JOB.yaml on ../shared/data/DATA with N servers
and N workers (2), once a seed (which draws first values, order and negatives), and prints one line a run and the means with their spread. What is chosen by validation is
chosen inside the job; test is measured once, at its end."""
import os
import statistics
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
from cluster import Cluster, ROOT, data

job, folder, rest = sys.argv[1], data(sys.argv[2]), sys.argv[3:]
if not folder:
    sys.exit(f"no ../shared/data/{sys.argv[2]}")
seeds = int(rest[rest.index("--seeds") + 1]) if "--seeds" in rest else 3
nodes = int(rest[rest.index("--nodes") + 1]) if "--nodes" in rest else 2
with open(os.path.join(ROOT, "docs", "jobs", job + ".yaml")) as f:
    text = f.read().replace("${PINION_DATA}", folder)
if "--async" in rest:
    text = text.replace("mode: sync", "mode: async").replace("dataShards: 2", "dataShards: 2, inFlight: 1")
for i, word in enumerate(rest):
    if word == "--change":
        old, new = rest[i + 1].split("=>")
        assert old in text, f"the job has no {old}"
        text = text.replace(old, new)

NAMES = ("test_auc", "test_logloss", "test_calibration", "test_gauc", "test_head1_auc", "test_hr", "test_ndcg", "test_recall", "validation_auc", "best_logloss", "validation_head1_auc", "validation_hr",
         "validation_ndcg", "validation_recall")
runs = []
with Cluster(ps=nodes, workers=nodes, serving=0) as c:
    for seed in range(1, seeds + 1):
        begin = time.time()
        done = c.wait(c.submit(text.replace("seed: 1", f"seed: {seed}")), 7200)
        assert done["state"] == "SUCCEEDED", done
        best = next((e["seconds"] for e in done.get("history", []) if e["epoch"] == done.get("best_epoch")), None)
        run = {name: done[name] for name in NAMES if name in done}  # what was not measured is not there
        run |= {"best_after_s": best} if best is not None else {}
        run["job_s"] = time.time() - begin
        runs.append(run)
        print(f"seed {seed}, best epoch {done.get('best_epoch', 'not chosen')}: " + ", ".join(f"{name} {value:.5g}" for name, value in run.items()), flush=True)
for name in runs[0]:
    values = [r[name] for r in runs if name in r]
    print(f"figure {job}{' async' if '--async' in rest else ''} {name} {statistics.mean(values):.5f} +- {statistics.stdev(values) if len(values) > 1 else 0:.5f}")
