"""Files that are after whoever reads them: to run commands, to fill the memory, to take for ever."""

from __future__ import annotations

import io
import pickle
import random
import struct
import zipfile
from pathlib import Path

import torch

from tests.published import Called, Made, Named, persistent, pickled

NOTHING_ELSE = pickle.PROTO + b"\x04"


def hostile_files(canary: Path) -> dict[str, bytes]:
    """Contents by name. Those that run something make the file `canary`."""
    touch, code = f"touch {canary}", f"open({str(canary)!r}, 'w').close()"
    return {**running(touch, code), **claiming(), **endless(), **damaged(), **archives(touch)}


def module(**changes) -> Made:
    return Made(Named("torch.nn.modules.container", "Sequential"), {**empty_state(), **changes})


def empty_state() -> dict:
    return {"_parameters": {}, "_buffers": {}, "_modules": {}}


def storage(payload: object) -> Called:
    data = payload if isinstance(payload, bytes) else pickled(payload)
    return Called(Named("torch.storage", "_load_from_bytes"), (data,))


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
        "setstate": Made(Named("codeop", "Compile"), {"__setstate__": evaluated}),
        "nested_payload": storage(system),
        "nested_after_header": storage(header + pickled(system)),
        "nested_torch_load": storage(header + pickled(Called(Named("torch", "load"), ("x",)))),
        "nested_in_itself": storage(header + pickled(storage(system))),
        "a_network_that_calls": {"ema": module(_parameters={"weight": evaluated})},
        "source_with_a_call": {"ema": persistent("Net", code, {**empty_state(), "hook": evaluated})},
    }
    files = {name: pickled(content) for name, content in contents.items()}
    files["nested_archive"] = pickled(storage(archives(touch)["zip_with_a_call"]))
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
    """Sizes that are not there."""
    huge, whole = 2**40, legacy_storage(4, bytes(16))

    def tensor(data: bytes, *view) -> bytes:
        rebuilt = Called(Named("torch._utils", "_rebuild_tensor_v2"), (storage(data), *view))
        return pickled({"ema": module(_parameters={"weight": rebuilt})})

    files = {
        "bytes_claim": NOTHING_ELSE + pickle.BINBYTES8 + struct.pack("<Q", huge) + b"x.",
        "text_claim": NOTHING_ELSE + pickle.BINUNICODE8 + struct.pack("<Q", huge) + b"x.",
        "gigabyte_claim": NOTHING_ELSE + pickle.BINBYTES + struct.pack("<I", 2**32 - 1) + b"x.",
        "number_claim": NOTHING_ELSE + pickle.LONG4 + struct.pack("<i", 2**31 - 1) + b"x.",
        "negative_claim": NOTHING_ELSE + pickle.LONG4 + struct.pack("<i", -1) + b"x.",
        "frame_claim": NOTHING_ELSE + pickle.FRAME + struct.pack("<Q", 2**60) + b"N.",
        "memo_claim": NOTHING_ELSE + b"N" + pickle.LONG_BINPUT + struct.pack("<I", 2**32 - 1) + b".",
        "storage_claim": tensor(legacy_storage(huge, bytes(16)), 0, (4,), (1,)),
        "storage_negative": tensor(legacy_storage(-4, b""), 0, (4,), (1,)),
        "storage_disagrees": tensor(legacy_storage(4, bytes(16), listed=huge), 0, (4,), (1,)),
        "storage_cut": tensor(whole[:-1], 0, (4,), (1,)),
        "shape_claim": tensor(whole, 0, (huge, huge), (0, 0)),
        "shape_beyond": tensor(whole, 0, (5,), (1,)),
        "stride_beyond": tensor(whole, 0, (2, 2), (3, 1)),
        "offset_beyond": tensor(whole, 1, (4,), (1,)),
        "offset_negative": tensor(whole, -1, (4,), (1,)),
        "stride_negative": tensor(whole, 3, (4,), (-1,)),
        "shape_of_floats": tensor(whole, 0, (4.0,), (1,)),
        "many_dimensions": tensor(whole, 0, (1,) * 1000, (1,) * 1000),
    }
    # The same bytes over and over, each a storage of its own.
    blob = Called(Named("torch.storage", "_load_from_bytes"), (legacy_storage(2**18, bytes(2**20)),))
    function, arguments = pickled(blob.function)[2:-1], pickled(blob.arguments)[2:-1]
    files["one_storage_often"] = NOTHING_ELSE + arguments + b"q\xf00" + (function + b"h\xf0R0") * 1000 + b"N."
    return files


def endless() -> dict[str, bytes]:
    """Small files that a careless reader never ends with."""
    loop: list = []
    loop.append(loop)
    own = module()
    own.state["_modules"] = {"a": own, "b": own}
    shared = module()
    for _ in range(64):
        shared = module(_modules={"left": shared, "right": shared})
    many = module()
    many.state["_modules"] = {str(number): many for number in range(5000)}
    key: tuple = ()
    for _ in range(64):
        key = (key, key)
    return {
        "list_in_itself": pickled({"ema": loop}),
        "modules_in_themselves": pickled({"ema": own}),
        "modules_shared": pickled({"ema": shared}),
        "modules_in_many": pickled({"ema": many}),
        "key_of_tuples": NOTHING_ELSE + b"}" + pickled(key)[2:-1] + b"Ns.",
        "set_of_tuples": NOTHING_ELSE + b"\x8f(" + pickled(key)[2:-1] + b"\x90.",
        "many_lists": NOTHING_ELSE + b"]" * 2_000_000 + b".",
        "deep_tuples": NOTHING_ELSE + b")" + b"\x85" * 300_000 + b".",
        **long_ones(),
    }


def long_ones() -> dict[str, bytes]:
    """Something large, once, and much that is made of it."""
    name = b"X" + struct.pack("<I", 2**20) + b"m" * 2**20 + b"q\xf0" + b"\x8c\x01n" + b"q\xf1"
    integer = b"\x8b" + struct.pack("<i", 2**20) + b"\x7f" * 2**20 + b"q\xf0"
    pairs = pickled(([(f"{number}", None) for number in range(30_000)],))[2:-1] + b"q\xf0"
    ordered_dict = pickled(Named("collections", "OrderedDict"))[2:-1]
    return {
        "names_of_a_long_name": NOTHING_ELSE + name + b"h\xf0h\xf1\x930" * 50_000 + b"N.",
        "sizes_of_a_long_integer": pickled({"shape": (1 << 8 * 2**20,) * 8}),
        "keys_of_a_long_integer": NOTHING_ELSE + integer + b"}" + b"h\xf0Ns" * 50_000 + b".",
        "dicts_of_a_long_list": NOTHING_ELSE + pairs + (ordered_dict + b"h\xf0R0") * 20_000 + b"N.",
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

    saved, bomb = io.BytesIO(), io.BytesIO()
    torch.save({"net": Runs(), "optimizer_state": {}}, saved)
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**28))
    endless_ones = endless()
    return {
        "zip_with_a_call": saved.getvalue(),
        "zip_bomb": bomb.getvalue(),
        "zip_cut": saved.getvalue()[:-30],
        "zip_key_of_tuples": archive_of(endless_ones["key_of_tuples"]),
        "zip_dicts_of_a_long_list": archive_of(endless_ones["dicts_of_a_long_list"]),
    }


def archive_of(instructions: bytes) -> bytes:
    """What torch.save would make of an object that has these instructions."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("archive/data.pkl", instructions.replace(NOTHING_ELSE, b"\x80\x02", 1))
        archive.writestr("archive/version", "3\n")
    return content.getvalue()
