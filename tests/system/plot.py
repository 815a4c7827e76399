#!/usr/bin/env python3
"""The learning curve of a job as CSV, SVG and TensorBoard event files, by the command: points rise in samples, the loss is the producers' own, a restart of the coordinator keeps
them. A job that ranks all items has the figures of lists in them, an epoch a point, and nowhere a figure that was not measured, also in what submit prints. The event files are read by TensorBoard's own reader where it is installed, and always by one written here from the formats' descriptions."""
import csv
import os
import random
import signal
import struct
import tempfile
import xml.etree.ElementTree
from cluster import Cluster, run

def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def message(data):
    """A Protocol Buffers message as [(field, value)]: numbers, or bytes."""
    fields, at = [], 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            value |= (data[at] & 127) << shift
            shift += 7
            at += 1
            if data[at - 1] < 128:
                return value
    while at < len(data):
        key = varint()
        if key & 7 == 0:
            value = varint()
        elif key & 7 == 2:
            n = varint()
            value, at = data[at:at + n], at + n
        else:
            form = {1: "<d", 5: "<f"}[key & 7]
            value, at = struct.unpack_from(form, data, at)[0], at + struct.calcsize(form)
        fields.append((key >> 3, value))
    return fields


def events(run):
    """{tag: [(seconds, step, value)]} of a run's one event file, every checksum looked at."""
    (name,) = os.listdir(run)
    assert "tfevents" in name, name
    found, at = {}, 0
    with open(os.path.join(run, name), "rb") as f:
        data = f.read()
    while at < len(data):
        n, crc = struct.unpack_from("<QI", data, at)
        body = data[at + 12:at + 12 + n]
        assert crc == masked(data[at:at + 8]) and struct.unpack_from("<I", data, at + 12 + n)[0] == masked(body), (run, at)
        fields = dict(message(body))
        if at == 0:
            assert fields == {1: 0.0, 3: b"brain.Event:2"}, fields
        else:
            ((one, value),) = message(fields[5])
            value = dict(message(value))
            found.setdefault(value[1].decode(), []).append((fields[1], fields.get(2, 0), value[2]))
        at += 16 + n
    return found


assert crc32c(b"123456789") == 0xE3069283  # the value that the checksum is known by

RANKING = """apiVersion: pinion/v1
kind: TrainingJob
metadata: {{name: lists}}
spec:
  data:
    train: {{format: ncf, uri: "{dir}/train.rating", part: train, holdOut: {{seed: 2}}}}
    validation: {{format: ncf, uri: "{dir}/train.rating", part: held, holdOut: {{seed: 2}}, rankAll: ["{dir}/train.rating"]}}
    test: {{format: ncf, uri: "{dir}/test.rating", rankAll: ["{dir}/train.rating"]}}
    shuffle: {{buffer: 1000, seed: 1}}
  features:
    - {{name: user, type: categorical, table: users}}
    - {{name: item, type: categorical, table: items}}
  tables: {{defaults: {{optimizer: {{name: adam, lr: {lr}}}, init: {{normal: 0.01}}}}}}
  model: {{name: mf, embeddingDim: 8, bias: false}}
  training: {{batchSize: 50, epochs: 4, seed: 1, dataShards: 2, loss: {{name: "in-batch-softmax", temperature: 0.2}}, earlyStopping: {{metric: "recall@5", patience: 4}}, consistency: {{mode: sync}}}}
  validation: {{groupBy: user}}
"""
LISTS = ("hr", "ndcg", "recall", "mrr")


def lists_of(folder):
    """Two kinds of users, who have 8 of their kind's 20 items each and one more in the test file."""
    draw = random.Random(1)
    with open(os.path.join(folder, "train.rating"), "w") as train, open(os.path.join(folder, "test.rating"), "w") as test:
        for user in range(80):
            *had, wanted = draw.sample(range(user % 2 * 20, user % 2 * 20 + 20), 9)
            train.writelines(f"{user}\t{item}\t1\t0\n" for item in had)
            test.write(f"{user}\t{wanted}\t1\t0\n")


