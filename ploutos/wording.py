"""Words that sentences share."""

import re
from collections.abc import Sequence


def enumerate_names(names: Sequence[str], most: int = 5) -> str:
    """Names in one phrase; of many the first ones and how many more there are.

    >>> enumerate_names(["A", "B", "C"]), enumerate_names(list("ABCDEFG"), 2)
    ('A, B and C', 'A, B and 5 others')
    """
    rest = len(names) - most
    shown = [*names[:most], f"{rest} other{'s' * (rest > 1)}"] if rest > 0 else list(names)
    return " and ".join(part for part in (", ".join(shown[:-1]), shown[-1]) if part)


def plural(n: int, one: str, many: str = "") -> str:
    """A number of things.

    >>> plural(1, "fold"), plural(1200, "session"), plural(2, "policy", "policies")
    ('1 fold', '1,200 sessions', '2 policies')
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def counted(words: str, n: int) -> str:
    """A sentence about `n` things: `{n}` is their number, and of `[one|many]` the side that agrees with it stays.

    >>> counted("[{n} bar that differs|{n} bars that differ] from another", 1), counted("{n} [row|rows]", 1200)
    ('1 bar that differs from another', '1,200 rows')
    """
    agreed = re.sub(r"\[([^|\]]*)\|([^\]]*)\]", lambda found: found[1] if n == 1 else found[2], words)
    return agreed.replace("{n}", f"{n:,}")


def show_seconds(seconds: float) -> str:
    """A length of time for people.

    >>> show_seconds(7.4), show_seconds(95), show_seconds(3700)
    ('7 s', '1 min 35 s', '1 h 01 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60:02d} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def without(text: str, *secrets: str | None) -> str:
    """A text of somebody else's, who may have repeated what was sent, without the secrets in it.

    >>> without("Incorrect API key provided: sk-1", "sk-1", None)
    'Incorrect API key provided: ***'
    """
    for each in filter(None, secrets):
        text = text.replace(each, "***")
    return text


def without_password(address: str) -> str:
    """An address as a sentence may name it.

    >>> without_password("http://ann:secret@host:80/v1"), without_password("http://host/v1")
    ('http://ann:***@host:80/v1', 'http://host/v1')
    """
    return re.sub(r"(//[^/@:]*):[^/@]*@", r"\1:***@", address)
