"""Mini-VisA: a small synthetic data set in VisA's layout, the default if no data set is given."""

from visa.mini.scene import MODULES, classes_of, render
from visa.mini.writer import DEFAULT_OBJECTS, present, write_mini_visa

__all__ = ["DEFAULT_OBJECTS", "MODULES", "classes_of", "present", "render", "write_mini_visa"]
