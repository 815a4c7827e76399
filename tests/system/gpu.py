"""Where a worker computes, on one device or several. Without a GPU `device: cuda:0` fails the job with one line and `auto` trains on the CPU. The way of a step through a device (two steps in
flight, graphs, gradients pushed as usual) is walked by a worker whose module has the CUDA kernels as plain C++ (tests/parity/emulated.h): it must learn what the CPU learns, and
several devices of it, which share a batch out and sum, what one does."""
import os
import shutil
import tempfile
import time
from cluster import BUILD, Cluster, skip, synth

if "san" in BUILD:
    skip("a sanitizer does not know fibers")
TEXT = """apiVersion: pinion/v1
kind: TrainingJob
metadata: {{name: gpu}}
spec:
  data:
    train: {{format: csv, uri: "{dir}/train.csv", label: click, rows: 2500}}
    test: {{format: csv, uri: "{dir}/test.csv", label: click, rows: 400}}
  features:
{features}
  tables: {{defaults: {{optimizer: {{name: adagrad, lr: 0.05}}, init: {{normal: 0.01}}}}}}
  model: {{name: deepfm, embeddingDim: 4, hidden: [16, 8], dropout: 0.1}}
  optimizer: {{name: adam, lr: 0.01}}
  training: {{batchSize: 128, epochs: 1, seed: 5, dataShards: {shards}, device: "{device}", consistency: {{mode: {mode}}}}}
"""
PRIVATE = """apiVersion: pinion/v1
kind: TrainingJob
metadata: {{name: private}}
spec:
  data:
    train: {{format: csv, uri: "{dir}/train.csv", label: click}}
    test: {{format: csv, uri: "{dir}/test.csv", label: click, rows: 400}}
  features:
    - {{name: item, type: categorical, buckets: 64}}
    - {{name: genre, type: categorical, buckets: 32}}
  tables: {{defaults: {{optimizer: {{name: adagrad, lr: 0.05}}, init: {{normal: 0.01}}}}}}
  model: {{name: deepfm, embeddingDim: 4, hidden: [8]}}
  optimizer: {{name: adam, lr: 0.01}}
  training: {{batchSize: 200, epochs: 1, seed: 5, dataShards: 1, device: "{device}"{more}, consistency: {{mode: async}}}}
  privacy: {{rows: 3000, epsilon: 8, delta: 1.0e-4, budget: 60, clip: 1, selection: dense, dataset: d}}
"""
# ... of users, about three rows each, with what they had before
USERS = (PRIVATE.replace("name: private", "name: users").replace("rows: 3000", "unit: user, userField: user, users: 1000, examplesPerUser: 4").replace("train.csv", "history.csv")
         .replace("    - {{name: genre", "    - {{name: history, type: sequence, maxLength: 4, buckets: 64, hash: {{share: item}}}}\n    - {{name: genre")
         .replace("hidden: [8]", "hidden: [8], sequence: {{fields: [history], candidate: item, blocks: 1, heads: 2, width: 8, feedForward: 8}}").replace("dataset: d", "dataset: u")
         .replace("batchSize: 200", "batchSize: 100").replace('    test: {{format: csv, uri: "{dir}/test.csv", label: click, rows: 400}}\n', '    test: {{format: csv, uri: "{dir}/history.csv", label: click, rows: 400}}\n'))


def with_history(folder):
    """train.csv once more, with each row's user's items before it."""
    had = {}
    with open(os.path.join(folder, "train.csv")) as rows, open(os.path.join(folder, "history.csv"), "w") as out:
        print(rows.readline().strip() + ",history", file=out)
        for row in rows:
            user, item = row.split(",")[1:3]
            print(row.strip() + "," + "|".join(had.setdefault(user, [])[-4:]), file=out)
            had[user].append(item)


