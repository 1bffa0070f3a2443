"""Pictures from anywhere, always as PIL RGB: files on disk, with every way a file can be wrong named in one line."""

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, runtime_checkable

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from madtp.errors import InputError

logger = logging.getLogger(__name__)

MAX_PIXELS = 64_000_000
"""Pictures of more pixels than this are refused: they are a mistake or an attack on memory (64 MP = 192 MB as RGB)."""

MAX_RATIO = 200
"""Pictures longer than so many times their width (or wider) are refused: brought to a model's size they fill memory."""


@runtime_checkable
class ImageSource(Protocol):
    """Anything that yields a picture when asked: a file, or a scene that is rendered on the spot."""

    def open(self) -> Image.Image:
        """The picture, decoded, mode RGB. Raises InputError where it cannot be had."""
        ...


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A picture in a file.

    Args:
        path: the file; any format PIL reads. Of an animation the first frame counts.
        max_pixels: width x height above which the picture is refused before it is decoded.
    """

    path: str | Path
    max_pixels: int = MAX_PIXELS

    def open(self) -> Image.Image:
        """Decode the file to RGB, upright (EXIF orientation applied), transparency laid over white.

        Raises:
            InputError: the file is missing, unreadable, not an image, cut short, broken, over ``max_pixels`` or over
                `MAX_RATIO`.
        """
        return decode(self.path, self.path, self.max_pixels)


@dataclass(frozen=True, slots=True, eq=False)
class ImageHeld:
    """A picture that is in memory already.

    Args:
        image: of any mode.
        name: for messages.
    """

    image: Image.Image
    name: str = "picture"

    def open(self) -> Image.Image:
        """As `ImageFile.open` gives it. Raises InputError where its pixels cannot be had."""
        try:
            return _as_rgb(_upright(self.image))
        except Exception as error:  # a file read late may be broken in any way
            raise InputError(f"is a broken or cut short image ({error})", self.name, "replace it") from error


def decode(file: str | Path | IO[bytes], where: object, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture in a file, a path or an open one, as `ImageFile.open` gives it.

    Args:
        file: what to read.
        where: its name for error messages.
        max_pixels: width x height above which the picture is refused before it is decoded.

    Raises:
        InputError: as `ImageFile.open`.
    """
    try:
        # PIL warns of big pictures only at 89 MP, and only warns; the limit below is ours and is an error.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(file)
        with opened:
            if opened.width * opened.height > max_pixels:
                what = f"{opened.width} x {opened.height} is over the limit of {max_pixels / 1e6:g} million pixels"
                raise InputError(what, where, "make the picture smaller")
            if max(opened.size) > MAX_RATIO * min(opened.size):
                what = f"{opened.width} x {opened.height} is more than {MAX_RATIO} times as long as wide"
                raise InputError(what, where, "cut it")
            opened.load()
            return _as_rgb(_upright(opened))
    except InputError:
        raise
    except FileNotFoundError as error:
        elsewhere = str(where).startswith(("http://", "https://"))
        raise InputError("no such image", where, "download it first" if elsewhere else None) from error
    except UnidentifiedImageError as error:
        raise InputError("is not an image", where, "give a PNG, a JPEG or the like") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"is over the limit of {max_pixels / 1e6:g} million pixels", where) from error
    except IsADirectoryError as error:
        raise InputError("is a folder, not an image", where) from error
    except PermissionError as error:
        raise InputError("may not be read", where, "check its permissions") from error
    # PIL's decoders answer damaged bytes with nearly any exception: OSError, SyntaxError, struct.error.
    except Exception as error:
        raise InputError(f"is a broken or cut short image ({error})", where, "replace the file") from error


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; a damaged EXIF block says nothing about the pixels, so it is passed over."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ImageOps.exif_transpose(image)
    except Exception as error:
        logger.debug("EXIF data not readable, picture used as stored: %s", error)
        return image


def _as_rgb(image: Image.Image) -> Image.Image:
    """Mode RGB whatever the mode was."""
    if image.mode.startswith("I"):
        # 16-bit grey: PIL's own conversion clips at 255, which turns such pictures white.
        values = np.asarray(image).astype(np.int64)
        scaled = values if values.max(initial=0) <= 255 and image.mode == "I" else values // 257
        return Image.fromarray(scaled.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    if image.has_transparency_data:
        # Dropping alpha would show whatever colour lies hidden under it, most often black.
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")
