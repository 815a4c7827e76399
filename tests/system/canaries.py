"""An audit of private jobs from outside: canaries, each in the training rows or out of them by a coin. A real cluster trains and publishes; whoever may only ask the published model guesses which ones were
in, and from the number of right guesses follows a lower bound of epsilon (privacy/canary.h; Steinke, Nasr, Jagielski 2023). It must be below what the coordinator says was spent; and above it
with a worker that adds no noise and says nothing of it (common/mutant.h, 23), so that this test can fail.

    canaries.py [--long]     --long: more canaries, DP-AdaFEST with its noise too, and JSON lines for tests/bench"""
import csv
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import cluster
from cluster import BUILD, skip

LONG = "--long" in sys.argv
DELTA, CHANCE = 1e-6, 0.05
COPIES = 4  # a canary holds its key so many times: most of its gradient lies on its own row
ORDINARY = 400
JOB = """apiVersion: pinion/v1
kind: TrainingJob
metadata: {{name: {name}}}
spec:
  data: {{train: {{format: csv, uri: {file}, label: click}}}}
  features: [{{name: item, type: multi, separator: "|", maxLength: {copies}, pooling: sum, buckets: {buckets}}}]
  tables: {{defaults: {{optimizer: {{name: sgd, lr: 1}}, init: zero}}}}
  model: {{name: lr}}
  optimizer: {{name: adam, lr: 0.001}}
  training: {{batchSize: {batch}, epochs: 1, seed: 1, dataShards: 1, consistency: {{mode: sync}}}}
  privacy: {{rows: {rows}, epsilon: {epsilon}, delta: {delta}, clip: 1, {selection}, dataset: {name}}}
  publish: {{model: {name}, storage: float32}}
"""
SELECTIONS = {"dense": "selection: dense", "adafest": "selection: adafest, voteClip: 1, voteNoise: 12, threshold: 0.5"}


def ask(c, model, values):
    """What the published model says of each value, 1,000 in a request."""
    return [score for at in range(0, len(values), 1000) for score in c.scores(model, {"item": values[at:at + 1000]}, 30)]


def audit(c, folder, selection, m, epsilon, name):
    """(lower bound, epsilon spent, right guesses, guesses)."""
    coins = [random.SystemRandom().random() < 0.5 for _ in range(m)]
    canaries = ["|".join([f"canary{i}"] * COPIES) for i in range(m)]
    rows = [(1, text) for text, coin in zip(canaries, coins) if coin] + [(i % 2, f"item{i % 40}") for i in range(ORDINARY)]
    random.shuffle(rows)
    path = os.path.join(folder, name + ".csv")
    with open(path, "w", newline="") as f:
        csv.writer(f).writerows([("click", "item")] + rows)
    declared = ORDINARY + m // 2  # public: not how many came in
    # two steps at nearly full rate: whoever is in is in a batch (but for one in 400), and noise is as little as epsilon allows
    text = JOB.format(name=name, file=path, copies=COPIES, buckets=128 * m, batch=declared * 19 // 20, rows=declared, epsilon=epsilon, delta=DELTA, selection=SELECTIONS[selection])
    done = c.wait(c.submit(text), 60)
    assert done["state"] == "SUCCEEDED", done
    spent = next(d["epsilon_spent"] for d in c.api("GET", "/api/v1/privacy")[1]["datasets"] if d["dataset"] == name)
    scores = ask(c, name, canaries)
    order = sorted(range(m), key=lambda i: (scores[i], random.random()))
    k = m // 6  # guesses on each side, chosen before anything was seen
    right = sum(not coins[i] for i in order[:k]) + sum(coins[i] for i in order[-k:])
    p = subprocess.run([os.path.join(BUILD, "canary-check"), str(m), str(2 * k), str(right), str(DELTA), str(CHANCE)], capture_output=True, text=True, timeout=60)
    assert p.returncode == 0, p.stderr
    return float(p.stdout), spent, right, 2 * k


def without_noise(folder):
    """The programs, with the mutant in the worker's place."""
    for program in ("pinion", "pinion-coordinator", "pinion-ps", "pinion-serve", "pinion-worker"):
        shutil.copy(os.path.join(BUILD, program + "-mutant-23" * (program == "pinion-worker")), os.path.join(folder, program))
    return os.path.join(folder, "pinion")


def report(name, value, unit, **more):
    if LONG:
        print(json.dumps({"name": name, "value": value, "unit": unit, **more}))


if not os.path.exists(os.path.join(BUILD, "pinion-worker-mutant-23")):
    skip("no worker without noise: configure with -DPINION_MUTANTS=ON")
m, epsilon = (8000, 4) if LONG else (2000, 3)
with tempfile.TemporaryDirectory() as folder:
    for honest in (True, False):
        if not honest:
            cluster.PINION = without_noise(folder)
        with cluster.Cluster(ps=1, workers=1, serving=1) as c:
            for selection in SELECTIONS if LONG else ("dense",) if honest else ("dense", "adafest"):
                name = f"{selection}-{'noise' if honest else 'none'}"
                bound, spent, right, guesses = audit(c, folder, selection, m, epsilon, name)
                assert 0.9 * epsilon < spent <= epsilon * (1 + 1e-6), (spent, epsilon)  # the claim is the same either way
                print(f"figure audit, {selection}, {'as it is' if honest else 'noise switched off'}: {right} of {guesses} guesses right, epsilon at least {bound:.2f}; claimed {spent:.2f}", file=sys.stderr if LONG else sys.stdout)
                report(f"privacy.audit.{selection}{'' if honest else '.mutant'}", bound, "lower bound of epsilon", ratio=bound / spent, peer="the epsilon claimed")
                assert bound < spent if honest else bound > spent, (name, bound, spent)
