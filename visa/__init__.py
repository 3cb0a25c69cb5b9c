"""Research companion to VisA and SPD (Zou et al., ECCV 2022)."""

__version__ = "0.2.0.dev0"
