"""Where a run's curves and pictures go besides its folder: tensorboard, Weights & Biases, MLflow."""

import abc
import contextlib
import io
import logging
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from genvs.doctor import PYPROJECT, install
from genvs.errors import InputError
from genvs.files import write_atomic
from genvs.requirements import lacking, requirements
from genvs.settings import as_text
from genvs.visualize import also_as_gif

COMPARED = ("PSNR/1_input", "PSNR/3_input", "Loss/all")  # what tensorboard shows beside the hyperparameters of runs
FPS = 8.0
SECONDS = 60  # for which the start and the end of a run wait for a server
# Variables of the two libraries, unless they are set: neither sends reports about itself, and MLflow gives up after a
# minute or so.
VARIABLES = {"WANDB_ERROR_REPORTING": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
VARIABLES |= {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}


class Logger(abc.ABC):
    """One run as a tool shows it. A resumed run continues the same one. Methods may raise whatever the tool raises.

    nimg: images seen. mark: the files (a pattern) by which the run's folder shows that it has been logged before.
    """

    mark: ClassVar[str]

    @abc.abstractmethod
    def __init__(self, run_dir: Path, nimg: int) -> None: ...

    @abc.abstractmethod
    def hyperparameters(self, settings: Mapping[str, Any]) -> None:
        """Show the settings of a new run, by path."""

    @abc.abstractmethod
    def scalars(self, numbers: Mapping[str, float], nimg: int) -> None: ...

    @abc.abstractmethod
    def image(self, name: str, picture: Image.Image, nimg: int) -> None: ...

    @abc.abstractmethod
    def animation(self, name: str, gif: bytes, nimg: int) -> None: ...

    @abc.abstractmethod
    def close(self) -> None: ...


class TensorBoard(Logger):
    mark = "events.out.tfevents.*"

    def __init__(self, run_dir: Path, nimg: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(run_dir), purge_step=nimg + 1 if nimg else None)

    def hyperparameters(self, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard.summary import hparams

        values = {name: v if isinstance(v, int | float | str) else as_text(v) for name, v in settings.items()}
        for summary in hparams(values, dict.fromkeys(COMPARED, 0.0))[:2]:
            self.writer.file_writer.add_summary(summary)

    def scalars(self, numbers: Mapping[str, float], nimg: int) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, global_step=nimg)
        self.writer.flush()

    def image(self, name: str, picture: Image.Image, nimg: int) -> None:
        self.writer.add_image(name, np.asarray(picture), nimg, dataformats="HWC")

    def animation(self, name: str, gif: bytes, nimg: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        width, height = Image.open(io.BytesIO(gif)).size
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=gif)
        self.writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), nimg)

    def close(self) -> None:
        self.writer.close()


class WeightsAndBiases(Logger):
    """Sends only for a person who has set WANDB_MODE or WANDB_API_KEY, or has logged in; else `wandb sync` uploads."""

    mark = "wandb-run.txt"

    def __init__(self, run_dir: Path, nimg: int) -> None:
        import wandb
        from requests.utils import get_netrc_auth

        self.wandb, settings = wandb, wandb.setup().settings
        chosen = "WANDB_MODE" in os.environ or settings.api_key or get_netrc_auth(settings.base_url)
        mode = settings.mode if chosen else "offline"
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "genvs"),
            id=kept(run_dir / self.mark, lambda: uuid.uuid4().hex[:16]),
            resume="allow" if mode == "online" else None,
            name=run_dir.name,
            dir=run_dir,
            mode=mode,
            settings=wandb.Settings(console="off", init_timeout=SECONDS, finish_timeout=SECONDS),
        )
        # A step of its own, because wandb drops what a resumed run logs again.
        self.run.define_metric("*", step_metric="nimg")

    def hyperparameters(self, settings: Mapping[str, Any]) -> None:
        self.run.config.update(dict(settings))

    def scalars(self, numbers: Mapping[str, float], nimg: int) -> None:
        self.run.log({**numbers, "nimg": nimg})

    def image(self, name: str, picture: Image.Image, nimg: int) -> None:
        self.run.log({name: self.wandb.Image(picture), "nimg": nimg})

    def animation(self, name: str, gif: bytes, nimg: int) -> None:
        self.run.log({name: self.wandb.Video(io.BytesIO(gif), format="gif"), "nimg": nimg})

    def close(self) -> None:
        self.run.finish()


