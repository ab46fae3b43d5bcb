"""The datasets of a run, and the order in which its ranks draw from them."""

import dataclasses
import functools
import hashlib
import itertools
import math
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from dnnlib.command import named_options
from genvs.config import SceneConfig
from genvs.data.framing import Framing
from genvs.data.packed import Pack
from genvs.data.scenes import SampleRequest, SceneDataset
from genvs.data.storage import printable
from genvs.data.stored import dataset_class
from genvs.data.types import ViewBatch
from genvs.errors import InputError
from genvs.machine import usable_cores
from genvs.modalities import MODALITIES
from genvs.random import Stream, numpy_generator
from genvs.settings import as_text, flat
from torch_utils import distributed
from training.config import PER_PROCESS, TrainConfig, differences
from training.loaders import batches_of, worker_start

HELD_OUT_SHARE = 20  # without a validation split, one scene in this many is held out
HELD_OUT_VIEWS = 8  # if there is only one scene, one view in this many is held out, as LLFF does, from the first on


@dataclass(frozen=True)
class RunData:
    """The training and held-out datasets, and the scenes to use of each.

    Without a validation split they are the same dataset; a single scene is used for both, with some views held out.
    """

    train: SceneDataset
    train_scenes: range
    held_out: SceneDataset
    held_out_scenes: range
    scene: SceneConfig

    def facts(self) -> dict[str, Any]:
        """What must not change when a run resumes: the training scenes, in their order, and the camera model.

        Numbers are rounded, because processors compute slightly different ones from the same cameras.
        """
        views = [(name, self.train.num_views(scene)) for scene, name in enumerate(self.train.scene_names)]
        digest = hashlib.sha256(repr(views).encode()).hexdigest()[:16]
        cameras = {
            name: f"{value:.6g}" if isinstance(value, float) else as_text(value)
            for name, value in dataclasses.asdict(self.scene).items()
        }
        facts = {"scenes": len(self.train_scenes), "hash of their names and numbers of views": digest}
        if self.train.hold_out_every:
            facts["views held out"] = f"one in {self.train.hold_out_every}"
        return facts | cameras


@distributed.warnings_as_lines()
def open_data(config: TrainConfig) -> RunData:
    """Open the training data and choose the held-out scenes. Raises InputError for data that cannot be used.

    Cameras that look wrong give warnings on stderr.
    """
    kind = dataset_class(config.data_class)
    splits = kind.find_splits(config.data or config.embedded.path)

    def opened(split: Path, **options) -> SceneDataset:
        return kind(
            split,
            resolution=config.net.resolution,
            modalities=config.net.modalities,
            framing=Framing(config.fit, config.background),
            normalize=config.normalize and config.radius,
            **options,
        )

    cameras = {"near": config.near, "far": config.far, "convention": config.convention}
    train = opened(splits.train, **cameras, seed=config.seed, xflip=config.xflip)
    if config.normalize and train.placement(0):
        distributed.print0(f"every scene is moved and scaled: {train.scene_names[0]} {train.placement(0)}")
    train.check_views(config.max_inputs + config.num_targets)
    of_scenes = {frozenset(train.modalities_of(scene)) for scene in range(len(train))}
    if frozenset(train.modalities) not in of_scenes:
        nowhere = [name for name in train.modalities if name not in set().union(*of_scenes)]
        fault = f"no scene has {' or '.join(nowhere) or ' and '.join(train.modalities) + ' together'}"
        raise InputError(f"{printable(train.path)}: {fault}; add the pictures, or leave one out of `modalities`")
    scene, scenes = train.scene_config(), range(len(train))
    if splits.val is not None:
        held_out = opened(splits.val, **scene.planes, convention=train.convention)
        held_out.check_views(2)
        data = RunData(train, scenes, held_out, range(len(held_out)), scene)
    elif len(train) == 1:
        hold_out_views(train, config.max_inputs + config.num_targets)
        data = RunData(train, scenes, train, scenes, scene)
    else:
        kept = len(train) - math.ceil(len(train) / HELD_OUT_SHARE)
        data = RunData(train, scenes[:kept], train, scenes[kept:], scene)
    return dataclasses.replace(data, scene=_with_classes(data)) if config.cond else data


