"""How fast gradtap is, against what an engineer would write by hand and against its peers: `python -m benchmarks`."""
