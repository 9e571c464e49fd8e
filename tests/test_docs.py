"""Every link of the documents leads somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = "https://github.com/iamccs/vram-supervisor/blob/main/"
DOCUMENTS = sorted(
    path for pattern in ("*.md", "docs/**/*.md", "web/docs/**/*.md") for path in ROOT.glob(pattern)
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
CODE = re.compile(r"^(?: {4}|\t).*$|`[^`\n]*`", re.MULTILINE)


def links(path):
    return LINK.findall(CODE.sub("", path.read_text("utf-8")))


def target(path, link):
    """The file a link names and the heading in it; None for what lies elsewhere."""
    if link.startswith(REPOSITORY):
        path, link = ROOT / "README.md", link.removeprefix(REPOSITORY)
    if link.startswith(("http://", "https://")):
        return None
    name, _, heading = link.partition("#")
    return (path.parent / name if name else path), heading


def anchors(path):
    """As GitHub makes them of headings."""
    found = HEADING.findall(path.read_text("utf-8"))
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in found}


def test_documents_are_found():
    names = {path.name for path in DOCUMENTS}
    assert {"README.md", "LOW_VRAM_VIDEO_TIPS.md", "what-to-do-when.md"} <= names


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file_or_heading(path):
    for link in links(path):
        found = target(path, link)
        if found is None:
            continue
        file, heading = found
        assert file.exists(), link
        assert not heading or heading in anchors(file), link
