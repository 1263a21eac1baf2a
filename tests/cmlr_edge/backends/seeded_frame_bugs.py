"""Mistakes to put into the way of frames to the GPU, each of which must be noticed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bug:
    """`file` of cmlr_edge/backends with `right`, found once, replaced by `wrong`."""

    file: str
    right: str
    wrong: str


FRAMES, ENGINE = "cuda_frames", "tensorrt"
_UPLOAD = "self._array.upload(pixels.size, self._stream, first=place)"

BUGS = {
    "a part has rows as far apart as if it were whole": Bug(
        FRAMES, "held.place + begin - held.begin, row", "held.place + begin - held.begin, 3 * pixels.shape[1]"
    ),
    "a whole one has the host's rows": Bug(
        FRAMES, "return place, 3 * pixels.shape[1]", "return place, abs(row)"
    ),
    "every image is taken for RGB": Bug(FRAMES, "format=image.order", 'format="rgb"'),
    "every image is taken for BGR": Bug(FRAMES, "format=image.order", 'format="bgr"'),
    "the stage is written again while it is read": Bug(
        FRAMES, "self._stream.synchronize()  # what", "# what"
    ),
    "what was there before is taken for what is there": Bug(
        FRAMES, "self._used, self._held = 0, []", "self._used = 0"
    ),
    "a batch begins with the images of the one before": Bug(ENGINE, "self._stage.begin()", "pass"),
    "the kernel runs on the default stream": Bug(
        FRAMES, "stream=self._stream.handle", "stream=0"
    ),
    "the kernel runs on a stream of its own": Bug(
        FRAMES, "stream=self._stream.handle", "stream=Stream().handle"
    ),
    "the upload runs on a stream of its own": Bug(
        FRAMES, _UPLOAD, _UPLOAD.replace("self._stream", "Stream()")
    ),
    "the last byte is not uploaded": Bug(
        FRAMES, _UPLOAD, _UPLOAD.replace("pixels.size", "pixels.size - 1")
    ),
    "every image is uploaded to where the first is": Bug(
        FRAMES, _UPLOAD, _UPLOAD.replace(", first=place", "")
    ),
    "the next image begins on the last bytes of the one before": Bug(
        FRAMES, "-(-size // _ALIGNED) * _ALIGNED", "size // _ALIGNED * _ALIGNED"
    ),
    "an image behind another in memory is taken for a part of it": Bug(
        FRAMES, "held.begin <= begin and end <= held.end", "held.begin <= begin"
    ),
    "an image is a part whatever its channels' order in memory": Bug(
        FRAMES, " and pixels.strides[1:] == (3, 1)", ""
    ),
    "an image that is not packed is taken for a whole": Bug(
        FRAMES, "if pixels.flags.c_contiguous:", "if True:"
    ),
    "every image becomes the first of the batch": Bug(
        ENGINE, "self._frames.address_of(row)", "self._frames.address_of(0)"
    ),
    "a ready one is uploaded over the first": Bug(
        ENGINE, "self._frames.upload(1, self._stream, first=row)", "self._frames.upload(1, self._stream)"
    ),
    "what fills a batch up is uploaded over it": Bug(
        ENGINE, "len(frames), self._stream, first=len(frames))", "len(frames), self._stream)"
    ),
    "a graph uploads what the CPU has, over what the GPU made": Bug(
        ENGINE,
        "        if not self._context.execute_async_v3",
        "        self._frames.upload(rows, self._stream)\n        if not self._context.execute_async_v3",
    ),
}  # fmt: skip
