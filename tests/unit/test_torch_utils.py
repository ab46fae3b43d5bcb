"""torch_utils: ranks, statistics, files, data order; alone and as two processes on gloo."""

from __future__ import annotations

import fractions
import itertools
import os
import pickle
import resource
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing
from torch.nn.parallel import DistributedDataParallel

from genvs import files
from genvs.errors import InputError
from torch_utils import distributed, misc
from torch_utils.training_stats import Collector

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def unlaunched(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)


# --- one process that nothing launched


def test_unlaunched_is_one_rank(capsys: pytest.CaptureFixture[str]) -> None:
    assert distributed.init("cpu") == CPU
    assert not distributed.is_initialized()
    assert (distributed.get_rank(), distributed.get_local_rank(), distributed.get_world_size()) == (0, 0, 1)
    distributed.barrier()
    assert distributed.all_reduce_sum(torch.tensor([2.0, 3.0])).tolist() == [2.0, 3.0]
    any_rank = distributed.AnyRank(CPU)
    assert [any_rank(flag) for flag in (True, True, False, False)] == [False, True, True, False], "one call later"
    distributed.print0("hello", "there", sep=", ")
    assert capsys.readouterr().out == "hello, there\n"
    distributed.shutdown()


def test_a_dry_run_knows_the_world_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    distributed.init("cpu")
    assert not distributed.is_initialized()
    assert distributed.get_world_size() == 8


def test_collector_gives_the_mean_of_all_elements_and_hides_no_nan() -> None:
    values = torch.rand(7, 3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    collector = Collector(CPU)
    for step in values:
        collector.report("Loss/loss", step)
        collector.report("Loss/large", step, mask=step > 0.9)
        collector.report("Progress/lr", 0.25)
        collector.report("Nothing/at_all", torch.zeros(0))
    collector.report("Bad", torch.tensor(float("nan")))
    means = collector.update()
    assert list(means) == ["Bad", "Loss/large", "Loss/loss", "Progress/lr"]
    exact = values.detach().double()
    expected = [float("nan"), exact[values > 0.9].mean().item(), exact.mean().item(), 0.25]
    assert list(means.values()) == pytest.approx(expected, rel=1e-12, nan_ok=True)
    assert collector.update() == {}, "an update begins anew"


# --- files


def names_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_save_and_load(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    state = {"net": {"w": torch.arange(6.0).reshape(2, 3)}, "steps": [1, 2], "name": "x", "lr": 0.5}
    files.save_atomic({"old": 1}, path)
    files.save_atomic(state, path)
    assert names_in(tmp_path) == ["state.pt"]
    loaded = files.load(path)
    assert torch.equal(loaded["net"].pop("w"), state["net"].pop("w"))
    assert loaded == state
    files.write_atomic("é\n", tmp_path / "options.json")
    assert (tmp_path / "options.json").read_bytes() == b"\xc3\xa9\n"
    plain = tmp_path / "plain"
    plain.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode), "as readable as any other file"


def test_a_file_is_on_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def seen_fsync(descriptor: int) -> None:
        fsync(descriptor)
        events.append("sync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")

    def seen_replace(source: Path, target: Path) -> None:
        replace(source, target)
        events.append(f"replace {Path(target).name}")

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "replace", seen_replace)
    files.save_atomic([1], tmp_path / "a.pt")
    files.write_atomic("1", tmp_path / "b.txt")
    assert events == ["sync file", "replace a.pt", "sync folder", "sync file", "replace b.txt", "sync folder"]


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file can grow over 100 kB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("what", ["tensors", "text"])
def test_a_failed_save_names_the_file_and_keeps_the_old_one(tmp_path: Path, full_disk: None, what: str) -> None:
    path = tmp_path / "state"
    path.write_text("old")
    with pytest.raises(OSError, match=r"could not be saved: File too large: '.*/state'$") as caught:
        if what == "tensors":
            files.save_atomic({"w": torch.zeros(100_000)}, path)
        else:
            files.write_atomic("x" * 200_000, path)
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["state"]


