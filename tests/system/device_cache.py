"""training.deviceCache in a worker whose module has the CUDA kernels as plain C++ (tests/parity/emulated.h): with staleness 0 a sync job has the same figures to the last bit
as without; with staleness 4 servers are asked for far fewer rows, the beats say how many, and the model is as good; a server that dies under the job is survived."""
import os
import shutil
import tempfile
import time
from cluster import BUILD, Cluster, http, skip, synth

if "san" in BUILD:
    skip("a sanitizer does not know fibers")
TEXT = """apiVersion: pinion/v1
kind: TrainingJob
metadata: {{name: hot}}
spec:
  data:
    train: {{format: csv, uri: "{dir}/train.csv", label: click, rows: {rows}}}
    test: {{format: csv, uri: "{dir}/test.csv", label: click, rows: 400}}
  features:
{features}
  tables: {{defaults: {{optimizer: {{name: adagrad, lr: 0.05}}, init: {{normal: 0.01}}}}}}
  model: {{name: fm, embeddingDim: 4}}
  optimizer: {{name: adam, lr: 0.01}}
  training: {{batchSize: 64, epochs: {epochs}, seed: 5, dataShards: 1, device: "cuda:0", inFlight: 2, {cache}consistency: {{mode: {mode}}}}}
"""
os.environ["PINION_CUDA_MODULE"] = os.path.join(BUILD, "tests", "parity", "libpinion-emulated.so")
tmp = tempfile.mkdtemp(prefix="pinion-hot-")
try:
    features = synth(tmp, 4000, 7)
    text = lambda cache, mode="async", epochs=1, rows=1500: TEXT.format(dir=tmp, features=features, cache=cache, mode=mode, epochs=epochs, rows=rows)
    with Cluster(ps=1, workers=1, serving=0) as c:
        def nodes(role):
            return [n for n in c.api("GET", "/api/v1/status")[1]["nodes"] if n["role"] == role]

        def pulled():  # of the last job: a server counts anew with each
            page = http("GET", nodes('ps')[0]['http'] + "/metrics")[1]
            return sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith("pinion_ps_rows_total") and 'op="pull"' in line)

        def train(what):
            done = c.wait(c.submit(what), 120)
            assert done["state"] == "SUCCEEDED", done
            time.sleep(0.3)  # a beat
            return done["test_logloss"], done["test_auc"], pulled()

        plain, zero = train(text("", "sync")), train(text("deviceCache: {rows: 20000, staleness: 0}, ", "sync"))
        print(f"sync without a cache {plain}, with staleness 0 {zero}")
        assert plain[:2] == zero[:2] and zero[2] > 0.9 * plain[2], (plain, zero)  # pulls that a server refuses before it is seeded come again
        plain, four = train(text("")), train(text("deviceCache: {rows: 20000, staleness: 4}, "))
        print(f"async without a cache {plain}, with staleness 4 {four}")
        assert four[2] < 0.8 * plain[2] and abs(four[1] - plain[1]) < 0.03 and abs(four[0] - plain[0]) < 0.03, (plain, four)
        synth(tmp, 6000, 8)
        id = c.submit(text("deviceCache: {rows: 20000, staleness: 4}, ", epochs=2, rows=3000))
        hot = {}

        def warm(job):
            hot.update(nodes("worker")[0].get("hot_rows", {}))
            return job["steps"] > 0 and hot.get("wanted", 0) > 5000 and hot.get("held", 0) > 0
        c.wait_running(id, warm)
        assert 0 < hot["pulled"] < hot["wanted"] and hot["held"] <= hot["pulled"] and hot["evicted"] == 0, hot
        page = http("GET", nodes('worker')[0]['http'] + "/metrics")[1]
        assert "pinion_worker_rows_wanted_total " in page and "pinion_worker_rows_held " in page, page
        c.kill("ps-0")
        done = c.wait(id, 120)
        print("a server killed under a job of hot rows:", done["state"], done["test_logloss"], done["test_auc"], hot)
        assert done["state"] == "SUCCEEDED" and done["restarts"] > 0 and done["samples"] == 6000 and done["loss"] < 0.65, done  # it goes on learning
finally:
    shutil.rmtree(tmp, ignore_errors=True)
