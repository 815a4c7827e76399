#!/usr/bin/env python3
"""Training through real servers beside PyTorch with the same model: DeepFM, 26 fields, dimension 16, tower 400-400-400, batch 2,048, 1M rows in the table.
Both on all cores of this machine; ours with its server and two workers on the same cores. Ours trains two epochs and counts the second: in the first the server makes
rows, and PyTorch has its table ready made. Prints JSON lines; --rows N, --peer PYTHON (one that has torch)."""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
from cluster import Cluster

FIELDS, DIM, BATCH, WIDTH, KEYS = 26, 16, 2048, 400, 1000000
JOB = """apiVersion: pinion/v1
kind: TrainingJob
metadata: {{name: bench-deepfm}}
spec:
  data: {{train: {{format: criteo, uri: {path}, rows: {rows}}}}}
  features: [{features}]
  tables: {{defaults: {{optimizer: {{name: adagrad, lr: 0.02}}, init: {{normal: 0.01}}}}}}
  model: {{name: deepfm, embeddingDim: {dim}, hidden: [{w}, {w}, {w}]}}
  optimizer: {{name: adam, lr: 0.001}}
  training: {{batchSize: {batch}, epochs: 2, seed: 1, inFlight: 4, dataShards: 2, consistency: {{mode: async, ack: applied}}}}
  checkpoint: {{every: 600s}}
"""

# Zipf 1.05 over KEYS / FIELDS values a field, by inverse of the continuous form: near enough, and quick without NumPy.
GENERATE = r"""
import random, sys
rows, fields, keys, path = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
rng = random.Random(5)
n = keys // fields
a = 1 - 1.05
top = n ** a - 1
pool = ["%08x" % (((k * 2654435761) ^ 0x5bd1e995) & 0xffffffff) for k in range(n + 1)]
with open(path, "w") as f:
    ints = "\t" * 12
    for _ in range(rows):
        f.write(("1" if rng.random() < 0.25 else "0") + "\t" + ints + "\t" + "\t".join(pool[int((1 + rng.random() * top) ** (1 / a))] for _ in range(fields)) + "\n")
"""

TORCH = r"""
import sys, time, json
import torch
fields, dim, batch, width, keys, compiled = [int(x) for x in sys.argv[1:7]]
torch.manual_seed(1)
class DeepFM(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.rows = torch.nn.EmbeddingBag(keys, dim, mode="sum", sparse=True)
        self.linear = torch.nn.EmbeddingBag(keys, 1, mode="sum", sparse=True)
        self.tower = torch.nn.Sequential(torch.nn.Linear(fields * dim, width), torch.nn.ReLU(), torch.nn.Linear(width, width), torch.nn.ReLU(),
                                         torch.nn.Linear(width, width), torch.nn.ReLU(), torch.nn.Linear(width, 1))
        self.bias = torch.nn.Parameter(torch.zeros(1))
    def dense(self, v, linear):
        s = v.sum(1)
        fm = 0.5 * (s * s - (v * v).sum(1)).sum(1)
        return self.bias + linear + fm + self.tower(v.reshape(v.shape[0], -1)).squeeze(1)
m = DeepFM()
dense = torch.compile(m.dense) if compiled else m.dense
sparse = torch.optim.Adagrad(list(m.rows.parameters()) + list(m.linear.parameters()), lr=0.02)
adam = torch.optim.Adam([p for n, p in m.named_parameters() if not n.startswith(("rows", "linear"))], lr=0.001)
loss = torch.nn.BCEWithLogitsLoss()
n = keys // fields
def draw():
    u = torch.rand(batch, fields)
    a = 1 - 1.05
    return (1 + u * (n ** a - 1)) ** (1 / a)
batches = [(draw().long().clamp(0, n - 1) + torch.arange(fields) * n, (torch.rand(batch) < 0.25).float()) for _ in range(50)]
flat = torch.arange(batch * fields)
def step(keys, y):
    v = m.rows(keys.reshape(-1), flat).view(batch, fields, dim)
    linear = m.linear(keys.reshape(-1), flat).view(batch, fields).sum(1)
    l = loss(dense(v, linear), y)
    sparse.zero_grad(); adam.zero_grad()
    l.backward()
    sparse.step(); adam.step()
for k, y in batches[:5]: step(k, y)
rates = []
for _ in range(6):
    begin = time.time()
    for k, y in batches[:20]: step(k, y)
    rates.append(20 * batch / (time.time() - begin))
print(sorted(rates)[len(rates) // 2])
"""

p = argparse.ArgumentParser()
p.add_argument("--rows", type=int, default=800000)
p.add_argument("--peer", default="")
a = p.parse_args()


def line(name, value, unit, **more):
    print(json.dumps({"name": name, "value": value, "unit": unit, **more}), flush=True)


def second_epoch(c, id):
    """Samples a second between the first and the last change of the job's count within the second epoch."""
    begin = last = None
    for _ in range(3000):
        j = c.job(id)
        if j.get("samples", 0) >= a.rows and (last is None or j["samples"] > last[1]):
            last = (time.time(), j["samples"])
            begin = begin or last
        if j["state"] in ("SUCCEEDED", "FAILED", "CANCELLED"):
            assert j["state"] == "SUCCEEDED", j
            return (last[1] - begin[1]) / (last[0] - begin[0]) if last != begin else j["samples_per_s_mean"]  # too short to be seen twice: a smoke test
        time.sleep(0.1)
    raise AssertionError(f"job {id} is not done in 300 s")


with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "train.txt")
    subprocess.run([sys.executable, "-c", GENERATE, str(a.rows), str(FIELDS), str(KEYS), path], check=True)
    features = ", ".join(f"{{name: C{i + 1}, type: categorical}}" for i in range(FIELDS))
    with Cluster(ps=1, workers=2, serving=0) as c:
        ours = second_epoch(c, c.submit(JOB.format(path=path, rows=a.rows, features=features, dim=DIM, w=WIDTH, batch=BATCH)))
peers = {}
if a.peer:
    for name, compiled in (("eager", 0), ("compile", 1)):
        r = subprocess.run([a.peer, "-c", TORCH] + [str(x) for x in (FIELDS, DIM, BATCH, WIDTH, KEYS, compiled)], capture_output=True, text=True, timeout=280)
        if r.returncode == 0:
            peers[name] = float(r.stdout.split()[-1])
            line(f"torch.deepfm.26x16.{name}", peers[name], "samples/s")
        else:
            print(f"PyTorch ({name}): {r.stderr.strip().splitlines()[-1] if r.stderr.strip() else 'failed'}", file=sys.stderr)
best = max(peers, key=peers.get) if peers else None
line("train.deepfm.26x16", ours, "samples/s", **({"ratio": ours / peers[best], "peer": f"torch.deepfm.26x16.{best}"} if best else {}))
