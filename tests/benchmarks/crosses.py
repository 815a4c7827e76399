"""crosses.py [--top N]: which pairs of columns say more together than apart, by the training rows of docs/jobs/criteo-deepfm.yaml alone; the list that its crosses were taken from. A hashed
logistic regression by Adagrad is trained five times on four fifths of the rows and scores the fifth left out. For each pair of columns each of its pairs of values then has a correction of the
logit, the residuals' sum over the scores' variance and a prior of 2, from nine tenths of the rows, and half of it is added on the tenth left out. Printed: by how much the log loss falls. Needs numpy."""
import itertools
import math
import os
import subprocess
import sys
import numpy as np
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
from cluster import data

folder, top = data("criteo-sample"), int(sys.argv[2]) if len(sys.argv) > 2 else 30
if not folder:
    sys.exit("no ../shared/data/criteo-sample")
lines = subprocess.run(["zstd", "-dcq", os.path.join(folder, "criteo_first80000_hashed.txt.zst")], stdout=subprocess.PIPE, check=True).stdout.decode().split("\n")[:64000]
rows = [line.split("\t") for line in lines]
names = [f"I{i}" for i in range(1, 14)] + [f"C{i}" for i in range(1, 27)]
y = np.array([float(r[0]) for r in rows])


def key(j, cell):
    """A number as criteoLog has it, all else as it is."""
    if j > 13 or cell == "":
        return cell
    x = float(cell)
    return f"l{math.floor(math.log(x) ** 2)}" if x > 2 else int(x)


columns = []
for j in range(1, 40):
    seen = {}
    columns.append(np.array([seen.setdefault(key(j, r[j]), len(seen)) for r in rows]))
sizes = [int(c.max()) + 1 for c in columns]
starts = np.cumsum([0] + sizes)
x = np.stack([c + s for c, s in zip(columns, starts)], 1)
draw = np.random.default_rng(0)
fold = draw.integers(0, 5, len(y))
p = np.zeros(len(y))
for f in range(5):
    train, left = np.where(fold != f)[0], np.where(fold == f)[0]
    w, squares, bias = np.zeros(starts[-1]), np.full(starts[-1], 1e-4), math.log(.29)
    for _ in range(2):
        draw.shuffle(train)
        for at in range(0, len(train), 256):
            b = train[at:at + 256]
            g = (1 / (1 + np.exp(-bias - w[x[b]].sum(1))) - y[b]) / len(b)
            keys, place = np.unique(x[b].ravel(), return_inverse=True)
            sums = np.bincount(place, np.repeat(g, 39)) + .0003 * w[keys]
            squares[keys] += sums * sums
            w[keys] -= .05 * sums / np.sqrt(squares[keys])
            bias -= .02 * g.sum()
    p[left] = 1 / (1 + np.exp(-bias - w[x[left]].sum(1)))


def loss(q):
    return -np.mean(y * np.log(q) + (1 - y) * np.log(1 - q))


residual, variance, logit, tenth, found = y - p, p * (1 - p), np.log(p / (1 - p)), draw.integers(0, 10, len(y)), []
for a, b in itertools.combinations(range(39), 2):
    if sizes[a] * sizes[b] > 3e7:
        continue  # nearly every row has a pair of its own
    _, pair = np.unique(columns[a] * sizes[b] + columns[b], return_inverse=True)
    n = int(pair.max()) + 1
    r, v = (np.bincount(pair * 10 + tenth, part, n * 10).reshape(n, 10) for part in (residual, variance))
    step = (r.sum(1)[pair] - r[pair, tenth]) / (v.sum(1)[pair] - v[pair, tenth] + 2)
    found.append((loss(p) - loss(1 / (1 + np.exp(-logit - step / 2))), names[a], names[b], n))
print(f"log loss of the regression, by folds: {loss(p):.5f}")
for gain, a, b, n in sorted(found, reverse=True)[:top]:
    print(f"{a} and {b}: {gain:.5f} ({n} pairs of values)")
