"""Pictures in, as a person sees them: from files of strangers, so whatever is wrong with one becomes a sentence. Imports no torch."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageCms, ImageSequence, UnidentifiedImageError
from safetensors import SafetensorError

from hunyuan_video.request import Picture

IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
MAX_RATE = 1000  # frames per second that can be meant
ANIMATED = ("PNG", "WEBP", "GIF")
UNSAID_DURATION = 100  # milliseconds, as browsers show pictures of a GIF that have none
# What undoes an EXIF orientation. (ImageOps.exif_transpose also writes the EXIF block anew, which fails on slightly damaged ones.)
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Of red, green and blue between 0 and 1, by which CLIP and most encoders of pictures normalise.
CLIP_MEAN, CLIP_DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# What the parsers of media files raise on damaged bytes (found by fuzzing); of containers, `containers.open_container` makes a ValueError.
DAMAGED = (
    *(SafetensorError, Image.DecompressionBombError, Image.DecompressionBombWarning, struct.error),
    *(OSError, EOFError, SyntaxError, LookupError, ValueError),
)


def read_picture(path: str | Path) -> Picture:
    """What `read_image` gives, as data."""
    return Picture(np.asarray(read_image(path)))


def picture_of(image: Picture | Image.Image | np.ndarray | str | Path) -> Picture:
    """A picture from whatever has one: Pillow's, an array uint8 [H, W, 3], or a file. Raises what `Picture` and `read_image` do."""
    if isinstance(image, Picture):
        return image
    if isinstance(image, str | Path):
        return read_picture(image)
    return Picture(np.asarray(image.convert("RGB")) if isinstance(image, Image.Image) else image)


def read_image(path: str | Path) -> Image.Image:
    """A picture as a person sees it: turned as its EXIF says, on white where it is transparent, in the colours of sRGB; of an animated one
    the first.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, another kind, or larger than any picture should be.
    """
    with _open_image(Path(path)) as image:
        return as_seen(image)


def picture_in(data: bytes, what: str, max_pixels: int) -> Picture:
    """What `read_picture` gives, of a file's content; `what` it is called. Its header is read first: of one that says it is larger than
    `max_pixels`, nothing more.

    Raises:
        ValueError: it is damaged, another kind, or too large.
    """
    try:
        with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise Image.DecompressionBombError(f"{image.width}x{image.height} are more than {max_pixels} pixels")
            return Picture(np.asarray(as_seen(image)))
    except UnidentifiedImageError as error:
        raise ValueError(f"{what} is no picture; give the content of a file in one of {', '.join(IMAGE_FORMATS)}.") from error
    except DAMAGED as error:
        raise _as_sentence(error, what) from error


def read_animation(path: Path) -> Iterator[Image.Image]:
    """The pictures of an animated file, or its one, each as stored and only until the next: for `as_seen`. Raises as `read_image`."""
    with _open_image(path) as image:
        yield from _moving(image)


def as_seen(image: Image.Image) -> Image.Image:
    """A picture of an open file as `read_image` gives it."""
    turn, picture = UPRIGHT.get(_orientation(image) or 1), _in_srgb(_in_8_bits(image))
    if image.has_transparency_data:
        picture.putalpha(_alpha(image))
        picture = Image.alpha_composite(Image.new("RGBA", image.size, "white"), picture).convert("RGB")
    return picture if turn is None else picture.transpose(turn)


def durations(path: Path, at_most: float) -> list[float]:
    """Of an animated file, the seconds that each picture is shown, as far as they fill `at_most`; of any other a single one."""
    with _open_image(path) as image:
        # Other formats keep other pictures of one scene in a file: a second eye's, or a brighter one.
        if image.format not in ANIMATED or getattr(image, "n_frames", 1) == 1:
            return [0.0]
        seconds: list[float] = []
        for frame in _moving(image):
            frame.load()  # only then WebP says it
            seconds.append((frame.info.get("duration") or UNSAID_DURATION) / 1000)
            if sum(seconds) > at_most:
                break
        return seconds


