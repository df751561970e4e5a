"""Small pictures of images (context-attachments-providers 3): of what a stranger sent, so nothing of it is trusted."""

import io
import struct
import warnings
import zlib

from minichat.domain.attachment import Thumbnail
from minichat.settings import Thumbnails

_ORIENTATION, _LYING = 0x0112, range(5, 9)  # EXIF: turned by a quarter
_FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP", "image/gif": "GIF"}
# What Pillow's readers let through of images that are broken on purpose.
_DAMAGE = (OSError, EOFError, ValueError, SyntaxError, IndexError, MemoryError, struct.error, zlib.error)
_DRAWN_AS_THEY_ARE = frozenset({"L", "LA", "RGB", "RGBA"})


class InvalidImage(Exception):
    """No image of its type, or one that decodes to more than we decode."""


def of_image(content: bytes, content_type: str, sizes: Thumbnails = Thumbnails()) -> Thumbnail | None:
    """A picture of at most these pixels and bytes, upright, never larger than the image; of several the first.

    None when none of that size can be made.
    Raises InvalidImage.
    """
    # Only images pay for the import.
    from PIL import Image, ImageOps, UnidentifiedImageError  # noqa: PLC0415

    try:
        with warnings.catch_warnings():
            # Pillow warns of what its own limits find large; ours are stricter, and what it decodes is checked here.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=[_FORMATS[content_type]]) as image:
                if image.width * image.height > sizes.max_pixels:
                    raise InvalidImage
                shown: Image.Image = image
                if image.mode == "I;16":
                    # Pillow cannot make it smaller by any factor, and would cut its shades off at 255.
                    shown = image.point(lambda shade: shade * (1 / 256)).convert("L")
                # Made small first, and then turned: the whole image need not be held twice.
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
