#!/usr/bin/env python3
"""Rows that a worker reads from a list of files, a pattern, a folder, from JSON lines, and from Parquet, by itself and by `pinion convert`, train the same model bit by bit. And a worker's memory does not
grow with the data: VmHWM on ten times the rows (the replay ring, which grows up to checkpoint.ringBytes, is kept small); but for the pairs of users and items that negatives are drawn beside. DuckDB goes into a virtual environment under build/; without it the Parquet part is left out, and said so."""
import gzip
import json
import os
import subprocess
import sys
import tempfile
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


MULTI = """
apiVersion: pinion/v1
kind: TrainingJob
metadata: {name: lists}
spec:
  data: {train: {%s, label: click}, test: {%s, label: click}}
  features:
    - {name: user, type: categorical}
    - {name: tags, type: multi, pooling: mean}
    - {name: hour, type: numeric, default: -1}
    - {name: new, type: categorical}
  model: {name: deepfm, embeddingDim: 4, hidden: [8]}
  optimizer: {name: adam, lr: 0.01}
  training: {batchSize: 64, dataShards: 1, epochs: 1, seed: 1, consistency: {mode: sync}}
"""


PAIRS = """
apiVersion: pinion/v1
kind: TrainingJob
metadata: {name: pairs}
spec:
  data: {train: {%s}, shuffle: {buffer: 500, seed: 3}}
  features: [{name: user, type: categorical, table: users}, {name: item, type: categorical, table: items}]
  model: {name: mf, embeddingDim: 4}
  checkpoint: {ringBytes: 1Mi}
  training: {batchSize: 2048, dataShards: 1, epochs: 1, seed: 1, consistency: {mode: sync}}
"""
ACTIONS = """
apiVersion: pinion/v1
kind: TrainingJob
metadata: {name: actions}
spec:
  data: {train: {%s, part: train, history: 10}, shuffle: {buffer: 500, seed: 3}}
  features: [{name: history, type: sequence, maxLength: 10, hash: {share: item}}, {name: target, type: sequence, maxLength: 10, hash: {share: item}}, {name: negatives, type: sequence, maxLength: 1000, hash: {share: item}}]
  model: {name: sasrec, embeddingDim: 4, sequence: {fields: [history], target: target, negatives: negatives, loss: softmax, blocks: 1}}
  optimizer: {name: adam, lr: 0.01}
  checkpoint: {ringBytes: 1Mi}
  training: {batchSize: 256, dataShards: 1, epochs: 1, seed: 1, consistency: {mode: sync}}
"""


def lists_and_nothing(c, at, parquet):
    """Lists, nulls, text that CSV has to quote, booleans: what the same CSV file says."""
    with open(at("multi.csv"), "w") as f:
        f.write("user,tags,hour,new,click\n")
        for i in range(3000):
            user = f'"u, ""{i % 50}"""' if i % 3 else ""
            f.write(f"{user},{'|'.join(f't{k}' for k in range(i % 7, i % 7 + i % 4))},{'' if i % 5 == 0 else i % 24},{i % 2},{int(i * 2654435761 >> 9) % 3 == 0:d}\n")
    parquet(f"""SELECT user, string_split(tags, '|') AS tags, hour::TINYINT AS hour, new::INT = 1 AS new, click::BOOLEAN AS click FROM read_csv('{at('multi.csv')}', nullstr = '')""", "multi.parquet", 2048)
    seen = []
    for source in (f'format: csv, uri: "{at("multi.csv")}"', f'format: parquet, uri: "{at("multi.parquet")}"'):
        done = c.wait(c.submit(MULTI % (source, source)), 60)
        assert done["state"] == "SUCCEEDED", done
        seen.append((done["test_auc"], done["test_logloss"], done["test_rows"]))
    assert seen[0] == seen[1] and seen[0][2] == 3000, seen


