"""PyTorch beside parity-bench: the same models (26 fields, 13 numbers) on one GPU, eager and torch.compile, in samples/s. Rows come from the host and their gradients go
back, as a worker's do. One JSON line a figure; exit 77 and a line where torch has no device."""
import json
import sys
import time

try:
    import torch
except ImportError:
    print("PyTorch cannot be imported")
    sys.exit(77)
if not torch.cuda.is_available():
    print("PyTorch sees no CUDA device")
    sys.exit(77)


def tower(n, widths):
    layers = []
    for w in widths:
        layers += [torch.nn.Linear(n, w), torch.nn.ReLU()]
        n = w
    return torch.nn.Sequential(*layers), n


class Model(torch.nn.Module):
    def __init__(self, kind, k, hidden):
        super().__init__()
        self.kind, self.k = kind, k
        if kind == "dlrm":
            self.bottom, n = tower(13, [512, 256, k])
            self.pairs = torch.tril_indices(27, 27, -1, device="cuda")
            self.deep, n = tower(k + 27 * 26 // 2, hidden)
        else:
            self.deep, n = tower(26 * k + 13, hidden)
        if kind == "dcn":
            self.cross = torch.nn.ModuleList(torch.nn.Linear(26 * k + 13, 26 * k + 13) for _ in range(3))
            n += 26 * k + 13
        self.head = torch.nn.Linear(n, 1)
        self.numbers = torch.nn.Linear(13, 1)

    def forward(self, rows, position, dense):
        e = torch.nn.functional.embedding(position, rows)
        if self.kind == "deepfm":
            linear, e = e[..., 0].sum(1), e[..., 1:]
            sums = e.sum(1)
            fm = 0.5 * (sums * sums - (e * e).sum(1)).sum(1)
            return linear + fm + self.numbers(dense)[:, 0] + self.head(self.deep(torch.cat([e.flatten(1), dense], 1)))[:, 0]
        if self.kind == "dcn":
            x = x0 = torch.cat([e.flatten(1), dense], 1)
            for layer in self.cross:
                x = x0 * layer(x) + x
            return self.head(torch.cat([x, self.deep(x0)], 1))[:, 0]
        b = self.bottom(dense)
        v = torch.cat([b[:, None], e], 1)
        dots = torch.bmm(v, v.transpose(1, 2))[:, self.pairs[0], self.pairs[1]]
        return self.head(self.deep(torch.cat([b, dots], 1)))[:, 0]


def measure(name, kind, k, hidden, n, precision, compiled):
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    model = Model(kind, k, hidden).cuda()
    run = torch.compile(model) if compiled else model
    unique, dim = 26 * n // 3 + 1, k + (kind == "deepfm")
    host = (0.02 * torch.rand(unique, dim)).pin_memory()
    back = torch.empty_like(host).pin_memory()
    position, dense, label = torch.randint(unique, (n, 26)), torch.zeros(n, 13), torch.randint(2, (n,)).float()
    position, dense, label = position.pin_memory(), dense.pin_memory(), label.pin_memory()

    def step():
        rows = host.cuda(non_blocking=True).requires_grad_()
        model.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bfloat16"):
            z = run(rows, position.cuda(non_blocking=True), dense.cuda(non_blocking=True))
        torch.nn.functional.binary_cross_entropy_with_logits(z.float(), label.cuda(non_blocking=True)).backward()
        back.copy_(rows.grad, non_blocking=True)

    times = 20 if n > 10000 else 50
    best = []
    for _ in range(4):
        torch.cuda.synchronize()
        t = time.monotonic()
        for _ in range(times):
            step()
        torch.cuda.synchronize()
        best.append(n * times / (time.monotonic() - t) / 1e6)
    how = "compile" if compiled else "eager"
    print(json.dumps({"name": f"torch.{how}.{name}.{precision}.{n}", "value": sorted(best[1:])[1], "unit": "Msamples/s"}), flush=True)


for name, kind, k, hidden in (("deepfm16", "deepfm", 16, [400] * 3), ("deepfm64", "deepfm", 64, [1024, 1024, 512, 256]), ("dcn16", "dcn", 16, [400] * 3),
                              ("dcn64", "dcn", 64, [1024, 1024, 512, 256]), ("dlrm16", "dlrm", 16, [400] * 3), ("dlrm64", "dlrm", 64, [1024, 1024, 512, 256])):
    for n in (2048, 16384, 65536):
        for compiled in (False, True):
            if compiled and n == 16384:
                continue  # compiling takes longer than measuring
            measure(name, kind, k, hidden, n, "tf32", compiled)
