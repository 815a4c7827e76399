#!/usr/bin/env python3
"""The server's optimizers beside a second implementation in NumPy (float64), and beside PyTorch's own where that can be imported: the same rows after every step.
Skipped where NumPy is not there."""
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


def momentum(o, w, g, s):  # Polyak 1964
    g = g + o["l2"] * w
    s["v"] = o["momentum"] * s.get("v", 0) + g
    return w - o["lr"] * s["v"]


def nesterov(o, w, g, s):  # Sutskever et al. 2013
    g = g + o["l2"] * w
    s["v"] = o["momentum"] * s.get("v", 0) + g
    return w - o["lr"] * (g + o["momentum"] * s["v"])


def adamw(o, w, g, s):  # Loshchilov and Hutter 2019, algorithm 2
    return adam({**o, "l2": 0.0}, w, g, s) - o["lr"] * o["l2"] * w


try:
    import torch
    TORCH = {"sgd": lambda p, o: torch.optim.SGD(p, lr=o["lr"], weight_decay=o["l2"]),
             "adagrad": lambda p, o: torch.optim.Adagrad(p, lr=o["lr"], weight_decay=o["l2"], initial_accumulator_value=o["acc"], eps=o["eps"]),
             "adam": lambda p, o: torch.optim.Adam(p, lr=o["lr"], weight_decay=o["l2"], betas=(o["b1"], o["b2"]), eps=o["eps"]),
             "momentum": lambda p, o: torch.optim.SGD(p, lr=o["lr"], weight_decay=o["l2"], momentum=o["momentum"]),
             "nesterov": lambda p, o: torch.optim.SGD(p, lr=o["lr"], weight_decay=o["l2"], momentum=o["momentum"], nesterov=True),
             "adamw": lambda p, o: torch.optim.AdamW(p, lr=o["lr"], weight_decay=o["l2"], betas=(o["b1"], o["b2"]), eps=o["eps"])}
except ImportError:
    TORCH = {}


def beside_torch(name, o, w, gradients, got):
    """The largest distance from torch.optim's class of that name, in float64."""
    p = torch.nn.Parameter(torch.tensor(w.astype(np.float64)))
    optimizer, far = TORCH[name]([p], o), 0.0
    for i, g in enumerate(gradients):
        p.grad = torch.tensor(g.astype(np.float64))
        optimizer.step()
        want = p.detach().numpy()
        far = max(far, float(np.max(np.abs(got[i] - want) / (1 + np.abs(want)))))
    return far


KINDS = [("sgd", sgd), ("adagrad", adagrad), ("rowwise-adagrad", rowwise), ("adam", adam), ("ftrl", ftrl), ("momentum", momentum), ("adamw", adamw), ("nesterov", nesterov)]
rng = np.random.default_rng(7)
STEPS, worst, worst_torch = 200, 0.0, 0.0
for kind, (name, step) in enumerate(KINDS):
    for dim in (1, 5, 16, 17, 64, 100):
        for lr, l1, l2 in ((0.05, 0.02, 0.001), (0.3, 0.0, 0.0)):
            o = {"lr": lr, "eps": 1e-8, "acc": 0.1, "b1": 0.9, "b2": 0.999, "l1": l1, "l2": l2, "beta": 1.0, "momentum": 0.9}
            o = {k: float(np.float32(v)) for k, v in o.items()}
            w = rng.normal(size=dim).astype(np.float32)
            gradients = rng.normal(size=(STEPS, dim)).astype(np.float32)
            gradients[rng.random(gradients.shape) < 0.2] = 0
            args = [str(5 if name == "nesterov" else kind), str(dim), str(STEPS)] + [repr(o[k]) for k in ("lr", "eps", "acc", "b1", "b2", "l1", "l2", "beta", "momentum")] + [str(int(name == "nesterov"))]
            out = subprocess.run([os.path.join(ROOT, BUILD, "optimizer-trace")] + args, input=w.tobytes() + gradients.tobytes(), capture_output=True, check=True).stdout
            got = np.frombuffer(out, np.float32).reshape(STEPS, dim)
            state, want = {}, w.astype(np.float64)
            for i in range(STEPS):
                want = step(o, want, gradients[i].astype(np.float64), state)
                error = np.max(np.abs(got[i] - want) / (1 + np.abs(want)))
                worst = max(worst, float(error))
                assert error < 5e-5, f"{name} dim {dim} step {i + 1}: off by {error:.2g}"
            if name in TORCH:
                error = beside_torch(name, o, w, gradients, got)
                worst_torch = max(worst_torch, error)
                assert error < 5e-5, f"{name} dim {dim}: off PyTorch by {error:.2g}"
print(f"figure {len(KINDS)} optimizers, 6 dimensions, {STEPS} steps: at most {worst:.1e} from NumPy's float64" + (f", {len(TORCH)} of them at most {worst_torch:.1e} from PyTorch's" if TORCH else "; PyTorch cannot be imported"))
