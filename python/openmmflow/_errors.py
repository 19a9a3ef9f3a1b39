# SPDX-License-Identifier: MIT
"""The exception of models that cannot be used. Separate, so that it exists without the compiled part of the package."""


class FlowModelError(ValueError):
    """A model, a model file or an array given to a model that cannot be used.

    The message says what is wrong, what was expected and what to do.
    """


FlowModelError.__module__ = "openmmflow"
