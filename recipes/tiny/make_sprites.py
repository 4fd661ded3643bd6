"""Bake the miniature world's sprites: `python recipes/tiny/make_sprites.py`, needed only to change how a subject looks.

The pictures come from Noto Color Emoji (Google, SIL Open Font License 1.1, Debian package `fonts-noto-color-emoji`), recoloured so
that no two subjects share both a colour and a silhouette: a viewer, and a small model, must tell them apart in 60 soft pixels.
The atlas is one row of 128 × 128 RGBA tiles in the order of `world.SUBJECTS`; rendering reads it and never needs the font.
"""

import colorsys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
ATLAS = Path(__file__).parents[2] / "src/hunyuan_video/miniature/sprites.png"
TILE = 128


def emoji(character: str) -> Image.Image:
    """One emoji, cut to its visible pixels. The font's only bitmap strike is size 109."""
    canvas = Image.new("RGBA", (160, 160))
    ImageDraw.Draw(canvas).text((10, 10), character, font=ImageFont.truetype(FONT, 109), embedded_color=True)
    return canvas.crop(canvas.getbbox())


def recolour(image: Image.Image, hue: float | None = None, saturation: float = 1.0, value: float = 1.0, only: float = 0.0) -> Image.Image:
    """Set the hue [0, 1] and scale saturation and value of pixels at least `only` saturated; eyes and whites stay themselves."""
    pixels = np.asarray(image).copy()
    for row in pixels:
        for pixel in row:
            h, s, v = colorsys.rgb_to_hsv(*(pixel[:3] / 255))
            if s >= only:
                h = h if hue is None else hue
                pixel[:3] = np.array(colorsys.hsv_to_rgb(h, min(s * saturation, 1), min(v * value, 1))) * 255
    return Image.fromarray(pixels)


def tint(image: Image.Image, red: float, green: float, blue: float) -> Image.Image:
    pixels = np.asarray(image) * np.array([red, green, blue, 1.0])
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def soften(image: Image.Image, amount: float) -> Image.Image:
    """Move every pixel towards the picture's mean colour: stripes and seams moving over a background cost a VAE the most."""
    pixels = np.asarray(image).astype(float)
    mean = np.average(pixels[..., :3], axis=(0, 1), weights=pixels[..., 3])
    pixels[..., :3] += amount * (mean - pixels[..., :3])
    return Image.fromarray(pixels.astype(np.uint8))


def cat() -> Image.Image:
    """A grey tabby with a big face on a walking body: at 34 pixels the ears and eyes say "cat", the body alone says "something"."""
    body, face = emoji("🐈"), emoji("🐱")
    canvas = Image.new("RGBA", (TILE, TILE))
    head = face.resize((82, round(82 * face.height / face.width)), Image.Resampling.LANCZOS)
    pixels = np.asarray(body).copy()
    pixels[: int(body.height * 0.55), : int(body.width * 0.6)] = 0  # the body's own small head
    body = Image.fromarray(pixels).resize((112, 112), Image.Resampling.LANCZOS)
    canvas.alpha_composite(body, (16, 16))
    canvas.alpha_composite(head, (0, 4))
    return recolour(canvas, hue=0.62, saturation=0.17, value=0.66, only=0.45)


def rocket() -> Image.Image:
    """Turned to point up, without the emoji's four loose stars (one-pixel details cost the VAE more than they show)."""
    upright = emoji("🚀").rotate(45, Image.Resampling.BICUBIC, expand=True)
    body = upright.getchannel("A").point([255 * (alpha > 32) for alpha in range(256)])
    ImageDraw.floodfill(body, (body.width // 2, body.height // 2), 128)  # what hangs together with the middle is the rocket
    kept = body.point([255 * (mark == 128) for mark in range(256)])
    upright.putalpha(Image.composite(upright.getchannel("A"), Image.new("L", upright.size), kept))
    return upright.crop(upright.getbbox())


def sprites() -> dict[str, Image.Image]:
    return {
        "cat": cat(),
        "dog": tint(emoji("🐕"), 0.68, 0.52, 0.42),
        "car": tint(soften(emoji("🚗"), 0.2), 1.1, 1.0, 1.0),
        "rocket": rocket(),
        "fish": tint(soften(emoji("🐠"), 0.4), 1.16, 1.2, 1.0),
        "bird": emoji("🐦"),
        "ball": tint(soften(emoji("🏀"), 0.35), 1.08, 1.05, 1.0),
        "heart": recolour(emoji("❤"), hue=0.91),
        "flower": emoji("🌻"),
        "boat": emoji("⛵"),
        "robot": soften(recolour(emoji("🤖"), hue=0.47, saturation=3.2, only=0.05), 0.15),
        "balloon": recolour(emoji("🎈"), hue=0.77),
        "bus": recolour(soften(emoji("🚌"), 0.15), hue=0.13, saturation=3.0, value=1.15, only=0.12),
        "train": soften(emoji("🚂"), 0.15),
        "airplane": emoji("✈").transpose(Image.Transpose.FLIP_LEFT_RIGHT).rotate(45, Image.Resampling.BICUBIC, expand=True),
        "helicopter": emoji("🚁"),
        "butterfly": soften(emoji("🦋"), 0.35),
        "bee": emoji("🐝"),
        "turtle": emoji("🐢"),
        "elephant": emoji("🐘"),
        "penguin": emoji("🐧"),
        "frog": emoji("🐸"),
        "pig": tint(emoji("🐖"), 1.0, 0.86, 0.9),
        "octopus": tint(soften(emoji("🐙"), 0.3), 1.0, 0.75, 1.3),
        "crab": emoji("🦀"),
        "whale": tint(emoji("🐳"), 0.75, 0.9, 1.15),
        "dinosaur": emoji("🦖"),
        "mushroom": emoji("🍄"),
        "apple": emoji("🍎"),
        "star": emoji("⭐"),
        "umbrella": emoji("☂"),
        "teddy": emoji("🧸"),
    }


def main() -> None:
    pictures = sprites()
    atlas = Image.new("RGBA", (TILE * len(pictures), TILE))
    for i, picture in enumerate(pictures.values()):
        picture = picture.crop(picture.getbbox())
        scale = TILE / max(picture.size)
        picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS)
        atlas.paste(picture, (i * TILE + (TILE - picture.width) // 2, (TILE - picture.height) // 2))
    atlas.save(ATLAS, optimize=True)


if __name__ == "__main__":
    main()
