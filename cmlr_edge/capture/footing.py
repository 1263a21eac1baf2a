"""Whether a picture builds upon ones that are whole: decoders also give those that build upon nothing."""

from __future__ import annotations

from typing import Any

# Their decoders give nothing before a picture to begin with, which need not be a key picture.
_BEGIN_WELL = frozenset({"h264", "hevc", "vvc", "mpeg1video", "mpeg2video"})
_LEANING_I = "ffv1"  # calls all its pictures I, though most lean on others
_KNOWN = 256  # packets: more than decoders hold back
# Pictures: streams without key pictures renew every block now and then (MPEG-4 and H.263 within 132 codings), and a
# camera must not stay blind because of one packet.
_RENEWED = 300
_HAS_FRAME_THREADS = 1 << 12  # AV_CODEC_CAP_FRAME_THREADS
_FRAME_THREADS = 1  # FF_THREAD_FRAME
_UNKNOWN, _I = 0, 1  # AVPictureType


class Footing:
    """Follows one stream: after its beginning, or a loss, pictures count from a key picture on.

    Packets are numbered in the order in which they are decoded, which is that in which pictures lean on
    each other; shown they are in another one.
    """

    def __init__(self, context: Any) -> None:
        """Stand before the first packet.

        Args:
            context: PyAV's decoder.
        """
        self._context, self._codec = context, str(context.name)
        self._num_taken = 0
        self._numbers: dict[int | None, int] = {}  # by the time of a packet
        self._awaited: dict[int, int] = {}  # likewise, of those that gave no picture yet
        self._shown: int | None = None  # time of the last picture
        self._is_interlaced = False  # likewise
        self._keys: set[int] = set()  # numbers of packets that call themselves keys
        self._partial: set[int] = set()  # of those that lack something
        self._leaves: set[int] = set()  # of those upon which nothing builds
        self._base = 0 if self._codec in _BEGIN_WELL else None  # of the last good key picture
        self._lost: list[int] = []  # numbers, from the base on
        self._refreshing: int | None = None  # where the newest refresh in parts began

    def take(self, packet: Any, *, is_partial: bool = False, is_leaned_on: bool = True) -> None:
        """Note a packet before it is decoded.

        Args:
            packet: All of a picture.
            is_partial: Whether a part of it is missing.
            is_leaned_on: Whether others may build upon it.
        """
        shown = packet.dts if packet.pts is None else packet.pts
        if shown is not None:
            self._numbers[shown] = self._num_taken
            if packet.size and not packet.is_discard:  # an edit list leaves some out
                self._awaited[shown] = self._num_taken
        if len(self._awaited) > _KNOWN:
            del self._awaited[next(iter(self._awaited))]
        if packet.is_keyframe:
            self._keys.add(self._num_taken)
        if not is_leaned_on:
            self._leaves.add(self._num_taken)
        self._num_taken += 1
        if is_partial:
            self.doubt()
        if len(self._numbers) > _KNOWN:
            del self._numbers[next(iter(self._numbers))]
        for numbers in (self._keys, self._partial, self._leaves):
            numbers.discard(self._num_taken - _KNOWN)

    def doubt(self) -> None:
        """Note that the picture that was taken last lacks something, or builds upon what is not there."""
        number = self._num_taken - 1
        self._partial.add(number)
        self._note_in(number)  # pictures that build upon it may be shown before it

    def lose(self, *, in_decoder: bool) -> None:
        """Note that a packet gave no picture, or that some are missing behind the one that was taken last.

        Args:
            in_decoder: The first. Decoders with a thread for each picture tell it some packets later.
        """
        last = self._num_taken - 1
        if in_decoder:
            self._note_in(max(0, last - self._num_held()))
        else:
            self._note(max(0, last))

    def holds(self, frame: Any, *, is_whole: bool) -> bool:
        """Judge the next picture, in the order in which they are shown.

        Args:
            frame: Every one that was decoded.
            is_whole: Whether nothing is known to be wrong with it alone.

        Returns:
            Whether it is whole, and all that it builds upon.
        """
        number = self._numbers.get(frame.pts, self._num_taken)
        self._awaited.pop(frame.pts, None)
        self._shown, self._is_interlaced = frame.pts, bool(frame.interlaced_frame)
        is_whole = is_whole and number not in self._partial
        if not is_whole:
            self._note_in(number)
        elif self._is_key(frame, number):
            self._stand(number)
        elif number in self._keys and self._codec in _BEGIN_WELL:
            # A refresh in parts begins, and the one before it has ended.
            if self._refreshing is not None:
                self._stand(self._refreshing)
            self._refreshing = number
        self._stand(number - _RENEWED)
        if self._base is None:
            return False
        return is_whole and all(lost >= number for lost in self._lost)

    def lacks_end(self) -> bool:
        """Whether pictures behind the last one never came: decoders with threads drop what is behind an error."""
        if self._shown is None:
            return False
        count = sum(time > self._shown for time in self._awaited)
        return count > self._is_interlaced  # its second field may have had a packet of its own

    def _stand(self, number: int) -> None:
        """Forget what was lost before a picture from which on all is renewed."""
        if number >= 0:
            self._base = number
            self._lost = [lost for lost in self._lost if lost >= number]

    def _note_in(self, number: int) -> None:
        """Note that a picture is not whole, which harms those that build upon it."""
        if number not in self._leaves:
            self._note(number)

    def _note(self, lost: int) -> None:
        self._lost.append(lost)
        if len(self._lost) > _KNOWN:  # those between can no longer be behind a key picture
            del self._lost[1 : _KNOWN // 2]

    def _num_held(self) -> int:
        if not self._context.codec.capabilities & _HAS_FRAME_THREADS:
            return 0
        uses_them = int(self._context.thread_type.value) & _FRAME_THREADS
        return max(0, int(self._context.thread_count) - 1) if uses_them else 0

    def _is_key(self, frame: Any, number: int) -> bool:
        kind = int(frame.pict_type)
        if frame.key_frame or (kind == _I and self._codec != _LEANING_I):
            return True
        return kind in {_UNKNOWN, _I} and number in self._keys
