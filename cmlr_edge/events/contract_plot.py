"""The plot of a contract as SVG: every setting that was tried, the one that was taken, and its bounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from xml.sax.saxutils import escape

from cmlr_edge.events.contract import Contract, Wish, false_a_day_at_most, found_at_least
from cmlr_edge.events.replay import Counts
from cmlr_edge.wording import counted

Place = Callable[[float], float]
_WIDE, _HIGH = 640, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 620, 50, 360


def plot_contract(contract: Contract, wish: Wish) -> str:
    """Draw it: false events a day against the share of visits found."""
    proof = contract.proof
    tried, [(own_x, own_y)] = _points(contract.tried), _points(proof)[:1]
    bound_x, bound_y = false_a_day_at_most(proof), found_at_least(proof)
    most = 1.2 * max(
        *(rate for rate, _ in tried), min(bound_x, 50 * wish.false_a_day), own_x, wish.false_a_day
    )

    def x(rate: float) -> float:
        # Half a false event a day stands in the middle where the wish is one, and 0 is on it too.
        scale = math.log1p(most / wish.false_a_day)
        share = math.log1p(min(rate, most) / wish.false_a_day) / scale
        return _LEFT + (_RIGHT - _LEFT) * share

    def y(share: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * share

    wished = (
        f'<rect x="{_LEFT}" y="{_TOP}" width="{x(wish.false_a_day) - _LEFT:.1f}" '
        f'height="{y(wish.found) - _TOP:.1f}" fill="#e3f1e8"/>'
    )
    dots = [
        f'<circle cx="{x(rate):.1f}" cy="{y(share):.1f}" r="3" fill="#8a94a6" fill-opacity="0.45"/>'
        for rate, share in sorted(set(tried))
    ]
    green = "#2a7d4f" if contract.proven else "#b3372b"
    taken = (
        f'<path d="M{x(own_x):.1f} {y(own_y):.1f}H{x(bound_x):.1f}M{x(own_x):.1f} {y(own_y):.1f}'
        f'V{y(bound_y):.1f}" stroke="{green}" stroke-width="2.5" fill="none"/>'
        f'<circle cx="{x(own_x):.1f}" cy="{y(own_y):.1f}" r="6" fill="{green}"/>'
    )
    parts = [wished, *_axes(x, y, most, wish), *dots, taken, *_words(contract)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDE}" height="{_HIGH}" '
        f'viewBox="0 0 {_WIDE} {_HIGH}"><rect width="100%" height="100%" fill="#fff"/>'
        + "".join(parts)
        + "</svg>\n"
    )


def _points(tally: Counts) -> list[tuple[float, float]]:
    """False events a day and share of visits found, of each setting."""
    days, visits = max(tally.hours / 24, 1e-9), max(tally.visits, 1)
    counts = zip(tally.false_events, tally.found, strict=True)
    return [(float(false) / days, float(found) / visits) for false, found in counts]


def _words(contract: Contract) -> list[str]:
    proof, proven = contract.proof, "proven" if contract.proven else "not proven"
    held_out = (
        f"held out: {proof.hours:.1f} h, {counted(proof.visits, 'visit')}; at most "
        f"{false_a_day_at_most(proof):.3g} false a day, at least {found_at_least(proof):.0%} found"
    )
    return [
        _text(_LEFT, 22, f"{contract.label}: {proven}", 16),
        _text(_LEFT, 40, held_out),
        _text(_LEFT, _HIGH - 12, "grey: settings on the recordings they were chosen from"),
    ]


def _axes(x: Place, y: Place, most: float, wish: Wish) -> list[str]:
    parts = [
        f'<path d="M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}" stroke="#333" fill="none"/>',
        _text((_LEFT + _RIGHT) / 2 - 60, _BOTTOM + 34, "false events a day"),
        f'<g transform="translate(20 {(_TOP + _BOTTOM) / 2 + 60:.0f}) rotate(-90)">'
        + _text(0, 0, "share of visits found")
        + "</g>",
    ]
    shares = (0.0, 0.25, 0.5, 0.75, 1.0)
    parts += [_text(32, y(share) + 4, f"{share:.0%}") for share in shares]
    ticks = [0.0] + [wish.false_a_day * 10**k for k in range(8)]
    parts += [_text(x(rate) - 5, _BOTTOM + 16, f"{rate:g}") for rate in ticks if rate <= most]
    return parts


def _text(x: float, y: float, text: str, size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-family="sans-serif" font-size="{size}" fill="#222">'
        f"{escape(text)}</text>"
    )
