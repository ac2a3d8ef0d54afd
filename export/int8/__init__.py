"""From calibration texts to what becomes 8 bits, and how far off it is."""
