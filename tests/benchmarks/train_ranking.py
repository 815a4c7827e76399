"""Speed of the shipped jobs through real servers, on all cores of this machine. Prints JSON lines for tests/bench.
    train.neumf8.ml1m.epoch_s    NeuMF with 8 factors on MovieLens-1M, 4 drawn negatives a positive row: the median of an epoch's seconds behind the first, with its
                                 evaluation and checkpoint, as the job's history counts them
    train.frappe.MODEL.best_s    seconds of a Frappe job until its best validation AUC, evaluations and checkpoints included
Options: --epochs N of NeuMF (at least 3; 0: not at all); --models a,b of Frappe, or "". What has no data set in ../shared/data is left out, and says so."""
import argparse
import json
import os
import statistics
import sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
from cluster import Cluster, ROOT, data

p = argparse.ArgumentParser()
p.add_argument("--epochs", type=int, default=6)
p.add_argument("--models", default="fm,wide-deep,deepfm,dcn-v2,dlrm")
a = p.parse_args()


def line(name, value, unit, **more):
    print(json.dumps({"name": name, "value": value, "unit": unit, **more}), flush=True)


def job(name, folder):
    with open(os.path.join(ROOT, "docs", "jobs", name + ".yaml")) as f:
        return f.read().replace("${PINION_DATA}", folder)


folder = data("ml-1m-ncf")
if folder and a.epochs > 0:
    text = job("ml1m-neumf8", folder)
    assert "epochs: 20" in text
    with Cluster(ps=1, workers=1, serving=0) as c:
        done = c.wait(c.submit(text.replace("epochs: 20", f"epochs: {a.epochs}")), 300)
    assert done["state"] == "SUCCEEDED" and len(done["history"]) == a.epochs, done
    at = [e["seconds"] for e in done["history"]]
    line("train.neumf8.ml1m.epoch_s", statistics.median(y - x for x, y in zip(at, at[1:])), "s, evaluation and checkpoint included", hr=done["test_hr"])
elif a.epochs > 0:
    print("train_ranking.py: no ../shared/data/ml-1m-ncf", file=sys.stderr)
folder = data("frappe")
if not folder:
    print("train_ranking.py: no ../shared/data/frappe", file=sys.stderr)
for model in a.models.split(",") if folder and a.models else []:
    with Cluster(ps=2, workers=2, serving=0) as c:
        done = c.wait(c.submit(job("frappe-" + model, folder)), 300)
    assert done["state"] == "SUCCEEDED", done
    best = next(e["seconds"] for e in done["history"] if e["epoch"] == done["best_epoch"])
    line(f"train.frappe.{model}.best_s", best, "s", auc=done["validation_auc"])
