"""Cameras and networks on a GPU, the current one or another."""

import pytest
import torch

import genvs
from genvs.data.types import Views
from genvs.geometry.trajectories import TRAJECTORIES, trajectory_cameras
from tests.small_model import small_net, some_batch

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("trajectory", TRAJECTORIES)
def test_cameras_of_a_path_are_where_the_inputs_are(trajectory):
    inputs = some_batch(1, num_inputs=3).inputs.cameras
    ours, expected = (trajectory_cameras(inputs.to(device), trajectory, 5) for device in ("cuda", "cpu"))
    for name in ("c2w", "intrinsics", "near", "far"):
        on_gpu, on_cpu = getattr(ours, name), getattr(expected, name)
        assert on_gpu.is_cuda and on_gpu.dtype == on_cpu.dtype
        torch.testing.assert_close(on_gpu.cpu(), on_cpu, msg=name)


@pytest.mark.skipif("torch.cuda.device_count() < 2", reason="needs two GPUs")
def test_a_viewer_draws_on_a_gpu_that_is_not_the_current_one():
    batch = some_batch(1)
    images = torch.randint(0, 256, batch.inputs.images.shape, generator=torch.Generator().manual_seed(1)).byte()
    inputs, camera = Views(images, batch.inputs.cameras), batch.targets.cameras[:, :1]
    viewers = [genvs.Viewer(small_net().to_device(torch.device("cuda", n)), inputs, bf16=False) for n in (0, 1)]
    for picture in viewers[0].pictures:
        first, second = (viewer.draw(camera, picture, num_steps=2).astype(int) for viewer in viewers)
        assert abs(first - second).max() <= 1, picture
