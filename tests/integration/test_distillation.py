"""A few-step network is made of a trained one by train.py, and drawn from in as many steps as it is for."""

import dataclasses
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

import genvs
import train as program
from genvs import files
from genvs.errors import InputError
from genvs.export import model_card
from genvs.sampling.synthesis import synthesize_views, usual_sampling
from genvs.settings import as_text
from inference.options import described, settle
from tests.small_model import saved, small_config, small_net, some_batch
from tests.small_training import BATCH, fresh_state, kimg, last_state, small_run, unequal
from training.config import TRAIN_PRESETS
from training.state import unlike

UPDATES = 4


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    return saved(tmp_path_factory.mktemp("trained") / "network-snapshot-000009.pkl", small_net(), cur_nimg=9000)


def run(snapshot: Path, *options: object) -> Result:
    """train.py --distill, with the settings of the small network."""
    preset = TRAIN_PRESETS["cpu-demo"].net
    settings = [f"--set=net.{name}={as_text(value)}" for name, value in unlike(preset, small_config())]
    arguments = ["--preset=cpu-demo", f"--distill={snapshot}", f"--batch={BATCH}", f"--kimg={kimg(UPDATES)}", *settings]
    arguments += ["--notensorboard", f"--tick={kimg(2)}", "--dump=1", "--nosubdir", *map(str, options)]
    return CliRunner().invoke(program.main, arguments)


@pytest.fixture(scope="module")
def distilled(trained, cars, tmp_path_factory) -> Path:
    """The folder of a run."""
    folder = tmp_path_factory.mktemp("distilled")
    result = run(trained, "--data", cars, "--outdir", folder)
    assert result.exception is None, result.output
    return folder


def test_train_makes_a_few_step_network_from_a_snapshot(trained, distilled):
    """With its encoder and renderer; a training state of the run gives the same network."""
    teacher = genvs.load_snapshot(trained)
    state = max(distilled.glob("training-state-*.pt"))
    for path in (distilled / "network-snapshot-000000.pkl", state):
        net = genvs.load_snapshot(path)
        assert net.notes == {"num_steps": 2, "cur_nimg": UPDATES * BATCH, "started_from": trained.name}
        assert trained.name in model_card(net, "shared", [], None)
        for name, weight in teacher.state_dict().items():
            kept = torch.equal(net.state_dict()[name], weight)
            assert kept is not name.startswith("denoisers.") or weight.numel() < 50, name
    moments = files.load(state)["optimizer"]["state"]
    assert len(moments) == len(list(net.denoisers.parameters()))


def test_its_number_of_steps_is_the_default(distilled, trained):
    few, many = genvs.load_snapshot(distilled / "network-snapshot-000000.pkl"), genvs.load_snapshot(trained)
    assert (usual_sampling(few), usual_sampling(many)) == (("consistency", 2), ("unipc", 12))
    assert usual_sampling(few, "unipc") == ("unipc", 12) and usual_sampling(few, num_steps=1) == ("consistency", 1)
    options = {"sampler": None, "num_steps": None, "guidance": 1.0, "noise": "fixed", "churn": 0.0, "guide": None}
    assert described(settle(options, few)) == "steps=2_sampler=consistency"
    calls = []
    few.denoisers["rgb"].register_forward_hook(lambda _, args, __: calls.append(args[1].max().item()))
    batch = some_batch(1)
    views = synthesize_views(few, batch.inputs, batch.targets.cameras, progress=False, batch_size=1)
    image, _ = next(views)
    assert calls == pytest.approx([80, 0.1])
    again, _ = next(synthesize_views(few, batch.inputs, batch.targets.cameras, sampler="consistency", batch_size=2))
    torch.testing.assert_close(again, image)
    for net, remedy in ((few, "`num_steps`=3.*fewer"), (many, "consistency: .*: choose another `sampler`")):
        with pytest.raises(InputError, match=remedy):
            usual_sampling(net, "consistency", 3)


def test_a_few_step_network_can_be_trained_on_as_an_ordinary_one(distilled, cars):
    few = distilled / "network-snapshot-000000.pkl"
    config = dataclasses.replace(small_run(cars), transfer=str(few))
    state = fresh_state(config)
    assert state.teacher is None and usual_sampling(state.ema) == ("unipc", 12)
    assert all(parameter.requires_grad for parameter in state.net.parameters())
    weights = genvs.load_snapshot(few).state_dict()
    assert all(torch.equal(weights[name], weight) for name, weight in state.net.state_dict().items())


def test_a_resumed_distillation_ends_equal_bit_for_bit(distilled, trained, tmp_path):
    """Without the snapshot that it started from."""
    states = sorted(distilled.glob("training-state-*.pt"))
    content = files.load(states[0])
    assert 0 < content["cur_nimg"] < UPDATES * BATCH
    content["config"]["transfer"] = str(tmp_path / "gone.pkl")
    files.save_atomic(content, tmp_path / states[0].name)
    result = CliRunner().invoke(program.main, ["--resume", str(tmp_path)])
    assert result.exception is None, result.output
    assert unequal(last_state(tmp_path), files.load(states[-1])) == []
