"""What people read on the nodes: tooltips, translations, help pages. Read without ComfyUI."""

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("torch")

from support.face_schemas import node_texts, schemas, widgets

ROOT = Path(__file__).resolve().parents[2]
NODES = sorted(path.stem for path in (ROOT / "nodes" / "faces").glob("*.py"))
NODE_IDS = sorted(schemas())
TRANSLATIONS = ("it", "zh")
SPECIAL = re.compile(r"[{}@|]")
"""The frontend's translator takes these for placeholders, links and plurals."""
ROW = re.compile(r"^- \*\*`(\w+)`\*\*", re.MULTILINE)


def translated(language):
    return json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text("utf-8"))


def shape(texts):
    """The keys, without the texts."""
    return {key: shape(each) if isinstance(each, dict) else None for key, each in texts.items()}


def leaves(texts):
    for each in texts.values():
        yield from leaves(each) if isinstance(each, dict) else [each]


def page(node_id, language):
    folder = ROOT / "web" / "docs"
    name = f"{node_id}.md" if language == "en" else f"{node_id}/{language}.md"
    return (folder / name).read_text("utf-8")


def test_every_face_is_read():
    assert len(NODE_IDS) == len(NODES) - 2  # all but common and __init__


@pytest.mark.parametrize("node_id", NODE_IDS)
def test_every_input_says_what_it_does(node_id):
    for each in schemas()[node_id].inputs:
        tooltip = getattr(each, "tooltip", None)
        assert tooltip, f"{each.id} has no tooltip"
        assert tooltip.endswith("."), f"{each.id}: {tooltip}"


@pytest.mark.parametrize("node_id", NODE_IDS)
def test_a_figure_in_quarters_is_not_rounded_to_tenths(node_id):
    """The editor rounds to a power of ten it takes from the step, unless it is told."""
    for each in widgets(node_id):
        if getattr(each, "step", None) == 0.25:
            assert each.round == 0.01, each.id


def test_the_english_texts_are_those_of_the_faces():
    """Else run: python tests/support/face_schemas.py > locales/en/nodeDefs.json"""
    assert translated("en") == node_texts()


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_a_translation_has_every_text_and_no_other(language):
    assert shape(translated(language)) == shape(translated("en"))
    assert all(leaves(translated(language)))


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_a_translation_is_one(language):
    english = set(leaves({name: node["inputs"] for name, node in translated("en").items()}))
    ours = set(leaves({name: node["inputs"] for name, node in translated(language).items()}))
    assert not english & ours


@pytest.mark.parametrize("language", ["en", *TRANSLATIONS])
def test_no_text_is_taken_for_a_pattern(language):
    assert [text for text in leaves(translated(language)) if SPECIAL.search(text)] == []


@pytest.mark.parametrize("language", ["en", "it"])
@pytest.mark.parametrize("node_id", NODE_IDS)
def test_a_help_page_tells_every_input_in_order(node_id, language):
    assert ROW.findall(page(node_id, language)) == [each.id for each in schemas()[node_id].inputs]


@pytest.mark.parametrize("language", ["en", "it"])
@pytest.mark.parametrize("node_id", NODE_IDS)
def test_a_help_page_names_the_node_and_its_outputs(node_id, language):
    text = page(node_id, language)
    assert text.startswith(f"# {translated(language)[node_id]['display_name']}\n")
    for output in schemas()[node_id].outputs:
        assert f"`{output.display_name}`" in text


@pytest.mark.parametrize("language", ["en", "it"])
@pytest.mark.parametrize("node_id", NODE_IDS)
def test_a_help_page_says_of_an_input_what_its_tooltip_says(node_id, language):
    text = page(node_id, language)
    for name, each in translated(language)[node_id]["inputs"].items():
        row = next(line for line in text.splitlines() if line.startswith(f"- **`{name}`**"))
        assert row.endswith(f"): {each['tooltip']}")


def test_there_is_no_help_page_of_a_node_that_is_gone():
    found = {path.stem if path.is_file() else path.name for path in (ROOT / "web/docs").iterdir()}
    assert found == set(NODE_IDS)
