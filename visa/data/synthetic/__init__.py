"""Mini-VisA: a small synthetic data set in VisA's layout, the default where the real one is not at hand."""

from visa.data.synthetic.scene import classes_of, render
from visa.data.synthetic.writer import DEFAULT_OBJECTS, write_mini_visa

__all__ = ["DEFAULT_OBJECTS", "classes_of", "render", "write_mini_visa"]
