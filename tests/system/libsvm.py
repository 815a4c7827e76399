"""libsvm files with values. A logistic regression on a sparse file finds what Newton's method finds on the same rows, by weighted ids and by numeric columns of ids;
its served logit is b + w.x for any x; values that nobody would read end the job with a line that says what to do."""
import math
import os
import random
import tempfile
from cluster import Cluster

IDS = 12
JOB = """apiVersion: pinion/v1
kind: TrainingJob
metadata: {{name: libsvm}}
spec:
  data:
    train: {{format: libsvm, uri: "{dir}/train"{columns}}}
    test: {{format: libsvm, uri: "{dir}/test"{columns}}}
    shuffle: {{buffer: 10000, seed: 3}}
  features:
{features}
  tables: {{defaults: {{optimizer: {{name: adam, lr: 0.05, schedule: {{shape: cosine, steps: 600, floor: 0.001}}}}, init: zero}}}}
  model: {{name: lr}}
  optimizer: {{name: adam, lr: 0.05, schedule: {{shape: cosine, steps: 600, floor: 0.001}}}}
  training: {{batchSize: 400, epochs: 60, seed: 5, dataShards: 1, consistency: {{mode: sync}}}}
  publish: {{model: {name}, storage: float32}}
"""
draw = random.Random(4)
true = [draw.gauss(0, 1) for _ in range(IDS)]


def make(n):
    """Rows {id: value}, a third of the values there; one row in fifty has none."""
    rows = []
    for _ in range(n):
        x = {i: round(draw.choice((1, draw.gauss(0, 2))), 3) for i in range(IDS) if draw.random() < 1 / 3} if draw.random() > 0.02 else {}
        z = 0.5 + sum(true[i] * v for i, v in x.items())
        rows.append((int(draw.random() < 1 / (1 + math.exp(-z))), x))
    return rows


def solve(a, b):
    n = len(b)
    m = [row[:] + [y] for row, y in zip(a, b)]
    for i in range(n):
        p = max(range(i, n), key=lambda r: abs(m[r][i]))
        m[i], m[p] = m[p], m[i]
        for r in range(n):
            if r != i:
                f = m[r][i] / m[i][i]
                m[r] = [x - f * y for x, y in zip(m[r], m[i])]
    return [m[i][n] / m[i][i] for i in range(n)]


def newton(rows):
    """The weights of least log loss, the bias last."""
    w = [0.0] * (IDS + 1)
    for _ in range(12):
        g, h = [0.0] * (IDS + 1), [[0.0] * (IDS + 1) for _ in range(IDS + 1)]
        for y, x in rows:
            x = {**x, IDS: 1.0}
            p = 1 / (1 + math.exp(-sum(w[i] * v for i, v in x.items())))
            for i, v in x.items():
                g[i] += (p - y) * v
                for k, u in x.items():
                    h[i][k] += p * (1 - p) * v * u
        w = [a - b for a, b in zip(w, solve(h, g))]
    return w


def auc(rows, w):
    """Ties (rows without any value) count half."""
    z = [(w[IDS] + sum(w[i] * v for i, v in x.items()), y) for y, x in rows]
    up, down = ([a for a, y in z if y == label] for label in (1, 0))
    return sum((a > b) + 0.5 * (a == b) for a in up for b in down) / (len(up) * len(down))


def logit(p):
    return math.log(p / (1 - p))


train, test = make(4000), make(2000)
best = newton(train)
with tempfile.TemporaryDirectory() as d, Cluster(ps=2, workers=1, serving=1) as c:
    for name, rows in (("train", train), ("test", test)):
        with open(os.path.join(d, name), "w") as f:
            f.writelines(f"{'+1' if y else '-1'} " + " ".join(f"{i}:{v:g}" for i, v in x.items()) + "\n" for y, x in rows)
    ways = {"weighted": ("", "    - {name: features, type: multi, weighted: true}"),
            "numbers": (f", columns: [{', '.join(f'{i}=x{i}' for i in range(1, IDS))}]",
                        "\n".join(f"    - {{name: x{i}, type: numeric}}" for i in range(1, IDS)) + "\n    - {name: features, type: multi, weighted: true}")}
    for name, (columns, features) in ways.items():
        done = c.wait(c.submit(JOB.format(dir=d, columns=columns, features=features, name=name)), 120)
        assert done["state"] == "SUCCEEDED", done
        asked = [{}] + [{i: 1} for i in range(IDS)] + [x for _, x in test[:100]] + [{3: -1000, 5: 0.001, 99: 7}]
        if name == "weighted":
            inputs = {"features": ["|".join(f"{i}:{v:g}" if v != 1 else str(i) for i, v in x.items()) for x in asked]}
        else:
            inputs = {f"x{i}": [f"{x.get(i, 0):g}" for x in asked] for i in range(1, IDS)}
            inputs["features"] = [f"0:{x[0]:g}" if 0 in x else "" for x in asked]
        z = [logit(min(max(p, 1e-30), 1 - 1e-7)) for p in c.scores(name, inputs)]
        w = [z[1 + i] - z[0] for i in range(IDS)] + [z[0]]
        off = max(abs(a - b) for a, b in zip(w, best))
        print(f"figure {name}: weights at most {off:.4f} from Newton's, test AUC {done['test_auc']:.4f}, his {auc(test, best):.4f}")
        assert off < 0.03, (w, best)
        assert abs(done["test_auc"] - auc(test, best)) < 0.002, done
        for x, got in list(zip(asked, z))[1 + IDS:-1]:
            wanted = w[IDS] + sum(w[i] * v for i, v in x.items())
            assert abs(wanted) > 8 or abs(got - wanted) < 1e-2, (x, got, wanted)  # a float near 1 says little of its logit
        assert abs(auc(test, w) - done["test_auc"]) < 1e-4, (auc(test, w), done)

    failed = c.wait(c.submit(JOB.format(dir=d, columns="", features="    - {name: features, type: multi}", name="none")), 60)
    assert failed["state"] == "FAILED" and "weighted: true" in str(failed), failed
