"""Every kind of picture file opens as RGB, every kind of broken one says which file it is."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from madtp.data.images import ImageFile, ImageSource
from madtp.errors import InputError

WIDTH, HEIGHT = 7, 5


def pixels(path: Path) -> np.ndarray:
    image = ImageFile(path).open()
    assert image.mode == "RGB"
    return np.asarray(image)


def gradient(mode: str = "RGB") -> Image.Image:
    values = np.arange(HEIGHT * WIDTH * 3, dtype=np.uint8).reshape(HEIGHT, WIDTH, 3) * 2
    return Image.fromarray(values).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "LA", "RGBA", "I;16"])
def test_modes(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    image = gradient("L").convert("I;16") if mode == "I;16" else gradient(mode)
    image.save(path)
    assert pixels(path).shape == (HEIGHT, WIDTH, 3)
    assert isinstance(ImageFile(path), ImageSource)


def test_rgb_is_exact(tmp_path: Path) -> None:
    gradient().save(tmp_path / "a.png")
    assert (pixels(tmp_path / "a.png") == np.asarray(gradient())).all()


def test_cmyk_jpeg(tmp_path: Path) -> None:
    Image.new("CMYK", (WIDTH, HEIGHT), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    red, green, blue = pixels(tmp_path / "a.jpg")[2, 2]
    assert red > 200
    assert green < 50
    assert blue < 50


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.full((HEIGHT, WIDTH), 257 * 100, dtype=np.uint16)).save(tmp_path / "a.png")
    assert (pixels(tmp_path / "a.png") == 100).all()


def test_transparency_lies_over_white(tmp_path: Path) -> None:
    Image.new("RGBA", (WIDTH, HEIGHT), (0, 0, 0, 0)).save(tmp_path / "a.png")
    assert (pixels(tmp_path / "a.png") == 255).all()


def test_palette_with_transparent_bytes(tmp_path: Path) -> None:
    image = Image.new("P", (WIDTH, HEIGHT), 1)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((0, 0), 0)
    image.save(tmp_path / "a.png", transparency=bytes([0, 255]))
    assert pixels(tmp_path / "a.png")[0, :2].tolist() == [[255, 255, 255], [40, 50, 60]]


def test_exif_orientation_turns_the_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned a quarter clockwise
    gradient().save(tmp_path / "a.png", exif=exif)
    assert (pixels(tmp_path / "a.png") == np.rot90(np.asarray(gradient()), -1)).all()


def test_broken_exif_does_not_cost_the_picture(tmp_path: Path) -> None:
    gradient().save(tmp_path / "a.png", exif=b"Exif\x00\x00nonsense")
    assert pixels(tmp_path / "a.png").shape == (HEIGHT, WIDTH, 3)


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    Image.new("L", (WIDTH, HEIGHT), 0).save(
        tmp_path / "a.gif", save_all=True, append_images=[Image.new("L", (WIDTH, HEIGHT), 255)]
    )
    assert (pixels(tmp_path / "a.gif") == 0).all()


@pytest.mark.parametrize("ending", ["png", "jpg", "gif", "bmp", "webp", "tiff"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_cut_short(tmp_path: Path, ending: str, share: float) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (61, 67, 3), dtype=np.uint8)
    path = tmp_path / f"a.{ending}"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(InputError, match=rf"a\.{ending}: is ") as caught:
        ImageFile(path).open()
    assert "\n" not in str(caught.value)


def test_wrong_paths(tmp_path: Path) -> None:
    (tmp_path / "words.png").write_text("not a picture")
    for name, words in [("none.png", "no such image"), ("words.png", "is not an image"), (".", "is a folder")]:
        with pytest.raises(InputError, match=words) as caught:
            ImageFile(tmp_path / name).open()
        assert str(tmp_path) in str(caught.value)


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    Image.new("F", (WIDTH, HEIGHT), 0.5).save(tmp_path / "a.tiff")
    with pytest.raises(InputError, match="no known range"):
        ImageFile(tmp_path / "a.tiff").open()


def test_pixel_limit(tmp_path: Path) -> None:
    gradient().save(tmp_path / "a.png")
    assert ImageFile(tmp_path / "a.png", max_pixels=35).open().size == (WIDTH, HEIGHT)
    with pytest.raises(InputError, match=r"a\.png: 7 x 5 is over the limit"):
        ImageFile(tmp_path / "a.png", max_pixels=34).open()


@pytest.mark.parametrize("side", [8_100, 10_000, 20_000])
def test_bombs_are_refused_undecoded_and_without_a_warning(tmp_path: Path, side: int) -> None:
    # PIL itself stays silent at the first size, warns at the second and raises at the third.
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)  # a small file that claims to be a vast picture
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b"")]
    content = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    with pytest.raises(InputError, match="over the limit of 64 million pixels"):
        ImageFile(tmp_path / "a.png").open()
