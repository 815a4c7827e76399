#!/usr/bin/env python3
"""Models as ONNX graphs: the checker of the onnx package takes each, and onnxruntime scores a random batch as our own net does, to 1e-5. Both packages go into a
virtual environment under build/; skipped where they cannot be installed."""
import os
import subprocess
import sys
import tempfile

BUILD = os.path.abspath(os.environ.get("PINION_BUILD", os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "build")))
venv = os.path.join(BUILD, "onnx-venv")
python = os.path.join(venv, "bin", "python")
if "--inside" not in sys.argv:
    steps = [] if os.path.exists(os.path.join(venv, "done")) else [[sys.executable, "-m", "venv", venv], [python, "-m", "pip", "install", "-q", "onnx", "onnxruntime", "numpy"]]
    for step in steps:
        try:
            p = subprocess.run(step, capture_output=True, text=True, timeout=300)
            why = "" if p.returncode == 0 else (p.stderr.strip() or p.stdout.strip()).split("\n")[-1][:200]
        except (OSError, subprocess.TimeoutExpired) as e:
            why = str(e)
        if why:
            print(f"onnx and onnxruntime cannot be installed: {why}")
            sys.exit(77)
    open(os.path.join(venv, "done"), "w").close()
    sys.exit(subprocess.run([python, __file__, "--inside"]).returncode)

import numpy as np
import onnx
import onnxruntime

PAIR = "{name: user, type: categorical, table: users}, {name: item, type: categorical, table: items}"
MIXED = ("{name: a, type: categorical}, {name: b, type: categorical, table: other}, {name: tags, type: multi, separator: '|', pooling: mean}, "
         "{name: more, type: multi, separator: '|', pooling: sqrtn}, {name: n1, type: numeric}, {name: n2, type: numeric}, {name: ab, type: cross, of: [a, b]}")
PLAIN = "{name: a, type: categorical}, {name: b, type: categorical}, {name: c, type: categorical}"
MODELS = [("lr", MIXED), ("lr", PLAIN), ("fm, embeddingDim: 5", MIXED), ("wide_deep, embeddingDim: 4, hidden: [9, 5], norm: layer", MIXED),
          ("deepfm, embeddingDim: 6, linearScale: 2, hidden: [9, 5], norm: batch, dropout: 0.3, embeddingDropout: 0.1", MIXED),
          ("deepfm, embeddingDim: 16, hidden: [40, 40]", PLAIN), ("dcn_v2, embeddingDim: 4, cross: 3, hidden: [8]", MIXED),
          ("dcn_v2, embeddingDim: 4, cross: 2, structure: stacked, hidden: [8]", PLAIN), ("dlrm, embeddingDim: 4, bottom: [7], hidden: [6]", MIXED),
          ("dlrm, embeddingDim: 4, interaction: cat, hidden: [6]", MIXED), ("dlrm, embeddingDim: 4, interaction: both, hidden: [6]", PLAIN),
          ("mf, embeddingDim: 8", PAIR), ("mf, embeddingDim: 8, bias: false", PAIR), ("gmf, embeddingDim: 8", PAIR), ("mlp, embeddingDim: 8, hidden: [8, 4]", PAIR),
          ("neumf, embeddingDim: 8, mlpDim: 12, hidden: [8, 4]", PAIR),
          ("deepfm, embeddingDim: 4, hidden: [6], heads: [{name: high, column: n1, threshold: 1}, {name: low, column: n2}]", MIXED)]
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
            f.write(JOB % (features, model))
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
