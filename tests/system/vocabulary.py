"""Vocabularies and quantiles over real processes: counted by one worker, used by all, published as files of the version. A worker and the coordinator are killed on the way; what a replica
scores is what the evaluation scored, values never seen and missing ones too. Vocabularies that cannot be had end the job with one line."""
import hashlib
import json
import math
import os
import random
import shutil
import tempfile
from cluster import Cluster

JOB = """apiVersion: pinion/v1
kind: TrainingJob
metadata: {{name: words}}
spec:
  data:
    train: {{format: csv, uri: "{dir}/train.csv", label: label}}
    test: {{format: csv, uri: "{dir}/test.csv", label: label}}
    shuffle: {{buffer: 5000, seed: 3}}
  features:
{features}
  tables: {{defaults: {{optimizer: {{name: adagrad, lr: 0.1}}, init: zero}}}}
  model: {{name: lr}}
  optimizer: {{name: adam, lr: 0.003}}
  training: {{batchSize: 50, epochs: {epochs}, seed: 5, dataShards: 2}}
  checkpoint: {{every: 300ms, keep: 2}}
  publish: {{model: words, storage: float32}}
"""
FEATURES = """    - {{name: item, type: categorical, vocabulary: {{minCount: 3, maxSize: 100, oov: 2}}}}
    - {{name: tags, type: multi, separator: " ", vocabulary: {{file: "{dir}/tags.txt"}}}}
    - {{name: kind, type: categorical, vocabulary: {{values: [k0, k1]}}}}
    - {{name: price, type: numeric, transform: [log1p], bucketize: {{quantiles: 10}}}}"""
draw = random.Random(2)


def make(n):
    rows = []
    for _ in range(n):
        item, kind, price = int(draw.paretovariate(0.35)) % 5000, draw.randrange(4), math.exp(draw.gauss(2, 1))
        tags = " ".join(f"t{draw.randrange(12)}" for _ in range(draw.randrange(3)))
        label = int(draw.random() < 1 / (1 + math.exp(-(item % 3 - 1) * 2 - math.log(price) + 2)))
        rows.append((f"i{item}" if draw.random() < 0.95 else "", tags, f"k{kind}", f"{price:.3f}" if draw.random() < 0.9 else "none", label))
    return rows


tmp = tempfile.mkdtemp(prefix="pinion-words-")
try:
    train, test = make(6000), make(800)
    for name, rows in (("train", train), ("test", test)):
        with open(os.path.join(tmp, name + ".csv"), "w") as f:
            f.write("item,tags,kind,price,label\n" + "".join(",".join(map(str, r)) + "\n" for r in rows))
    with open(os.path.join(tmp, "tags.txt"), "w") as f:
        f.write("".join(f"t{i}\r\n" for i in range(9)))
    counts = {}
    for r in train:
        counts[r[0]] = counts.get(r[0], 0) + 1
    counts.pop("", None)
    expected = [v for v, n in sorted(counts.items(), key=lambda e: (-e[1], e[0].encode())) if n >= 3][:100]

    with Cluster(ps=1, workers=2, serving=1) as c:
        id = c.submit(JOB.format(dir=tmp, features=FEATURES.format(dir=tmp), epochs=80))
        c.kill("worker-0")  # the one that counts, or is about to
        c.wait_running(id, lambda job: job["epoch"] >= 1)
        c.kill("worker-1")
        c.kill("coordinator")
        c.wait_api()
        job = c.job(id)
        assert job["state"] in ("RUNNING", "RESTARTING"), job
        done = c.wait(id, 100)
        assert done["state"] == "SUCCEEDED" and done["restarts"] > 0, done

        folder = os.path.join(c.dir, "coordinator", "models", "words", "1")
        with open(os.path.join(folder, "statistics.json")) as f:
            statistics = json.load(f)
        with open(os.path.join(folder, "manifest.json")) as f:
            files = {f["name"]: f for f in json.load(f)["files"]}
        made = statistics["item"]["vocabulary"]
        with open(os.path.join(folder, made["name"]), "rb") as f:
            text = f.read()
        assert text.decode().split("\n") == expected + [""] and made["values"] == len(expected) == 100, (text[:200], expected[:20])
        assert hashlib.blake2b(text, digest_size=32).hexdigest() == made["digest"] == files[made["name"]]["digest"], made
        assert files[statistics["tags"]["vocabulary"]["name"]]["bytes"] == len(open(os.path.join(tmp, "tags.txt"), "rb").read())
        numbers = sorted(math.copysign(math.log1p(abs(float(r[3]))), float(r[3])) for r in train if r[3] != "none")
        boundaries = statistics["price"]["boundaries"]
        assert len(boundaries) == 9 and all(abs(sum(x < b for x in numbers) / len(numbers) - (i + 1) / 10) < 0.002 for i, b in enumerate(boundaries)), boundaries

        scores = c.scores("words", {name: [r[i] for r in test] for i, name in enumerate(("item", "tags", "kind", "price"))})
        loss = -sum(math.log(scores[i] if r[4] else 1 - scores[i]) for i, r in enumerate(test)) / len(test)
        print(f"figure vocabulary: {made['values']} of {len(counts)} values kept; served log loss {loss:.6f}, evaluation {done['test_logloss']:.6f}, AUC {done['test_auc']:.3f}")
        assert abs(loss - done["test_logloss"]) < 1e-5, (loss, done["test_logloss"])

        # what cannot be had ends the job with one line that says what and where
        for name, text in (("empty", ""), ("twice", "t1\nt2\nt1\n")):
            with open(os.path.join(tmp, name + ".txt"), "w") as f:
                f.write(text)
        for feature, words in (('{name: tags, type: multi, vocabulary: {file: "%s/none.txt"}}' % tmp, ("tags", "none.txt", "No such file")),
                               ('{name: tags, type: multi, vocabulary: {file: "%s/empty.txt"}}' % tmp, ("tags", "empty.txt", "is empty")),
                               ('{name: tags, type: multi, vocabulary: {file: "%s/twice.txt"}}' % tmp, ("tags", "twice.txt", "line 3", "stands twice")),
                               ("{name: item, type: categorical, vocabulary: {minCount: 6001}}", ("item", "6001 times")),
                               ("{name: kind, type: numeric, bucketize: {quantiles: 4}}", ("kind", "no number"))):
            bad = c.wait(c.submit(JOB.format(dir=tmp, features="    - " + feature, epochs=1)), 30)
            assert bad["state"] == "FAILED" and all(w in bad["reason"] for w in words), (feature, bad)

        # a vocabulary that is damaged behind the job's back is not published
        folder = os.path.join(c.dir, "coordinator", "jobs", id, "vocabularies")
        with open(os.path.join(folder, made["name"]), "r+b") as f:
            f.write(b"X")
        status, body = c.api("POST", f"/api/v1/jobs/{id}/publish", {"force": True})
        assert status == 503 and made["name"] in body["error"] and "damaged" in body["error"], (status, body)
finally:
    shutil.rmtree(tmp, ignore_errors=True)
