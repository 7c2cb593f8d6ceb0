"""The protocol files: read strictly, every recipe trainable, the page current, text towers never random by accident."""

import importlib.util
from pathlib import Path

import pytest
import yaml

from tasks import build_task
from tasks.contract import TaskError
from tasks.protocols import ROOMS, protocol, reading

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("room", ROOMS)
def test_every_recipe_can_be_trained(room: str) -> None:
    for one in protocol(room).recipes.values():
        one.made().check()


def test_the_page_is_current() -> None:
    spec = importlib.util.spec_from_file_location("write_protocols", ROOT / "docs" / "write_protocols.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "protocols.md").read_text() == module.page().rstrip() + "\n", (
        "docs/protocols.md is older than the protocol files: python docs/write_protocols.py"
    )


def test_a_file_with_a_wrong_field_is_named(tmp_path, monkeypatch) -> None:
    (tmp_path / "depth").mkdir()
    (tmp_path / "depth" / "protocol.yaml").write_text(
        yaml.safe_dump({"title": "Depth", "sources": {}, "constants": {"crop": {"value": 3}}})
    )
    monkeypatch.setattr(reading, "FOLDER", tmp_path)
    with pytest.raises(TaskError, match=r"protocol.yaml: constants.crop.source"):
        protocol("depth")


def test_a_published_tower_without_weights_blocks_the_cell(tmp_path) -> None:
    def told(**options) -> str:
        return " ".join(map(str, build_task("detection", tmp_path, {"data": "scenes", **options}).missing()))

    assert "options.text_weights" in told() and "openai" in told()
    assert not told(text="tiny") and not told(text_weights="scratch")
    assert "gone.safetensors" in told(text_weights="gone.safetensors")


def test_retrieval_recipes_are_of_full_size_where_the_set_is() -> None:
    for name, preset in (("coco", "ours"), ("flickr30k", "ours"), ("flickr8k", "nano")):
        task = build_task("retrieval", options={"data": name})
        assert (
            task.options.preset == preset and task.options.text == protocol("retrieval").recipe(preset).settings["text"]
        )
    lit = build_task("retrieval", options={"data": "coco", "preset": "siglip_lit_coco"})
    assert (lit.recipe.steps, lit.recipe.batch, lit.recipe.warmup, lit.settings["bias"]) == (5000, 512, 150, -2.71)
    assert lit.recipe.weight_decay * lit.recipe.lr == pytest.approx(0.01)


def test_lit_without_image_head_is_as_wide_as_its_backbone() -> None:
    from backbones import build_backbone
    from tasks.retrieval.lit import LiT

    backbone = build_backbone("flexivit_nano", pretrained=False)
    model = LiT(backbone, text="tiny", image_head=False, bias=-2.71)
    assert not list(model.projection.parameters()) and model.logit_bias.item() == pytest.approx(-2.71)
    assert model.text.text_projection.shape[-1] == backbone.embed_dim


def test_segmentation_trains_at_the_scale_that_it_evaluates_at() -> None:
    for name, short in (("ade20k", 512), ("cityscapes", 1024), ("voc2012", 512)):
        task = build_task("segmentation", options={"data": name})
        assert task.scale[1] == short and task.recipe.end_lr == 1e-5
        assert "minival" not in task.card.splits
    assert build_task("segmentation", options={"data": "camvid11"}).scale is None


def test_the_mask_decoder_drops_a_tenth_as_segmenter_does() -> None:
    from torch import nn

    from backbones import build_backbone
    from tasks.segmentation.heads import Segmenter

    head = Segmenter(build_backbone("flexivit_nano", pretrained=False), "segmenter", 3).head
    rates = [m.p for m in head.modules() if isinstance(m, nn.Dropout) and m.p]
    attention = [m.dropout for m in head.modules() if isinstance(m, nn.MultiheadAttention)]
    assert set(rates) == {0.1} and attention == [0.1, 0.1]