class MLflow(Logger):
    """Logs to the run's folder, unless MLFLOW_TRACKING_URI names another place or a server."""

    mark = "mlflow-run.txt"

    def __init__(self, run_dir: Path, nimg: int) -> None:
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):  # they tell how they make the database
            logging.getLogger(name).setLevel(logging.WARNING)
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        files = None if uri else (run_dir / "mlflow-files").absolute().as_uri()
        self.client = MlflowClient(uri or f"sqlite:///{run_dir.absolute() / 'mlflow.db'}")
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "genvs")
        experiment = self.client.get_experiment_by_name(name)
        place = experiment.experiment_id if experiment else self.client.create_experiment(name, files)
        self.run_id = kept(
            run_dir / self.mark, lambda: self.client.create_run(place, run_name=run_dir.name).info.run_id
        )
        self.client.update_run(self.run_id, status="RUNNING")

    def hyperparameters(self, settings: Mapping[str, Any]) -> None:
        for name, value in settings.items():
            self.client.log_param(self.run_id, name, as_text(value))

    def scalars(self, numbers: Mapping[str, float], nimg: int) -> None:
        from mlflow.entities import Metric

        now = time.time_ns() // 10**6
        self.client.log_batch(self.run_id, [Metric(name, value, now, nimg) for name, value in numbers.items()])

    def image(self, name: str, picture: Image.Image, nimg: int) -> None:
        self.client.log_image(self.run_id, picture, key=name, step=nimg)

    def animation(self, name: str, gif: bytes, nimg: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, f"{name}-{nimg // 1000:06d}.gif")
            file.write_bytes(gif)
            self.client.log_artifact(self.run_id, str(file))

    def close(self) -> None:
        self.client.set_terminated(self.run_id)


LOGGERS: dict[str, type[Logger]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "mlflow": MLflow}


def kept(path: Path, make: Callable[[], str]) -> str:
    """The text of the file at `path`, which is made if there is none."""
    if not path.exists():
        write_atomic(make(), path)
    return path.read_text()


def check_installed(names: Iterable[str]) -> None:
    """Raise InputError, with the command that installs it, for a logger whose package is missing."""
    extras = requirements(PYPROJECT)
    for name in names:
        if missing := lacking(extras.get(name, [])):
            raise InputError(f"`logger`={name} needs {', '.join(missing)}: {install(name)}")


class Loggers:
    """The loggers of a run, each of which is called in a thread of its own, so that the run waits for none.

    One that fails is told to `say` once, and left out from then on. new: the names of loggers that start anew.
    """

    def __init__(self, names: Iterable[str], run_dir: Path, nimg: int, say: Callable[[str], None]) -> None:
        self._say, self._loggers = say, dict[str, Logger]()
        self._threads = {name: ThreadPoolExecutor(max_workers=1, thread_name_prefix=name) for name in names}
        self.new = {name for name in self._threads if not any(run_dir.glob(LOGGERS[name].mark))}
        for name, value in VARIABLES.items():
            os.environ.setdefault(name, value)
        for name in self._threads:  # not in its thread: loader processes must not start while a module is imported
            with self._guarded(name):
                self._loggers[name] = LOGGERS[name](run_dir, nimg)

    @contextlib.contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever the tool raises
            self._loggers.pop(name, None)
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            self._say(f"{name} has failed ({reason}): the run goes on without it")

    def _each(self, method: str, *args: Any, names: Iterable[str] | None = None) -> None:
        for name in self._threads if names is None else names:
            self._threads[name].submit(self._call, name, method, args)

    def _call(self, name: str, method: str, args: tuple) -> None:
        with self._guarded(name):
            if name in self._loggers:
                getattr(self._loggers[name], method)(*args)

    def __bool__(self) -> bool:
        return bool(self._threads)

    def introduce(self, settings: Mapping[str, Any], pictures: Mapping[str, Image.Image]) -> None:
        """Pass the run's settings and pictures to the loggers that start anew."""
        self._each("hyperparameters", settings, names=self.new)
        for name, picture in pictures.items():
            self._each("image", name, picture, 0, names=self.new)
        self.new = set()

    def scalars(self, numbers: Mapping[str, float], nimg: int) -> None:
        self._each("scalars", numbers, nimg)

    def image(self, name: str, picture: Image.Image, nimg: int) -> None:
        self._each("image", name, picture, nimg)

    def animation(self, name: str, frames: Sequence[np.ndarray], nimg: int) -> None:
        """frames: `[H, W, 3]` uint8 each."""
        list(also_as_gif(gif := io.BytesIO(), frames, FPS))
        self._each("animation", name, gif.getvalue(), nimg)

    def close(self) -> None:
        """Returns when everything is logged."""
        self._each("close")
        for thread in self._threads.values():
            thread.shutdown()
