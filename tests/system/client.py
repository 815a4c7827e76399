"""The client library from Python: integer gradients and SGD with rate 1 add up to exact counts, from threads and from processes, while
servers, clients and the coordinator are killed, checkpoints are taken and the job goes back to one."""
import os
import signal
import subprocess
import sys
import threading
import time
from cluster import SLOW, Cluster, audit_job, client_package, until

pinion = client_package("numpy")
import numpy as np  # noqa: E402

JOB = """apiVersion: pinion/v1
kind: TrainingJob
metadata: {{name: external}}
spec:
  data: {{external: true}}
  tables:
    defaults: {{optimizer: {{name: sgd, lr: 1}}, init: zero}}
    users: {{dim: 4}}
    items: {{dim: 3}}
  model: {{name: external}}
  training: {{dataShards: {producers}, consistency: {{mode: {mode}, ack: durable}}}}
  checkpoint: {{every: {every}, keep: 3}}
"""
KEYS = 700


def job(producers=1, every="300ms", mode="async"):
    return JOB.format(producers=producers, every=every, mode=mode)


def batch(producer, step):
    """What a producer pushes at a step: a function of both alone, so that a client that takes over pushes the same again."""
    rng = np.random.default_rng((producer, step))
    return rng.integers(0, KEYS, 40).astype(np.uint64), rng.integers(0, KEYS, 25).astype(np.uint64)


def push_of(producer, step):
    users, items = batch(producer, step)
    return {"users": (users, np.full((40, 4), -1, np.float32)), "items": (items, np.full((25, 3), -2, np.float32))}


def right(steps):
    """steps: [(producer, last step)] -> the exact tables."""
    users, items = np.zeros(KEYS), np.zeros(KEYS)
    for producer, last in steps:
        for step in range(1, last + 1):
            u, i = batch(producer, step)
            np.add.at(users, u, 1)
            np.add.at(items, i, 2)
    return users, items


def check(s, steps, what):
    got = s.pull({"users": np.arange(KEYS), "items": np.arange(KEYS)})
    for name, want in zip(("users", "items"), right(steps)):
        difference = np.abs(got[name] - want[:, None])
        assert difference.max() == 0, f"{what}: {name} is off at {int((difference > 0).any(1).sum())} keys by at most {difference.max()}"
    print(f"held: {what}")


def run_steps(s, last):
    """Pushes to step `last`, several in flight; on Fenced goes on where the library says."""
    producer, step, open_, fenced = s.status["producer"], s.next_step, [], 0
    while step <= last or open_:
        try:
            if step <= last:
                open_.append(s.push_async(push_of(producer, step)))
                step += 1
            if open_ and (len(open_) > 20 or step > last):
                open_.pop(0).result()
        except pinion.Fenced:
            fenced += 1
            open_, step, producer = [], s.resume(), s.status["producer"]
    return fenced


if "--client" in sys.argv:  # a client process of the tests below: DIR JOB LAST NAME [slowly]; it begins when it is given a line
    at = sys.argv.index("--client") + 1
    folder, id, last, name = sys.argv[at], sys.argv[at + 1], int(sys.argv[at + 2]), sys.argv[at + 3]
    with pinion.Session(folder, id, name=name, timeout=60) as s:
        print(f"open {s.status['producer']} {s.first_step}", flush=True)
        sys.stdin.readline()
        if "slowly" in sys.argv:
            try:
                while s.next_step <= last:
                    s.push(push_of(s.status["producer"], s.next_step))
                    time.sleep(0.002)
            except pinion.Fenced as e:
                print(f"fenced: {e}", flush=True)
                sys.exit(9)
        run_steps(s, last)
        s.finish()
        print("finished", flush=True)
    sys.exit(0)


