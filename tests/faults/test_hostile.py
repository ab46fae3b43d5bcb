"""Nothing that is loaded is executed: hostile files, read in another process, where an audit hook sees what is."""

import ast
import io
import json
import os
import pickle
import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT, counted
from tests.published import Called, Made, Named, module_tree, persistent, pickled, published_weights, write_snapshot

# Files that try to run commands when they are read, and files that are damaged or claim false sizes.

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


# What is read

PROGRAM = """
import encodings.cp437, json, pickle, sys, time  # zipfile needs cp437 for names without Unicode
from pathlib import Path
import genvs, torch
from genvs.errors import InputError
torch.set_num_threads(1)
good, canary, ours, usual = (json.loads(argument) for argument in sys.argv[1:])
for path in good:  # so that lazy imports happen now
    genvs.load_snapshot(path)
watching, events = None, []
def hook(event, arguments):
    opens_the_file = event == "open" and arguments[0] in (watching, str(watching))
    if watching and not opens_the_file and event not in ("object.__getattr__", "sys._getframe"):
        events.append(f"{event} {arguments[:1]!a:.100}")
sys.addaudithook(hook)
def usual_reader(path):
    with open(path, "rb") as file:
        pickle.load(file)
def read_all(paths, read):
    global watching
    results = {}
    for path in map(Path, paths):
        events.clear()
        watching, start = path, time.process_time()
        try:
            read(path)
            said = "read"
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        watching = None
        results[path.stem] = said, list(events), time.process_time() - start
    return results
refused = read_all(ours, genvs.load_snapshot)
executed = Path(canary).exists()
print(json.dumps([refused, executed, read_all(usual, usual_reader), Path(canary).exists()]))
"""
PARTS = ("genvs", "training", "inference", "torch_utils", "dnnlib", "benchmarks", "examples", "experiments")
EXECUTED = ("os.system", "exec", "compile", "subprocess.Popen")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> dict[str, Path]:
    """The hostile files by name. Beside them, `canary` exists as soon as one of them was executed."""
    folder = tmp_path_factory.mktemp("hostile")
    contents = hostile_files(folder / "canary")
    for name, content in contents.items():
        (folder / f"{name}.pkl").write_bytes(content)
    return {name: folder / f"{name}.pkl" for name in contents}


@pytest.fixture(scope="module")
def seen(corpus, tmp_path_factory) -> list:
    """What our reader said and did, and whether the canary existed then. The same of `pickle.load`."""
    weights = published_weights()
    snapshot = write_snapshot(tmp_path_factory.mktemp("theirs") / "network-snapshot-004000.pkl", weights)
    state = snapshot.with_name("training-state.pt")
    torch.save({"net": weights, "optimizer_state": {}}, state)
    usual = [corpus[name] for name in ("os_system", "builtins_exec", "text_protocol", "inst_opcode")]
    canary = usual[0].with_name("canary")
    arguments = [[str(snapshot), str(state)], str(canary), [*map(str, corpus.values())], [*map(str, usual)]]
    command = [sys.executable, "-c", PROGRAM, *map(json.dumps, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_hostile_files_are_refused_and_nothing_of_them_is_executed(corpus, seen):
    refused, executed, _, _ = seen
    assert not executed and refused.keys() == corpus.keys() and len(corpus) >= 30
    for name, (said, events, seconds) in refused.items():
        assert said.startswith(f"InputError: {corpus[name]} "), (name, said)
        assert "\n" not in said and len(said) < 500, (name, said)
        assert events == [], (name, events)
        assert seconds < 10, (name, seconds)
    counted("hostile files refused, and nothing of them executed", len(refused), len(corpus))


def test_the_hook_sees_what_a_usual_reader_executes(seen):
    """The files are hostile, and the test above would fail if one were executed."""
    _, _, by_usual, executed = seen
    assert executed
    for name, (_, events, _) in by_usual.items():
        assert any(event.startswith(EXECUTED) for event in events), (name, events)


def test_no_call_in_the_project_could_execute_what_it_reads():
    """`torch.load` reads tensors alone, as it can since torch 2.10, which is required; nothing else unpickles."""
    assert '"torch>=2.10"' in (ROOT / "pyproject.toml").read_text()
    for path in [ROOT / "train.py", *(file for part in PARTS for file in (ROOT / part).rglob("*.py"))]:
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call):
                name = ast.unparse(call.func)
                assert name not in ("pickle.load", "pickle.loads", "eval", "exec", "yaml.load", "os.system"), path
                if name == "torch.load":
                    given = {option.arg: ast.unparse(option.value) for option in call.keywords}
                    assert given.get("weights_only") == "True", path
