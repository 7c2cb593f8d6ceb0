"""Results on disk."""

from benchmarks.store.environment import environment
from benchmarks.store.files import StoreError, write_atomically
from benchmarks.store.row import Row, key_of
from benchmarks.store.rows_file import Entry
from benchmarks.store.store import Store

__all__ = ["Entry", "Row", "Store", "StoreError", "environment", "key_of", "write_atomically"]
