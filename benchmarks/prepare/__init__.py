"""The small packs, built from official downloads: `prepare("cars98", [Path("stanford_cars")], Path("data"))`."""

from benchmarks.prepare.packs import PACKS, Pack, prepare

__all__ = ["PACKS", "Pack", "prepare"]
