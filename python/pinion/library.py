"""client/pinion.h by ctypes. Calls release the interpreter's lock, so threads of one program pull and push at once."""
import ctypes
import os
from ctypes import POINTER, Structure, byref, c_bool, c_char, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p

OK, FAILED, INVALID, DEADLINE, PENDING, FENCED, ENDED, NO_MEMORY = range(8)


class CError(Structure):
    _fields_ = [("text", c_char * 480)]


LOG = ctypes.CFUNCTYPE(None, c_void_p, c_int, c_char_p)


class COptions(Structure):
    _fields_ = [("coordinator", c_char_p), ("job", c_char_p), ("name", c_char_p), ("read_only", c_bool), ("log", LOG), ("log_owner", c_void_p), ("keys", c_char_p), ("key", c_char_p)]


class CTable(Structure):
    _fields_ = [("name", c_char * 64), ("dim", c_uint32)]


class CPart(Structure):
    _fields_ = [("table", c_uint32), ("n_keys", c_size_t), ("keys", c_void_p), ("rows", c_void_p)]


class CStatus(Structure):
    _fields_ = [(n, c_bool) for n in ("open", "fenced", "ended", "has_producer", "finished")] + \
               [(n, c_uint32) for n in ("producer", "n_producers", "incarnation")] + \
               [(n, c_uint64) for n in ("generation", "first_step", "next_step", "clock", "committed_step", "open_pushes", "open_pulls", "retries", "replays")] + \
               [("why", c_char * 480)]


def _candidates():
    if os.environ.get("PINION_LIBRARY"):
        return [os.environ["PINION_LIBRARY"]]
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return [os.path.join(root, "build", "libpinion.so"), "libpinion.so.0"]


def load():
    """Finds libpinion: $PINION_LIBRARY, else build/ of the source tree that this file stands in, else where the system looks."""
    problems = []
    for path in _candidates():
        try:
            return ctypes.CDLL(path)
        except OSError as e:
            problems.append(str(e))
    raise ImportError("libpinion.so is not there; build it or name it in PINION_LIBRARY: " + "; ".join(problems))


lib = load()
_session, _ticket, _error, _parts = c_void_p, c_void_p, POINTER(CError), POINTER(CPart)
for _name, _result, _arguments in (
        ("pinion_code_name", c_char_p, [c_int]),
        ("pinion_open", c_int, [POINTER(_session), POINTER(COptions), c_int, _error]),
        ("pinion_close", None, [_session]),
        ("pinion_tables", c_size_t, [_session, POINTER(CTable), c_size_t]),
        ("pinion_pull", c_int, [_session, _parts, c_size_t, c_int, _error]),
        ("pinion_push", c_int, [_session, _parts, c_size_t, POINTER(c_uint64), c_int, _error]),
        ("pinion_pull_start", c_int, [_session, _parts, c_size_t, POINTER(_ticket), c_int, _error]),
        ("pinion_push_start", c_int, [_session, _parts, c_size_t, POINTER(_ticket), c_int, _error]),
        ("pinion_wait", c_int, [_ticket, POINTER(c_uint64), c_int, _error]),
        ("pinion_drop", c_int, [_ticket]),
        ("pinion_checkpoint", c_int, [_session, c_int, _error]),
        ("pinion_finish", c_int, [_session, c_int, _error]),
        ("pinion_resume", c_int, [_session, POINTER(c_uint64), c_int, _error]),
        ("pinion_status", None, [_session, POINTER(CStatus)])):
    _function = getattr(lib, _name)
    _function.restype, _function.argtypes = _result, _arguments

__all__ = ["lib", "byref", "CError", "COptions", "CTable", "CPart", "CStatus", "LOG", "c_uint64", "c_void_p",
           "OK", "FAILED", "INVALID", "DEADLINE", "PENDING", "FENCED", "ENDED", "NO_MEMORY"]
