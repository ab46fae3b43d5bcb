"""Where curves and pictures go: what each logger keeps of a run, one that fails, and one that is not installed."""

import contextlib
import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

import train
from dnnlib.command import run_command
from genvs import files
from genvs.settings import flat
from tests.browser import wait_until
from tests.small_training import fresh_state, last_state, save_state, small_run
from training.loggers import Loggers
from training.state import load_training_state

PICTURE = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
FRAMES = [np.full((8, 8, 3), shade, np.uint8) for shade in (0, 120, 240)]
LOSS, BY_NOISE = "Loss/all", "Loss/sigma_0.1_to_1"


def log(name: str, run_dir: Path, nimg: int) -> list[str]:
    """Log a part of a run, the first or a resumed one, as the run does. Returns what was said."""
    said: list[str] = []
    with contextlib.closing(Loggers([name], run_dir, nimg, said.append)) as loggers:
        assert loggers.new == (set() if nimg else {name})
        if loggers.new:
            loggers.introduce(flat(dataclasses.asdict(small_run("cars"))), {"Cameras": PICTURE})
        loggers.scalars({LOSS: nimg + 0.5, BY_NOISE: float("nan")}, nimg + 8)
        loggers.image("Samples", PICTURE, nimg + 8)
        loggers.animation("Orbit", FRAMES, nimg + 8)
    return said


@pytest.fixture
def nobodys(tmp_path, monkeypatch) -> None:
    """The environment of a person who has set up neither library."""
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for variable in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(variable, raising=False)


def test_tensorboard(tmp_path):
    assert log("tensorboard", tmp_path, 0) == log("tensorboard", tmp_path, 8) == []
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars(LOSS)] == [(8, 0.5), (16, 8.5)]
    assert len(events.Images("Cameras")) == 1 and [event.step for event in events.Images("Samples")] == [8, 16]
    with Image.open(io.BytesIO(events.Images("Orbit")[0].encoded_image_string)) as orbit:
        assert orbit.n_frames == 3
    started = HParamsPluginData.FromString(events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content)
    assert started.session_start_info.hparams["batch_size"].number_value == 4


def test_mlflow_in_the_runs_folder(tmp_path, nobodys):
    mlflow = pytest.importorskip("mlflow", reason="needs MLflow: pip install -c constraints.txt -e .[mlflow]")
    assert log("mlflow", tmp_path, 0) == log("mlflow", tmp_path, 8) == []
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("genvs").experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["net.encoder.blocks"] == "1,1,1,1"
    history = client.get_metric_history(run.info.run_id, LOSS)
    assert [(value.step, value.value) for value in history] == [(8, 0.5), (16, 8.5)]
    assert {"Orbit-000000.gif", "images"} <= {item.path for item in client.list_artifacts(run.info.run_id)}
    steps = {item.path.partition("+step+")[2][:2] for item in client.list_artifacts(run.info.run_id, "images")}
    assert steps == {"0+", "8+", "16"}


def test_wandb_in_the_runs_folder(tmp_path, nobodys):
    pytest.importorskip("wandb", reason="needs wandb: pip install -c constraints.txt -e .[wandb]")
    assert log("wandb", tmp_path, 0) == log("wandb", tmp_path, 8) == []
    number, words = (tmp_path / "wandb-run.txt").read_bytes(), (LOSS.encode(), b"net.encoder.blocks")

    def parts() -> list[list[bool]]:
        files = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
        return [[word in file.read_bytes() for word in (number, *words)] for file in files]

    # Two parts of one run. A process of wandb's own writes them, a little later.
    wait_until(lambda: parts() == [[True, True, True], [True, True, False]])
    media = sorted(path.name.partition("_")[0] for path in tmp_path.glob("wandb/offline-run-*/files/media/*/*"))
    assert media == ["Cameras", "Orbit", "Orbit", "Samples", "Samples"]


def test_a_logger_that_fails_is_named_once_and_left_out(tmp_path):
    said: list[str] = []
    with contextlib.closing(Loggers(["tensorboard"], tmp_path, 0, said.append)) as loggers:
        for nimg, value in enumerate([1.0, "no number", "no number", 2.0]):
            loggers.scalars({LOSS: value}, nimg)
    (line,) = said
    assert line.startswith("tensorboard has failed (") and line.endswith("): the run goes on without it")
    assert [event.value for event in EventAccumulator(str(tmp_path)).Reload().Scalars(LOSS)] == [1.0]
    (tmp_path / "file").touch()
    loggers = Loggers(["tensorboard"], tmp_path / "file", 0, said.append)
    loggers.scalars({LOSS: 1.0}, 0)
    loggers.close()
    assert len(said) == 2


def test_a_server_that_is_not_there_is_named_once(tmp_path, nobodys, monkeypatch):
    pytest.importorskip("mlflow", reason="needs MLflow: pip install -c constraints.txt -e .[mlflow]")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (said,) = log("mlflow", tmp_path, 0)
    assert said.startswith("mlflow has failed") and "127.0.0.1" in said


def test_a_logger_that_is_not_installed_is_refused_before_anything_is_made(tmp_path, monkeypatch, capsys):
    project = '[project]\ndependencies = []\n[project.optional-dependencies]\nmlflow = ["genvs-test-absent>=1"]\n'
    (tmp_path / "pyproject.toml").write_text(project)
    monkeypatch.setattr("training.loggers.PYPROJECT", tmp_path / "pyproject.toml")
    with pytest.raises(SystemExit) as end:
        run_command(train.main, ["--preset=cpu-demo", "--logger=tensorboard,mlflow", f"--outdir={tmp_path / 'runs'}"])
    fault = "--logger=mlflow needs genvs-test-absent>=1 (not installed)"
    assert capsys.readouterr().err == f"Error: {fault}: pip install -c constraints.txt -e .[mlflow]\n"
    assert end.value.code == 2 and not (tmp_path / "runs").exists()


def test_a_state_from_before_there_were_several_loggers_resumes(cars, tmp_path):
    config = small_run(cars)
    save_state(tmp_path, config, fresh_state(config))
    content = last_state(tmp_path)
    del content["config"]["logger"]
    for content["config"]["tensorboard"], logger in ((True, ("tensorboard",)), (False, None)):
        files.save_atomic(content, tmp_path / "old.pt")
        assert load_training_state(tmp_path / "old.pt")["config"].logger == logger
