"""Thumbnails of what strangers send: small, upright, and nothing is decoded that is too large."""

import io
import struct
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from minichat.domain.attachment import Thumbnail
from minichat.services.thumbnail import InvalidImage, of_image
from minichat.settings import Thumbnails


def an_image(width: int, height: int, kind: str = "PNG", mode: str = "RGB", **options: object) -> bytes:
    written = io.BytesIO()
    Image.effect_noise((width, height), 80).convert(mode).save(written, kind, **options)
    return written.getvalue()


def a_png_header(width: int, height: int) -> bytes:
    """A picture of that size, all black: a few bytes for each megapixel."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(min((1 + (width + 7) // 8) * height, 10_000_000)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def opened(thumbnail: Thumbnail | None) -> Image.Image:
    assert thumbnail is not None
    image = Image.open(io.BytesIO(thumbnail.data))
    assert image.format == "WEBP"
    assert image.size == (thumbnail.width, thumbnail.height)
    return image


def test_a_deployment_has_other_sizes() -> None:
    wide = Thumbnails(width=200, height=50, max_pixels=1_000_000)
    assert opened(of_image(an_image(1000, 500), "image/png", wide)).size == (100, 50)
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = an_image(500, 1000, "JPEG", exif=exif)
    assert opened(of_image(lying, "image/jpeg", wide)).size == (100, 50)
    with pytest.raises(InvalidImage):
        of_image(an_image(1001, 1000), "image/png", wide)
    assert of_image(an_image(400, 400), "image/png", Thumbnails(width=512, height=512, max_bytes=1024)) is None


@settings(max_examples=40)
@given(
    st.integers(1, 600),
    st.integers(1, 600),
    st.sampled_from(["PNG", "JPEG", "WEBP", "GIF"]),
    st.sampled_from(["L", "RGB", "RGBA", "P", "1", "LA", "I;16", "CMYK"]),
)
def test_a_thumbnail_fits_whatever_the_image_is(width: int, height: int, kind: str, mode: str) -> None:
    allowed = {"PNG": {"L", "RGB", "RGBA", "P", "1", "LA", "I;16"}, "JPEG": {"L", "RGB", "CMYK"}}
    if mode not in allowed.get(kind, {"L", "RGB", "RGBA", "P"}):
        mode = "RGB"
    thumbnail = of_image(an_image(width, height, kind, mode), f"image/{kind.lower()}")
    assert thumbnail is not None
    assert max(thumbnail.width, thumbnail.height) == min(128, max(width, height))
    assert len(thumbnail.data) <= 128 * 1024
    opened(thumbnail).load()


def test_its_shape_is_the_images() -> None:
    assert opened(of_image(an_image(1000, 500), "image/png")).size == (128, 64)


def test_a_small_image_is_not_enlarged() -> None:
    assert opened(of_image(an_image(2, 2), "image/png")).size == (2, 2)


@pytest.mark.parametrize("size", [(1, 100_000), (100_000, 1)])
def test_an_image_that_is_all_edge_has_a_thumbnail(size: tuple[int, int]) -> None:
    assert sorted(opened(of_image(an_image(*size), "image/png")).size) == [1, 128]


@pytest.mark.parametrize("size", [(1, 512), (300, 200)])
def test_sixteen_bits_of_grey_keep_their_shades(size: tuple[int, int]) -> None:
    written = io.BytesIO()
    Image.new("I;16", size, 0x8000).save(written, "PNG")
    shown = opened(of_image(written.getvalue(), "image/png")).convert("L").getpixel((0, 0))
    assert shown == pytest.approx(0x80, abs=3)


def test_a_photograph_stands_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert opened(of_image(an_image(200, 100, "JPEG", exif=exif), "image/jpeg")).size == (64, 128)


def test_nothing_of_where_a_photograph_was_taken_is_kept() -> None:
    exif = Image.Exif()
    exif[0x010E] = "at home"
    thumbnail = of_image(an_image(200, 100, "JPEG", exif=exif), "image/jpeg")
    assert b"at home" not in opened(thumbnail).info.get("exif", b"")


def test_of_several_pictures_the_first_is_shown() -> None:
    written = io.BytesIO()
    colours = [Image.new("RGB", (10, 10), colour) for colour in ("red", "blue")]
    colours[0].save(written, "GIF", save_all=True, append_images=colours[1:])
    red, _, blue = opened(of_image(written.getvalue(), "image/gif")).convert("RGB").getpixel((5, 5))  # type: ignore[misc]
    assert (red > 200, blue < 50) == (True, True)


@pytest.mark.parametrize("size", [(10_001, 10_000), (100_000, 100_000), (2**31 - 1, 2**31 - 1)])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(size: tuple[int, int]) -> None:
    bomb = a_png_header(*size)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidImage):
            of_image(bomb, "image/png")
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b"", "image/png"),
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "image/png"),
        (an_image(100, 100)[:200], "image/png"),
        (an_image(100, 100, "JPEG")[:300], "image/jpeg"),
        (an_image(10, 10, "PNG"), "image/jpeg"),
        (b"GIF89a" + b"\xff" * 50, "image/gif"),
        (b"RIFF\xff\0\0\0WEBPVP8 ", "image/webp"),
    ],
)
def test_what_is_no_image_of_its_type_is_refused(content: bytes, content_type: str) -> None:
    with pytest.raises(InvalidImage):
        of_image(content, content_type)


@settings(max_examples=200)
@given(st.data(), st.sampled_from(["PNG", "JPEG", "WEBP", "GIF"]))
def test_damage_is_refused_or_survived_and_nothing_else_happens(data: st.DataObject, kind: str) -> None:
    image = bytearray(_WHOLE[kind])
    for _ in range(data.draw(st.integers(1, 8))):
        image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    try:
        opened(of_image(bytes(image), f"image/{kind.lower()}"))
    except InvalidImage:
        return


_WHOLE = {kind: an_image(40, 30, kind) for kind in ("PNG", "JPEG", "WEBP", "GIF")}
