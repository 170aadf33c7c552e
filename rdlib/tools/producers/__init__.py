"""Make quantized checkpoints with the packages that the world makes them with, on the CPU: ``make checkpoints``.

One file a package, since no environment holds them all; each imports nothing of rdlib but this folder.  What
they wrote lies in ``rdlib/assets/checkpoints``, and :mod:`rdlib.checkpoints` reads it without any of them.
"""
