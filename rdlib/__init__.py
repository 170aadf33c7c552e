"""Rate and distortion of quantized Llama weights, every bit counted.

:func:`rdlib.models.open_checkpoint` opens a model, :func:`rdlib.measure.measure` says what a quantizer of
:mod:`rdlib.quantizers` spends on a matrix and what error it makes.

- The weights: :mod:`rdlib.models`, :mod:`rdlib.weights`, :mod:`rdlib.histogram`, :mod:`rdlib.statistics`,
  :mod:`rdlib.grid`.
- Bounds: :mod:`rdlib.theory`.
- Codes with prices: :mod:`rdlib.code`, :mod:`rdlib.quantizers`, and :mod:`rdlib.checkpoints` of other programs.
- What the model does: :mod:`rdlib.network`, :mod:`rdlib.engine`, :mod:`rdlib.functional`, :mod:`rdlib.allocation`.
- Whole models: :mod:`rdlib.census`, :mod:`rdlib.audit`.
- Notebooks and pages: :mod:`rdlib.runs`, :mod:`rdlib.explorer`, :mod:`rdlib.plot`.
"""
