"""Every size of the model, which are allowed, and the presets. The dataclasses own the defaults (those of `srn128`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from genvs.errors import InputError
from genvs.settings import NOT_NEGATIVE, POSITIVE, check_choice, check_numbers, from_dict

WHITE = 1.0  # the background of SRN's data sets, in images in [-1, 1]; a feature image is 0 there
VIEW_WEIGHTINGS = (
    "baseline_mean distance distance_squared distance_cubed distance_gaussian_b=B l1_weighting f_norm_weighting "
    "error_weighting_alpha=A rel_cam_poses_l2 rel_cam_poses_f_norm cross_attention learned_cross_attention "
    "relative_pose_self_attention"
).split()
LEARNED_VIEW_WEIGHTINGS = ("learned_cross_attention", "relative_pose_self_attention")
_MISSPELT = {
    "l1_weighing": "l1_weighting",
    "error_weighing_alpha": "error_weighting_alpha",
}  # in the unofficial implementation
_LARGEST_NUMBER = {"error_weighting_alpha": 1.0, "distance_gaussian_b": 1e6}

# The settings with which a U-Net was published, where they are not those of ddpmpp.
_DDPMPP: dict[str, Any] = {"residual_encoder": True, "attention_resolutions": (16,)}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "ddpmpp": {},
    "ncsnpp": {"residual_encoder": True},
    "adm": {"residual_encoder": False, "attention_resolutions": (32, 16, 8)},
}
AUGMENT_LABELS = 6  # numbers that describe how an image was augmented (genvs.models.labels)
# sigma_min and sigma_max of sampling, by preconditioning. VE's training draws its noise levels from the same range.
SIGMA_RANGES = {"edm": (0.002, 80.0), "vp": (0.002, 80.0), "ve": (0.02, 100.0)}
CONVENTIONS = ("opencv", "opengl")  # the axes of a camera, in its pose
UNOFFICIAL = "unofficial"
NUMERICS = ("genvs", UNOFFICIAL)
STEM_STRIDE = 4  # of the encoder's decoder output; the volume head upsamples from there
BACKBONE_STRIDE = 16  # of the map that ASPP's dilated convolutions see


@dataclass(frozen=True)
class SceneConfig:
    """What the training data are like, so that no script has to know it: their cameras and classes.

    near, far: depth planes, world units. focal: horizontal focal length over image width. radius: median distance of
    the cameras from the origin, world units. num_classes: of the scenes, for a class-conditional network, else 0.
    """

    near: float = 0.8
    far: float = 1.8
    focal: float = 131.25 / 128
    radius: float = 1.3
    num_classes: int = 0

    def __post_init__(self) -> None:
        check_numbers(self, POSITIVE, "near", "far", "focal")
        check_numbers(self, NOT_NEGATIVE, "radius", "num_classes")
        if self.near >= self.far:
            raise InputError(f"`near`={self.near:g}, `far`={self.far:g}: choose `near` below `far`")


@dataclass(frozen=True)
class EncoderConfig:
    """Widths of the backbone (genvs.models.backbone) and of DeepLabV3+, and the size of feature volumes."""

    backbone: str = "resnet"
    widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    aspp_rates: tuple[int, ...] = (1, 2, 4)
    decoder_channels: int = 256
    low_level_channels: int = 48
    volume_channels: int = 16
    volume_depth: int = 64
    volume_width: int = 128

    def __post_init__(self) -> None:
        check_numbers(self, POSITIVE, *self.__dataclass_fields__.keys() - {"backbone"})
        if not len(self.widths) == len(self.blocks) == 4:
            raise InputError(f"`widths`={self.widths}, `blocks`={self.blocks}: give four numbers each, one for a stage")


@dataclass(frozen=True)
class RendererConfig:
    """The field's MLP, samples along a ray, and the side of the rendered feature image before upsampling."""

    hidden_channels: int = 64
    num_samples: int = 64
    render_width: int = 64

    def __post_init__(self) -> None:
        check_numbers(self, POSITIVE, *self.__dataclass_fields__)


