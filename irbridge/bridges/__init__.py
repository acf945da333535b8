"""The bridges, each one class: the law of its state at every time."""

from irbridge.bridges.base import Bridge, Published
from irbridge.bridges.brownian import BBDM, I2SB, Brownian
from irbridge.bridges.ddbm import DDBMVE, DDBMVP
from irbridge.bridges.ebridge import EBridge
from irbridge.bridges.nadb import NADB
from irbridge.bridges.ornstein_uhlenbeck import GOUB, IRSDE, RDBM, LinearOU, OUBridge, UniDB
from irbridge.bridges.shifting import RDDM, DiffUIR, ResShift

__all__ = [
    "BBDM",
    "DDBMVE",
    "DDBMVP",
    "GOUB",
    "I2SB",
    "IRSDE",
    "NADB",
    "RDBM",
    "RDDM",
    "Bridge",
    "Brownian",
    "DiffUIR",
    "EBridge",
    "LinearOU",
    "OUBridge",
    "Published",
    "ResShift",
    "UniDB",
]
