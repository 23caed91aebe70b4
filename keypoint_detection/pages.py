"""Single-file HTML pages: tables, figures and images that a browser shows without a network or scripts."""

import base64
import html
import io
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

JPEG_QUALITY = 80

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; color: #1a1a1a;
  background: #fff; max-width: 72rem; margin: 2rem auto 4rem; padding: 0 1.5rem; }
h1 { font-size: 1.7rem; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; border-bottom: 1px solid #ccc; padding-bottom: .25rem; }
p { max-width: 46rem; margin: .5rem 0 1rem; }
p, figcaption, dd { overflow-wrap: anywhere; }
.wide { overflow-x: auto; margin: .75rem 0 1.5rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: #555; font-size: .85rem; padding-bottom: .35rem; }
th, td { padding: .3rem .8rem; text-align: right; vertical-align: top; border-bottom: 1px solid #e2e2e2; }
thead th { border-bottom: 2px solid #888; vertical-align: bottom; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
tbody th { font-weight: 600; max-width: 20rem; overflow-wrap: break-word; }
tr.total > * { border-top: 2px solid #888; font-weight: 600; }
td small { display: block; color: #555; font-weight: 400; white-space: nowrap; }
table.facts td { text-align: left; overflow-wrap: anywhere; }
table.facts tbody th { padding-right: 1.5rem; white-space: nowrap; }
figure { margin: 0 0 1.5rem; }
figure img { max-width: 100%; height: auto; display: block; }
figcaption { color: #333; font-size: .9rem; margin-top: .35rem; }
pre { background: #f5f5f5; padding: 1rem; overflow-x: auto; font-size: .85rem; line-height: 1.4; }
summary { cursor: pointer; color: #0072b2; }
dt { font-weight: 600; margin-top: .5rem; }
dd { margin: 0 0 0 1.5rem; max-width: 46rem; }
@media print { body { margin: 0; max-width: none; } figure, tr { break-inside: avoid; } }
"""


class Cell(NamedTuple):
    """A cell of a table.

    Attributes:
        text: its contents.
        note: a smaller line below; empty for none.
    """

    text: str
    note: str = ""


def render_page(title: str, subtitle: str, sections: Sequence[str]) -> str:
    """Put sections, which are already HTML, into a page that needs no other file.

    Args:
        title: the title of the page; text.
        subtitle: one line below the title; text.
        sections: from `section`.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{_escape(title)}</h1>\n{paragraph(subtitle)}" + "\n".join(sections) + "\n</body>\n</html>\n"
    )


def section(heading: str, *parts: str) -> str:
    """Put a heading, which is text, over parts, which are HTML."""
    return f"<section>\n<h2>{_escape(heading)}</h2>\n" + "\n".join(parts) + "\n</section>"


def paragraph(text: str) -> str:
    """Write a paragraph of text."""
    return f"<p>{_escape(text)}</p>\n"


def preformatted(text: str) -> str:
    """Write text verbatim, such as a config file."""
    return f"<pre>{_escape(text)}</pre>\n"


def folded(summary: str, *parts: str) -> str:
    """Hide parts, which are HTML, behind a line of text to click on."""
    return f"<details>\n<summary>{_escape(summary)}</summary>\n" + "\n".join(parts) + "\n</details>"


def table(headings: Sequence[str], rows: Sequence[Sequence[Cell]], *, has_total: bool, caption: str) -> str:
    """Write a table of numbers; the first cell of each row names it.

    Args:
        headings: one per column.
        rows: cells of text.
        has_total: the last row sums up the others.
        caption: what the numbers are; text.
    """
    head = "".join(f'<th scope="col">{_escape(heading)}</th>' for heading in headings)
    lines = [
        f'<div class="wide"><table>\n<caption>{_escape(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>'
    ]
    for index, (name, *cells) in enumerate(rows):
        total = ' class="total"' if has_total and index == len(rows) - 1 else ""
        lines.append(f'<tr{total}><th scope="row">{_escape(name.text)}</th>{"".join(map(_write_cell, cells))}</tr>')
    return "\n".join([*lines, "</tbody>\n</table></div>\n"])


def facts(entries: Sequence[tuple[str, str]]) -> str:
    """Write names and their values, both text, one below the other."""
    rows = "\n".join(
        f'<tr><th scope="row">{_escape(name)}</th><td>{_escape(value)}</td></tr>' for name, value in entries
    )
    return f'<div class="wide"><table class="facts"><tbody>\n{rows}\n</tbody></table></div>\n'


def definitions(entries: Sequence[tuple[str, str]]) -> str:
    """Write terms and their definitions, both text."""
    return (
        "<dl>\n" + "\n".join(f"<dt>{_escape(term)}</dt><dd>{_escape(text)}</dd>" for term, text in entries) + "\n</dl>"
    )


def figure(image: bytes, media_type: str, description: str, caption: str) -> str:
    """Put an image into the page itself.

    Args:
        image: the contents of an image file.
        media_type: such as `image/svg+xml`.
        description: what it shows, for those who cannot see it; text.
        caption: the text below it; may be empty.
    """
    data = base64.b64encode(image).decode("ascii")
    below = f"<figcaption>{_escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img alt="{_escape(description)}" src="data:{media_type};base64,{data}">{below}</figure>\n'


def image_as_jpeg(image: Image.Image, max_width_px: int) -> bytes:
    """Encode an image as JPEG, no wider than a page needs it."""
    if image.width > max_width_px:
        height = max(1, round(image.height * max_width_px / image.width))
        image = image.resize((max_width_px, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def _write_cell(cell: Cell) -> str:
    note = f"<small>{_escape(cell.note)}</small>" if cell.note else ""
    return f"<td>{_escape(cell.text)}{note}</td>"


def _escape(text: str) -> str:
    # Names may contain halves of surrogate pairs, which a UTF-8 file cannot.
    return html.escape(text.encode("utf-8", "replace").decode("utf-8"))
