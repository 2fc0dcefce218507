"""The stages of a run. Each reads manifests and writes one: map, reduce, evaluate, report."""
