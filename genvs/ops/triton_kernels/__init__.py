"""Fused kernels, twins of `genvs.ops.reference`: channels last, one pass over memory where plain torch takes several.

Imported only by `genvs.ops`, and only where Triton is installed.
"""
