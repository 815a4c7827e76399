"""Pull and push embedding rows of a Pinion cluster. docs/client.md; the functions' guarantees are those of client/pinion.h.

    with pinion.Session("tcp://127.0.0.1:7701", "job-1") as s:
        users = s["users"]
        rows = users.pull(keys)                 # float32, one row a key
        users.push(keys, gradients)             # one step
        s.push({users: (keys, gradients), "items": (others, more)})   # one step over several tables
        s.finish()

Arrays go to the library as they are, without a copy, where they are C-contiguous: keys uint64 (or int64, taken bit by bit), rows float32.
Others are converted first. A session and its tables may be used from any thread; not across fork.
"""
import ctypes
import json
import os
import numpy as np
from pinion import library as _l

__all__ = ["Session", "Table", "Pending", "Error", "Invalid", "Deadline", "Sent", "Fenced", "Ended"]


class Error(Exception):
    """What a call of the library says. `step`: of a push, where it has one."""
    step = None


class Invalid(Error):
    """The caller's mistake; no effect."""


class Deadline(Error, TimeoutError):
    """Not done in time; no effect."""


class Sent(Error, TimeoutError):
    """A push was not acknowledged in time, but is out and will be applied once: do not push it again."""


class Fenced(Error):
    """This client lost its producer or the job went back to a checkpoint: Session.resume() says where to go on."""


class Ended(Error):
    """The job is over, cancelled, unknown or not external; or this producer has finished."""


_kinds = {_l.INVALID: Invalid, _l.DEADLINE: Deadline, _l.PENDING: Sent, _l.FENCED: Fenced, _l.ENDED: Ended, _l.NO_MEMORY: MemoryError}


def _check(code, err):
    if code != _l.OK:
        raise _kinds.get(code, Error)(err.text.decode(errors="replace"))


def _ms(timeout):
    return -1 if timeout is None else min(int(timeout * 1000), 2**31 - 1)


def _keys(keys):
    keys = np.asarray(keys)
    if keys.dtype == np.int64:
        keys = keys.view(np.uint64) if keys.flags.c_contiguous else np.ascontiguousarray(keys).view(np.uint64)
    elif keys.dtype != np.uint64:
        if keys.size and keys.dtype.kind not in "iu":
            raise Invalid(f"keys must be whole numbers, not {keys.dtype}")
        keys = keys.astype(np.int64 if keys.dtype.kind == "i" else np.uint64).view(np.uint64)
    return np.ascontiguousarray(keys)


class Pending:
    """A pull or push under way. result() waits; dropped or garbage-collected, it is given up."""

    def __init__(self, session, ticket, hold, value):
        self._session, self._ticket, self._hold, self._value, self._outcome = session, ticket, hold, value, None

    def result(self, timeout=None):
        """The rows of a pull (an array, or {table: array}), the step of a push. Deadline: not answered yet, ask again."""
        if self._ticket is None:
            if isinstance(self._outcome, Exception):
                raise self._outcome
            return self._outcome
        err, step = _l.CError(), _l.c_uint64()
        code = _l.lib.pinion_wait(self._ticket, ctypes.byref(step), _ms(timeout), ctypes.byref(err))
        if code == _l.DEADLINE:
            _check(code, err)
        self._end()
        self._outcome = self._value if self._value is not None else step.value
        try:
            _check(code, err)
        except Exception as e:
            self._outcome = e
            raise
        return self._outcome

    def _end(self):
        self._ticket = self._hold = None
        self._session._tickets.discard(self)

    def drop(self):
        """Gives up. True: it had no effect."""
        if self._ticket is None:
            return False
        code = _l.lib.pinion_drop(self._ticket)
        self._end()
        self._outcome = Error("dropped")
        return code == _l.DEADLINE


class Table:
    def __init__(self, session, number, name, dim):
        self.session, self.number, self.name, self.dim = session, number, name, dim

    def __repr__(self):
        return f"<pinion.Table {self.name!r}, dim {self.dim}>"

    def pull(self, keys, out=None, timeout=60.0):
        """One row for each key, shape keys.shape + (dim,); repeated keys are allowed. out: written into, float32 and C-contiguous."""
        return self.session._pull({self: keys}, {self: out}, timeout)[self]

    def pull_async(self, keys, out=None, timeout=60.0):
        return self.session._pull_async({self: keys}, {self: out}, timeout, self)

    def push(self, keys, gradients, timeout=60.0):
        """One step: the gradients (keys.shape + (dim,)), those of repeated keys added up. Returns the step's number when all servers applied it."""
        return self.session.push({self: (keys, gradients)}, timeout)

    def push_async(self, keys, gradients, timeout=60.0):
        return self.session.push_async({self: (keys, gradients)}, timeout)


