"""private_models.py: what privacy costs in quality; the tables of docs/models.md, "Private training". One server, one worker; one line a run, then means over the seeds.

    private_models.py synth DIR [--only plain|private]    docs/jobs/synth-private.yaml beside DeepFM without privacy; DIR: what `pinion synth --rows 5000000 --out DIR` made
    private_models.py criteo [--epsilons 1,3,8,inf]       the rows of ../shared/data/criteo-sample (64,000 train), logistic regression
    private_models.py selection [--votes "voteClip: 3.5, threshold: 0.001, frequent: {threshold: 32, noise: 3, clip: 6}"] [--rate 11] [--batch 16384] [--epochs 40] [--only NAME]
                                                          the same rows, 10,000 buckets a categorical feature: DP-AdaFEST beside noise on every row, and no privacy
All take [--seeds 1,2,3] (1) and [--change OLD=>NEW]..., of the job's text."""
import os
import re
import statistics
import sys
import time
import urllib.request
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
from cluster import Cluster, ROOT, data


def option(name, default):
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default


def changed(text):
    for i, word in enumerate(sys.argv):
        if word == "--change":
            old, new = sys.argv[i + 1].split("=>")
            assert old in text, f"the job has no {old}"
            text = text.replace(old, new)
    return text


def rows_pushed(c):
    """By the servers' count, rows of the weights among them."""
    total = 0
    for name, p in c.read()["processes"].items():
        if name.startswith("ps-"):
            with urllib.request.urlopen(p["http"] + "/metrics", timeout=10) as answer:
                total += sum(int(v) for v in re.findall(r'^pinion_ps_rows_total\{op="push"\} (\d+)$', answer.read().decode(), re.M))
    return total


def without_privacy(text):
    return re.sub(r"\n  privacy: .*", "", text)


def table(jobs):
    """jobs: {name: text}; all of one name's seeds in turn."""
    seeds, means = [int(s) for s in option("--seeds", "1").split(",")], {}
    for name, text in jobs.items():
        runs = []
        for seed in seeds:
            with Cluster(ps=1, workers=1, serving=0) as c:
                begin = time.time()
                done = c.wait(c.submit(changed(text).replace("seed: 1", f"seed: {seed}")), 3000)
                assert done["state"] == "SUCCEEDED", done
                spent = [d["epsilon_spent"] for d in c.api("GET", "/api/v1/privacy")[1]["datasets"]]
                runs.append((done["test_auc"], done["test_logloss"], rows_pushed(c)))
                print(f"{name}, seed {seed}: test AUC {runs[-1][0]:.4f}, log loss {runs[-1][1]:.4f}, {runs[-1][2]} rows pushed" + (f", epsilon {spent[0]:.3g}" if spent else "") +
                      f", {time.time() - begin:.0f} s", flush=True)
        means[name] = [statistics.mean(column) for column in zip(*runs)]
    for name, (auc, loss, pushed) in means.items():
        print(f"figure {name}: test AUC {auc:.4f}, log loss {loss:.4f}, {pushed:.0f} rows pushed, {len(seeds)} seeds")
    return means


CRITEO = """apiVersion: pinion/v1
kind: TrainingJob
metadata: {{name: criteo-private}}
spec:
  data:
    train: {{format: criteo, uri: "{data}/criteo_first80000_hashed.txt.zst", rows: 64000}}
    test:  {{format: criteo, uri: "{data}/criteo_first80000_hashed.txt.zst", firstRow: 72000, rows: 8000}}
  features:
{features}
  tables: {{defaults: {{optimizer: {{name: {optimizer}}}, init: zero}}}}
  model: {{name: lr}}
  optimizer: {{name: adam, lr: 0.001}}
  training: {{batchSize: {batch}, epochs: {epochs}, seed: 1, dataShards: 1, consistency: {{mode: sync}}}}
  privacy: {{rows: 64000, epsilon: {epsilon}, delta: 1.0e-6, clip: {clip}, {selection}, dataset: criteo}}
"""


def criteo(buckets, **keys):
    features = [f"    - {{name: I{i}, type: numeric, criteoLog: true, buckets: 64}}" for i in range(1, 14)] + [f"    - {{name: C{i}, type: categorical, buckets: {buckets}}}" for i in range(1, 27)]
    return CRITEO.format(data=data("criteo-sample"), features="\n".join(features), **keys)


what = sys.argv[1] if len(sys.argv) > 1 else ""
if what == "synth":
    with open(os.path.join(ROOT, "docs", "jobs", "synth-private.yaml")) as f:
        private = f.read().replace("${PINION_DATA}", os.path.abspath(sys.argv[2]))
    private = re.sub(r"\n  publish: .*", "", private)
    plain = without_privacy(private)
    for old, new in (("{name: fm, embeddingDim: 4}", "{name: deepfm, embeddingDim: 8, hidden: [32, 16]}"), ("batchSize: 262144, epochs: 16", "batchSize: 4096, epochs: 4"), ("lr: 0.0003", "lr: 0.001"),
                     ("lr: 0.3}", "lr: 0.15}")):
        assert old in plain, old
        plain = plain.replace(old, new)
    jobs = {"plain DeepFM": plain, "private, epsilon 3": private}
    only = option("--only", "")
    means = table({name: text for name, text in jobs.items() if name.startswith(only)})
    if only == "":
        print(f"figure synth: epsilon 3 costs {means['plain DeepFM'][0] - means['private, epsilon 3'][0]:.4f} of AUC (wanted: at most .015)")
elif what == "criteo":
    jobs = {}
    for epsilon in option("--epsilons", "1,3,8,inf").split(","):
        text = criteo(1000, optimizer="adagrad, lr: 0.03", batch=8192, epochs=20, epsilon=8 if epsilon == "inf" else epsilon, clip=1, selection="selection: dense")
        jobs[f"epsilon {epsilon}"] = without_privacy(text).replace("batchSize: 8192, epochs: 20", "batchSize: 256, epochs: 2") if epsilon == "inf" else text
    table(jobs)
elif what == "selection":
    shape = {"optimizer": f"sgd, lr: {option('--rate', '11')}", "batch": option("--batch", 16384), "epochs": option("--epochs", 40), "epsilon": 8, "clip": 1}
    votes = option("--votes", "voteClip: 3.5, threshold: 0.001, frequent: {threshold: 32, noise: 3, clip: 6}")
    dense, adafest, only = criteo(10000, selection="selection: dense", **shape), criteo(10000, selection=f"selection: adafest, {votes}", **shape), option("--only", "")
    means = table({name: text for name, text in {"dense noise": dense, "DP-AdaFEST": adafest, "no privacy": without_privacy(dense)}.items() if name.startswith(only)})
    if only == "":
        print(f"figure selection: DP-AdaFEST pushes {means['dense noise'][2] / means['DP-AdaFEST'][2]:.1f} times fewer rows (wanted: 20) and loses {means['dense noise'][0] - means['DP-AdaFEST'][0]:.4f} of AUC "
              "(wanted: at most .005)")
else:
    sys.exit(__doc__)
