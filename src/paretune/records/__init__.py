"""What a run leaves: typed readers of its records, the seal over them, safe names."""