def _moving(image: Image.Image) -> Iterator[Image.Image]:
    """The pictures of an animation, without the one that a PNG may have for viewers that do not show animations."""
    has_substitute = image.info.get("default_image", False)
    for number, frame in enumerate(ImageSequence.Iterator(image)):
        if number or not has_substitute:
            yield frame


def stated_rate(path: Path) -> float | None:
    """Frames per second of the video that a PNG is a frame of, as `save_video` writes it."""
    with _open_image(path) as image, contextlib.suppress(TypeError, ValueError):
        rate = float(image.info.get("fps", 0))
        return rate if 0 < rate <= MAX_RATE else None


def _in_8_bits(image: Image.Image) -> Image.Image:
    """A grey picture of 16 bits in 8, which Pillow would cut off at 255."""
    if not image.mode.startswith("I"):
        return image
    levels = np.asarray(image).astype(np.float64)
    return Image.fromarray(np.rint(levels / 257).clip(0, 255).astype(np.uint8))


def _alpha(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # the one level that its header says is transparent
        return Image.fromarray(np.where(np.asarray(image) == image.info["transparency"], 0, 255).astype(np.uint8))
    return image.convert("RGBA").getchannel("A")


def _in_srgb(image: Image.Image) -> Image.Image:
    """A picture in RGB, converted from the colour profile that its file has, if it has a sound one."""
    profile = image.info.get("icc_profile")
    if profile:
        opaque = image if image.mode in ("RGB", "L", "CMYK") else image.convert("L" if image.mode == "LA" else "RGB")
        with contextlib.suppress(ImageCms.PyCMSError, OSError):
            own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "sRGB" not in ImageCms.getProfileDescription(own):  # which would move some levels by one
                converted = ImageCms.profileToProfile(opaque, own, ImageCms.createProfile("sRGB"), outputMode="RGB")
                assert converted is not None  # for it is not done in place
                return converted
    return image.convert("RGB")


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height of a picture as `read_image` gives it, from its header. Raises what that does."""
    with _open_image(Path(path)) as image:
        width, height = image.size
        return (height, width) if _orientation(image) in (5, 6, 7, 8) else (width, height)


def fill(picture: Image.Image, height: int, width: int) -> UInt8[np.ndarray, "H W 3"]:
    """The middle of a picture in this size: what has its aspect ratio, resized without aliasing."""
    scale = max(height / picture.height, width / picture.width)
    left, top = (picture.width - width / scale) / 2, (picture.height - height / scale) / 2
    box = (max(0.0, left), max(0.0, top), min(left + width / scale, picture.width), min(top + height / scale, picture.height))
    return np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS, box=box))


@contextlib.contextmanager
def reading(path: Path) -> Iterator[Path]:
    """Turns what parsers raise on damaged bytes into one sentence."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; check the name.")
    try:
        yield path
    except PermissionError:
        raise
    except DAMAGED as error:
        raise _as_sentence(error, path) from error


def _as_sentence(error: BaseException, what: object) -> ValueError:
    reason = getattr(error, "strerror", None) or str(error)
    return ValueError(f"{what} cannot be read ({reason}): it is cut short, damaged or another kind; copy or make it again.")


@contextlib.contextmanager
def _open_image(path: Path) -> Iterator[Image.Image]:
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give a picture.")
    with reading(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a damaged EXIF block does no harm
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path, formats=IMAGE_FORMATS) as image:
            yield image


def _orientation(image: Image.Image) -> int | None:
    """1 to 8 in a sound file."""
    return image.getexif().get(ExifTags.Base.Orientation)


def evenly(length: int, count: int) -> list[int]:
    """Places of so many frames, evenly spread from the first to the last of `length`; each once, so fewer of a short clip."""
    return np.unique(np.linspace(0, length - 1, count).round().astype(int)).tolist()
