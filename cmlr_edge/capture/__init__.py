"""Where frames come from: `open_source` turns one argument into a source.

A source of one's own is an entry point in the group `cmlr_edge.sources`, named like the scheme of its URIs
(`mine` for mine://...): a function that takes the URI and returns a `Source`.
"""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cmlr_edge.capture.base import Policy, Source
from cmlr_edge.capture.images import IMAGE_SUFFIXES
from cmlr_edge.errors import CaptureError
from cmlr_edge.machine.addresses import HOW_TO_WRITE_PASSWORDS, is_host
from cmlr_edge.machine.entry_points import call_theirs, entry_points
from cmlr_edge.machine.pyav import pyav
from cmlr_edge.redaction import printable, redact_source

if TYPE_CHECKING:
    from cmlr_edge.capture.live import LiveSettings, LiveSource
    from cmlr_edge.capture.readers import OpenReader, Reader

__all__ = ["Policy", "Source", "beside", "has_packets", "is_live", "is_of_files", "open_source"]

_log = logging.getLogger(__name__)
_ENTRY_POINTS = "cmlr_edge.sources"
_MAX_CAMERA = 255  # Linux numbers its video devices up to here
_FORMS = (
    "a video file, a picture, a folder of pictures, a quoted glob, a camera (0, /dev/video0, csi://0), "
    "a stream (rtsp://, http://), a GStreamer pipeline (... ! appsink), or test://"
)
_PIPELINE = re.compile(r"\s!\s.*\bappsink\b", re.DOTALL)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HOST = re.compile(r"(\[[^\[\]\s]+\]|[^\[\]:\s]+)(?::(\d{1,5}))?", re.ASCII)
_NETWORK = ("rtsp", "rtsps", "http", "https")
_LIVE_SCHEMES = (*_NETWORK, "v4l2", "csi", "test")


def is_live(source: str | Path | int) -> bool:
    """Tell a camera or stream from files."""
    text = str(source)
    if _PIPELINE.search(text):
        return True
    scheme = _SCHEME.match(text)
    if scheme:
        return scheme[1].lower() in _LIVE_SCHEMES
    return text.isdecimal() or text.startswith("/dev/video")


def is_of_files(source: str) -> bool:
    """Tell files from cameras, streams and what packages bring."""
    return bool(source) and not is_live(source) and _SCHEME.match(source) is None


def has_packets(source: str | Path | int) -> bool:
    """Whether PyAV reads a source, so that its packets can be kept: a stream of the network, or a film."""
    scheme = _SCHEME.match(text := str(source))
    is_picture = text.lower().endswith(IMAGE_SUFFIXES)  # also where it moves
    if pyav() is None or _PIPELINE.search(text) or (scheme is None and is_picture):
        return False
    return scheme[1].lower() in _NETWORK if scheme else not is_live(source)


def beside(file: Path, source: str) -> str:
    """What a source that a file names means: files start from its folder; all else is as it is."""
    if not is_of_files(source) or Path(source).is_absolute():
        return source
    folder = file.absolute().parent
    if glob.has_magic(source) and not (folder / source).exists():
        return str(Path(glob.escape(str(folder))) / source)
    return str(folder / source)


def open_source(
    source: str | Path | int,
    *,
    policy: Policy | None = None,
    live: LiveSettings | None = None,
    loop: bool = False,
    keep_packets_s: float | None = None,
) -> Source:
    """Open a source of frames.

    Files give every frame, in order. Cameras and streams are read by a thread of their own, give the
    newest frame, and are opened again when they are lost or not there yet, for ever unless `live` says
    otherwise; opening them does not wait for them.

    Args:
        source: A video file, a picture, a folder of pictures, a glob pattern for pictures; a local
            camera (0, "/dev/video0", "v4l2:///dev/video0") or a Jetson's ("csi://0"); a stream
            ("rtsp://...", "http://..." with MJPEG); a GStreamer pipeline that ends in
            "video/x-raw,format=BGR ! appsink", where OpenCV has GStreamer; or "test://", see
            `cmlr_edge.capture.pattern`.
        policy: Overrides the above: "every" for a live source makes the reader wait, "newest" for a
            video file plays it at its own pace and drops what is not taken in time.
        live: Timeouts and limits of a live source.
        loop: A video file under the policy "newest" starts again at its end.
        keep_packets_s: Seconds of packets that frames bring along (`Frame.ring`), where PyAV reads
            the source: a stream of the network, or a video file. None for none.

    Raises:
        CaptureError: There is no such thing, it holds no pictures, or this OpenCV cannot read it.
    """
    if policy not in {None, "every", "newest"}:
        raise CaptureError(f'policy is {policy!r}: expected "every" or "newest"')
    text = str(source)
    if isinstance(source, int) or is_live(source):
        return _open_live(text, policy or "newest", live, keep_packets_s)
    if not text:
        raise CaptureError(f"the source is empty: give {_FORMS}")
    if scheme := _SCHEME.match(text):
        return _open_theirs(text, scheme[1])
    return _open_files(text, policy, live, loop=loop, keep_s=keep_packets_s)


