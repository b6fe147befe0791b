"""Blocks, arms and networks; putting blocks into networks; saving and loading them."""

from smooth_attention.core.arms import ARMS
from smooth_attention.models.arms import resolve_arm
from smooth_attention.models.blocks import Block, SmoothAttention, block_mode
from smooth_attention.models.insertion import insert, remove
from smooth_attention.models.network import Network
from smooth_attention.models.paper import PaperUNet
from smooth_attention.models.preprocessing import Preprocessing
from smooth_attention.models.smp import create_model
from smooth_attention.models.store import load_model

__all__ = [
    "ARMS",
    "Block",
    "Network",
    "PaperUNet",
    "Preprocessing",
    "SmoothAttention",
    "block_mode",
    "create_model",
    "insert",
    "load_model",
    "remove",
    "resolve_arm",
]
