"""Bad input: one clear line, the right exit code, no crash, nothing lost."""
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from cluster import BUILD, LIVE, Cluster, SLOW, audit_check, audit_job, http, npy, run, until

tmp = tempfile.mkdtemp(prefix="pinion-bad-")
problems = []


def expect(name, ok, what=""):
    print(("held: " if ok else "BROKEN: ") + name + ("" if ok else f": {what}"))
    if not ok:
        problems.append(name)


JOB = """apiVersion: pinion/v1
kind: TrainingJob
metadata: {{name: bad}}
spec:
  data:
    train: {{format: csv, uri: "{path}", label: click}}
  features:
    - {{name: a, type: categorical}}
  tables: {{defaults: {{optimizer: {{name: adagrad, lr: 0.05}}}}}}
  model: {{name: {model}}}
  training: {{batchSize: 64, epochs: 1, seed: 1}}
"""


NUMBERS = """apiVersion: pinion/v1
kind: TrainingJob
metadata: {{name: numbers}}
spec:
  data:
    train: {{format: csv, uri: "{train}", label: click}}{more}
  features:
    - {{name: a, type: categorical}}
    - {{name: x, type: numeric}}
  tables: {{defaults: {{optimizer: {{name: adagrad, lr: 0.05}}}}}}
  model: {{name: dcn_v2, embeddingDim: 4, hidden: [8], cross: 2}}
  training: {{batchSize: 64, epochs: {epochs}, seed: 1}}
  validation: {{everyEpoch: {each}}}
"""
STOPPING = """apiVersion: pinion/v1
kind: TrainingJob
metadata: {{name: stopping}}
spec:
  data:
    train: {{format: csv, uri: "{train}", label: click}}
    validation: {{format: csv, uri: "{validation}", label: click}}
  features: [{{name: a, type: categorical}}]
  model: {{name: lr}}
  training: {{epochs: 3, seed: 1, earlyStopping: {{metric: {metric}, patience: 2}}}}
  validation: {{groupBy: a, metrics: ["hr@5"]}}
"""
SEQUENCES = """apiVersion: pinion/v1
kind: TrainingJob
metadata: {{name: cut}}
spec:
  data:
    train: {{format: s3rec, uri: "{path}", part: train, history: 5{per}}}
    test: {{format: s3rec, uri: "{path}", part: test, history: 5}}
  features:
    - {{name: history, type: sequence, maxLength: 5, hash: {{share: i}}}}
    - {{name: target, type: sequence, maxLength: 5, hash: {{share: i}}}}
    - {{name: negatives, type: sequence, maxLength: {negatives}, hash: {{share: i}}}}
    - {{name: seen, type: sequence, maxLength: {seen}, hash: {{share: i}}}}
  model: {{name: sasrec, embeddingDim: 4, sequence: {{fields: [history], target: target, negatives: negatives, seen: seen, loss: bce, blocks: 1}}}}
  training: {{epochs: 1, seed: 1}}
"""
RANKED = """apiVersion: pinion/v1
kind: TrainingJob
metadata: {{name: ranked}}
spec:
  data:
    train: {{format: ncf, uri: "{dir}/pairs.txt"}}
    validation: {{format: ncf, uri: "{dir}/held.txt", rankAll: ["{dir}/pairs.txt"]}}
  features:
    - {{name: user, type: categorical, table: users}}
    - {{name: item, type: categorical, table: items}}
  tables:
    defaults: {{optimizer: {{name: sgd, lr: 1000}}}}
    users: {{import: {{feature: user, keys: "{dir}/users-keys.npy", rows: "{dir}/users.npy"}}}}
    items: {{import: {{feature: item, keys: "{dir}/items-keys.npy", rows: "{dir}/items.npy"}}}}
  model: {{name: mf, embeddingDim: 2, bias: false}}
  training: {{batchSize: 1000, epochs: 1, seed: 1}}
  validation: {{groupBy: user, metrics: ["recall@5"]}}
"""
DIVERGED = """apiVersion: pinion/v1
kind: TrainingJob
metadata: {{name: diverged}}
spec:
  data:
    train: {train}
  features:
{features}
  tables:
    defaults: {{optimizer: {{name: sgd, lr: 1000}}, init: zero}}{tables}
  model: {model}
  optimizer: {{name: sgd, lr: 1000}}
  training: {{batchSize: 64, epochs: 20, seed: 1, dataShards: 1, consistency: {{mode: {mode}}}{loss}}}
"""


