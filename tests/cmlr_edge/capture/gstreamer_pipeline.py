"""Reads GStreamer pipelines with the system's OpenCV, which has GStreamer, and prints what came."""

from __future__ import annotations

import json
import sys

from cmlr_edge import open_source
from cmlr_edge.capture.live import LiveSettings, LiveSource
from cmlr_edge.errors import CaptureError

_QUICK = LiveSettings(first_frame_timeout_s=1.0, backoff_first_s=0.1)


def main() -> None:
    reports = []
    for pipeline in sys.argv[1:]:
        shapes, error, reconnects = [], "", 0
        try:
            with open_source(pipeline, live=_QUICK) as source:
                assert isinstance(source, LiveSource)
                for frame in source:
                    shapes.append([*frame.image_bgr.shape, *frame.image_bgr[5, 5].tolist()])
                    reconnects = source.stats.reconnects
                    if len(shapes) >= 10:
                        break
        except CaptureError as failure:
            error = str(failure)
        reports.append({"shapes": shapes, "error": error, "reconnects": reconnects})
    print(json.dumps(reports))


if __name__ == "__main__":
    main()
