"""Files that try to run commands when they are read, and files that are damaged or claim what they do not hold."""

from __future__ import annotations

import io
import pickle
import random
import struct
from pathlib import Path

import torch

from tests.published import Called, Made, Named, module_tree, persistent, pickled

NOTHING_ELSE = pickle.PROTO + b"\x04"


def hostile_files(canary: Path) -> dict[str, bytes]:
    """Contents by name. Those that run something make the file `canary`."""
    touch, code = f"touch {canary}", f"open({str(canary)!r}, 'w').close()"
    return {**running(touch, code), **claiming(), **damaged(), **archives(touch)}


def module(**changes) -> Made:
    return Made(Named("torch.nn.modules.container", "Sequential"), {**empty_state(), **changes})


def empty_state() -> dict:
    return {"_parameters": {}, "_buffers": {}, "_modules": {}}


def tensor(payload: object, *view: object) -> dict:
    """A network with one tensor, whose storage is made of `payload`."""
    data = payload if isinstance(payload, bytes) else pickled(payload)
    storage = Called(Named("torch.storage", "_load_from_bytes"), (data,))
    rebuilt = Called(Named("torch._utils", "_rebuild_tensor_v2"), (storage, *(view or (0, (4,), (1,)))))
    return {"ema": module(_parameters={"weight": rebuilt})}


def running(touch: str, code: str) -> dict[str, bytes]:
    """Calls, by every road there is, wherever a file may hold them."""
    system = Called(Named("os", "system"), (touch,))
    evaluated = Called(Named("builtins", "eval"), (code,))
    attribute = Called(Named("builtins", "getattr"), (Named("some.package", "thing"), "run"))
    header = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    contents = {
        "os_system": system,
        "posix_system": Called(Named("posix", "system"), (touch,)),
        "builtins_exec": Called(Named("builtins", "exec"), (code,)),
        "builtins_eval": evaluated,
        "python2_eval": Called(Named("__builtin__", "eval"), (code,)),
        "builtins_import": Called(Named("builtins", "__import__"), ("antigravity",)),
        "importlib": Called(Named("importlib", "import_module"), ("antigravity",)),
        "runpy": Called(Named("runpy", "run_path"), ("x",)),
        "subprocess_popen": Called(Named("subprocess", "Popen"), (["sh", "-c", touch],)),
        "socket": Called(Named("socket", "create_connection"), (("127.0.0.1", 9),)),
        "partial": Called(Named("functools", "partial"), (Named("some.package", "f"), touch)),
        "attrgetter": Called(Called(Named("operator", "attrgetter"), ("system",)), (Named("os", "path"),)),
        "methodcaller": Called(Called(Named("operator", "methodcaller"), ("system", touch)), (Named("os", "path"),)),
        "getattr_chain": Called(Called(Named("builtins", "getattr"), (attribute, "system")), (touch,)),
        "torch_load": Called(Named("torch", "load"), ("x",)),
        "torch_hub": Called(Named("torch.hub", "load"), ("x", "y")),
        "torch_nested_name": Called(Named("torch", "serialization.os.system"), (touch,)),
        "numpy_load": Called(Named("numpy", "load"), ("x",)),
        "numpy_runstring": Called(Named("numpy.testing._private.utils", "runstring"), (code, {})),
        "package_main": Called(Named("pip._internal", "main"), (["download", "x"],)),
        "dotted_name": Called(Named("os.path", "os.system"), (touch,)),
        "call_of_an_object": Called(module(), (touch,)),
        "call_of_a_string": Called("os.system", (touch,)),
        "state_of_a_class": Made(Named("os", "system"), module()),
        "setstate": Made(Named("codeop", "Compile"), {"__setstate__": evaluated}),
        "nested_payload": tensor(system),
        "nested_after_header": tensor(header + pickled(system)),
        "nested_torch_load": tensor(header + pickled(Called(Named("torch", "load"), ("x",)))),
        "a_network_that_calls": {"ema": module(_parameters={"weight": evaluated})},
        "a_state_that_calls": {"ema": Made(Named("torch.nn", "Sequential"), evaluated)},
        "items_of_a_call": {"ema": Made(Named("builtins", "dict"), items={"_modules": evaluated})},
        "a_method_that_calls": {"ema": module_tree({"pixel_nerf_net.x": torch.zeros(1)}, code, evaluated)},
        "a_tensor_that_calls": tensor(b"", evaluated),
        "ordered_dict_of_a_call": {"ema": Called(Named("collections", "OrderedDict"), (evaluated,))},
        "ordered_dict_state": {"ema": Called(Named("collections", "OrderedDict"), ((("__class__", evaluated),),))},
        "source_with_a_call": {"ema": persistent("Net", code, {**empty_state(), "hook": evaluated})},
    }
    files = {name: pickled(content) for name, content in contents.items()}
    files["nested_archive"] = pickled(tensor(archives(touch)["zip_with_a_call"]))
    files["text_protocol"] = b"\x80\x02cos\nsystem\n(S'" + touch.encode() + b"'\ntR."
    files["inst_opcode"] = b"\x80\x02(S'" + touch.encode() + b"'\nios\nsystem\n."
    files["obj_opcode"] = b"\x80\x02(cos\nsystem\nS'" + touch.encode() + b"'\no."
    files["extension"] = b"\x80\x02\x82\x01."
    files["persistent_id"] = b"\x80\x02" + pickled(("module", "os"))[2:-1] + b"Q."
    return files


