"""Every size of the model, and the presets. The dataclasses own the defaults (those of `srn128`)."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from genvs.errors import InputError

T = TypeVar("T")

WHITE = 1.0  # the background of SRN's data sets, in images in [-1, 1]; a feature image is 0 there
VIEW_WEIGHTINGS = (
    "baseline_mean",
    "distance",
    "distance_squared",
    "distance_cubed",
    "distance_gaussian_b=B",
    "l1_weighting",
    "f_norm_weighting",
    "error_weighting_alpha=A",
    "rel_cam_poses_l2",
    "rel_cam_poses_f_norm",
    "cross_attention",
    "learned_cross_attention",
    "relative_pose_self_attention",
)
LEARNED_VIEW_WEIGHTINGS = ("learned_cross_attention", "relative_pose_self_attention")
_MISSPELT = {"l1_weighing": "l1_weighting", "error_weighing_alpha": "error_weighting_alpha"}  # the reference's names
_LARGEST_NUMBER = {"error_weighting_alpha": 1.0, "distance_gaussian_b": 1e6}

ARCHITECTURES = ("ddpmpp", "ncsnpp", "adm")
AUGMENT_LABELS = 6  # numbers that say how an image was augmented (genvs.models.labels)
# By preconditioning: sigma_min and sigma_max of sampling. VE's network knows no less noise than its own minimum.
SIGMA_RANGES = {"edm": (0.002, 80.0), "vp": (0.002, 80.0), "ve": (0.02, 100.0)}
CONVENTIONS = ("opencv", "opengl")  # how the axes of a camera may lie in its pose
UNOFFICIAL = "unofficial"
NUMERICS = ("genvs", UNOFFICIAL)
STEM_STRIDE = 4  # of the encoder's decoder output; the volume head upsamples from there
BACKBONE_STRIDE = 16


@dataclass(frozen=True)
class SceneConfig:
    """The camera model of the data that a network was trained on, so that no script has to know it.

    near, far: depth planes, world units. focal: horizontal focal length over image width. radius: median distance of
    the cameras from the origin, world units. num_classes: of the scenes, where the network is told them, else 0.
    """

    near: float = 0.8
    far: float = 1.8
    focal: float = 131.25 / 128
    radius: float = 1.3
    num_classes: int = 0


@dataclass(frozen=True)
class EncoderConfig:
    """Widths of the backbone (genvs.models.backbone) and of DeepLabV3+, and the size of feature volumes."""

    backbone: str = "resnet"
    widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    aspp_rates: tuple[int, ...] = (12, 24, 36)
    decoder_channels: int = 256
    low_level_channels: int = 48
    volume_channels: int = 16
    volume_depth: int = 64
    volume_width: int = 128


@dataclass(frozen=True)
class RendererConfig:
    """The field's MLP, samples along a ray, and the side of the rendered feature image before upsampling."""

    hidden_channels: int = 64
    num_samples: int = 64
    importance_samples: int = 0
    render_width: int = 64


@dataclass(frozen=True)
class DenoiserConfig:
    """The U-Net, its preconditioning, and the noise range that it is sampled over.

    arch: ddpmpp, ncsnpp or adm. precond: edm, vp or ve (see genvs.diffusion.preconditioning).
    centre_on_colours: denoise what the target differs by from the feature image's colours (its first three channels).
    augment_labels: numbers that tell the network how its image was augmented: AUGMENT_LABELS, or 0 for none.
    """

    model_channels: int = 128
    channel_mult: tuple[int, ...] = (1, 1, 2, 2, 2)
    blocks_per_level: int = 4
    attention_resolutions: tuple[int, ...] = (16,)
    residual_encoder: bool = True
    dropout: float = 0.13
    centre_on_colours: bool = False
    arch: str = "ddpmpp"
    precond: str = "edm"
    augment_labels: int = 0
    sigma_data: float = 0.5
    sigma_min: float = 0.002
    sigma_max: float = 80.0