def ranking(c, folder, lr):
    """A job whose lists alone are measured. lr 0: each epoch measures the same, and is a point nevertheless."""
    name = os.path.join(folder, "lists.yaml")
    with open(name, "w") as f:
        f.write(RANKING.format(dir=folder, lr=lr))
    code, out, err = run("submit", name, "--dir", c.dir)
    assert code == 0, err
    id = out.split()[0]
    done = c.job(id)
    figure = {k: f"{done['test_' + k]:.4f}" for k in LISTS}
    assert out == f"{id} SUCCEEDED: test Recall@5 {figure['recall']}, HR@5 {figure['hr']}, NDCG@5 {figure['ndcg']}, MRR {figure['mrr']}\n", out
    assert f"validation Recall@5 {done['validation_recall']:.4f}, HR@5 " in err and "AUC" not in err, err
    code, out, _ = run("jobs", "--dir", c.dir)
    assert code == 0 and any(line.split()[0] == id and line.split()[4:7] == ["Recall@5", f"{done['validation_recall']:.4f}", figure["recall"]] for line in out.splitlines()), out
    assert not [k for k in done if k.endswith(("auc", "logloss", "_ne", "_ece", "_calibration"))] and not [e for e in done["history"] if "auc" in e], done
    csv_name, svg, board = (os.path.join(folder, n) for n in ("lists.csv", "lists.svg", "lists"))
    for args in (("--out", csv_name), ("--out", svg), ("--tensorboard", board)):
        code, out, err = run("plot", id, *args, "--dir", c.dir)
        assert code == 0, err
    with open(csv_name) as f:
        points = [r for r in csv.DictReader(f) if r["part"] == "validation"]
    assert [int(p["epoch"]) for p in points] == [1, 2, 3, 4] == [e["epoch"] for e in done["history"]], points
    samples = [int(p["samples"]) for p in points]
    assert samples == sorted(set(samples)) and samples[0] > 0, samples
    assert all(p["loss"] == p["auc"] == "" and all(abs(float(p[k]) - e[k]) < 1e-6 for k in LISTS) for p, e in zip(points, done["history"])), (points, done["history"])
    written = events(os.path.join(board, id, "validation"))
    assert set(written) == set(LISTS) and all([p[1] for p in written[k]] == samples for k in LISTS), written
    assert all(abs(p[2] - e[k]) < 1e-6 for k in LISTS for p, e in zip(written[k], done["history"])), written
    drawn = list(xml.etree.ElementTree.parse(svg).iter())
    assert {"HR@5", "NDCG@5", "Recall@5", "MRR"} <= {e.text for e in drawn} and not any("AUC" in (e.text or "") for e in drawn), [e.text for e in drawn]
    lines = [e.get("points").split() for e in drawn if e.tag.endswith("polyline")]
    assert [len(line) for line in lines[-4:]] == [4, 4, 4, 4], lines
    return done, len({p["ndcg"] for p in points})


with tempfile.TemporaryDirectory() as folder, Cluster(ps=1, workers=2, serving=0) as c:
    code, out, err = run("synth", "--rows", "900000", "--out", folder)
    assert code == 0, err
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "docs", "jobs", "synth-deepfm.yaml")) as f:
        text = f.read().replace("${PINION_DATA}", folder)
    id = c.submit(text)
    done = c.wait(id, 120)
    assert done["state"] == "SUCCEEDED", done

    def plotted():
        name = os.path.join(folder, "curve.csv")
        code, out, err = run("plot", id, "--out", name, "--dir", c.dir)
        assert code == 0, err
        with open(name) as f:
            return list(csv.DictReader(f))
    rows = plotted()
    train, validation = [r for r in rows if r["part"] == "train"], [r for r in rows if r["part"] == "validation"]
    assert len(train) >= 2 and len(validation) >= 1, rows
    samples = [int(r["samples"]) for r in train]
    assert samples == sorted(samples) and samples[-1] <= done["samples"], samples
    assert all(0.2 < float(r["loss"]) < 1.0 for r in rows), rows
    assert float(train[-1]["loss"]) < float(train[0]["loss"]), train
    assert abs(float(validation[-1]["auc"]) - done["validation_auc"]) < 0.02, (validation, done)
    svg = os.path.join(folder, "curve.svg")
    code, out, err = run("plot", id, "--out", svg, "--dir", c.dir)
    assert code == 0, err
    lines = [e for e in xml.etree.ElementTree.parse(svg).iter() if e.tag.endswith("polyline")]
    assert len(lines) >= 1 and len(lines[0].get("points").split()) == len(train), svg
    board = os.path.join(folder, "some", "board")
    for _ in range(2):  # the second time in place of the first
        code, out, err = run("plot", id, "--tensorboard", board, "--dir", c.dir)
        assert code == 0 and board in out, err
    runs = {name: events(os.path.join(board, id, name)) for name in os.listdir(os.path.join(board, id))}
    assert set(runs) == {"train", "validation"} and set(runs["train"]) == {"loss"} and set(runs["validation"]) == {"loss", "auc", "ne", "calibration"}, runs
    assert not [k for k in done if "head" in k or k.endswith(LISTS)], done  # it has no further labels, and ranks no lists

    def same(points, part, column):
        wanted = [r for r in rows if r["part"] == part]
        return len(points) == len(wanted) and all(abs(p[0] - float(r["seconds"])) < 0.002 and p[1] == int(r["samples"]) and abs(p[2] - float(r[column])) < 2e-6 for p, r in zip(points, wanted))
    assert same(runs["train"]["loss"], "train", "loss") and same(runs["validation"]["loss"], "validation", "loss") and same(runs["validation"]["auc"], "validation", "auc"), runs
    reader = "its own reader was not installed"
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError:
        EventAccumulator = None
    if EventAccumulator is not None:
        reader = "read by TensorBoard, too"
        for name, tags in runs.items():
            theirs = EventAccumulator(os.path.join(board, id, name), size_guidance={"scalars": 0})
            theirs.Reload()
            assert sorted(theirs.Tags()["scalars"]) == sorted(tags), theirs.Tags()
            for tag, points in tags.items():
                assert [(e.wall_time, e.step, e.value) for e in theirs.Scalars(tag)] == points, tag
    c.kill("coordinator", signal.SIGKILL)
    c.wait_api()
    assert plotted() == rows
    assert run("plot", "job-99", "--out", svg, "--dir", c.dir)[0] == 4
    assert run("plot", id, "--out", "curve.png", "--dir", c.dir)[0] == 2
    lists_of(folder)
    still, values = ranking(c, folder, "0")
    assert values == 1 and still["best_epoch"] == 1, still
    learned, values = ranking(c, folder, "0.05")
    assert values > 1 and learned["test_recall"] > still["test_recall"], (learned, still)
    print(f"figure curve of {len(train)} points of training and {len(validation)} of validation, the same behind a killed coordinator; event files: {reader}")
