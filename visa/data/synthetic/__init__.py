"""Mini-VisA: a small synthetic data set in VisA's layout, the default where the real one is not at hand."""

from visa.data.synthetic.scene import MODULES, classes_of, render
from visa.data.synthetic.writer import DEFAULT_OBJECTS, present, write_mini_visa

__all__ = ["DEFAULT_OBJECTS", "MODULES", "classes_of", "present", "render", "write_mini_visa"]
