"""What was measured, as a section of a page of the documentation."""

from __future__ import annotations

import re
from pathlib import Path


def write_section(page: Path, title: str, body: str) -> None:
    """Put a section into a page, in the place of the one with this title or at its end.

    Parameters
    ----------
    page : Markdown file.
    title : of the section, without signs.
    body : Markdown without headings as high as the section's.
    """
    text = page.read_text(encoding="utf-8")
    section = f"## {title}\n\n{body.strip()}\n"
    found = re.search(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", text, re.M | re.S)
    if found is None:
        text = f"{text.rstrip()}\n\n{section}"
    else:
        rest = text[found.end() :]
        text = text[: found.start()] + section + (f"\n{rest}" if rest else "")
    page.write_text(text, encoding="utf-8")
