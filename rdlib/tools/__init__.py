"""Tools of the maintainers, not in the wheel: the training of the embedded model, and makers of test checkpoints."""
