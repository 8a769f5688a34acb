"""
Build facts, processor features and low-level access to the torch-free core.
"""

from __future__ import annotations

__all__: list[str] = ["build_info", "cpu_features"]

def build_info() -> dict:
    """
    How the native libraries were built.

    Keys: version, format_version, torch_version, cuda, cuda_why_not (empty if cuda),
    cuda_version (None if not cuda), cuda_archs, compiler, target, build_type.
    """

def cpu_features() -> list[str]:
    """
    Instruction set extensions that the kernels may use: those of this processor that LMGC_ISA
    in the environment allows. Empty on other machines than x86-64.
    """
