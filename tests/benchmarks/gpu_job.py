#!/usr/bin/env python3
"""A whole job on a GPU: DeepFM, 26 fields, dimension 16, tower 400-400-400, batch 16,384, from servers on this host through the wire to one worker and back; without and with a
cache of hot rows. Counts from the second epoch on. Prints JSON lines: samples/s, and where the time goes (read, features, pull, compute, push; of compute: copies in, kernels, copies
out), as seconds of a stage over seconds of the clock. PINION_CUDA_MODULE (the kernels emulated) and small numbers show that it runs; its figures then mean nothing."""
import argparse
import json
import os
import random
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
from cluster import Cluster

FIELDS = 26
JOB = """apiVersion: pinion/v1
kind: TrainingJob
metadata: {{name: bench-gpu}}
spec:
  data: {{train: {{format: criteo, uri: {path}, rows: {rows}}}}}
  features: [{features}]
  tables: {{defaults: {{optimizer: {{name: adagrad, lr: 0.02}}, init: {{normal: 0.01}}}}}}
  model: {{name: deepfm, embeddingDim: 16, hidden: [{w}, {w}, {w}]}}
  optimizer: {{name: adam, lr: 0.001}}
  training: {{batchSize: {batch}, epochs: {epochs}, seed: 1, inFlight: 4, dataShards: {producers}, device: "cuda:0", precision: tf32, {cache}consistency: {{mode: async, ack: applied}}}}
  checkpoint: {{every: 600s}}
"""
p = argparse.ArgumentParser()
p.add_argument("--rows", type=int, default=500000)
p.add_argument("--epochs", type=int, default=20)
p.add_argument("--batch", type=int, default=16384)
p.add_argument("--keys", type=int, default=10000000)
p.add_argument("--width", type=int, default=400)
p.add_argument("--servers", type=int, default=4)
p.add_argument("--producers", type=int, default=4)
a = p.parse_args()


def generate(path):
    """Zipf 1.05 over the keys of a field, by inverse of the continuous form."""
    rng, n = random.Random(5), a.keys // FIELDS
    power, top = -0.05, n ** -0.05 - 1
    with open(path, "w") as f:
        for _ in range(a.rows):
            f.write(("1" if rng.random() < 0.25 else "0") + "\t" * 13 + "\t" + "\t".join("%08x" % (int((1 + rng.random() * top) ** (1 / power)) * 2654435761 & 0xffffffff) for _ in range(FIELDS)) + "\n")


def line(name, value, unit, **more):
    print(json.dumps({"name": name, "value": value, "unit": unit, **more}), flush=True)


def stages(c):
    return next(n.get("stages", {}) for n in c.api("GET", "/api/v1/status")[1]["nodes"] if n["role"] == "worker")


def train(c, cache):
    features = ", ".join(f"{{name: C{i + 1}, type: categorical}}" for i in range(FIELDS))
    path = os.path.join(folder, "train.txt")
    id = c.submit(JOB.format(path=path, rows=a.rows, features=features, w=a.width, batch=a.batch, epochs=a.epochs, producers=a.producers, cache=cache))
    begin = last = None
    while True:
        j = c.job(id)
        if j["state"] in ("FAILED", "CANCELLED"):
            sys.exit(f"the job has {j['state']}: {j.get('reason')}")
        if j.get("samples", 0) >= a.rows and (last is None or j["samples"] > last[1]):
            last = time.time(), j["samples"], stages(c)
            begin = begin or last
        if j["state"] == "SUCCEEDED":
            break
        time.sleep(0.05)
    if last is None or last[1] == begin[1]:
        return j["samples_per_s_mean"], {}
    seconds = last[0] - begin[0]
    return (last[1] - begin[1]) / seconds, {k: (last[2].get(k, 0) - begin[2].get(k, 0)) / seconds for k in last[2]}


with tempfile.TemporaryDirectory() as folder:
    generate(os.path.join(folder, "train.txt"))
    with Cluster(ps=a.servers, workers=1, serving=0) as c:
        first = None
        for name, cache in (("gpu.job.deepfm", ""), ("gpu.job.deepfm.cache", f"deviceCache: {{rows: {max(a.keys // FIELDS, 1)}, staleness: 8}}, ")):
            rate, table = train(c, cache)
            line(name, rate, "samples/s", **({"ratio": rate / first, "peer": "no cache"} if first else {}))
            first = first or rate
            for stage, share in table.items():
                line(f"{name}.{stage}", share, "s/s")
