"""jurat from Python: appraises attestation evidence that is at hand, with libjurat. Nothing but the standard library.

    import jurat
    lib = jurat.Library("/usr/local/lib/libjurat.so")
    answer = lib.appraise(policy=open("policy.yaml", "rb").read(), record=open("peer.jurat", "rb").read())
    answer.affirmed     # what to go by
    answer.json         # bytes, those of `jurat verify --json --offline`
    answer.verdict      # the same, decoded

jurat.h says what each argument means. They have the names of its fields; bytes and str may be given alike.
"""

import ctypes
import json

_MAX_COUNT = 64


class _Bytes(ctypes.Structure):
    _fields_ = [("data", ctypes.c_char_p), ("size", ctypes.c_size_t)]


class _Part(ctypes.Structure):
    _fields_ = [("name", _Bytes), ("content", _Bytes)]


class _Request(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("record", _Bytes),
        ("chain", _Bytes),
        ("evidence", _Bytes),
        ("target", _Bytes),
        ("policy", _Bytes),
        ("time", _Bytes),
        ("endorsements", _Bytes),
        ("format", _Bytes),
        ("parts", ctypes.POINTER(_Part)),
        ("parts_count", ctypes.c_size_t),
        ("event_log", _Bytes),
        ("stapled", ctypes.POINTER(_Bytes)),
        ("stapled_count", ctypes.c_size_t),
        ("report_data", _Bytes),
        ("unsafe_any_report_data", ctypes.c_int),
        ("unsafe_binding", _Bytes),
    ]


def _bytes(value):
    """Makes a jurat_bytes. It refers to the memory of a bytes object, which it keeps alive."""
    if value is None:
        return _Bytes()
    raw = value.encode() if isinstance(value, str) else bytes(memoryview(value))  # bytes of a number would be as many zeros
    if not raw:
        raise ValueError("an empty value: leave it out, or say what is meant")
    return _Bytes(raw, len(raw))


class Answer:
    """What came of an appraisal."""

    def __init__(self, code, raw):
        self.code = code  # exit code of `jurat verify`
        self.json = raw

    @property
    def affirmed(self):
        return self.code == 0

    @property
    def verdict(self):
        """The verdict as a dict; {"error": ...} where there is none."""
        return json.loads(self.json)

    def __bool__(self):
        raise TypeError("an Answer is not a verdict: ask for .affirmed")


class Library:
    """libjurat, loaded from path. Its methods may be called by any number of threads at once."""

    def __init__(self, path):
        self._lib = ctypes.CDLL(path)
        self._lib.jurat_appraise.argtypes = [ctypes.POINTER(_Request), ctypes.POINTER(ctypes.c_void_p)]
        self._lib.jurat_appraise.restype = ctypes.c_int
        self._lib.jurat_version.argtypes = []
        self._lib.jurat_version.restype = ctypes.c_void_p  # c_char_p would lose what has to be freed
        self._lib.jurat_free.argtypes = [ctypes.c_void_p]
        self._lib.jurat_free.restype = None

    def _take(self, address):
        if not address:
            raise MemoryError("libjurat had no memory for an answer")
        try:
            return ctypes.string_at(address)
        finally:
            self._lib.jurat_free(address)

    def version(self):
        return json.loads(self._take(self._lib.jurat_version()))

    def appraise(self, policy, *, record=None, chain=None, evidence=None, parts=None, stapled=None,
                 unsafe_any_report_data=False, **more):
        """Judges one of record, chain (a list of DER certificates, leaf first) and evidence. more are other fields of
        jurat_request; parts is a dict, stapled a list."""
        if chain is not None:
            chain = b"".join(chain)
        request = _Request(
            struct_size=ctypes.sizeof(_Request), policy=_bytes(policy), record=_bytes(record), chain=_bytes(chain),
            evidence=_bytes(evidence), unsafe_any_report_data=1 if unsafe_any_report_data is True else 0)
        for name, value in more.items():
            if name not in ("target", "time", "endorsements", "format", "event_log", "report_data", "unsafe_binding"):
                raise TypeError(f"jurat_request has no field {name}")
            setattr(request, name, _bytes(value))
        parts = [_Part(_bytes(name), _bytes(content)) for name, content in (parts or {}).items()]
        stapled = [_bytes(e) for e in stapled or []]
        if max(len(parts), len(stapled)) > _MAX_COUNT:
            raise ValueError(f"more than {_MAX_COUNT} parts or endorsements")
        request.parts, request.parts_count = (_Part * len(parts))(*parts), len(parts)
        request.stapled, request.stapled_count = (_Bytes * len(stapled))(*stapled), len(stapled)
        answer = ctypes.c_void_p()
        code = self._lib.jurat_appraise(ctypes.byref(request), ctypes.byref(answer))
        return Answer(code, self._take(answer.value))
