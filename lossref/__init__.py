"""Reference deep-learning losses, accurate to the last bit where that is possible."""
