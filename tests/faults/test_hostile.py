"""Nothing that is loaded is executed: hostile files, read in another process, where an audit hook sees what is."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT, counted
from tests.faults.hostile_files import hostile_files
from tests.published import published_weights, write_snapshot

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
        watching, start = path, time.perf_counter()
        try:
            read(path)
            said = "read"
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        watching = None
        results[path.stem] = said, list(events), time.perf_counter() - start
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
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
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
