"""distill.py frappe|criteo [--seeds N] [--folds K] [--unlabelled STEPS] [--set WEIGHT,TEMPERATURE]... [--change OLD=>NEW]... [--taught FILE]: distillation. Trains and publishes teachers, lets a serving
replica score the student's training rows, writes them with the mean of the teachers' logits, and trains the student on that file, with and without its teacher, over the same seeds.
  frappe   teacher docs/jobs/frappe-deepfm.yaml, student frappe-student.yaml; rows: the positive ones and two negatives of each, drawn here once
  criteo   teachers criteo-deepfm.yaml and criteo-gbdt-lr.yaml together, student criteo-student.yaml; rows: the 64,000 of train
With --folds K (2 or more) a row is scored by teachers that did not see it: rows are of K folds in turn (on Frappe positive rows, with their negatives), and of each teacher K are
trained, one without each fold, which score that fold's rows (their validation and negatives are as before).
--unlabelled STEPS (frappe): all K teachers together score every row, and further ones: for each positive row four more negatives and two rows without a label, its user and item in the context of
another row and of another row of the user; positive rows stand three times. The taught student learns .7 of the score and .3 of the label, where there is one, for STEPS steps of each data shard;
alone it has twice the steps of its job (its best), and then the same labelled rows and steps as when taught.
--taught FILE keeps the file with the logits there, and takes it from there when it exists."""
import csv
import math
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
from cluster import Cluster, ROOT, data

TASK = sys.argv[1] if len(sys.argv) > 1 else ""
if TASK not in ("frappe", "criteo"):
    sys.exit(__doc__)
COLUMNS = "user item daytime weekday isweekend homework cost weather country city".split() if TASK == "frappe" else [f"I{i}" for i in range(1, 14)] + [f"C{i}" for i in range(1, 27)]
TEACHERS = ["frappe-deepfm"] if TASK == "frappe" else ["criteo-deepfm", "criteo-gbdt-lr"]
EACH = 3 if TASK == "frappe" else 1  # rows that go together: a positive one and its negatives
CRITEO = "criteo_first80000_hashed.txt.zst"
folder, rest = data("frappe" if TASK == "frappe" else "criteo-sample"), sys.argv[2:]
if not folder:
    sys.exit(f"no ../shared/data for {TASK}")
seeds = int(rest[rest.index("--seeds") + 1]) if "--seeds" in rest else 5
sets = [tuple(map(float, rest[i + 1].split(","))) for i, word in enumerate(rest) if word == "--set"] or [(0.5, 1.0)]
folds = int(rest[rest.index("--folds") + 1]) if "--folds" in rest else 1
more = int(rest[rest.index("--unlabelled") + 1]) if "--unlabelled" in rest else 0
if more and TASK != "frappe":
    sys.exit("--unlabelled is for frappe: what a row without a label is must be said for each task")
kept = rest[rest.index("--taught") + 1] if "--taught" in rest else ""
changes = [rest[i + 1].split("=>") for i, word in enumerate(rest) if word == "--change"]


def job(name):
    with open(os.path.join(ROOT, "docs", "jobs", name + ".yaml")) as f:
        return f.read()


def lines(name):
    text = subprocess.run(["zstd", "-dcq", os.path.join(folder, name + ".zst")], capture_output=True, text=True, check=True).stdout
    return [[p.split(":")[0] for p in line.split()] for line in text.splitlines()]


def criteo_rows():
    """The rows of train as they stand in the file: the label, 13 numbers, 26 values, empty where missing."""
    text = subprocess.run(["zstd", "-dcq", os.path.join(folder, CRITEO)], capture_output=True, text=True, check=True).stdout
    return [line.split("\t") for line in text.split("\n")[:64000]]


