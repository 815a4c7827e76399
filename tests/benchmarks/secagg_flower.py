"""CPU time of Flower's SecAgg+ (PyPI flwr) beside bench-secagg: its own client functions (setup, sharing of keys, masking, revealing) and, for the server, its own
utilities in the order of its workflow, in process, without its messages. The same number of workers, neighbours, threshold and values; 10 % drop out behind the
shares. usage: secagg_flower.py N K T VALUES [--workers M]: with M, only the cost of M workers is measured (no server), the shares that they get being made
outside the measurement. Prints one JSON line a figure. Exit 77: flwr is not here."""
import importlib
import json
import logging
import sys
import time

try:
    import numpy as np
    mod = importlib.import_module("flwr.client.mod.secure_aggregation.secaggplus_mod")  # the package has a function of this name
    from flwr.common import bytes_to_ndarray, ndarrays_to_parameters
    from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
    from flwr.common.secure_aggregation.crypto.symmetric_encryption import encrypt
    from flwr.common.secure_aggregation.ndarrays_arithmetic import factor_extract, get_parameters_shape, parameters_addition, parameters_mod, parameters_subtraction
    from flwr.common.secure_aggregation.quantization import dequantize
    from flwr.common.secure_aggregation.secaggplus_constants import Key, Stage
    from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen, share_keys_plaintext_concat
    from flwr.supercore.primitives.asymmetric import bytes_to_private_key, bytes_to_public_key
    generate_shared_key = mod.generate_shared_key
except ImportError as e:
    print(f"flwr cannot be imported ({e}): pip install flwr", file=sys.stderr)
    sys.exit(77)

logging.disable(logging.CRITICAL)
CLIP, TARGET, MODULUS = 1.0, 1 << 20, 1 << 32


def figure(name, value, unit):
    print(json.dumps({"name": name, "value": round(value, 4), "unit": unit}), flush=True)


def main():
    n, k, t, values = (int(a) for a in sys.argv[1:5])
    sample = int(sys.argv[6]) if len(sys.argv) > 6 else None
    cpu = {i: 0.0 for i in range(1, n + 1)}
    server = 0.0

    def timed(i, call, *args):
        begin = time.process_time()
        out = call(*args)
        cpu[i] += time.process_time() - begin
        return out

    ids = list(cpu)
    # a ring: k / 2 on either side, or all; itself is one of its neighbours in Flower
    near = {i: {(i - 1 + d) % n + 1 for d in range(-(k // 2), k // 2 + 1)} if k < n - 1 else set(ids) for i in ids}
    states = {i: mod.SecAggPlusState() for i in ids}
    setup = {Key.STAGE: Stage.SETUP, Key.SAMPLE_NUMBER: n, Key.SHARE_NUMBER: len(near[1]), Key.THRESHOLD: t, Key.CLIPPING_RANGE: CLIP, Key.TARGET_RANGE: TARGET,
             Key.MOD_RANGE: MODULUS, Key.MAX_WEIGHT: 1.0}
    keys = {}
    for i in ids:
        states[i].nid = i
        out = timed(i, mod._setup, states[i], setup)
        keys[i] = (out[Key.PUBLIC_KEY_1], out[Key.PUBLIC_KEY_2])
    rng = np.random.default_rng(1)
    update = ndarrays_to_parameters([rng.uniform(-1, 1, values).astype(np.float32)])

    if sample is not None:
        for i in ids[:sample]:
            timed(i, mod._share_keys, states[i], {str(j): list(keys[j]) for j in near[i]})
            seeds, secrets = create_shares(b"s" * 32, 2, 2), create_shares(b"k" * len(states[i].sk1), 2, 2)
            sources = [j for j in near[i] if j != i]
            texts = [encrypt(states[i].ss2_dict[j], share_keys_plaintext_concat(j, i, seeds[0], secrets[0])) for j in sources]
            timed(i, mod._collect_masked_vectors, states[i], {Key.CIPHERTEXT_LIST: texts, Key.SOURCE_LIST: sources}, 1, update)
        figure(f"flower.{n}.worker", sum(cpu[i] for i in ids[:sample]) / sample, f"CPU s a worker, mean of {sample}")
        return 0

    inbox = {i: ([], []) for i in ids}
    for i in ids:
        out = timed(i, mod._share_keys, states[i], {str(j): list(keys[j]) for j in near[i]})
        for to, text in zip(out[Key.DESTINATION_LIST], out[Key.CIPHERTEXT_LIST]):
            inbox[to][0].append(i)
            inbox[to][1].append(text)
    dead = {d * 10 + 4 for d in range(n // 10)}
    total = None
    for i in ids:
        if i in dead:
            continue
        out = timed(i, mod._collect_masked_vectors, states[i], {Key.CIPHERTEXT_LIST: inbox[i][1], Key.SOURCE_LIST: inbox[i][0]}, 1, update)
        begin = time.process_time()
        vector = [bytes_to_ndarray(b) for b in out[Key.MASKED_PARAMETERS]]
        total = vector if total is None else parameters_addition(total, vector)
        server += time.process_time() - begin
    active = set(ids) - dead
    shares = {i: [] for i in ids}
    for i in active:
        out = timed(i, mod._unmask, states[i], {Key.ACTIVE_NODE_ID_LIST: list(near[i] & active), Key.DEAD_NODE_ID_LIST: list(near[i] & dead)})
        for owner, share in zip(out[Key.NODE_ID_LIST], out[Key.SHARE_LIST]):
            shares[owner].append(share)
    begin = time.process_time()
    total = parameters_mod(total, MODULUS)
    for i in ids:
        secret = combine_shares(shares[i])
        if i in active:
            total = parameters_subtraction(total, pseudo_rand_gen(secret, MODULUS, get_parameters_shape(total)))
            continue
        for j in near[i] - {i}:
            if j in dead:
                continue
            mask = pseudo_rand_gen(generate_shared_key(bytes_to_private_key(secret), bytes_to_public_key(keys[j][0])), MODULUS, get_parameters_shape(total))
            total = parameters_addition(total, mask) if i > j else parameters_subtraction(total, mask)
    _, total = factor_extract(parameters_mod(total, MODULUS))
    mean = (dequantize(total, CLIP, TARGET)[0] - (len(active) - 1) * CLIP) / len(active)
    server += time.process_time() - begin
    from flwr.common import parameters_to_ndarrays
    off = float(np.abs(mean - parameters_to_ndarrays(update)[0]).max())
    if off > 1e-4:
        print(f"Flower's sum is wrong by {off}: the comparison does not hold", file=sys.stderr)
        return 1
    figure(f"flower.{n}.worker", sum(cpu[i] for i in active) / len(active), "CPU s a worker, mean")
    figure(f"flower.{n}.server", server, "CPU s")
    figure(f"flower.{n}.round", sum(cpu[i] for i in active) + sum(cpu[i] for i in dead) + server, "CPU s, all parts")
    return 0


if __name__ == "__main__":
    sys.exit(main())
