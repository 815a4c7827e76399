#!/usr/bin/env python3
"""Models as ONNX graphs: the checker of the onnx package takes each, and onnxruntime scores a random batch as our own net does, to 1e-5; then models trained,
published, exported by the command and scored from raw columns beside their serving replica: embeddings, leaves of trees, a sequence. The packages go into a virtual environment under build/; skipped where
they cannot be installed."""
import csv
import glob
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from cluster import BUILD, Cluster, run, skip

venv = os.path.join(BUILD, "onnx-venv")
python = os.path.join(venv, "bin", "python")
if "--inside" not in sys.argv:
    steps = [] if os.path.exists(os.path.join(venv, "done")) else [[sys.executable, "-m", "venv", venv], [python, "-m", "pip", "install", "-q", "onnx", "onnxruntime", "numpy", "xxhash"]]
    for step in steps:
        try:
            p = subprocess.run(step, capture_output=True, text=True, timeout=300)
            why = "" if p.returncode == 0 else (p.stderr.strip() or p.stdout.strip()).split("\n")[-1][:200]
        except (OSError, subprocess.TimeoutExpired) as e:
            why = str(e)
        if why:
            skip(f"onnx and onnxruntime cannot be installed: {why}")
    open(os.path.join(venv, "done"), "w").close()
    sys.exit(subprocess.run([python, __file__, "--inside"]).returncode)

import numpy as np
import onnx
import onnxruntime
import xxhash

PAIR = "{name: user, type: categorical, table: users}, {name: item, type: categorical, table: items}"
MIXED = ("{name: a, type: categorical}, {name: b, type: categorical, table: other}, {name: tags, type: multi, separator: '|', pooling: mean}, "
         "{name: more, type: multi, separator: '|', pooling: sqrtn}, {name: all, type: multi, separator: '|', pooling: sum}, {name: n1, type: numeric}, {name: n2, type: numeric}, {name: ab, type: cross, of: [a, b]}")
WEIGHTED = MIXED + ", {name: w, type: multi, weighted: true, table: other}"
LEAVES = MIXED + ", {name: leaves, type: leaves, table: leaves, trees: 12}"
PLAIN = "{name: a, type: categorical}, {name: b, type: categorical}, {name: c, type: categorical}"
SEQUENCES = MIXED + ", {name: s, type: sequence, separator: '|', maxLength: 7, hash: {share: a}}, {name: s2, type: sequence, separator: '|', maxLength: 7, table: other}"
NEXT = ("{name: history, type: sequence, maxLength: 12, hash: {share: i}}, {name: target, type: sequence, maxLength: 12, hash: {share: i}}, "
        "{name: negatives, type: sequence, maxLength: 99, hash: {share: i}}, {name: seen, type: sequence, maxLength: 99, hash: {share: i}}")
MODELS = [("lr", MIXED), ("lr", PLAIN), ("lr", WEIGHTED), ("deepfm, embeddingDim: 5, hidden: [6]", WEIGHTED),
          ("gbdt+lr", LEAVES), ("fm, embeddingDim: 5", MIXED), ("wide_deep, embeddingDim: 4, hidden: [9, 5], norm: layer", MIXED),
          ("deepfm, embeddingDim: 6, linearScale: 2, hidden: [9, 5], norm: batch, dropout: 0.3, embeddingDropout: 0.1", MIXED),
          ("deepfm, embeddingDim: 16, hidden: [40, 40]", PLAIN), ("dcn_v2, embeddingDim: 4, cross: 3, hidden: [8]", MIXED),
          ("dcn_v2, embeddingDim: 4, cross: 2, structure: stacked, hidden: [8]", PLAIN), ("dlrm, embeddingDim: 4, bottom: [7], hidden: [6]", MIXED),
          ("dlrm, embeddingDim: 4, interaction: cat, hidden: [6]", MIXED), ("dlrm, embeddingDim: 4, interaction: both, hidden: [6]", PLAIN),
          ("mf, embeddingDim: 8", PAIR), ("mf, embeddingDim: 8, bias: false", PAIR), ("mf, embeddingDim: 8, bias: false, similarity: cosine", PAIR), ("gmf, embeddingDim: 8", PAIR), ("mlp, embeddingDim: 8, hidden: [8, 4]", PAIR),
          ("neumf, embeddingDim: 8, mlpDim: 12, hidden: [8, 4]", PAIR),
          ("deepfm, embeddingDim: 4, hidden: [6], heads: [{name: high, column: n1, threshold: 1}, {name: low, column: n2}]", MIXED),
          ("dcn_v2, embeddingDim: 4, hidden: [6], cross: 1, sequence: {fields: [s, s2], candidate: a, blocks: 2, heads: 2, width: 8, feedForward: 6, recent: 2}", SEQUENCES),
          ("deepfm, embeddingDim: 4, hidden: [6], sequence: {fields: [s], blocks: 1, width: 6, dropout: 0.3, positions: false}", SEQUENCES.split(", {name: s2")[0]),
          ("wide_deep, embeddingDim: 4, hidden: [6], sequence: {fields: [s, s2], blocks: 1, width: 6, heads: 1, recent: 9}", SEQUENCES),
          ("sasrec, embeddingDim: 8, sequence: {fields: [history], target: target, negatives: negatives, seen: seen, blocks: 2, heads: 2, dropout: 0.2}", NEXT)]
