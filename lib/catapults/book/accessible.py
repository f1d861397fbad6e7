"""What the theme's pages lack for those who use a keyboard or a screen reader, put right in the rendered HTML.

Found with axe-core by the rules of WCAG 2.1 A and AA; ``tests/test_book_in_browser.py`` asks it again.
"""

import re
from pathlib import Path

_TOGGLE = re.compile(
    r'(<a class="[^"]*\breference internal[^"]*" href="[^"]*">)([^<]*)(</a>\s*<details[^>]*>\s*<summary)(>)'
)
_REPLACED = {
    '<div role="list" class="citation-list">': '<div class="citation-list">',  # its children are no list items
    ' role="doc-biblioentry"': "",  # deprecated
    '<div class="math notranslate nohighlight"': '<div class="math notranslate nohighlight" tabindex="0"',  # may scroll
}


def mend(pages: Path) -> None:
    """Every page of a rendered book."""
    for path in pages.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        mended = mended_page(text)
        if mended != text:
            path.write_text(mended, encoding="utf-8")


def mended_page(html: str) -> str:
    """The toggles of the sidebar get names, wide formulas can be scrolled by keyboard, roles are those that fit."""
    html = _TOGGLE.sub(lambda m: f'{m[1]}{m[2]}{m[3]} aria-label="Pages below: {m[2].strip()}"{m[4]}', html)
    for old, new in _REPLACED.items():
        html = html.replace(old, new)
    return html
