"""Leaves of boosted trees beside a logistic regression, over real processes. The label goes by whether two numbers lie on the same side of 0, which no number tells alone: with
leaves it is learned, without it is not. A replica scores as the evaluation did, rows with missing values too, and the job ends though a worker is killed on the way."""
import math
import os
import random
import shutil
import tempfile
from cluster import Cluster

JOB = """apiVersion: pinion/v1
kind: TrainingJob
metadata: {{name: sides}}
spec:
  data:
    train: {{format: csv, uri: "{dir}/train.csv", label: label}}
    test: {{format: csv, uri: "{dir}/test.csv", label: label}}
    shuffle: {{buffer: 20000, seed: 3}}
  features:
    - {{name: a, type: numeric, bucketize: [-1, 0, 1]}}
    - {{name: b, type: numeric, bucketize: [-1, 0, 1]}}
    - {{name: kind, type: categorical}}
{leaves}
  tables: {{defaults: {{optimizer: {{name: ftrl, lr: 0.05, beta: 0.001, l1: 0, l2: 0.001}}, init: zero}}}}
  model: {{name: {model}}}
  optimizer: {{name: adam, lr: 0.003}}
  training: {{batchSize: 100, epochs: {epochs}, seed: 5, dataShards: 2, consistency: {{mode: sync}}}}
  checkpoint: {{every: 1s, keep: 2}}
  publish: {{model: sides{number}, storage: float32}}
"""
LEAVES = "    - {name: leaves, type: leaves, table: leaves, trees: 30, depth: 3, rate: 0.2, minWeight: 5}"
draw = random.Random(1)


def make(n):
    rows = []
    for _ in range(n):
        a, b, kind = draw.gauss(0, 1), draw.gauss(0, 1), draw.randrange(5)
        label = int(draw.random() < (0.9 if (a > 0) == (b > 0) else 0.1))
        rows.append((f"{a:.4f}" if draw.random() < 0.95 else "", f"{b:.4f}" if draw.random() < 0.95 else "", f"k{kind}", label))
    return rows


tmp = tempfile.mkdtemp(prefix="pinion-leaves-")
try:
    test = make(1000)
    for name, rows in (("train", make(8000)), ("test", test)):
        with open(os.path.join(tmp, name + ".csv"), "w") as f:
            f.write("a,b,kind,label\n" + "".join(",".join(map(str, r)) + "\n" for r in rows))
    with Cluster(ps=2, workers=2, serving=1) as c:
        alone = c.wait(c.submit(JOB.format(dir=tmp, leaves="", model="lr", epochs=4, number=0)), 120)
        done = c.wait(c.submit(JOB.format(dir=tmp, leaves=LEAVES, model="gbdt+lr", epochs=4, number=1)), 120)
        assert alone["state"] == done["state"] == "SUCCEEDED", (alone, done)
        print(f"figure two sides: test log loss {alone['test_logloss']:.4f} without leaves, {done['test_logloss']:.4f} with them; AUC {alone['test_auc']:.3f}, {done['test_auc']:.3f}")
        assert alone["test_auc"] < 0.6 and done["test_auc"] > 0.8 and done["test_logloss"] < alone["test_logloss"] - 0.1, (alone, done)

        scores = c.scores("sides1", {name: [r[i] for r in test] for i, name in enumerate(("a", "b", "kind"))})
        loss = -sum(math.log(scores[i] if r[3] else 1 - scores[i]) for i, r in enumerate(test)) / len(test)
        print(f"served log loss {loss:.6f}, evaluation {done['test_logloss']:.6f}")
        assert abs(loss - done["test_logloss"]) < 1e-5, (loss, done["test_logloss"])

        id = c.submit(JOB.format(dir=tmp, leaves=LEAVES, model="gbdt+lr", epochs=40, number=2))
        c.wait_running(id, lambda job: job["epoch"] >= 2)
        c.kill("worker-0")
        killed = c.wait(id, 120)
        assert killed["state"] == "SUCCEEDED" and killed["restarts"] > 0 and killed["test_auc"] > 0.8, killed
finally:
    shutil.rmtree(tmp, ignore_errors=True)
