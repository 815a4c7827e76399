#!/usr/bin/env python3
"""The learning curve of a job as CSV and SVG, by the command: points rise in samples, the loss is the producers' own, a restart of the coordinator keeps them."""
import csv
import os
import signal
import sys
import tempfile
import xml.etree.ElementTree
from cluster import Cluster, run

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
    c.kill("coordinator", signal.SIGKILL)
    c.wait_api()
    assert plotted() == rows
    assert run("plot", "job-99", "--out", svg, "--dir", c.dir)[0] == 4
    assert run("plot", id, "--out", "curve.png", "--dir", c.dir)[0] == 2
    print(f"figure curve of {len(train)} points of training and {len(validation)} of validation, the same behind a killed coordinator")