def test_a_save_to_nowhere_names_the_file(tmp_path: Path) -> None:
    for path in (tmp_path / "absent" / "a.pt", tmp_path / ("n" * 300)):
        with pytest.raises(OSError, match=f"could not be saved: .*{path.name}"):
            files.save_atomic({}, path)
    with pytest.raises(AttributeError, match="local object"):  # the caller's mistake is no failure to save
        files.save_atomic(lambda: None, tmp_path / "a.pt")
    assert names_in(tmp_path) == []


class Harmful:
    """Its pickle makes a folder when it is loaded without care."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def bad_files(folder: Path) -> dict[str, Path]:
    """Files that `load` must refuse, by what is wrong with them."""
    good, legacy = folder / "good", folder / "legacy"
    torch.save({"w": torch.arange(1000.0)}, good)
    torch.save({"w": torch.arange(1000.0)}, legacy, _use_new_zipfile_serialization=False)
    content = good.read_bytes()
    flipped = bytearray(content)
    flipped[content.index(torch.arange(500.0, 600.0).numpy().tobytes())] ^= 1
    bad = {name: folder / name for name in ("absent", "empty", "cut", "cut legacy", "flipped", "text", "pickle")}
    bad["empty"].touch()
    bad["cut"].write_bytes(content[: len(content) // 2])
    bad["cut legacy"].write_bytes(legacy.read_bytes()[:-1000])
    bad["flipped"].write_bytes(flipped)
    bad["text"].write_text("<html>404</html>")
    bad["pickle"].write_bytes(pickle.dumps({"w": [1.0, 2.0]}))
    for name, obj in {"class": {"x": fractions.Fraction(1, 2)}, "harmful": [Harmful(folder / "canary")]}.items():
        bad[name] = folder / name
        torch.save(obj, bad[name])
    return {**bad, "folder": folder}


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("absent", "does not exist: check the path"),
        ("folder", "is a folder: name a file in it"),
        ("empty", "is empty: use another copy of it"),
        ("cut", "is cut short or damaged: use another copy of it"),
        ("flipped", "is damaged (the checksum of 'good/data/0' is wrong): use another copy of it"),
        ("cut legacy", "is not a file of tensors that torch.save wrote, or is damaged: check the path"),
        ("text", "is not a file of tensors that torch.save wrote, or is damaged: check the path"),
        ("pickle", "is not a file of tensors that torch.save wrote, or is damaged: check the path"),
        ("class", "holds more than tensors and plain containers (fractions.Fraction), which could run code"),
        ("harmful", "holds more than tensors and plain containers (posix.mkdir), which could run code"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, case: str, message: str) -> None:
    path = bad_files(tmp_path)[case]
    with pytest.raises(InputError) as caught:
        files.load(path)
    assert str(caught.value).startswith(f"{path} {message}")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "canary").exists()


def test_any_damaged_byte_is_refused_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    values = torch.arange(50.0)
    files.save_atomic({"w": values}, path)
    content = path.read_bytes()
    for position in np.random.default_rng(0).integers(len(content), size=300):
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(position % 8)
        path.write_bytes(damaged)
        try:
            loaded = files.load(path)
        except InputError as error:
            assert "\n" not in str(error)
        else:
            assert list(loaded) == ["w"] and torch.equal(loaded["w"], values), f"byte {position} changed the result"


# --- the order of data


def take(count: int, **kwargs) -> list[tuple[int, int]]:
    return list(itertools.islice(misc.InfiniteSampler(10, **kwargs), count))


def test_sampler_is_a_function_of_seed_and_position() -> None:
    whole = take(60, seed=3)
    assert [position for _, position in whole] == list(range(60))
    for start in (1, 9, 10, 37):
        assert take(60 - start, seed=3, start_idx=start) == whole[start:]
    epochs = [[item for item, _ in whole[first : first + 10]] for first in range(0, 60, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6, "each epoch has an order of its own"
    assert take(60, seed=4) != whole


def test_checksum_sees_every_bit_and_the_order() -> None:
    tensor = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    other = tensor.clone()
    other[500] = torch.nextafter(other[500], torch.tensor(9.0))
    assert misc._checksum(tensor) == misc._checksum(tensor.clone())
    assert misc._checksum(tensor) != misc._checksum(other)
    assert misc._checksum(tensor) != misc._checksum(tensor.flip(0))
    for dtype in (torch.bfloat16, torch.int64, torch.bool):
        assert misc._checksum(torch.tensor(1).to(dtype)) != misc._checksum(torch.tensor(0).to(dtype))


# --- two processes


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def gradient(module: torch.nn.Module, rounds: list[torch.Tensor]) -> torch.Tensor:
    """Of the weight, accumulated over `rounds`, synchronised in the last one."""
    module.zero_grad()
    for index, x in enumerate(rounds):
        with misc.ddp_sync(module, sync=index == len(rounds) - 1):
            module(x).sum().backward()
    return next(module.parameters()).grad.clone()


def on_two_ranks(rank: int, port: int) -> None:
    """Runs in each of two processes; a failed assertion fails the test."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    device = distributed.init("cpu")
    assert distributed.is_initialized()
    assert (distributed.get_rank(), distributed.get_local_rank(), distributed.get_world_size()) == (rank, rank, 2)
    distributed.barrier()
    assert distributed.all_reduce_sum(torch.tensor([1.0, rank])).tolist() == [2.0, 1.0]
    any_rank = distributed.AnyRank(device)
    flags = [(rank == 1, False), (False, True), (rank == 0, False), (True, True), (False, True)]
    assert [any_rank(flag) for flag, _ in flags] == [answer for _, answer in flags], "to the flags of the call before"

    collector = Collector(device)
    collector.report("both", torch.tensor([1.0, 2.0]) + 2 * rank)  # 1 2 | 3 4
    collector.report(f"only {rank}", float(rank))
    assert collector.update() == {"both": 2.5, "only 0": 0.0, "only 1": 1.0}
    assert collector.update() == {}

    torch.manual_seed(0)
    net = DistributedDataParallel(torch.nn.Linear(3, 1, bias=False))
    rounds = [torch.full((1, 3), 10.0**index * (rank + 1)) for index in range(2)]  # rank 0: 1, 10; rank 1: 2, 20
    assert gradient(net, rounds).flatten().tolist() == [16.5] * 3  # the mean over ranks of both rounds' sums
    with misc.ddp_sync(net, sync=False):
        net(rounds[0]).sum().backward()
    assert next(net.parameters()).grad[0, 0] == 16.5 + rank + 1  # this rank's own

    misc.check_ddp_consistency(net)
    other = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    misc.check_ddp_consistency(other)
    if rank == 1:
        other[1].running_mean[1] = torch.nextafter(torch.tensor(0.0), torch.tensor(1.0))
    with pytest.raises(RuntimeError, match=r"^1\.running_mean is not the same on all ranks"):
        misc.check_ddp_consistency(other)
    assert gloo_threads(), "what shutdown ends"
    del net  # it holds on to the process group
    distributed.shutdown()
    assert not distributed.is_initialized()
    assert not gloo_threads(), "one that is at work while Python ends would abort the process"


def gloo_threads() -> list[str]:
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    return [name for name in names if "gloo" in name]


def test_on_two_ranks() -> None:
    torch.multiprocessing.spawn(on_two_ranks, args=(free_port(),), nprocs=2)


def test_ddp_sync_leaves_other_modules_alone() -> None:
    torch.manual_seed(0)
    net = torch.nn.Linear(3, 1, bias=False)
    assert gradient(net, [torch.ones(1, 3), torch.full((1, 3), 10.0)]).flatten().tolist() == [11.0] * 3
    misc.check_ddp_consistency(net)  # a rank that is alone agrees with itself


def test_only_what_the_dead_have_left_is_removed(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    kept = {f".state.pt.{dead.pid}.tmp": False, f".state.pt.{os.getpid()}.tmp": True, ".state.pt.1.tmp": True}
    kept |= {".notes.tmp": True, f"state.pt.{dead.pid}.tmp": True, "training-state-000001.pt": True}
    for name in kept:
        (tmp_path / name).touch()
    files.remove_orphans(tmp_path)
    assert {name: (tmp_path / name).exists() for name in kept} == kept
