"""A private job in a real cluster: it learns; what it spends is durable before it is used, is never given back, and stops what would go past it."""
import os
import subprocess
import tempfile
from cluster import BUILD, Cluster, until

JOB = """apiVersion: pinion/v1
kind: TrainingJob
metadata: {{name: private}}
spec:
  data:
    train: {{format: csv, uri: {data}/train.csv, label: click}}
    test:  {{format: csv, uri: {data}/test.csv, label: click}}
  features:
    - {{name: item, type: categorical, buckets: 500}}
    - {{name: genre, type: categorical, buckets: 32}}
    - {{name: hour, type: categorical, buckets: 32}}
  tables: {{defaults: {{optimizer: {{name: adagrad, lr: 0.03}}, init: zero}}}}
  model: {{name: lr}}
  optimizer: {{name: adam, lr: 0.001}}
  training: {{batchSize: {batch}, epochs: {epochs}, seed: 1, dataShards: 2, consistency: {{mode: {mode}}}}}
  checkpoint: {{every: 300ms, keep: 3}}
  privacy: {{{unit}, epsilon: {epsilon}, delta: 1.0e-6, budget: {budget}, clip: 1, selection: {selection}, {votes}dataset: {name}}}
"""


def text(data, name, epochs=4, epsilon=8, budget=8, mode="async", selection="adafest", unit="rows: 80000", batch=2000, frequent=False):
    votes = "" if selection == "dense" else "voteClip: 2, threshold: 10, "
    votes += "frequent: {threshold: 60, noise: 5}, " if frequent else ""
    return JOB.format(data=data, name=name, unit=unit, batch=batch, epochs=epochs, epsilon=epsilon, budget=budget, mode=mode, selection=selection, votes=votes)


def account(c, name):
    return next(d for d in c.api("GET", "/api/v1/privacy")[1]["datasets"] if d["dataset"] == name)


def incarnations(c):
    """name -> incarnation of the workers, as the coordinator knows them."""
    return {n["name"]: n["incarnation"] for n in c.api("GET", "/api/v1/status")[1]["nodes"] if n["role"] == "worker" and n["alive"]}


def kill_at(c, id, name, steps):
    """Waits until the job has done so many steps, and then kills whoever has its producers."""
    c.wait_running(id, lambda job: account(c, name)["jobs"][0]["steps_done"] > steps)
    before = incarnations(c)
    for worker in before:
        c.kill(worker)
    # the next job shall not be given to one that is dead: that costs it budget
    until("the workers do not come back", lambda: all(incarnations(c).get(w, before[w]) != before[w] for w in before))


def learns(c, data):
    for kind, mode in (("adafest", "async"), ("dense", "sync"), ("fest", "async"), ("adafest-frequent", "async")):
        selection, _, frequent = kind.partition("-")
        # budget for a restart: on a machine that is busy for longer than a lease a worker counts as lost
        job = c.wait(c.submit(text(data, f"learns-{kind}", selection=selection, mode=mode, budget=24, frequent=frequent != "")), 90)
        assert job["state"] == "SUCCEEDED" and job["test_auc"] > 0.53, (kind, job)
        a = account(c, f"learns-{kind}")
        assert ("choices_charged" in a["jobs"][0]) == (kind in ("fest", "adafest-frequent")), a
        assert a["epsilon_spent"] > 0 and a["jobs"][0]["steps_done"] == 80 <= a["jobs"][0]["steps_charged"], a
        assert job["restarts"] > 0 or (a["epsilon_spent"] <= 8 + 1e-6 and a["jobs"][0]["steps_charged"] == 80), (job, a)
        assert job.get("train_logloss", 0) == 0  # what a batch lost is nobody's to see
        print(f"figure private, {kind}, epsilon {a['epsilon_spent']:.2f}: test AUC {job['test_auc']:.3f}")


def logs(c):
    found = {}
    for name in os.listdir(os.path.join(c.dir, "logs")):
        with open(os.path.join(c.dir, "logs", name), errors="replace") as f:
            found[name] = f.read()
    return found


def by_user(c, data, folder):
    """A user's 16 or so rows are one: batches are of users, 250 of the 2,500 of a shard."""
    job = text(data, "people", epochs=4, unit="unit: user, users: 5000, userField: user, examplesPerUser: 4", batch=250)
    path = os.path.join(folder, "people.yaml")
    with open(path, "w") as f:
        f.write(job)
    out = subprocess.run([os.path.join(BUILD, "pinion"), "submit", "--dry-run", path], capture_output=True, text=True, timeout=60)
    assert out.returncode == 0 and "epsilon per user after epoch 4: 8 at delta 1e-06" in out.stdout and "at most 4 examples of each" in out.stdout, out
    done = c.wait(c.submit(job), 60)
    a = account(c, "people")
    assert done["state"] == "SUCCEEDED" and done["test_auc"] > 0.51 and a["unit"] == "user", (done, a)
    assert a["jobs"][0]["steps_done"] == a["jobs"][0]["steps_charged"] == 40 and 7.5 < a["epsilon_spent"] <= 8 + 1e-6, a
    status, answer = c.api("POST", "/api/v1/jobs", {"text": text(data, "people", epsilon=1, budget=8)})
    assert status == 409 and "counted its budget by user" in answer["error"], answer
    status, answer = c.api("POST", "/api/v1/jobs", {"text": job.replace("userField: user", "userField: item")})
    assert status == 409 and 'by the users of column "user"' in answer["error"], answer
    status, answer = c.api("POST", "/api/v1/jobs", {"text": job.replace("userField: user", "userField: who").replace("people}", "who}")})
    done = c.wait(answer["id"], 60, ("FAILED", "SUCCEEDED"))
    assert done["state"] == "FAILED" and "is in the log of worker-" in done["reason"], done
    until("no worker's log has why", lambda: any("the data has no column" in log for log in logs(c).values()))
    print(f"figure private, by user, at most 4 examples of each a step, epsilon {a['epsilon_spent']:.2f} per user: test AUC {c.job(a['jobs'][0]['job'])['test_auc']:.3f}")


