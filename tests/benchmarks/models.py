"""models.py JOB DATA [--seeds N] [--async] [--change OLD=>NEW]...: the figures of docs/models.md. Runs docs/jobs/JOB.yaml on ../shared/data/DATA with 2 servers and
2 workers, once a seed (which draws first values, order and negatives), and prints one line a run and the means with their spread. What is chosen by validation is
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
with open(os.path.join(ROOT, "docs", "jobs", job + ".yaml")) as f:
    text = f.read().replace("${PINION_DATA}", folder)
if "--async" in rest:
    text = text.replace("mode: sync", "mode: async").replace("dataShards: 2", "dataShards: 2, inFlight: 1")
for i, word in enumerate(rest):
    if word == "--change":
        old, new = rest[i + 1].split("=>")
        assert old in text, f"the job has no {old}"
        text = text.replace(old, new)

runs, extra = [], []
MORE = ("best_logloss", "test_head1_auc", "test_hr", "test_ndcg", "test_recall", "validation_head1_auc", "validation_hr", "validation_ndcg")
with Cluster(ps=2, workers=2, serving=0) as c:
    for seed in range(1, seeds + 1):
        begin = time.time()
        done = c.wait(c.submit(text.replace("seed: 1", f"seed: {seed}")), 900)
        assert done["state"] == "SUCCEEDED", done
        best = next((e["seconds"] for e in done.get("history", []) if e["epoch"] == done.get("best_epoch")), float("nan"))
        runs.append((done["test_auc"], done["test_logloss"], done.get("validation_auc", float("nan")), best, time.time() - begin, done.get("test_calibration", float("nan")), done.get("test_gauc", float("nan"))))
        print(f"seed {seed}: test AUC {runs[-1][0]:.5f}, log loss {runs[-1][1]:.4f}, validation AUC {runs[-1][2]:.5f}, best epoch {done.get('best_epoch')} after {best:.0f} s, "
              f"whole job {runs[-1][4]:.0f} s, calibration {runs[-1][5]:.3f}, group AUC {runs[-1][6]:.4f}", flush=True)
        more = {name: done[name] for name in MORE if name in done}
        if more:
            print("  " + ", ".join(f"{name} {value:.5f}" for name, value in more.items()), flush=True)
        extra.append(more)
columns = list(zip(*runs))
spread = [statistics.stdev(x) if len(x) > 1 and all(v == v for v in x) else 0 for x in columns]
print(f"figure {job}{' async' if '--async' in rest else ''}: test AUC {statistics.mean(columns[0]):.5f} +- {spread[0]:.5f}, log loss {statistics.mean(columns[1]):.4f} +- {spread[1]:.4f}, "
      f"validation AUC {statistics.mean(columns[2]):.5f}, best after {statistics.mean(columns[3]):.0f} s, job {statistics.mean(columns[4]):.0f} s, calibration {statistics.mean(columns[5]):.3f}, "
      f"group AUC {statistics.mean(columns[6]):.4f}")
for name in extra[0]:
    values = [e[name] for e in extra]
    print(f"figure {job} {name} {statistics.mean(values):.5f} +- {statistics.stdev(values) if len(values) > 1 else 0:.5f}")