def job_file(path, model="lr"):
    p = os.path.join(tmp, "job.yaml")
    with open(p, "w") as f:
        f.write(JOB.format(path=path, model=model))
    return p


def one_line(text, *words):
    lines = [l for l in text.strip().splitlines() if l.strip()]
    return any(all(w in l for w in words) for l in lines)


try:
    good = os.path.join(tmp, "good.csv")
    with open(good, "w") as f:
        f.write("click,a\n" + "".join(f"{i % 2},{i % 7}\n" for i in range(2000)))
    wrong = os.path.join(tmp, "wrong.csv")
    with open(wrong, "w") as f:
        f.write("click,a\n1,2\n0,3\n1,2,3\n")
    subprocess.run(["zstd", "-q", "-f", good, "-o", os.path.join(tmp, "cut.csv.zst")], check=True)
    with open(os.path.join(tmp, "cut.csv.zst"), "r+b") as f:
        f.truncate(os.path.getsize(f.name) - 40)

    # offline: the job file
    code, out, err = run("submit", "--dry-run", job_file(good, "deepmf"))
    expect("an unknown model is refused with line and nearest name", code in (2, 4) and one_line(out + err, "job.yaml:", "deepfm"), (code, out, err))
    code, out, err = run("submit", "--dry-run", job_file(good))
    expect("a good job passes --dry-run", code == 0, (code, out, err))
    code, out, err = run("submit", "--dry-run", os.path.join(tmp, "none.yaml"))
    expect("a missing job file is named", code != 0 and one_line(out + err, "none.yaml"), (code, out, err))
    code, out, err = run("statsu")
    expect("a wrong verb is usage", code == 2 and one_line(out + err, "status"), (code, out, err))
    code, out, err = run("status", "--coordinator", "http://127.0.0.1:1")
    expect("an unreachable coordinator is exit 3", code == 3, (code, out, err))

    with Cluster(ps=2, workers=2, serving=1) as c:
        for name, path, words in (("a missing data file", os.path.join(tmp, "nowhere.csv"), ("nowhere.csv",)),
                                  ("a truncated compressed file", os.path.join(tmp, "cut.csv.zst"), ("cut.csv.zst", "truncated")),
                                  ("a row with a wrong number of columns", wrong, ("wrong.csv", "4"))):
            code, out, err = run("submit", "--dir", c.dir, job_file(path))
            expect(name + " fails the job with one line", code == 1 and one_line(out + err, *words), (code, out, err))

        # a score that is no number: the job says so and ends, at whatever is measured first
        rng = random.Random(2)
        for name, large in (("numbers.csv", None), ("large.csv", 316)):
            with open(os.path.join(tmp, name), "w") as f:
                f.write("click,a,x\n" + "".join(f"{rng.randrange(2)},{i % 7},{'1e30' if i == large else format(rng.random(), '.3f')}\n" for i in range(1000)))
        plain, large = (os.path.join(tmp, n) for n in ("numbers.csv", "large.csv"))
        with open(os.path.join(tmp, "pairs.txt"), "w") as f:
            f.writelines(f"{u} {i}\n" for u in range(1, 10) for i in range(1, 10) if u != i)
            f.write("10 5\n")
        with open(os.path.join(tmp, "held.txt"), "w") as f:
            f.writelines(f"{u} {u}\n" for u in range(1, 10))
        # one step makes item 5 [inf, inf] (its gradient is user 10 over the batch's 73 rows) and moves all users towards what it was: infinity less infinity
        for table, key, row in (("users", 10, [1e38, 9e37]), ("items", 5, [-1, 1])):
            npy(os.path.join(tmp, f"{table}-keys.npy"), "i8", (1,), [key])
            npy(os.path.join(tmp, f"{table}.npy"), "f4", (1, 2), row)
        part = f'\n    {{}}: {{{{format: csv, uri: "{large}", label: click}}}}'
        for name, text, words in (("validation", NUMBERS.format(train=plain, more=part.format("validation"), epochs=1, each="false"), ("validation data, row 317:",)),
                                  ("test", NUMBERS.format(train=plain, more=part.format("test"), epochs=1, each="false"), ("test data, row 317:",)),
                                  ("validation after each epoch", NUMBERS.format(train=plain, more=part.format("validation"), epochs=100000, each="true"), ("validation data, row 317:",)),
                                  ("a stream", NUMBERS.format(train=large, more="\n    stream: {window: 500}", epochs=1, each="false"), ("stream, step 3 of data shard 0, row 61 of its batch:",)),
                                  ("all items", RANKED.format(dir=tmp), ("validation data, user ", " of 9 by key:", "of its 9 items"))):
            done = c.wait(c.submit(text), 60)
            expect(f"a score that is no number, in {name}, fails the job with one line", done["state"] == "FAILED" and one_line(done["reason"], "is no number:", "learning rate", *words), done)
        # early stopping by what the validation data do not tell: no rows; positive ones only; negative ones only; groups of one label
        for name, rows, metric, words in (("empty", "", "logloss", ("0 rows",)), ("positives", "1,1\n1,2\n", "auc", ("2 rows", "both labels")), ("negatives", "0,1\n0,2\n0,2\n", "hr@5", ("3 rows", "positive")),
                                          ("groups", "0,1\n1,2\n1,2\n0,3\n", "gauc", ("4 rows", "group"))):
            with open(os.path.join(tmp, name + ".csv"), "w") as f:
                f.write("click,a\n" + rows)
            done = c.wait(c.submit(STOPPING.format(train=good, validation=f.name, metric=metric)), 60)
            expect(f"early stopping by {metric}, which {name} do not tell, fails the job with one line", done["state"] == "FAILED" and one_line(done["reason"], "earlyStopping: " + metric, "cannot be measured", *words), done)
        # lists that are cut off: candidates of a test, what was had, and negatives of training; whole ones are good
        with open(os.path.join(tmp, "walks.txt"), "w") as f:
            f.writelines(f"{u} {' '.join(str(1 + (u + i) % 40) for i in range(12))}\n" for u in range(1, 30))
        for negatives, seen, per, words in ((39, 11, 1, ("test data: ", '"negatives"', "40 items", "maxLength is 39")), (40, 10, 1, ("test data: ", '"seen"', "11 items", "maxLength is 10")),
                                            (40, 11, 9, ('"negatives"', "45 items", "maxLength is 40")), (40, 11, 8, None)):
            done = c.wait(c.submit(SEQUENCES.format(path=f.name, negatives=negatives, seen=seen, per=f", negatives: {{perPositive: {per}, seed: 1}}")), 60)
            expect(f"lists of up to {negatives} candidates, {seen} seen and {5 * per} negatives are {'whole' if words is None else 'cut off, which fails the job with one line'}",
                   done["state"] == "SUCCEEDED" if words is None else done["state"] == "FAILED" and one_line(done["reason"], *words), done)
        # training that diverges, and measures nothing
        for name, text in (("one.txt", "10 5\n"), ("two.txt", "10 5\n11 6\n")):
            with open(os.path.join(tmp, name), "w") as f:
                f.write(text)  # one step makes item 5 infinite, as above; it is then in the right order with item 6: there is no loss, and nothing times infinity for user 10
        with open(os.path.join(tmp, "heavy.txt"), "w") as f:
            f.write("1 7:1e37\n")  # one step makes the weight infinite; the row is then right for certain: no gradient
        csv = f'{{format: csv, uri: "{plain}", label: click}}'
        a, pair = "    - {name: a, type: categorical}", "    - {name: user, type: categorical, table: users}\n    - {name: item, type: categorical, table: items}"
        imports = "".join(f'\n    {t}: {{import: {{feature: {t[:-1]}, keys: "{tmp}/{t}-keys.npy", rows: "{tmp}/{t}.npy"}}}}' for t in ("users", "items"))
        npy(os.path.join(tmp, "a-keys.npy"), "i8", (7,), range(7))
        npy(os.path.join(tmp, "a.npy"), "f4", (7, 1), [3e38] * 7)
        twice = "".join(f'\n    of_{t}: {{import: {{feature: {t}, keys: "{tmp}/a-keys.npy", rows: "{tmp}/a.npy"}}}}' for t in ("a", "b"))  # two finite rows, whose sum is none
        for mode in ("async", "sync"):
            for name, words, fields in (
                    ("all", ("the gradient of ",), dict(train=csv, features=a + "\n    - {name: x, type: numeric}", tables="", loss="", model="{name: dcn_v2, embeddingDim: 4, hidden: [8], cross: 2}")),
                    ("the loss", ("step 1 of", "the loss is no"), dict(train=csv, features="".join(f"    - {{name: {t}, column: a, type: categorical, table: of_{t}}}\n" for t in ("a", "b")), tables=twice, loss="", model="{name: lr}")),
                    # async: by the time the row comes back a second push may have made it no number at all, and then its gradient is none, too
                    ("rows that servers hold", ("a row of table embedding " if mode == "sync" else " of table embedding ",),
                     dict(train=f'{{format: libsvm, uri: "{tmp}/heavy.txt"}}', features="    - {name: features, type: multi, weighted: true, pooling: sum}", tables="", loss="", model="{name: lr}")),
                    ("gradients alone, which a server refuses", ("the gradient of table users ",),
                     dict(train=f'{{format: ncf, uri: "{tmp}/one.txt", negatives: {{perPositive: 1, seen: ["{tmp}/two.txt"]}}}}', features=pair, tables=imports, loss=", loss: {name: bpr}", model="{name: mf, embeddingDim: 2, bias: false}"))):
                done = c.wait(c.submit(DIVERGED.format(mode=mode, **fields)), 60)
                expect(f"training that diverges in {name} ({mode}) fails the job with one line", done["state"] == "FAILED" and one_line(done["reason"], "training, step ", "of data shard 0", "is no number:", "learning rate", *words), done)
        code, out, err = run("submit", "--dir", c.dir, job_file(good))
        expect("a good job after bad ones succeeds", code == 0, (code, out, err))

        code, out, err = run("up", "--local", "--dir", c.dir)
        expect("a second cluster on one directory is refused", code == 4, (code, out, err))
        store = os.path.join(c.dir, "coordinator")
        p = subprocess.run([os.path.join(BUILD, "pinion-coordinator"), "--dir", store, "--bind", "tcp://127.0.0.1:0", "--http", "127.0.0.1:0"],
                           capture_output=True, text=True, timeout=20 * SLOW)
        expect("a second coordinator on one directory is refused", p.returncode == 4 and len(p.stderr.strip().splitlines()) <= 3, (p.returncode, p.stderr))
        zmq = c.info["coordinator"]["zmq"]
        p = subprocess.run([os.path.join(BUILD, "pinion-ps"), "--name", "ps-x", "--coordinator", zmq, "--bind", zmq, "--http", "127.0.0.1:0"],
                           capture_output=True, text=True, timeout=20 * SLOW)
        expect("a port in use is named", p.returncode == 1 and one_line(p.stderr, zmq.split(":")[-1]), (p.returncode, p.stderr))

        # garbage on every socket while a job runs
        rng = random.Random(1)
        before = c.pids()
        out = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True).stdout
        ports = {int(l.split()[3].rsplit(":", 1)[1]) for l in out.splitlines() if any(f"pid={p}," in l for p in before.values())}
        steps = 20000  # several times as long as the garbage takes
        id = c.submit(audit_job(steps, keys=5000))
        c.wait_steps(id, 1)
        for port in sorted(ports):
            for shape in range(12):
                s = socket.create_connection(("127.0.0.1", port), timeout=5)
                try:
                    if shape % 3 == 0:
                        s.sendall(rng.randbytes(rng.randrange(1, 4000)))
                    elif shape % 3 == 1:  # a ZMTP greeting, then nonsense
                        s.sendall(b"\xff" + b"\0" * 8 + b"\x7f\x03\x00NULL" + b"\0" * 48 + rng.randbytes(300))
                    else:
                        s.sendall(b"POST /v2/models/x/infer HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n" + rng.randbytes(100))
                except OSError:
                    pass
                s.close()
        job = c.job(id)
        expect("garbage on every socket: the job ran meanwhile", job["state"] in LIVE, job)
        done = c.wait(id, 120)
        expect("garbage on every socket: the job succeeds", done["state"] == "SUCCEEDED", done)
        expect("garbage on every socket: no process died", c.pids() == before, (before, c.pids()))
        try:
            print(audit_check(c, id, steps, keys=5000))
        except AssertionError as e:
            expect("garbage on every socket: nothing lost", False, e)

    # a snapshot with a flipped bit: the version before goes on serving
    with Cluster(ps=1, workers=1, serving=1) as c:
        id = c.submit(JOB.format(path=good, model="lr") + "  publish: {model: m, storage: float16}\n")
        assert c.wait(id)["state"] == "SUCCEEDED"
        url = c.info["serving"][0]["http"] if isinstance(c.info["serving"], list) else c.info["serving"]["http"]
        ask = {"inputs": [{"name": "a", "shape": [2, 1], "datatype": "BYTES", "data": ["1", "2"]}]}
        end = time.time() + 20 * SLOW
        while http("POST", f"{url}/v2/models/m/infer", ask)[0] != 200 and time.time() < end:
            time.sleep(0.05)
        status, answer = http("POST", f"{url}/v2/models/m/infer", ask)
        expect("version 1 serves", status == 200, answer)
        c.kill("serving-0", signal.SIGSTOP)
        status, body = c.api("POST", f"/api/v1/jobs/{id}/publish", {})
        assert status == 200, body
        folder = next(d for d, _, names in os.walk(c.dir) if d.endswith(f"/models/m/{body['version']}") and "manifest.json" in names)
        segment = os.path.join(folder, sorted(n for n in os.listdir(folder) if n.endswith(".seg"))[0])
        with open(segment, "r+b") as f:
            f.seek(os.path.getsize(segment) // 2)
            byte = f.read(1)
            f.seek(-1, 1)
            f.write(bytes([byte[0] ^ 4]))
        c.kill("serving-0", signal.SIGCONT)
        log = os.path.join(c.dir, "logs", "serving-0.log")
        until("the replica says nothing of the version", lambda: f"version {body['version']} is refused" in open(log).read())
        status, later = http("POST", f"{url}/v2/models/m/infer", ask)
        expect("a snapshot with a flipped bit is refused, the one before serves", status == 200 and later["model_version"] == answer["model_version"], later)

    # a full disk: the checkpoint fails, training goes on, then it works again
    mount = os.path.join(tmp, "small")
    os.mkdir(mount)
    if os.geteuid() == 0 and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", mount], capture_output=True).returncode == 0:
        try:
            with Cluster(ps=2, workers=1, serving=0, dir=mount) as c:
                steps = 6000
                id = c.submit(audit_job(steps, producers=1, keys=20000, every="100ms"))
                c.wait_steps(id, 1)
                filler = os.path.join(mount, "filler")
                with open(filler, "wb") as f:
                    try:
                        while True:
                            f.write(b"\0" * 65536)
                            f.flush()
                    except OSError:
                        pass
                time.sleep(2)
                job = c.job(id)
                expect("a full disk: the job does not fail", job["state"] in ("RUNNING", "RESTARTING"), job)
                os.remove(filler)
                done = c.wait(id, 180)
                expect("a full disk: afterwards the job succeeds", done["state"] == "SUCCEEDED", done)
                print(audit_check(c, id, steps, 1, 20000))
        finally:
            subprocess.run(["umount", "-l", mount])
    else:
        print("no right to mount a small file system: the full disk was not tried with real files (the simulator does)")
finally:
    shutil.rmtree(tmp, ignore_errors=True)
raise SystemExit(1 if problems else 0)
