"""The settings of a model, their allowed values, and the presets. The dataclasses hold the defaults (`srn128`)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from genvs.errors import InputError
from genvs.modalities import MODALITIES, modality_names, to_levels
from genvs.settings import (
    NOT_NEGATIVE,
    POSITIVE,
    as_text,
    check_choice,
    check_color,
    check_numbers,
    from_dict,
    set_by_path,
)

VIEW_WEIGHTINGS = (
    "baseline_mean distance distance_squared distance_cubed distance_gaussian_b=B l1_weighting f_norm_weighting "
    "error_weighting_alpha=A rel_cam_poses_l2 rel_cam_poses_f_norm cross_attention learned_cross_attention "
    "relative_pose_self_attention"
).split()
LEARNED_VIEW_WEIGHTINGS = ("learned_cross_attention", "relative_pose_self_attention")
_LARGEST_NUMBER = {"error_weighting_alpha": 1.0, "distance_gaussian_b": 1e6}

# The published settings of ddpmpp, which also works with others, and those in which the other U-Nets differ from it.
_DDPMPP: dict[str, Any] = {"residual_encoder": True, "attention_resolutions": (16,)}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "ddpmpp": {},
    "ncsnpp": {"residual_encoder": True},
    "adm": {"residual_encoder": False, "attention_resolutions": (32, 16, 8)},
}
AUGMENT_LABELS = 6  # numbers that describe how an image was augmented (genvs.models.labels)
# sigma_min and sigma_max of sampling, by preconditioning. VE also draws its noise levels in training from this range.
SIGMA_RANGES = {"edm": (0.002, 80.0), "vp": (0.002, 80.0), "ve": (0.02, 100.0)}
CONVENTIONS = ("opencv", "opengl")  # of the camera axes in a pose
FITS = ("squeeze", "crop", "pad")  # what is done to images that are not square
UNOFFICIAL = "unofficial"
STEM_STRIDE = 4  # of DeepLabV3+'s output, which the volume head upsamples
BACKBONE_STRIDE = 16  # of ASPP's input


@dataclass(frozen=True)
class SceneConfig:
    """The cameras and classes of the training data.

    near, far: depth planes, world units. focal: horizontal focal length over image width. radius: median distance of
    the cameras from the origin, world units. num_classes: number of scene classes, 0 for a network without classes.
    own_depths: whether each camera has its own depth planes, from the points that it sees; near and far are then
    their medians. fit: how images became square (genvs.data.framing). background: behind the object, RGB from 0 to 255.
    """

    near: float = 0.8
    far: float = 1.8
    focal: float = 131.25 / 128
    radius: float = 1.3
    num_classes: int = 0
    own_depths: bool = False
    fit: str = "squeeze"
    background: tuple[int, ...] = (255, 255, 255)

    def __post_init__(self) -> None:
        check_numbers(self, POSITIVE, "near", "far", "focal")
        check_choice(self, "fit", FITS)
        check_color(self, "background")
        check_numbers(self, NOT_NEGATIVE, "radius", "num_classes")
        if self.near >= self.far:
            raise InputError(f"`near`={self.near:g}, `far`={self.far:g}: choose `near` below `far`")

    @property
    def background_levels(self) -> tuple[float, ...]:
        """The background in images in [-1, 1]; a feature image is 0 there."""
        return tuple(map(to_levels, self.background))

    @property
    def planes(self) -> dict[str, Any]:
        """near and far for a SceneDataset: None where cameras have depth planes of their own."""
        return dict.fromkeys(("near", "far")) if self.own_depths else {"near": self.near, "far": self.far}


@dataclass(frozen=True)
class EncoderConfig:
    """The backbone (a name in genvs.models.backbone), DeepLabV3+, and the size of feature volumes."""

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
            given = f"`widths`={as_text(self.widths)}, `blocks`={as_text(self.blocks)}"
            raise InputError(f"{given}: give four numbers each, one for every stage")


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
    """The U-Net, its preconditioning, and the noise range of sampling.

    arch: ddpmpp, ncsnpp or adm. precond: edm, vp or ve (see genvs.diffusion.preconditioning).
    attention_resolutions, residual_encoder, sigma_min, sigma_max: None is replaced by the value of `arch` or `precond`.
    centre_on_colours: denoise the difference between the target and the feature image's colours (first three channels).
    augment_labels: number of augmentation labels that the network takes: AUGMENT_LABELS or 0.
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
        # dataclasses.replace may have changed the architecture or preconditioning alone.
        if self.residual_encoder != ARCHITECTURES[self.arch].get("residual_encoder", self.residual_encoder):
            raise InputError(
                f"`residual_encoder`={self.residual_encoder} does not suit `arch`={self.arch}: leave it None"
            )
        if self.precond == "ve" and not low <= self.sigma_min < self.sigma_max <= high:
            given = f"`sigma_min`={self.sigma_min:g}, `sigma_max`={self.sigma_max:g}"
            raise InputError(f"{given}: `precond`=ve is trained on {low} to {high}")


