#!/usr/bin/env python3
"""Peers made of PyTorch, for the workload of tests/benchmarks/workload.h (batches of 26 x 2,048 keys from Zipf 1.05, made unique), one thread a process.
  torch.*      a parameter server by torch.distributed.rpc over loopback: pull = index_select, push = row-wise sums and Adagrad; four calls in flight
  torch.table.*  the same tensors in one process
  fbgemm.*     FBGEMM's table-batched embedding for CPUs, forward only, where it can be imported
Row numbers stand in for keys: these peers have no table from 64-bit ids to rows, which spares them a lookup that Pinion makes.
  torch_peer.py ROWSxDIM SECONDS. Prints JSON lines."""
import json
import os
import socket
import statistics
import sys
import time

import warnings

import torch

warnings.simplefilter("ignore")
RAW, FLIGHT, BATCHES = 26 * 2048, 4, 50
TABLE = SUMS = None


def serve_open(n_rows, dim):
    global TABLE, SUMS
    torch.set_num_threads(1)
    TABLE, SUMS = torch.zeros(n_rows, dim), torch.zeros(n_rows, dim)


def serve_pull(rows):
    return TABLE.index_select(0, rows)


def serve_push(rows, gradients):
    s = SUMS.index_select(0, rows).addcmul_(gradients, gradients)
    SUMS.index_copy_(0, rows, s)
    TABLE.index_add_(0, rows, gradients / s.sqrt_().add_(1e-10), alpha=-0.01)
    return True


def batches(n_rows):
    g = torch.Generator().manual_seed(1)
    out, a = [], 1 - 1.05
    top = float(n_rows) ** a - 1
    scattered = torch.randperm(n_rows, generator=g)
    for _ in range(BATCHES):
        ranks = (1 + torch.rand(RAW, generator=g, dtype=torch.float64) * top).pow(1 / a).long().clamp_(1, n_rows) - 1
        out.append(scattered[torch.unique(ranks)].sort().values)
    return out


def rate(call, wait, list_of_batches, seconds):
    """Mrows/s, the median of a second's pieces."""
    rates, end, i = [], time.time() + seconds, 0
    while time.time() < end or len(rates) < 3:
        begin, rows, flight = time.time(), 0, []
        while time.time() - begin < seconds / 5:
            b = list_of_batches[i % len(list_of_batches)]
            i += 1
            flight.append(call(b))
            rows += len(b)
            if len(flight) == FLIGHT:
                wait(flight.pop(0))
        for f in flight:
            wait(f)
        rates.append(rows / (time.time() - begin) / 1e6)
    return statistics.median(rates)


def report(name, value):
    print(json.dumps({"name": name, "value": round(value, 4), "unit": "Mrows/s"}), flush=True)


def client(n_rows, dim, seconds, name):
    import torch.distributed.rpc as rpc
    torch.set_num_threads(1)
    rpc.rpc_sync("server", serve_open, args=(n_rows, dim))
    all_batches = batches(n_rows)
    gradients = torch.full((RAW, dim), 1e-3)
    report(f"torch.pull.{name}", rate(lambda b: rpc.rpc_async("server", serve_pull, args=(b,)), lambda f: f.wait(), all_batches, seconds))
    report(f"torch.push.{name}", rate(lambda b: rpc.rpc_async("server", serve_push, args=(b, gradients[: len(b)])), lambda f: f.wait(), all_batches, seconds))


def role(rank, port, n_rows, dim, seconds, name):
    import torch.distributed.rpc as rpc
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TP_SOCKET_IFNAME="lo", GLOO_SOCKET_IFNAME="lo")
    # tcp, as ours: by default its processes on one machine would share memory
    options = rpc.TensorPipeRpcBackendOptions(_transports=["uv"], _channels=["basic"])
    rpc.init_rpc(("client", "server")[rank], rank=rank, world_size=2, rpc_backend_options=options)
    if rank == 0:
        client(n_rows, dim, seconds, name)
    rpc.shutdown()


def in_process(n_rows, dim, seconds, name):
    torch.set_num_threads(1)
    all_batches = batches(n_rows)
    serve_open(n_rows, dim)
    gradients = torch.full((RAW, dim), 1e-3)
    report(f"torch.table.gather.{name}", rate(serve_pull, lambda f: None, all_batches, seconds))
    report(f"torch.table.adagrad.{name}", rate(lambda b: serve_push(b, gradients[: len(b)]), lambda f: None, all_batches, seconds))
    try:
        from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
        from fbgemm_gpu.split_table_batched_embeddings_ops_inference import IntNBitTableBatchedEmbeddingBagsCodegen
        from fbgemm_gpu.split_embedding_configs import SparseType
        table = IntNBitTableBatchedEmbeddingBagsCodegen([("t", n_rows, dim, SparseType.FP32, EmbeddingLocation.HOST)], device="cpu", output_dtype=SparseType.FP32)
        table.initialize_weights()
        offsets = torch.arange(RAW + 1, dtype=torch.int32)
        narrow = [b.int() for b in all_batches]
        report(f"fbgemm.table.gather.{name}", rate(lambda b: table(b, offsets[: len(b) + 1]), lambda f: None, narrow, seconds))
    except (ImportError, OSError, AttributeError) as e:
        print(f"torch_peer: FBGEMM is left out: {str(e).splitlines()[0]}", file=sys.stderr)


if __name__ == "__main__":
    size, seconds = sys.argv[1], float(sys.argv[2])
    n_rows, dim = (int(v) for v in size.split("x"))
    name = f"{n_rows // 1000000}Mx{dim}" if n_rows % 1000000 == 0 else f"{n_rows // 1000}Kx{dim}"
    in_process(n_rows, dim, seconds, name)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    them = []
    import torch.multiprocessing as mp
    context = mp.get_context("spawn")
    for rank in (1, 0):
        them.append(context.Process(target=role, args=(rank, port, n_rows, dim, seconds, name)))
        them[-1].start()
    for p in them:
        p.join(120 + 4 * seconds)
        if p.exitcode is None:
            p.kill()
    sys.exit(0 if all(p.exitcode == 0 for p in them) else 1)
