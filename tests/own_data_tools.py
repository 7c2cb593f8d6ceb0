"""Class folders, tables and saved sets as people have them, drawn small."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from data_tools import picture


def encoded(tmp: Path, seed: int) -> bytes:
    return picture(tmp / "one.png", seed).read_bytes()


def folders(root: Path, splits: tuple[str, ...] = ("train", "test"), suffix: str = ".png", each: int = 3) -> Path:
    """`own/SPLIT/{ant,bee}/i.png`; all pictures differ."""
    for s, split in enumerate(splits):
        for c, name in enumerate(("ant", "bee")):
            for i in range(each):
                picture(root / "own" / split / name / f"{i}{suffix}", 1000 * s + 100 * c + i)
    return root


def table(path: Path, labels: list, images: list | None = None, features: dict | None = None, **names: str) -> Path:
    """A parquet file; `names` renames the columns image and label."""
    images = images or [encoded(path.parent.parent, i) for i in range(len(labels))]
    columns = {names.get("image", "image"): images, names.get("label", "label"): labels}
    content = pa.table(columns)
    if features:
        content = content.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(content, path)
    return path


def saved(folder: Path, labels: list[int], names: list[str]) -> None:
    """What `save_to_disk` writes of one split."""
    folder.mkdir(parents=True)
    images = [{"bytes": encoded(folder.parent, i), "path": None} for i in range(len(labels))]
    content = pa.table({"image": images, "label": labels})
    with pa.OSFile(str(folder / "data.arrow"), "wb") as file, pa.ipc.new_stream(file, content.schema) as out:
        out.write_table(content)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {"label": {"names": names}}}))