JOB = """apiVersion: pinion/v1
kind: TrainingJob
metadata: {name: t}
spec:
  data: {train: {format: csv, uri: /none, label: y}}
  features: [%s]
  model: {name: %s}
"""
worst = 0.0
for model, features in MODELS:
    with tempfile.TemporaryDirectory() as d:
        with open(os.path.join(d, "job.yaml"), "w") as f:
            f.write((JOB if features is not NEXT else JOB.replace("{format: csv, uri: /none, label: y}", "{format: sasrec, uri: /none, part: train, history: 12}")) % (features, model))
        p = subprocess.run([os.path.join(BUILD, "onnx-trace"), os.path.join(d, "job.yaml"), d], capture_output=True, text=True)
        assert p.returncode == 0, f"{model}: {p.stderr}"
        onnx.checker.check_model(os.path.join(d, "model.onnx"), full_check=True)
        inputs = {}
        for line in open(os.path.join(d, "inputs")):
            name, kind, n, columns = line.split()
            x = np.fromfile(os.path.join(d, name), kind)
            inputs[name] = x.reshape(int(n), int(columns)) if int(columns) else x
        session = onnxruntime.InferenceSession(os.path.join(d, "model.onnx"), providers=["CPUExecutionProvider"])
        assert sorted(i.name for i in session.get_inputs()) == sorted(inputs), (model, [i.name for i in session.get_inputs()])
        names = [o.name for o in session.get_outputs()]
        got = dict(zip(names, session.run(None, inputs)))
        for name in names:
            if name == "logit":
                continue
            want = np.fromfile(os.path.join(d, name), np.float32)
            assert got[name].shape == want.shape and want.std() > 1e-3, f"{model}, {name}: {got[name].shape}, deviation {want.std():.1e}"
            error = float(np.max(np.abs(got[name] - want)))
            worst = max(worst, error)
            assert error < 1e-5, f"{model}, {name}: off by {error:.2g}"
        assert np.allclose(1 / (1 + np.exp(-got["logit"].astype(np.float64))), got["score"], atol=1e-5)
print(f"figure {len(MODELS)} models: onnxruntime at most {worst:.1e} from our scores")

PUBLISHED = """apiVersion: pinion/v1
kind: TrainingJob
metadata: {name: %(name)s}
spec:
  data: {train: {format: csv, uri: %(uri)s, label: y}}
  features: [%(features)s]
  tables: {defaults: {optimizer: {name: adagrad, lr: 0.1}, init: {normal: 0.1}}}
  model: {name: %(model)s}
  optimizer: {name: adamw, lr: 0.01}
  training: {batchSize: 64, epochs: 2, seed: 1}
  publish: {model: %(name)s}
"""
COLUMNS = ["a", "b", "tags", "n1", "n2", "history"]
rng = random.Random(3)
rows = [{"a": f"a{rng.randrange(30)}" if rng.random() < 0.95 else "", "b": f"b{rng.randrange(50)}", "tags": "|".join(f"t{rng.randrange(9)}" for _ in range(rng.randint(1, 4))),
         "n1": f"{rng.gauss(0, 1):.4f}", "n2": f"{rng.gauss(0, 1):.4f}" if rng.random() < 0.8 else "", "history": "|".join(f"b{rng.randrange(50)}" for _ in range(rng.randint(0, 7)))} for _ in range(4000)]
asked = rows[:200] + [{"a": "never seen", "b": "b1", "tags": "t1|never", "n1": "0.5", "n2": "0", "history": "never|b1"}]


def label(r):
    liked = (int(r["a"][1:] or 0) % 2 > 0) + (float(r["n1"]) * float(r["n2"] or -1) > 0) + (r["b"] in r["history"].split("|")) * 2
    return int(rng.random() < (0.2, 0.5, 0.8, 0.9, 0.95)[liked])


