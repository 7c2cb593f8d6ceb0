"""The shelves of the registry, which knows them by name: `SPECS` of each, or `spec_of(name)` of a family."""
