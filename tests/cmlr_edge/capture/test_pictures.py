"""A picture gives the same pixels by path and as a PIL image, whatever its format, mode, name and neighbours."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as PilImage

from cmlr_edge import open_source
from cmlr_edge.capture.images import IMAGE_SUFFIXES, read_image
from cmlr_edge.errors import CaptureError, FrameError
from cmlr_edge.frame import as_color_image
from cmlr_edge.redaction import one_line, printable
from tests.conftest import solid, write_video

LATIN_1 = os.fsdecode(b"gr\xfcn")
QUARTERS = np.kron(np.array([[10, 90], [170, 250]], np.uint8), np.ones((24, 32), np.uint8))
COLORS = np.dstack([QUARTERS, 255 - QUARTERS, QUARTERS[::-1]])  # (48, 64, 3), RGB


def by_path_and_as_image(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Both in RGB."""
    with PilImage.open(path) as image:
        pixels, color = as_color_image(image, "bgr")
    assert color == "rgb"
    return read_image(path)[..., ::-1], pixels


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".jfif", ".jpe", ".png", ".webp", ".tif", ".avif"])
def test_every_orientation_is_shown_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    turned: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.transpose(1, 0, 2),
        6: lambda x: np.rot90(x, -1),
        7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
        8: lambda x: np.rot90(x, 1),
    }
    exif = PilImage.Exif()
    exif[0x0112] = orientation
    kind = "JPEG" if suffix in {".jfif", ".jpe"} else None
    options = {"lossless": True} if suffix == ".webp" else {}
    path = tmp_path / f"x{suffix}"
    PilImage.fromarray(COLORS).save(path, format=kind, exif=exif, **options)
    by_path, as_image = by_path_and_as_image(path)
    np.testing.assert_array_equal(by_path, as_image)
    expected = turned[orientation](COLORS)
    assert by_path.shape == expected.shape
    difference = np.abs(by_path.astype(int) - expected)
    assert np.median(difference) <= 2  # JPEG and AVIF lose a little, at edges more


def deep(values: np.ndarray) -> np.ndarray:
    return values.astype(np.uint16) * 257


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_depth_and_alpha_change_no_color(
    tmp_path: Path, suffix: str, depth: int, channels: int
) -> None:
    alpha = np.full((48, 64, 1), 100, np.uint8)
    image = {1: QUARTERS, 3: COLORS, 4: np.concatenate([COLORS, alpha], 2)}[channels]
    path = tmp_path / f"x{suffix}"
    if (depth, channels) == (8, 4):
        PilImage.fromarray(image, "RGBA").save(path)  # OpenCV multiplies a TIFF by its alpha
    else:
        order = image if channels == 1 else image[..., [2, 1, 0, 3][:channels]]
        cv2.imwrite(str(path), order if depth == 8 else deep(order))
    by_path, as_image = by_path_and_as_image(path)
    np.testing.assert_array_equal(by_path, as_image)
    expected = np.repeat(QUARTERS[..., None], 3, axis=2) if channels == 1 else COLORS
    np.testing.assert_array_equal(by_path, expected)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV", "I;16", "I"]
)
def test_a_pil_image_of_every_mode_is_taken(mode: str) -> None:
    base = PilImage.fromarray(COLORS)
    if mode in {"I;16", "I"}:
        image = PilImage.fromarray(deep(QUARTERS))
        image = image if mode == "I;16" else image.convert("I")
    else:
        image = base.convert("RGBA").convert(mode) if mode == "RGBa" else base.convert(mode)
    pixels, _ = as_color_image(image, "bgr")
    assert pixels.shape == (48, 64, 3)
    assert 60 < pixels.mean() < 190


@pytest.mark.parametrize(
    "image",
    [
        PilImage.new("F", (4, 4)),
        PilImage.fromarray(np.full((4, 4), 70_000, np.int32)),
    ],
)
def test_a_pil_image_without_colors_is_one_error(image: PilImage.Image) -> None:
    with pytest.raises(FrameError, match="mode"):
        as_color_image(image, "bgr")


@pytest.mark.parametrize("most", [1, 255])
def test_a_tiff_of_8_bits_in_the_room_of_32_is_not_read_as_black(tmp_path: Path, most: int) -> None:
    values = np.linspace(0, most, 48 * 64).reshape(48, 64).astype(np.int32)
    PilImage.fromarray(values).save(tmp_path / "x.tif")
    with pytest.raises(CaptureError, match="below 256"):
        read_image(tmp_path / "x.tif")
    with pytest.raises(FrameError, match="mode L"):
        as_color_image(PilImage.fromarray(values), "bgr")
    assert as_color_image(PilImage.fromarray(values * 257 // most), "bgr")[0].max() == 1


def test_a_closed_or_damaged_pil_image_is_our_error(tmp_path: Path) -> None:
    PilImage.fromarray(COLORS).save(tmp_path / "x.png")
    whole = (tmp_path / "x.png").read_bytes()
    with PilImage.open(tmp_path / "x.png") as closed:
        pass
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    with PilImage.open(tmp_path / "half.png") as half:
        for image in (closed, half):
            with pytest.raises(FrameError, match="cannot be decoded"):
                as_color_image(image, "bgr")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".bmp", ".avif", ".ppm"])
