#!/usr/bin/env python3
"""A stream (spec.data.stream) on ml-100k in time order: windows hold the rows of their stretch, scored before they are learned; figures by segment, exact
where scores are known; metrics and plot; a worker that is killed; the guard that stops the trainer when clicks stop coming."""
import csv
import math
import os
import subprocess
import tempfile
from cluster import Cluster, data, npy, run, skip

if data("ml-100k") is None:
    skip("ml-100k is not there")

JOB = """
apiVersion: pinion/v1
kind: TrainingJob
metadata: {name: stream}
spec:
  data:
    train: {format: csv, uri: "%s", label: liked}
    stream: {window: %d, segment: gender%s}
  features:
    - {name: user, type: categorical}
    - {name: item, type: categorical}
  tables: {defaults: {optimizer: {name: adagrad, lr: 0.05}, init: zero}}
  model: {name: lr}
  optimizer: {name: adam, lr: 0.001}
  training: {batchSize: %d, dataShards: 2, seed: 1, consistency: {mode: %s}}
  checkpoint: {every: 1s, keep: 2}
"""


def text(name):
    return subprocess.run(["zstd", "-dcq", os.path.join(data("ml-100k"), name + ".zst")], capture_output=True, check=True).stdout.decode("latin-1").splitlines()


gender = {f[0]: f[2] for f in (line.split("|") for line in text("u.user"))}
ratings = sorted((line.split("\t") for line in text("u.data")), key=lambda r: int(r[3]))
rows = [(r[0], r[1], gender[r[0]], int(int(r[2]) >= 4)) for r in ratings]


def write(path, rows):
    with open(path, "w") as f:
        f.write("user,item,gender,liked\n")
        f.writelines(f"{u},{i},{g},{y}\n" for u, i, g, y in rows)


def figures(rows, logit):
    """What rows are worth by known scores, as a window says it; logit(row)."""
    scored = sorted((logit(r), r[3]) for r in rows)
    p = [1 / (1 + math.exp(-z)) for z, _ in scored]
    n, positives, below, pairs = len(scored), sum(y for _, y in scored), 0, 0
    for z in sorted({z for z, _ in scored}):
        here = [y for x, y in scored if x == z]
        pairs += sum(here) * (below + (len(here) - sum(here)) / 2)
        below += len(here) - sum(here)
    rate = positives / n
    loss = -sum(math.log(q if y else 1 - q) for q, (_, y) in zip(p, scored)) / n
    return {"auc": pairs / (positives * below), "logloss": loss, "ne": loss / -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate)), "calibration": sum(p) / positives}


def worth(w, rows, logit):
    """The window's figures, and each segment's, are those of these rows by these scores."""
    for name, said in [("", w), *w["segments"].items()]:
        for k, v in figures([r for r in rows if name in ("", r[2])], logit).items():
            assert abs(said[k] - v) < (1e-9 if k == "auc" else 2e-6), (w["window"], name, k, said[k], v)


def exact(windows, rows, window):
    """Rows and label rates are those of the stretch, for all and for each segment; the segments' sums make the window's."""
    for w in windows:
        part = rows[w["window"] * window:(w["window"] + 1) * window]
        assert w["rows"] == len(part) and abs(w["label_rate"] - sum(r[3] for r in part) / len(part)) < 1e-12, w
        for s in ("M", "F"):
            of = [r for r in part if r[2] == s]
            assert w["segments"][s]["rows"] == len(of) and abs(w["segments"][s]["label_rate"] - sum(r[3] for r in of) / len(of)) < 1e-12, (s, w)
        of = w["segments"].values()
        assert sum(s["rows"] for s in of) == w["rows"], w
        assert abs(sum(s["logloss"] * s["rows"] for s in of) / w["rows"] - w["logloss"]) < 1e-9, w
        assert abs(sum(s["calibration"] * s["label_rate"] * s["rows"] for s in of) / (w["label_rate"] * w["rows"]) - w["calibration"]) < 1e-9, w
        for s in (w, *of):
            entropy = -(s["label_rate"] * math.log(s["label_rate"]) + (1 - s["label_rate"]) * math.log(1 - s["label_rate"]))
            assert abs(s["ne"] - s["logloss"] / entropy) < 1e-9 and 0 <= s["auc"] <= 1, (s, w)


