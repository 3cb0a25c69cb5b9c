"""The objects, one file each: `draw(canvas, rng) -> Body` and `DEFECTS`, a drawing function for each class."""
