"""PNGs of every depth and kind of colour, with and without transparency, read as the format defines them."""

import struct
import zlib

import numpy as np
import pytest

from genvs.data.images import read_image
from genvs.errors import InputError

SIDE = 16
GRAY, RGB, PALETTE, GRAY_ALPHA, RGBA = 0, 2, 3, 4, 6
CHANNELS = {GRAY: 1, RGB: 3, PALETTE: 1, GRAY_ALPHA: 2, RGBA: 4}
RNG = np.random.default_rng(0)
COLOURS, OPACITIES = RNG.integers(0, 256, (16, 3)), RNG.integers(0, 256, 16)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(values: np.ndarray, depth: int, kind: int, *chunks: bytes) -> bytes:
    """values: `[SIDE, SIDE, channels]`, below 2^depth."""
    bits = (values.reshape(SIDE, -1, 1) >> np.arange(depth)[::-1]) & 1
    rows = np.packbits(bits.reshape(SIDE, -1).astype(np.uint8), axis=1)
    header = struct.pack(">IIBBBBB", SIDE, SIDE, depth, kind, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + b"".join([chunk(b"IHDR", header), *chunks, chunk(b"IDAT", data), chunk(b"IEND", b"")])


def some_values(depth: int, kind: int) -> np.ndarray:
    return RNG.integers(0, 2 ** min(depth, 4 if kind == PALETTE else 16), (SIDE, SIDE, CHANNELS[kind]))


def error(content: bytes, rgb: np.ndarray, opacity: np.ndarray | float = 1.0) -> float:
    """The largest one, in levels of 255. rgb: in [0, 1]. opacity: of the colours over white."""
    expected = 255 * (rgb * opacity + 1 - opacity) * np.ones(3)
    return float(np.abs(read_image(content, "a.png") - expected).max())


@pytest.mark.parametrize(("depth", "kind"), [*((d, GRAY) for d in (1, 2, 4, 8, 16)), (8, RGB), (16, RGB)])
def test_opaque_and_with_a_transparent_colour(depth, kind):
    values = some_values(depth, kind)
    colours, key = values / (2**depth - 1), values[3, 5]
    if (depth, kind) == (16, RGB):
        assert error(png(values, depth, kind), colours) <= 1  # Pillow cuts them off at 8 bits, and refuses the key
        return
    assert error(png(values, depth, kind), colours) <= 0.501
    content = png(values, depth, kind, chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)))
    assert error(content, colours, (values != key).any(axis=-1, keepdims=True)) <= 0.501


def test_a_transparent_colour_of_16_bits_is_refused():
    key = chunk(b"tRNS", struct.pack(">3H", 5, 65535, 7))
    with pytest.raises(InputError, match=r"a\.png: has a transparent colour of 16 bits; save it as RGBA"):
        read_image(png(some_values(16, RGB), 16, RGB, key), "a.png")


@pytest.mark.parametrize(("depth", "kind"), [(8, RGBA), (16, RGBA), (8, GRAY_ALPHA), (16, GRAY_ALPHA)])
def test_an_alpha_channel(depth, kind):
    values = some_values(depth, kind)
    shares = values / (2**depth - 1)
    assert error(png(values, depth, kind), shares[..., :-1], shares[..., -1:]) <= (0.501 if depth == 8 else 2)


@pytest.mark.parametrize("depth", [4, 8])
@pytest.mark.parametrize("transparent", [False, True])
def test_a_palette(depth, transparent):
    values = some_values(depth, PALETTE)
    chunks = [chunk(b"PLTE", COLOURS.astype(np.uint8).tobytes())]
    chunks += [chunk(b"tRNS", OPACITIES.astype(np.uint8).tobytes())] if transparent else []
    opacity = OPACITIES[values] / 255 if transparent else 1.0
    assert error(png(values, depth, PALETTE, *chunks), COLOURS[values[..., 0]] / 255, opacity) <= 0.501
