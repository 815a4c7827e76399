#!/usr/bin/env python3
"""A job out of a Kafka topic (librdkafka's mock cluster): two data shards read four partitions while they are being filled; a broker is down for a while, the coordinator and a
worker are killed; at the end each message is in the table exactly once. Then plain training from given offsets to what is there; a topic that is not there; no broker at all."""
import os
import random
import signal
import subprocess
import time
import urllib.request
from cluster import BUILD, LIVE, Cluster, run, until

JOB = """
apiVersion: pinion/v1
kind: TrainingJob
metadata: {name: clicks}
spec:
  data:
    train:
      format: %s
      kafka: {brokers: "%s", topic: %s, start: %s, end: %s}
      columns: [%s]
      label: liked
%s
  features:
    - {name: id, type: categorical}
  tables: {defaults: {optimizer: {name: sgd, lr: 1}, init: zero}}
  model: {name: lr}
  optimizer: {name: sgd, lr: 1.0e-30}
  training: {batchSize: 20, dataShards: 2, seed: 1, consistency: {mode: async}}
  checkpoint: {every: 300ms, keep: 2}
"""
# A row belongs to one message: it begins as 0, so its one step is lr * (label - 0.5) / batchSize. A lost message has no row; one that came twice has another value.
STEP = 0.5 / 20


