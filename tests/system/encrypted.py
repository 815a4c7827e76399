#!/usr/bin/env python3
"""A cluster whose sockets are encrypted: integer sums stay exact over killed servers, workers and coordinator; what goes over the wire is not in the clear; a client gets in with a key and
not without; a node whose .pub file is taken away is shut out. Then processes on addresses that are not loopback, in a network namespace of the test's own."""
import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from cluster import BUILD, ENDED, SLOW, Cluster, audit_check, audit_job, client_package, http, run, until


class Tap:
    """Listens between a worker and a server: all bytes pass, and are kept."""

    def __init__(self, to):
        self.to, self.bytes = to, bytearray()
        self.door = socket.create_server(("127.0.0.1", 0))
        self.port = self.door.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            near, _ = self.door.accept()
            far = socket.create_connection(self.to)
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self.pass_on, args=(a, b), daemon=True).start()

    def pass_on(self, a, b):
        try:
            while data := a.recv(1 << 16):
                self.bytes += data
                b.sendall(data)
        except OSError:
            pass
        finally:
            b.close()


spawned = []
atexit.register(lambda: end(spawned))


def spawn(dir, program, name, *options):
    with open(os.path.join(dir, name + ".log"), "ab") as log:
        spawned.append(subprocess.Popen([os.path.join(BUILD, program), "--name", name, "--http", "127.0.0.1:0", "--address-file", os.path.join(dir, name + ".json"), *options], stderr=log, stdout=log))
    return spawned[-1]


def address(dir, name, key="zmq", seconds=20):
    end = time.time() + seconds * SLOW
    while True:
        try:
            with open(os.path.join(dir, name + ".json")) as f:
                return json.load(f)[key]
        except (FileNotFoundError, json.JSONDecodeError):
            assert time.time() < end, open(os.path.join(dir, name + ".log")).read()
            time.sleep(0.02)


def keygen(dir, **names):
    for name, role in names.items():
        code, out, err = run("keygen", "--keys", dir, "--role", role, name.replace("_", "-"))
        assert code == 0, err


def end(processes):
    for p in processes:
        p.kill()
        p.wait()


def finish(url, text, seconds=60):
    status, answer = http("POST", url + "/api/v1/jobs", {"text": text, "file": "job.yaml", "base": "/", "key": "one"})
    assert status in (200, 201, 202), answer
    job = {}

    def ended():
        job.update(http("GET", f"{url}/api/v1/jobs/{answer['id']}")[1])
        return job["state"] in ENDED
    until(job, ended, seconds)
    return job


def on_other_addresses():
    """In a network namespace: coordinator, server and worker on addresses of their own, none of which is loopback."""
    with tempfile.TemporaryDirectory() as dir:
        keys = os.path.join(dir, "keys")
        for command in ("ip link set lo up", "ip addr add 10.77.0.1/32 dev lo", "ip addr add 10.77.0.2/32 dev lo"):
            subprocess.run(command.split(), check=True)
        p = spawn(dir, "pinion-ps", "ps-0", "--bind", "tcp://10.77.0.2:0")
        assert p.wait(20) == 4 and "--keys" in open(os.path.join(dir, "ps-0.log")).read()
        print("held: without keys an address that is not loopback is refused")
        keygen(keys, coordinator="coordinator", ps_0="ps", worker_0="worker")
        up = [spawn(dir, "pinion-coordinator", "coordinator", "--keys", keys, "--bind", "tcp://10.77.0.1:0", "--dir", os.path.join(dir, "c"))]
        try:
            at = address(dir, "coordinator")
            assert at.startswith("tcp://10.77.0.1:"), at
            up.append(spawn(dir, "pinion-ps", "ps-0", "--keys", keys, "--bind", "tcp://10.77.0.2:0", "--coordinator", at))
            up.append(spawn(dir, "pinion-worker", "worker-0", "--keys", keys, "--coordinator", at, "--dir", os.path.join(dir, "w")))
            job = finish(address(dir, "coordinator", "http"), audit_job(200, producers=1))
            assert job["state"] == "SUCCEEDED", job
        finally:
            end(up)
        print("held: a job over addresses that are not loopback")


if "--inside" in sys.argv:
    on_other_addresses()
    sys.exit(0)

