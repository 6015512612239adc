"""Colours, named once: CSS variables of the page and colours of the charts.

Charts name colours as `var(--series-1)`. In the page CSS resolves them, so one drawing is right on light,
dark and paper; whoever draws elsewhere replaces the names with the values in LIGHT. Series colours are Okabe
and Ito's (told apart with every kind of colour vision), shifted for contrast on each ground.
"""

from typing import Any

_COLOURS = {
    "ground": ("#fdfdfb", "#141618"),
    "panel": ("#f5f5f1", "#1c1f22"),
    "ink": ("#1a1c1e", "#e7e6e2"),
    "soft": ("#5d6268", "#9ba1a8"),
    "line": ("#d9d9d3", "#33373b"),
    "accent": ("#0b5c8a", "#6db9e8"),
    "bar": ("#b9d3e2", "#2b4a5e"),
    "warn": ("#9a5b00", "#e0a44a"),
    "bad": ("#b3261e", "#f08a80"),
    "on-ramp": ("#04090a", "#ffffff"),
    "series-1": ("#0b6fa8", "#56b1ea"),
    "series-2": ("#d0661c", "#f0914d"),
    "series-3": ("#148a68", "#35bf95"),
    "series-4": ("#b2578c", "#e08fbd"),
    "series-5": ("#8a6d00", "#d6b93c"),
    "series-6": ("#3994c3", "#9bd3f2"),
    "series-7": ("#6a51a3", "#a995e0"),
    "series-8": ("#5d6268", "#9ba1a8"),
    "ramp-1": ("#c77b2d", "#735abe"),
    "ramp-2": ("#cc5b3f", "#9f5ab3"),
    "ramp-3": ("#bb4066", "#cf6a9e"),
    "ramp-4": ("#96387c", "#ec8284"),
    "ramp-5": ("#6c3183", "#f9a373"),
    "ramp-6": ("#442b74", "#f7c784"),
    "ramp-7": ("#292256", "#f1e6b1"),
}
"""Name -> the colour on a light ground, and on a dark one."""
LIGHT, DARK = ({name: pair[dark] for name, pair in _COLOURS.items()} for dark in (0, 1))

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"
DISTINCT = 7
"""Series colours that can be told apart; the eighth is grey and stands for all that follow."""


def colours(count: int, ordered: bool) -> list[str]:
    """Choose a ramp for an ordered axis, else distinct colours."""
    if ordered:
        return [f"var(--ramp-{1 + round(6 * i / max(1, count - 1))})" for i in range(count)]
    return [f"var(--series-{min(i, DISTINCT) + 1})" for i in range(count)]


CHART_CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": FONT,
    "view": {"stroke": None},
    # Each chart is described as a whole; a screen reader should not meet hundreds of points.
    "mark": {"aria": False},
    "axis": {
        "labelColor": "var(--soft)",
        "titleColor": "var(--soft)",
        "titleFontWeight": "normal",
        "titleFontSize": 11,
        "labelFontSize": 11,
        "gridColor": "var(--line)",
        "gridOpacity": 0.6,
        "domain": False,
        "tickColor": "var(--line)",
        "tickSize": 4,
        "labelPadding": 4,
        "labelSeparation": 6,
    },
    "line": {"strokeWidth": 1.75, "strokeCap": "round", "strokeJoin": "round"},
    "point": {"filled": True, "size": 34},
}
