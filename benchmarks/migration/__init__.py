"""What the pages of docs/migration say about numbers: the peers' lines and gradtap's, on the same weights and images.

`theirs/PEER.py` holds the peer's lines, as the page shows them. It runs in the peer's environment and never sees
gradtap; Captum's never sees TensorFlow. `ours/PEER.py` holds gradtap's, and what is said of the two. Arrays travel in
files. `python -m benchmarks.migration [PEER ...]` writes what is found into the pages.
"""
