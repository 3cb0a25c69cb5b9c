"""The objects: `draw(canvas, rng) -> Body` and `DEFECTS`, a drawing function for each class; like ones share a file."""