def refused(c, at, parquet):
    """Each with one line that says what, where and what there is."""
    parquet("SELECT 1 AS user, 2 AS item, 3 AS hour", "nolabel.parquet")
    with open(at("one.parquet"), "rb") as f:
        whole = f.read()
    with open(at("cut.parquet"), "wb") as f:
        f.write(whole[:len(whole) // 2])
    with open(at("damaged.parquet"), "wb") as f:
        f.write(whole[:400] + bytes(2000) + whole[2400:])
    for uri, more, words in (("nolabel.parquet", "", 'no column "click"'), ("one.csv", "", "cannot be read as Parquet"), ("cut.parquet", "", "cannot be read as Parquet"), ("damaged.parquet", "", "cannot be read as Parquet"),
                             ("none.parquet", "", "none.parquet"), ("one.parquet", ", columns: [user, item, hours]", "it has user, item, hour, click"), ("types.parquet", ", columns: [user, m]", "no value of a feature")):
        source = f'format: parquet, uri: "{at(uri)}"{more}'
        done = c.wait(c.submit(JOB % (source, source, 64, 1)), 60)
        assert done["state"] == "FAILED" and words in done["reason"] and uri in done["reason"] and "\n" not in done["reason"], (uri, done["state"], done.get("reason"))


def killed(c, path):
    """A worker that dies in the middle goes on in the middle: every row once an epoch, as the bits show."""
    source = f'format: parquet, uri: "{path}"'
    seen = []
    for kill in (False, True):
        id = c.submit(JOB % (source, source, 64, 40))
        if kill:
            c.wait_steps(id, 1000)
            c.kill("worker-0")
        done = c.wait(id, 60)
        assert done["state"] == "SUCCEEDED" and done["steps"] == 40 * 94 and (done["restarts"] > 0) == kill, done
        seen.append((done["test_auc"], done["test_logloss"]))
    assert seen[0] == seen[1], seen


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
        os.environ["PINION_DUCKDB"] = library  # for the clusters' workers

        def parquet(select, name, group=2048):
            """select's rows as a file in groups of so many."""
            sql = f"COPY ({select}) TO '{at(name)}' (FORMAT parquet, ROW_GROUP_SIZE {group})"
            subprocess.run([python, "-c", f"import duckdb; duckdb.sql('SET threads = 1'); duckdb.sql({sql!r})"], check=True)
        parquet(f"SELECT * FROM read_csv('{at('one.csv')}')", "one.parquet")
        parquet(f"SELECT * FROM read_csv('{at('one.csv')}') LIMIT 2500", "x-1.parquet")
        parquet(f"SELECT * FROM read_csv('{at('one.csv')}') OFFSET 2500", "x-2.parquet")
        # other types of the same values, in another order, beside columns that no feature can take
        parquet(f"SELECT click = 1 AS click, {{a: 1}} AS \"s,t\", hour::DOUBLE AS hour, item::UBIGINT AS item, user, map([1], [2]) AS m FROM read_csv('{at('one.csv')}')", "types.parquet")
        code, out, err = run("convert", at("one.parquet"), at("parquet.csv.zst"), "--duckdb", library)
        assert code == 0, err
        assert subprocess.run(["zstd", "-dcq", at("parquet.csv.zst")], capture_output=True, text=True).stdout == head + "".join(lines)
        code, out, err = run("convert", at("one.csv"), at("no.csv"), "--duckdb", library)  # no Parquet file
        assert code == 1 and "DuckDB: " in err and err.count("\n") == 1 and not os.path.exists(at("no.csv")) and not os.path.exists(at("no.csv.part")), err
        sources["converted"] = f'format: csv, uri: "{at("parquet.csv.zst")}"'
        sources["parquet"] = f'format: parquet, uri: "{at("one.parquet")}"'
        sources["parquet, a pattern"] = f'format: parquet, uri: "{at("x-*.parquet")}"'
        sources["parquet, other types"] = f'format: parquet, uri: "{at("types.parquet")}", columns: [user, item, hour]'
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
        if python is not None:
            lists_and_nothing(c, at, parquet)
            refused(c, at, parquet)
            killed(c, at("one.parquet"))

    def worker_peak(n, format="csv"):
        if format == "parquet":
            parquet(f"SELECT 'u' || (i * 7919 % 301) AS user, i * 104729 % 97 AS item, i % 24 AS hour, i % 2 AS click FROM range({n}) t(i)", f"{n}.parquet", 20480)
        else:
            with open(at(f"{n}.csv"), "w") as f:
                f.write(head)
                f.writelines(f"u{i * 7919 % 301},{i * 104729 % 97},{i % 24},{i % 2}\n" for i in range(n))
        small = f'format: csv, uri: "{at("one.csv")}"'
        return peak_of(JOB % (f'format: {format}, uri: "{at(f"{n}.{format}")}"', small, 512, 1), n)

    def peak_of(text, samples):
        """kB at the peak of a new worker."""
        with Cluster(ps=1, workers=1, serving=0) as c:
            done = c.wait(c.submit(text), 200)
            assert done["state"] == "SUCCEEDED" and done["samples"] == samples, done
            return peak(c, "worker-0")

    def pairs_peak(n, format, negatives=""):
        """Of n different pairs of 3,000 users and 997 items; s3rec: of n actions, ten a user, 997 items."""
        path = at(f"{n}.{format}")
        if not os.path.exists(path):
            of = lambda u: ((i + u * 7) % 997 + 1 for i in range(10 if format == "s3rec" else n // 3000))
            with open(path, "w") as f:
                for u in range(1, (n // 10 if format == "s3rec" else 3000) + 1):
                    f.write("".join(f"{u}\t{i}\t5\n" for i in of(u)) if format == "ncf" else f"{u} {' '.join(map(str, of(u)))}\n")
        source = f'format: {format}, uri: "{path}"{negatives}'
        return peak_of(ACTIONS % source, n // 10) if format == "s3rec" else peak_of(PAIRS % source, n * (2 if negatives else 1))
    few, many = worker_peak(60000), worker_peak(600000)
    assert many < few * 1.15 + 2048, (few, many)  # kB; what ten times the rows would add: 9 MB of text alone
    os.environ["MALLOC_ARENA_MAX"] = "1"  # else it is chance whose arena a work thread's freed memory is in
    for format in ("ncf", "lightgcn", "s3rec"):
        few_pairs, many_pairs = pairs_peak(60000, format), pairs_peak(600000, format)
        print(f"figure peak memory of a worker that reads {format} {few_pairs / 1024:.1f} MB on 60,000 pairs, {many_pairs / 1024:.1f} MB on 600,000")
        assert many_pairs < few_pairs * 1.15 + 2048, (format, few_pairs, many_pairs)
    # negatives: the pairs are kept, in a set between a quarter and half full; the memory of the smaller ones before it, together not more, stays with the process
    few_pairs, many_pairs = (pairs_peak(n, "ncf", ", negatives: {perPositive: 1, seed: 1}") for n in (60000, 600000))
    print(f"figure a worker that draws negatives for ncf has {(many_pairs - few_pairs) * 1024 / 540000:.0f} bytes a pair at its peak")
    assert 16 * 540000 < (many_pairs - few_pairs) * 1024 < 64 * 540000 + (4 << 20), (few_pairs, many_pairs)  # a second set of them would be 30 MB more
    del os.environ["MALLOC_ARENA_MAX"]
    if python is not None:
        few_parquet, many_parquet = worker_peak(600000, "parquet"), worker_peak(2400000, "parquet")
        print(f"figure peak memory of a worker that reads Parquet {few_parquet / 1024:.1f} MB on 600,000 rows, {many_parquet / 1024:.1f} MB on 2,400,000")
        assert many_parquet < few_parquet + 96 * 1024, (few_parquet, many_parquet)  # it wavers by 40; a result that is not streamed adds 220
    print(f"figure the same model from {', '.join(figures)}{'' if python else ' (Parquet left out: ' + library + ')'}; peak memory of a worker {few / 1024:.1f} MB on 60,000 rows, {many / 1024:.1f} MB on 600,000")
