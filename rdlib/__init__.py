"""Rate and distortion of quantized Llama weights, every bit counted."""