with tempfile.TemporaryDirectory() as folder, Cluster(ps=1, workers=2, serving=0) as c:
    path = os.path.join(folder, "ratings.csv")
    write(path, rows)

    # the first window is one batch of each of the two producers, and in sync both score it before anything is learned: every score is 0.5
    id = c.submit(JOB % (path, 2000, "", 1000, "sync"))
    done = c.wait(id, 120)
    assert done["state"] == "SUCCEEDED", done
    first = c.job(id)["stream"]
    exact(first, rows, 2000)
    assert [w["window"] for w in first] == list(range(50)) and first[-1]["samples"] == 100000, first
    worth(first[0], rows[:2000], lambda r: 0)
    assert all(w["auc"] == 0.5 for w in (first[0], *first[0]["segments"].values())), first[0]
    late = sum(w["auc"] for w in first[-10:]) / 10
    assert late > 0.6, late

    # a model that learns nothing and begins with known weights of items, each in the middle of a bin of the AUC's histogram: all figures are known
    def weight(item):
        return (int(item) % 9 - 4) / 4 + 1 / 128
    items = sorted({int(r[1]) for r in rows})
    npy(os.path.join(folder, "items.npy"), "i8", (len(items),), items)
    npy(os.path.join(folder, "weights.npy"), "f4", (len(items), 1), [weight(i) for i in items])
    still = JOB % (path, 2000, "", 250, "async")
    for old, new in (("{name: adagrad, lr: 0.05}", "{name: sgd, lr: 0}"), ("{name: adam, lr: 0.001}", "{name: sgd, lr: 0}"), ("{name: item, type: categorical}", "{name: item, type: categorical, table: items}"),
                     ("init: zero}}", f'init: zero}}, items: {{import: {{feature: item, keys: "{folder}/items.npy", rows: "{folder}/weights.npy"}}}}}}')):
        assert still.count(old) == 1, old
        still = still.replace(old, new)
    done = c.wait(c.submit(still), 120)
    assert done["state"] == "SUCCEEDED" and len(done["stream"]) == 50, done
    exact(done["stream"], rows, 2000)
    for w in done["stream"]:
        worth(w, rows[w["window"] * 2000:(w["window"] + 1) * 2000], lambda r: weight(r[1]))

    # the command and /metrics show the same
    out = os.path.join(folder, "stream.csv")
    assert run("plot", id, "--out", out, "--dir", c.dir)[0] == 0
    with open(out) as f:
        points = [r for r in csv.DictReader(f) if r["part"] == "stream"]
    assert len(points) == 150 and {r["segment"] for r in points} == {"", "M", "F"}, points[:4]
    assert [float(r["auc"]) for r in points if r["segment"] == ""] == [round(w["auc"], 6) for w in first]
    svg = os.path.join(folder, "stream.svg")
    assert run("plot", id, "--out", svg, "--dir", c.dir)[0] == 0 and "AUC of the stream" in open(svg).read()
    assert run("plot", id, "--tensorboard", folder, "--dir", c.dir)[0] == 0  # plot.py reads such files to the last byte
    for name, n in (("stream", 1 + 5 * 50), ("stream/M", 1 + 5 * 50), ("stream/F", 1 + 5 * 50)):
        with open(os.path.join(folder, id, name, "events.out.tfevents.0000000000.pinion"), "rb") as f:
            data, at, found = f.read(), 0, 0
        while at < len(data):
            at, found = at + 16 + int.from_bytes(data[at:at + 8], "little"), found + 1
        assert (at, found) == (len(data), n), (name, at, found)

    # a worker dies on the way: windows stay whole, in order, each once, but for the one in which its checkpoint fell
    id = c.submit(JOB % (path, 2000, "", 4, "async"))
    c.wait_running(id, lambda job: len(job.get("stream", [])) >= 5)
    c.kill("worker-0")
    status, seen = c.api("GET", "/metrics")  # of the newest window, as long as the job has not ended
    assert status == 200, seen
    done = c.wait(id, 120)
    assert done["state"] == "SUCCEEDED" and done["restarts"] > 0, done
    killed = done["stream"]
    assert [w["window"] for w in killed] == list(range(50)), killed
    short = [w for w in killed if w["rows"] < 2000]
    assert len(short) <= 1, short
    exact([w for w in killed if w["rows"] == 2000], rows, 2000)
    assert f'pinion_stream_ne{{job="{id}",segment="F"}}' in seen and f'pinion_stream_auc{{job="{id}",segment=""}}' in seen, seen

    # clicks stop coming in the middle: the trainer stops before it has learned that nobody likes anything
    broken = rows[:50000] + [(u, i, g, 0) for u, i, g, y in rows[50000:]]
    write(path, broken)
    id = c.submit(JOB % (path, 2000, ", guard: {labelRate: 3, after: 5}", 100, "async"))
    done = c.wait(id, 120)
    assert done["state"] == "FAILED" and "stream.guard: the label rate of window 25 is 0," in done["reason"], done
    assert c.job(id)["stream"][-1]["window"] == 25
    id = c.submit(JOB % (path, 2000, "", 100, "async"))  # the same without a guard
    assert c.wait(id, 120)["state"] == "SUCCEEDED"

    # the wrong column is named
    id = c.submit(JOB.replace("segment: gender", "segment: sex") % (path, 2000, "", 100, "async"))
    done = c.wait(id, 120)
    assert done["state"] == "FAILED" and 'no column "sex"' in done["reason"], done
    print(f"figure stream of ml-100k in time order: AUC of the first windows {sum(w['auc'] for w in first[1:11]) / 10:.4f}, of the last {late:.4f}; "
          f"{len(short)} of 50 windows short behind a killed worker; guard stopped at window 25 of 50")