def require_there(source: str) -> None:
    """Fail where a source is a file or folder that is missing.

    Raises:
        CaptureError: It is.
    """
    if not is_of_files(source) or glob.has_magic(source):
        return
    try:
        Path(source).stat()
    except (FileNotFoundError, NotADirectoryError):
        raise CaptureError(
            f"there is no {printable(redact_source(source))}: give {_FORMS}"
        ) from None
    except (OSError, ValueError):  # of which `open_source` says more
        return


def _open_theirs(text: str, scheme: str) -> Source:
    """Open a source that an installed package brings."""
    from cmlr_edge.capture.theirs import TheirSource

    point = entry_points(_ENTRY_POINTS).get(scheme)
    if point is None:
        raise CaptureError(f"cannot open {scheme}:// sources: give {_FORMS}")
    return call_theirs(point, text, redact_source(text), TheirSource, CaptureError)


def _open_live(
    text: str, policy: Policy, live: LiveSettings | None, keep_s: float | None
) -> LiveSource:
    from cmlr_edge.capture.live import LiveSettings, LiveSource
    from cmlr_edge.capture.pattern import PatternCamera
    from cmlr_edge.capture.readers import OpenCvReader, csi_pipeline, require_backend

    live = live or LiveSettings()
    found = _SCHEME.match(text)
    scheme = found[1].lower() if found else ""
    open_reader: OpenReader
    if _PIPELINE.search(text):
        require_backend("GSTREAMER", redact_source(text))
        open_reader = partial(OpenCvReader, text, "GSTREAMER")
    elif scheme == "test":
        open_reader = PatternCamera(text).open
    elif scheme == "csi":
        pipeline = csi_pipeline(text)
        require_backend("GSTREAMER", redact_source(text))
        open_reader = partial(OpenCvReader, pipeline, "GSTREAMER")
    elif scheme in {"", "v4l2"}:
        device = _camera_device(text)
        require_backend("V4L2", text)
        open_reader = partial(_open_camera, device)
        text = f"camera {device}"
    else:
        _check_address(text)
        open_reader = _stream_reader(text, live, newest=policy != "every", keep_s=keep_s)
    return LiveSource(text, open_reader, live, policy=policy)


def _check_address(url: str) -> None:
    """Refuse what can never be an address: it would be tried for ever."""
    authority = re.split(r"[/?#]", url.partition("://")[2], maxsplit=1)[0]
    found = _HOST.fullmatch(authority.rpartition("@")[2])
    if found is None or not is_host(found[1]) or int(found[2] or 1) not in range(1, 2**16):
        raise CaptureError(
            f"cannot read {redact_source(url)}: expected rtsp://user:password@host:554/path, or likewise "
            f"http://; {HOW_TO_WRITE_PASSWORDS}"
        )


def _stream_reader(
    url: str, live: LiveSettings, *, newest: bool, keep_s: float | None
) -> OpenReader:
    """What reads a stream of the network: PyAV where it is installed, else OpenCV."""
    if (av := pyav()) is not None:
        from cmlr_edge.capture.network import NetworkReader

        return partial(
            NetworkReader,
            av,
            url,
            open_timeout_s=live.open_timeout_s,
            read_timeout_s=live.hang_timeout_s,
            newest=newest,
            keep_s=keep_s,
        )
    from cmlr_edge.capture.readers import OpenCvReader, require_backend

    require_backend("FFMPEG", redact_source(url))
    return partial(OpenCvReader, url, "FFMPEG", live.hang_timeout_s)