def teacher(name, model, part, rows):
    """The teacher's job; `part`: a file to write the rows it may see into, None for all."""
    text = re.sub(r"publish: \{model: [\w-]+", f"publish: {{model: {model}", job(name))
    if part is not None and TASK == "frappe":
        with open(part, "w") as f:
            f.writelines(" ".join(["1"] + [v + ":1" for v in r[1:]]) + "\n" for r in rows if r[0] == "1")
        text = text.replace('uri: "${PINION_DATA}/frappe.train-positives.libfm"', f'uri: "{part}"', 1)
    elif part is not None:
        with open(part, "w") as f:
            f.writelines("\t".join(r) + "\n" for r in rows)
        text = text.replace('uri: "${PINION_DATA}/' + CRITEO + '", rows: 64000', f'uri: "{part}"', 1)
    assert model in text and (part is None or part in text), name
    return text.replace("${PINION_DATA}", folder)


class Negatives:
    """Draws apps that the user of a positive row never had, in the row's context."""

    def __init__(self, positives, seed):
        self.seen = {(r[1], r[2]) for name in ("train-positives", "validation", "test") for r in lines(f"frappe.{name}.libfm") if r[0] == "1"}
        self.items, self.draw = sorted({r[1] for r in positives}), random.Random(seed)

    def of(self, r):
        item = self.draw.choice(self.items)
        while (r[0], item) in self.seen:
            item = self.draw.choice(self.items)
        return ["0", r[0], item] + r[2:]


def training_rows():
    positives = [r[1:] for r in lines("frappe.train-positives.libfm")]
    negatives, rows = Negatives(positives, 1), []
    for r in positives:
        rows += [["1"] + r, negatives.of(r), negatives.of(r)]
    return rows


def further_rows():
    """(rows with a label, rows without one: "" in its place), for --unlabelled."""
    positives = [r[1:] for r in lines("frappe.train-positives.libfm")]
    negatives, mine = Negatives(positives, 2), {}
    for r in positives:
        mine.setdefault(r[0], []).append(r)
    labelled, unlabelled = [], []
    for r in positives:
        labelled += [negatives.of(r) for _ in range(4)]
        unlabelled += [[""] + r[:2] + negatives.draw.choice(other)[2:] for other in (positives, mine[r[0]])]
    return labelled, unlabelled


def logits(cluster, model, rows):
    out = []
    for first in range(0, len(rows), 4000):
        part = rows[first:first + 4000]
        scores = cluster.scores(model, {name: [r[i + 1] for r in part] for i, name in enumerate(COLUMNS)})
        for i in range(len(part)):
            p = min(max(scores[i], 1e-7), 1 - 1e-7)
            out.append(math.log(p / (1 - p)))
    return out


