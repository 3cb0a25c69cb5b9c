"""The pre-training methods by name, each a file with its loss, heads and published settings."""

METHODS = {
    "simsiam": "visa.pretrain.simsiam",
    "mocov2": "visa.pretrain.mocov2",
    "simclr": "visa.pretrain.simclr",
    "supervised": "visa.pretrain.supervised",
}

VERSION = 2
"""Raise it when the same settings and images give other weights; what an earlier version trained is made anew."""