class Session:
    """Membership in one external job, as one of its producers or only to read.

    coordinator: its ZeroMQ address, or the directory of a local cluster (cluster.json in it has the address).
    keys, key: of an encrypted cluster: the folder with KEY.key and authorized/ (pinion keygen --role worker KEY).
    """

    def __init__(self, coordinator, job, name=None, read_only=False, timeout=30.0, log=None, keys=None, key=None):
        self._handle = None
        self._tickets = set()
        if os.path.isdir(coordinator):
            with open(os.path.join(coordinator, "cluster.json")) as f:
                coordinator = json.load(f)["coordinator"]["zmq"]
        self._log = _l.LOG(lambda _, level, line: log(level, line.decode(errors="replace"))) if log else _l.LOG()
        options = _l.COptions(coordinator.encode(), job.encode(), name.encode() if name else None, read_only, self._log, None,
                               os.fspath(keys).encode() if keys else None, key.encode() if key else None)
        handle, err = _l.c_void_p(), _l.CError()
        _check(_l.lib.pinion_open(ctypes.byref(handle), ctypes.byref(options), _ms(timeout), ctypes.byref(err)), err)
        self._handle = handle
        room = (_l.CTable * 16)()
        n = _l.lib.pinion_tables(handle, room, 16)
        self.tables = {t.name.decode(): Table(self, i, t.name.decode(), t.dim) for i, t in enumerate(room[:n])}

    def __getitem__(self, name):
        return self.tables[name]

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.close()

    def __del__(self):
        if getattr(self, "_handle", None) is not None:
            self.close()

    def close(self):
        """Gives the producer back; what is pending is given up. Not while another thread is in a call."""
        if self._handle is None:
            return
        for t in list(self._tickets):
            t.drop()
        handle, self._handle = self._handle, None
        _l.lib.pinion_close(handle)

    def _live(self):
        if self._handle is None:
            raise Ended("the session is closed")
        return self._handle

    def _table(self, t):
        return self.tables[t] if isinstance(t, str) else t

    # ---- requests: the arrays are held until the answer is there ----
    def _parts(self, arrays):
        parts = (_l.CPart * max(1, len(arrays)))()
        for p, (table, keys, rows) in zip(parts, arrays):
            p.table, p.n_keys, p.keys, p.rows = table.number, keys.size, keys.ctypes.data, rows.ctypes.data
        return parts

    def _pull_arrays(self, asked, outs):
        arrays = []
        for t, keys in asked.items():
            table, keys = self._table(t), _keys(keys)
            shape, out = keys.shape + (table.dim,), outs.get(t)
            if out is None:
                out = np.empty(shape, np.float32)
            elif out.dtype != np.float32 or not out.flags.c_contiguous or not out.flags.writeable or out.shape != shape:
                raise Invalid(f"out must be a writeable C-contiguous float32 array of shape {shape}")
            arrays.append((table, keys, out))
        return arrays

    def _push_arrays(self, given):
        arrays = []
        for t, (keys, gradients) in given.items():
            table, keys = self._table(t), _keys(keys)
            gradients = np.ascontiguousarray(gradients, np.float32)
            if gradients.size != keys.size * table.dim:
                raise Invalid(f"table {table.name}: {keys.size} keys need gradients of shape {keys.shape + (table.dim,)}, not {gradients.shape}")
            arrays.append((table, keys, gradients))
        return arrays

    def _start(self, function, arrays, timeout, value):
        ticket, err = _l.c_void_p(), _l.CError()
        _check(function(self._live(), self._parts(arrays), len(arrays), ctypes.byref(ticket), _ms(timeout), ctypes.byref(err)), err)
        pending = Pending(self, ticket, arrays, value)
        self._tickets.add(pending)
        return pending

    def _pull(self, asked, outs, timeout):
        arrays, err = self._pull_arrays(asked, outs), _l.CError()
        _check(_l.lib.pinion_pull(self._live(), self._parts(arrays), len(arrays), _ms(timeout), ctypes.byref(err)), err)
        return {t: rows for t, (_, _, rows) in zip(asked, arrays)}

    def _pull_async(self, asked, outs, timeout, one=None):
        arrays = self._pull_arrays(asked, outs)
        value = {t: rows for t, (_, _, rows) in zip(asked, arrays)}
        return self._start(_l.lib.pinion_pull_start, arrays, timeout, value if one is None else value[one])

    def pull(self, asked, timeout=60.0):
        """{table or name: keys} -> {the same: rows}, in one round trip a server."""
        return self._pull(asked, {}, timeout)

    def pull_async(self, asked, timeout=60.0):
        return self._pull_async(asked, {}, timeout)

    def push(self, given, timeout=60.0):
        """{table or name: (keys, gradients)}: one step, applied as one by each server. Returns its number."""
        arrays, err, step = self._push_arrays(given), _l.CError(), _l.c_uint64()
        code = _l.lib.pinion_push(self._live(), self._parts(arrays), len(arrays), ctypes.byref(step), _ms(timeout), ctypes.byref(err))
        try:
            _check(code, err)
        except Error as e:
            e.step = step.value or None
            raise
        return step.value

    def push_async(self, given, timeout=60.0):
        """As push, without waiting for the answer; at most 64 (training.inFlight) are open, the next waits for one up to timeout.
        Do not change the arrays before result()."""
        return self._start(_l.lib.pinion_push_start, self._push_arrays(given), timeout, None)

    # ---- life ----
    def checkpoint(self, timeout=60.0):
        """A checkpoint that holds all pushes made so far."""
        err = _l.CError()
        _check(_l.lib.pinion_checkpoint(self._live(), _ms(timeout), ctypes.byref(err)), err)

    def finish(self, timeout=60.0):
        """This producer pushes nothing more; waits until a checkpoint holds that."""
        err = _l.CError()
        _check(_l.lib.pinion_finish(self._live(), _ms(timeout), ctypes.byref(err)), err)

    def resume(self, timeout=60.0):
        """After Fenced: the step with which to go on."""
        err, first = _l.CError(), _l.c_uint64()
        _check(_l.lib.pinion_resume(self._live(), ctypes.byref(first), _ms(timeout), ctypes.byref(err)), err)
        return first.value

    @property
    def status(self):
        """A dict of struct pinion_status (client/pinion.h)."""
        s = _l.CStatus()
        _l.lib.pinion_status(self._live(), ctypes.byref(s))
        return {name: getattr(s, name).decode(errors="replace") if name == "why" else getattr(s, name) for name, _ in s._fields_}

    @property
    def first_step(self):
        """Where this incarnation of the producer began: 1, or the last checkpoint's step + 1."""
        return self.status["first_step"]

    @property
    def next_step(self):
        return self.status["next_step"]
