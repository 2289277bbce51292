"""What a page holds, for tests: its text without markup, its tables, its figures and its script."""

import gzip
import html
import json
import re
from base64 import b64decode

import numpy as np


def unpacked(text):
    """What the page's script makes of what was packed for it."""
    return gzip.decompress(b64decode(text)).decode()


def figures(page):
    """Plotly's JSON of every figure, in the order of the page."""
    return [json.loads(unpacked(text)) for text in re.findall(r'data-figure="([^"]+)"', page)]


def values(array):
    """Numbers of a figure, packed or not."""
    if isinstance(array, dict):
        return np.frombuffer(b64decode(array["bdata"]), dtype=array["dtype"])
    return np.asarray(array)


def tables(page):
    """Cells of every table as text, row by row, headings first."""
    found = []
    for table in re.findall(r"<table.*?</table>", page, flags=re.DOTALL):
        rows = re.findall(r"<tr.*?</tr>", table, flags=re.DOTALL)
        found.append([[plain(cell) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, flags=re.DOTALL)] for row in rows])
    return [rows for rows in found if rows]


def plain(markup):
    """Text without markup; what stands below a cell's value follows it."""
    return html.unescape(re.sub(r"<[^>]+>", "", markup.replace("<small>", " "))).strip()


def script(page):
    """The drawing library that travels inside."""
    return unpacked(re.search(r'<script type="text/plain" id="plotly">(.*?)</script>', page)[1])
