"""LPIPS and DISTS: distances between images in the features of networks that were trained on ImageNet; and VGG16's
features alone.

They need torchvision's weights of VGG16 and AlexNet, which torch.hub keeps and which are downloaded where they are
missing, and the metrics' own few weights, files of the package torchmetrics (the extra `metrics`). Neither torchmetrics
nor torchvision is imported: that fails where torchvision does not fit torch.
"""

import functools
import importlib.util
import itertools
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import torch
import torch.nn.functional as F
from torch import Tensor

from genvs import files
from genvs.errors import InputError

IMAGE_METRICS = ("lpips_vgg", "lpips_alex", "dists")
INSTALL = "pip install -c constraints.txt -e .[metrics]"
URL = "https://download.pytorch.org/models/"
NETWORKS = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth"}
# The convolutions by their numbers in these files, up to each layer that is compared.
STAGES = {
    "vgg": ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)),
    "alex": ((0,), (3,), (6,), (8,), (10,)),
}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and standard deviation of its colours, in [0, 1]
Distance = Callable[[Tensor, Tensor], Tensor]
Pool = Callable[[Tensor], Tensor]


def image_metric(name: str, device: torch.device | str) -> Distance:
    """One of IMAGE_METRICS: a function of images and targets, `[N, 3, H, W]` in [-1, 1] on `device`, that gives `[N]`.

    0 for equal images. Raises InputError where weights are missing.
    """
    distance = _dists(device) if name == "dists" else _lpips(name.removeprefix("lpips_"), device)

    @torch.inference_mode()
    def measure(images: Tensor, targets: Tensor) -> Tensor:
        return distance(images.float().clamp(-1, 1), targets.float().clamp(-1, 1))

    return measure


def diversity(samples: Tensor, distance: Distance) -> float:
    """The mean distance of two of k >= 2 samples of the same views, over all pairs and views: `[k, T, 3, H, W]`."""
    return fmean(float(distance(*pair).mean()) for pair in itertools.combinations(samples, 2))


def vgg_features(device: torch.device | str) -> Callable[[Tensor], Tensor]:
    """A function of images `[N, 3, H, W]` in [-1, 1] on `device`, that gives VGG16's features of each as `[N, 512]`.

    They are the means over pixels of its last convolutional layer (relu5_3), at the images' own size. The fully
    connected layers would need 224 x 224 pixels, and the covariance of their 4,096 numbers more images than evaluations
    have.
    Raises InputError where weights are missing.
    """
    layers, pool = _layers("vgg", device), functools.partial(F.max_pool2d, kernel_size=2)
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in IMAGENET)

    @torch.inference_mode()
    def features(images: Tensor) -> Tensor:
        some = ((images + 1) / 2 - mean) / std
        return torch.cat([layers(part, pool)[-1].mean(dim=(2, 3)) for part in some.split(64)])

    return features


def _lpips(name: str, device: torch.device | str) -> Distance:
    """Zhang et al. (arXiv 1801.03924), eq. 1: squared differences of unit-length features, weighted by channel; the
    mean over pixels, and the sum over layers.
    """
    weights, layers = _weights_of_metric(f"lpips_models/{name}.pth"), _layers(name, device)
    channels = [weights[f"lin{layer}.model.1.weight"].to(device) for layer in range(5)]
    mean = torch.tensor([-0.030, -0.088, -0.188], device=device)[:, None, None]
    std = torch.tensor([0.458, 0.448, 0.450], device=device)[:, None, None]
    pool = functools.partial(F.max_pool2d, kernel_size=2 if name == "vgg" else 3, stride=2)

    def distance(images: Tensor, targets: Tensor) -> Tensor:
        a, b = (map(F.normalize, layers((x - mean) / std, pool)) for x in (images, targets))
        terms = zip(a, b, channels, strict=True)
        return torch.stack([(w * (x - y).square()).sum(dim=1).mean(dim=(1, 2)) for x, y, w in terms]).sum(dim=0)

    return distance


def _dists(device: torch.device | str) -> Distance:
    """Ding et al. (arXiv 2004.07728), eq. 6 to 8: SSIM's two terms, of means and of covariances, over the whole image
    and whole feature maps, weighted by channel. Averages of squares in a Hann window replace VGG16's pooling.
    """
    weights, layers = _weights_of_metric("dists_models/weights.pt"), _layers("vgg", device)
    alpha, beta = (weights[name].flatten().to(device) for name in ("alpha", "beta"))
    hann = torch.tensor([0.25, 0.5, 0.25], device=device)
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in IMAGENET)

    def pool(x: Tensor) -> Tensor:
        window = (hann[:, None] * hann).expand(x.shape[1], 1, 3, 3)
        return (F.conv2d(x.square(), window, stride=2, padding=1, groups=x.shape[1]) + 1e-12).sqrt()

    def features(x: Tensor) -> list[Tensor]:
        x = (x + 1) / 2
        return [part.flatten(2) for part in (x, *layers((x - mean) / std, pool))]

    def distance(images: Tensor, targets: Tensor) -> Tensor:
        of_means, of_covariances = [], []
        for a, b in zip(features(images), features(targets), strict=True):
            mean_a, mean_b = a.mean(-1), b.mean(-1)
            variances = a.var(-1, correction=0) + b.var(-1, correction=0)
            of_means.append((2 * mean_a * mean_b + 1e-6) / (mean_a.square() + mean_b.square() + 1e-6))
            of_covariances.append((2 * ((a * b).mean(-1) - mean_a * mean_b) + 1e-6) / (variances + 1e-6))
        similarity = torch.cat(of_means, dim=1) @ alpha + torch.cat(of_covariances, dim=1) @ beta
        return 1 - similarity / (alpha.sum() + beta.sum())

    return distance


def _layers(name: str, device: torch.device | str) -> Callable[[Tensor, Pool], list[Tensor]]:
    """The five layers of VGG16 or AlexNet that are compared, `[N, C, h, w]`, of normalised images `[N, 3, H, W]`.

    Raises InputError where the weights are missing and cannot be downloaded, or the file is another one.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / NETWORKS[name]
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(URL + path.name, str(path), path.stem[-8:], progress=False)
        state = {key: value.to(device) for key, value in files.load(path).items()}
        stages = [[(state[f"features.{i}.weight"], state[f"features.{i}.bias"]) for i in s] for s in STAGES[name]]
    except OSError as error:
        raise InputError(
            f"{path}: is missing and cannot be downloaded ({error}): put it there (TORCH_HOME names another folder)"
        ) from None
    except (KeyError, AttributeError):
        raise InputError(f"{path}: does not hold torchvision's weights: delete it") from None
    pooled = range(1, 5 if name == "vgg" else 3)

    def layers(x: Tensor, pool: Pool) -> list[Tensor]:
        found = []
        for number, stage in enumerate(stages):
            x = pool(x) if number in pooled else x
            for weight, bias in stage:
                side = weight.shape[-1]
                # AlexNet's first convolution, of side 11, has a stride, and less padding than would keep the size.
                x = F.conv2d(x, weight, bias, stride=4 if side == 11 else 1, padding=min(side // 2, 2)).relu()
            found.append(x)
        return found

    return layers


def _weights_of_metric(name: str) -> dict[str, Tensor]:
    package = importlib.util.find_spec("torchmetrics")
    if package is None or package.origin is None:
        raise InputError(f"`metrics`: LPIPS and DISTS need files of torchmetrics: {INSTALL}, or leave them out")
    return files.load(Path(package.origin).parent / "functional" / "image" / name)
