"""The main job on real data: ML-100K (u1) and the Criteo sample reach their figures through real servers, asynchronously with 2
workers; asynchronous stays within .005 AUC of 1 worker synchronous; the published version ranks; a rollback goes back."""
import os
import sys
from cluster import Cluster, ROOT, SLOW, data, http, skip

quick = "--quick" in sys.argv


def train(dir_name, job, workers=2, change=lambda t: t):
    folder = data(dir_name)
    with open(os.path.join(ROOT, "docs", "jobs", job)) as f:
        text = change(f.read().replace("${PINION_DATA}", folder))
    with Cluster(ps=2, workers=workers, serving=1) as c:
        id = c.submit(text)
        done = c.wait(id, 240)
        assert done["state"] == "SUCCEEDED", done
        return c, done, (rank(c, id) if dir_name == "ml-100k" and workers == 2 else None)


def rank(c, id):
    """Publishes twice, ranks, rolls back."""
    status, body = c.api("POST", f"/api/v1/jobs/{id}/publish", {})
    assert status == 200, body
    model = body.get("model") or c.api("GET", "/api/v1/models")[1]["models"][0]["name"]
    url = c.info["serving"][0]["http"] if isinstance(c.info.get("serving"), list) else c.info["serving"]["http"]
    import time
    end = time.time() + 20 * SLOW
    def version():
        s, b = http("GET", f"{url}/v2/models/{model}")
        return (b["versions"] if s == 200 else [])
    while time.time() < end and str(body["version"]) not in version():
        time.sleep(0.05)
    assert str(body["version"]) in version(), version()
    columns = {"user": "196", "age": "49", "gender": "M", "occupation": "writer", "zip": "55", "hour": "15", "weekday": "4"}
    inputs = [{"name": k, "shape": [1, 1], "datatype": "BYTES", "data": [v]} for k, v in columns.items()]
    items = [str(i + 1) for i in range(100)]
    inputs += [{"name": "item", "shape": [100, 1], "datatype": "BYTES", "data": items},
               {"name": "genres", "shape": [1, 1], "datatype": "BYTES", "data": ["Comedy"]},
               {"name": "decade", "shape": [1, 1], "datatype": "BYTES", "data": ["1990"]}]
    status, answer = http("POST", f"{url}/v2/models/{model}/infer", {"id": "1", "parameters": {"top_k": 10}, "inputs": inputs})
    assert status == 200, answer
    scores = next(o for o in answer["outputs"] if o["name"] == "score")["data"]
    assert len(scores) == 10 and scores == sorted(scores, reverse=True) and all(0 < s < 1 for s in scores), scores
    before = [int(v) for v in version()]
    status, body = c.api("POST", f"/api/v1/models/{model}/rollback", {})
    assert status == 200, body
    end = time.time() + 20 * SLOW
    while time.time() < end:
        status, answer = http("POST", f"{url}/v2/models/{model}/infer", {"inputs": inputs})
        if status == 200 and int(answer["model_version"]) < max(before):
            return
        time.sleep(0.05)
    raise AssertionError(f"rollback did not reach the replica: {answer}")


if not data("ml-100k"):
    skip("no ../shared/data/ml-100k")
_, two, _ = train("ml-100k", "movielens-deepfm.yaml")
print(f"figure movielens-100k u1 test AUC {two['test_auc']:.4f} (at least 0.79), log loss {two['test_logloss']:.4f}, "
      f"{two['samples_per_s_mean']:.0f} samples/s, asynchronous, 2 workers")
assert two["test_auc"] >= 0.79, two
if quick:
    sys.exit(0)
_, one, _ = train("ml-100k", "movielens-deepfm.yaml", 1, lambda t: t.replace("mode: async", "mode: sync").replace("dataShards: 2", "dataShards: 1"))
print(f"figure movielens-100k u1 test AUC {one['test_auc']:.4f}, synchronous, 1 worker: differs by {abs(one['test_auc'] - two['test_auc']):.4f} (at most 0.005)")
assert abs(one["test_auc"] - two["test_auc"]) <= 0.005
_, criteo, _ = train("criteo-sample", "criteo-deepfm.yaml")
print(f"figure criteo-sample test AUC {criteo['test_auc']:.4f} (at least 0.770), log loss {criteo['test_logloss']:.4f}, synchronous, 2 workers")
assert criteo["test_auc"] >= 0.770, criteo
_, loose, _ = train("criteo-sample", "criteo-deepfm.yaml", 2, lambda t: t.replace("mode: sync", "mode: async").replace("lr: 0.03", "lr: 0.02").replace("dataShards: 2,", "dataShards: 2, inFlight: 1,"))
print(f"figure criteo-sample test AUC {loose['test_auc']:.4f}, asynchronous, 2 workers: differs by {abs(loose['test_auc'] - criteo['test_auc']):.4f} (at most 0.005)")
assert abs(loose["test_auc"] - criteo["test_auc"]) <= 0.005, loose
