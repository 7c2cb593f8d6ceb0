"""Which label map is the prediction of which: files of two folders, by their names without suffixes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath

from tasks.data.errors import Missing, Wrong

PNG = ".png"
# suffix -> whether all maps of a folder must have it (others beside it are pictures of the same masks)
KNOWN_SUFFIXES = {"_gtFine_labelTrainIds.png": False, "_leftImg8bit.png": True}
NO_TRAIN_IDS = "_gtFine_labelIds.png"


def label_maps(folder: str | Path, suffix: str | None, what: str) -> tuple[dict[str, Path], str]:
    """Files of a folder and its sub-folders by their path without the suffix, and the suffix.

    Hidden files and folders and macOS' doubles are passed over. Without a suffix it is that of Cityscapes where the
    files have it, else `.png`.

    Args: what: predictions or annotations, for messages.
    Raises: Missing where there is no folder, or no such file in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise Missing(f"no such folder of {what}", path=folder)
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    names = [n for n in names if not any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(n).parts)]
    chosen = suffix or _usual_suffix(names)
    found = {n[: -len(chosen)]: folder / n for n in names if n.lower().endswith(chosen.lower())}
    if not found:
        endings = Counter(PurePosixPath(n).suffix for n in names).most_common(3)
        there = ", ".join(f"{count} {ending or 'without suffix'}" for ending, count in endings) or "no file"
        raise Missing(f"no file ends in {chosen} ({what}); there: {there}", path=folder, advice=_advice(names, what))
    if chosen == PNG and what == "annotations" and any(n.endswith(NO_TRAIN_IDS) for n in names):
        raise Wrong(f"has files *{NO_TRAIN_IDS}, whose ids are not the 19 classes", path=folder, advice=_TRAIN_IDS)
    return found, chosen


_TRAIN_IDS = "run cityscapesscripts' createTrainIdLabelImgs, which writes *_gtFine_labelTrainIds.png"


def _advice(names: list[str], what: str) -> str:
    return "" if not names else f"say --{what.removesuffix('s')}-suffix"


def _usual_suffix(names: list[str]) -> str:
    maps = [n for n in names if n.lower().endswith(PNG)]
    for suffix, everywhere in KNOWN_SUFFIXES.items():
        have = [n for n in maps if n.endswith(suffix)]
        if have and (len(have) == len(maps) or not everywhere):
            return suffix
    return PNG


def pairs(
    predictions: str | Path, annotations: str | Path, prediction_suffix: str | None, annotation_suffix: str | None
) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Prediction and annotation of each picture, and notes on what was assumed.

    Files pair by their path inside the folder, or where that does not fit by their name alone, if names are unique.

    Raises: Missing where a picture has only one of the two, naming it. Missing and Wrong as `label_maps`.
    """
    predicted, first = label_maps(predictions, prediction_suffix, "predictions")
    annotated, second = label_maps(annotations, annotation_suffix, "annotations")
    notes = [
        f"{what} are the files *{suffix} (--{what.removesuffix('s')}-suffix for others)"
        for what, given, suffix in (
            ("predictions", prediction_suffix, first),
            ("annotations", annotation_suffix, second),
        )
        if not given and suffix != PNG
    ]
    if predicted.keys() != annotated.keys():
        flat = [{PurePosixPath(key).name: path for key, path in found.items()} for found in (predicted, annotated)]
        unique = len(flat[0]) == len(predicted) and len(flat[1]) == len(annotated)
        if unique and flat[0].keys() == flat[1].keys():
            predicted, annotated = flat
            notes.append("files are paired by their names, without the folders that they are in")
    sides = ((predicted, annotated, predictions, first), (annotated, predicted, annotations, second))
    for have, want, where, suffix in sides:
        if missing := sorted(want.keys() - have.keys()):
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            near = f"{len(have.keys() & want.keys())} of {len(want)} pictures have both"
            raise Missing(
                f"no {missing[0]}{suffix}{more}; predictions and annotations pair by name, {near}", path=where,
                advice="say --prediction-suffix or --annotation-suffix" if len(missing) == len(want) else "",
            )  # fmt: skip
    return [(predicted[name], path) for name, path in annotated.items()], notes
