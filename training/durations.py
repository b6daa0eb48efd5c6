"""Durations as text."""


def readable(seconds: float) -> str:
    """Format a duration.

    >>> readable(90), readable(9000)
    ('2 minutes', '2.5 hours')
    """
    return (
        f"{seconds / 3600:.1f} hours"
        if seconds >= 5400
        else f"{max(1, round(seconds / 60))} minutes"
    )


def parse_duration(text: str) -> float:
    """Parse a duration such as ``170m``, ``60s`` or ``3h`` to seconds.

    >>> parse_duration("170m"), parse_duration("60s"), parse_duration("1.5h")
    (10200.0, 60.0, 5400.0)

    Raises:
        ValueError: the text has another form, or is not positive.
    """
    units = {"s": 1, "m": 60, "h": 3600}
    try:
        number, unit = float(text[:-1]), units[text[-1:]]
    except (ValueError, KeyError):
        number = unit = 0
    if number * unit <= 0:
        raise ValueError(f"a duration is a number with s, m or h, such as 170m, not {text!r}")
    return number * unit
