"""What information theory allows: rate–distortion functions, bounds, and the constants of quantization."""

from rdlib.theory.blahut import blahut_arimoto, rate_lower_at
from rdlib.theory.block_maximum import (
    block_normalised,
    gaussian_block_density,
    gaussian_block_levels,
    gaussian_block_mse,
)
from rdlib.theory.entropy import (
    check_histogram,
    differential_entropy,
    entropy_power,
    shannon_distortion,
    shannon_rate,
)
from rdlib.theory.entropy_coded import EntropyCodedUniform, entropy_coded_uniform, entropy_coded_uniform_at
from rdlib.theory.gaussian import (
    BITS_PER_NAT,
    DB_PER_BIT,
    bits_to_nats,
    gaussian_distortion,
    gaussian_rate,
    nats_to_bits,
    to_db,
)
from rdlib.theory.high_resolution import (
    NORMALIZED_SECOND_MOMENTS,
    PANTER_DITE_GAUSSIAN,
    high_resolution,
    space_filling_loss_db,
    sphere_second_moment,
)
from rdlib.theory.output import det_distortion, output_distortion, output_rate, sample_size_bias, spectrum
from rdlib.theory.rate_distortion import RateDistortion
from rdlib.theory.water_filling import WaterFilling, water_filling, water_filling_at_rate
from rdlib.theory.whole_model import ModelLimit, Share
