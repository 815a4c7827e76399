"""rankAll against a plain count: an mf model that begins with known rows and learns nothing (rate 0), whose Recall@K, NDCG@K and HR@K over all items NumPy has counted again. Rows are
small integers, so that scores are exact and many are equal; what a user has in the `seen` files does not count, unless it is what is measured."""
import os
import tempfile
from cluster import Cluster, client_package

client_package("numpy")
import numpy as np  # noqa: E402

JOB = """apiVersion: pinion/v1
kind: TrainingJob
metadata: {{name: rank-all}}
spec:
  data:
    train: {{format: {format}, uri: "{dir}/train"}}
    validation: {{format: {format}, uri: "{dir}/validation", rankAll: ["{dir}/train"]}}
    test: {{format: {format}, uri: "{dir}/test", rankAll: ["{dir}/train", "{dir}/validation"]}}
  features: [{{name: user, type: categorical, table: users}}, {{name: item, type: categorical, table: items}}]
  tables:
    defaults: {{optimizer: {{name: sgd, lr: 0}}, init: zero}}
    users: {{import: {{feature: user, keys: "{dir}/users.npy", rows: "{dir}/user_rows.npy"}}}}
    items: {{import: {{feature: item, keys: "{dir}/items.npy", rows: "{dir}/item_rows.npy"}}}}
  model: {{name: mf, embeddingDim: {dim}{model}}}
  optimizer: {{name: sgd, lr: 0}}
  training: {{epochs: 1, batchSize: 512, dataShards: 2}}
  validation: {{groupBy: user, metrics: ["recall@{k}"]}}
"""
USERS, ITEMS, DIM, K = 150, 9000, 8, 20  # more users than one product takes, and more items than one pull
rng = np.random.default_rng(4)


def draw_pairs(scores):
    """Pairs of a user and an item that no one trains on: of every third user more than K; half of them among the user's best, so that there is something to find."""
    def some(users, most):
        return [(u, int(i)) for u in users for i in np.concatenate([rng.choice(np.argsort(-scores[u])[:3 * most], most // 2, replace=False), rng.choice(ITEMS, most // 2)])]
    train = some(range(0, USERS, 2), 60) + [(int(rng.integers(USERS)), i) for i in range(0, ITEMS - 100)]  # the last items are only in the tests
    validation = some(range(5, USERS), 8) + [(u, int(rng.choice(np.argsort(-scores[u])[:5]))) for u in range(5, USERS)]
    test = some(range(0, USERS - 5, 3), 50) + some(range(1, USERS - 5, 3), 6) + train[:200:3] + validation[:200:3]  # what is measured counts, seen or not
    return {"train": train, "validation": validation, "test": test + test[:50]}  # a pair that comes twice is one


def write(folder, format, pairs):
    for name, list in pairs.items():
        with open(os.path.join(folder, name), "w") as f:
            if format == "ncf":
                f.writelines(f"{u}\t{i}\t5\t978824351\n" for u, i in list)
            else:
                f.writelines(f"{u} {' '.join(str(i) for v, i in list if v == u)}\n" for u in range(USERS))


def counted(scores, wanted, seen, ties_below=False, keep_seen=False):
    """(Recall, NDCG, HR) at K, each user's list in full. Equal scores stand against what is measured. The two flags: what a kinder evaluator would say."""
    items = np.unique([i for _, i in wanted + seen])
    figures = []
    for u in sorted({u for u, _ in wanted}):
        mine = np.unique([i for v, i in wanted if v == u])
        had = mine if keep_seen else np.union1d(mine, np.array([i for v, i in seen if v == u], int))
        others = scores[u][np.setdiff1d(items, had)]
        own = -np.sort(-scores[u][mine])
        places = np.array([n + int((others > s).sum() if ties_below else (others >= s).sum()) for n, s in enumerate(own)])
        found = places[places < K]
        figures.append((len(found) / len(mine), (1 / np.log2(found + 2)).sum() / (1 / np.log2(np.arange(min(K, len(mine))) + 2)).sum(), len(found) > 0))
    return np.mean(figures, axis=0)


def compare(c, folder, format, model, users, items, scores):
    pairs = draw_pairs(scores)
    write(folder, format, pairs)
    for name, array in (("users", np.arange(USERS)), ("items", np.arange(ITEMS)), ("user_rows", users), ("item_rows", items)):
        np.save(os.path.join(folder, name + ".npy"), array[: -len(array) // 50].astype(np.int64 if array.ndim == 1 else np.float32))  # the last have no row: they begin with zeros
    done = c.wait(c.submit(JOB.format(dir=folder, format=format, dim=DIM, model=model, k=K)), 120)
    assert done["state"] == "SUCCEEDED", done
    for part, seen in (("validation", pairs["train"]), ("test", pairs["train"] + pairs["validation"])):
        got, want = np.array([done[f"{part}_{name}"] for name in ("recall", "ndcg", "hr")]), counted(scores, pairs[part], seen)
        assert np.abs(got - want).max() < 1e-6, (format, model, part, got, want)
        for kinder in (counted(scores, pairs[part], seen, ties_below=True), counted(scores, pairs[part], seen, keep_seen=True)):
            assert "cosine" in model or np.abs(kinder - want)[:2].min() > 1e-4, "the data would not tell"
        print(f"held: {format}, {model or 'no bias'}, {part}: Recall@{K} {got[0]:.6f}, NDCG@{K} {got[1]:.6f}, HR@{K} {got[2]:.6f}, as counted in NumPy")


with Cluster(ps=2, workers=2, serving=0) as c, tempfile.TemporaryDirectory() as folder:
    for format, model in (("ncf", ", bias: false"), ("lightgcn", ", bias: true, linearScale: 3"), ("ncf", ", bias: false, similarity: cosine")):
        wide = "bias: true" in model
        users, items = (rng.integers(-4, 5, (n, DIM + wide)) for n in (USERS, ITEMS))
        if "cosine" in model:
            users, items = rng.normal(size=users.shape), rng.normal(size=items.shape)
        users[-(USERS // 50):], items[-(ITEMS // 50):] = 0, 0
        scores = users[:, wide:] @ items[:, wide:].T + (3 * items[:, 0] if wide else 0)
        if "cosine" in model:
            scores = scores / np.maximum(np.linalg.norm(items, axis=1), 1e-12)
        compare(c, folder, format, model, users, items, scores)

    # scores that are all infinitely low: no item stands before another, and none of them may be a hit for it
    write(folder, "ncf", {"train": [(USERS - 1, i) for i in range(50)], "validation": [(u, u) for u in range(20)], "test": [(1, 1)]})  # the last user has no row: training sees nothing of it
    np.save(os.path.join(folder, "user_rows.npy"), np.full((USERS - USERS // 50, DIM), 1e20, np.float32))
    np.save(os.path.join(folder, "item_rows.npy"), np.full((ITEMS - ITEMS // 50, DIM), -1e20, np.float32))
    done = c.wait(c.submit(JOB.format(dir=folder, format="ncf", dim=DIM, model=", bias: false", k=K)), 120)
    assert done["state"] == "FAILED" and done["reason"].startswith("validation data, user 1 of 20 by key: a score of its 50 items is no number: "), done
    print("held: infinite scores are no places")
