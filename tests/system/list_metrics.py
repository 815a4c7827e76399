"""HR, NDCG, recall and MRR of lists, and what is measured beside them, against a plain count in NumPy. An mf model that begins with known rows and learns nothing: scores are small integers, of which
many are equal; a user's rows lie all over the file, in several batches of the evaluation. SASRec with rows of zeros: every candidate is as good as the target, so that its place is the last among its own."""
import os
import tempfile
from cluster import Cluster, client_package

client_package("numpy")
import numpy as np  # noqa: E402

MF = """apiVersion: pinion/v1
kind: TrainingJob
metadata: {{name: lists}}
spec:
  data:
    train: {{format: csv, uri: "{dir}/train.csv", label: click}}
    validation: {{format: csv, uri: "{dir}/validation.csv", label: click}}
    test: {{format: csv, uri: "{dir}/test.csv", label: click}}
  features: [{{name: user, type: categorical, table: users}}, {{name: item, type: categorical, table: items}}]
  tables:
    defaults: {{optimizer: {{name: sgd, lr: 0}}, init: zero}}
    users: {{import: {{feature: user, keys: "{dir}/users.npy", rows: "{dir}/user_rows.npy"}}}}
    items: {{import: {{feature: item, keys: "{dir}/items.npy", rows: "{dir}/item_rows.npy"}}}}
  model: {{name: mf, embeddingDim: {dim}, bias: false}}
  optimizer: {{name: sgd, lr: 0}}
  training: {{epochs: 1, batchSize: 512, dataShards: 2}}
  validation: {{groupBy: user, metrics: ["{metric}", mrr, gauc]}}
"""
SASREC = """apiVersion: pinion/v1
kind: TrainingJob
metadata: {{name: tied}}
spec:
  data:
    train: {{format: s3rec, uri: "{dir}/{file}", part: train, history: 5, rows: 100}}
    validation: {{format: s3rec, uri: "{dir}/{file}", part: validation, history: 5{kept}}}
    test: {{format: s3rec, uri: "{dir}/{file}", part: test, history: 5{kept}}}
  features:
{features}
  tables: {{defaults: {{optimizer: {{name: sgd, lr: 0}}, init: zero}}}}
  model: {{name: sasrec, embeddingDim: 4, sequence: {{fields: [history], target: target, negatives: negatives, seen: seen, loss: bce, blocks: 1}}}}
  optimizer: {{name: sgd, lr: 0}}
  training: {{epochs: 1, batchSize: 50, dataShards: 2}}
  validation: {{metrics: ["ndcg@{k}"]}}
"""
BATCH = 2048  # rows that an evaluation takes at once, of sequences of up to 32 places
USERS, ITEMS, DIM = 60, 400, 8
rng = np.random.default_rng(8)


