"""A real cluster for tests: real processes, sockets and files on loopback, in a folder of its own."""
import importlib
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from http.client import HTTPException

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, os.environ.get("PINION_BUILD", "build"))
PINION = os.path.join(BUILD, "pinion")
SHARED = os.path.join(os.path.dirname(ROOT), "shared", "data")
SLOW = 6 if "asan" in BUILD or "tsan" in BUILD else 1  # sanitizers are slower
ENDED = ("SUCCEEDED", "FAILED", "CANCELLED")
LIVE = ("PENDING", "RUNNING", "RESTARTING")  # RESTARTING: a server that the job had lost has yet to open its tables
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what tests/run's time limit sends: a test that is stopped takes its cluster with it


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(77)


def why_not():
    """What tests/system/venv said when it could not install something, on one line."""
    try:
        with open(os.path.join(ROOT, "build", "venv.missing")) as f:
            lines = f.read().strip().splitlines()
    except OSError:
        lines = []
    return lines[-1] if lines else "tests/run installs it into build/venv where it can"


def data(name):
    path = os.path.join(SHARED, name)
    return path if os.path.isdir(path) else None


def http(method, url, body=None, timeout=60):
    """(status, parsed JSON or text)."""
    raw = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
    request = urllib.request.Request(url, data=raw, method=method, headers={"Content-Type": "application/json"})
    try:
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                status, text = answer.status, answer.read().decode()
        except urllib.error.HTTPError as e:
            status, text = e.code, e.read().decode()
    except HTTPException as e:  # whoever answers was killed in the middle of it
        raise ConnectionError(f"{url}: {e!r}") from e
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text


def until(what, condition, seconds=60):
    """What condition() says, once that is true; what: the failure's text if it does not come to be. A process that is just being started again does not answer, and is asked again."""
    end = time.time() + seconds * SLOW
    while True:
        late = time.time() > end  # looked at before the condition: on a slow machine it has its chance at the end, too
        try:
            if found := condition():
                return found
        except OSError:
            pass
        assert not late, what
        time.sleep(0.01)


def lives(pid):
    """Not ended, nor a zombie."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def client_package(*packages):
    """The Python package over the client library. Skips where one of `packages` (PyPI) is not there, or the library is a sanitizer's."""
    for p in packages:
        try:
            importlib.import_module(p)
        except ImportError as e:
            skip(f"{e}; {why_not()}")
    if SLOW > 1:
        skip("a sanitizer's library cannot be loaded into a plain Python")
    os.environ.setdefault("PINION_LIBRARY", os.path.join(BUILD, "libpinion.so"))
    sys.path.insert(0, os.path.join(ROOT, "python"))
    return importlib.import_module("pinion")


def synth(folder, rows, seed):
    """`pinion synth` into a folder. Returns its features as a job's YAML, all categorical."""
    code, _, err = run("synth", "--rows", str(rows), "--out", folder, "--seed", str(seed))
    assert code == 0, err
    with open(os.path.join(folder, "train.csv")) as f:
        header = f.readline().strip().split(",")
    return "\n".join(f"    - {{name: {c}, type: categorical}}" for c in header if c != "click")


def npy(path, kind, shape, values):
    """A NumPy array's file, without NumPy. kind: i8 or f4; values: flat, by rows."""
    head = f"{{'descr': '<{kind}', 'fortran_order': False, 'shape': {shape!r}, }}"
    head += " " * (-(len(head) + 11) % 64) + "\n"
    with open(path, "wb") as f:
        f.write(b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head.encode() + struct.pack(f"<{len(values)}{dict(i8='q', f4='f')[kind]}", *values))


def run(*args, timeout=300, **kwargs):
    """The pinion command: (exit code, stdout, stderr)."""
    p = subprocess.run([PINION, *args], capture_output=True, text=True, timeout=timeout * SLOW, stdin=subprocess.DEVNULL, **kwargs)
    return p.returncode, p.stdout, p.stderr


