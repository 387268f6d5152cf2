"""Positional encodings: sinusoidal, learned, ALiBi and rotary."""
