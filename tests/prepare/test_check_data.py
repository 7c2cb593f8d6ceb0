"""`check data`: every known set is looked at; what is missing or wrong is said with what to do."""

import json
import os
import sys
from pathlib import Path

import official_forms
import pytest
from data_tools import sized

import run_all
from benchmarks.prepare import prepare
from benchmarks.prepare.check import check_sets, known_sets
from tasks.contract import TaskError


def call(monkeypatch, capsys, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["run_all.py", "check", "data", *arguments])
    with pytest.raises(SystemExit) as stop:
        run_all.main()
        raise SystemExit(0)
    out = capsys.readouterr()
    return int(stop.value.code or 0), out.out, out.err


@pytest.fixture
def woofs(tmp_path, monkeypatch) -> Path:
    """A data root with a tiny imagewoof9."""
    source = official_forms.imagewoof(tmp_path)
    prepare("imagewoof9", [source], tmp_path / "data", {"train": 3, "test": 2}, lambda text: None)
    sized(monkeypatch, "imagewoof9", "classes", train=27, test=18)
    return tmp_path / "data"


def test_without_data_every_set_says_where_it_is_to_be_had(monkeypatch, capsys, tmp_path) -> None:
    code, out, _ = call(monkeypatch, capsys, "--json", "--data-root", str(tmp_path))
    found = json.loads(out)
    assert code == 0 and len(found) == len(known_sets()) > 20
    assert {c["state"] for c in found} == {"missing"}
    for one in found:
        assert "http" in one["advice"] or any("http" in p for p in one["problems"]) or one["name"] in (
            "ade20k_format_sample",
        ), one  # fmt: skip
    by_name = {(c["task"], c["name"]): c for c in found}
    assert "run_all.py prepare cars98 --from PATH" in by_name["classification", "cars98"]["advice"]
    assert "run_all.py prepare lvis_coco80" in by_name["retrieval", "coco_val2017_subset"]["advice"]
    assert "cifar-10-python.tar.gz" in by_name["classification", "cifar10"]["problems"][0]
    assert list(tmp_path.iterdir()) == []  # looking draws and writes nothing


def test_a_whole_set_is_described(monkeypatch, capsys, woofs) -> None:
    code, out, _ = call(monkeypatch, capsys, "imagewoof9", "--json", "--data-root", str(woofs))
    (found,) = json.loads(out)
    assert code == 0 and found["state"] == "ok" and found["problems"] == []
    assert found["splits"] == {"train": 24, "minival": 3, "test": 18} and found["classes"] == 9
    assert found["sample"] == "a picture of 128x128 px" and len(found["fingerprints"]["test"]) == 16
    code, out, _ = call(monkeypatch, capsys, "imagewoof9", "--data-root", str(woofs))
    assert "train 24, minival 3, test 18; 9 classes" in out and found["fingerprints"]["test"] in out and "1 ok" in out


def test_what_is_there_but_not_readable_is_wrong(monkeypatch, capsys, woofs) -> None:
    shard = woofs / "classification" / "imagewoof9_test_00.parquet"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    code, out, _ = call(monkeypatch, capsys, "imagewoof9", "--data-root", str(woofs))
    assert code == 1 and f"{shard}: cannot be read as parquet" in out
    assert "remove what is named, then download https://" in out
    shard.write_bytes(whole)
    meta = woofs / "classification" / "imagewoof9_meta.json"
    meta.write_text('{"class_names": [')
    (found,) = check_sets(["imagewoof9"], woofs)
    assert found.state == "wrong" and "imagewoof9_meta.json: is not JSON" in found.problems[0]


def test_too_few_pictures_are_wrong(monkeypatch, woofs) -> None:
    sized(monkeypatch, "imagewoof9", "classes", train=27, test=540)
    (found,) = check_sets(["imagewoof9"], woofs)
    assert found.state == "wrong" and "has 18 images" in found.problems[0] and "must have 540" in found.problems[0]


def test_detection_and_captions_of_one_pack(monkeypatch, tmp_path) -> None:
    source, data = official_forms.coco(tmp_path, 16), tmp_path / "data"
    prepare("lvis_coco80", [source], data, {"train": 12, "val": 3}, lambda text: None)
    name = "coco_val2017_subset"
    sized(monkeypatch, "lvis_coco80", "boxes", train=12, val=3)
    sized(monkeypatch, name, "captions", train=12, test=3)
    boxes, captions = check_sets(["lvis_coco80"], data), check_sets([name], data)
    (boxes,), (captions,) = boxes, captions
    assert boxes.state == "ok" and boxes.splits == {"train": 11, "minival": 1, "val": 3} and boxes.classes == 4
    assert (boxes.first, boxes.last) == ("thing 1", "thing 90") and "320x240" in boxes.sample
    assert boxes.sample.endswith("scored by LVIS' rules")
    assert captions.state == "ok" and captions.splits == {"train": 11, "test": 3} and "told 0" in captions.first
    labels = data / "detection" / "lvis_coco80_val.json"
    labels.write_text(labels.read_text()[:-100])
    (boxes,) = check_sets(["lvis_coco80"], data)
    assert boxes.state == "wrong" and "lvis_coco80_val.json: is not JSON" in boxes.problems[0]


def test_unknown_sets_are_answered_by_the_nearest(monkeypatch, capsys, tmp_path) -> None:
    with pytest.raises(TaskError, match="nearest: .*cars98"):
        list(check_sets(["cars99"], tmp_path))
    code, _, err = call(monkeypatch, capsys, "cars99", "--data-root", str(tmp_path))
    assert code == 2 and err.count("\n") == 1


@pytest.mark.slow
def test_the_real_packs(capsys) -> None:
    folder = os.environ.get("FLEXIVIT_DATA")
    if not folder:
        pytest.skip("FLEXIVIT_DATA is not set: the packs are not at hand")
    names = ["cars98", "imagewoof9", "voc21", "camvid11", "flickr8k", "coco_val2017_subset", "lvis_coco80"]
    found = {c.name: c for c in check_sets(names, Path(folder))}
    assert [found[n].state for n in names] == ["ok"] * 7
    assert found["cars98"].splits == {"train": 2571, "minival": 286, "test": 980}
    assert found["camvid11"].splits["test"] == 233 and found["lvis_coco80"].classes == 80