class Cluster:
    def __init__(self, ps=2, workers=2, serving=1, dir=None, encrypt=False):
        self.own = dir is None
        self.dir = dir or tempfile.mkdtemp(prefix="pinion-test-")
        code, out, err = run("up", "--local", "--ps", str(ps), "--workers", str(workers), "--serving", str(serving), "--dir", self.dir, *(["--encrypt"] if encrypt else []))
        if code != 0:
            raise AssertionError(f"pinion up: exit {code}\n{out}\n{err}")
        self.read()

    def read(self):
        with open(os.path.join(self.dir, "cluster.json")) as f:
            self.info = json.load(f)
        return self.info

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is not None:
            self.show_logs()
        self.down()

    def down(self):
        run("down", "--dir", self.dir)
        if self.own:
            shutil.rmtree(self.dir, ignore_errors=True)

    def show_logs(self):
        logs = os.path.join(self.dir, "logs")
        for name in sorted(os.listdir(logs)) if os.path.isdir(logs) else []:
            with open(os.path.join(logs, name), errors="replace") as f:
                print(f"---- {name}\n" + "".join(f.readlines()[-15:]))

    def api(self, method, path, body=None, timeout=120):
        return http(method, self.info["coordinator"]["http"] + path, body, timeout * SLOW)

    def wait_api(self, seconds=30):
        def answers():
            status, body = self.api("GET", "/api/v1/status", timeout=5)
            return status == 200 and body
        return until("the coordinator does not answer", answers, seconds)

    def submit(self, text, base=None, key=None):
        status, body = self.api("POST", "/api/v1/jobs", {"text": text, "file": "job.yaml", "base": base or self.dir, "key": key or str(time.time())})
        assert status in (200, 201), f"submit: {status} {body}"
        return body["id"]

    def job(self, id):
        status, body = self.api("GET", f"/api/v1/jobs/{id}")
        assert status == 200, body
        return body

    def wait(self, id, seconds=300, until=ENDED):
        end = time.time() + seconds * SLOW
        last = None
        while time.time() < end:
            try:
                last = self.job(id)
                if last["state"] in until:
                    return last
            except OSError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"job {id} is not done: {last}")

    def wait_running(self, id, condition, seconds=60):
        """The job once condition(job) holds while it runs: a kill behind its end would show nothing."""
        end = time.time() + seconds * SLOW
        while (job := self.job(id))["state"] in LIVE and not (job["state"] == "RUNNING" and condition(job)):
            assert time.time() < end, job
            time.sleep(0.01)
        assert job["state"] == "RUNNING", job
        return job

    def wait_steps(self, id, steps, seconds=60):
        return self.wait_running(id, lambda job: job["steps"] >= steps, seconds)

    def scores(self, model, columns, seconds=20):
        """What the first replica says of each row of {feature: values}, once it has the model."""
        n, said = len(next(iter(columns.values()))), {}
        body = {"inputs": [{"name": name, "shape": [n, 1], "datatype": "BYTES", "data": values} for name, values in columns.items()]}

        def served():
            said["status"], said["answer"] = http("POST", f"{self.info['serving'][0]['http']}/v2/models/{model}/infer", body)
            return said["status"] == 200
        until(said, served, seconds)
        out = {o["name"]: o["data"] for o in said["answer"]["outputs"]}
        by_index = dict(zip(out.get("index", range(n)), out["score"]))
        return [by_index[i] for i in range(n)]

    def pids(self):
        """name -> pid of those that live: the supervisor writes 0 where one is down, and for a moment still the pid of one that was just killed."""
        return {name: p["pid"] for name, p in self.read().get("processes", {}).items() if p["pid"] > 0 and lives(p["pid"])}

    def kill(self, name, sig=signal.SIGKILL):
        """A process that is just being started again is waited for. Behind a SIGKILL it is dead when this returns."""
        pid = until(f"{name} does not come back", lambda: self.pids().get(name))
        os.kill(pid, sig)
        if sig == signal.SIGKILL:
            until(f"{name} does not die", lambda: not lives(pid))


AUDIT = """apiVersion: pinion/v1
kind: TrainingJob
metadata: {{name: audit}}
spec:
  data:
    train: {{format: audit, rows: {rows}}}
  model: {{name: audit}}
  audit: {{keys: {keys}{memory}}}
  training: {{batchSize: 32, seed: {seed}, dataShards: {producers}, inFlight: 8, consistency: {{mode: {mode}, ack: durable}}}}
  checkpoint: {{every: {every}, keep: 3}}
  failurePolicy: {{maxRestarts: 100000}}
"""


def audit_job(steps, producers=2, keys=500, seed=1, mode="async", every="500ms", memory=None):
    """memory: of the table, e.g. "1Ki"; rows beyond it live in the second tier. Many steps want many keys: what a key adds up, its steps among it, is exact only below 2**24."""
    return AUDIT.format(memory=f", memory: {memory}" if memory else "", rows=steps * 32 * producers, producers=producers, keys=keys, seed=seed, mode=mode, every=every)


def audit_check(cluster, id, steps, producers=2, keys=500):
    """Compares the newest checkpoint with the exact answer; raises with the lost or doubled push."""
    job = cluster.job(id)
    newest = max(c["epoch"] for c in job["checkpoints"])
    folder = os.path.join(cluster.dir, "coordinator", "jobs", id, "checkpoints", str(newest))
    if not os.path.isdir(folder):
        folder = os.path.join(cluster.dir, "jobs", id, "checkpoints", str(newest))
    p = subprocess.run([os.path.join(BUILD, "audit-check"), folder, str(producers), str(steps), str(keys)], capture_output=True, text=True)
    assert p.returncode == 0, p.stdout + p.stderr
    return p.stdout.strip()
