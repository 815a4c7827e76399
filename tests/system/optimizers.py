#!/usr/bin/env python3
"""The server's optimizers beside a second implementation in NumPy (float64): the same rows after every step. Skipped where NumPy is not there."""
import os
import subprocess
import sys

try:
    import numpy as np
except ImportError:
    print("NumPy cannot be imported")
    sys.exit(77)

BUILD = os.environ.get("PINION_BUILD", "build")
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


def sgd(o, w, g, s):
    return w - o["lr"] * (g + o["l2"] * w)


def adagrad(o, w, g, s):
    g = g + o["l2"] * w
    s["sum"] = s.get("sum", np.full_like(w, o["acc"])) + g * g
    return w - o["lr"] * g / (np.sqrt(s["sum"]) + o["eps"])


def rowwise(o, w, g, s):
    g = g + o["l2"] * w
    s["sum"] = s.get("sum", o["acc"]) + np.mean(g * g)
    return w - o["lr"] * g / (np.sqrt(s["sum"]) + o["eps"])


def adam(o, w, g, s):  # Kingma and Ba 2015, algorithm 1
    g = g + o["l2"] * w
    s["n"] = s.get("n", 0) + 1
    s["m"] = o["b1"] * s.get("m", 0) + (1 - o["b1"]) * g
    s["v"] = o["b2"] * s.get("v", 0) + (1 - o["b2"]) * g * g
    return w - o["lr"] * (s["m"] / (1 - o["b1"] ** s["n"])) / (np.sqrt(s["v"] / (1 - o["b2"] ** s["n"])) + o["eps"])


def ftrl(o, w, g, s):  # McMahan et al. 2013, algorithm 1; z starts so that its closed form gives the first values
    if "z" not in s:
        s["n"] = np.zeros_like(w)
        s["z"] = np.where(w == 0, 0, -w * (o["beta"] / o["lr"] + o["l2"]) - np.sign(w) * o["l1"])
    sigma = (np.sqrt(s["n"] + g * g) - np.sqrt(s["n"])) / o["lr"]
    s["z"] += g - sigma * w
    s["n"] += g * g
    return np.where(np.abs(s["z"]) <= o["l1"], 0, -(s["z"] - np.sign(s["z"]) * o["l1"]) / ((o["beta"] + np.sqrt(s["n"])) / o["lr"] + o["l2"]))


KINDS = [("sgd", sgd), ("adagrad", adagrad), ("rowwise-adagrad", rowwise), ("adam", adam), ("ftrl", ftrl)]
rng = np.random.default_rng(7)
STEPS, worst = 200, 0.0
for kind, (name, step) in enumerate(KINDS):
    for dim in (1, 5, 16, 17, 64, 100):
        for lr, l1, l2 in ((0.05, 0.02, 0.001), (0.3, 0.0, 0.0)):
            o = {"lr": lr, "eps": 1e-8, "acc": 0.1, "b1": 0.9, "b2": 0.999, "l1": l1, "l2": l2, "beta": 1.0}
            o = {k: float(np.float32(v)) for k, v in o.items()}
            w = rng.normal(size=dim).astype(np.float32)
            gradients = rng.normal(size=(STEPS, dim)).astype(np.float32)
            gradients[rng.random(gradients.shape) < 0.2] = 0
            args = [str(kind), str(dim), str(STEPS)] + [repr(o[k]) for k in ("lr", "eps", "acc", "b1", "b2", "l1", "l2", "beta")]
            out = subprocess.run([os.path.join(ROOT, BUILD, "optimizer-trace")] + args, input=w.tobytes() + gradients.tobytes(), capture_output=True, check=True).stdout
            got = np.frombuffer(out, np.float32).reshape(STEPS, dim)
            state, want = {}, w.astype(np.float64)
            for i in range(STEPS):
                want = step(o, want, gradients[i].astype(np.float64), state)
                error = np.max(np.abs(got[i] - want) / (1 + np.abs(want)))
                worst = max(worst, float(error))
                assert error < 5e-5, f"{name} dim {dim} step {i + 1}: off by {error:.2g}"
print(f"figure {len(KINDS)} optimizers, 6 dimensions, {STEPS} steps: at most {worst:.1e} from NumPy's float64")
