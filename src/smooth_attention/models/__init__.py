"""Blocks, arms and networks; saving and loading them."""

from smooth_attention.core.arms import ARMS
from smooth_attention.models.arms import resolve_arm
from smooth_attention.models.blocks import Block, SmoothAttention, block_mode
from smooth_attention.models.network import Network, Preprocessing
from smooth_attention.models.paper import PaperUNet
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
    "load_model",
    "resolve_arm",
]
