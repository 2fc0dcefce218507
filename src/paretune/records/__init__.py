"""The records of a run: manifests, typed readers, the seal over them, and safe names for files."""