def test_half_a_picture_is_no_picture(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    PilImage.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CaptureError, match="not a picture that can be read") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),  # as some phones begin
        (b"GIF89a", "GIF"),
        (b"\xff\x0a\xfa\x1f", "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"%PDF-1.7", "PDF"),
    ],
)
@pytest.mark.parametrize("suffix", [".jpg", ".HEIC"])  # phones and people rename
def test_a_picture_of_a_format_that_is_not_read_is_named_with_what_to_do(
    tmp_path: Path, start: bytes, name: str, suffix: str
) -> None:
    path = tmp_path / f"photo{suffix}"
    path.write_bytes(start + bytes(2000))
    how = ", with .*heif-convert" if name == "HEIC" else ""
    with pytest.raises(CaptureError, match=rf"it is {name}\b.*not read: convert it to JPEG{how}"):
        read_image(path)


@pytest.mark.parametrize("suffix", [".heic", ".HEIF", ".hif"])
def test_a_phones_picture_is_no_film(tmp_path: Path, suffix: str) -> None:
    film = write_video(tmp_path / "film.avi", [solid(255, 0, 0)])
    path = film.rename(tmp_path / f"photo{suffix}")  # FFmpeg would play it
    with pytest.raises(CaptureError, match="is not a picture that can be read"):
        [*open_source(path)]