@dataclass(frozen=True)
class GeNVSConfig:
    """A whole model. `resolution` is the side of input and output images, in pixels.

    numerics: "genvs", or "unofficial" for networks that were trained in another implementation (`genvs.compat`).
    Raises InputError where the sizes do not fit together.
    """

    resolution: int = 128
    numerics: str = "genvs"
    view_weighting: str = "baseline_mean"
    scene: SceneConfig = field(default_factory=SceneConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    renderer: RendererConfig = field(default_factory=RendererConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)

    def __post_init__(self) -> None:
        parse_view_weighting(self.view_weighting)
        if self.numerics not in NUMERICS:
            raise InputError(f"numerics={self.numerics!r} is not known: choose one of {', '.join(NUMERICS)}")
        if self.denoiser.arch not in ARCHITECTURES:
            raise InputError(f"--arch={self.denoiser.arch}: choose one of {', '.join(ARCHITECTURES)}")
        if self.denoiser.precond not in SIGMA_RANGES:
            raise InputError(f"--precond={self.denoiser.precond}: choose one of {', '.join(SIGMA_RANGES)}")
        size, coarsest = self.resolution, 2 ** (len(self.denoiser.channel_mult) - 1)
        if not 32 <= size <= 256 or size % BACKBONE_STRIDE or size % coarsest:
            step = max(BACKBONE_STRIDE, coarsest)
            fewer = ", or fewer levels (--cres)" if coarsest > BACKBONE_STRIDE else ""
            raise InputError(f"--resolution={size}: choose a multiple of {step} from 32 to 256{fewer}")
        widths = [size // STEM_STRIDE, size // 2, size]
        if self.encoder.volume_width not in widths:
            raise InputError(f"volume_width={self.encoder.volume_width} at resolution {size}: choose one of {widths}")
        if self.renderer.render_width not in (size // 4, size // 2, size):
            raise InputError(f"render_width={self.renderer.render_width}: choose {size // 4}, {size // 2} or {size}")
        if self.denoiser.model_channels < 4 or self.denoiser.model_channels % 4:
            raise InputError(f"--cbase={self.denoiser.model_channels}: choose a multiple of 4, from 4 up")


def parse_view_weighting(name: str) -> tuple[str, float | None]:
    """A view weighting's method, as in VIEW_WEIGHTINGS without its number, and the number, where it has one.

    Raises InputError for a name or number that it cannot be.
    """
    method, given, number = name.partition("=")
    method = _MISSPELT.get(method, method)
    try:
        value = float(number) if given else None
    except ValueError:
        value = float("nan")
    names = [other.partition("=")[0] for other in VIEW_WEIGHTINGS]
    if method not in names or (method in _LARGEST_NUMBER) != (value is not None):
        raise InputError(f"{name!r} is no view weighting: choose one of {', '.join(VIEW_WEIGHTINGS)}")
    if value is not None and not 0 <= value <= _LARGEST_NUMBER[method]:
        raise InputError(f"view weighting {name!r}: give a number from 0 to {_LARGEST_NUMBER[method]:g}")
    return method, value


def from_dict(cls: type[T], data: dict[str, Any]) -> T:
    """The inverse of `dataclasses.asdict`, for nested dataclasses; lists become tuples again.

    Raises InputError for a name that the class does not have.
    """
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(data) - set(hints))
    if unknown:
        raise InputError(f"{cls.__name__} has no setting {unknown[0]!r}: the file was written by another version")
    values = {}
    for name, value in data.items():
        if dataclasses.is_dataclass(hints[name]):
            value = from_dict(typing.cast(type, hints[name]), value)
        values[name] = tuple(value) if isinstance(value, list) else value
    return cls(**values)


def scaled_to(config: GeNVSConfig, resolution: int, denoiser: DenoiserConfig | None = None) -> GeNVSConfig:
    """The same model at another resolution: with the same layers, and the same share of it for volumes and rendering.

    denoiser: what `config` is to have at its own resolution, if not what it has.
    """
    factor, denoiser = resolution / config.resolution, denoiser or config.denoiser
    attention = tuple(round(side * factor) for side in denoiser.attention_resolutions)
    denoiser = dataclasses.replace(denoiser, attention_resolutions=attention)
    encoder = dataclasses.replace(config.encoder, volume_width=round(config.encoder.volume_width * factor))
    renderer = dataclasses.replace(config.renderer, render_width=round(config.renderer.render_width * factor))
    return dataclasses.replace(config, resolution=resolution, encoder=encoder, renderer=renderer, denoiser=denoiser)


PRESETS: dict[str, GeNVSConfig] = {
    "srn128": GeNVSConfig(),
    "srn64": GeNVSConfig(
        resolution=64,
        encoder=EncoderConfig(decoder_channels=128, volume_width=64),
        renderer=RendererConfig(num_samples=48, render_width=32),
        denoiser=DenoiserConfig(channel_mult=(1, 2, 2, 2)),
    ),
    # srn64, small enough for a CPU to draw with, and for a snapshot in half precision of less than 24 MB.
    "demo": GeNVSConfig(
        resolution=64,
        encoder=EncoderConfig(
            widths=(32, 64, 64, 64),
            blocks=(2, 2, 2, 2),
            aspp_rates=(1, 2, 3),
            decoder_channels=64,
            low_level_channels=16,
            volume_width=64,
        ),
        renderer=RendererConfig(num_samples=48, render_width=32),
        denoiser=DenoiserConfig(model_channels=64, channel_mult=(1, 2, 2, 2), blocks_per_level=2, dropout=0.0),
    ),
    "cpu-demo": GeNVSConfig(
        resolution=32,
        encoder=EncoderConfig(
            widths=(32, 48, 64, 64),
            blocks=(1, 1, 1, 1),
            aspp_rates=(1, 2),
            decoder_channels=48,
            low_level_channels=16,
            volume_channels=8,
            volume_depth=16,
            volume_width=16,
        ),
        renderer=RendererConfig(hidden_channels=32, num_samples=12, render_width=16),
        denoiser=DenoiserConfig(
            model_channels=16,
            channel_mult=(1, 2, 4),
            blocks_per_level=1,
            attention_resolutions=(8,),
            residual_encoder=False,
            dropout=0.0,
            centre_on_colours=True,
        ),
    ),
}
