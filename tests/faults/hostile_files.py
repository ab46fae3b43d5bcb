"""Files that try to run commands when they are read, and files that are damaged or claim false sizes."""

import io
import os
import pickle
import random
import struct
from pathlib import Path

import torch

from tests.published import Called, Made, Named, module_tree, persistent, pickled

NOTHING_ELSE = pickle.PROTO + b"\x04"
# How a storage begins in torch's older format.
HEADER = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))


def hostile_files(canary: Path) -> dict[str, bytes]:
    """Contents by name. Those that run something make the file `canary`."""
    touch, code = f"touch {canary}", f"open({str(canary)!r}, 'w').close()"
    return {**running(touch, code), **claiming(), **damaged(), **archives(touch)}


EMPTY_STATE: dict = {"_parameters": {}, "_buffers": {}, "_modules": {}}


def module(**changes) -> Made:
    return Made(Named("torch.nn.modules.container", "Sequential"), {**EMPTY_STATE, **changes})


def tensor(payload: object, *view: object) -> dict:
    """A network with one tensor, whose storage is made of `payload`."""
    data = payload if isinstance(payload, bytes) else pickled(payload)
    storage = Called(Named("torch.storage", "_load_from_bytes"), (data,))
    rebuilt = Called(Named("torch._utils", "_rebuild_tensor_v2"), (storage, *(view or (0, (4,), (1,)))))
    return {"ema": module(_parameters={"weight": rebuilt})}


def running(touch: str, code: str) -> dict[str, bytes]:
    """Calls of every kind, everywhere in a file."""
    system = Called(Named("os", "system"), (touch,))
    evaluated = Called(Named("builtins", "eval"), (code,))
    contents = {
        "os_system": system,
        "builtins_exec": Called(Named("builtins", "exec"), (code,)),
        "attrgetter": Called(Called(Named("operator", "attrgetter"), ("system",)), (Named("os", "path"),)),
        "dotted_name": Called(Named("os.path", "os.system"), (touch,)),
        "call_of_an_object": Called(module(), (touch,)),
        "state_of_a_class": Made(Named("os", "system"), module()),
        "setstate": Made(Named("codeop", "Compile"), {"__setstate__": evaluated}),
        "nested_payload": tensor(system),
        "nested_after_header": tensor(HEADER + pickled(system)),
        "a_network_that_calls": {"ema": module(_parameters={"weight": evaluated})},
        "a_state_that_calls": {"ema": Made(Named("torch.nn", "Sequential"), evaluated)},
        "a_method_that_calls": {"ema": module_tree({"pixel_nerf_net.x": torch.zeros(1)}, code, evaluated)},
        "ordered_dict_state": {"ema": Called(Named("collections", "OrderedDict"), ((("__class__", evaluated),),))},
        "source_with_a_call": {"ema": persistent("Net", code, {**EMPTY_STATE, "hook": evaluated})},
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
    """A storage as torch writes it, which claims to have `claimed` floats."""

    class Writer(pickle.Pickler):
        def persistent_id(self, obj):
            return obj if type(obj) is tuple and obj[0] == "storage" else None

    file = io.BytesIO()
    Writer(file, 2).dump(("storage", torch.FloatStorage, "0", "cpu", claimed, None))
    return b"".join([HEADER, file.getvalue(), pickle.dumps(["0"], 2), struct.pack("<q", listed or claimed), data])


def claiming() -> dict[str, bytes]:
    """Sizes that are not true, and modules that contain themselves."""
    huge, whole = 2**40, legacy_storage(4, bytes(16))
    own = module()
    own.state["_modules"] = {"a": own, "b": own}
    tensors = {
        "storage_claim": tensor(legacy_storage(huge, bytes(16))),
        "storage_disagrees": tensor(legacy_storage(4, bytes(16), listed=huge)),
        "storage_cut": tensor(whole[:-1]),
        "shape_beyond": tensor(whole, 0, (5,), (1,)),
        "shape_of_a_stub": tensor(whole, 0, module(), (1,)),
        "modules_in_themselves": {"ema": own},
    }
    return {
        **{name: pickled(content) for name, content in tensors.items()},
        "bytes_claim": NOTHING_ELSE + pickle.BINBYTES8 + struct.pack("<Q", huge) + b"x.",
        "frame_claim": NOTHING_ELSE + pickle.FRAME + struct.pack("<Q", 2**60) + b"N.",
        "deep_tuples": NOTHING_ELSE + b")" + b"\x85" * 300_000 + b".",
    }


def damaged() -> dict[str, bytes]:
    return {
        "empty": b"",
        "unknown_opcode": NOTHING_ELSE + b"\xff.",
        "noise": b"\x80" + random.Random(0).randbytes(5000),
    }


def archives(touch: str) -> dict[str, bytes]:
    """torch.save's newer format, a zip archive."""

    class Runs:
        def __reduce__(self):
            return os.system, (touch,)

    saved = io.BytesIO()
    torch.save({"net": Runs(), "optimizer_state": {}}, saved)
    return {"zip_with_a_call": saved.getvalue(), "zip_cut": saved.getvalue()[:-30]}
