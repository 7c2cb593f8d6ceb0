"""One reader for each form on disk: class folders, parquet, saved sets, tars, torchvision's own downloads."""
