"""What the machine lacks or has left over: locks, an ffmpeg, variables of another launcher, a network."""

import contextlib
import errno
import fcntl
import os
import shutil
import subprocess
import unicodedata
from pathlib import Path

import click
import imageio_ffmpeg
import pytest

import train
from genvs import files, machine
from genvs.data.stored import StoredScenes
from genvs.data.synthetic import dataset as synthetic
from genvs.data.synthetic.dataset import ensure_dataset
from genvs.errors import InputError
from inference import inference
from tests.conftest import ROOT
from tests.ranks import on_ranks
from tests.unit.srn_folder import read_everything, write_split
from torch_utils import distributed
from training.config import EmbeddedData

LEFT_OVER = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "job-master-0", "MASTER_PORT": "23456"}
LEFT_OVER |= {"LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "1", "TORCHELASTIC_USE_AGENT_STORE": "True"}


@pytest.mark.parametrize("processes", ["1", "2"])
def test_the_scripts_start_their_processes_without_another_launchers_variables(processes):
    """In place of a program, its environment is printed."""
    script = f'genvs_root={ROOT}; PYTHON=x; source "$genvs_root/dnnlib/processes.sh"; exec() {{ printenv; }}; launch x'
    environment = {"PATH": os.environ["PATH"], "NGPU": processes, "PET_MAX_RESTARTS": "3", **LEFT_OVER}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True)
    names = {line.partition("=")[0] for line in done.stdout.splitlines()}
    assert names >= {"OMP_NUM_THREADS", "PET_MAX_RESTARTS"} and not names & LEFT_OVER.keys()


@pytest.mark.parametrize(
    "names", [["RANK"], ["WORLD_SIZE"], ["RANK", "LOCAL_RANK", "WORLD_SIZE"], ["LOCAL_RANK", "MASTER_ADDR"]]
)
def test_a_part_of_a_launchers_variables_makes_no_rank(monkeypatch, names):
    for name in LEFT_OVER:
        monkeypatch.delenv(name, raising=False)
    for name in names:
        monkeypatch.setenv(name, LEFT_OVER[name])
    assert (distributed.get_rank(), distributed.get_local_rank()) == (0, 0)
    assert (distributed.get_world_size(), machine.get_local_world_size()) == (1, 1)
    assert distributed.init("cpu").type == "cpu" and not distributed.is_initialized()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_file_systems_without_locks_are_used_without_them(tmp_path, monkeypatch, number):
    def refuse(*args) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with pytest.warns(UserWarning, match=f"{tmp_path}: this file system has no locks"):
        ensure_dataset(tmp_path / "cars", scenes=1, views=2, resolution=16)
    dataset = StoredScenes(tmp_path / "cars_train", resolution=16)
    with pytest.warns(UserWarning, match="has no locks"):
        dataset.make_packs(workers=0)
    with pytest.warns(UserWarning, match="has no locks"), files.lock(tmp_path / ".lock"):
        pass
    assert {path.suffix for path in tmp_path.iterdir()} <= {"", ".lock", ".pack", ".views"}


SMALL = {"scenes": 12, "views": 6, "val_scenes": 3, "test_scenes": 1, "test_views": 2}


def first_run(rank: int, folder: Path) -> None:
    def made(*args, **options) -> None:
        (folder / f"made by {rank}").touch()
        ensure_dataset(*args, **options)

    synthetic.ensure_dataset, train.training_loop = made, lambda *args: None
    EmbeddedData.path = str(folder / "data" / "cars")  # type: ignore[assignment,method-assign]
    sizes = [f"--set=embedded.{name}={size}" for name, size in SMALL.items()]
    said = open(folder / f"said by {rank}", "w")
    with said, contextlib.redirect_stdout(said), pytest.raises(click.Abort):  # as the run has not reached its end
        train.main([f"--outdir={folder}", "--preset=cpu-demo", *sizes], standalone_mode=False)


def test_of_several_processes_one_makes_the_embedded_data(tmp_path):
    """The others do not wait for its lock, which some file systems do not have."""
    on_ranks(first_run, tmp_path)
    assert [path.name for path in tmp_path.glob("made by *")] == ["made by 0"]
    said = [(tmp_path / f"said by {rank}").read_text() for rank in range(2)]
    assert ["Drawing the embedded dataset" in text for text in said] == [True, False]
    assert len(list((tmp_path / "data" / "cars_train").glob("*/rgb"))) == SMALL["scenes"]


# Videos


def without_h264(folder: Path) -> str:
    """An ffmpeg that knows no libx264."""
    program = folder / "ffmpeg"
    program.write_text("#!/bin/sh\necho ' V..... mpeg4'\necho \"Unknown encoder 'libx264'\" >&2\n")
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize("fault", ["absent", "without libx264", "not executable", "none installed"])
def test_a_missing_encoder_is_said_before_anything_is_drawn(tmp_path, monkeypatch, fault, capsys):
    if fault == "none installed":
        monkeypatch.delenv("IMAGEIO_FFMPEG_EXE", raising=False)
        monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: exec("raise RuntimeError('No ffmpeg exe')"))
    else:
        (tmp_path / "text").write_text("")
        programs = {"absent": str(tmp_path / "x"), "without libx264": without_h264(tmp_path)}
        monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", programs.get(fault, str(tmp_path / "text")))
    arguments = ["--video", "--frames=1", "--denoising_steps=1", "--device=cpu", f"--out_dir={tmp_path / 'out'}"]
    with pytest.raises(InputError, match="ffmpeg with libx264.*--gif"):
        inference.main.main(arguments, standalone_mode=False)
    assert "Drawing" not in capsys.readouterr().out and not (tmp_path / "out").exists()
    assert inference.video_files("a", gif=True) == ["a.gif"]
    assert "only the GIF" in capsys.readouterr().err


# Names


def test_names_whose_accents_are_written_otherwise_still_pair(tmp_path):
    """macOS writes e and an accent, others one letter: both are the same name to a person."""
    split = write_split(tmp_path / "cars_train", num_scenes=1)
    one, two = (unicodedata.normalize(form, "é1") for form in ("NFC", "NFD"))
    scene = split / "car1"
    (scene / "rgb" / "1.png").rename(scene / "rgb" / f"{two}.png")
    (scene / "pose" / "1.txt").rename(scene / "pose" / f"{one}.txt")
    read_everything(split)


def test_results_stay_in_their_folder(tmp_path):
    """Through a link, under names that lead out of it, contain line breaks or are too long."""
    from train import folder_words

    outside, link = tmp_path / "real", tmp_path / "link"
    outside.mkdir()
    link.symlink_to(outside)
    assert files.new_numbered_folder(link, "run").resolve().parent == outside
    for text in ("../x", "a/b", "a\nb", "x" * 300):
        with pytest.raises(click.BadParameter):
            folder_words(None, None, text)  # type: ignore[arg-type]
    with pytest.raises(OSError):
        files.new_numbered_folder(tmp_path, "x" * 300)
    shutil.rmtree(outside)
