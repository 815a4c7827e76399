"""pretrained.py DATA JOB... [--seeds 1,2,3]: the pre-trained figures of docs/models.md. Runs the jobs of docs/jobs on ../shared/data/DATA one after the other in one cluster of 1 server and
1 worker a seed, so that a later one can begin (model.start) with what those before it published; the paths there are relative to the cluster's folder. A seed draws first values, order and negatives.
Prints each job's chosen epoch, validation and test (measured once a job, at its end), and with several seeds the means with their spread."""
import os
import statistics
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
from cluster import Cluster, ROOT, data, until

words = sys.argv[1:]
seeds = [1]
if "--seeds" in words:
    at = words.index("--seeds")
    seeds = [int(s) for s in words[at + 1].split(",")]
    del words[at:at + 2]
folder = data(words[0]) if len(words) > 1 else sys.exit(__doc__)
if not folder:
    sys.exit(f"no ../shared/data/{words[0]}")
runs = {job: [] for job in words[1:]}
for seed in seeds:
    with Cluster(ps=1, workers=1, serving=0) as c:
        for job in words[1:]:
            with open(os.path.join(ROOT, "docs", "jobs", job + ".yaml")) as f:
                text = f.read().replace("${PINION_DATA}", folder).replace("seed: 1", f"seed: {seed}")
            begin = time.time()
            done = c.wait(c.submit(text), 1800)
            assert done["state"] == "SUCCEEDED", done
            runs[job].append([done[k] for k in ("test_hr", "test_ndcg", "validation_hr", "validation_ndcg")])
            print(f"seed {seed}, {job}: test HR {done['test_hr']:.4f}, NDCG {done['test_ndcg']:.4f}; validation {done['validation_hr']:.4f}, {done['validation_ndcg']:.4f}; "
                  f"epoch {done['best_epoch']} of {len(done['history'])}, whole job {time.time() - begin:.0f} s", flush=True)
            if "\n  publish: {model: " in text:
                name = text.split("\n  publish: {model: ")[1].split(",")[0]
                manifest = os.path.join(c.dir, "coordinator", "models", name, "1", "manifest.json")
                until(f"{job} published nothing: no {manifest}", lambda: os.path.exists(manifest), 30)
for job, figures in runs.items():
    if len(figures) > 1:
        print(f"figure {job}, {len(figures)} seeds: " + ", ".join(f"{name} {statistics.mean(f):.4f} +- {statistics.stdev(f):.4f}"
                                                                  for name, f in zip(("test HR", "test NDCG", "validation HR", "validation NDCG"), zip(*figures))))