def hold_out_views(dataset: SceneDataset, needed: int) -> None:
    """Hold out one view in HELD_OUT_VIEWS of a single scene, and say so, if that leaves as many as a sample needs."""
    views = dataset.num_views(0)
    held_out = math.ceil(views / HELD_OUT_VIEWS)
    if views - held_out >= needed:
        dataset.hold_out_every = HELD_OUT_VIEWS
        distributed.print0(f"There is one scene, so one view in {HELD_OUT_VIEWS} is held out: {held_out} of {views}")


def _with_classes(data: RunData) -> SceneConfig:
    """`data.scene` with the number of classes, which batches of `data` have from now on."""
    classes = data.train.checked_classes()
    num_classes = 1 + max(classes)
    one_hot = torch.eye(num_classes)
    data.train.one_hot = one_hot[classes]
    data.held_out.one_hot = one_hot[data.held_out.checked_classes(num_classes)]
    return dataclasses.replace(data.scene, num_classes=num_classes)


def check_ranks_agree(config: TrainConfig, facts: dict[str, Any], cur_nimg: int) -> None:
    """Raise InputError on all ranks if one of them was started with other options or data. Call it on all ranks.

    facts: `RunData.facts`. cur_nimg: where training starts.
    """
    options = flat({**dataclasses.asdict(config), **dict.fromkeys(PER_PROCESS)})
    first, *others = distributed.gather_objects({**options, **facts, "images seen": cur_nimg})
    for rank, other in enumerate(others, start=1):
        if other != first:
            fault = f"process {rank} differs from process 0 ({', '.join(differences(first, other))})"
            raise InputError(f"{fault}: start all of them with the same options, on the same data")


def pack_data(data: RunData) -> None:
    """Let the datasets read views from packs (see genvs.data.packed), which is much faster. Call it on all ranks.

    One process of each machine checks the packs, and makes those that are missing or out of date, while the others
    wait. If a pack cannot be written, a warning says so and views are read from files. Raises InputError on all ranks
    for a file that cannot be used.
    """
    datasets = list(dict.fromkeys([data.train, data.held_out]))
    packs = [_made_packs(dataset) for dataset in datasets] if distributed.get_local_rank() == 0 else []
    packs = distributed.gather_objects(packs)[distributed.get_rank() - distributed.get_local_rank()]
    for dataset, found in zip(datasets, packs, strict=True):
        if isinstance(found, InputError):
            raise found
        dataset.use_packs(found)


def _made_packs(dataset: SceneDataset) -> list[Pack] | InputError:
    """A dataset's packs, or what is wrong with a file. None of them, after a warning, if one cannot be written."""
    try:
        return dataset.make_packs(workers=usable_cores())
    except InputError as error:
        return error
    except OSError as error:
        line = (
            f"Warning: {printable(dataset.path)}: images cannot be packed beside it ({error.strerror}), so they are "
            "decoded each time they are used, which is slow: make room, allow writing there, or set `cache` to false"
        )
        print(named_options(line), file=sys.stderr, flush=True)
        return []


def at_resolution(data: RunData, resolution: int, cache: bool) -> RunData:
    """The same scenes with images of this size, for which they are packed if `cache`. Call it on all ranks."""
    if resolution == data.train.resolution:
        return data
    train = data.train.at_resolution(resolution)
    held_out = train if data.held_out is data.train else data.held_out.at_resolution(resolution)
    resized = dataclasses.replace(data, train=train, held_out=held_out)
    if cache:
        pack_data(resized)
    return resized


