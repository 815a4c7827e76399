"""`sync` gives the same bits for the same seed: one worker with both data shards, two workers, and a second run, with different
numbers of servers, publish byte-identical embeddings and the same log loss to the last digit (I2)."""
import os
from cluster import Cluster, run
import tempfile, shutil

TEXT = """apiVersion: pinion/v1
kind: TrainingJob
metadata: {{name: bits}}
spec:
  data:
    train: {{format: csv, uri: "{dir}/train.csv", label: click}}
    test: {{format: csv, uri: "{dir}/test.csv", label: click}}
    shuffle: {{buffer: 1000, seed: 3}}
  features:
{features}
  tables: {{defaults: {{optimizer: {{name: adagrad, lr: 0.05}}, init: {{normal: 0.01}}}}}}
  model: {{name: deepfm, embeddingDim: 8, hidden: [32, 16], dropout: 0.1}}
  optimizer: {{name: adam, lr: 0.001}}
  training: {{batchSize: 256, epochs: 1, seed: 5, dataShards: 2, consistency: {{mode: sync}}}}
  publish: {{model: bits, storage: float32}}
"""

tmp = tempfile.mkdtemp(prefix="pinion-bits-")
try:
    code, out, err = run("synth", "--rows", "8000", "--out", tmp, "--seed", "7")
    assert code == 0, err
    with open(os.path.join(tmp, "train.csv")) as f:
        header = f.readline().strip().split(",")
    features = "\n".join(f"    - {{name: {c}, type: categorical}}" for c in header if c != "click")
    seen = []
    for ps, workers in ((1, 1), (2, 2), (2, 2)):
        with Cluster(ps=ps, workers=workers, serving=0) as c:
            done = c.wait(c.submit(TEXT.format(dir=tmp, features=features)), 120)
            assert done["state"] == "SUCCEEDED", done
            rows = []
            for base, _, names in os.walk(c.dir):
                if "manifest.json" in names and "/models/" in base:
                    dense = open(os.path.join(base, "dense.safetensors"), "rb").read()
                    segments = [open(os.path.join(base, n), "rb").read() for n in sorted(names) if n.endswith(".seg")]
            seen.append((done["test_logloss"], done["test_auc"], dense, segments))
            print(f"{ps} servers, {workers} workers: log loss {done['test_logloss']!r}, AUC {done['test_auc']!r}")
    assert seen[0][:3] == seen[1][:3] == seen[2][:3], [s[:2] for s in seen]
    assert seen[1][3] == seen[2][3], "embeddings of two runs with 2 servers differ"
finally:
    shutil.rmtree(tmp, ignore_errors=True)
