"""pinion forget: a user's row goes from a job that has ended and published, and from one that runs, while coordinator and servers are killed; it does not come back."""
import os
import shutil
import struct
import subprocess
import tempfile
import time
from cluster import PINION, SLOW, Cluster, http, run, until

JOB = """apiVersion: pinion/v1
kind: TrainingJob
metadata: {{name: {name}}}
spec:
  data:
    train: {{format: csv, uri: {data}/train.csv, label: click}}
  features:
    - {{name: user, type: categorical, table: user}}
    - {{name: item, type: categorical}}
  tables: {{defaults: {{init: zero, optimizer: {{name: adagrad, lr: 0.05}}}}{tables}}}
  model: {{name: lr}}
  training: {{batchSize: 200, epochs: {epochs}, seed: 3, dataShards: 2}}
  checkpoint: {{every: 300ms, keep: 3}}
  failurePolicy: {{maxRestarts: 1000}}
  publish: {{model: {name}}}
"""


def has(folder, key):
    """Which files under a folder have the key's eight bytes."""
    found = []
    for root, _, files in os.walk(folder):
        for name in files:
            try:
                with open(os.path.join(root, name), "rb") as f:
                    if struct.pack("<Q", key) in f.read():
                        found.append(os.path.join(root, name))
            except FileNotFoundError:  # a checkpoint that was thinned out meanwhile
                pass
    return found


def requests(c):
    return c.api("GET", "/api/v1/forget")[1]["requests"]


def score(c, user, item):
    inputs = [{"name": n, "shape": [1, 1], "datatype": "BYTES", "data": [v]} for n, v in (("user", user), ("item", item))]
    status, answer = http("POST", f"{c.info['serving'][0]['http']}/v2/models/ended/infer", {"inputs": inputs})
    return next(o["data"][0] for o in answer["outputs"] if o["name"] == "score") if status == 200 else 0


def committed(c, job):
    return [k["epoch"] for k in c.job(job)["checkpoints"] if not k["bad"]]


def checkpoint(c, job):
    """One that was begun behind this moment."""
    before = max(committed(c, job), default=0)
    until("no further checkpoint", lambda: (c.api("POST", f"/api/v1/jobs/{job}/checkpoint"), max(committed(c, job)) > before)[1])


