"""The stages of a run: map, reduce, evaluate and the rest. Each stage reads manifests and writes one."""
