"""distill.py [--seeds N] [--folds K] [--set WEIGHT,TEMPERATURE]... [--change OLD=>NEW]...: distillation on Frappe. Trains and publishes the teacher (docs/jobs/frappe-deepfm.yaml), lets a serving
replica score the student's training rows (the positive ones and two negatives of each, drawn here once), writes them with the teacher's logits, and trains
docs/jobs/frappe-student.yaml on that file, with and without its teacher, over the same seeds. With --folds K (2 or more) a row is scored by a teacher that did not see it: positive
row i is of fold i % K, and of K teachers each is trained without one fold (its validation and negatives are as before) and scores that fold's rows."""
import csv
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
from cluster import Cluster, ROOT, data, http

COLUMNS = "user item daytime weekday isweekend homework cost weather country city".split()
folder, rest = data("frappe"), sys.argv[1:]
if not folder:
    sys.exit("no ../shared/data/frappe")
seeds = int(rest[rest.index("--seeds") + 1]) if "--seeds" in rest else 5
sets = [tuple(map(float, rest[i + 1].split(","))) for i, word in enumerate(rest) if word == "--set"] or [(0.5, 1.0)]
folds = int(rest[rest.index("--folds") + 1]) if "--folds" in rest else 1
changes = [rest[i + 1].split("=>") for i, word in enumerate(rest) if word == "--change"]


def job(name):
    with open(os.path.join(ROOT, "docs", "jobs", name + ".yaml")) as f:
        return f.read()


def lines(name):
    text = subprocess.run(["zstd", "-dcq", os.path.join(folder, name + ".zst")], capture_output=True, text=True, check=True).stdout
    return [[p.split(":")[0] for p in line.split()] for line in text.splitlines()]


def training_rows():
    positives = [r[1:] for r in lines("frappe.train-positives.libfm")]
    seen = {(r[1], r[2]) for name in ("train-positives", "validation", "test") for r in lines(f"frappe.{name}.libfm") if r[0] == "1"}
    items, draw, rows = sorted({r[1] for r in positives}), random.Random(1), []
    for r in positives:
        rows.append(["1"] + r)
        for _ in range(2):
            item = draw.choice(items)
            while (r[0], item) in seen:
                item = draw.choice(items)
            rows.append(["0", r[0], item] + r[2:])
    return rows


def logits(cluster, model, rows):
    url, out = cluster.info["serving"][0]["http"], []
    for first in range(0, len(rows), 4000):
        part = rows[first:first + 4000]
        inputs = [{"name": name, "shape": [len(part), 1], "datatype": "BYTES", "data": [r[i + 1] for r in part]} for i, name in enumerate(COLUMNS)]
        end, status = time.time() + 20, 0
        while time.time() < end and status != 200:
            status, answer = http("POST", f"{url}/v2/models/{model}/infer", {"inputs": inputs})
            time.sleep(0 if status == 200 else 0.05)
        assert status == 200, answer
        values = {o["name"]: o["data"] for o in answer["outputs"]}
        scores = dict(zip(values["index"], values["score"])) if "index" in values else dict(enumerate(values["score"]))
        for i in range(len(part)):
            p = min(max(scores[i], 1e-7), 1 - 1e-7)
            out.append(math.log(p / (1 - p)))
    return out


tmp = tempfile.mkdtemp(prefix="pinion-distill-")
try:
    with Cluster(ps=2, workers=2, serving=1) as c:
        rows, scores = training_rows(), {}
        for fold in range(folds):
            model, text = f"frappe-teacher{fold}", job("frappe-deepfm").replace("model: frappe-deepfm", f"model: frappe-teacher{fold}")
            if folds > 1:
                part = os.path.join(tmp, f"without{fold}.libfm")
                with open(part, "w") as f:
                    f.writelines(" ".join(["1"] + [v + ":1" for v in r[1:]]) + "\n" for i, r in enumerate(rows) if r[0] == "1" and i // 3 % folds != fold)
                text = text.replace('uri: "${PINION_DATA}/frappe.train-positives.libfm"', f'uri: "{part}"', 1)
            done = c.wait(c.submit(text.replace("${PINION_DATA}", folder)), 900)
            assert done["state"] == "SUCCEEDED", done
            print(f"teacher {fold}: test AUC {done['test_auc']:.5f}, validation AUC {done['validation_auc']:.5f}", flush=True)
            mine = [i for i in range(len(rows)) if i // 3 % folds == fold]  # a positive row and its two negatives are of one fold
            scores.update(zip(mine, logits(c, model, [rows[i] for i in mine])))
        with open(os.path.join(tmp, "frappe-taught.csv"), "w", newline="") as f:
            out = csv.writer(f)
            out.writerow(["label", *COLUMNS, "teacher"])
            out.writerows([*r, f"{z:.6g}"] for r, z in zip(rows, (scores[i] for i in range(len(rows)))))
        text = job("frappe-student").replace("${PINION_DATA}/frappe-taught.csv", tmp + "/frappe-taught.csv").replace("${PINION_DATA}", folder)
        for old, new in changes:
            assert old in text, f"the job has no {old}"
            text = text.replace(old, new)
        taught = ", distill: {column: teacher, weight: 0.5, temperature: 1}"
        assert taught in text
        for weight, temperature in [(0, 0), *sets]:
            runs = []
            for seed in range(1, seeds + 1):
                own = text.replace("seed: 1", f"seed: {seed}").replace(taught, taught.replace("0.5", str(weight)).replace("e: 1", f"e: {temperature}") if weight > 0 else "")
                done = c.wait(c.submit(own), 600)
                assert done["state"] == "SUCCEEDED", done
                runs.append((done["test_auc"], done["test_logloss"], done["validation_auc"], done["best_epoch"]))
            auc, loss, validation, epoch = zip(*runs)
            print(f"figure student {'taught, weight %g, temperature %g' % (weight, temperature) if weight > 0 else 'alone'}: test AUC {statistics.mean(auc):.5f} +- "
                  f"{statistics.stdev(auc) if seeds > 1 else 0:.5f}, log loss {statistics.mean(loss):.4f}, validation AUC {statistics.mean(validation):.5f}, best epochs {epoch}", flush=True)
finally:
    shutil.rmtree(tmp, ignore_errors=True)
