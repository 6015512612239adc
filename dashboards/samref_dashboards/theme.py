"""Colours, named once: CSS variables of the page and colours of the charts.

Charts name colours as `var(--series-1)`. In the page CSS resolves them, so one drawing is right on light,
dark and paper; whoever draws elsewhere replaces the names with the values in LIGHT. Series colours are Okabe
and Ito's (told apart with every kind of colour vision), shifted for contrast on each ground.
"""

from __future__ import annotations

from typing import Any

LIGHT = {
    "ground": "#fdfdfb",
    "panel": "#f5f5f1",
    "ink": "#1a1c1e",
    "soft": "#5d6268",
    "line": "#d9d9d3",
    "accent": "#0b5c8a",
    "bar": "#b9d3e2",
    "good": "#2f7d4f",
    "warn": "#9a5b00",
    "bad": "#b3261e",
    "on-ramp": "#04090a",
    **dict(
        zip(
            (f"series-{i}" for i in range(1, 9)),
            ("#0b6fa8", "#d0661c", "#148a68", "#b2578c", "#8a6d00", "#3994c3", "#6a51a3", "#5d6268"),
            strict=True,
        )
    ),
    **dict(
        zip(
            (f"ramp-{i}" for i in range(1, 8)),
            ("#c77b2d", "#cc5b3f", "#bb4066", "#96387c", "#6c3183", "#442b74", "#292256"),
            strict=True,
        )
    ),
}
DARK = {
    "ground": "#141618",
    "panel": "#1c1f22",
    "ink": "#e7e6e2",
    "soft": "#9ba1a8",
    "line": "#33373b",
    "accent": "#6db9e8",
    "bar": "#2b4a5e",
    "good": "#6fc08d",
    "warn": "#e0a44a",
    "bad": "#f08a80",
    "on-ramp": "#ffffff",
    **dict(
        zip(
            (f"series-{i}" for i in range(1, 9)),
            ("#56b1ea", "#f0914d", "#35bf95", "#e08fbd", "#d6b93c", "#9bd3f2", "#a995e0", "#9ba1a8"),
            strict=True,
        )
    ),
    **dict(
        zip(
            (f"ramp-{i}" for i in range(1, 8)),
            ("#735abe", "#9f5ab3", "#cf6a9e", "#ec8284", "#f9a373", "#f7c784", "#f1e6b1"),
            strict=True,
        )
    ),
}

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"


DISTINCT = 7
"""Series colours that can be told apart; the eighth is grey and stands for all that follow."""


def colours(count: int, ordered: bool) -> list[str]:
    """A ramp for an ordered axis, else distinct colours."""
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
"""Vega-Lite's configuration for every chart."""
