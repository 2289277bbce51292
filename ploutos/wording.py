"""Words that sentences share."""

from collections.abc import Sequence


def enumerate_names(names: Sequence[str], most: int = 5) -> str:
    """Names in one phrase; of many the first ones and how many more there are.

    >>> enumerate_names(["A", "B", "C"]), enumerate_names(list("ABCDEFG"), 2)
    ('A, B and C', 'A, B and 5 others')
    """
    rest = len(names) - most
    shown = [*names[:most], f"{rest} other{'s' * (rest > 1)}"] if rest > 0 else list(names)
    return " and ".join(part for part in (", ".join(shown[:-1]), shown[-1]) if part)
