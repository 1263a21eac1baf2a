"""Streams of RTP: how they are opened, and that packets of them never came.

FFmpeg misses packets by their numbers, joins what is left as if it were whole, and says so in its log alone.
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from cmlr_edge.capture.ffmpeg import open_container
from cmlr_edge.capture.pump import PAUSE_S

_OPTIONS = {
    "allowed_media_types": "video",
    "fflags": "noparse",  # see `Pump`
}
# A server that is too fast for a network leaves out packets over TCP, too. FFmpeg looks at their numbers where
# it may wait for one.
_TCP = {"rtsp_transport": "tcp", "reorder_queue_size": "2"}
_OVERTAKEN_S = 0.1  # that FFmpeg waits for a packet behind which others came
_UDP = {"rtsp_transport": "udp+udp_multicast", "max_delay": f"{_OVERTAKEN_S * 1e6:.0f}"}
_PAUSE_UDP_S = 1.5 * _OVERTAKEN_S


def open_rtsp(
    av: ModuleType, url: str, options: Mapping[str, str], timeouts_s: tuple[float, float]
) -> tuple[Any, Any, float]:
    """Open a stream over TCP, or else over UDP; see `open_container`. The last is a pause for `Pump`."""
    try:
        return *_look(av, url, {**options, **_OPTIONS, **_TCP}, timeouts_s), PAUSE_S
    except av.FFmpegError as error:
        if error.errno != errno.EPROTONOSUPPORT:
            raise
    return *_look(av, url, {**options, **_OPTIONS, **_UDP}, timeouts_s), _PAUSE_UDP_S


def _look(
    av: ModuleType, url: str, options: Mapping[str, str], timeouts_s: tuple[float, float]
) -> tuple[Any, Any]:
    try:
        return open_container(av, url, options, timeouts_s)
    except av.InvalidDataError:
        # Of a camera that did not tell a decoder's settings FFmpeg seeks them in what comes first, and gives up
        # at the second piece of a picture. So it is to look at the first alone.
        return open_container(av, url, {**options, "probesize": "32"}, timeouts_s)


def told_losses(av: ModuleType) -> tuple[Callable[[], int], Callable[[], int]]:
    """Look at FFmpeg's log from now on, for losses that it tells nowhere else.

    Nothing is counted where a program has PyAV's log on for itself, where a source tree was not built, or where PyAV
    hides FFmpeg's functions.

    Args:
        av: PyAV.

    Returns:
        What counts, for the calling thread, the packets of RTP that it missed, and the pictures that it decoded of
        HEVC which build upon one that never came.
    """
    try:
        from cmlr_edge._native import READ_LOSS_LOG, lost_references, lost_rtp_packets

        set_callback = ctypes.CDLL(av.logging.__file__).av_log_set_callback
    except (ImportError, OSError, AttributeError):
        return int, int
    if av.logging.get_level() is None:  # else FFmpeg's log is somebody's
        set_callback(ctypes.c_void_p(READ_LOSS_LOG))
    return lost_rtp_packets, lost_references