with Cluster(ps=2, workers=2, serving=1, encrypt=True) as c:
    keys = os.path.join(c.dir, "keys")
    assert "#" in c.info["coordinator"]["zmq"]
    assert sorted(os.listdir(os.path.join(keys, "authorized"))) == sorted(f"{n}.pub" for n in ("coordinator", "ps-0", "ps-1", "worker-0", "worker-1", "serving-0"))
    steps = 12000
    id = c.submit(audit_job(steps))
    for share, victim in ((0.1, "ps-1"), (0.3, "worker-0"), (0.5, "coordinator")):
        c.wait_steps(id, share * 2 * steps)
        c.kill(victim, signal.SIGKILL)
        c.wait_api()
    done = c.wait(id, 120)
    assert done["state"] == "SUCCEEDED", done
    audit_check(c, id, steps)
    print("held: sums stay exact over killed processes, encrypted")

    # a stranger: keys of its own, and it knows ours
    with tempfile.TemporaryDirectory() as dir:
        keygen(dir, worker_9="worker")
        for name in os.listdir(os.path.join(keys, "authorized")):
            with open(os.path.join(keys, "authorized", name)) as f, open(os.path.join(dir, "authorized", name), "w") as to:
                to.write(f.read())
        names = lambda: [n["name"] for n in c.api("GET", "/api/v1/status")[1]["nodes"]]
        incarnations = lambda: [n["incarnation"] for n in c.api("GET", "/api/v1/status")[1]["nodes"] if n["name"] == "ps-0"]
        incarnation = until("the coordinator does not know ps-0", incarnations, 20)  # it was killed: it knows a server again when that has said so
        stranger = spawn(dir, "pinion-worker", "worker-9", "--keys", dir, "--coordinator", c.info["coordinator"]["zmq"], "--dir", os.path.join(dir, "w"))
        time.sleep(2)
        assert "worker-9" not in names(), names()
        os.link(os.path.join(dir, "authorized", "worker-9.pub"), os.path.join(keys, "authorized", "worker-9.pub"))
        until("worker-9 is not heard", lambda: "worker-9" in names(), 20)
        os.unlink(os.path.join(keys, "authorized", "worker-9.pub"))
        alive = lambda: [n["alive"] for n in c.api("GET", "/api/v1/status")[1]["nodes"] if n["name"] == "worker-9"] == [True]
        until("worker-9 is heard without its .pub file", lambda: not alive(), 20)
        end([stranger])
        print("held: a stranger is not heard; with its .pub file it is, until that is taken away")

        # one that says it is another: its key is authorized as that of a worker
        os.link(os.path.join(dir, "authorized", "worker-9.pub"), os.path.join(keys, "authorized", "worker-9.pub"))
        with open(os.path.join(dir, "worker-9.key")) as f:
            secret = f.read().split()[3]
        with open(os.open(os.path.join(dir, "ps-0.key"), os.O_WRONLY | os.O_CREAT, 0o600), "w") as f:
            f.write(f"pinion-secret-1 ps ps-0 {secret}\n")
        liar = spawn(dir, "pinion-ps", "ps-0", "--keys", dir, "--bind", "tcp://127.0.0.1:0", "--coordinator", c.info["coordinator"]["zmq"])
        said = "worker-9 (worker) says that it is ps-0 (ps)"
        until(f"the log does not say: {said}", lambda: said in open(os.path.join(c.dir, "logs", "coordinator.log")).read(), 20)
        assert incarnations() == incarnation, (incarnations(), incarnation)
        end([liar])
        os.unlink(os.path.join(keys, "authorized", "worker-9.pub"))
        print("held: a worker's key is no server's, whatever its owner says")

    # what passes by is not readable
    host, port = c.info["coordinator"]["zmq"].split("#")[0][len("tcp://"):].split(":")
    tap = Tap((host, int(port)))
    with tempfile.TemporaryDirectory() as dir:
        tapped = f"tcp://127.0.0.1:{tap.port}#{c.info['coordinator']['zmq'].split('#')[1]}"
        keygen(keys, worker_7="worker")
        p = spawn(dir, "pinion-worker", "worker-7", "--keys", keys, "--coordinator", tapped, "--dir", os.path.join(dir, "w"))
        until("worker-7 is not heard through the tap", lambda: "worker-7" in names() and len(tap.bytes) >= 2000, 20)
        end([p])
        for word in (b"worker-7", b"PNW1", b"incarnation"):
            assert word not in tap.bytes, word
    print(f"held: of {len(tap.bytes)} bytes between a worker and the coordinator none is in the clear")

    # the commands refuse what cannot be
    code, _, err = run("keygen", "--keys", keys, "--role", "worker", "worker-7")
    assert code == 4 and "is there already" in err, err
    code, _, err = run("keygen", "--keys", keys, "--role", "king", "worker-8")
    assert code == 2 and "--role king" in err, err
    code, _, err = run("keygen", "--keys", keys, "--role", "worker", "a/b")
    assert code == 2 and "is no name of a node" in err, err

if subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode == 0:
    subprocess.run(["unshare", "-n", sys.executable, os.path.abspath(__file__), "--inside"], check=True, timeout=120 * SLOW)
else:
    print("left out: addresses that are not loopback, as this user may not make a network namespace")

pinion = client_package("numpy")
import numpy as np  # noqa: E402

EXTERNAL = """apiVersion: pinion/v1
kind: TrainingJob
metadata: {name: external}
spec:
  data: {external: true}
  tables:
    defaults: {optimizer: {name: sgd, lr: 1}, init: zero}
    users: {dim: 4}
  model: {name: external}
  training: {dataShards: 2}
"""
with Cluster(ps=1, workers=1, serving=0, encrypt=True) as c:
    keys = os.path.join(c.dir, "keys")
    id = c.submit(EXTERNAL)
    try:
        pinion.Session(c.dir, id, timeout=5)
        raise AssertionError("a client without a key got in")
    except pinion.Error as e:
        assert "without keys" in str(e), e
    keygen(keys, trainer="worker")
    with pinion.Session(c.dir, id, keys=keys, key="trainer") as a, pinion.Session(c.dir, id, keys=keys, key="trainer") as b:
        for s in (a, b):
            s.push({"users": (np.arange(100, dtype=np.uint64), -np.ones((100, 4), np.float32))})
        rows = a.tables["users"].pull(np.arange(100, dtype=np.uint64))
        assert (rows == 2).all(), rows
    print("held: two sessions of a client with one key, and none without")
