"""Pages of HTML that need no other file: what all of them share.

`page.html` is the frame that every template extends, `style.css` the one style sheet. The templates
lie beside the code that fills them in.
"""

import base64
import html
import io
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from data_pipelines.media import printable


def render(template: Path, **values: Any) -> str:
    """Fills in a template.

    Every value is made printable and escaped, so that the names of files, clips and classes may
    hold anything. Beside Jinja's own filters there is `thousands`: 1234567 -> "1,234,567".

    Args:
        template: its file, which extends "page.html".
        values: what the template names; "page.html" needs `title`, the headline.

    Returns:
        The page, which holds its style sheet and can be encoded as UTF-8.

    Raises:
        jinja2.UndefinedError: the template names something that is not among `values`.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["thousands"] = "{:,}".format
    return environment.get_template(template.name).render(values)


def _printable(value: Any) -> Any:
    """What a template prints; the HTML of its own macros stays as it is."""
    return value if hasattr(value, "__html__") else printable(value)


def data_uri(picture: Image.Image, **options: Any) -> str:
    """A picture as text for the `src` of an `<img>`.

    Args:
        picture: of any size.
        options: of `Image.save`, `format` ("png" or "jpeg") among them.
    """
    buffer = io.BytesIO()
    picture.save(buffer, **options)
    content = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{options['format']};base64,{content}"


def embedded(page: str, height: int) -> str:
    """A page within another one, such as a notebook, whose style it neither takes nor changes.

    Args:
        page: HTML that needs no other file.
        height: pixels; of a longer page one scrolls.

    Returns:
        An `<iframe>` that holds the page, in a `<div>`.
    """
    inner = html.escape(page)
    style = f"width:100%; height:{height}px; border:0"
    return f'<div><iframe srcdoc="{inner}" style="{style}"></iframe></div>'
