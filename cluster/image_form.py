"""What the images of a set are turned into when they are read: one size, one number of channels.

So that shards whose images are of other or of differing sizes serve as they are, without being written again.
"""

from typing import NamedTuple

from PIL import Image, ImageOps

_EXIF_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageForm(NamedTuple):
    """The form that images are read in; None: as they are stored."""

    size: int | None = None
    """Side of the square: turned upright (EXIF), cropped to the central square, resampled to it (Lanczos)."""
    channels: int | None = None
    """3 (RGB) or 1 (grey)."""


AS_STORED = ImageForm()


def bring_to_form(image: Image.Image, form: ImageForm, orientation: int | None) -> Image.Image:
    """A grey or RGB image of 8 bits a channel in `form`; `orientation` is the EXIF tag of how it was taken, if any."""
    if form.size is not None and orientation in _TURNS:
        image = image.transpose(_TURNS[orientation])
    if form.channels is not None:
        image = image.convert("L" if form.channels == 1 else "RGB")
    if form.size is not None:
        # Crops to the largest central square and resamples it in one step; Lanczos averages when it makes smaller.
        image = ImageOps.fit(image, (form.size, form.size), Image.Resampling.LANCZOS)
    return image


def orientation_of(image: Image.Image) -> int | None:
    """The EXIF tag by which cameras say how to turn an image upright, None without one."""
    try:
        tag = image.getexif().get(_EXIF_ORIENTATION)
    except Exception:  # Pillow's reader raises anything on bad EXIF, in an image whose pixels are sound
        return None
    return tag if isinstance(tag, int) else None
