"""Stopped and resumed: the same as never stopped, and only with the same options and data."""

import copy
import dataclasses
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

import train as program
from genvs import files
from genvs.errors import InputError
from genvs.settings import flat, from_dict, set_by_path
from tests.conftest import counted
from tests.small_training import fresh_state, kimg, last_state, records, resume, small_run, train, unequal
from training.config import RESUMABLE, TrainConfig, resumed
from training.state import load_training_state, restore


@pytest.fixture(scope="module")
def run(cars, tmp_path_factory, every_fault) -> Path:
    """The folder of a run that is not stopped, with a state and a record of each update."""
    run_dir = tmp_path_factory.mktemp("undisturbed")
    train(small_run(cars, 21 if every_fault else 7, batch_gpu=2, kimg_per_tick=kimg(1), state_ticks=1), run_dir)
    return run_dir


@pytest.fixture(scope="module")
def undisturbed(run) -> dict:
    """Its last state."""
    return last_state(run)


def to_the_end(run_dir: Path, undisturbed: dict, **changes) -> dict:
    return resume(run_dir, duration_kimg=undisturbed["cur_nimg"] / 1000, **changes)


def test_resumed_at_any_step_a_run_ends_equal_bit_for_bit(tmp_path, run, undisturbed, every_fault):
    """Weights, EMA, moments, counters; and the losses and learning rates that were recorded on the way."""
    steps = range(1, 21) if every_fault else (1, 2, 3, 5, 6)
    for step in steps:
        (run_dir := tmp_path / str(step)).mkdir()
        for file in (run / "stats.jsonl", *sorted(run.glob("*.pt"))[:step]):
            shutil.copy(file, run_dir)
        state = to_the_end(run_dir, undisturbed, workers=step % 3, state_ticks=1000)
        assert unequal(state, undisturbed) == [], f"stopped after {step}"
        assert len(list(run_dir.glob("*.pt"))) == step + 1, "no state replaces another of the same thousand images"
        for name in ("nimg", "Loss/all", "Loss/rgb", "Progress/lr", "Gradient/norm"):
            found, expected = ([record[name] for record in records(each)] for each in (run_dir, run))
            assert found == expected, (step, name)
        times = [record["time"] for record in records(run_dir)]
        assert times == sorted(times)
        shutil.rmtree(run_dir)
    counted("resumes equal bit for bit", len(steps), len(steps))


def test_a_learning_rate_that_falls_goes_on_falling_and_to_a_new_end(cars, tmp_path):
    config = small_run(cars, 6, lr_rampup_kimg=0.0, lr_decay_kimg=kimg(4), state_ticks=2)  # a tick: two updates
    whole = train(config, tmp_path / "whole")
    state = min((tmp_path / "whole").glob("training-state-*.pt"))  # after four updates
    for updates, last_rates in ((6, (2, 1)), (8, (4, 3, 2, 1))):
        run_dir = tmp_path / str(updates)
        run_dir.mkdir()
        shutil.copy(state, run_dir)
        content = resume(run_dir, duration_kimg=kimg(updates))
        rates = [config.lr * quarters / 4 for quarters in last_rates]
        assert [record["Progress/lr"] for record in records(run_dir)] == pytest.approx(rates)
        assert (unequal(content, whole) == []) == (updates == 6)


DETERMINED = ("net.scene.", "net.denoiser.augment_labels")  # by the data, and by other options


def other(value: object) -> str:
    """A value of the same type that is allowed in many places."""
    if isinstance(value, bool):
        return str(not value)
    if isinstance(value, tuple):
        return ",".join(map(other, value))
    return str(value * 2 if isinstance(value, int | float) and value else 1)


def test_every_other_option_would_be_another_run(cars):
    """All options except those that do not change results, and those that others determine."""
    saved = small_run(cars)
    tried, refused = 0, 0
    for path, value in flat(dataclasses.asdict(saved)).items():
        if path in RESUMABLE or isinstance(value, str | None) or path.startswith(DETERMINED):
            continue
        try:
            set_by_path(saved, {path: other(value)})
        except InputError:
            continue  # no value for this setting
        tried += 1
        try:
            resumed(saved, {path: other(value)})
        except InputError as error:
            refused += str(error).startswith("`resume`") and path in str(error)
    assert tried > 40 and refused == tried
    changes = {"workers": "3", "duration_kimg": "1", "data": "elsewhere"}
    assert resumed(saved, changes).data == "elsewhere"
    counted("changed options refused on resume", refused, tried)


def test_data_that_have_moved_are_the_same_and_others_are_not(cars, tmp_path, undisturbed):
    shutil.copytree(cars.parent, tmp_path / "old")
    train(small_run(tmp_path / "old" / cars.name, 2, batch_gpu=2), tmp_path / "run")
    (tmp_path / "old").rename(tmp_path / "new")
    command = ["--resume", str(tmp_path / "run"), "--duration=1", "--dry-run"]
    refused = CliRunner().invoke(program.main, command, standalone_mode=False).exception
    line = "no such folder or .zip; .*: if it has moved, give its new path as `data`"
    assert re.fullmatch(f"{tmp_path / 'old' / cars.name}: {line}", str(refused))
    moved = str(tmp_path / "new" / cars.name)
    assert unequal(to_the_end(tmp_path / "run", undisturbed, data=moved), undisturbed) == []
    shutil.rmtree(tmp_path / "new" / f"{cars.name}_train" / "000003")
    with pytest.raises(InputError, match="other data would be a different run .scenes 12 -> 11"):
        resume(tmp_path / "run", data=moved, duration_kimg=1.0)


def test_states_of_other_versions_are_named(tmp_path, undisturbed):
    path = tmp_path / "training-state-000000.pt"
    for version in (3, 5, "4", None):
        files.save_atomic({**undisturbed, "version": version}, path)
        with pytest.raises(InputError, match=f"^{path} .* version {version}, this program reads"):
            load_training_state(path)


def test_removed_settings_of_older_runs_are_read_where_they_are_off(tmp_path, undisturbed):
    old, path = copy.deepcopy(undisturbed), tmp_path / "training-state-000000.pt"
    old["config"]["loss"]["opacity_weight"] = 0.0
    old["config"]["net"]["renderer"]["show_geometry"] = False
    files.save_atomic(old, path)
    assert load_training_state(path)["config"] == from_dict(TrainConfig, undisturbed["config"])
    old["config"]["net"]["renderer"]["show_geometry"] = True
    files.save_atomic(old, path)
    with pytest.raises(InputError, match=f"^{path}: .*trained with `show_geometry`, which this version does not have"):
        load_training_state(path)


def test_a_state_fits_its_own_network_alone(cars, tmp_path, undisturbed):
    def changed(config: TrainConfig) -> TrainConfig:
        return set_by_path(config, {"net.renderer.num_samples": "9", "net.denoiser.model_channels": "16"})

    state = fresh_state(changed(small_run(cars)))
    with pytest.raises(InputError, match="denoiser"):
        restore(state, undisturbed, tmp_path)
    assert state.cur_nimg == 0