def batch_schedule(
    config: TrainConfig, scenes: Sequence[Collection[str]], *, rank: int, world_size: int, cur_nimg: int
) -> Iterator[list[SampleRequest]]:
    """The samples in each micro-batch of one rank, without end: a function of (seed, images seen).

    scenes: the modalities that each training scene has; at least one has all of the network's. Every epoch is a new
    permutation of the scenes. The samples of an update are divided among rounds and ranks in contiguous shares, so that
    any number of ranks and rounds sees the same ones. The number of input views is drawn per update, for all ranks. Of
    M modalities, M samples in a row have a target of each, and as many inputs of each; in a micro-batch the samples are
    ordered by the modality of their targets.
    """
    num_scenes, indices = len(scenes), [MODALITIES[name].index for name in config.net.modalities]
    index_sets = {tuple(names): {MODALITIES[name].index for name in names} for names in scenes}  # one for scenes alike
    of_scenes = [index_sets[tuple(names)] for names in scenes]

    @functools.lru_cache(maxsize=1)
    def order(epoch: int) -> np.ndarray:
        return numpy_generator(Stream.SCENE_ORDER, config.seed, epoch).permutation(num_scenes)

    @functools.lru_cache(maxsize=1)
    def dealt(block: int) -> np.ndarray:
        """The modalities of the inputs of M successive samples, `[M, max_inputs]`: each column is a permutation."""
        columns = np.tile(indices, (config.max_inputs, 1))
        return numpy_generator(Stream.MODALITIES, config.seed, block).permuted(columns, axis=1).T

    def request(index: int, num_inputs: int) -> SampleRequest:
        epoch, place = divmod(index, num_scenes)
        block, number = divmod(index, len(indices))
        inputs, target = tuple(dealt(block)[number, :num_inputs].tolist()), indices[number]
        # The next scene that has what this sample needs.
        turns = (int(order(epoch)[turn % num_scenes]) for turn in range(place, place + num_scenes))
        scene = next(scene for scene in turns if {*inputs, target} <= of_scenes[scene])
        return SampleRequest(scene, index, num_inputs, config.num_targets, inputs, target)

    rounds = config.rounds(world_size)
    samples = config.batch_size // config.num_targets  # of an update
    share = samples // (rounds * world_size)
    for step in itertools.count(cur_nimg // config.batch_size):
        rng = numpy_generator(Stream.NUM_INPUTS, config.seed, step)
        num_inputs = int(rng.integers(config.min_inputs, config.max_inputs + 1))
        requests = [request(index, num_inputs) for index in range(step * samples, (step + 1) * samples)]
        for number in range(rounds):
            first = (number * world_size + rank) * share
            yield sorted(requests[first : first + share], key=lambda request: request.sample_index % len(indices))


def load_batches(
    config: TrainConfig,
    data: RunData,
    cur_nimg: int,
    device: torch.device,
    stopped: Callable[[int], bool] = lambda seconds: False,
) -> Iterator[ViewBatch]:
    """This rank's micro-batches after `cur_nimg` images, on `device`. They end as `batches_of` says."""
    rank, world_size = distributed.get_rank(), distributed.get_world_size()
    modalities = [data.train.modalities_of(scene) for scene in data.train_scenes]
    workers = min(config.workers, usable_cores())
    scenes = config.batch_gpu_or_share(world_size) // config.num_targets  # of a micro-batch
    pixels = scenes * (config.max_inputs + config.num_targets) * config.net.resolution**2
    loader = DataLoader(
        data.train,
        batch_size=None,  # an item is a whole batch
        sampler=batch_schedule(config, modalities, rank=rank, world_size=world_size, cur_nimg=cur_nimg),
        num_workers=workers,
        worker_init_fn=worker_start(workers, batch_bytes=3 * pixels),
        pin_memory=device.type == "cuda",
        timeout=1 if workers else 0,
    )
    for batch in batches_of(loader, stopped):
        yield batch.to(device, non_blocking=True)
