"""Pre-trained embeddings from NumPy files: rows begin with them, whole, by key and by a feature's values; what does not fit is refused by one line."""
import math
import os
import random
import tempfile
from cluster import Cluster, client_package

pinion = client_package("numpy")
import numpy as np  # noqa: E402

EXTERNAL = """apiVersion: pinion/v1
kind: TrainingJob
metadata: {{name: imported}}
spec:
  data: {{external: true}}
  tables:
    defaults: {{optimizer: {{name: sgd, lr: 1}}, init: {{constant: 7}}}}
    items: {{dim: 5, import: {{keys: {keys}, rows: {rows}}}}}
  model: {{name: external}}
"""
# With all rates 0 a model is what it began with: an FM whose scores are known from the files alone.
FM = """apiVersion: pinion/v1
kind: TrainingJob
metadata: {{name: imported-fm}}
spec:
  data: {{train: {{format: csv, uri: {csv}, label: y}}, test: {{format: csv, uri: {csv}, label: y}}}}
  features: [{{name: user, type: categorical, table: users}}, {{name: item, type: categorical, table: items}}]
  tables:
    defaults: {{optimizer: {{name: sgd, lr: 0}}, init: zero}}
    users: {{import: {{feature: user, keys: {users}, rows: {user_rows}}}}}
    items: {{import: {{feature: item, keys: {items}, rows: {item_rows}}}}}
  model: {{name: fm, embeddingDim: 4}}
  optimizer: {{name: sgd, lr: 0}}
  training: {{epochs: 1}}
  publish: {{model: fm, storage: float32}}
"""


def save(folder, name, array):
    path = os.path.join(folder, name + ".npy")
    np.save(path, array)
    return path


def by_key(c, folder):
    rng = np.random.default_rng(1)
    keys, rows = rng.permutation(1 << 20)[:3000].astype(np.uint64), rng.normal(size=(3000, 5))
    for kind in (np.float32, np.float64, np.float16):
        id = c.submit(EXTERNAL.format(keys=save(folder, "keys", keys), rows=save(folder, f"rows-{kind.__name__}", rows.astype(kind))))
        with pinion.Session(c.dir, id) as s:
            table, want = s["items"], rows.astype(kind).astype(np.float32)
            assert (table.pull(keys) == want).all(), kind
            assert (table.pull(np.array([1 << 40], np.uint64)) == 7).all()  # no imported row: the initializer's
            table.push(keys[:10], np.ones((10, 5)))
            assert (table.pull(keys[:10]) == want[:10] - np.float32(1)).all()
            s.checkpoint()
            c.kill("ps-0")
            assert (table.pull(keys[:10], timeout=30) == want[:10] - np.float32(1)).all() and (table.pull(keys[10:], timeout=30) == want[10:]).all()
            s.finish()
        assert c.wait(id, 30)["state"] == "SUCCEEDED"
    print("held: rows of float16, float32 and float64 begin as in the files, also behind a server's death; others as the initializer says")


def by_value(c, folder):
    rng = np.random.default_rng(2)
    users, items = [f"käthe {i}" for i in range(20)], np.arange(30, dtype=np.int32) * 7 - 50
    u, v = rng.normal(size=(20, 4)).astype(np.float32), rng.normal(size=(30, 4)).astype(np.float32)
    csv = os.path.join(folder, "train.csv")
    random.seed(3)
    with open(csv, "w") as f:
        f.write("user,item,y\n")
        for name in users:
            for item in items:
                f.write(f"{name},{item},{random.randrange(2)}\n")
    id = c.submit(FM.format(csv=csv, users=save(folder, "users", np.array(users)), user_rows=save(folder, "u", u), items=save(folder, "items", items), item_rows=save(folder, "v", v)))
    job = c.wait(id, 60)
    assert job["state"] == "SUCCEEDED", job
    scores = c.scores("fm", {"user": users[:4], "item": [str(i) for i in items[:4]]})
    got = [scores[i] for i in range(4)]
    want = [1 / (1 + math.exp(-float(u[i] @ v[i]))) for i in range(4)]
    assert np.abs(np.array(got) - want).max() < 1e-5, (got, want)
    print("held: strings and integers name rows as a feature's values do, from the file to the served score")


def refused(c, folder):
    keys, rows = save(folder, "few", np.arange(4, dtype=np.uint64)), save(folder, "narrow", np.zeros((4, 3), np.float32))
    good = save(folder, "good", np.zeros((4, 5), np.float32))
    nan = np.zeros((4, 5), np.float32)
    nan[2, 1] = np.nan
    cut = os.path.join(folder, "cut.npy")
    with open(good, "rb") as f, open(cut, "wb") as g:
        g.write(f.read()[:-7])
    cases = [(keys, rows, 'rows of 3 numbers; table "items" has 5'), (keys, os.path.join(folder, "none.npy"), "cannot be read"), (keys, keys, "must have two dimensions"),
             (save(folder, "signed", np.arange(4)), good, "uint64 keys"), (save(folder, "twice", np.array([1, 2, 1, 3], np.uint64)), good, "items 0 and 2 are the same key"),
             (save(folder, "three", np.arange(3, dtype=np.uint64)), good, "3 items"), (keys, save(folder, "nan", nan), "row 2, number 1 is not finite"), (keys, cut, "ends early"),
             (keys, save(folder, "columns", np.asfortranarray(np.zeros((4, 5), np.float32))), "stored by columns"), (keys, save(folder, "big", np.zeros((4, 5), ">f4")), "big-endian"),
             (keys, os.path.abspath(__file__), "is no .npy file")]
    for k, r, words in cases:
        id = c.submit(EXTERNAL.format(keys=k, rows=r))
        job = c.wait(id, 30, ("FAILED", "SUCCEEDED"))
        assert job["state"] == "FAILED" and words in job["reason"], (words, job["reason"])
    print(f"held: {len(cases)} imports that do not fit are refused, each by a line that says why")


with Cluster(ps=2, workers=1, serving=1) as c, tempfile.TemporaryDirectory() as folder:
    for test in (by_key, by_value, refused):
        test(c, folder)
