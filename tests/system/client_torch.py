"""pinion.torch: an EmbeddingBag on the cluster trains as torch.nn.EmbeddingBag does."""
from cluster import Cluster, client_package

pinion = client_package("numpy", "torch")
import numpy as np  # noqa: E402
import torch  # noqa: E402
import pinion.torch  # noqa: E402

JOB = """apiVersion: pinion/v1
kind: TrainingJob
metadata: {name: torch}
spec:
  data: {external: true}
  tables:
    defaults: {optimizer: {name: sgd, lr: 0.1}, init: zero, dim: 8}
    users: {}
    tags: {}
  model: {name: external}
"""
USERS, TAGS, BATCH, STEPS = 50, 30, 64, 60
torch.manual_seed(1)
rng = np.random.default_rng(2)


def batches():
    """Clicks of a logistic model: one user and one to four tags a row, tags as a flat list with offsets."""
    taste, pull = rng.normal(size=USERS) * 2, rng.normal(size=TAGS) * 2
    for _ in range(STEPS):
        users, lengths = rng.integers(0, USERS, (BATCH, 2)), rng.integers(1, 5, BATCH)
        tags, offsets = rng.integers(0, TAGS, lengths.sum()), np.concatenate([[0], np.cumsum(lengths)[:-1]])
        score = taste[users].sum(1) + np.add.reduceat(pull[tags], offsets) / lengths
        yield (torch.from_numpy(users), torch.from_numpy(tags), torch.from_numpy(offsets), torch.from_numpy((rng.random(BATCH) < 1 / (1 + np.exp(-score))).astype(np.float32)))


class Model(torch.nn.Module):
    def __init__(self, users, tags):
        super().__init__()
        self.users, self.tags, self.out = users, tags, torch.nn.Linear(16, 1)
        with torch.no_grad():
            self.out.weight.copy_(torch.linspace(-1, 1, 16))
            self.out.bias.zero_()

    def forward(self, users, tags, offsets):
        return self.out(torch.cat([self.users(users), self.tags(tags, offsets)], 1)).squeeze(1)


def zero(n, mode):
    bag = torch.nn.EmbeddingBag(n, 8, mode=mode)
    torch.nn.init.zeros_(bag.weight)
    return bag


with Cluster(ps=2, workers=1, serving=0) as c:
    id = c.submit(JOB)
    with pinion.Session(c.dir, id) as s:
        step = pinion.torch.Step(s)
        ours = Model(pinion.torch.EmbeddingBag(s, "users", "sum", step), pinion.torch.EmbeddingBag(s, "tags", "mean", step))
        theirs = Model(zero(USERS, "sum"), zero(TAGS, "mean"))
        ours_dense, theirs_sgd = torch.optim.SGD(ours.parameters(), 0.1), torch.optim.SGD(theirs.parameters(), 0.1)
        assert sorted(ours.state_dict()) == ["out.bias", "out.weight"]
        loss_of, first, last = torch.nn.BCEWithLogitsLoss(), [], []
        for i, (users, tags, offsets, label) in enumerate(batches()):
            for model, optimizer in ((ours, ours_dense), (theirs, theirs_sgd)):
                optimizer.zero_grad()
                loss = loss_of(model(users, tags, offsets), label)
                loss.backward()
                optimizer.step()
            (first if i < 10 else last).append(loss.item())
            assert step() == i + 1, i  # both tables in one step
        assert step() is None  # nothing was gathered
        worst = max(np.abs(s["users"].pull(np.arange(USERS)) - theirs.users.weight.detach().numpy()).max(),
                    np.abs(s["tags"].pull(np.arange(TAGS)) - theirs.tags.weight.detach().numpy()).max(),
                    (ours.out.weight - theirs.out.weight).abs().max().item())
        print(f"figure pinion.torch.EmbeddingBag after {STEPS} steps: differs from torch.nn.EmbeddingBag with SGD by at most {worst:.1e} (at most 1e-5), torch {torch.__version__}")
        assert worst <= 1e-5, worst
        assert np.mean(last[-10:]) < np.mean(first) - 0.02, (np.mean(first), np.mean(last[-10:]))
        print(f"held: log loss fell from {np.mean(first):.3f} to {np.mean(last[-10:]):.3f}")

        users = torch.tensor([[1, 1], [2, 3]])
        with torch.no_grad():
            ours.users(users)
        ours.users.trains = False
        assert not ours.users(users).requires_grad and s.next_step == STEPS + 1
        alone = pinion.torch.EmbeddingBag(s, "users")  # without a step: each backward pushes
        before = s["users"].pull([1, 2])
        alone(users).sum().backward()
        assert s.next_step == STEPS + 2 and np.abs(before - s["users"].pull([1, 2]) - [[0.2], [0.1]]).max() < 1e-6
        twice = pinion.torch.EmbeddingBag(s, "users", step=step)  # used twice in one step: gradients add up
        (twice(users).sum() + twice(users).sum()).backward()
        assert step() == STEPS + 2 and np.abs(before - s["users"].pull([1, 2]) - [[0.6], [0.3]]).max() < 1e-6
        for wrong in (lambda: alone(torch.tensor([1, 2])), lambda: alone(users, torch.tensor([0])), lambda: pinion.torch.EmbeddingBag(s, "users", "max")):
            try:
                wrong()
            except ValueError:
                continue
            raise AssertionError("a wrong call was accepted")
        print("held: no gradient without training, one push a backward pass without a step, repeated use adds up")
        s.finish()
    assert c.wait(id, 30)["state"] == "SUCCEEDED"
