"""Open image and mask files with Pillow alone, so that `visa prepare` starts without torch and NumPy."""

from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageChops, ImageOps, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin

from visa.errors import VisaError

MASK_MODES = ("1", "L", "P")  # one 8-bit channel: the pixel, or the palette's index, is the class id
ORIENTATION = 0x0112  # EXIF tag; 1 is upright
SIDEWAYS = (5, 6, 7, 8)  # its values that swap height and width
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # others are refused: for some Pillow runs Ghostscript
_LOADED = (TiffImagePlugin, WebPImagePlugin)  # imported here, or Pillow would load all its plugins to find these two
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # what Pillow raises for broken files


def open_image(file: Path | BinaryIO) -> Image.Image:
    """Open an image file of FORMATS and read its header; raises one of UNREADABLE for any other file."""
    return Image.open(file, formats=FORMATS)


def open_upright(path: Path) -> Image.Image:
    """Decode an image and apply its EXIF rotation; any failure raises a VisaError that names the file."""
    try:
        with open_image(path) as image:
            ImageOps.exif_transpose(image, in_place=True)
            image.load()
            return image
    except UNREADABLE as error:
        raise undecodable(path, error) from error


def upright_size(path: Path) -> tuple[int, int]:
    """Return an image's height and width, upright, from its header if possible; raises VisaError as `open_upright`."""
    try:
        with open_image(path) as image:
            sideways = image.getexif().get(ORIENTATION, 1) in SIDEWAYS
            # For a TIFF file some versions of Pillow report the stored size, others the upright one.
            width, height = open_upright(path).size if sideways and image.format == "TIFF" else image.size
            return (width, height) if sideways and image.format != "TIFF" else (height, width)
    except UNREADABLE as error:
        raise undecodable(path, error) from error


def open_mask(path: Path) -> Image.Image:
    """Open a mask file as an 8-bit grey image of class ids, 0 the background.

    A colour file is accepted if its three channels are equal. Raises VisaError if the file is missing, truncated, a
    JPEG (which blurs ids into each other), or holds anything but one 8-bit channel.
    """
    image = open_upright(path)
    if image.format == "JPEG":
        raise VisaError(f"{path} is a JPEG file, which changes a mask's values: save it as PNG.")
    if image.mode == "RGB":
        first, *others = image.split()
        if not any(ImageChops.difference(first, other).getbbox() for other in others):
            return first
    if image.mode not in MASK_MODES:
        raise VisaError(f"{path} has the mode {image.mode}: a mask has one 8-bit channel of class ids.")
    if image.mode == "P":  # the class id is the palette's index, not its colour
        return Image.frombytes("L", image.size, image.tobytes())
    return image.convert("L").point(lambda value: value // 255) if image.mode == "1" else image


def undecodable(path: Path, error: Exception) -> VisaError:
    """Make the error for a file that cannot be read as an image."""
    if isinstance(error, UnidentifiedImageError):  # its message names an object in memory, not the file
        return VisaError(f"{path} cannot be decoded (it is none of {', '.join(FORMATS)}): fetch it again.")
    if isinstance(error, FileNotFoundError):
        return VisaError(f"no image at {path}: the data set is incomplete (visa verify lists what is missing).")
    if isinstance(error, PermissionError):
        return VisaError(f"{path} may not be read ({error.strerror}): change its permissions.")
    return VisaError(f"{path} cannot be decoded ({error}): fetch it again.")
