"""Thumbnails of images (context-attachments-providers 3). The images come from strangers: nothing is trusted."""

import io
import struct
import warnings
import zlib

from minichat.domain.attachment import Thumbnail
from minichat.settings import Thumbnails

_ORIENTATION, _LYING = 0x0112, range(5, 9)  # EXIF: turned by a quarter
_FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP", "image/gif": "GIF"}
# Exceptions that Pillow's readers let through for maliciously broken images.
_DAMAGE = (OSError, EOFError, ValueError, SyntaxError, IndexError, MemoryError, struct.error, zlib.error)
_DRAWN_AS_THEY_ARE = frozenset({"L", "LA", "RGB", "RGBA"})


class InvalidImage(Exception):
    """Not an image of its type, or larger than what we decode."""


def of_image(content: bytes, content_type: str, sizes: Thumbnails = Thumbnails()) -> Thumbnail | None:
    """A thumbnail of at most these pixels and bytes, upright, never larger than the image; of the first frame.

    None when no thumbnail of that size can be made.
    Raises InvalidImage.
    """
    # Only images pay for the import.
    from PIL import Image, ImageOps, UnidentifiedImageError  # noqa: PLC0415

    try:
        with warnings.catch_warnings():
            # Pillow warns of images above its own limits; ours are stricter, and checked here.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=[_FORMATS[content_type]]) as image:
                if image.width * image.height > sizes.max_pixels:
                    raise InvalidImage
                shown: Image.Image = image
                if image.mode == "I;16":
                    # Pillow cannot scale this mode, and would clip its shades at 255.
                    shown = image.point(lambda shade: shade * (1 / 256)).convert("L")
                # Scaled first, then rotated: the whole image is not held in memory twice.
                lies = image.getexif().get(_ORIENTATION, 1) in _LYING
                shown.thumbnail((sizes.height, sizes.width) if lies else (sizes.width, sizes.height))
                small = ImageOps.exif_transpose(shown)
                if small.mode not in _DRAWN_AS_THEY_ARE:
                    small = small.convert("RGBA" if small.has_transparency_data else "RGB")
    except (UnidentifiedImageError, Image.DecompressionBombError, *_DAMAGE) as error:
        raise InvalidImage from error
    written = io.BytesIO()
    small.save(written, "WEBP", quality=80)
    data = written.getvalue()
    return Thumbnail(small.width, small.height, data) if len(data) <= sizes.max_bytes else None
