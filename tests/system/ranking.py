"""Ranking models on Amazon Music, through real servers: NeuMF from scratch in the NCF protocol, its epoch chosen by held-out pairs; and matrix factorization by the
softmax within a batch, all items ranked: what that gives is what the same items as lists of rows give. A synchronous run twice gives the same digits, also of the full
ranking. Then NeuMF begins with the rows and weights of published GMF and MLP models, and is at their level before it has learned anything."""
import os
import random
import sys
import tempfile
import time
from cluster import Cluster, ROOT, data, skip, until

folder = data("amazon-music-ncf")
if not folder:
    skip("no ../shared/data/amazon-music-ncf")
if "--quick" in sys.argv:
    skip("trains for half a minute on real data; the unit tests of nn and reader see the same code")
with open(os.path.join(ROOT, "docs", "jobs", "amazon-music-neumf.yaml")) as f:
    neumf = f.read().replace("${PINION_DATA}", folder).replace("epochs: 40", "epochs: 12")  # the figures of docs/models.md take longer

FULL = """apiVersion: pinion/v1
kind: TrainingJob
metadata: {{name: full}}
spec:
  data:
    train: {{format: ncf, uri: "{dir}/AMusic.train.rating", part: train, holdOut: {{seed: 2}}{negatives}}}
    validation: {{format: ncf, uri: "{dir}/AMusic.train.rating", part: held, holdOut: {{seed: 2}}, rankAll: ["{dir}/AMusic.train.rating"]}}
    test: {{format: ncf, uri: "{dir}/AMusic.test.rating", rankAll: ["{dir}/AMusic.train.rating"]}}
    shuffle: {{buffer: 100000, seed: 1}}
  features:
    - {{name: user, type: categorical, table: users}}
    - {{name: item, type: categorical, table: items}}
  tables: {{defaults: {{optimizer: {{name: adam, lr: 0.01}}, init: {{normal: 0.01}}}}}}
  model: {{name: mf, embeddingDim: 16, bias: {bias}}}
  training: {{batchSize: 500, epochs: 4, seed: 1, dataShards: 2, loss: {{name: {loss}}}, earlyStopping: {{metric: "recall@50", patience: 2}}, consistency: {{mode: sync}}}}
  validation: {{groupBy: user, metrics: ["recall@50"]}}
"""

# Each user's own items are scored in two ways: all items ranked by the two matrices, and as a list of rows through the net.
BOTH = """apiVersion: pinion/v1
kind: TrainingJob
metadata: {{name: both}}
spec:
  data:
    train: {{format: lightgcn, uri: "{dir}/known", negatives: {{perPositive: 2, seed: 1}}}}
    validation: {{format: lightgcn, uri: "{dir}/wanted", rankAll: ["{dir}/known"]}}
    test: {{format: csv, uri: "{dir}/lists.csv", label: label}}
  features:
    - {{name: user, type: categorical, table: users}}
    - {{name: item, type: categorical, table: items}}
  tables: {{defaults: {{optimizer: {{name: adam, lr: 0.03}}, init: {{normal: 0.1}}}}}}
  model: {{name: mf, embeddingDim: 4}}
  training: {{batchSize: 30, epochs: 5, seed: 1, dataShards: 2, earlyStopping: {{metric: mrr, patience: 2}}, consistency: {{mode: sync}}}}
  validation: {{groupBy: user, metrics: ["ndcg@5"]}}
"""


def write_both(folder):
    draw = random.Random(4)
    known, wanted, lists = [], [], ["user,item,label"]
    for user in range(30):
        items = draw.sample(range(40), draw.randrange(6, 20))
        known.append(items[4:])
        wanted.append(items[:draw.randrange(1, 5)])
        lists += [f"{user},{i},{int(i in wanted[-1])}" for i in range(40) if i not in known[-1]]
    for name, pairs in (("known", known), ("wanted", wanted)):
        with open(os.path.join(folder, name), "w") as f:
            f.writelines(" ".join(map(str, [user] + items)) + "\n" for user, items in enumerate(pairs))
    with open(os.path.join(folder, "lists.csv"), "w") as f:
        f.write("\n".join(lists) + "\n")


