"""Google Drive's public files: their addresses, and the page that it puts before those too large for its virus scan."""

from html.parser import HTMLParser
from urllib.parse import urlencode, urljoin, urlsplit

FORM = "download-form"
"""The id of the form that asks whether a file that was not scanned is wanted all the same."""


def drive_address(identity: str) -> str:
    """Give the public address of a file of Google Drive by its id."""
    return f"https://drive.google.com/uc?export=download&id={identity}"


def behind(page: str, address: str) -> str | None:
    """Give the address of the file behind Drive's confirmation page, or None where `page` is another page.

    The form may lead elsewhere than the `address` that the page came from, but not out of its scheme (https).
    """
    found = _parsed(page)
    if found.action is None:
        return None
    target = urljoin(address, found.action)
    if urlsplit(target).scheme != urlsplit(address).scheme:
        return None
    return f"{target}{'&' if urlsplit(target).query else '?'}{urlencode(found.fields)}"


def title(page: str) -> str:
    """Give the title of a web page in one line; empty where it has none."""
    return " ".join(_parsed(page).title.split())


class _Page(HTMLParser):
    """Collects a page's title and its download form."""

    def __init__(self) -> None:
        super().__init__()
        self.title = ""
        self.action: str | None = None
        self.fields: dict[str, str] = {}
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "form" and values.get("id") == FORM:
            self._inside, self.action = tag, values.get("action") or ""
        elif tag == "title":
            self._inside = tag
        elif tag == "input" and self._inside == "form" and (name := values.get("name")):
            self.fields[name] = values.get("value") or ""

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "title":
            self.title += data


def _parsed(page: str) -> _Page:
    parser = _Page()
    parser.feed(page)
    return parser
