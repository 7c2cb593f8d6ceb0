"""Data that is torn, absurd or hostile: named, recorded, or counted where the user asked to pass over it."""

import io
import json
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import official_forms
import pytest
import torch
from fault_tools import cell, class_folders, run_cells
from PIL import Image

from tasks import build_task
from tasks.contract import TaskError
from tasks.data.pictures import MAX_PIXELS, check_picture, read_picture
from tasks.data.sets.masked import masked_set


def cut(path: Path, part: float = 0.5) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])


def ok(rows: list[dict]) -> list[dict]:
    return [r for r in rows if r["status"] == "ok"]


def torn_inside(path: Path) -> Path:
    """A PNG with a good head and end whose pixels cannot be decoded: only decoding finds that out."""
    name = path.with_suffix(".png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8)).save(name)
    content = bytearray(name.read_bytes())
    at = content.index(b"IDAT") + 60
    content[at : at + 40] = bytes(40)
    name.write_bytes(bytes(content))
    path.unlink()
    return name


def test_a_truncated_picture_of_the_test_split_blocks_its_cell_alone(tmp_path) -> None:
    class_folders(tmp_path / "good"), class_folders(tmp_path / "bad")
    torn = tmp_path / "bad" / "test" / "dog" / "1.jpg"
    cut(torn)
    summary, rows = run_cells(tmp_path, cell("bad"), cell("good"))
    assert summary.status == 1 and len(summary.blocked) == 1 and len(summary.ran) == 1
    assert summary.blocked[0][1].startswith(f"{torn}: cannot be decoded: ")
    assert len(ok(rows)) == len(rows) == 2 and all(r["images"] == 8 and not r["skipped"] for r in ok(rows))


def test_a_picture_that_only_decoding_finds_torn_fails_its_cell_alone(tmp_path) -> None:
    class_folders(tmp_path / "good"), class_folders(tmp_path / "bad")
    torn = torn_inside(tmp_path / "bad" / "test" / "dog" / "1.jpg")
    summary, rows = run_cells(tmp_path, cell("bad"), cell("good"))
    assert summary.status == 1 and len(summary.failed) == 1 and len(summary.ran) == 1
    failed = [r for r in rows if r["status"] == "failed"]
    assert len(failed) == 1 and failed[0]["error"].startswith(f"Wrong: {torn}: cannot be decoded: ")
    assert len(ok(rows)) == 2


def test_skipped_pictures_are_counted_and_never_taken_for_whole_results(tmp_path) -> None:
    class_folders(tmp_path / "bad")
    for place in ("test/dog/1.jpg", "train/cat/0.jpg", "train/cat/2.jpg", "train/dog/3.jpg"):
        cut(tmp_path / "bad" / place)
    said: list[str] = []
    summary, rows = run_cells(tmp_path, cell("bad"), said=said, skip=True)
    assert summary.status == 0 and [r["images"] for r in rows] == [7, 7]
    row = rows[0]
    assert row["skipped"]["test"]["count"] == 1 and "dog/1.jpg" in row["skipped"]["test"]["first"][0]
    assert row["skipped"]["train"]["count"] >= 2 and row["training"]["skipped"] == row["skipped"]["train"]
    assert any("1 of 8 pictures of test skipped, the first: " in n and "dog/1.jpg: cannot" in n for n in row["notes"])
    assert any("pictures of test skipped" in s for s in said) and any("pictures of train skipped" in s for s in said)
    with np.load(tmp_path / "out" / row["samples"]) as samples:
        assert samples["ids"].tolist() == [0, 1, 2, 3, 4, 6, 7]  # dog/1.jpg has the index 5
    again, rows = run_cells(tmp_path, cell("bad"), skip=True)
    assert len(again.done) == 1 and len(rows) == 2
    # a run that wants every picture takes neither these rows nor these weights
    strict, rows = run_cells(tmp_path, cell("bad"))
    assert strict.status == 1 and len(rows) == 2 and "cannot be decoded" in strict.blocked[0][1]
    class_folders(tmp_path / "bad")
    mended, rows = run_cells(tmp_path, cell("bad"))
    assert mended.status == 0 and len(rows) == 4 and all(not r["skipped"] and r["images"] == 8 for r in rows[2:])


def test_scores_that_need_every_picture_are_never_made_of_fewer(tmp_path) -> None:
    class_folders(tmp_path / "bad")
    cut(tmp_path / "bad" / "test" / "dog" / "1.jpg")
    entry = {"task": "image_retrieval", "options": {"data": "bad/"}}
    summary, rows = run_cells(tmp_path, entry, skip=True)
    assert summary.status == 1 and [r["status"] for r in rows] == ["failed"]
    assert "dog/1.jpg: cannot be decoded" in rows[0]["error"]


def test_a_worker_s_error_is_told_as_plainly(tmp_path) -> None:
    class_folders(tmp_path / "bad")
    torn_inside(tmp_path / "bad" / "test" / "dog" / "1.jpg")
    _, plain = run_cells(tmp_path, cell("bad"), out=tmp_path / "plain")
    _, worked = run_cells(tmp_path, cell("bad"), out=tmp_path / "worked", workers=1)
    assert worked[-1]["error"] == plain[-1]["error"] and "1.png: cannot be decoded" in plain[-1]["error"]


def test_a_missing_class_folder_is_named(tmp_path) -> None:
    class_folders(tmp_path / "good"), class_folders(tmp_path / "bad")
    for path in (tmp_path / "bad" / "test" / "dog").iterdir():
        path.unlink()
    (tmp_path / "bad" / "test" / "dog").rmdir()
    summary, rows = run_cells(tmp_path, cell("bad"), cell("good"))
    assert summary.status == 1 and len(summary.ran) == 1 and len(ok(rows)) == len(rows) == 2
    assert "has no folder of class 'dog' (1 of 2 are missing)" in summary.blocked[0][1]


def test_unreadable_parquet_is_named(tmp_path) -> None:
    class_folders(tmp_path / "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "train_00.parquet").write_bytes(b"PAR1 and then nothing")
    summary, rows = run_cells(tmp_path, cell("bad"), cell("good"))
    assert "train_00.parquet: cannot be read as parquet" in summary.blocked[0][1] and "\n" not in summary.blocked[0][1]
    assert summary.status == 1 and len(ok(rows)) == 2
    for task, name, place in (
        ("retrieval", "flickr8k", "retrieval/flickr8k_train_00.parquet"),
        ("image_retrieval", "cars98", "classification/cars98_test_00.parquet"),
    ):
        path = tmp_path / place
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"no parquet at all")
        assert f"{path}: cannot be read as parquet" in str(build_task(task, tmp_path, {"data": name}).missing()[0])


@pytest.mark.parametrize("content", [b'{"images": [', b"\xff\xfe\x00", b"[]"], ids=["torn", "no text", "a list"])
def test_wrong_json_of_boxes_blocks_its_cell_before_a_step(tmp_path, content: bytes) -> None:
    class_folders(tmp_path / "good")
    (tmp_path / "boxes").mkdir()
    for split in ("train", "val"):
        (tmp_path / "boxes" / f"{split}.json").write_bytes(content)
    entry = {"task": "detection", "options": {"data": "boxes", "side": 24, "text": "tiny"}, "recipe": {"steps": 0}}
    summary, rows = run_cells(tmp_path, entry, cell("good"))
    assert summary.status == 1 and len(ok(rows)) == len(rows) == 2
    ((_, why),) = summary.blocked
    assert f"{tmp_path / 'boxes' / 'train.json'}: " in why and "\n" not in why


@pytest.mark.parametrize("content", [b'{"images": [', b"[]", b'{"images": [{"filename": "a.jpg"}]}'])
def test_wrong_json_of_captions_is_named(tmp_path, content: bytes) -> None:
    (tmp_path / "captions.json").write_bytes(content)
    (error,) = build_task("retrieval", tmp_path, {"data": "captions.json"}).missing()
    text = str(error)
    assert "captions.json" in text and "\n" not in text


def test_torn_pictures_of_torchvision_s_sets_are_named(tmp_path) -> None:
    from tasks.data.readers.official import read_torchvision

    root = official_forms.cars(tmp_path)
    cars = read_torchvision("cars", tmp_path, "stanford_cars", "train")
    assert read_picture(cars.read(0)).size == (40, 30)
    cut(root / "cars_train" / "00001.jpg")
    with pytest.raises(TaskError, match=r"cars_train/00001\.jpg: cannot be decoded"):
        read_picture(cars.read(0), cars.pictures.where(0))


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it has so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = chunk(b"IDAT", zlib.compress(bytes(1 << 16)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + rows + chunk(b"IEND", b"")


def test_decompression_bombs_are_refused_before_they_are_decoded(tmp_path) -> None:
    side = int(MAX_PIXELS**0.5) + 1
    for width, height in ((side, side), (50_000, 50_000), (2_000_000, 2_000_000)):
        with pytest.raises(TaskError, match=r"a\.png: (is \d+x\d+ px|cannot be decoded: Image size)"):
            read_picture(bomb(width, height), "a.png")
    class_folders(tmp_path / "bad")
    (tmp_path / "bad" / "test" / "dog" / "1.jpg").write_bytes(bomb(30_000, 30_000))
    summary, rows = run_cells(tmp_path, cell("bad"))
    assert not rows and "dog/1.jpg" in summary.blocked[0][1]


def test_segmentation_decodes_with_the_same_limits(tmp_path) -> None:
    from tasks.segmentation.pipelines import SegmentationData

    for part in ("images", "annotations"):
        (tmp_path / "set" / part / "val").mkdir(parents=True)
    (tmp_path / "set" / "meta.json").write_text('{"class_names": ["a"]}')
    Image.fromarray(np.zeros((60, 80), np.uint8)).save(tmp_path / "set" / "annotations" / "val" / "b.png")
    picture = tmp_path / "set" / "images" / "val" / "b.jpg"
    picture.write_bytes(bomb(30_000, 30_000))
    val = SegmentationData(masked_set("set", tmp_path).load("val"), 32)
    with pytest.raises(TaskError, match=r"b\.jpg: (is 30000x30000 px|cannot be decoded: Image size)"):
        val[0]
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)).save(picture)
    assert val[0][0].shape == (3, 60, 80)
    whole = picture.read_bytes()
    for torn in (whole[: len(whole) // 2], whole[: len(whole) // 2] + bytes(len(whole) // 2)):
        picture.write_bytes(torn)
        with pytest.raises(TaskError, match=r"b\.jpg: cannot be decoded"):
            val[0]


def encoded(kind: str) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)).save(sink, kind)
    return sink.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_torn_pictures_are_told_from_whole_ones(kind: str) -> None:
    whole = encoded(kind)
    assert read_picture(whole).size == check_picture(whole) == (80, 60)
    assert read_picture(whole + bytes(1000)).size == (80, 60)  # a tail harms no one
    for part in (0.1, 0.5, 0.98):
        with pytest.raises(TaskError, match="x: cannot be decoded"):
            read_picture(whole[: int(len(whole) * part)], "x")
    for nothing in (b"", b"<html>not found</html>", bytes(100)):
        with pytest.raises(TaskError, match="x: cannot be decoded: not a picture"):
            read_picture(nothing, "x")


def test_an_interrupted_copy_is_no_picture() -> None:
    whole = encoded("JPEG")
    with pytest.raises(TaskError, match="ends in zeros, an interrupted copy"):
        read_picture(whole[: len(whole) // 2] + bytes(len(whole) // 2))


def test_formats_with_an_interpreter_behind_them_are_not_opened() -> None:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(TaskError, match="not a picture"):
        read_picture(eps)


class Touch:
    """Unpickling it would write a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_no_loader_of_weights_runs_code_of_a_pickle(tmp_path) -> None:
    from backbones.weights.npz import read_npz
    from tasks.classification.prediction_files import score_classification
    from tasks.retrieval.scoring import score_embeddings
    from tasks.text.towers import build_text_tower

    mark = tmp_path / "was_here"
    array = np.array([Touch(mark)], dtype=object)
    np.savez(tmp_path / "evil.npz", **{"params/embedding/kernel": array, "ids": array, "label": array, "ranked": array})
    np.save(tmp_path / "evil.npy", array, allow_pickle=True)
    torch.save({"model": Touch(mark), "state_dict": Touch(mark)}, tmp_path / "evil.pt")
    (tmp_path / "pairs.json").write_text(json.dumps({"0": 0}))
    loads = (
        lambda: read_npz(tmp_path / "evil.npz"),
        lambda: score_classification(tmp_path / "evil.npz"),
        lambda: score_embeddings(tmp_path / "evil.npy", tmp_path / "evil.npy", tmp_path / "pairs.json"),
        lambda: build_text_tower("tiny", str(tmp_path / "evil.pt"), 0.0),
    )
    for load in loads:
        with pytest.raises((ValueError, pickle.UnpicklingError)):
            load()
        assert not mark.exists()


def test_a_checkpoint_with_code_is_a_recorded_failure(tmp_path) -> None:
    class_folders(tmp_path / "good")
    run_cells(tmp_path, cell("good"))
    mark = tmp_path / "was_here"
    (kept,) = (tmp_path / "out" / "checkpoints").glob("*.pt")
    torch.save({"model": Touch(mark), "notes": {}}, kept)
    (tmp_path / "out" / "rows.jsonl").unlink()
    summary, rows = run_cells(tmp_path, cell("good"))
    assert summary.status == 1 and rows[0]["status"] == "failed" and kept.name in rows[0]["error"]
    assert not mark.exists()


def test_every_load_in_the_code_is_a_safe_one() -> None:
    import ast

    import run_all

    root, found = Path(run_all.__file__).parent, []
    for path in [*(p for f in ("backbones", "tasks", "benchmarks") for p in (root / f).rglob("*.py"))]:
        tree = ast.parse(path.read_text())
        # a reader that refuses every name but those of plain data: the only pickle there may be
        used = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and ast.unparse(n.value) == "pickle"}
        guarded = (
            used <= {"UnpicklingError"}
            or used <= {"Unpickler", "UnpicklingError"}
            and any(
                isinstance(n, ast.ClassDef)
                and [ast.unparse(b) for b in n.bases] == ["pickle.Unpickler"]
                and any(getattr(f, "name", "") == "find_class" for f in n.body)
                for n in ast.walk(tree)
            )
        )
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom) and not guarded:
                names = [a.name for a in node.names] + [getattr(node, "module", "") or ""]
                found += [f"{path}: {n}" for n in names if n.split(".")[0] in ("pickle", "cPickle", "dill", "marshal")]
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            where, keywords = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
            if where == "torch.load" and keywords.get("weights_only") != "True":
                found.append(f"{path}:{node.lineno} {where}")
            if where == "np.load" and keywords.get("allow_pickle", "False") != "False":
                found.append(f"{path}:{node.lineno} {where}")
            if node.func.attr in ("extractall", "extract") and "tar" in where and keywords.get("filter") != "'data'":
                found.append(f"{path}:{node.lineno} {where}")
    assert found == []
