"""Floor 1: a model's forward pass as a graph in which every layer call has a name."""
