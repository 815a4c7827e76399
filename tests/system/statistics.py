"""The text of a job's statistics as a file, over real processes: growing trees takes seconds, and meanwhile the worker that grows them, then the coordinator and the other worker are killed; the job ends
as if nothing had been, its record is short, and of all attempts one file is left. A text that is damaged behind the job's back ends the job with one line when a worker has to read it."""
import hashlib
import os
import random
import shutil
import sqlite3
import tempfile
import time
from cluster import Cluster, until

JOB = """apiVersion: pinion/v1
kind: TrainingJob
metadata: {{name: grown}}
spec:
  data:
    train: {{format: csv, uri: "{dir}/train.csv", label: label}}
    test: {{format: csv, uri: "{dir}/train.csv", label: label}}
    shuffle: {{buffer: 20000, seed: 3}}
  features:
    - {{name: a, type: numeric, bucketize: [-1, 0, 1]}}
    - {{name: b, type: numeric, bucketize: [-1, 0, 1]}}
    - {{name: leaves, type: leaves, table: leaves, trees: {trees}, depth: {depth}, rate: 0.02, minWeight: 20, columnShare: 1}}
  tables: {{defaults: {{optimizer: {{name: ftrl, lr: 0.001, beta: 0.001, l1: 0, l2: 0.001}}, init: zero}}}}
  model: {{name: gbdt+lr}}
  optimizer: {{name: adam, lr: 0.003}}
  training: {{batchSize: 50, epochs: {epochs}, seed: 5, dataShards: 2}}
  checkpoint: {{every: 500ms, keep: 2}}
"""
draw = random.Random(1)


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def files(c, id, ending=".statistics"):
    folder = os.path.join(c.dir, "coordinator", "jobs", id, "vocabularies")
    return [os.path.join(folder, n) for n in sorted(os.listdir(folder)) if n.endswith(ending)] if os.path.isdir(folder) else []


def grower(c):
    """The worker at work, once it has been for a while."""
    busy = []

    def look():
        busy[:] = [n for n, pid in c.pids().items() if n.startswith("worker") and cpu_seconds(pid) > 0.3]
        return bool(busy)
    until("no worker grows trees", look, 30)
    return busy[0]


tmp = tempfile.mkdtemp(prefix="pinion-grown-")
try:
    with open(os.path.join(tmp, "train.csv"), "w") as f:
        f.write("a,b,label\n")
        for _ in range(8000):
            a, b = draw.gauss(0, 1), draw.gauss(0, 1)
            f.write(f"{a:.4f},{b:.4f},{int(draw.random() < (0.9 if (a > 0) == (b > 0) else 0.1))}\n")
    with Cluster(ps=1, workers=2, serving=0) as c:
        id = c.submit(JOB.format(dir=tmp, trees=800, depth=6, epochs=1))
        first = grower(c)
        assert not files(c, id)
        c.kill(first)
        second = grower(c)
        job = c.job(id)
        assert not files(c, id) and job["samples"] == 0, job
        c.kill("coordinator")
        for n in sorted(c.pids()):
            if n.startswith("worker") and n != second:
                c.kill(n)
        c.wait_api()
        done = c.wait(id, 120)
        assert done["state"] == "SUCCEEDED" and done["test_auc"] > 0.8, done
        assert done["restarts"] >= 1, done
        until("what was left over is removed", lambda: len(files(c, id, "")) == 1, 10)
        text = open(files(c, id)[0], "rb").read()
        digest = hashlib.blake2b(text, digest_size=32).hexdigest()
        assert os.path.basename(files(c, id)[0]) == digest[:32] + ".statistics", files(c, id)
        with sqlite3.connect(f"file:{os.path.join(c.dir, 'coordinator', 'coordinator.db')}?mode=ro", uri=True) as db:
            record = "".join(str(v) for row in db.execute("SELECT * FROM records WHERE kind = 'job'") for v in row)
        assert digest in record and len(record) < 20000 < len(text), (len(record), len(text))
        print(f"figure statistics: {len(text)} bytes of text, {len(record)} of the job's record; {done['restarts']} restarts, two growers killed or cut off from their coordinator")

        # damaged: who has it in memory goes on, who has to read it says so
        id = c.submit(JOB.format(dir=tmp, trees=20, depth=3, epochs=100000))
        until("training", lambda: c.job(id)["samples"] > 0, 30)
        with open(files(c, id)[0], "r+b") as f:
            f.seek(20)
            byte = f.read(1)
            f.seek(20)
            f.write(bytes([byte[0] ^ 1]))
        time.sleep(0.5)
        job = c.job(id)
        assert job["state"] == "RUNNING", job
        for name in ("worker-1", "worker-0"):  # either may be given the other's part meanwhile
            c.kill(name)
        done = c.wait(id, 60)
        assert done["state"] == "FAILED" and "is damaged" in done["reason"] and os.path.basename(files(c, id)[0]) in done["reason"] and "\n" not in done["reason"], done
finally:
    shutil.rmtree(tmp, ignore_errors=True)
