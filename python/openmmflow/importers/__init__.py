# SPDX-License-Identifier: MIT
"""Models of other programs as model files."""
