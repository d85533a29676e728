"""Maps of where something is seen: how channels become a map, and how a map is brought to the size of the input."""
