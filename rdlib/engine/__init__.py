"""One walk through a model of any size, layer by layer, for everything that runs it."""

from rdlib.extras import extra

with extra("models", "rdlib.engine"):
    from rdlib.engine.course import Progress, bar
    from rdlib.engine.curvature import Curvature, curvature
    from rdlib.engine.found import Walk
    from rdlib.engine.layers import Layers
    from rdlib.engine.moments import Moments, bias_of_limits
    from rdlib.engine.text import Text, second_moments
    from rdlib.engine.variant import Blind, Given, InBfloat16, Noisy, Quantized, Stored, TwoSided, Variant
    from rdlib.engine.walker import walk