def client(c, id, last, name, *more):
    return subprocess.Popen([sys.executable, os.path.abspath(__file__), "--client", c.dir, id, str(last), name, *more], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def begin(p):
    p.stdin.write("\n")
    p.stdin.flush()


def raises(kind, words, act):
    try:
        act()
    except kind as e:
        assert words in str(e), f"\"{e}\" does not say \"{words}\""
        return e
    raise AssertionError(f"no {kind.__name__}: {words}")


def end(c, id, s=None):
    if s is not None:
        s.finish()
        s.close()
    assert c.wait(id, 30)["state"] == "SUCCEEDED", c.job(id)


def mistakes(c):
    raises(pinion.Ended, "no job job-999", lambda: pinion.Session(c.dir, "job-999"))
    other = c.submit(audit_job(200000))
    c.wait(other, 20, ("RUNNING",))
    raises(pinion.Ended, "is not external", lambda: pinion.Session(c.dir, other))
    waiting = c.submit(job())
    raises(pinion.Deadline, "PENDING", lambda: pinion.Session(c.dir, waiting, timeout=2 * SLOW))
    c.api("POST", f"/api/v1/jobs/{other}/cancel")
    raises(pinion.Deadline, "does not answer", lambda: pinion.Session("tcp://127.0.0.1:9", waiting, timeout=0.5))
    raises(pinion.Invalid, "tcp://127.0.0.1:PORT", lambda: pinion.Session("tcp://192.0.2.1:7701", waiting, timeout=0.5))
    with pinion.Session(c.dir, waiting) as s:
        raises(pinion.Deadline, "all 1 producers", lambda: pinion.Session(c.dir, waiting, timeout=2))
        users, keys = s["users"], np.array([1, 2], np.uint64)
        raises(pinion.Invalid, "not a finite number", lambda: users.push(keys, [[0, 0, 0, 0], [1, 2, np.nan, 4]]))
        raises(pinion.Invalid, "key 2 ", lambda: users.push(keys, [[0, 0, 0, 0], [1, np.inf, 3, 4]]))
        raises(pinion.Invalid, "need gradients", lambda: users.push(keys, np.zeros((2, 3))))
        raises(pinion.Invalid, "stands twice", lambda: s.push({users: (keys, np.zeros((2, 4))), "users": (keys, np.zeros((2, 4)))}))
        raises(pinion.Invalid, "out must be", lambda: users.pull(keys, out=np.zeros((2, 4))))
        raises(pinion.Invalid, "whole numbers", lambda: users.pull(np.array([1.5])))
        raises(pinion.Invalid, "at most", lambda: users.pull(np.zeros((1 << 24) + 1, np.uint64)))
        assert users.pull(np.zeros((0,), np.uint64)).shape == (0, 4) and users.pull(keys.reshape(1, 2)).shape == (1, 2, 4)
        with pinion.Session(c.dir, waiting, read_only=True) as reader:
            raises(pinion.Invalid, "only reads", lambda: reader["users"].push(keys, np.zeros((2, 4))))
            users.push(keys, -np.ones((2, 4)))
            assert (reader["users"].pull(keys[[1, 0, 1]]) == 1).all()
        assert s.push({}) == 2  # an empty step is a step
        out = np.empty((2, 4), np.float32)
        assert users.pull(keys, out=out) is out and (out == 1).all()
        s.finish()
        raises(pinion.Ended, "", lambda: users.push(keys, np.zeros((2, 4))))
    end(c, waiting)
    print("held: mistakes are named, and have no effect")


def threads(c):
    """Two threads share a session and its steps; a checkpoint is taken and a server killed meanwhile."""
    id = c.submit(job(every="60s"))
    s = pinion.Session(c.dir, id)
    counts = [np.zeros(KEYS), np.zeros(KEYS)]
    problems = []

    def pusher(n):
        try:
            open_ = []
            for step in range(3000):
                users, _ = batch(100 + n, step)
                np.add.at(counts[n], users, 1)
                open_.append(s["users"].push_async(users, np.full((40, 4), -1, np.float32)))
                if len(open_) > 25:
                    open_.pop(0).result()
                if step % 10 == 0:
                    s["users"].pull(users)
            for p in open_:
                p.result()
        except Exception as e:  # noqa: BLE001
            problems.append(e)

    them = [threading.Thread(target=pusher, args=(n,), daemon=True) for n in range(2)]
    for t in them:
        t.start()
    until("no steps", lambda: s.next_step >= 50 or problems)
    s.checkpoint()
    committed = s.status["committed_step"]
    until("no steps behind the checkpoint", lambda: s.status["clock"] >= committed + 100 or problems)  # acknowledged, so that they are in the ring: started ones may still wait for credit
    assert s.status["committed_step"] == committed, "one wish, one checkpoint"
    c.kill("ps-1")
    s.checkpoint()
    assert s.status["committed_step"] >= committed > 0
    for t in them:
        t.join()
    assert not problems, problems
    status = s.status
    assert status["clock"] == 6000 and status["incarnation"] == 1 and status["replays"] >= 50, status
    assert (s["users"].pull(np.arange(KEYS)) == (counts[0] + counts[1])[:, None]).all()
    print(f"held: two threads, 6000 steps, a server killed ({status['replays']} pushes replayed, {status['retries']} repeated): all counted once")
    end(c, id, s)


def silence(c):
    """Servers that do not answer: calls end in time, and say whether the push is out."""
    id = c.submit(job(every="60s"))
    with pinion.Session(c.dir, id) as s:
        run_steps(s, 10)
        for n in ("ps-0", "ps-1"):
            c.kill(n, signal.SIGSTOP)
        try:
            begin = time.time()
            raises(pinion.Deadline, "no effect", lambda: s["users"].pull(np.arange(5), timeout=0.3))
            e = raises(pinion.Sent, "will be applied once", lambda: s.push(push_of(0, 11), timeout=0.3))
            assert e.step == 11
            open_ = [s.push_async(push_of(0, step)) for step in range(12, 12 + 64)]
            raises(pinion.Deadline, "no credit", lambda: s.push_async(push_of(0, 99), timeout=0.2))
            raises(pinion.Deadline, "not answered yet", lambda: open_[0].result(timeout=0.1))
            assert open_[-1].drop()  # it waited for step 11: taken back, no step of it is known
            assert time.time() - begin < 10 * SLOW  # .9 s of deadlines; a call that waited for its servers would not come back
        finally:
            for n in ("ps-0", "ps-1"):
                c.kill(n, signal.SIGCONT)
        assert [p.result() for p in open_[:-1]] == list(range(12, 75))
        assert s.push(push_of(0, 75)) == 75
        check(s, [(0, 75)], "calls to silent servers end in time; what was out is applied once, what was taken back is not")
        end(c, id, s)


def processes(c):
    id = c.submit(job(2))
    them = [client(c, id, 1000, f"client-{n}", "slowly") for n in range(2)]
    for p in them:
        assert p.stdout.readline().startswith("open "), p
    for p in them:
        begin(p)
    c.wait_steps(id, 50)
    c.kill("coordinator")
    assert [p.poll() for p in them] == [None, None]  # killed meanwhile
    for p in them:
        out, _ = p.communicate(timeout=90)
        assert p.returncode == 0 and "finished" in out, (p.returncode, out)
    c.wait_api()
    assert c.wait(id, 30)["state"] == "SUCCEEDED"
    rows = c.job(id)["checkpoints"][0]["rows"]
    users, items = right([(0, 1000), (1, 1000)])
    assert rows == (users > 0).sum() + (items > 0).sum(), rows
    print("held: two client processes, the coordinator killed meanwhile: the job ends by itself with every row in its checkpoint")


def replaced(c):
    """A client that dies, or is only silent, is replaced; the late one is fenced."""
    id = c.submit(job(1))
    a = client(c, id, 100000, "first", "slowly")
    assert a.stdout.readline().startswith("open 0 1")
    begin(a)
    c.wait_running(id, lambda job: any(k["rows"] > 0 for k in job["checkpoints"]))
    a.kill()
    a.wait()
    b = client(c, id, 100000, "second", "slowly")
    word, producer, first = b.stdout.readline().split()
    assert (word, producer) == ("open", "0") and int(first) > 1, (word, producer, first)
    begin(b)
    newest = c.wait_steps(id, int(first))["checkpoints"][0]["epoch"]
    c.wait_running(id, lambda job: sum(k["epoch"] > newest for k in job["checkpoints"]) > 1)  # the next one may have been begun before those steps
    b.send_signal(signal.SIGSTOP)
    with pinion.Session(c.dir, id, timeout=20) as s:
        assert s.status["incarnation"] == 3 and s.first_step > int(first), s.status
        run_steps(s, s.first_step + 300)
        b.send_signal(signal.SIGCONT)
        out, _ = b.communicate(timeout=30)
        assert b.returncode == 9 and "fenced" in out, (b.returncode, out)
        last = s.next_step + 200
        run_steps(s, last)
        check(s, [(0, last)], "a killed client and a silent one are replaced: every step counted once, the late one is fenced")
        end(c, id, s)


def handed_over(c):
    """Behind a checkpoint a client leaves and the next goes on at the very next step, at once."""
    id = c.submit(job(1, every="60s"))
    with pinion.Session(c.dir, id) as s:
        run_steps(s, 33)
        s.checkpoint()
    step, quickest = 33, 60
    for _ in range(4):  # whoever waited for the lease of the one before would take 1.5 s each time; a machine that is busy for a moment delays one
        begin = time.time()
        with pinion.Session(c.dir, id) as s:
            quickest = min(quickest, time.time() - begin)
            assert s.first_step == step + 1, (s.first_step, step)
            step += 5
            run_steps(s, step)
            s.checkpoint()
    assert quickest < 1.2, quickest
    with pinion.Session(c.dir, id) as s:
        run_steps(s, 70)
        check(s, [(0, 70)], f"a client leaves, the next goes on behind its checkpoint after {quickest * 1000:.0f} ms")
        end(c, id, s)


def finishes_first(c):
    """One of two producers finishes long before the other: it may go."""
    id = c.submit(job(2, every="60s"))
    with pinion.Session(c.dir, id) as a, pinion.Session(c.dir, id) as b:
        run_steps(a, 15)
        run_steps(b, 5)
        a.finish(timeout=10)
        a.close()
        until("the other session does not hear of the checkpoint", lambda: b.status["committed_step"] > 0)
        assert b.status["has_producer"] and b.status["committed_step"] == 5, b.status
        run_steps(b, 25)
        check(b, [(0, 15), (1, 25)] if b.status["producer"] == 1 else [(1, 15), (0, 25)], "a producer that has finished may go while the other goes on")
        end(c, id, b)


def gone_back(c):
    """An operator's restore: the client hears of it and goes on behind the checkpoint."""
    id = c.submit(job(1, every="60s"))
    with pinion.Session(c.dir, id) as s:
        run_steps(s, 20)
        s.checkpoint()
        run_steps(s, 40)
        status, body = c.api("POST", f"/api/v1/jobs/{id}/restore", {})
        assert status == 200, body
        def fenced():
            try:
                s["items"].push([], np.zeros((0, 3)), timeout=5)
            except pinion.Fenced as e:
                return e
        e = until("the plan does not come", fenced)
        assert "went back" in str(e), e
        assert s.resume() == 21 and s.status["generation"] == 2, s.status
        check(s, [(0, 20)], "after a restore the tables are the checkpoint's")
        run_steps(s, 45)
        check(s, [(0, 45)], "and the client goes on from its step")
        end(c, id, s)


def synchronous(c):
    """sync: a step counts when both producers have pushed it; pulls behind it see it."""
    id = c.submit(job(2, mode="sync"))
    with pinion.Session(c.dir, id) as a, pinion.Session(c.dir, id) as b:
        them = [threading.Thread(target=run_steps, args=(s, 60)) for s in (a, b)]
        for t in them:
            t.start()
        for t in them:
            t.join()
        check(a, [(0, 60), (1, 60)], "two sessions of one process, synchronously")
        them = [threading.Thread(target=s.finish) for s in (a, b)]
        for t in them:
            t.start()
        for t in them:
            t.join()
    end(c, id)


def rates(c):
    id = c.submit(job().replace("items: {dim: 3}", "items: {dim: 16}").replace("300ms", "60s"))
    with pinion.Session(c.dir, id) as s:
        keys = np.random.default_rng(1).permutation(1 << 22)[:20000].astype(np.uint64)
        gradients, out, n = np.ones((20000, 16), np.float32), np.empty((20000, 16), np.float32), 150
        for _ in range(5):
            s["items"].push(keys, gradients)

        def rate(act):
            best = 0
            for _ in range(3):
                begin = time.time()
                act()
                best = max(best, n * 20000 / (time.time() - begin) / 1e6)
            return best

        def flight(start):
            open_ = []
            for _ in range(n):
                open_.append(start())
                if len(open_) == 4:
                    open_.pop(0).result()
            for p in open_:
                p.result()

        outs = [np.empty_like(out) for _ in range(8)]
        pull = rate(lambda: [s["items"].pull(keys, out=out) for _ in range(n)])
        push = rate(lambda: [s["items"].push(keys, gradients) for _ in range(n)])
        turn = iter(range(1 << 30))
        pull4 = rate(lambda: flight(lambda: s["items"].pull_async(keys, out=outs[next(turn) % 8])))
        push4 = rate(lambda: flight(lambda: s["items"].push_async(keys, gradients)))
        print(f"figure Python client, 20000 keys x 16 floats, one server: pull {pull:.1f}, push {push:.1f} Mrows/s one at a time; {pull4:.1f}, {push4:.1f} with 4 in flight")
        end(c, id, s)


with Cluster(ps=2, workers=1, serving=0) as c:
    for test in (mistakes, threads, silence, processes, replaced, handed_over, finishes_first, gone_back, synchronous):
        if "--rates" not in sys.argv:
            test(c)
with Cluster(ps=1, workers=1, serving=0) as c:
    rates(c)
