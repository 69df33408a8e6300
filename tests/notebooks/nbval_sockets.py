"""A plugin for pytest: nbval's kernels over sockets of their own, since tests run in parallel (see ``classroom.kernels``)."""

import nbval.kernel

from melanoma_lib.classroom.kernels import OwnSocketsManager

assert nbval.kernel.KernelManager, "nbval starts kernels in another way than when this was written"
nbval.kernel.KernelManager = OwnSocketsManager