emulated = os.path.join(BUILD, "tests", "parity", "libpinion-emulated.so")
nvidia = os.path.exists("/dev/nvidiactl")
tmp = tempfile.mkdtemp(prefix="pinion-gpu-")
try:
    features = synth(tmp, 4000, 7)
    with_history(tmp)
    text = lambda device, mode="sync", shards=2: TEXT.format(dir=tmp, features=features, device=device, mode=mode, shards=shards)

    def train(c, what):
        """What the test rows say of the job's model, and the last seconds of stages on a device."""
        id, stages = c.submit(what), {}
        while (done := c.job(id))["state"] not in ("SUCCEEDED", "FAILED", "CANCELLED"):
            stages = next((n["stages"] for n in c.api("GET", "/api/v1/status")[1]["nodes"] if "kernels" in n.get("stages", {})), stages)
            time.sleep(0.02)
        assert done["state"] == "SUCCEEDED", done
        print("seconds of stages:", stages)
        assert all(stages[s] > 0 for s in ("compute", "copy_in", "kernels", "copy_out")), stages
        return (done["test_logloss"], done["test_auc"]), stages

    figures = {}
    with Cluster(ps=1, workers=1, serving=0) as c:
        done = c.wait(c.submit(text("cuda:63")), 60)
        assert done["state"] == "FAILED" and "cuda:63: " in done["reason"] and "\n" not in done["reason"], done
        print("cuda:63:", done["reason"])
        if not nvidia:
            done = c.wait(c.submit(text("cuda:0")), 60)
            assert done["state"] == "FAILED" and "training.device cuda:0: no CUDA device on this machine" in done["reason"], done
        for device in ("cpu", "auto"):
            done = c.wait(c.submit(text(device)), 60)
            assert done["state"] == "SUCCEEDED", done
            figures[device] = done["test_logloss"], done["test_auc"]
    if not nvidia:
        assert figures["cpu"] == figures["auto"], figures
    os.environ["PINION_CUDA_MODULE"] = emulated
    with Cluster(ps=1, workers=1, serving=0) as c:
        for device, mode in (("cuda:0", "sync"), ("auto", "async")):
            figures[f"emulated {device} {mode}"], stages = train(c, text(device, mode))
            assert "all_reduce" not in stages, stages
        private = {}
        for unit, job in (("example", PRIVATE), ("user", USERS)):
            for device in ("cpu", "cuda:0"):
                done = c.wait(c.submit(job.format(dir=tmp, device=device, more="")), 400)
                assert done["state"] == "SUCCEEDED", done
                private[unit, device] = done["test_logloss"]
            print(f"private by {unit}, by the CPU and by the device, each with its own noise: log loss", private)
            assert abs(private[unit, "cpu"] - private[unit, "cuda:0"]) < 0.1, private
        done = c.wait(c.submit(PRIVATE.format(dir=tmp, device="cuda:0", more=", precision: tf32")), 60)
        assert done["state"] == "FAILED" and "float32" in done["reason"], done
        done = c.wait(c.submit(text("cuda:1")), 60)
        assert done["state"] == "FAILED" and "cuda:1: this machine has 1 CUDA device" in done["reason"], done
        with open(os.path.join(c.dir, "logs", "worker-0.log")) as f:
            assert "computes on emulated:0" in f.read()
    os.environ["PINION_EMULATED_DEVICES"] = "3"
    with Cluster(ps=1, workers=1, serving=0) as c:
        several = {}
        for device, mode, shards in (("cuda:1", "sync", 1), ("cuda:0,1", "sync", 1), ("cuda:all", "sync", 1), ("cuda:0,2", "sync", 2), ("cuda:1,2", "async", 2)):
            several[device], stages = train(c, text(device, mode, shards))
            figures[f"{device} of three, {mode}, {shards} shards"] = several[device]
            assert ("all_reduce" in stages) == (device != "cuda:1"), stages
        done = c.wait(c.submit(text("cuda:0,3")), 60)
        assert done["state"] == "FAILED" and "cuda:0,3: this machine has 3 CUDA devices, from cuda:0 on" in done["reason"], done
        for unit, job in (("example", PRIVATE), ("user", USERS)):
            done = c.wait(c.submit(job.format(dir=tmp, device="cuda:0,1", more="")), 400)
            assert done["state"] == "SUCCEEDED" and abs(done["test_logloss"] - private[unit, "cuda:0"]) < 0.1, (unit, done, private)
        status, body = c.api("POST", "/api/v1/jobs", {"text": text("cuda:0,1").replace("dropout: 0.1", "norm: batch"), "file": "job.yaml", "base": tmp, "key": "norm"})
        assert status == 400 and "batch norm takes its statistics of the whole batch" in body["error"], (status, body)
        with open(os.path.join(c.dir, "logs", "worker-0.log")) as f:
            log = f.read()
        assert all(f"computes on emulated:{numbers}" in log for numbers in ("1", "0,1", "0,1,2", "0,2", "1,2")), log
    for name, figure in figures.items():
        print(f"{name}: log loss {figure[0]:.6f}, AUC {figure[1]:.6f}")
    cpu, gpu = figures["cpu"], figures["emulated cuda:0 sync"]
    assert abs(cpu[0] - gpu[0]) < 1e-4 and abs(cpu[1] - gpu[1]) < 2e-3, figures
    assert abs(cpu[0] - figures["emulated auto async"][0]) < 0.1, figures
    # of the parts' sums only the last digits differ; one shard's examples are in one order
    for device in ("cuda:0,1", "cuda:all"):
        assert all(abs(a - b) < 1e-4 for a, b in zip(several[device], several["cuda:1"])), (device, several)
    assert abs(cpu[0] - several["cuda:0,2"][0]) < 1e-4 and abs(cpu[1] - several["cuda:0,2"][1]) < 2e-3, figures
    assert abs(cpu[0] - several["cuda:1,2"][0]) < 0.1, figures
finally:
    shutil.rmtree(tmp, ignore_errors=True)