def trained(c, name, fold, rows):
    """Trains and publishes teacher `fold`, which sees those of `rows` that are not of that fold. Returns its model's name."""
    model, seen = f"{name}-{fold}", [r for i, r in enumerate(rows) if i // EACH % folds != fold]
    done = c.wait(c.submit(teacher(name, model, os.path.join(tmp, model) if folds > 1 else None, seen)), 900)
    assert done["state"] == "SUCCEEDED", done
    print(f"teacher {model}: test AUC {done['test_auc']:.5f}, validation AUC {done['validation_auc']:.5f}", flush=True)
    return model


def teach(c, file):
    """Trains the teachers and writes the student's rows with their logits."""
    rows = training_rows() if TASK == "frappe" else criteo_rows()
    scores = [0.0] * len(rows)
    for name in TEACHERS:
        for fold in range(folds):
            mine = [i for i in range(len(rows)) if i // EACH % folds == fold]
            model = trained(c, name, fold, rows)
            for i, z in zip(mine, logits(c, model, [rows[i] for i in mine])):
                scores[i] += z / len(TEACHERS)
    write(file, rows, scores)


def write(file, rows, scores):
    with open(file, "w", newline="") as f:
        out = csv.writer(f)
        out.writerow(["label", *COLUMNS, "teacher"])
        out.writerows([*r, f"{z:.6g}"] for r, z in zip(rows, scores))


def teach_more(c, file, labels_file):
    """--unlabelled: `file` has rows and targets of the taught student, `labels_file` the labelled ones of them."""
    first = training_rows()
    labelled, unlabelled = further_rows()
    rows = first + labelled
    every = rows + unlabelled
    scores = [0.0] * len(every)
    for fold in range(folds):
        for i, z in enumerate(logits(c, trained(c, "frappe-deepfm", fold, first), every)):
            scores[i] += z / folds
    def target(label, z):
        q = 1 / (1 + math.exp(-z))
        p = min(max(q if label == "" else 0.3 * float(label) + 0.7 * q, 1e-6), 1 - 1e-6)
        return math.log(p / (1 - p))
    times = [3 if r[0] == "1" else 1 for r in every]
    write(file, [[r[0] or "0"] + r[1:] for r, n in zip(every, times) for _ in range(n)], [target(r[0], z) for r, z, n in zip(every, scores, times) for _ in range(n)])
    write(labels_file, [r for r, n in zip(rows, times) for _ in range(n)], [0.0] * sum(times[:len(rows)]))
    return sum(times), sum(times[:len(rows)])


def steps_of(text, steps, n_rows):
    """The job with so many steps of each of its two data shards."""
    epochs = max(1, round(steps * 2 * 2048 / n_rows))
    return text.replace("steps: 800", f"steps: {steps}").replace("epochs: 16", f"epochs: {epochs}").replace("patience: 2", "patience: 4")


def run_student(c, name, text):
    runs = []
    for seed in range(1, seeds + 1):
        done = c.wait(c.submit(text.replace("seed: 1", f"seed: {seed}")), 900)
        assert done["state"] == "SUCCEEDED", done
        runs.append((done["test_auc"], done["test_logloss"], done["validation_auc"], done["best_epoch"]))
    auc, loss, validation, epoch = zip(*runs)
    print(f"figure student {name}: test AUC {statistics.mean(auc):.5f} +- {statistics.stdev(auc) if seeds > 1 else 0:.5f}, log loss {statistics.mean(loss):.4f}, "
          f"validation AUC {statistics.mean(validation):.5f}, best epochs {epoch}", flush=True)


TAUGHT = ", distill: {column: teacher, weight: 0.5, temperature: 1}"


def student(file):
    text = job(f"{TASK}-student").replace(f"${{PINION_DATA}}/{TASK}-taught.csv", file).replace("${PINION_DATA}", folder)
    for old, new in changes:
        assert old in text, f"the job has no {old}"
        text = text.replace(old, new)
    assert TAUGHT in text
    return text


def unlabelled(c):
    files = [os.path.join(tmp, name) for name in ("frappe-taught.csv", "frappe-labelled.csv", "frappe-rows.csv")]
    n_taught, n_labelled = teach_more(c, files[0], files[1])
    rows = training_rows()
    write(files[2], rows, [0.0] * len(rows))
    run_student(c, f"alone, {2 * 800} steps", steps_of(student(files[2]).replace(TAUGHT, ""), 2 * 800, len(rows)))
    run_student(c, f"alone, labelled rows as when taught, {more} steps", steps_of(student(files[1]).replace(TAUGHT, ""), more, n_labelled))
    run_student(c, f"taught on rows without labels, too, {more} steps", steps_of(student(files[0]).replace(TAUGHT, TAUGHT.replace("0.5", "1")), more, n_taught))


tmp = tempfile.mkdtemp(prefix="pinion-distill-")
try:
    with Cluster(ps=2, workers=2, serving=1) as c:
        if more:
            unlabelled(c)
        else:
            taught_file = os.path.join(tmp, f"{TASK}-taught.csv")
            if os.path.exists(kept):
                shutil.copyfile(kept, taught_file)
            else:
                teach(c, taught_file)
                if kept:
                    shutil.copyfile(taught_file, kept)
            text = student(taught_file)
            run_student(c, "alone", text.replace(TAUGHT, ""))
            for weight, temperature in sets:
                run_student(c, f"taught, weight {weight:g}, temperature {temperature:g}", text.replace(TAUGHT, TAUGHT.replace("0.5", str(weight)).replace("e: 1", f"e: {temperature}")))
finally:
    shutil.rmtree(tmp, ignore_errors=True)
