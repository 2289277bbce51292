"""The colours of every figure. `page.js.j2` knows their lighter versions for dark pages; a colour that is not here has none."""

BLUE, ORANGE, GREEN, PINK, YELLOW = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"
"""Colour-blind readers can distinguish them too. Source: Okabe and Ito (2008), "Color Universal Design"."""
COLOURS = (ORANGE, BLUE, GREEN, PINK, YELLOW)
GREY, INK, WHITE = "#98a2b3", "#1c2430", "#ffffff"
