"""Vector quantizers: learned codebooks."""