def legacy_storage(claimed: int, data: bytes, listed: int | None = None) -> bytes:
    """A storage as torch writes it, which claims to have so many floats."""

    class Writer(pickle.Pickler):
        def persistent_id(self, obj):
            return obj if type(obj) is tuple and obj[0] == "storage" else None

    parts = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    file = io.BytesIO()
    Writer(file, 2).dump(("storage", torch.FloatStorage, "0", "cpu", claimed, None))
    listed = claimed if listed is None else listed
    return b"".join([*parts, file.getvalue(), pickle.dumps(["0"], 2), struct.pack("<q", listed), data])


def claiming() -> dict[str, bytes]:
    """Sizes that are not there, and modules that contain themselves."""
    huge, whole = 2**40, legacy_storage(4, bytes(16))
    own = module()
    own.state["_modules"] = {"a": own, "b": own}
    tensors = {
        "storage_claim": tensor(legacy_storage(huge, bytes(16))),
        "storage_negative": tensor(legacy_storage(-4, b"")),
        "storage_disagrees": tensor(legacy_storage(4, bytes(16), listed=huge)),
        "storage_cut": tensor(whole[:-1]),
        "shape_beyond": tensor(whole, 0, (5,), (1,)),
        "stride_beyond": tensor(whole, 0, (2, 2), (3, 1)),
        "offset_beyond": tensor(whole, 1, (4,), (1,)),
        "offset_negative": tensor(whole, -1, (4,), (1,)),
        "stride_negative": tensor(whole, 3, (4,), (-1,)),
        "shape_of_floats": tensor(whole, 0, (4.0,), (1,)),
        "shape_of_a_stub": tensor(whole, 0, module(), (1,)),
        "many_dimensions": tensor(whole, 0, (1,) * 1000, (1,) * 1000),
        "modules_in_themselves": {"ema": own},
    }
    return {
        **{name: pickled(content) for name, content in tensors.items()},
        "bytes_claim": NOTHING_ELSE + pickle.BINBYTES8 + struct.pack("<Q", huge) + b"x.",
        "text_claim": NOTHING_ELSE + pickle.BINUNICODE8 + struct.pack("<Q", huge) + b"x.",
        "negative_claim": NOTHING_ELSE + pickle.LONG4 + struct.pack("<i", -1) + b"x.",
        "frame_claim": NOTHING_ELSE + pickle.FRAME + struct.pack("<Q", 2**60) + b"N.",
        "deep_tuples": NOTHING_ELSE + b")" + b"\x85" * 300_000 + b".",
    }


def damaged() -> dict[str, bytes]:
    return {
        "empty": b"",
        "text": b"no snapshot",
        "html": b"<!DOCTYPE html><html>404</html>",
        "one_byte": b"\x80",
        "no_stop": NOTHING_ELSE + b"N",
        "pop_of_nothing": NOTHING_ELSE + b"00.",
        "mark_missing": NOTHING_ELSE + b"t.",
        "memo_missing": NOTHING_ELSE + b"h\x07.",
        "unknown_opcode": NOTHING_ELSE + b"\xff.",
        "number": pickle.dumps(7),
        "noise": b"\x80" + random.Random(0).randbytes(5000),
    }


def archives(touch: str) -> dict[str, bytes]:
    """torch.save's newer format, a zip archive."""

    class Runs:
        def __reduce__(self):
            import os

            return os.system, (touch,)

    saved = io.BytesIO()
    torch.save({"net": Runs(), "optimizer_state": {}}, saved)
    return {"zip_with_a_call": saved.getvalue(), "zip_cut": saved.getvalue()[:-30]}
