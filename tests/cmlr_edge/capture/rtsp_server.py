"""A network camera on loopback: GStreamer's RTSP server, run by the system's Python.

    /usr/bin/python3 rtsp_server.py PORT WIDTHxHEIGHT STARTED_AT [FPS [CODEC]]
    /usr/bin/python3 rtsp_server.py PORT FILM.avi

Every picture is red and holds, in its upper left corner, the number of 1/FPS s since STARTED_AT (seconds
since the epoch), as `cmlr_edge.capture.pattern.read_number` reads it: a picture tells its own age.
SIGUSR1 doubles the size. A film (Motion JPEG) is played from its beginning, and its length is announced. "ready" on stdout once it listens.
"""

from __future__ import annotations

import signal
import sys
import time
from importlib import import_module
from typing import Any

FPS = 20
CODECS = {"jpeg": "jpegenc ! rtpjpegpay", "h264": "openh264enc gop-size=25 ! rtph264pay"}
BITS, BLOCK = 16, 8


def draw(number: int, width: int, height: int) -> bytes:
    """BGR bytes of one picture."""
    bits = b"".join((b"\xff" if number >> bit & 1 else b"\0") * 3 * BLOCK for bit in range(BITS))
    red = b"\0\0\xff"
    top = bits + red * (width - BITS * BLOCK)
    return top * BLOCK + red * (width * (height - BLOCK))


def main() -> None:
    gi = import_module("gi")  # of the system
    for name in ("Gst", "GstRtspServer"):
        gi.require_version(name, "1.0")
    GLib, Gst, GstRtspServer = (
        import_module(f"gi.repository.{name}") for name in ("GLib", "Gst", "GstRtspServer")
    )
    port, size = sys.argv[1:3]
    started_at = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
    fps = int(sys.argv[4]) if len(sys.argv) > 4 else FPS
    codec = CODECS[sys.argv[5] if len(sys.argv) > 5 else "jpeg"]
    scale = [1]
    Gst.init(None)

    def feed(source: Any, _length: int) -> None:
        number = int((time.time() - started_at) * fps) + 1
        time.sleep(max(0.0, started_at + number / fps - time.time()))
        width, height = (int(side) * scale[0] for side in size.split("x"))
        caps = f"video/x-raw,format=BGR,width={width},height={height},framerate={fps}/1"
        source.set_property("caps", Gst.Caps.from_string(caps))
        picture = Gst.Buffer.new_wrapped(draw(number, width, height))
        source.emit("push-buffer", picture)

    def double() -> bool:
        scale[0] = 2
        return True

    def configure(_factory: object, media: Any) -> None:
        element = media.get_element().get_by_name("source")
        element.connect("need-data", feed)

    factory = GstRtspServer.RTSPMediaFactory()
    if size.endswith(".avi"):
        factory.set_launch(f"( filesrc location={size} ! avidemux ! rtpjpegpay name=pay0 )")
    else:
        factory.set_launch(
            "( appsrc name=source is-live=true do-timestamp=true format=time max-bytes=1 "
            f"! videoconvert ! video/x-raw,format=I420 ! {codec} name=pay0 )"
        )
        factory.connect("media-configure", configure)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    server.get_mount_points().add_factory("/camera", factory)
    server.attach(None)
    GLib.unix_signal_add(0, signal.SIGUSR1, double)
    print("ready", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
