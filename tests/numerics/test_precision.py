"""Geometry keeps its full precision inside autocast, where matrix products have 8 bits."""

import torch

from genvs.geometry import Cameras, generate_rays, project, unproject
from genvs.geometry.trajectories import orbit


def test_geometry_is_untouched_by_autocast():
    intrinsics = torch.tensor([[1.03, 0.0, 0.47], [0.0, 1.1, 0.52], [0.0, 0.0, 1.0]])
    cameras = Cameras(orbit(5, 1.3), intrinsics.expand(5, 3, 3), torch.full((5,), 0.8), torch.full((5,), 1.8))
    points = torch.rand(5, 100, 3, generator=torch.Generator().manual_seed(0)) - 0.5

    def everything() -> list[torch.Tensor]:
        uv, depth = project(points, cameras)
        return [cameras.w2c, uv, depth, unproject(uv, depth, cameras), *generate_rays(cameras, 8, 8)]

    exact = everything()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (points @ cameras.w2c[:, :3, :3].mT).dtype == torch.bfloat16  # geometry must avoid this
        within = everything()
    for one, other in zip(exact, within, strict=True):
        assert torch.equal(one, other)