def draw_rows(n):
    """Rows (user, item, label) in any order. Users 0 to 4 have only positive rows, 5 to 9 only negative ones, user 10 one row."""
    user, item = rng.integers(USERS, size=n), rng.integers(ITEMS, size=n)
    user[user == 10] = 11
    user[n // 2] = 10
    label = (rng.random(n) < 0.15).astype(int)
    label[user < 5], label[(user >= 5) & (user < 10)], label[user == 10] = 1, 0, 1
    return user, item, label


def right_pairs(score, label):
    """The share of (positive, negative) pairs in right order; equal ones count half."""
    differences = score[label == 1][:, None] - score[label == 0][None, :]
    return ((differences > 0) + (differences == 0) / 2).mean() if differences.size else None


def counted(rows, scores, k, kind=True):
    """All figures. kind=False: equal scores stand for the positives, as a kinder evaluator would have it."""
    user, item, label = rows
    score = scores[user, item]
    lists, within = [], []
    for u in range(USERS):
        mine, hit = score[user == u], label[user == u]
        ranked = hit[sorted(range(len(hit)), key=lambda i: (-mine[i], hit[i] if kind else -hit[i]))]
        if (auc := right_pairs(mine, hit)) is not None:
            within.append((auc, len(hit)))
        if not hit.any():
            continue
        places = 1 + np.flatnonzero(ranked)
        top = places[places <= k]
        best = np.arange(1, min(k, len(places)) + 1)
        lists.append((len(top) > 0, (1 / np.log2(top + 1)).sum() / (1 / np.log2(best + 1)).sum(), len(top) / len(places), 1 / places[0]))
    p, mean = 1 / (1 + np.exp(-score.astype(float))), label.mean()
    loss = -np.where(label == 1, np.log(p), np.log(1 - p)).mean()
    return dict(zip(("hr", "ndcg", "recall", "mrr"), np.mean(lists, axis=0)), gauc=np.average([a for a, _ in within], weights=[n for _, n in within]), auc=right_pairs(score, label),
                logloss=loss, ne=loss / -(mean * np.log(mean) + (1 - mean) * np.log(1 - mean)), calibration=p.mean() / mean)


def same(name, done, part, want):
    for figure, value in want.items():
        assert abs(done[f"{part}_{figure}"] - value) < 1e-6, (name, part, figure, done[f"{part}_{figure}"], value)
    print(f"held: {name}, {part}: " + ", ".join(f"{figure} {value:.6f}" for figure, value in want.items()) + ", as counted in NumPy")


def matrix_factorization(c, folder):
    users, items = rng.integers(-1, 2, (USERS, DIM)), rng.integers(-1, 2, (ITEMS, DIM))
    scores = users @ items.T
    for name, array in (("users", np.arange(USERS)), ("items", np.arange(ITEMS)), ("user_rows", users), ("item_rows", items)):
        np.save(os.path.join(folder, name + ".npy"), array.astype(np.int64 if array.ndim == 1 else np.float32))
    parts = {"train": draw_rows(1000), "validation": draw_rows(2 * BATCH + 905), "test": draw_rows(2 * BATCH)}  # the test ends where a batch does
    for name, rows in parts.items():
        with open(os.path.join(folder, name + ".csv"), "w") as f:
            f.write("user,item,click\n" + "".join(f"{u},{i},{y}\n" for u, i, y in zip(*rows)))
    for k in (5, 1000):  # below the lists' lengths, and above them
        done = c.wait(c.submit(MF.format(dir=folder, dim=DIM, metric=f"recall@{k}")), 120)
        assert done["state"] == "SUCCEEDED" and done["rank_k"] == k, done
        for part in ("validation", "test"):
            want, kinder = counted(parts[part], scores, k), counted(parts[part], scores, k, kind=False)
            same(f"lists at {k}", done, part, want)
            assert abs(kinder["ndcg"] - want["ndcg"]) > 1e-3 and abs(kinder["mrr"] - want["mrr"]) > 1e-3, "the data would not tell"


def tied_sequences(c, folder):
    """All items but those that a user has had are candidates: some users have had all of them, and have no place. Then kept candidates, among which an item may be twice."""
    n, k, most, per = 2 * BATCH + 1, 8, 20, 30  # the last row is a batch of its own
    features = "\n".join(f"    - {{name: {name}, type: sequence, maxLength: {length}, hash: {{share: item}}}}" for name, length in (("history", 5), ("target", 5), ("negatives", 50), ("seen", 50)))
    users = [list(rng.permutation(most)[:3 + int(rng.integers(most - 3))] + 1) for _ in range(n)]  # in time order
    for name, list_of in (("some", lambda u: list(range(1, most + 1)) if u % 9 == 4 else users[u]), ("few", lambda u: users[u]), ("all", lambda u: list(range(1, most + 1)) * 2)):
        with open(os.path.join(folder, name), "w") as f:
            f.writelines(f"{u} {' '.join(map(str, list_of(u)))}\n" for u in range(1, n))
            f.write(f"{n} {' '.join(map(str, list_of(0)))}\n")
    jobs = {name: c.submit(SASREC.format(dir=folder, features=features, k=k, file=name, kept=f", negatives: {{perPositive: {per}, seed: 3}}" if name == "few" else ""), key=name) for name in ("some", "few", "all")}
    done = {name: c.wait(id, 120) for name, id in jobs.items()}
    assert done["some"]["state"] == done["few"]["state"] == "SUCCEEDED", done
    for part, behind in (("validation", 1), ("test", 0)):
        had = [most if u % 9 == 4 and behind == 0 else most - 1 if u % 9 == 4 else len(users[u]) - behind for u in [*range(1, n), 0]]
        place = 1 + np.array([most - m for m in had if m < most])  # behind all others that there are
        assert (len(place) < n) == (part == "test")
        same("SASRec, all items tied", done["some"], part, dict(hr=(place <= k).mean(), ndcg=np.where(place <= k, 1 / np.log2(place + 1), 0).mean(), recall=(place <= k).mean(), mrr=(1 / place).mean(), auc=0))
        same("SASRec, kept candidates tied", done["few"], part, dict(hr=0, ndcg=0, recall=0, mrr=1 / (per + 1), auc=0, logloss=np.log(per + 1)))
    assert done["all"]["state"] == "FAILED" and done["all"]["reason"].startswith(f"validation data: none of its {n} rows can be ranked: ") and '"negatives"' in done["all"]["reason"], done["all"]
    print("held: lists without a candidate end the job: " + done["all"]["reason"])


with Cluster(ps=2, workers=2, serving=0) as c, tempfile.TemporaryDirectory() as folder:
    matrix_factorization(c, folder)
    tied_sequences(c, folder)
