"""trees.py [--seeds N]: XGBoost alone on the rows of docs/jobs/criteo-gbdt-lr.yaml, with the settings of its leaves feature, the columns that its trees see and XGBoost's own
prediction: the figure that trees and LR together are held against. Its C library is called directly; needs numpy."""
import ctypes as C
import os
import subprocess
import sys
import numpy as np
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
from cluster import data

TRAIN, ALL, MIN_COUNT, SMOOTHING, FOLDS = 64000, 80000, 1, 20.0, 10
PARAMS = dict(objective="binary:logistic", tree_method="hist", nthread=1, eta=0.02, max_depth=5, min_child_weight=40, subsample=0.8, colsample_bytree=0.3, **{"lambda": 5})
ROUNDS = 600
folder = data("criteo-sample")
if not folder:
    sys.exit("no ../shared/data/criteo-sample")
seeds = int(sys.argv[sys.argv.index("--seeds") + 1]) if "--seeds" in sys.argv else 3
L = C.CDLL("libxgboost.so.0")
L.XGBGetLastError.restype = C.c_char_p


def call(name, *args):
    if getattr(L, name)(*args):
        raise RuntimeError(L.XGBGetLastError().decode())


def matrix(x, y=None):
    x, h = np.ascontiguousarray(x, np.float32), C.c_void_p()
    call("XGDMatrixCreateFromMat", x.ctypes.data_as(C.c_void_p), C.c_uint64(x.shape[0]), C.c_uint64(x.shape[1]), C.c_float(np.nan), C.byref(h))
    if y is not None:
        y = np.ascontiguousarray(y, np.float32)
        call("XGDMatrixSetFloatInfo", h, b"label", y.ctypes.data_as(C.c_void_p), C.c_uint64(len(y)))
    return h


def columns(c, y, prior, fold):
    """A categorical column as two: the share of positives among train's rows (a row of train: among those of the other folds), log(1 + rows)."""
    _, c = np.unique(c, return_inverse=True)
    n = c.max() + 1
    rows, positives = np.bincount(c[:TRAIN], minlength=n), np.bincount(c[:TRAIN], y[:TRAIN], n)
    known = rows >= MIN_COUNT
    of, seen = positives[c].astype(float), rows[c].astype(float)
    for k in range(FOLDS):
        mine = np.flatnonzero(fold == k)
        of[mine] -= np.bincount(c[mine], y[mine], n)[c[mine]]
        seen[mine] -= np.bincount(c[mine], minlength=n)[c[mine]]
    of[~known[c]], seen[~known[c]] = 0, 0
    return (of + SMOOTHING * prior) / (seen + SMOOTHING), np.log1p(np.where(known[c], rows[c], 0))


lines = subprocess.run(["zstd", "-dcq", os.path.join(folder, "criteo_first80000_hashed.txt.zst")], stdout=subprocess.PIPE, check=True).stdout.decode().split("\n")[:ALL]
cells = [line.split("\t") for line in lines]
y = np.array([float(r[0]) for r in cells])
numbers = np.array([[float(v) if v else np.nan for v in r[1:14]] for r in cells])
prior = y[:TRAIN].mean()
fold = np.random.default_rng(1).integers(0, FOLDS, TRAIN)  # the job takes a hash of what stands in the row
x = np.column_stack([numbers] + [k for j in range(14, 40) for k in columns(np.array([r[j] for r in cells]), y, prior, fold)])
figures = []
for seed in range(1, seeds + 1):
    d, b = matrix(x[:TRAIN], y[:TRAIN]), C.c_void_p()
    call("XGBoosterCreate", (C.c_void_p * 1)(d), C.c_uint64(1), C.byref(b))
    for name, value in {**PARAMS, "seed": seed}.items():
        call("XGBoosterSetParam", b, name.encode(), str(value).encode())
    for i in range(ROUNDS):
        call("XGBoosterUpdateOneIter", b, i, d)
    n, out = C.c_uint64(), C.POINTER(C.c_float)()
    call("XGBoosterPredict", b, matrix(x), 0, 0, 0, C.byref(n), C.byref(out))
    p = np.ctypeslib.as_array(out, (n.value,)).astype(float)
    loss = -(y * np.log(p) + (1 - y) * np.log(1 - p))
    row = []
    for part in (slice(TRAIN, 72000), slice(72000, ALL)):
        q = y[part].mean()
        row += [loss[part].mean(), loss[part].mean() / -(q * np.log(q) + (1 - q) * np.log(1 - q))]
    figures.append(row)
    print(f"seed {seed}: validation log loss {row[0]:.4f}, normalised entropy {row[1]:.4f}; test {row[2]:.4f}, {row[3]:.4f}", flush=True)
mean = np.mean(figures, axis=0)
print(f"figure trees alone: validation log loss {mean[0]:.4f}, normalised entropy {mean[1]:.4f}; test {mean[2]:.4f} +- {np.std([f[2] for f in figures], ddof=1) if seeds > 1 else 0:.4f}, {mean[3]:.4f}")
