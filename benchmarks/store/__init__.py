"""Results on disk."""

from benchmarks.store.store import Row, Store, StoreError, environment, key_of, write_atomically

__all__ = ["Row", "Store", "StoreError", "environment", "key_of", "write_atomically"]