class Exported:
    """A model trained and published, its graph, and what docs/formats.md says of the way from raw columns to row numbers."""

    def __init__(self, c, d, name, model, features):
        done = c.wait(c.submit(PUBLISHED % dict(name=name, uri=os.path.join(d, "train.csv"), model=model, features=features)), 100)
        assert done["state"] == "SUCCEEDED", done
        self.name = name
        self.folder = os.path.dirname(glob.glob(os.path.join(c.dir, "**", "models", name, "*", "manifest.json"), recursive=True)[0])
        self.path = os.path.join(d, name + ".onnx")
        code, out, err = run("export", self.folder, "--out", self.path)
        assert code == 0, err
        fields = [re.search(r'name: "(\w+)".*?type: (\w+).*?table: "(\w+)", hash: {resolved: (\d+)}', line) for line in open(os.path.join(self.folder, "job.yaml")) if line.startswith("    - {name:")]
        self.seeds = {m[1]: int(m[4]) for m in fields if m}
        self.places = {m[1]: {int(k): i + 1 for i, k in enumerate(np.load(f"{self.path}.{m[3]}.keys.npy"))} for m in fields if m}

    def key(self, field, value):
        return xxhash.xxh3_64_intdigest(value.encode(), self.seeds[field]) if value else mix64(self.seeds[field] ^ 0x6d697373696e67)

    def row(self, field, value):
        return self.places[field].get(self.key(field, value), 0)

    def check(self, c, inputs):
        got = onnxruntime.InferenceSession(self.path, providers=["CPUExecutionProvider"]).run(["score"], inputs)[0]
        with open(os.path.join(self.folder, "job.yaml")) as f:
            text = f.read()
        served = np.array(c.scores(self.name, {k: [r[k] for r in asked] for k in COLUMNS if f'column: "{k}"' in text}))
        assert got.std() > 0.02, got.std()
        error = float(np.max(np.abs(got - served)))
        print(f"figure {self.name} on raw columns: at most {error:.1e} from its serving replica")
        assert error < 1e-5, error


def mix64(x):
    x = (x + 0x9e3779b97f4a7c15) % 2**64
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9 % 2**64
    x = (x ^ x >> 27) * 0x94d049bb133111eb % 2**64
    return x ^ x >> 31


class Forest:
    """The trees of statistics.json: "Leaves" in docs/formats.md."""

    def __init__(self, text):
        self.roots, self.prior, self.folds = text["roots"], text["prior"], text["folds"]
        self.nodes, self.categories, at = [], [], 0
        while at < len(text["nodes"]):
            leaf = text["nodes"][at] < 0
            self.nodes.append((-1, 0.0, 0, 0, 0) if leaf else tuple(text["nodes"][at:at + 5]))  # feature, threshold, left, right, whether NaN goes left
            at += 1 if leaf else 5
        for numbers in text["categories"]:
            counts, at = {}, 0
            while at < len(numbers):
                key, n, folds = numbers[at], numbers[at + 1], np.zeros((2, self.folds), np.uint32)
                for fold, seen, positive in np.reshape(numbers[at + 2:at + 2 + 3 * n], (n, 3)):
                    folds[:, fold] = seen, positive
                counts[key] = folds
                at += 2 + 3 * n
            self.categories.append(counts)

    def version(self):
        h = xxhash.xxh3_64_intdigest(np.array(self.roots, "<u4").tobytes(), xxhash.xxh3_64_intdigest(np.float64(self.prior).tobytes(), 1))
        for feature, threshold, left, right, nan_left in self.nodes:
            words = np.array([feature % 2**32, left, right, nan_left], "<u4").tobytes() + np.float32(threshold).tobytes()
            h = xxhash.xxh3_64_intdigest(words, h)
        for counts in self.categories:
            h = xxhash.xxh3_64_intdigest(np.array(list(counts), "<u8").tobytes(), h)
            for which in (0, 1):
                h = xxhash.xxh3_64_intdigest(b"".join(folds[which].tobytes() for folds in counts.values()), h)
        return h

    def leaves(self, numbers, keys):
        """Of each tree the number of the node, from its root, that a row ends in."""
        x = [np.float32(v) for v in numbers]
        for counts, key in zip(self.categories, keys):
            seen, positive = (int(v.sum()) for v in counts.get(key, np.zeros((2, 1), int)))
            x += [np.float32((positive + 20 * self.prior) / (seen + 20)), np.float32(np.log1p(seen))]
        out = []
        for root in self.roots[:-1]:
            at = 0
            while (node := self.nodes[root + at])[0] >= 0:
                v = x[node[0]]
                at = node[2] if (node[4] if np.isnan(v) else v < np.float32(node[1])) else node[3]
            out.append(at)
        return out