@dataclass(frozen=True)
class GeNVSConfig:
    """A whole model. resolution: side of input and output images, pixels.

    numerics: "genvs", or "unofficial" for networks that were trained in another implementation (`genvs.compat`).
    modalities: what it reads and draws (`genvs.modalities`), in the order of their table; aliases are replaced.
    Raises InputError for settings that do not fit together.
    """

    resolution: int = 128
    numerics: str = "genvs"
    modalities: tuple[str, ...] = ("rgb",)
    view_weighting: str = "baseline_mean"
    scene: SceneConfig = SceneConfig()
    encoder: EncoderConfig = EncoderConfig()
    renderer: RendererConfig = RendererConfig()
    denoiser: DenoiserConfig = DenoiserConfig()

    def __post_init__(self) -> None:
        parse_view_weighting(self.view_weighting)
        check_choice(self, "numerics", ("genvs", UNOFFICIAL))
        object.__setattr__(self, "modalities", modality_names(self.modalities))
        channels = max(MODALITIES[name].features[1] for name in self.modalities)
        if self.encoder.volume_channels < channels:
            given = f"`volume_channels`={self.encoder.volume_channels}, `modalities`={as_text(self.modalities)}"
            raise InputError(f"{given}: give {channels} channels or more")
        size, levels = self.resolution, len(self.denoiser.channel_mult)
        if not 32 <= size <= 256 or size % BACKBONE_STRIDE:
            raise InputError(f"`resolution`={size}: choose a multiple of {BACKBONE_STRIDE} from 32 to 256")
        if size % 2 ** (levels - 1):
            raise InputError(f"`channel_mult` has too many levels ({levels}) for `resolution`={size}: give fewer")
        widths = (size // STEM_STRIDE, size // 2, size)
        for config, name in ((self.encoder, "volume_width"), (self.renderer, "render_width")):
            if getattr(config, name) not in widths:
                raise InputError(
                    f"`{name}`={getattr(config, name)} at `resolution`={size}: choose one of {as_text(widths)}"
                )

    def dependent_settings(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """The settings, by path, that `changes` also change (`genvs.settings.set_by_path`).

        An architecture and a preconditioning have settings of their own. At another resolution the network keeps its
        layers, while volumes and rendered images keep their share of the resolution.
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
            found["encoder.aspp_rates"] = self.usable_aspp_rates(size)
        return found

    def usable_aspp_rates(self, resolution: int) -> tuple[int, ...]:
        """ASPP's dilation rates, lowered if at `resolution` only the kernel's centre would lie in the feature map.

        Older snapshots have such rates, and the networks of the unofficial implementation need theirs.
        """
        largest = max(1, resolution // BACKBONE_STRIDE - 1)
        return tuple(rate if self.numerics == UNOFFICIAL else min(rate, largest) for rate in self.encoder.aspp_rates)


def parse_view_weighting(name: str) -> tuple[str, float | None]:
    """Split a view weighting's name into its method (VIEW_WEIGHTINGS without `=B`) and its number, if it has one.

    Raises InputError for an unknown method and for a number out of range.
    """
    method, given, number = name.replace("_weighing", "_weighting").partition("=")  # the unofficial spelling
    largest = _LARGEST_NUMBER.get(method)
    if method not in [each.partition("=")[0] for each in VIEW_WEIGHTINGS] or bool(given) != (largest is not None):
        raise InputError(f"`view_weighting`={name!r}: choose one of {', '.join(VIEW_WEIGHTINGS)}")
    if largest is None:
        return method, None
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not 0 <= value <= largest:
        raise InputError(f"`view_weighting`={name!r}: give a number from 0 to {largest:g}")
    return method, value


# Settings that are no more. Older snapshots state them, mostly as 0 or false.
_REMOVED = {"renderer": ("importance_samples", "show_geometry"), "denoiser": ("learned_weighting",)}


def config_of_snapshot(data: Mapping[str, Any]) -> GeNVSConfig:
    """The config that a snapshot holds as a dict. Raises InputError where it cannot be used."""
    parts = {part: dict(data[part]) for part in _REMOVED}
    for part, names in _REMOVED.items():
        for name in names:
            if parts[part].pop(name, False):
                raise InputError(f"it was trained with `{name}`, which this version does not have")
    return from_dict(GeNVSConfig, {**data, **parts})


# What each preset changes in `srn128`, as in `--set`.
_PRESETS = {
    "srn128": "",
    "srn64": "resolution=64 encoder.decoder_channels=128 renderer.num_samples=48 denoiser.channel_mult=1,2,2,2 "
    "denoiser.attention_resolutions=16",
    # A smaller srn128: a CPU draws with it, and its snapshot in half precision has less than 25 MB.
    "demo": "encoder.widths=32,64,128,128 encoder.blocks=2,2,2,2 encoder.decoder_channels=64 "
    "encoder.low_level_channels=16 renderer.num_samples=48 denoiser.model_channels=32 denoiser.channel_mult=1,2,4,4,4 "
    "denoiser.blocks_per_level=2 denoiser.dropout=0",
    "cpu-demo": "resolution=32 encoder.widths=32,48,64,64 encoder.blocks=1,1,1,1 encoder.aspp_rates=1 "
    "encoder.decoder_channels=48 encoder.low_level_channels=16 encoder.volume_channels=8 encoder.volume_depth=16 "
    "encoder.volume_width=16 renderer.hidden_channels=32 renderer.num_samples=12 renderer.render_width=16 "
    "denoiser.model_channels=16 denoiser.channel_mult=1,2,4 denoiser.blocks_per_level=1 "
    "denoiser.attention_resolutions=8 denoiser.residual_encoder=false denoiser.dropout=0 "
    "denoiser.centre_on_colours=true",
}
PRESETS: dict[str, GeNVSConfig] = {
    name: set_by_path(GeNVSConfig(), dict(change.split("=") for change in changes.split()))
    for name, changes in _PRESETS.items()
}