class Mock:
    def __init__(self):
        self.p = subprocess.Popen([os.path.join(BUILD, "kafka-mock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.brokers = self.p.stdout.readline().strip()

    def say(self, *lines):
        self.p.stdin.write("\n".join(lines) + "\n")
        self.p.stdin.flush()
        answer = self.p.stdout.readline().strip()
        assert answer == "ok", (lines[0], answer)

    def put(self, topic, partition, messages):
        self.say(f"put {topic} {partition} {len(messages)}", *messages)


def values(c, id):
    """{value of a row: rows} in the job's newest checkpoint."""
    newest = max(k["epoch"] for k in c.job(id)["checkpoints"])
    p = subprocess.run([os.path.join(BUILD, "table-values"), os.path.join(c.dir, "coordinator", "jobs", id, "checkpoints", str(newest))], capture_output=True, text=True)
    assert p.returncode == 0, p.stdout + p.stderr
    return {float(v): int(n) for v, n in (line.split() for line in p.stdout.splitlines())}


def exact(c, id, rows):
    liked = sum(r[2] for r in rows)
    found = values(c, id)
    assert sorted(found.values()) == sorted([liked, len(rows) - liked]) and all(abs(abs(v) - STEP) < 1e-9 for v in found), (found, liked, len(rows))
    assert found[max(found)] == liked, (found, liked)


def position(c, id):
    """{partition: offset} that the job's newest checkpoint holds, and the rows."""
    import json
    newest = max(k["epoch"] for k in c.job(id)["checkpoints"])
    with open(os.path.join(c.dir, "coordinator", "jobs", id, "checkpoints", str(newest), "manifest.json")) as f:
        ledgers = json.load(f)["ledgers"]
    return {p[0]: p[1] for l in ledgers for p in l["positions"]}, sum(l["rows"] for l in ledgers)


rng = random.Random(7)
COUNTS = [2400, 3600, 4600, 3400]  # shard 0 reads partitions 0 and 2, shard 1 reads 1 and 3: whole batches of 20 for both
rows = [[(f"{p}-{k}", rng.choice("MF"), int(rng.random() < 0.4)) for k in range(n)] for p, n in enumerate(COUNTS)]
flat = [r for part in rows for r in part]
mock = Mock()
mock.say("topic clicks 4")


def fill(share_from, share_to):
    for p, part in enumerate(rows):
        a, b = int(len(part) * share_from), int(len(part) * share_to)
        lines = [f"{i},{g},{y}" for i, g, y in part[a:b]]
        if a < b:
            lines.insert(len(lines) // 2, "\\0")  # a tombstone is no row
        mock.say(f"codec {('none', 'gzip', 'lz4', 'zstd')[p]}")
        mock.put("clicks", p, lines)


with Cluster(ps=2, workers=2, serving=0) as c:
    fill(0, 0.3)
    begin = time.time()
    id = c.submit(JOB % ("csv", mock.brokers, "clicks", "earliest", "{idle: 5s}", "id, gender, liked", "    stream: {window: 1000, segment: gender}"))

    c.wait_running(id, lambda job: sum(w["rows"] for w in job.get("stream", [])) >= 2000)
    mock.say("down 1")
    time.sleep(0.3)
    mock.say("up 1")
    fill(0.3, 0.6)
    c.kill("worker-0", signal.SIGKILL)
    fill(0.6, 0.8)
    c.kill("worker-1", signal.SIGKILL)
    c.kill("coordinator", signal.SIGKILL)
    fill(0.8, 1)
    c.wait_api()
    done = c.wait(id, 60)
    took = time.time() - begin
    assert done["state"] == "SUCCEEDED" and done["restarts"] >= 1, done
    exact(c, id, flat)
    at, n = position(c, id)
    assert at == {p: n + 4 for p, n in enumerate(COUNTS)} and n == len(flat), (at, n)  # behind each partition's rows and its 4 tombstones
    windows = c.job(id)["stream"]
    assert [w["window"] for w in windows] == list(range(len(flat) // 1000)), [w["window"] for w in windows]
    assert all(w["rows"] <= 1000 and sum(s["rows"] for s in w["segments"].values()) == w["rows"] for w in windows)
    assert sum(w["rows"] < 1000 for w in windows) <= 4, windows  # each killed worker may leave one window short

    # plain training in JSON lines, from given offsets up to what is there; the second half of partition 1 is not read
    mock.say("topic json 2")
    for p in range(2):
        mock.put("json", p, ['{"id": "%s", "gender": "%s", "liked": %d}' % r for r in rows[p][:1000]])
    id = c.submit(JOB % ("jsonl", mock.brokers, "json", "[0, 400]", "latest", "id, gender", ""))
    done = c.wait(id, 60)
    assert done["state"] == "SUCCEEDED", done
    exact(c, id, rows[0][:1000] + rows[1][400:1000])

    # what cannot work is said in one line
    def fails(words, *what):
        id = c.submit(JOB % what)
        done = c.wait(id, 60)
        assert done["state"] == "FAILED" and words in done["reason"] and "\n" not in done["reason"], done

    mock.say("topic gone 2", )
    mock.say("unknown gone")
    fails('have no topic "gone"', "jsonl", mock.brokers, "gone", "earliest", "latest", "id", "")
    # a job that runs behind: what the topic has and no batch had, of both partitions, until they are done
    mock.say("topic late 2")
    lines = ['{"id": "%s", "gender": "%s", "liked": %d}' % r for r in rows[0][:510]]
    mock.put("late", 0, lines)
    mock.put("late", 1, lines)
    id = c.submit(JOB % ("jsonl", mock.brokers, "late", "earliest", "never", "id, gender", ""))
    def lag_is(n):
        c.wait_running(id, lambda job: job.get("lag") == n)
    lag_is(20)                         # ten of each: too few for a batch of 20
    assert f'pinion_stream_lag{{job="{id}"}} 20\n' in urllib.request.urlopen(c.info["coordinator"]["http"] + "/metrics").read().decode()
    mock.put("late", 0, lines[:10])
    lag_is(10)
    c.api("POST", f"/api/v1/jobs/{id}/cancel")
    c.wait(id, 60)
    fails("start is at offset 5000, but the log has 0 to 1000", "jsonl", mock.brokers, "json", "[5000]", "latest", "id", "")
    mock.say("topic one 1")
    fails("has 1 partition for 2 data shards", "jsonl", mock.brokers, "one", "earliest", "latest", "id", "")
    mock.say("topic bad 2")
    mock.put("bad", 0, ['{"id": "a", "liked": 1}', "no json"])
    mock.put("bad", 1, ['{"id": "a", "liked": 1}'])
    fails("topic bad[0]:1: no JSON", "jsonl", mock.brokers, "bad", "earliest", "latest", "id", "")

    # no broker: a line in the log, the job waits and can be cancelled
    id = c.submit(JOB % ("jsonl", "127.0.0.1:1", "json", "earliest", "latest", "id", ""))
    log = os.path.join(c.dir, "logs")
    until("no line says that no broker answers", lambda: any("127.0.0.1:1: none can be reached" in open(os.path.join(log, n)).read() for n in os.listdir(log) if n.startswith("worker")))
    job = c.job(id)
    assert job["state"] in LIVE, job
    assert run("cancel", id, "--dir", c.dir)[0] == 0
    assert c.wait(id, 20)["state"] == "CANCELLED"
    mock.p.stdin.close()
    mock.p.wait(10)
    print(f"figure kafka: {len(flat)} messages of 4 partitions, each once, over 2 killed workers, a killed coordinator and a broker that was down: {took:.1f} s; "
          f"{sum(w['rows'] < 1000 for w in windows)} of {len(windows)} windows short")