def hides(c, data, folder):
    """A row that cannot be read ends the job; what stands in it is in the worker's own log and nowhere else."""
    with open(os.path.join(data, "train.csv")) as f:
        lines = f.read().splitlines()
    bad = os.path.join(folder, "bad")
    os.makedirs(bad)
    with open(os.path.join(bad, "train.csv"), "w") as f:
        f.write("\n".join(lines[:500] + ["alice@example.org" + lines[500][lines[500].index(","):]] + lines[501:]) + "\n")
    done = c.wait(c.submit(text(data, "hides").replace(os.path.join(data, "train.csv"), os.path.join(bad, "train.csv"))), 60, ("FAILED", "SUCCEEDED"))
    assert done["state"] == "FAILED" and "is in the log of worker-" in done["reason"] and "alice" not in done["reason"], done
    until("no worker's log has it", lambda: any("alice" in log for log in logs(c).values()))
    assert all(name.startswith("worker-") for name, log in logs(c).items() if "alice" in log)
    print("held: the text of a row that cannot be read stays with its worker")


def adds_up(c, data):
    one = text(data, "sum", epochs=2, epsilon=3, budget=3.2)
    assert c.wait(c.submit(one), 60)["state"] == "SUCCEEDED"
    spent = account(c, "sum")["epsilon_spent"]
    assert 2.9 < spent <= 3 + 1e-6, spent
    status, answer = c.api("POST", "/api/v1/jobs", {"text": one})
    assert status == 409 and 'budget of data set "sum" does not have this job' in answer["error"], answer
    status, answer = c.api("POST", "/api/v1/jobs", {"text": text(data, "sum", epochs=2, epsilon=3, budget=40)})
    assert status == 409 and "cannot be changed" in answer["error"], answer
    c.kill("coordinator")
    c.wait_api()
    assert account(c, "sum")["epsilon_spent"] == spent
    print("held: a data set's jobs add up, a budget that is spent takes no job, and outlives the coordinator")


def charged_again(c, data):
    id = c.submit(text(data, "again", epochs=100, epsilon=4, budget=30))
    kill_at(c, id, "again", 100)
    until("no step is charged again", lambda: account(c, "again")["jobs"][0]["steps_charged"] > 2000)
    a = account(c, "again")
    assert a["jobs"][0]["steps"] == 2000 and a["epsilon_spent"] > 4, a
    c.api("POST", f"/api/v1/jobs/{id}/cancel")
    c.wait(id, 30, ("CANCELLED",))
    assert account(c, "again")["epsilon_spent"] >= a["epsilon_spent"]
    print(f"held: a worker that takes over pays for the steps it runs again ({a['jobs'][0]['steps_charged']} charged of 2000), and a cancelled job gives nothing back")

    id = c.submit(text(data, "stops", epochs=100, epsilon=4, budget=4))
    kill_at(c, id, "stops", 20)
    job = c.wait(id, 60, ("FAILED", "SUCCEEDED"))
    assert job["state"] == "FAILED" and "does not have the steps" in job["reason"], job
    assert account(c, "stops")["epsilon_spent"] <= 4 + 1e-6
    print("held: where the budget does not have them, the job stops and says so")


def ahead(data, folder):
    path = os.path.join(folder, "job.yaml")
    with open(path, "w") as f:
        f.write(text(data, "ahead", epochs=3))
    out = subprocess.run([os.path.join(BUILD, "pinion"), "submit", "--dry-run", path], capture_output=True, text=True, timeout=60)
    assert out.returncode == 0 and "epsilon after epoch 3: 8 at delta 1e-06" in out.stdout and "noise multiplier" in out.stdout, out
    assert "count of all rows" not in out.stdout, out
    with open(path, "w") as f:
        f.write(text(data, "ahead", epochs=3, frequent=True))
    out = subprocess.run([os.path.join(BUILD, "pinion"), "submit", "--dry-run", path], capture_output=True, text=True, timeout=60)
    assert out.returncode == 0 and "epsilon after epoch 3: 8 at delta 1e-06" in out.stdout and "one noisy count of all rows" in out.stdout, out
    print("held: --dry-run says what each epoch will have spent, and what a choice of rows beforehand does")


with Cluster(ps=2, workers=2, serving=0, encrypt=True) as c, tempfile.TemporaryDirectory() as folder:
    data = os.path.join(folder, "data")
    subprocess.run([os.path.join(BUILD, "pinion"), "synth", "--rows", "100000", "--users", "5000", "--out", data], check=True, capture_output=True)
    ahead(data, folder)
    learns(c, data)
    by_user(c, data, folder)
    hides(c, data, folder)
    adds_up(c, data)
    charged_again(c, data)
    out = subprocess.run([os.path.join(BUILD, "pinion"), "privacy", "--dir", c.dir, "sum"], capture_output=True, text=True, timeout=30)
    assert out.returncode == 0 and "data set sum: epsilon 3 of 3.2 spent" in out.stdout, out