@dataclass(frozen=True)
class DenoiserConfig:
    """The U-Net, its preconditioning, and the noise range that it is sampled over.

    arch: ddpmpp, ncsnpp or adm. precond: edm, vp or ve (see genvs.diffusion.preconditioning).
    attention_resolutions, residual_encoder: None for those of the architecture; sigma_min, sigma_max: None for those of
    the preconditioning. The config that is made holds the values themselves.
    centre_on_colours: denoise the difference between the target and the feature image's colours (first three channels).
    augment_labels: how many numbers describe an image's augmentation to the network: AUGMENT_LABELS, or 0 for none.
    """

    model_channels: int = 128
    channel_mult: tuple[int, ...] = (1, 1, 2, 2, 2)
    blocks_per_level: int = 4
    attention_resolutions: tuple[int, ...] = None  # type: ignore[assignment]
    residual_encoder: bool = None  # type: ignore[assignment]
    dropout: float = 0.13
    centre_on_colours: bool = False
    arch: str = "ddpmpp"
    precond: str = "edm"
    augment_labels: int = 0
    sigma_data: float = 0.5
    sigma_min: float = None  # type: ignore[assignment]
    sigma_max: float = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        check_choice(self, "arch", ARCHITECTURES)
        check_choice(self, "precond", SIGMA_RANGES)
        low, high = SIGMA_RANGES[self.precond]
        own = {**_DDPMPP, **ARCHITECTURES[self.arch], "sigma_min": low, "sigma_max": high}
        for name, value in own.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        check_numbers(self, POSITIVE, "channel_mult", "blocks_per_level", "sigma_data", "sigma_min", "sigma_max")
        check_numbers(self, NOT_NEGATIVE, "augment_labels")
        if self.model_channels < 4 or self.model_channels % 4:
            raise InputError(f"`model_channels`={self.model_channels}: choose a multiple of 4, from 4 up")
        if not 0 <= self.dropout < 1:
            raise InputError(f"`dropout`={self.dropout:g}: give a probability from 0 to below 1")
        if self.sigma_min >= self.sigma_max:
            raise InputError(f"`sigma_min`={self.sigma_min:g}: choose less than `sigma_max`={self.sigma_max:g}")
        # As by dataclasses.replace with another architecture or preconditioning alone.
        if self.residual_encoder != ARCHITECTURES[self.arch].get("residual_encoder", self.residual_encoder):
            raise InputError(
                f"`residual_encoder`={self.residual_encoder} does not go with `arch`={self.arch}: give None"
            )
        if self.precond == "ve" and not low <= self.sigma_min < self.sigma_max <= high:
            raise InputError(
                f"`sigma_min`={self.sigma_min:g} to `sigma_max`={self.sigma_max:g}: VE knows {low} to {high}"
            )


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
        check_choice(self, "numerics", NUMERICS)
        size, coarsest = self.resolution, 2 ** (len(self.denoiser.channel_mult) - 1)
        if not 32 <= size <= 256 or size % BACKBONE_STRIDE or size % coarsest:
            step = max(BACKBONE_STRIDE, coarsest)
            fewer = ", or fewer levels (`channel_mult`)" if coarsest > BACKBONE_STRIDE else ""
            raise InputError(f"`resolution`={size}: choose a multiple of {step} from 32 to 256{fewer}")
        widths = (size // STEM_STRIDE, size // 2, size)
        given = {"volume_width": self.encoder.volume_width, "render_width": self.renderer.render_width}
        for name, width in given.items():
            if width not in widths:
                raise InputError(f"`{name}`={width} at `resolution`={size}: choose one of {widths}")

    def dependent_settings(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """The settings, by path, that follow from `changes` (`genvs.settings.changed`).

        An architecture and a preconditioning bring their own settings along. At another resolution the model keeps its
        layers, and volumes and rendered images the same share of the resolution.
        """
        found: dict[str, Any] = {}
        old, new = self.denoiser.arch, changes.get("denoiser.arch")
        if new != old and new in ARCHITECTURES:
            own = {**_DDPMPP, **ARCHITECTURES[new]}
            found |= {f"denoiser.{name}": own[name] for name in {**ARCHITECTURES[old], **ARCHITECTURES[new]}}
        if "denoiser.precond" in changes:
            found |= {"denoiser.sigma_min": None, "denoiser.sigma_max": None}
        size = changes.get("resolution", self.resolution)
        if size != self.resolution:

            def scaled(side: int) -> int:
                return max(1, round(side * size / self.resolution))

            attention = "denoiser.attention_resolutions"
            found[attention] = tuple(map(scaled, found.get(attention, self.denoiser.attention_resolutions)))
            found["encoder.volume_width"] = scaled(self.encoder.volume_width)
            found["renderer.render_width"] = scaled(self.renderer.render_width)
            if self.numerics != UNOFFICIAL:
                largest = max(1, size // BACKBONE_STRIDE - 1)
                found["encoder.aspp_rates"] = tuple(min(rate, largest) for rate in self.encoder.aspp_rates)
        return found

    def check_aspp_rates(self) -> None:
        """Raise InputError for dilation rates at which only the kernel's centre meets the feature map.

        Networks that were trained with such rates can be read, but new ones should not be trained with them. Those of
        the unofficial implementation have them.
        """
        side, rates = self.resolution // BACKBONE_STRIDE, self.encoder.aspp_rates
        if self.numerics != UNOFFICIAL and max(rates) >= side:
            raise InputError(
                f"`aspp_rates`={rates}: choose rates below {side}, the side of the feature map at "
                f"`resolution`={self.resolution}"
            )


def parse_view_weighting(name: str) -> tuple[str, float | None]:
    """A view weighting's method, as in VIEW_WEIGHTINGS without its number, and the number, where it has one.

    Raises InputError for an unknown name and for a number out of range.
    """
    method, given, number = name.partition("=")
    method = _MISSPELT.get(method, method)
    try:
        value = float(number) if given else None
    except ValueError:
        value = math.nan
    names = [other.partition("=")[0] for other in VIEW_WEIGHTINGS]
    if method not in names or (method in _LARGEST_NUMBER) != (value is not None):
        raise InputError(f"`view_weighting`={name!r}: choose one of {', '.join(VIEW_WEIGHTINGS)}")
    if value is not None and not 0 <= value <= _LARGEST_NUMBER[method]:
        raise InputError(f"`view_weighting`={name!r}: give a number from 0 to {_LARGEST_NUMBER[method]:g}")
    return method, value


def config_of_snapshot(data: Mapping[str, Any]) -> GeNVSConfig:
    """The config that a snapshot holds as a dict. Raises InputError where it cannot be used.

    Older snapshots also state how many samples were drawn by importance, which this version does not do.
    """
    renderer = dict(data["renderer"])
    if renderer.pop("importance_samples", 0):
        raise InputError("it was trained with importance sampling, which this version does not have")
    return from_dict(GeNVSConfig, {**data, "renderer": renderer})


PRESETS: dict[str, GeNVSConfig] = {
    "srn128": GeNVSConfig(),
    "srn64": GeNVSConfig(
        resolution=64,
        encoder=EncoderConfig(aspp_rates=(1, 2, 3), decoder_channels=128, volume_width=64),
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
            aspp_rates=(1,),
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
