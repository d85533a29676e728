"""Many runs of the rest of a model on one batch: paths, noise and ablations at a tap.

`stages` holds the stage that they play on: the graph cut in two at some taps, the first part run once, the second one
for whatever is put there. `slope_legs` makes the cuts, `integrals` and `ablations` are what several methods share, and
the rest is what they are given: baselines, nodes and weights, draws, a progress bar.
"""