with tempfile.TemporaryDirectory() as d, Cluster(ps=2, workers=1, serving=1) as c:
    with open(os.path.join(d, "train.csv"), "w", newline="") as f:
        out = csv.DictWriter(f, ["y", *COLUMNS])
        out.writeheader()
        for r in rows:
            out.writerow({**r, "y": label(r)})

    m = Exported(c, d, "exported", "deepfm, embeddingDim: 8, hidden: [16, 8]",
                 '{name: a, type: categorical}, {name: b, type: categorical, table: other}, {name: tags, type: multi, separator: "|", pooling: mean}, {name: n1, type: numeric}')
    folder, path = m.folder, m.path
    code, out, err = run("export", folder, "--format", "safetensors", "--out", os.path.join(d, "m.safetensors"))
    assert code == 0 and open(os.path.join(d, "m.safetensors"), "rb").read() == open(os.path.join(folder, "dense.safetensors"), "rb").read(), err
    code, out, err = run("export", folder, "--format", "pickle")
    assert code == 2 and "onnx or safetensors" in err, err
    code, out, err = run("export", d, "--out", path + ".not")
    assert code == 1 and "manifest" in err and not os.path.exists(path + ".not"), err
    assert len(m.places["a"]) == 30 + 1 + 9 and len(m.places["b"]) == 50, {f: len(p) for f, p in m.places.items()}
    tags = [r["tags"].split("|") for r in asked]
    numbers = np.array([[float(r["n1"])] for r in asked], np.float32)
    m.check(c, {"rows.a": np.array([m.row("a", r["a"]) for r in asked]), "rows.b": np.array([m.row("b", r["b"]) for r in asked]),
                "rows.tags": np.array([[m.row("tags", t) for t in ts] + [0] * (4 - len(ts)) for ts in tags]),
                "weights.tags": np.array([[1 / len(ts)] * len(ts) + [0] * (4 - len(ts)) for ts in tags], np.float32), "numbers": numbers})

    trees = 20
    m = Exported(c, d, "leaves", "gbdt+lr", "{name: a, type: categorical}, {name: n1, type: numeric}, {name: b, type: categorical, table: other}, {name: n2, type: numeric, default: -1}, "
                 "{name: n3, column: n2, type: numeric, clip: [-1, 1]}, {name: leaves, type: leaves, table: leaves, trees: %d, depth: 4, rate: 0.2, minWeight: 5}" % trees)
    forest = Forest(json.load(open(os.path.join(m.folder, "statistics.json")))["leaves"])
    salt = mix64(m.seeds["leaves"] ^ forest.version())
    rows_of = []
    for r in asked:
        leaves = forest.leaves([float(r["n1"]), float(r["n2"] or -1)], [m.key("a", r["a"]), m.key("b", r["b"])])
        rows_of.append([m.places["leaves"].get(mix64(salt ^ mix64(t << 32 | leaf)), 0) for t, leaf in enumerate(leaves)])
    known = np.mean(np.array(rows_of) > 0)
    assert known > 0.99, f"{known:.1%} of the leaves' keys are in the table"
    plain = [[float(r["n1"]), float(r["n2"] or -1), min(max(float(r["n2"] or 0), -1), 1)] for r in asked]
    m.check(c, {"rows.a": np.array([m.row("a", r["a"]) for r in asked]), "rows.b": np.array([m.row("b", r["b"]) for r in asked]), "rows.leaves": np.array(rows_of),
                "weights.leaves": np.ones((len(asked), trees), np.float32), "numbers": np.array(plain, np.float32)})

    most = 5
    m = Exported(c, d, "actions", "dcn_v2, embeddingDim: 8, hidden: [16], cross: 1, sequence: {fields: [history], candidate: b, blocks: 1, heads: 2, width: 16, feedForward: 8, recent: 2}",
                 "{name: b, type: categorical}, {name: history, type: sequence, maxLength: %d, hash: {share: b}}, {name: n1, type: numeric}" % most)
    lists = [[v for v in r["history"].split("|") if v][-most:] for r in asked]
    m.check(c, {"rows.b": np.array([m.row("b", r["b"]) for r in asked]), "rows.history": np.array([[0] * (most - len(v)) + [m.row("history", x) for x in v] for v in lists]),
                "present": np.array([[0] * (most - len(v)) + [1] * len(v) for v in lists], np.float32), "numbers": numbers})
