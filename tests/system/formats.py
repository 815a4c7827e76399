#!/usr/bin/env python3
"""Rows that a worker reads from a list of files, a pattern, a folder, from JSON lines, and from Parquet by `pinion convert` train the same model bit by bit. And a worker's memory does not grow
with the data: VmHWM on ten times the rows (the replay ring, which grows up to checkpoint.ringBytes, is kept small). DuckDB goes into a virtual environment under build/; without it the Parquet part is left out, and said so."""
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from cluster import BUILD, Cluster, run

JOB = """
apiVersion: pinion/v1
kind: TrainingJob
metadata: {name: formats}
spec:
  data:
    train: {%s, label: click}
    test: {%s, label: click}
    shuffle: {buffer: 500, seed: 3}
  features:
    - {name: user, type: categorical}
    - {name: item, type: categorical}
    - {name: hour, type: numeric, transform: [log1p, standardize]}
  model: {name: deepfm, embeddingDim: 4, hidden: [8]}
  optimizer: {name: adam, lr: 0.01}
  checkpoint: {ringBytes: 1Mi}
  training: {batchSize: %d, dataShards: 1, epochs: %d, seed: 1, consistency: {mode: sync}}
"""


def duckdb():
    """(python, library) of a virtual environment with DuckDB, or None and why."""
    venv = os.path.join(BUILD, "duckdb-venv")
    python = os.path.join(venv, "bin", "python")
    for step in [] if os.path.exists(os.path.join(venv, "done")) else [[sys.executable, "-m", "venv", venv], [python, "-m", "pip", "install", "-q", "duckdb"]]:
        try:
            p = subprocess.run(step, capture_output=True, text=True, timeout=200)
        except (OSError, subprocess.TimeoutExpired) as e:
            return None, str(e)
        if p.returncode != 0:
            return None, (p.stderr.strip() or p.stdout.strip()).split("\n")[-1][:150]
    open(os.path.join(venv, "done"), "w").close()
    p = subprocess.run([python, "-c", "import _duckdb; print(_duckdb.__file__)"], capture_output=True, text=True)
    return (python, p.stdout.strip()) if p.returncode == 0 else (None, p.stderr.strip()[-150:])


def row(i):
    return f"u{i * 7919 % 301}", i * 104729 % 97, i % 24, int((i * 2654435761 >> 7) % 5 < 2)


def peak(c, name):
    with open(f"/proc/{c.pids()[name]}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmHWM"))


with tempfile.TemporaryDirectory() as folder:
    at = lambda name: os.path.join(folder, name)
    rows = [row(i) for i in range(6000)]
    lines = [f"{u},{i},{h},{y}\n" for u, i, h, y in rows]
    head = "user,item,hour,click\n"
    with open(at("one.csv"), "w") as f:
        f.writelines([head] + lines)
    with open(at("a.csv"), "w") as f:
        f.writelines([head] + lines[:1234])
    with gzip.open(at("b.csv.gz"), "wt") as f:
        f.writelines([head] + lines[1234:4000])
    with open(at("c.csv"), "w") as f:
        f.writelines([head] + lines[4000:])
    assert subprocess.run(["zstd", "-q", "--rm", at("c.csv")]).returncode == 0
    with open(at("one.jsonl"), "w") as f:
        f.writelines(json.dumps({"click": y, "hour": h, "item": i, "user": u}) + "\n" for u, i, h, y in rows)
    os.mkdir(at("day"))
    for name in ("a.csv", "b.csv.gz", "c.csv.zst"):
        os.link(at(name), os.path.join(at("day"), name))
    with open(os.path.join(at("day"), "_SUCCESS"), "w"):
        pass
    sources = {"pattern": f'format: csv, uri: "{at("[abc]*.csv")}"', "folder": f'format: csv, uri: "{at("day")}/"', "csv": f'format: csv, uri: "{at("one.csv")}"', "list": f'format: csv, uri: ["{at("a.csv")}", "{at("b.csv")}", "{at("c.csv.zst")}"]',
               "jsonl": f'format: jsonl, columns: [user, item, hour], uri: "{at("one.jsonl")}"'}
    python, library = duckdb()
    if python is not None:
        sql = f"COPY (SELECT * FROM read_csv('{at('one.csv')}')) TO '{at('one.parquet')}'"
        subprocess.run([python, "-c", f"import duckdb; duckdb.sql({sql!r})"], check=True)
        code, out, err = run("convert", at("one.parquet"), at("parquet.csv.zst"), "--duckdb", library)
        assert code == 0, err
        assert subprocess.run(["zstd", "-dcq", at("parquet.csv.zst")], capture_output=True, text=True).stdout == head + "".join(lines)
        code, out, err = run("convert", at("one.csv"), at("no.csv"), "--duckdb", library)  # no Parquet file
        assert code == 1 and "DuckDB: " in err and err.count("\n") == 1 and not os.path.exists(at("no.csv")) and not os.path.exists(at("no.csv.part")), err
        sources["parquet"] = f'format: csv, uri: "{at("parquet.csv.zst")}"'
    assert run("convert", at("one.parquet"), at("x.txt"), "--duckdb", "x")[0] == 2
    code, out, err = run("convert", at("one.parquet"), at("x.csv"), "--duckdb", at("nothing.so"))
    assert code == 1 and "pip install duckdb" in err, err

    with Cluster(ps=1, workers=1, serving=0) as c:
        figures = {}
        for name, source in sources.items():
            done = c.wait(c.submit(JOB % (source, source, 64, 2)), 60)
            assert done["state"] == "SUCCEEDED", (name, done)
            figures[name] = (done["test_auc"], done["test_logloss"], done["test_rows"], done["samples"])
        status, body = c.api("POST", "/api/v1/jobs", {"text": JOB % (f'format: csv, uri: "{at("d*.csv")}"', sources["csv"], 64, 1), "file": "job.yaml", "base": folder, "key": "none"})
        assert status == 400 and "no file fits" in body["error"] and "\n" not in body["error"], (status, body)
        assert len(set(figures.values())) == 1 and figures["csv"][2:] == (6000, 12000), figures

    def worker_peak(n):
        path = at(f"{n}.csv")
        with open(path, "w") as f:
            f.write(head)
            f.writelines(f"u{i * 7919 % 301},{i * 104729 % 97},{i % 24},{i % 2}\n" for i in range(n))
        with Cluster(ps=1, workers=1, serving=0) as c:
            small = f'format: csv, uri: "{at("one.csv")}"'
            done = c.wait(c.submit(JOB % (f'format: csv, uri: "{path}"', small, 512, 1)), 200)
            assert done["state"] == "SUCCEEDED" and done["samples"] == n, done
            return peak(c, "worker-0")
    few, many = worker_peak(60000), worker_peak(600000)
    assert many < few * 1.15 + 2048, (few, many)  # kB; what ten times the rows would add: 9 MB of text alone
    print(f"figure the same model from {', '.join(figures)}{'' if python else ' (Parquet left out: ' + library + ')'}; peak memory of a worker {few / 1024:.1f} MB on 60,000 rows, {many / 1024:.1f} MB on 600,000")
