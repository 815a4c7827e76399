"""Early stopping over real processes: training ends `patience` epochs behind the best one, and what is evaluated at the end is the best epoch's checkpoint, to
the last digit. Data shards have different numbers of batches an epoch (in sync one has to take steps that the other waits for); with a worker killed on the way;
with a server killed on the way."""
import shutil
import tempfile
from cluster import Cluster, run

TEXT = """apiVersion: pinion/v1
kind: TrainingJob
metadata: {{name: stopping}}
spec:
  data:
    train: {{format: csv, uri: "{dir}/train.csv", label: click, rows: 3700}}
    validation: {{format: csv, uri: "{dir}/validation.csv", label: click}}
    test: {{format: csv, uri: "{dir}/test.csv", label: click}}
    shuffle: {{buffer: 10000, seed: 3}}
  features:
    - {{name: user, type: categorical}}
    - {{name: item, type: categorical}}
    - {{name: genre, type: categorical}}
  tables: {{defaults: {{optimizer: {{name: adagrad, lr: 0.01}}, init: {{normal: 0.01}}}}}}
  model: {{name: wide_deep, embeddingDim: 8, hidden: [32, 16], norm: batch, dropout: 0.1}}
  optimizer: {{name: adam, lr: 0.0003}}
  training: {{batchSize: 100, epochs: 40, seed: 5, dataShards: 2, earlyStopping: {{metric: {metric}, patience: {patience}}}, clipNorm: 10, consistency: {{mode: {mode}}}}}
  validation: {{groupBy: user}}
"""


def check(done, metric, patience):
    assert done["state"] == "SUCCEEDED", done
    history = done["history"]
    best = max(history, key=lambda e: -e[metric] if metric in ("logloss", "ne") else e[metric])
    assert [e["epoch"] for e in history] == list(range(1, len(history) + 1)), history
    assert done["best_epoch"] == best["epoch"] and len(history) in (best["epoch"] + patience, 40), done
    # the rows of the best epoch came back whole: the same figures as when they were measured first
    assert abs(done["validation_auc"] - best["auc"]) < 1e-12 and abs(done["validation_logloss"] - best["logloss"]) < 1e-12, (done["validation_auc"], best)
    assert 0 < done["test_gauc"] < 1 and 0.3 < done["test_ne"] < 2 and done["test_ece"] < 1, done


tmp = tempfile.mkdtemp(prefix="pinion-stopping-")
try:
    code, out, err = run("synth", "--rows", "8000", "--out", tmp, "--seed", "7")
    assert code == 0, err
    seen = []
    with Cluster(ps=2, workers=2, serving=0) as c:
        for mode, metric, victim in (("sync", "auc", None), ("sync", "auc", None), ("async", "logloss", None), ("sync", "ne", None), ("sync", "gauc", None), ("async", "auc", "worker-1"), ("async", "auc", "ps-0")):
            patience = 30 if victim else 2  # an epoch takes a thirtieth of a second: two might be over before the kill
            id = c.submit(TEXT.format(dir=tmp, mode=mode, metric=metric, patience=patience))
            if victim:
                c.wait_running(id, lambda job: job.get("best_epoch", 0) >= 1)
                c.kill(victim)
            done = c.wait(id, 120)
            check(done, metric, patience)
            assert victim is None or done["restarts"] > 0, done
            print(f"{mode}, by {metric}, killed {victim}: epoch {done['best_epoch']} of {len(done['history'])} was best, test AUC {done['test_auc']!r}")
            seen.append((done["best_epoch"], done["test_auc"], done["test_logloss"]))
    assert seen[0] == seen[1], "two sync runs differ"
finally:
    shutil.rmtree(tmp, ignore_errors=True)