with tempfile.TemporaryDirectory() as both, Cluster(ps=2, workers=2, serving=0) as c:
    write_both(both)
    done = c.wait(c.submit(BOTH.format(dir=both)), 60)
    assert done["state"] == "SUCCEEDED", done
    print(f"the same lists by either way: MRR {done['validation_mrr']:.6f} {done['test_mrr']:.6f}, NDCG@5 {done['validation_ndcg']:.6f} {done['test_ndcg']:.6f}")
    assert all(abs(done[f"validation_{m}"] - done[f"test_{m}"]) < 1e-9 for m in ("hr", "ndcg", "recall", "mrr")) and 0 < done["test_mrr"] < 1, done
    assert done["best_epoch"] == max(done["history"], key=lambda e: e["mrr"])["epoch"] and done["validation_mrr"] == max(e["mrr"] for e in done["history"]), done

    begin = time.time()
    done = c.wait(c.submit(neumf), 300)
    assert done["state"] == "SUCCEEDED", done
    history = done["history"]
    best = max(history, key=lambda e: e["ndcg"])
    print(f"figure amazon-music NeuMF from scratch HR@10 {done['test_hr']:.4f} NDCG@10 {done['test_ndcg']:.4f} (at least 0.33, 0.19), best epoch {done['best_epoch']}, "
          f"the job {time.time() - begin:.0f} s")
    assert done["best_epoch"] == best["epoch"] and abs(done["validation_ndcg"] - best["ndcg"]) < 1e-12, done
    assert done["test_rows"] == 177582, done["test_rows"]  # 1,776 lists of 99 negatives, but for 18 that are the test item itself
    assert done["test_hr"] >= 0.33 and done["test_ndcg"] >= 0.19 and done["test_hr"] == done["test_recall"], done

    seen = []
    runs = [("in-batch-softmax, temperature: 0.2", "")] * 2 + [("bpr", ", negatives: {perPositive: 4, redraw: true}"),
                                                            ("softmax, logQ: true", ", negatives: {perPositive: 4, redraw: true, distribution: popularity, power: 0.75}"),
                                                            ("hinge, margin: 1", ", negatives: {perPositive: 4, redraw: true}")]
    for loss, negatives in runs:
        done = c.wait(c.submit(FULL.format(dir=folder, loss=loss, negatives=negatives, bias="false" if loss.startswith("in-batch") else "true")), 120)
        assert done["state"] == "SUCCEEDED", done
        seen.append((done["test_recall"], done["test_ndcg"], done["test_hr"]))
        print(f"{loss}: Recall@50 {done['test_recall']!r}, NDCG@50 {done['test_ndcg']!r}")
        assert done["test_rows"] == 1776 and done["test_hr"] == done["test_recall"], done  # one item a user
        assert done["test_recall"] > 50 / 12929 * 3, done  # three times what chance finds
    assert seen[0] == seen[1], "two synchronous runs differ"

    # Each half, published; then NeuMF from both. Its learning rates are 0: what is measured is what it began with.
    model = next(line for line in neumf.splitlines() if line.startswith("  model:"))
    halves, folders = {}, []
    for name, text in (("gmf", "{name: gmf, embeddingDim: 32}"), ("mlp", "{name: mlp, embeddingDim: 64, hidden: [64, 32]}")):
        halves[name] = c.wait(c.submit(neumf.replace(model, f"  model: {text}") + f"  publish: {{model: {name}, storage: float32}}\n"), 300)
        assert halves[name]["state"] == "SUCCEEDED", halves[name]
        folders.append(os.path.join(c.dir, "coordinator", "models", name, "1"))
        until(f"{name} published nothing", lambda: os.path.exists(os.path.join(folders[-1], "manifest.json")), 20)
    start = ", ".join(f'{{snapshot: "{f}", alpha: 0.5}}' for f in folders)
    still = neumf.replace("lr: 0.001", "lr: 0").replace("epochs: 12", "epochs: 1").replace(model, model.replace("}", f", start: [{start}]}}"))
    done = c.wait(c.submit(still), 120)
    assert done["state"] == "SUCCEEDED", done
    ndcg = {name: h["validation_ndcg"] for name, h in halves.items()}
    print(f"figure amazon-music NeuMF begun with GMF (validation NDCG@10 {ndcg['gmf']:.4f}) and MLP ({ndcg['mlp']:.4f}): {done['validation_ndcg']:.4f}, "
          f"test HR@10 {done['test_hr']:.4f} NDCG@10 {done['test_ndcg']:.4f}")
    assert done["validation_ndcg"] > min(ndcg.values()) and done["validation_ndcg"] > max(ndcg.values()) - 0.01, (done["validation_ndcg"], ndcg)
    done = c.wait(c.submit(still.replace(folders[0], folders[0] + "-nothing") + "  failurePolicy: {maxRestarts: 1}\n"), 60)
    assert done["state"] == "FAILED", done  # there is nothing to begin with