with Cluster(ps=2, workers=2, serving=1) as c, tempfile.TemporaryDirectory() as folder:
    data = os.path.join(folder, "data")
    subprocess.run([PINION, "synth", "--rows", "20000", "--users", "3000", "--items", "300", "--out", data], check=True, capture_output=True)
    with open(os.path.join(data, "train.csv")) as f:
        rows = [line.split(",") for line in f.read().splitlines()[1:]]
    counts = {}
    for row in rows:
        counts[row[1]] = counts.get(row[1], 0) + 1
    user, other, item = min((u for u in counts if counts[u] > 1), key=counts.get), max(counts, key=counts.get), rows[0][2]
    ended = c.submit(JOB.format(name="ended", data=data, epochs=2, tables=""))
    assert c.wait(ended, 60)["state"] == "SUCCEEDED"
    running = c.submit(JOB.format(name="running", data=data, epochs=100000, tables=", user: {memory: 64Ki}"))  # of whom the rare users are in the second tier
    until("the running job has no checkpoints", lambda: len(committed(c, running)) >= 2)
    until("the replica does not serve", lambda: abs(score(c, user, item) - score(c, "nobody", item)) > 1e-4)

    roots = [next(r for r in (os.path.join(c.dir, "coordinator", d), os.path.join(c.dir, d)) if os.path.isdir(r)) for d in ("jobs", "models")]
    copies = [os.path.join(folder, name) for name in ("jobs", "models")]
    shutil.copytree(os.path.join(roots[0], ended), copies[0])
    shutil.copytree(roots[1], copies[1])

    asked = time.time()
    command = subprocess.Popen([PINION, "forget", "--dir", c.dir, "--field", "user", "--value", user, "--who", "tester"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = command.stdout.readline()  # acknowledged: from here on it is kept
    c.kill("coordinator")
    c.kill("ps-0")
    out, err = command.communicate(timeout=60 * SLOW)
    out = line + out
    assert command.returncode == 0, (out, err)
    seconds = time.time() - asked
    for text in ("the request is kept (2 jobs)", "What this does not undo", "dense weights", "privacy budgets", "by tester, done"):
        assert text in out, out
    keys = {r["job"]: r["keys"][0][1] for r in requests(c)}
    assert all(r["done"] and r["who"] == "tester" and r["field"] == "user" and len(r["keys"]) == 1 for r in requests(c)), requests(c)
    first = next(r for r in requests(c) if r["job"] == ended)
    assert first["checkpoint_rows"] >= 1 and first["checkpoints"] >= 1 and first["versions"] == 1, first

    for copy in copies:
        assert has(copy, keys[ended]), f"the row was never in {copy}: this test would prove nothing"
    assert has(os.path.join(roots[0], ended), keys[ended]) == [] and has(roots[1], keys[ended]) == [] and has(os.path.join(roots[0], running), keys[running]) == []
    print(f"held: asked, coordinator and a server killed, done after {seconds:.1f} s; no file of checkpoints and versions has the key")

    model = next(m for m in c.api("GET", "/api/v1/models")[1]["models"] if m["name"] == "ended")
    assert model["active"] > 1 and 1 not in [v["version"] for v in model["versions"]], model
    until("the replica still knows the user", lambda: 0 < score(c, user, item) == score(c, "nobody", item))
    assert abs(score(c, other, item) - score(c, "nobody", item)) > 1e-4  # others are as they were
    code, out, err = run("rollback", "--dir", c.dir, "ended")
    assert code == 4, (code, out, err)
    print("held: a new version without the row is served, the one before cannot come back")

    # The data still has the user: the running job's servers refuse its row for good, also when they begin again from a checkpoint.
    checkpoint(c, running)
    old = c.pids()["ps-1"]
    c.kill("ps-1")
    until("ps-1 is not back", lambda: c.pids().get("ps-1", old) != old)
    checkpoint(c, running)
    c.kill("coordinator")
    c.wait_api()
    checkpoint(c, running)
    assert has(os.path.join(roots[0], running), keys[running]) == []
    c.api("POST", f"/api/v1/jobs/{running}/cancel")
    code, out, err = run("publish", "--dir", c.dir, "--force", running)
    assert code == 0, (out, err)
    assert has(roots[1], keys[running]) == []
    print("held: the running job, whose data has the user, never makes the row again, over restarts of server and coordinator")

    code, out, err = run("restore", "--dir", c.dir, ended)  # an ended job trains on from what it kept
    assert code == 0, (out, err)
    assert c.wait(ended, 60)["state"] == "SUCCEEDED" and has(os.path.join(roots[0], ended), keys[ended]) == []

    code, out, err = run("forget", "--dir", c.dir, "--list")
    assert code == 0 and out.count("by tester, done") == 2, out
    code, out, err = run("forget", "--dir", c.dir, "--field", "user", "--value", user, ended)  # twice is once
    assert code == 0 and "0 from 0 checkpoints, 0 published versions" in out, (out, err)
    for arguments, want, words in (([], 2, "needs --field"), (["--field", "hour", "--value", "3"], 4, "no job has rows keyed by values of \"hour\""), (["--field", "user", "--value", "1", "job-99"], 4, "no job job-99")):
        code, out, err = run("forget", "--dir", c.dir, *arguments)
        assert code == want and words in err, (arguments, code, err)
    status, answer = c.api("POST", "/api/v1/forget", {"field": "user", "who": "x", "targets": [{"job": ended, "keys": [[99, 1]]}]})
    assert status == 400 and "keys are pairs" in answer["error"], answer
    print("held: a second request finds nothing, bad ones are refused with the reason")