def test_an_avif_that_is_damaged_is_not_called_heic(tmp_path: Path) -> None:
    (tmp_path / "photo.avif").write_bytes(b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf" + bytes(99))
    with pytest.raises(CaptureError, match=r"no picture of a known format|cannot be decoded"):
        read_image(tmp_path / "photo.avif")


def test_a_picture_of_too_many_pixels_is_refused_by_its_header(tmp_path: Path) -> None:
    PilImage.new("1", (30_000, 30_000)).save(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < 500_000
    with pytest.raises(CaptureError, match=r"30000 x 30000|too many"):
        read_image(tmp_path / "bomb.png")


def run(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "cmlr_edge", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=120)


def odd_folder(folder: Path) -> Path:
    """Two pictures among everything that a folder may hold."""
    folder.mkdir()
    cv2.imwrite(str(folder / "a.jpg"), solid(250, 0, 0))
    (folder / "a.jpg").rename(folder / f"{LATIN_1}.jpg")
    cv2.imwrite(str(folder / "b.jpg"), solid(0, 250, 0))
    (folder / "b.jpg").rename(folder / "b.JFIF")
    (folder / "._b.jpg").write_bytes(b"\0\5\26\7")
    (folder / "notes.txt").touch()
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "sub.jpg").mkdir()
    (folder / "loop").symlink_to(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("output", ["--out", "--csv", "--contact-sheet", "--overlay"])
def test_an_odd_folder_is_labelled_and_says_what_it_leaves_out(
    engine: Path, tmp_path: Path, output: str
) -> None:
    folder = odd_folder(tmp_path / "f")
    suffix = {"--out": "jsonl", "--csv": "csv", "--contact-sheet": "png", "--overlay": "mp4"}[
        output
    ]
    out = tmp_path / f"{LATIN_1}.{suffix}"
    done = run("label", folder, "--engine", engine, output, out, folder=tmp_path)
    errors = done.stderr.decode()
    assert (done.returncode, "Traceback" in errors) == (0, False), errors
    [line] = [line for line in errors.splitlines() if "left out" in line]
    assert "2 pictures" in line
    remedy = f"for pictures in its folders give '{folder}/**/*', quoted"
    for reason in (
        "1 hidden",
        "1 .txt",
        "1 links to nothing",
        "1 pipes or devices",
        "2 folder",
        remedy,
    ):
        assert reason in line
    assert out.exists()
    if output == "--out":
        names = [json.loads(text)["file"] for text in out.read_text().splitlines()]
        assert [Path(name).name for name in names] == ["b.JFIF", "gr\\xfcn.jpg"]


def test_a_link_that_leads_back_shows_no_picture_twice(tmp_path: Path) -> None:
    odd_folder(tmp_path / "f")
    with open_source(f"{tmp_path}/f/**/*.[jJ]*") as frames:
        assert len(list(frames)) == 2


@pytest.mark.slow
def test_a_film_whose_name_is_no_utf_8_is_labelled(engine: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "x.mp4", [solid(250, 0, 0)] * 10)
    (tmp_path / "x.mp4").rename(tmp_path / f"{LATIN_1}.mp4")
    done = run("label", f"{LATIN_1}.mp4", "--engine", engine, folder=tmp_path)
    assert (done.returncode, b"gr\\xfcn.mp4" in done.stdout) == (0, True), done.stderr


@pytest.mark.slow
def test_one_bad_picture_of_several_is_left_out_and_told(engine: Path, tmp_path: Path) -> None:
    for name in "abc":
        cv2.imwrite(str(tmp_path / f"{name}.png"), solid(250, 0, 0))
    (tmp_path / "b.png").write_bytes(b"no picture")
    done = run("label", "*.png", "--engine", engine, "--out", "o.jsonl", "--json", folder=tmp_path)
    assert done.returncode == 1, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [(line["frame"], line["file"]) for line in lines] == [(0, "a.png"), (2, "c.png")]
    assert b"b.png" in done.stderr
    for name in "ac":
        (tmp_path / f"{name}.png").write_bytes(b"no picture")
    done = run("label", "*.png", "--engine", engine, folder=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pipe.jpg", "pipe.mp4"])
def test_a_pipe_given_by_name_is_refused_and_not_waited_for(
    engine: Path, tmp_path: Path, name: str
) -> None:
    os.mkfifo(tmp_path / name)
    done = run("label", name, "--engine", engine, folder=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    for path in (tmp_path / name, Path("/dev/null")):
        with pytest.raises(CaptureError, match="no regular file"):
            read_image(path)


@pytest.mark.slow
def test_a_read_that_hangs_does_not_keep_a_signal_from_ending_the_run(
    engine: Path, tmp_path: Path
) -> None:
    code = (
        "import time\n"
        "from pathlib import Path\n"
        "from cmlr_edge.capture import images\n"
        "def hang(path):\n"
        "    Path('reading').touch()\n"
        "    time.sleep(600)\n"
        "images.read_image = hang\n"
        "from cmlr_edge.cli import main\n"
        "main()\n"
    )
    cv2.imwrite(str(tmp_path / "a.png"), solid(250, 0, 0))
    command = [sys.executable, "-c", code, "label", "a.png", "--engine", str(engine)]
    with subprocess.Popen([*command, "--drain-s", "1"], cwd=tmp_path) as process:
        deadline_s = time.monotonic() + 60
        while not (tmp_path / "reading").exists():
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        asked_s = time.monotonic()
        assert process.wait(timeout=60) == 143
    assert time.monotonic() - asked_s < 5


def test_nothing_that_a_terminal_obeys_is_printed() -> None:
    assert printable("a\x1b[31mb\nc\u202ed" + LATIN_1) == "a\\x1b[31mb\\x0ac\\u202edgr\\xfcn"
    assert one_line("first\n  second\x1b]0;title\x07") == "first second\\x1b]0;title\\x07"
    assert printable("Straße 東京 café") == "Straße 東京 café"


def test_every_suffix_is_one_that_can_be_read() -> None:
    extensions = PilImage.registered_extensions()
    assert all(suffix in extensions for suffix in IMAGE_SUFFIXES)


@pytest.mark.parametrize("suffix", [".webp", ".png", ".tif"])
def test_of_several_pictures_in_a_file_the_first_is_read_and_it_is_said(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, *others = (PilImage.new("RGB", (32, 24), (level, 0, 0)) for level in (250, 120, 0))
    first.save(tmp_path / f"one{suffix}")
    first.save(tmp_path / f"many{suffix}", save_all=True, append_images=others)
    assert read_image(tmp_path / f"one{suffix}")[..., 2].min() > 200
    assert caplog.text == ""
    assert read_image(tmp_path / f"many{suffix}")[..., 2].min() > 200
    assert "holds several pictures: the first one is read" in caplog.text


def test_links_that_lead_back_end_no_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    for name in ("a/x.png", "a/b/y.png"):
        PilImage.new("RGB", (8, 8)).save(tmp_path / name)
    found = {}
    monkeypatch.chdir(tmp_path)
    patterns = ("**/*.png", "a/**", "./a/**/*", f"{tmp_path}/**/b/*", "**/a/**/*.png")
    for links in (0, 3):  # three: for each level 3 ways on
        for number in range(links):
            (tmp_path / f"a/to{number}").symlink_to(tmp_path)
        for pattern in patterns:
            found[links, pattern] = [str(file) for file in open_source(pattern).files]
    assert [found[3, pattern] for pattern in patterns] == [
        found[0, pattern] for pattern in patterns
    ]
    assert found[3, "**/*.png"] == ["a/b/y.png", "a/x.png"]


def test_a_link_that_may_not_be_followed_is_left_out_and_not_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.png", "locked.png"):
        PilImage.new("RGB", (8, 8)).save(tmp_path / name)
    stat = Path.stat

    def refuse(path: Path, **options: bool) -> os.stat_result:
        if path.name == "locked.png":  # whoever runs the tests may enter everything
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", refuse)
    assert [Path(file).name for file in open_source(tmp_path).files] == ["a.png"]
    assert "left out: 1 out of reach: Permission denied" in caplog.text
