"""The pre-training methods by name; each is a class in a module with its loss and its PUBLISHED settings."""

METHODS = {
    "simsiam": "visa.pretrain.simsiam.SimSiam",
    "mocov2": "visa.pretrain.mocov2.MoCoV2",
    "simclr": "visa.pretrain.simclr.SimCLR",
    "supervised": "visa.pretrain.supervised.Supervised",
    "auxiliary": "visa.pretrain.auxiliary.Auxiliary",
}

DEFAULT, DEFAULT_ADAPTATION = "simsiam", "auxiliary"  # from random weights, and for given ones

VERSION = 3
"""Raise it when the same settings and images give other weights; those of an earlier version are then trained again."""
