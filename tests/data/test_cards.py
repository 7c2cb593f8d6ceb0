"""Set cards: what is in them, what is wrong in one, the page made of them, a set added by one YAML file."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
import yaml
from data_tools import picture
from fuzz_tools import fuzzed
from hypothesis import strategies as st

from benchmarks.prepare.check import check_sets
from tasks import build_task
from tasks.data.cards import CARDS, KINDS, find_card, known_cards, read_card
from tasks.data.errors import Missing, Wrong
from tasks.data.scenes import SCENES
from tasks.data.sets.labelled import labelled_set

ROOT = Path(__file__).parents[2]
CARD = {
    "name": "birds", "title": "Birds", "licence": "own", "source": "https://example.org/birds.zip",
    "classes": {"layout": "folders", "files": "birds/{split}", "splits": {"train": 4, "test": 2}, "class_count": 2},
}  # fmt: skip


def test_every_card_says_where_it_is_to_be_had_and_what_it_must_have() -> None:
    for name, card in known_cards().items():
        assert card.name == name and card.title and card.licence, name
        assert card.drawn or "http" in card.source, name
        for form in (getattr(card, kind) for kind in KINDS):
            if form is not None and not card.drawn:
                assert form.accepts or name == "ade20k_format_sample", name
                assert any(size for size in form.sizes().values()) or name == "imagenet21k", name
    scenes = known_cards()["scenes"]
    assert all(getattr(scenes, kind).files.startswith(SCENES) for kind in KINDS if getattr(scenes, kind))


def test_the_page_is_that_of_the_cards() -> None:
    spec = importlib.util.spec_from_file_location("write_datasets", ROOT / "docs" / "write_datasets.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "run python docs/write_datasets.py"
    assert all(f"| `{name}` |" in module.page() for name in known_cards())


def birds(root: Path) -> Path:
    for split, count in (("train", 2), ("test", 1)):
        for c, name in enumerate(("finch", "wren")):
            for i in range(count):
                picture(root / "birds" / split / name / f"{i}.jpg", 100 * c + 10 * i + count)
    return root


def test_a_set_is_added_by_the_yaml_file_of_the_docs(tmp_path) -> None:
    text = (ROOT / "docs" / "add-a-dataset.md").read_text(encoding="utf-8")
    (card,) = re.findall(r"```yaml\n(name: birds.*?)```", text, re.DOTALL)
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "birds.yaml").write_text(card)
    birds(tmp_path)
    with pytest.raises(Wrong, match="has 4 images, it must have 1,200; get it from https://example.org/birds.zip"):
        labelled_set("birds", tmp_path).load("train")
    (tmp_path / "sets" / "birds.yaml").write_text(yaml.safe_dump(CARD))
    (checked,) = check_sets(["birds"], tmp_path)
    assert checked.state == "ok" and checked.splits == {"train": 3, "minival": 1, "test": 2} and checked.classes == 2
    task = build_task("classification", tmp_path, {"data": "birds", "image_size": 8})
    assert task.missing() == [] and task.dataset("test")[0][0].shape == (3, 8, 8)
    assert task.card.splits == {"train": None, "minival": None, "test": 2}
    (tmp_path / "cards").mkdir()
    (tmp_path / "sets" / "birds.yaml").rename(tmp_path / "cards" / "mine.yaml")
    assert len(labelled_set("cards/mine.yaml", tmp_path).load("test")) == 2
    with pytest.raises(Missing, match="other.yaml: no such set card"):
        labelled_set("cards/other.yaml", tmp_path)


@pytest.mark.parametrize("change, said", [
    ({"licens": "x"}, "licens is no field of a set card; nearest: licence"),
    ({"licence": None}, "licence is not valid"),
    ({"classes": {**CARD["classes"], "layout": "folder"}}, "classes.layout is not valid"),
    ({"classes": {**CARD["classes"], "layout": "karpathy"}}, "classes.layout 'karpathy' is none of folders, parquet"),
    ({"classes": {**CARD["classes"], "splits": {"train": "4"}}}, "classes.splits.train"),
    ({"classes": {**CARD["classes"], "held_out": 1.5}}, "classes.held_out is not valid"),
    ({"classes": {**CARD["classes"], "file": "x"}}, "classes.file is no field of a set card; nearest: files"),
    ({"classes": None}, "has no labels; it needs one of: classes, masks"),
])  # fmt: skip
def test_what_is_wrong_in_a_card_is_named(tmp_path, change, said) -> None:
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(CARD | change))
    with pytest.raises(Wrong) as caught:
        read_card(tmp_path / "a.yaml")
    assert said in str(caught.value) and str(tmp_path / "a.yaml") in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["a: [", "- 1", "a: 1\na: 2", "", "\x00", "a: !!python/object:os.system x", "1: 2"])
def test_what_is_no_card_is_one_line(tmp_path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(Wrong) as caught:
        read_card(tmp_path / "a.yaml")
    assert "\n" not in str(caught.value)


@fuzzed(60, 3000, at=st.integers(0, 400), noise=st.binary(max_size=5), gone=st.integers(0, 5))
def test_a_damaged_card_is_read_or_named(tmp_path_factory, at: int, noise: bytes, gone: int) -> None:
    content = bytearray((CARDS / "coco2017.yaml").read_bytes())
    content[at : at + gone] = noise
    path = tmp_path_factory.getbasetemp() / "damaged.yaml"
    path.write_bytes(bytes(content))
    try:
        assert read_card(path).captions is not None
    except Wrong as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)


def test_unknown_names_are_answered_by_the_nearest_of_the_kind() -> None:
    with pytest.raises(Wrong, match="data 'car98': .*; nearest: cars98"):
        find_card("car98", "classes")
    with pytest.raises(Wrong, match="is no data set with masks that is known"):
        find_card("cars98", "masks")
    assert json.dumps(find_card("lvis", "boxes").form("boxes").sizes()) == '{"train": 100170, "val": 19809}'
