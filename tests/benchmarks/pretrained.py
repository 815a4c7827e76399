"""pretrained.py DATA JOB...: the pre-trained figures of docs/models.md. Runs the jobs of docs/jobs on ../shared/data/DATA one after the other in one cluster of 1 server and
1 worker, so that a later one can begin (model.start) with what those before it published; the paths there are relative to the cluster's folder. One seed: what the jobs say.
Prints each job's chosen epoch, validation and test; test is measured once a job, at its end."""
import os
import sys
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
from cluster import Cluster, ROOT, data

folder = data(sys.argv[1]) if len(sys.argv) > 2 else sys.exit(__doc__)
if not folder:
    sys.exit(f"no ../shared/data/{sys.argv[1]}")
with Cluster(ps=1, workers=1, serving=0) as c:
    for job in sys.argv[2:]:
        with open(os.path.join(ROOT, "docs", "jobs", job + ".yaml")) as f:
            text = f.read().replace("${PINION_DATA}", folder)
        begin = time.time()
        done = c.wait(c.submit(text), 900)
        assert done["state"] == "SUCCEEDED", done
        print(f"{job}: test HR {done['test_hr']:.4f}, NDCG {done['test_ndcg']:.4f}; validation {done['validation_hr']:.4f}, {done['validation_ndcg']:.4f}; "
              f"epoch {done['best_epoch']} of {len(done['history'])}, whole job {time.time() - begin:.0f} s", flush=True)
        if "\n  publish: {model: " in text:
            name = text.split("\n  publish: {model: ")[1].split(",")[0]
            manifest = os.path.join(c.dir, "coordinator", "models", name, "1", "manifest.json")
            end = time.time() + 30
            while not os.path.exists(manifest):
                assert time.time() < end, f"{job} published nothing: no {manifest}"
                time.sleep(0.05)