def _camera_device(text: str) -> str:
    device = text.removeprefix("v4l2://")
    number = device.removeprefix("/dev/video")
    # OpenCV ends the process on an index that does not fit its own arithmetic.
    if not re.fullmatch(r"\d{1,3}", number, re.ASCII) or int(number) > _MAX_CAMERA:
        raise CaptureError(
            f"camera {redact_source(device[:200])}: expected an index from 0 to {_MAX_CAMERA}, or "
            "/dev/video with such an index"
        )
    return f"/dev/video{int(number)}"


def _open_camera(device: str) -> Reader:
    from cmlr_edge.capture.readers import OpenCvReader

    if not Path(device).exists():  # it may be plugged in later
        raise CaptureError(
            "there is no such device; check that it is plugged in (`ls /dev/video*`)"
        )
    return OpenCvReader(device, "V4L2")


def _open_files(
    text: str, policy: Policy | None, live: LiveSettings | None, *, loop: bool, keep_s: float | None
) -> Source:
    from cmlr_edge.capture.animation import is_animation
    from cmlr_edge.capture.images import NO_FILMS, ImageFiles, list_folder
    from cmlr_edge.capture.live import LiveSource
    from cmlr_edge.capture.readers import PacedFile
    from cmlr_edge.capture.video import VideoFile

    path = Path(text)
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
        below = f"; for pictures in its folders give {printable(path / '**/*')!r}, quoted"
        pictures = list_folder(path, below) if is_folder else []
    except CaptureError:
        raise
    except OSError as error:  # a name too long, a folder that may not be read
        raise CaptureError(
            f"cannot open {printable(redact_source(text[:200]))}: {error.strerror}"
        ) from error
    is_picture = path.suffix.lower() in (*IMAGE_SUFFIXES, *NO_FILMS)
    if is_file and (not is_picture or is_animation(path)):
        if policy == "newest":
            VideoFile(path).close()  # fails here and now, if it does
            return LiveSource(text, partial(PacedFile, path, loop=loop, keep_s=keep_s), live)
        return VideoFile(path, keep_s=keep_s)
    if is_file:
        pictures = [path]
    elif not is_folder:
        if path.exists():
            raise CaptureError(f"{printable(text)} is a pipe or a device: give {_FORMS}")
        require_there(text)
        pictures = _match_pattern(text)
    if policy == "newest":
        raise CaptureError(
            f"{printable(text)}: pictures have no time, so none is the newest: give a video, or another policy"
        )
    return ImageFiles(text, pictures)


def _match_pattern(pattern: str) -> list[Path]:
    from cmlr_edge.capture.images import choose_pictures

    # A link back into a folder shows the same files again and again.
    files = {
        os.path.realpath(match): Path(match) for match in sorted(_matches(pattern), reverse=True)
    }
    return choose_pictures(sorted(files.values()), printable(pattern))


def _matches(pattern: str) -> Iterator[str]:
    """As `glob.glob` with `**`, but into each folder once: two links that lead back would never end."""
    head, several, rest = pattern.partition("**")
    if not several or head[-1:] not in {"", "/"} or rest[:1] not in {"", "/"}:
        yield from glob.glob(pattern, recursive=True)
        return
    seen = set[str]()

    def is_new(folder: str) -> bool:
        before = len(seen)
        seen.add(os.path.realpath(folder))
        return len(seen) > before

    for top in filter(is_new, glob.glob(head) if head else ["."]):
        for folder, names, _ in os.walk(top, onerror=_say_unread, followlinks=True):
            below = (name for name in sorted(names) if not name.startswith("."))
            names[:] = [name for name in below if is_new(f"{folder}/{name}")]
            shown = folder if head else folder[2:]  # without the "./" that nobody gave
            inside = shown.rstrip("/") + "/" if shown else ""
            yield from _matches(glob.escape(inside) + (rest.lstrip("/") or "*"))


def _say_unread(error: OSError) -> None:
    _log.warning("%s is left out: %s", printable(str(error.filename)), error.strerror)
