#!/usr/bin/env python3
"""Models as ONNX graphs: the checker of the onnx package takes each, and onnxruntime scores a random batch as our own net does, to 1e-5; then a model trained,
published, exported by the command and scored from raw columns beside its serving replica. The packages go into a virtual environment under build/; skipped where
they cannot be installed."""
import csv
import glob
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
         "{name: more, type: multi, separator: '|', pooling: sqrtn}, {name: n1, type: numeric}, {name: n2, type: numeric}, {name: ab, type: cross, of: [a, b]}")
WEIGHTED = MIXED + ", {name: w, type: multi, weighted: true, table: other}"
PLAIN = "{name: a, type: categorical}, {name: b, type: categorical}, {name: c, type: categorical}"
SEQUENCES = MIXED + ", {name: s, type: sequence, separator: '|', maxLength: 7, hash: {share: a}}, {name: s2, type: sequence, separator: '|', maxLength: 7, table: other}"
NEXT = ("{name: history, type: sequence, maxLength: 12, hash: {share: i}}, {name: target, type: sequence, maxLength: 12, hash: {share: i}}, "
        "{name: negatives, type: sequence, maxLength: 99, hash: {share: i}}, {name: seen, type: sequence, maxLength: 99, hash: {share: i}}")
MODELS = [("lr", MIXED), ("lr", PLAIN), ("lr", WEIGHTED), ("deepfm, embeddingDim: 5, hidden: [6]", WEIGHTED), ("fm, embeddingDim: 5", MIXED), ("wide_deep, embeddingDim: 4, hidden: [9, 5], norm: layer", MIXED),
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
metadata: {name: exported}
spec:
  data: {train: {format: csv, uri: %s, label: y}}
  features: [{name: a, type: categorical}, {name: b, type: categorical, table: other}, {name: tags, type: multi, separator: "|", pooling: mean}, {name: n1, type: numeric}]
  tables: {defaults: {optimizer: {name: adagrad, lr: 0.1}, init: {normal: 0.1}}}
  model: {name: deepfm, embeddingDim: 8, hidden: [16, 8]}
  optimizer: {name: adamw, lr: 0.01}
  training: {batchSize: 64, epochs: 2, seed: 1}
  publish: {model: exported}
"""
rng = random.Random(3)
rows = [{"a": f"a{rng.randrange(30)}", "b": f"b{rng.randrange(50)}", "tags": "|".join(f"t{rng.randrange(9)}" for _ in range(rng.randint(1, 4))), "n1": f"{rng.gauss(0, 1):.4f}"} for _ in range(4000)]
with tempfile.TemporaryDirectory() as d, Cluster(ps=2, workers=1, serving=1) as c:
    with open(os.path.join(d, "train.csv"), "w", newline="") as f:
        out = csv.DictWriter(f, ["y", "a", "b", "tags", "n1"])
        out.writeheader()
        for r in rows:
            out.writerow({**r, "y": int(rng.random() < (0.8 if int(r["a"][1:]) % 2 else 0.2))})
    done = c.wait(c.submit(PUBLISHED % os.path.join(d, "train.csv")), 100)
    assert done["state"] == "SUCCEEDED", done
    folder = os.path.dirname(glob.glob(os.path.join(c.dir, "**", "models", "exported", "*", "manifest.json"), recursive=True)[0])
    path = os.path.join(d, "m.onnx")
    code, out, err = run("export", folder, "--out", path)
    assert code == 0, err
    code, out, err = run("export", folder, "--format", "safetensors", "--out", os.path.join(d, "m.safetensors"))
    assert code == 0 and open(os.path.join(d, "m.safetensors"), "rb").read() == open(os.path.join(folder, "dense.safetensors"), "rb").read(), err
    code, out, err = run("export", folder, "--format", "pickle")
    assert code == 2 and "onnx or safetensors" in err, err
    code, out, err = run("export", d, "--out", path + ".not")
    assert code == 1 and "manifest" in err and not os.path.exists(path + ".not"), err
    # Raw columns to row numbers, by docs/formats.md: XXH3 with the field's seed, its place in the table's key list.
    job = open(os.path.join(folder, "job.yaml")).read()
    seeds = {name: int(seed) for name, seed in re.findall(r'name: "?(\w+)"?.*?hash: {resolved: (\d+)}', job)}
    tables = {"a": "embedding", "b": "other", "tags": "embedding"}
    place = {f: {int(k): i + 1 for i, k in enumerate(np.load(f"{path}.{t}.keys.npy"))} for f, t in tables.items()}
    assert len(place["a"]) == 39 and len(place["b"]) == 50, {f: len(p) for f, p in place.items()}
    asked = rows[:200] + [{"a": "never seen", "b": "b1", "tags": "t1|never", "n1": "0.5"}]

    def row_of(field, value):
        return place[field].get(xxhash.xxh3_64_intdigest(value.encode(), seeds[field]), 0)
    tags = [r["tags"].split("|") for r in asked]
    inputs = {"rows.a": np.array([row_of("a", r["a"]) for r in asked]), "rows.b": np.array([row_of("b", r["b"]) for r in asked]),
              "rows.tags": np.array([[row_of("tags", t) for t in ts] + [0] * (4 - len(ts)) for ts in tags]),
              "weights.tags": np.array([[1 / len(ts)] * len(ts) + [0] * (4 - len(ts)) for ts in tags], np.float32),
              "numbers": np.array([[float(r["n1"])] for r in asked], np.float32)}
    got = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(["score"], inputs)[0]
    served = np.array(c.scores("exported", {k: [r[k] for r in asked] for k in ("a", "b", "tags", "n1")}))
    assert got.std() > 0.02, got.std()
    error = float(np.max(np.abs(got - served)))
    assert error < 1e-5, error
print(f"figure an exported model on raw columns: at most {error:.1e} from its serving replica")
