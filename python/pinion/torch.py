"""An EmbeddingBag whose rows live on a Pinion cluster: forward pulls them, backward pushes their gradients, the servers' optimizer steps.

    step = pinion.torch.Step(session)
    users = pinion.torch.EmbeddingBag(session, "users", step=step)
    items = pinion.torch.EmbeddingBag(session, "items", mode="mean", step=step)
    for batch in data:
        loss(model(users(batch.user), items(batch.item, batch.offsets)), batch.label).backward()
        dense_optimizer.step(); dense_optimizer.zero_grad()
        step()                      # one push with the gradients of both tables

Without a step a module pushes by itself at the end of each backward pass through it, a step a pass.
"""
import numpy as np
import torch
from torch import nn

__all__ = ["EmbeddingBag", "Step"]


class Step:
    """Gathers the gradients of several modules, and of several backward passes, into one push. Not for several threads at once."""

    def __init__(self, session, timeout=60.0):
        self.session, self.timeout = session, timeout
        self._gathered = {}

    def add(self, table, keys, gradients):
        self._gathered.setdefault(table, []).append((keys, gradients))

    def zero(self):
        """Forgets what was gathered."""
        self._gathered = {}

    def take(self):
        """{table: (keys, gradients)} of all that was gathered, and forgets it. Repeated keys stay: the library adds them up."""
        gathered, self._gathered = self._gathered, {}
        return {table: (np.concatenate([k for k, _ in list_]), np.concatenate([g for _, g in list_])) if len(list_) > 1 else list_[0]
                for table, list_ in gathered.items()}

    def __call__(self, wait=True):
        """Pushes. wait: until all servers applied it, then the step's number; otherwise a pinion.Pending. None when nothing was gathered."""
        given = self.take()
        if not given:
            return None
        return self.session.push(given, self.timeout) if wait else self.session.push_async(given, self.timeout)


class EmbeddingBag(nn.Module):
    """As torch.nn.EmbeddingBag with modes sum and mean. No weights of its own: state_dict is empty, checkpoints are the cluster's.

    forward(input, offsets=None): input 2-D [bags, keys of a bag], or 1-D with offsets (the place of each bag's first key); whole numbers, any
    64-bit key. Returns [bags, dim] on input's device. Under torch.no_grad() or when `trains` is False nothing is pushed.
    """

    def __init__(self, session, table, mode="sum", step=None, timeout=60.0):
        super().__init__()
        if mode not in ("sum", "mean"):
            raise ValueError(f"mode {mode!r}: sum or mean")
        self.table = session[table] if isinstance(table, str) else table
        self.mode, self.timeout, self.trains = mode, timeout, True
        self._step, self._own = step if step is not None else Step(session, timeout), step is None

    def extra_repr(self):
        return f"table={self.table.name!r}, dim={self.table.dim}, mode={self.mode!r}"

    def forward(self, input, offsets=None):
        if (input.dim() == 2) == (offsets is not None):
            raise ValueError("a 2-D input without offsets, or a 1-D input with offsets")
        keys, places = torch.unique(input.reshape(-1).to(device="cpu", dtype=torch.int64), return_inverse=True)
        keys = keys.numpy()
        rows = torch.from_numpy(self.table.pull(keys, timeout=self.timeout)).to(input.device)
        if self.trains and torch.is_grad_enabled():
            rows.requires_grad_(True)
            rows.register_hook(lambda gradient: self._backward(keys, gradient))
        places = places.to(input.device)
        if offsets is None:
            return nn.functional.embedding_bag(places.view(input.shape), rows, mode=self.mode)
        return nn.functional.embedding_bag(places, rows, offsets.to(places.dtype), mode=self.mode)

    def _backward(self, keys, gradient):
        self._step.add(self.table, keys, np.array(gradient.detach().to("cpu", torch.float32).numpy()))  # torch may go on adding to its own
        if self._own:
            self._step()
